//! One row of a list changed at random, in its bytes and in its values: whatever becomes of it, every other row is read
//! exactly as before, and nothing panics. `AFTERCALL_FUZZ_PAGES=100000 cargo test --test it wire::fuzz` is the long run.

use std::ops::Range;

use aftercall::domain::SourceCall;
use aftercall::wire::Vendor;
use serde_json::{Value, json};

use super::dialect;

/// Changed pages where nothing is asked for.
const FEW: u64 = 2_000;
const ROWS: usize = 7;

fn pages() -> u64 {
    std::env::var("AFTERCALL_FUZZ_PAGES").ok().and_then(|count| count.parse().ok()).unwrap_or(FEW)
}

/// Numbers that look like chance (xorshift64*).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() >> 11).unwrap() % end.max(1)
    }
}

/// Ids that no single change turns into each other.
fn id(n: usize) -> String {
    format!("call_{:016x}", (n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Text that looks like the end of a row, or of everything.
const TRAP: &str = "said \"}],{\\\" and ]}}, {\"id\":\"no\",\"status\":\"completed\"} é 😀";

fn krosai(n: usize) -> Value {
    json!({ "id": id(n), "status": "completed", "direction": "inbound", "from_number": "+14155550123",
        "created_at": "2026-11-01T10:00:00Z", "answered_at": "2026-11-01T10:00:05Z",
        "completed_at": "2026-11-01T10:03:05Z", "duration": 180, "cost_cents": 12.5, "transcript": TRAP,
        "recording_url": "https://h.test/a.mp3?sig=1", "metadata": { "id": "m", "list": [[1, 2], [], [{}]] } })
}

fn cockpit(n: usize) -> Value {
    let mut row = krosai(n);
    row["organization_id"] = json!("org");
    row["events"] = json!([
        { "id": "evt_1", "event_type": "call_answered" },
        { "id": "evt_2", "event_type": "sip_media_established", "event_data": { "codec": "opus" } }
    ]);
    row
}

fn zudu(n: usize) -> Value {
    let word = |at: u32| json!({ "word": "so", "start": f64::from(at) / 4.0, "end": f64::from(at) / 4.0 + 0.2 });
    let words: Vec<Value> = (0..6).map(word).collect();
    json!({ "id": "550e8400", "call_id": id(n), "call_status": "ENDED", "start_timestamp": 1_793_527_205_000_i64,
        "end_timestamp": 1_793_527_385_000_i64, "call_duration": 180_000, "recording_url": "https://h.test/a.mp4",
        "transcript_object": [{ "role": "agent", "content": TRAP, "words": words }, { "role": "user", "content": "yes" }],
        "transfers": [{ "call_id": "t1", "call_status": "ENDED" }, { "call_id": "t2", "call_status": "ENDED" }],
        "call_analysis": { "call_summary": TRAP, "in_voicemail": false } })
}

fn atoms(n: usize) -> Value {
    json!({ "_id": "65", "callId": id(n), "status": "completed", "type": "telephony_inbound", "duration": 180,
        "createdAt": "2026-11-01T10:00:00.000Z", "from": "+14155550123", "callCost": 3.25, "recordingUrl": "",
        "variables": { "note": TRAP, "tags": ["a", "b", ["c"]] }, "retries": [{ "callId": "x" }, { "callId": "y" }] })
}

/// A page, and where each of its rows stands.
struct Sample {
    platform: Vendor,
    bytes: Vec<u8>,
    rows: Vec<Range<usize>>,
    /// Rows that are changed. The last row of an answer that ends with its list is not: where it lacks its end, nobody can
    /// tell it from an answer that was cut off, and that is what it is taken for.
    changed: usize,
    read: Vec<SourceCall>,
}

impl Sample {
    fn new(platform: Vendor, row: fn(usize) -> Value, before: &str, after: &str) -> Self {
        let (mut bytes, mut rows) = (before.as_bytes().to_vec(), Vec::new());
        for n in 0..ROWS {
            bytes.extend(if n > 0 { &b", "[..] } else { b"" });
            let start = bytes.len();
            // Every other page is written with line ends and indents.
            let row = if n % 2 == 0 { row(n).to_string() } else { format!("{:#}", row(n)) };
            bytes.extend(row.as_bytes());
            rows.push(start..bytes.len());
        }
        bytes.extend(after.as_bytes());
        let read = calls(platform, &bytes).unwrap();
        assert_eq!(read.len(), ROWS);
        let list_is_last = after.trim().bytes().all(|byte| matches!(byte, b']' | b'}'));
        let changed = if list_is_last { ROWS - 1 } else { ROWS };
        Self { platform, bytes, rows, changed, read }
    }
}

fn calls(platform: Vendor, bytes: &[u8]) -> Option<Vec<SourceCall>> {
    let dialect = dialect(platform);
    dialect.read_page(bytes, &dialect.first_page()).ok().map(|page| page.calls)
}

fn samples() -> [Sample; 6] {
    [
        Sample::new(Vendor::Krosai, krosai, "{\"calls\": [", "], \"total\": 7, \"limit\": 100, \"offset\": 0}"),
        Sample::new(Vendor::Krosai, cockpit, "{\"data\": [", "], \"total\": 7, \"page\": 1, \"total_pages\": 1}"),
        Sample::new(Vendor::Krosai, cockpit, "{\"total\": 7, \"data\": [", "]}"),
        Sample::new(
            Vendor::Zudu,
            zudu,
            "{\"message\": \"ok\", \"data\": {\"organization_id\": \"org\", \"calls\": [",
            "], \"pagination\": {\"total\": 7, \"pages\": [1, 2]}}, \"status\": \"success\", \"error\": null}\n",
        ),
        Sample::new(
            Vendor::Atoms,
            atoms,
            "{\"status\": true, \"data\": {\"pagination\": {\"total\": 7, \"hasMore\": false}, \"logs\": [\n",
            "\n]}}",
        ),
        Sample::new(
            Vendor::Atoms,
            atoms,
            "{\"status\": true, \"data\": {\"logs\": [",
            "], \"pagination\": {\"total\": 7, \"hasMore\": false}}}",
        ),
    ]
}

/// What stands wrongly in platforms' answers, and what leads a reader astray.
const ODD: [&[u8]; 28] = [
    b"NaN",
    b"Infinity",
    b"1e999",
    b"\\ud83d",
    b"\\u0000",
    b"\xe9",
    b"\x01",
    b"\0",
    b"\n",
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"},{",
    b"}]",
    b"}]}",
    b"]}]}}",
    b"\"}",
    b"',",
    b"[[[[[[[[",
    b"]]]]",
    b"null",
    b"\xed\xa0\x80",
    b"}, {\"id\": \"",
];

fn change_bytes(row: &mut Vec<u8>, dice: &mut Dice) {
    for _ in 0..=dice.below(4) {
        let at = dice.below(row.len() + 1);
        let length = dice.below(40).min(row.len() - at);
        match dice.below(8) {
            0 if at < row.len() => row[at] = dice.next() as u8,
            1 => drop(row.drain(at..at + length)),
            2 => row.truncate(row.len() - length),
            3 => drop(row.drain(..length.min(row.len()))),
            4 => {
                let copy = row[at..at + length].to_vec();
                row.splice(at..at, copy);
            }
            5 => {
                row.splice(at..at, "[".repeat(200).into_bytes());
            }
            _ => {
                let odd = ODD[dice.below(ODD.len())];
                let over = if dice.below(2) == 0 { odd.len().min(row.len() - at) } else { 0 };
                row.splice(at..at + over, odd.iter().copied());
            }
        }
    }
}

fn odd_value(dice: &mut Dice) -> Value {
    match dice.below(8) {
        0 => Value::Null,
        1 => json!(dice.next()),
        2 => json!(-1e300),
        3 => json!(""),
        4 => json!([[{}], "x"]),
        5 => json!({ "id": { "id": [] }, "status": 7 }),
        6 => json!("0001-01-01T00:00:00Z"),
        _ => json!(true),
    }
}

/// Replaces one of the values of a tree.
fn change_value(value: &mut Value, dice: &mut Dice) {
    match value {
        Value::Array(items) if !items.is_empty() && dice.below(4) > 0 => {
            let at = dice.below(items.len());
            change_value(&mut items[at], dice);
        }
        Value::Object(members) if !members.is_empty() && dice.below(8) > 0 => {
            let at = dice.below(members.len());
            if let Some(member) = members.values_mut().nth(at) {
                change_value(member, dice);
            }
        }
        value => *value = odd_value(dice),
    }
}

/// The page with one row changed, and which.
fn changed(sample: &Sample, dice: &mut Dice) -> (Vec<u8>, usize) {
    let which = dice.below(sample.changed);
    let place = sample.rows[which].clone();
    let mut row = sample.bytes[place.clone()].to_vec();
    if dice.below(4) == 0 {
        let mut value: Value = serde_json::from_slice(&row).unwrap();
        change_value(&mut value, dice);
        row = value.to_string().into_bytes();
    }
    if dice.below(6) > 0 {
        change_bytes(&mut row, dice);
    }
    let page = [&sample.bytes[..place.start], &row, &sample.bytes[place.end..]].concat();
    (page, which)
}

#[test]
fn one_changed_row_changes_no_other() {
    let samples = samples();
    let mut read_again = 0_u64;
    for seed in 0..pages() {
        let mut dice = Dice((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let sample = &samples[dice.below(samples.len())];
        let (page, which) = changed(sample, &mut dice);
        let told = || format!("seed {seed}, row {which} of\n{}", String::from_utf8_lossy(&page));
        let read = calls(sample.platform, &page).unwrap_or_else(|| panic!("nothing is read: {}", told()));
        let others: Vec<&SourceCall> = sample.read.iter().filter(|call| **call != sample.read[which]).collect();
        let found: Vec<&SourceCall> =
            read.iter().filter(|call| others.iter().any(|other| other.id == call.id)).collect();
        assert!(found == others, "{}\nread {found:#?}", told());
        read_again += u64::from(read.iter().any(|call| call.id == sample.read[which].id));
    }
    assert!(read_again * 10 > pages(), "{read_again}: the changes leave hardly a row that can be read");
}

#[test]
fn a_page_cut_anywhere_is_no_page() {
    for sample in samples() {
        for end in 0..sample.bytes.trim_ascii_end().len() {
            assert!(calls(sample.platform, &sample.bytes[..end]).is_none(), "{end} of {}", sample.bytes.len());
        }
    }
}
