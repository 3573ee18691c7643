//! Lists that show a call twice, and rows that cannot be read.

use aftercall::domain::CallStatus;
use aftercall::wire::Window;
use serde_json::{Value, json};

use super::{Platform, body, ids, row, rows};

/// Row `index` of a call that goes on.
fn going(index: u64) -> Value {
    let mut row = row(index);
    row["status"] = json!("in_progress");
    row["completed_at"] = Value::Null;
    row
}

#[tokio::test]
async fn of_a_call_on_two_pages_the_furthest_row_counts() {
    for turned in [false, true] {
        let platform = Platform::start(move |seen, _| {
            let (first, second) = if turned { (row(7), going(7)) } else { (going(7), row(7)) };
            let calls = match seen.asked("offset").unwrap() {
                0 => vec![row(1), first],
                2 => vec![second, row(9)],
                _ => Vec::new(),
            };
            body(&json!({ "calls": calls, "total": 4 }))
        })
        .await;
        let source = platform.source("krosai", "");
        let calls = source.collect(Window::ALWAYS).await.unwrap();
        assert_eq!(ids(&calls), ["c9", "c7", "c1"]);
        assert!(calls.iter().all(|call| call.status == CallStatus::Completed), "{turned}: {calls:#?}");
        let mut walk = source.walk(Window::ALWAYS);
        let mut again = 0;
        while let Some(page) = walk.next().await.unwrap() {
            again += page.iter().filter(|call| walk.came_before(&call.id)).count();
        }
        assert_eq!((walk.listed(), again), (3, usize::from(!turned)));
    }
}

#[tokio::test]
async fn a_page_without_a_readable_row_does_not_end_a_list() {
    let platform = Platform::start(|seen, _| {
        let offset = seen.asked("offset").unwrap();
        let calls = match offset {
            100 => (0..100).map(|n| json!({ "id": { "odd": n } })).collect(),
            _ => rows(offset, 300.min(offset + 100)),
        };
        body(&json!({ "calls": calls, "total": 300 }))
    })
    .await;
    let source = platform.source("krosai", "");
    assert_eq!(source.collect(Window::ALWAYS).await.unwrap().len(), 200);
    let (mut walk, mut unreadable) = (source.walk(Window::ALWAYS), 0);
    while walk.next().await.unwrap().is_some() {
        unreadable += walk.unreadable().len();
    }
    assert_eq!(unreadable, 100);
}

#[tokio::test]
async fn a_server_that_repeats_a_page_without_a_readable_row_is_left_in_the_end() {
    let platform = Platform::start(|_, _| body(&json!({ "calls": [{ "id": null }, 7] }))).await;
    assert!(platform.source("krosai", "").collect(Window::ALWAYS).await.unwrap().is_empty());
    assert!(platform.seen().len() < 30, "{} requests", platform.seen().len());
}
