//! Properties of the whole part: exact output formats, and no lost or added text.

use proptest::prelude::*;
use proptest::test_runner::Config;

use super::*;
use crate::domain::ProviderTurn;
use crate::domain::ProviderWord;
use crate::domain::Role;
use crate::domain::Transcript;
use crate::domain::transcript::TextSource;
use crate::domain::transcript::Turn;

fn turn(role: Role, text: &str) -> ProviderTurn {
    ProviderTurn { role, text: text.to_owned(), start_ms: None, end_ms: None, words: Vec::new(), approximate: false }
}

fn timed(role: Role, text: &str, start_ms: u64, end_ms: u64) -> ProviderTurn {
    ProviderTurn { start_ms: Some(start_ms), end_ms: Some(end_ms), ..turn(role, text) }
}

fn spoken(role: Role, words: &[(&str, u64, u64)]) -> ProviderTurn {
    let text: Vec<&str> = words.iter().map(|(word, ..)| *word).collect();
    let words = words.iter().map(|(word, start, end)| ProviderWord {
        text: (*word).to_owned(),
        start_ms: Some(*start),
        end_ms: Some(*end),
    });
    ProviderTurn { words: words.collect(), ..turn(role, &text.join(" ")) }
}

fn text_of(turns: &[ProviderTurn]) -> Option<String> {
    text(&from_turns(turns, None))
}

fn omitted(transcript: &Transcript, form: Form) -> String {
    match render(transcript, form) {
        Err(TranscriptError::Omitted { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn roles_are_written_as_given() {
    let turns = [
        turn(Role::Agent, "Good morning, how may I help?"),
        turn(Role::Caller, "Where is my parcel?\nIt was due"),
        turn(Role::Agent, "Let me look."),
        turn(Role::Agent, " One moment. "),
        turn(Role::Transfer, "Parcels."),
        turn(Role::System, "Please\r\n\r\nhold."),
    ];
    let expected = "[Agent]: Good morning, how may I help?\n[Caller]: Where is my parcel? It was due\n\
                    [Agent]: Let me look. One moment.\n[Transfer]: Parcels.\n[System]: Please hold.";
    assert_eq!(text_of(&turns).unwrap(), expected);
    let transcript = from_turns(&turns, Some("en"));
    assert_eq!(transcript.utterances.len(), 6, "turns are joined in the text form only");
    assert_eq!(transcript.utterances[1].text, "Where is my parcel?\nIt was due");
    assert_eq!(transcript.speakers.len(), 4);
    assert_eq!(transcript.source, TextSource::Provider);
    assert_eq!(transcript.language.as_deref(), Some("en"));
}

#[test]
fn text_nobody_labelled_stays_plain() {
    let strings = [turn(Role::Unknown, "Hello"), turn(Role::Unknown, "I need help")];
    assert_eq!(text_of(&strings).unwrap(), "Hello I need help");
    assert_eq!(text_of(&[turn(Role::Unknown, "Good morning, how...")]).unwrap(), "Good morning, how...");
    let transcript = from_turns(&strings, None);
    assert_eq!(transcript.speakers.len(), 1);
    assert_eq!(transcript.speakers[0].role, Role::Unknown);
    assert_eq!(transcript.speakers[0].evidence, None);
    assert_eq!(transcript.reason.as_deref(), Some(NO_TIMES));
}

#[test]
fn a_nameless_speaker_beside_a_known_one_gets_a_number_not_a_role() {
    let turns = [turn(Role::Unknown, "Who is there?"), turn(Role::Agent, "Ada.")];
    assert_eq!(text_of(&turns).unwrap(), "[Speaker 1]: Who is there?\n[Agent]: Ada.");
}

#[test]
fn without_words_there_is_a_reason_and_no_text() {
    for transcript in [without_text(None), from_turns(&[turn(Role::Agent, " \n\0 ")], None)] {
        assert!(transcript.utterances.is_empty());
        assert!(transcript.speakers.is_empty());
        assert_eq!(transcript.reason.as_deref(), Some(NO_ENGINE));
        assert_eq!(text(&transcript), None);
        for form in [Form::Text, Form::Vtt, Form::Srt] {
            assert_eq!(omitted(&transcript, form), NO_ENGINE);
        }
        assert!(render(&transcript, Form::Json).unwrap().contains("\"reason\": \"no_engine\""));
    }
}

#[test]
fn words_stand_in_for_a_missing_text() {
    let turns =
        [ProviderTurn { text: String::new(), ..spoken(Role::Agent, &[("hi", 700, 900), ("there", 900, 1200)]) }];
    let transcript = from_turns(&turns, None);
    assert_eq!(transcript.utterances[0].text, "hi there");
    assert_eq!((transcript.utterances[0].start_ms, transcript.utterances[0].end_ms), (Some(700), Some(1200)));
}

#[test]
fn segments_end_at_pauses_of_200_ms() {
    let turns = [
        spoken(Role::Agent, &[("one", 1000, 1300), ("two", 1499, 1700), ("three", 1900, 2000)]),
        spoken(Role::Caller, &[("yes", 1600, 1950)]),
        timed(Role::Agent, "and", 2100, 2400),
        turn(Role::Agent, "no times"),
        ProviderTurn { approximate: true, ..timed(Role::Caller, "wall clock", 9000, 9500) },
    ];
    let transcript = from_turns(&turns, None);
    let segment = |speaker, start_ms, end_ms| Turn { speaker, start_ms, end_ms };
    assert_eq!(transcript.turns, [segment(0, 1000, 1700), segment(1, 1600, 1950), segment(0, 1900, 2400)]);
    assert_eq!(transcript.reason.as_deref(), Some(INCOMPLETE_TIMES));
    assert_eq!(transcript.utterances[4].start_ms, Some(9000), "approximate times are shown, not measured with");
}

#[test]
fn contradicting_times_are_dropped() {
    let turns = [timed(Role::Agent, "back", 2000, 1000), timed(Role::Caller, "on", 3000, 3500)];
    let transcript = from_turns(&turns, None);
    assert_eq!((transcript.utterances[0].start_ms, transcript.utterances[0].end_ms), (None, None));
    assert_eq!(transcript.turns.len(), 1);
    assert_eq!(omitted(&transcript, Form::Vtt), INCOMPLETE_TIMES);
}

#[test]
fn redaction_tags_stay_and_are_noted() {
    let transcript = from_turns(&[turn(Role::Caller, "it is [ACCOUNTNUMBER_1]")], None);
    assert!(transcript.redacted);
    assert_eq!(text(&transcript).unwrap(), "[Caller]: it is [ACCOUNTNUMBER_1]");
    assert!(!from_turns(&[turn(Role::Caller, "it is 12")], None).redacted);
}

#[test]
fn captions_to_the_byte() {
    let turns =
        [timed(Role::Agent, "Is 1 < 2 & \"so\" -->\non?", 0, 1500), timed(Role::Caller, "Yes", 3_725_040, 3_725_040)];
    let transcript = from_turns(&turns, None);
    let vtt = "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\n<v Agent>Is 1 &lt; 2 &amp; \"so\" --&gt; on?\n\n\
               01:02:05.040 --> 01:02:05.041\n<v Caller>Yes\n";
    assert_eq!(render(&transcript, Form::Vtt).unwrap(), vtt);
    let srt = "1\n00:00:00,000 --> 00:00:01,500\n[Agent]: Is 1 < 2 & \"so\" --> on?\n\n\
               2\n01:02:05,040 --> 01:02:05,041\n[Caller]: Yes\n";
    assert_eq!(render(&transcript, Form::Srt).unwrap(), srt);
}

#[test]
fn cues_come_in_order_of_their_start() {
    let turns = [timed(Role::Unknown, "second", 2000, 3000), timed(Role::Unknown, "first", 1000, 2500)];
    let expected = "WEBVTT\n\n00:00:01.000 --> 00:00:02.500\nfirst\n\n00:00:02.000 --> 00:00:03.000\nsecond\n";
    assert_eq!(render(&from_turns(&turns, None), Form::Vtt).unwrap(), expected);
}

#[test]
fn rttm_names_the_speakers() {
    let turns = [timed(Role::Agent, "a", 1000, 2500), timed(Role::Unknown, "b", 2600, 2850)];
    let expected = "SPEAKER call_1 1 1.000 1.500 <NA> <NA> agent <NA> <NA>\n\
                    SPEAKER call_1 1 2.600 0.250 <NA> <NA> speaker_1 <NA> <NA>\n";
    assert_eq!(rttm(&from_turns(&turns, None), "call 1"), expected);
    assert_eq!(rttm(&without_text(None), "x"), "");
}

#[test]
fn forms_are_named_by_their_extension() {
    for form in Form::ALL {
        assert_eq!(form.extension().parse(), Ok(form));
    }
    assert!("doc".parse::<Form>().is_err());
}

#[test]
fn labelled_text_of_every_accepted_form_is_read() {
    let read = |given: &str| text(&parse_text(given, None)).unwrap();
    let labelled = "[Agent]: Good morning\n[Caller]: Where is my parcel? It was due";
    assert_eq!(read(labelled), labelled);
    assert_eq!(read("Agent : Good morning\r\nUser: Where is my parcel?\r\nIt was due\r\n"), labelled);
    assert_eq!(read("[AGENT] :\n  Good morning\n\nhuman: Where is my parcel?\n It was due"), labelled);
    assert_eq!(read("[Speaker 2]: b\n[Speaker 1]: a"), "[Speaker 2]: b\n[Speaker 1]: a");
    assert_eq!(read("Welcome\nAgent: hi"), "[Speaker 1]: Welcome\n[Agent]: hi");
    assert_eq!(read("[Caller]: [music] well\n[laughs] Note: this"), "[Caller]: [music] well [laughs] Note: this");
}

#[test]
fn a_name_nobody_knows_is_not_given_to_the_turn_before() {
    let transcript = parse_text("[Agent]: hi\n[Ngozi]: hello", None);
    assert_eq!(text(&transcript).unwrap(), "[Agent]: hi\n[Speaker 1]: [Ngozi]: hello");
}

#[test]
fn unlabelled_text_is_kept_word_for_word() {
    let given = "Good  morning.\n\nSystem: we said \"note: this\"";
    let transcript = parse_text(given, None);
    assert_eq!(transcript.utterances.len(), 1);
    assert_eq!(transcript.utterances[0].text, given);
    assert_eq!(text(&transcript).unwrap(), "Good  morning. System: we said \"note: this\"");
}

#[test]
fn a_file_may_hold_turns_strings_text_or_our_document() {
    let read = |given: &str| text(&parse_file(given.as_bytes(), None).unwrap()).unwrap();
    let turns = r#"[{"role":"agent","content":"hi there","words":[{"word":"hi","start_ms":700,"end_ms":900}]},
        {"role":"tool_call_result","content":"{}"},{"role":"user","text":"hello"},{"role":"pilot","text":"who?"}]"#;
    assert_eq!(read(turns), "[Agent]: hi there\n[Caller]: hello\n[Speaker 1]: who?");
    assert_eq!(read(r#"["Hello","I need help"]"#), "Hello I need help");
    assert_eq!(read(r#"["Agent: Hello","I need help"]"#), "[Agent]: Hello\n[Speaker 1]: I need help");
    assert_eq!(read("\u{feff}[Agent]: hi\n[Caller]: [yes]"), "[Agent]: hi\n[Caller]: [yes]");
    assert_eq!(read("[music] hello"), "[music] hello");
    assert_eq!(read("42"), "42");

    let document = from_turns(&[timed(Role::Agent, "hi [NAME_1]", 10, 20), turn(Role::Caller, "oh")], Some("en"));
    let json = render(&document, Form::Json).unwrap();
    assert_eq!(parse_file(json.as_bytes(), Some("fr")), Ok(document));
}

#[test]
fn a_broken_file_is_named_without_its_words() {
    let fault = |given: &[u8]| parse_file(given, None).unwrap_err().to_string();
    assert!(fault(b"\xff\xfe[").contains("UTF-8"));
    assert!(fault(br#"[{"role":"agent","text":"secret"#).contains("line 1 column"));
    assert!(
        fault(br#"[{"role":"agent","text":"a"},{"role":"agent","text":"b","start_ms":"secret"}]"#).contains("turn 2")
    );
    assert!(fault(br#"{"schema":"other/1"}"#).contains("aftercall.transcript/1"));
    let mut stranger = from_turns(&[turn(Role::Agent, "a")], None);
    stranger.utterances[0].speaker = 7;
    assert!(fault(render(&stranger, Form::Json).unwrap().as_bytes()).contains("speaker 7"));
    for given in
        [&br#"{"schema":"aftercall.transcript/1","language":["secret"]}"#[..], br#"["a",{"role":{"secret":1}}]"#]
    {
        assert!(!fault(given).contains("secret"));
    }
}

const ROLES: [Role; 5] = [Role::Agent, Role::Caller, Role::Transfer, Role::System, Role::Unknown];
const LABELS: [&str; 6] = ["[Agent]: ", "[Caller]: ", "[Transfer]: ", "[System]: ", "[Speaker 1]: ", ""];

fn any_turn() -> impl Strategy<Value = ProviderTurn> {
    // Letters, marks and every kind of line break. There is no colon, so that no generated text is a label.
    let text = "[a-zéあ<>&\\[\\] \t\n\r\u{2028}\u{85}-]{0,24}";
    let times = proptest::option::of((0_u64..100_000, 0_u64..5_000));
    (0..ROLES.len(), text, times).prop_map(|(role, text, times)| ProviderTurn {
        start_ms: times.map(|(start, _)| start),
        end_ms: times.map(|(start, length)| start + length),
        ..turn(ROLES[role], &text)
    })
}

fn letters(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace()).collect()
}

fn unlabelled(line: &str) -> &str {
    LABELS.iter().find_map(|label| line.strip_prefix(label)).unwrap_or(line)
}

proptest! {
    #![proptest_config(Config { failure_persistence: None, cases: 512, ..Config::default() })]

    #[test]
    fn no_text_is_lost_or_changed(turns in proptest::collection::vec(any_turn(), 0..8)) {
        let transcript = from_turns(&turns, None);
        let given: Vec<&str> = turns.iter().map(|t| t.text.as_str()).filter(|t| !t.trim().is_empty()).collect();
        let kept: Vec<&str> = transcript.utterances.iter().map(|u| u.text.as_str()).collect();
        prop_assert_eq!(&given, &kept);
        let written = text(&transcript).unwrap_or_default();
        let lines: String = written.split('\n').map(unlabelled).collect();
        prop_assert_eq!(letters(&lines), letters(&given.concat()));
        let breaks = written.contains(['\r', '\u{2028}', '\u{85}']) || written.ends_with('\n');
        prop_assert!(!breaks);
    }

    #[test]
    fn no_label_is_invented(turns in proptest::collection::vec(any_turn(), 0..8)) {
        let written = text_of(&turns).unwrap_or_default();
        for (role, label) in ROLES.iter().zip(LABELS) {
            if !turns.iter().any(|turn| turn.role == *role) {
                prop_assert!(!written.lines().any(|line| line.starts_with(label)), "{}", label);
            }
        }
        let known = turns.iter().any(|turn| turn.role != Role::Unknown && !turn.text.trim().is_empty());
        prop_assert_eq!(known, written.lines().any(|line| unlabelled(line) != line));
    }

    #[test]
    fn the_text_form_reads_back_to_itself(turns in proptest::collection::vec(any_turn(), 0..8)) {
        let written = text_of(&turns).unwrap_or_default();
        let read = parse_text(&written, None);
        prop_assert_eq!(text(&read).unwrap_or_default(), written);
    }

    #[test]
    fn the_document_reads_back_to_itself(turns in proptest::collection::vec(any_turn(), 1..8)) {
        let transcript = from_turns(&turns, Some("en"));
        let json = render(&transcript, Form::Json).unwrap();
        prop_assert_eq!(parse_file(json.as_bytes(), None), Ok(transcript));
    }

    #[test]
    fn captions_hold_all_the_text_or_are_not_made(turns in proptest::collection::vec(any_turn(), 1..8)) {
        let transcript = from_turns(&turns, None);
        let complete = transcript.utterances.iter().all(|u| u.start_ms.is_some() && u.end_ms.is_some());
        match render(&transcript, Form::Vtt) {
            Ok(vtt) => {
                prop_assert!(complete);
                let blocks: Vec<&str> = vtt.trim_end().split("\n\n").collect();
                prop_assert_eq!(blocks[0], "WEBVTT");
                prop_assert_eq!(blocks.len() - 1, transcript.utterances.len());
                for block in &blocks[1..] {
                    prop_assert_eq!(block.lines().count(), 2);
                    prop_assert_eq!(block.matches("-->").count(), 1);
                }
                let tags = vtt.matches('<').count();
                prop_assert_eq!(tags, vtt.matches("<v ").count());
            }
            Err(TranscriptError::Omitted { .. }) => prop_assert!(!complete || transcript.utterances.is_empty()),
            Err(other) => prop_assert!(false, "{}", other),
        }
    }

    #[test]
    fn segments_of_a_speaker_never_touch(turns in proptest::collection::vec(any_turn(), 0..8)) {
        let segments = from_turns(&turns, None).turns;
        for turn in &segments {
            prop_assert!(turn.end_ms > turn.start_ms);
        }
        for (at, first) in segments.iter().enumerate() {
            for later in segments[at + 1..].iter().filter(|later| later.speaker == first.speaker) {
                prop_assert!(later.start_ms >= first.end_ms + 200);
            }
        }
        prop_assert!(segments.is_sorted_by_key(|turn| turn.start_ms));
    }

    #[test]
    fn no_file_is_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _ = parse_file(&bytes, None);
    }
}
