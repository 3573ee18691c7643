//! Round trips of our own captions, and captions of other tools.

use proptest::prelude::*;

use super::*;
use crate::domain::Role;
use crate::domain::transcript::TRANSCRIPT_SCHEMA;
use crate::transcript::Form;
use crate::transcript::from_turns;
use crate::transcript::parse_file;
use crate::transcript::render;
use crate::transcript::text;

/// Label, text, start and end of each utterance.
fn read(captions: &str) -> Vec<(String, String, Option<u64>, Option<u64>)> {
    let read = parse_file(captions.as_bytes(), None).unwrap();
    let label = |speaker: u32| match read.role(speaker) {
        Role::Unknown => format!("{speaker}"),
        role => role.label().unwrap().to_owned(),
    };
    let row = |u: &crate::domain::transcript::Utterance| (label(u.speaker), u.text.clone(), u.start_ms, u.end_ms);
    read.utterances.iter().map(row).collect()
}

fn said(label: &str, text: &str, start: u64, end: u64) -> (String, String, Option<u64>, Option<u64>) {
    (label.to_owned(), text.to_owned(), Some(start), Some(end))
}

fn timed(role: Role, text: &str, start_ms: u64, end_ms: u64) -> ProviderTurn {
    ProviderTurn { role, start_ms: Some(start_ms), end_ms: Some(end_ms), ..turn(text) }
}

fn ours() -> Transcript {
    let turns = [
        timed(Role::Agent, "Good morning: is 1 < 2 & \"so\" --> on?", 0, 1500),
        timed(Role::Caller, "Yes.\nIt <i>is</i>.", 1600, 2500),
        timed(Role::Unknown, "Who?", 2600, 2700),
        timed(Role::Agent, "42", 3_725_040, 3_726_000),
        timed(Role::System, "Please hold.", 3_727_000, 3_728_000),
    ];
    from_turns(&turns, Some("en"))
}

#[test]
fn our_own_captions_are_read_as_what_they_are() {
    let made = ours();
    let written = render(&made, Form::Vtt).unwrap();
    let vtt = read(&written);
    assert_eq!(vtt[0], said("Agent", "Good morning: is 1 < 2 & \"so\" --> on?", 0, 1500));
    assert_eq!(vtt[1], said("Caller", "Yes. It <i>is</i>.", 1600, 2500));
    assert_eq!((vtt[3].clone(), vtt[4].0.as_str()), (said("Agent", "42", 3_725_040, 3_726_000), "System"));
    let again = parse_file(written.as_bytes(), None).unwrap();
    assert_eq!(render(&again, Form::Vtt).unwrap(), written);
    assert_eq!(text(&again), text(&made));

    let written = render(&made, Form::Srt).unwrap();
    let srt = read(&written);
    assert_eq!(srt[0], said("Agent", "Good morning: is 1 < 2 & \"so\" --> on?", 0, 1500));
    assert_eq!(srt[3], said("Agent", "42", 3_725_040, 3_726_000));
    let times: Vec<_> = srt.iter().map(|row| (row.2, row.3)).collect();
    assert_eq!(times, vtt.iter().map(|row| (row.2, row.3)).collect::<Vec<_>>());

    let document = render(&made, Form::Json).unwrap();
    assert_eq!(parse_file(document.as_bytes(), None).as_ref(), Ok(&made));
    assert!(document.contains(TRANSCRIPT_SCHEMA));
    let plain = text(&made).unwrap();
    assert_eq!(text(&parse_file(plain.as_bytes(), None).unwrap()), Some(plain));
}

#[test]
fn webvtt_of_others_is_read_without_its_trimmings() {
    let file = "\u{feff}WEBVTT - a call\r\nKind: captions\r\nLanguage: en\r\n\r\nSTYLE\r\n::cue { color: red }\r\n\r\n\
                NOTE made by\r\nsomebody\r\n\r\nREGION\r\nid:one\r\n\r\nintro\r\n00:01.000 --> 00:02.500 line:0 position:20% align:start\r\n\
                <v.loud Ngozi>Hello &amp; <b>welcome</b>,\r\n<c.yellow>Ada</c>&nbsp;!</v>\r\n\r\n\
                1:00:03.5 --> 1:00:04.000\r\n- <v Speaker 1>Hi.</v> <v Ngozi>Bye.\r\n\r\n00:99.000 --> soon\r\nNo time &#233;&#x21;\r\n\
                \r\n5\r\n00:10.000 --> 00:11.000\r\nCustomer: <00:10.500>Two seats";
    let rows = read(file);
    assert_eq!(rows[0].1, "Hello & welcome, Ada !");
    assert_eq!((rows[0].2, rows[0].3), (Some(1000), Some(2500)));
    let by: Vec<(&str, &str)> = rows.iter().map(|row| (row.0.as_str(), row.1.as_str())).collect();
    let ngozi = rows[0].0.as_str();
    assert!(by.contains(&(ngozi, "Bye.")) && by.contains(&("Caller", "Two seats")), "{by:?}");
    assert!(by.iter().any(|(who, text)| *text == "Hi." && *who != ngozi), "{by:?}");
    assert!(rows.iter().any(|row| row.1 == "No time é!" && row.2.is_none()), "{rows:?}");
    assert_eq!(rows.iter().find(|row| row.1 == "Hi.").unwrap().2, Some(3_603_500));
    assert!(!rows.iter().any(|row| row.1.contains("color") || row.1.contains("somebody") || row.1.contains("intro")));
}

#[test]
fn subrip_of_others_is_read_without_its_trimmings() {
    let file = "\u{feff}\r\n1\r\n00:00:01,000 --> 00:00:02,500 X1:40 X2:600\r\n{\\an8}<i>Good morning.</i>\r\n\r\nHow are you?\r\n\r\n\
                2\r\n00:00:03.20 --> 0:00:04,000\r\n[SPEAKER_01]: fine\r\n[SPEAKER_02]: <font color=\"red\">x < y</font>\r\n\r\n\
                00:00:05,000 --> 00:00:06,000\r\n2026\r\n";
    let rows = read(file);
    assert_eq!((rows[0].1.as_str(), rows[0].2, rows[0].3), ("Good morning. How are you?", Some(1000), Some(2500)));
    assert_eq!((rows[1].1.as_str(), rows[1].2), ("fine", Some(3200)));
    assert_eq!((rows[2].1.as_str(), rows[2].3), ("x < y", Some(4000)));
    assert_ne!(rows[1].0, rows[2].0);
    assert_eq!((rows[3].1.as_str(), rows[3].2), ("2026", Some(5000)));
    assert_eq!(rows.len(), 4);
}

#[test]
fn captions_without_words_and_texts_that_are_no_captions() {
    for empty in
        ["WEBVTT", "WEBVTT\n", "WEBVTT\n\nNOTE no captions: no_engine\n", "WEBVTT\n\n00:01.000 --> 00:02.000\n\n"]
    {
        assert!(parse_file(empty.as_bytes(), None).unwrap().utterances.is_empty(), "{empty:?}");
    }
    for plain in ["WEBVTTX is a word", "1\nfirst of all --> we go", "Agent: from 1:00 --> 2:00 we are open", "42", ""] {
        assert!(parse(plain, None).is_none(), "{plain:?}");
    }
    // The end lies before the start, so that both are dropped.
    assert_eq!(read("WEBVTT\n\n00:03.000 --> 00:02.000\nHi")[0].2, None);
}

proptest! {
    #[test]
    fn no_captions_are_too_strange(text in "(WEBVTT\n\n|1\n|00:00:0[0-9][.,]000 --> 00:00:0[0-9],0|\n|<v |>|&#?[a-z0-9]{0,3};?|<|\\{|\\\\|[a-zé]|[ \t\r]){0,40}") {
        let _ = parse(&text, None);
    }

    #[test]
    fn what_we_write_reads_back(turns in proptest::collection::vec(("[a-zé<>&{}\\\\ .-]{1,24}", 0_usize..3, 0_u64..100_000, 1_u64..5_000), 1..8)) {
        let roles = [Role::Agent, Role::Caller, Role::Transfer];
        let turns: Vec<ProviderTurn> =
            turns.iter().map(|(text, role, start, length)| timed(roles[*role], text, *start, start + length)).collect();
        let made = from_turns(&turns, None);
        prop_assume!(!made.utterances.is_empty());
        let written = render(&made, Form::Vtt).unwrap();
        let again = parse_file(written.as_bytes(), None).unwrap();
        prop_assert_eq!(render(&again, Form::Vtt).unwrap(), written);
    }
}
