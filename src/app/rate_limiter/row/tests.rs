use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn noon() -> Timestamp {
    at("2026-03-02T12:00:00Z")
}

#[test]
fn a_rate_spaces_requests_evenly() {
    let limits = Limits { per_second: Some(4.0), ..Limits::default() };
    let mut row = RateLimitRow::default();
    let waits: Vec<u128> =
        (0..4).map(|_| row.admit(limits, 0, Precedence::First, noon()).unwrap().as_millis()).collect();
    assert_eq!(waits, [0, 250, 500, 750]);
    let later = noon() + Duration::from_secs(60);
    assert_eq!(
        row.admit(limits, 0, Precedence::First, later).unwrap(),
        Duration::ZERO,
        "what was not used is not saved up"
    );
}

#[test]
fn a_rate_that_is_used_up_for_long_is_refused_without_being_used() {
    let limits = Limits { per_second: Some(1.0), ..Limits::default() };
    let mut row = RateLimitRow::default();
    for _ in 0..3 {
        row.admit(limits, 0, Precedence::First, noon()).unwrap();
    }
    let before = row.clone();
    assert!(row.admit(limits, 0, Precedence::First, noon()).is_err());
    assert_eq!(row, before);
}

#[test]
fn full_passes_take_what_the_day_leaves() {
    let limits = Limits { per_day: Some(1000), ..Limits::default() };
    let mut row = RateLimitRow::default();
    let rest = (0..2000).take_while(|_| row.admit(limits, 0, Precedence::Rest, noon()).is_ok()).count();
    assert_eq!(rest, 900, "half a day is left, so half of the fifth is kept");
    let first = (0..2000).take_while(|_| row.admit(limits, 0, Precedence::First, noon()).is_ok()).count();
    assert_eq!(first, 100);
    let held = row.admit(limits, 0, Precedence::First, noon()).unwrap_err();
    assert_eq!(held.pause, Duration::from_secs(12 * 3600));
    // On the next day as many requests are reserved as came first on the day before.
    let morning = at("2026-03-03T00:00:00Z");
    assert!(row.admit(limits, 0, Precedence::Rest, morning).is_ok());
    assert_eq!((row.first_before, row.asked_first, row.asked_rest), (100, 0, 1));
}

#[test]
fn the_last_minute_of_a_day_keeps_something_for_calls() {
    let late = at("2026-03-02T23:59:30Z");
    for (budget, kept) in [(1000, 10), (50, 1), (6, 1), (2, 1), (1, 0)] {
        let limits = Limits { per_day: Some(budget), ..Limits::default() };
        let mut row = RateLimitRow::default();
        let rest = (0..2000).take_while(|_| row.admit(limits, 0, Precedence::Rest, late).is_ok()).count();
        let first = (0..2000).take_while(|_| row.admit(limits, 0, Precedence::First, late).is_ok()).count();
        assert_eq!((rest as i64, first as i64), (budget - kept, kept));
    }
}

#[test]
fn what_a_wrong_clock_has_set_is_taken_back() {
    let limits = Limits { per_second: Some(0.01), per_day: Some(1000), at_once: None };
    for ahead in [Duration::from_secs(2 * 86_400), Duration::from_secs(10 * 86_400), Duration::from_secs(400 * 86_400)]
    {
        let mut row = RateLimitRow::default();
        let wrong = noon() + ahead;
        row.admit(limits, 0, Precedence::First, wrong).unwrap();
        row.observe(Answered::Throttled { pause: Some(Duration::from_secs(60)) }, wrong);
        assert!(row.admit(limits, 0, Precedence::First, noon()).is_err(), "it stops everybody until then");
        assert!(row.put_right(limits, noon()));
        assert_eq!(row.admit(limits, 0, Precedence::First, noon()).unwrap(), Duration::ZERO);
        assert_eq!((row.day, row.asked_first), (noon().as_millisecond() / DAY_MS, 1));
    }
}

#[test]
fn what_right_clocks_set_stays() {
    let limits = Limits { per_second: Some(0.01), per_day: Some(1000), at_once: None };
    let mut row = RateLimitRow::default();
    row.admit(limits, 0, Precedence::First, noon()).unwrap();
    row.observe(Answered::Throttled { pause: Some(LONGEST_ASKED_PAUSE) }, noon());
    // A worker whose clock is a little behind reads the row.
    let behind = noon() - Duration::from_secs(29);
    assert!(!row.clone().put_right(limits, behind), "{row:?}");
    let mut row = RateLimitRow::default();
    for _ in 0..FAILURES_TO_OPEN + 20 {
        row.observe(Answered::Badly, noon());
    }
    assert!(!row.clone().put_right(limits, behind), "{row:?}");
    let mut row = RateLimitRow::default();
    let midnight = at("2026-03-03T00:00:05Z");
    row.admit(limits, 0, Precedence::First, midnight).unwrap();
    assert!(!row.put_right(limits, midnight - Duration::from_secs(20)), "the day has begun for somebody");
}

#[test]
fn only_so_many_at_once() {
    let limits = Limits { at_once: Some(2), ..Limits::default() };
    let mut row = RateLimitRow::default();
    assert!(row.admit(limits, 1, Precedence::First, noon()).is_ok());
    assert!(row.admit(limits, 2, Precedence::First, noon()).is_err());
}

#[test]
fn a_pause_asked_for_holds_everybody() {
    let mut row = RateLimitRow::default();
    row.observe(Answered::Throttled { pause: Some(Duration::from_secs(7)) }, noon());
    let held = row.admit(Limits::default(), 0, Precedence::First, noon()).unwrap_err();
    assert_eq!(held.pause, Duration::from_secs(7));
    assert!(row.admit(Limits::default(), 0, Precedence::First, noon() + Duration::from_secs(7)).is_ok());
    // A later, shorter pause does not shorten it.
    row.observe(Answered::Throttled { pause: Some(Duration::from_secs(1)) }, noon());
    assert_eq!(row.free_of_holds(noon()).unwrap_err().pause, Duration::from_secs(7));
}

#[test]
fn a_dead_platform_is_left_alone_and_tried_by_one() {
    let mut row = RateLimitRow::default();
    for _ in 0..FAILURES_TO_OPEN - 1 {
        row.observe(Answered::Badly, noon());
        assert!(row.free_of_holds(noon()).is_ok());
    }
    row.observe(Answered::Badly, noon());
    assert_eq!(row.free_of_holds(noon()).unwrap_err().pause, FIRST_OPENING);
    let later = noon() + FIRST_OPENING;
    assert!(row.admit(Limits::default(), 0, Precedence::First, later).is_ok(), "one may try");
    assert!(row.admit(Limits::default(), 0, Precedence::First, later).is_err(), "the others wait for it");
    row.observe(Answered::Badly, later);
    assert_eq!(row.free_of_holds(later).unwrap_err().pause, FIRST_OPENING * 2);
    row.observe(Answered::Well { rest: None }, later);
    assert!(row.admit(Limits::default(), 0, Precedence::First, later).is_ok());
    assert!(row.is_well());
}

#[test]
fn a_refused_key_holds_everybody_and_is_tried_by_one_a_minute() {
    let mut row = RateLimitRow::default();
    row.observe(Answered::Refused, noon());
    assert!(row.is_refused() && !row.is_well());
    let held = row.admit(Limits::default(), 0, Precedence::First, noon()).unwrap_err();
    assert_eq!((held.reason, held.pause), ("the platform refuses the key", REFUSED_PAUSE));
    let later = noon() + REFUSED_PAUSE;
    assert!(row.admit(Limits::default(), 0, Precedence::Rest, later).is_ok(), "one may try");
    assert!(row.admit(Limits::default(), 0, Precedence::First, later).is_err(), "the others wait for it");
    row.observe(Answered::Refused, later);
    assert_eq!(row.free_of_holds(later).unwrap_err().pause, REFUSED_PAUSE, "no longer than before");
    let later = later + REFUSED_PAUSE;
    assert!(row.admit(Limits::default(), 0, Precedence::First, later).is_ok());
    row.observe(Answered::Well { rest: None }, later);
    assert!(row.is_well() && row.admit(Limits::default(), 0, Precedence::First, later).is_ok());
}

#[test]
fn another_key_ends_the_hold_of_the_one_before_and_no_other() {
    let mut row = RateLimitRow::default();
    row.observe(Answered::Refused, noon());
    row.forget_refusal();
    assert!(row.admit(Limits::default(), 0, Precedence::First, noon()).is_ok());
    row.observe(Answered::Throttled { pause: Some(Duration::from_secs(7)) }, noon());
    row.forget_refusal();
    assert!(row.admit(Limits::default(), 0, Precedence::First, noon()).is_err());
}

#[test]
fn a_check_asks_whatever_is_held() {
    let mut row = RateLimitRow::default();
    row.observe(Answered::Refused, noon());
    let limits = Limits { per_day: Some(1), per_second: Some(0.001), at_once: Some(1) };
    for _ in 0..3 {
        assert_eq!(row.admit(limits, 5, Precedence::Check, noon()), Ok(Duration::ZERO));
    }
    assert!(row.is_refused());
}
