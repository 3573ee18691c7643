//! Answers of platforms that were packed on their way, whatever was asked for.

use aftercall::source::SourceError;
use aftercall::wire::Window;
use axum::http::HeaderMap;
use serde_json::json;

use super::{Platform, ids, rows};
use crate::packing::{deflate, gzip, zlib};

async fn platform(coding: &'static str, body: Vec<u8>) -> Platform {
    Platform::start(move |_, _| {
        let mut headers = HeaderMap::new();
        headers.insert("content-encoding", coding.parse().unwrap());
        (headers, body.clone())
    })
    .await
}

#[tokio::test]
async fn a_list_is_read_however_it_was_packed() {
    let list = json!({ "calls": rows(0, 3), "total": 3 }).to_string().into_bytes();
    let bodies = [
        ("gzip", gzip(&list)),
        ("x-gzip", gzip(&list)),
        ("deflate", zlib(&list)),
        ("deflate", deflate(&list)),
        ("gzip, gzip", gzip(&gzip(&list))),
        ("gzip", list.clone()),
        ("br", list.clone()),
        ("utf-8", list.clone()),
        ("identity", gzip(&list)),
    ];
    for (coding, body) in bodies {
        let platform = platform(coding, body).await;
        let calls = platform.source("krosai", "").collect(Window::ALWAYS).await.unwrap();
        assert_eq!(ids(&calls), ["c2", "c1", "c0"], "{coding}");
        assert_eq!(platform.seen()[0].headers["accept-encoding"], "gzip, deflate, br");
    }
}

#[tokio::test]
async fn an_answer_that_swells_beyond_the_limit_is_too_large() {
    let bomb = gzip(&vec![b' '; 17 << 20]);
    assert!(bomb.len() < 100_000);
    let platform = platform("gzip", bomb).await;
    let err = platform.source("krosai", "").collect(Window::ALWAYS).await.unwrap_err();
    assert!(matches!(err, SourceError::TooLarge { .. }), "{err:?}");
}
