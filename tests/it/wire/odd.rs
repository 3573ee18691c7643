//! Rows that no strict parser takes: each costs itself at most, and is counted and named.

use aftercall::domain::{CallId, CallStatus, SourceCall};
use aftercall::wire::{Page, Vendor, WireError};

use super::{detail, dialect};

const PLATFORMS: [Vendor; 3] = [Vendor::Krosai, Vendor::Zudu, Vendor::Atoms];

/// A row of a dialect: an id, completed, and more members as they are.
fn row(platform: Vendor, id: &str, more: &[u8]) -> Vec<u8> {
    let (name, status) = match platform {
        Vendor::Krosai => ("id", "\"status\":\"completed\""),
        Vendor::Zudu => ("call_id", "\"call_status\":\"ENDED\""),
        Vendor::Atoms => ("callId", "\"status\":\"completed\""),
    };
    let more = if more.is_empty() { Vec::new() } else { [b",", more].concat() };
    [format!("{{\"{name}\":\"{id}\",{status}").as_bytes(), &more, b"}"].concat()
}

fn body(platform: Vendor, rows: &[Vec<u8>]) -> Vec<u8> {
    let (before, after) = match platform {
        Vendor::Krosai => ("{\"calls\":[", "],\"total\":3}"),
        Vendor::Zudu => ("{\"status\":\"success\",\"data\":{\"calls\":[", "],\"pagination\":{\"total\":3}}}"),
        Vendor::Atoms => ("{\"status\":true,\"data\":{\"logs\":[", "],\"pagination\":{\"total\":3}}}"),
    };
    [before.as_bytes(), &rows.join(&b","[..]), after.as_bytes()].concat()
}

fn read(platform: Vendor, bytes: &[u8]) -> Result<Page, WireError> {
    let dialect = dialect(platform);
    dialect.read_page(bytes, &dialect.first_page())
}

/// The page of a row between two sound ones.
fn between(platform: Vendor, odd: Vec<u8>) -> Page {
    let rows = [row(platform, "first", b""), odd, row(platform, "last", b"")];
    let bytes = body(platform, &rows);
    let page = read(platform, &bytes).unwrap_or_else(|err| panic!("{err}: {}", String::from_utf8_lossy(&bytes)));
    assert_eq!(page.total, Some(3));
    page
}

fn ids(page: &Page) -> Vec<&str> {
    page.calls.iter().map(|call| call.id.as_str()).collect()
}

fn named(page: &Page) -> Vec<Option<&str>> {
    page.unreadable.iter().map(|row| row.id.as_deref()).collect()
}

#[test]
fn bad_characters_and_numbers_cost_nothing_but_themselves() {
    for platform in PLATFORMS {
        for more in [
            &br#""note":"\ud83d""#[..],
            br#""note":"\udc00\ud83d x""#,
            b"\"note\":\"Andr\xe9\"",
            b"\"note\":\"\xff\xfe\"",
            b"\"note\":\"\xc0\xaf\"",
            b"\"note\":\"a\x01b\"",
            b"\"note\":\"a\nb\tc\"",
            br#""score":NaN"#,
            br#""score":-Infinity"#,
            br#""score":1e999"#,
            br#""score":123456789012345678901234567890"#,
            br#""score":[1,2,]"#,
            br#""note":"it\'s""#,
        ] {
            let page = between(platform, row(platform, "odd", more));
            let shown = String::from_utf8_lossy(more);
            assert_eq!(ids(&page), ["first", "odd", "last"], "{platform:?}: {shown}");
            assert!(page.unreadable.is_empty(), "{platform:?}: {shown}");
            assert!(page.calls.iter().all(|call| call.status == CallStatus::Completed), "{platform:?}: {shown}");
        }
    }
}

#[test]
fn what_is_mended_is_read_as_what_it_is() {
    let krosai = |more: &[u8]| between(Vendor::Krosai, row(Vendor::Krosai, "odd", more)).calls.remove(1);
    let text = |call: SourceCall| call.turns[0].text.clone();
    assert_eq!(text(krosai(b"\"transcript\":\"[Agent]: Andr\xe9 \\ud83d!\"")), "Andr\u{fffd} \u{fffd}!");
    let lines = krosai(b"\"transcript\":\"[Agent]: hi\n[Caller]: yes\"");
    assert_eq!(lines.turns.len(), 2, "a raw line end is a line end");
    let call = krosai(br#""duration":NaN,"cost_cents":1e999,"from_number":+14155550123"#);
    assert_eq!((call.duration_ms, call.cost), (None, None));
    assert_eq!(call.from_number.unwrap().as_str(), "+14155550123");
}

#[test]
fn a_row_with_a_broken_structure_is_named_and_no_other_is_lost() {
    for platform in PLATFORMS {
        let deep = [b"\"note\":", &b"[".repeat(200)[..], &b"]".repeat(200)].concat();
        let cut = |row: &[u8], end: usize| row[..row.len() - end].to_vec();
        let whole = row(platform, "odd", br#""note":"x","list":[1,{"a":[2]}]"#);
        for odd in [
            row(platform, "odd", &deep),
            row(platform, "odd", br#""note":completed"#),
            row(platform, "odd", br#""note":'x'"#),
            row(platform, "odd", br"note:1"),
            row(platform, "odd", br#""note":,"b":1"#),
            row(platform, "odd", br#""note":"x"y""#),
            row(platform, "odd", br#""note" 1"#),
            row(platform, "odd", br#""note":[1,,2]"#),
            row(platform, "odd", br#""note":{"a":1]"#),
            row(platform, "odd", br#""note":[{"id":"x"},{"id":"y"},{]"#),
            row(platform, "odd", br#""note":"x}"#),
            cut(&whole, 1),
            cut(&whole, 2),
            cut(&whole, 4),
            cut(&whole, 6),
            cut(&whole, 24),
        ] {
            let shown = String::from_utf8_lossy(&odd).into_owned();
            let page = between(platform, odd);
            assert_eq!(ids(&page), ["first", "last"], "{platform:?}: {shown}");
            assert_eq!(named(&page), [Some("odd")], "{platform:?}: {shown}");
        }
    }
}

#[test]
fn rows_whose_id_cannot_be_used_are_counted_and_shown() {
    for platform in PLATFORMS {
        for (odd, name) in [
            (row(platform, "o\\ud83dd", b""), Some("o\u{fffd}d")),
            (row(platform, "o\\nd", b""), Some("o\u{fffd}d")),
            (row(platform, "", b""), None),
            (b"7".to_vec(), None),
            (b"null".to_vec(), None),
            (b"[]".to_vec(), None),
            (b"{}".to_vec(), None),
            (b"".to_vec(), None),
            (b"{'id': 'odd'}".to_vec(), None),
        ] {
            let shown = String::from_utf8_lossy(&odd).into_owned();
            let page = between(platform, odd);
            assert_eq!((ids(&page), named(&page)), (vec!["first", "last"], vec![name]), "{platform:?}: {shown}");
        }
    }
}

#[test]
fn the_first_the_last_and_neighbours_may_all_be_odd() {
    for platform in PLATFORMS {
        let odd = |id: &str| row(platform, id, br#""note":"x"y"z""#);
        let good = |id: &str| row(platform, id, br#""list":[{"a":1},{"b":2}]"#);
        let rows = [odd("o1"), good("g1"), odd("o2"), odd("o3"), good("g2"), good("g3"), odd("o4")];
        let page = read(platform, &body(platform, &rows)).unwrap();
        assert_eq!(ids(&page), ["g1", "g2", "g3"], "{platform:?}");
        assert_eq!(page.unreadable.len(), 4, "{platform:?}: {:?}", page.unreadable);
        let all_odd = read(platform, &body(platform, &[odd("o1")])).unwrap();
        assert_eq!((ids(&all_odd).len(), named(&all_odd)), (0, vec![Some("o1")]), "{platform:?}");
    }
}

#[test]
fn a_page_that_is_broken_as_a_whole_is_no_page() {
    for platform in PLATFORMS {
        let page = body(platform, &[row(platform, "a", b""), row(platform, "b", b"")]);
        let text = String::from_utf8(page.clone()).unwrap();
        assert!(read(platform, &[b"\xef\xbb\xbf", &page[..]].concat()).is_ok(), "a byte order mark is none of it");
        for broken in [
            text.replace('"', "'"),
            format!("{text}]"),
            text.replace("\"total\":3", "\"total\":"),
            text.replacen('{', "", 1),
            text[..text.len() - 1].to_owned(),
        ] {
            let err = read(platform, broken.as_bytes()).unwrap_err();
            assert!(matches!(err, WireError::NotJson { .. }), "{platform:?}: {err}: {broken}");
        }
        let odd_total = text.replace("\"total\":3", "\"total\":NaN");
        assert_eq!(read(platform, odd_total.as_bytes()).unwrap().total, None);
    }
}

#[test]
fn details_and_links_are_read_by_the_same_rules() {
    let call = detail(
        Vendor::Krosai,
        b"{\"id\":\"c\",\"status\":\"completed\",\"hangup_cause\":\"\xe9\",\"duration\":NaN}",
        "c",
    );
    assert_eq!((call.status, call.duration_ms), (CallStatus::Completed, None));
    let link = dialect(Vendor::Krosai)
        .read_recording(br#"{"recording_url":"https://h.test/a.mp3","duration_seconds":Infinity,"size_bytes":1e999}"#);
    let link = link.unwrap().unwrap();
    assert_eq!((link.duration_ms, link.size_bytes), (None, None));
    let deep = format!("{{\"id\":\"c\",\"metadata\":{}1{}}}", "[".repeat(200), "]".repeat(200));
    let id = CallId::parse("c").unwrap();
    assert_eq!(dialect(Vendor::Krosai).read_detail(deep.as_bytes(), &id), Err(WireError::TooDeep));
}

#[test]
fn a_call_that_is_listed_twice_is_read_as_far_as_it_got() {
    for platform in PLATFORMS {
        let going = row(platform, "twice", b"");
        let word = if platform == Vendor::Zudu { ("ENDED", "ONGOING") } else { ("completed", "in_progress") };
        let going = String::from_utf8(going).unwrap().replace(word.0, word.1).into_bytes();
        let over = row(platform, "twice", br#""duration":60,"call_duration":60000"#);
        for rows in [[going.clone(), over.clone()], [over.clone(), going.clone()]] {
            let page = read(platform, &body(platform, &rows)).unwrap();
            assert_eq!(ids(&page), ["twice"], "{platform:?}");
            assert_eq!((page.calls[0].status, page.calls[0].duration_ms), (CallStatus::Completed, Some(60_000)));
        }
    }
}
