//! Bodies that were packed on their way, whatever their headers say of it.

use std::time::Duration;

use aftercall::demo::recordings;
use aftercall::fetch::FetchError;

use super::host::{Host, Reply, Seen, Then, reply};
use super::{Bench, assert_is, recording};
use crate::packing::{deflate, gzip, zlib};

fn audio() -> Vec<u8> {
    recordings::tiny().bytes.to_vec()
}

/// Meta-blocks that are not compressed, and the empty last one (RFC 7932 section 9.2).
fn brotli(plain: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    for (n, block) in plain.chunks(65_536).enumerate() {
        // The first one stands behind the window's size, which is one bit.
        let shift = u32::from(n == 0);
        let bits = ((block.len() as u32 - 1) << 3 | 1 << 19) << shift;
        packed.extend_from_slice(&bits.to_le_bytes()[..3]);
        packed.extend_from_slice(block);
    }
    packed.push(3);
    packed
}

fn sent(headers: &[&str], body: &[u8]) -> Reply {
    let length = format!("Content-Length: {}", body.len());
    reply("200 OK", &[&[length.as_str()], headers].concat(), body, Then::Close)
}

async fn host(coding: &str, body: Vec<u8>) -> Host {
    let header = format!("Content-Encoding: {coding}");
    Host::start(move |_, _| sent(&[&header], &body)).await
}

#[tokio::test]
async fn every_coding_comes_off_and_what_is_kept_is_the_content() {
    let plain = recordings::clinic().bytes.to_vec();
    let bodies = [
        ("gzip", gzip(&plain)),
        ("x-gzip", gzip(&plain)),
        ("GZip", gzip(&plain)),
        ("deflate", zlib(&plain)),
        ("deflate", deflate(&plain)),
        ("br", brotli(&plain)),
        ("gzip, gzip", gzip(&gzip(&plain))),
        ("deflate, gzip", gzip(&zlib(&plain))),
        ("gzip, br", brotli(&gzip(&plain))),
        ("gzip, aws-chunked", gzip(&plain)),
        ("identity, gzip", gzip(&plain)),
        ("gzip", gzip(&gzip(&plain))),
        ("gzip", [gzip(&plain[..5000]), gzip(&plain[5000..])].concat()),
    ];
    for (coding, body) in bodies {
        let size = body.len() as u64;
        let host = host(coding, body).await;
        let bench = Bench::new();
        let fetched = bench.fetch(&host.url("/a.mp3")).await;
        assert_is(&bench, &fetched, &plain);
        assert_eq!((fetched.told.size_bytes, fetched.is_short), (Some(size), false), "{coding}");
        assert_eq!(host.seen()[0].headers["accept-encoding"], "identity");
    }
}

#[tokio::test]
async fn several_headers_are_one_list() {
    let body = gzip(&deflate(&audio()));
    let host = Host::start(move |_, _| sent(&["Content-Encoding: deflate", "Content-Encoding: gzip"], &body)).await;
    let bench = Bench::new();
    let fetched = bench.fetch(&host.url("/a.mp3")).await;
    assert_is(&bench, &fetched, &audio());
}

#[tokio::test]
async fn words_that_name_no_coding_leave_the_recording_as_it_is() {
    for word in
        ["", "identity", "aws-chunked", "utf-8", "UTF-8", "binary", "none", "8bit", "chunked", "audio/mpeg", "?"]
    {
        let host = host(word, audio()).await;
        let bench = Bench::new();
        let fetched = bench.fetch(&host.url("/a.mp3")).await;
        assert_is(&bench, &fetched, &audio());
    }
}

#[tokio::test]
async fn a_body_that_is_not_packed_as_it_says_stays_as_it_is() {
    for coding in ["gzip", "x-gzip", "deflate", "br", "gzip, gzip", "br, deflate", "gzip, br"] {
        for plain in [audio(), recordings::booking().bytes.to_vec(), recording(5000)] {
            let host = host(coding, plain.clone()).await;
            let bench = Bench::new();
            let fetched = bench.fetch(&host.url("/a.mp3")).await;
            assert_is(&bench, &fetched, &plain);
        }
    }
}

#[tokio::test]
async fn a_recording_that_is_packed_without_a_word_is_unpacked() {
    let bare = async |body: Vec<u8>| Host::start(move |_, _| sent(&[], &body)).await;
    for body in [gzip(&audio()), gzip(&gzip(&audio()))] {
        let bench = Bench::new();
        let fetched = bench.fetch(&bare(body).await.url("/a.mp3.gz")).await;
        assert_is(&bench, &fetched, &audio());
    }
    // What nobody knows inside stays as it came.
    let strange = gzip(&recording(3000));
    let bench = Bench::new();
    let fetched = bench.fetch(&bare(strange.clone()).await.url("/a")).await;
    assert_is(&bench, &fetched, &strange);
    let page = gzip(b"<!DOCTYPE html><title>expired</title>");
    let bench = Bench::new();
    let err = bench.fail(&bare(page).await.url("/a")).await;
    assert!(matches!(err, FetchError::NotARecording { what: "HTML", .. }), "{err:?}");
}

#[tokio::test]
async fn packed_pages_and_codings_that_cannot_be_read_are_not_recordings() {
    let page = b"<!DOCTYPE html><title>canary</title>";
    for (coding, body) in [("gzip", gzip(page)), ("deflate", zlib(page)), ("br", brotli(page)), ("gzip", page.to_vec())]
    {
        let host = host(coding, body).await;
        let bench = Bench::new();
        let err = bench.fail(&host.url("/a.mp3")).await;
        assert!(matches!(err, FetchError::NotARecording { what: "HTML", .. }), "{coding}: {err:?}");
        assert_eq!(bench.files(), Vec::<String>::new());
    }
    for coding in ["zstd", "compress"] {
        let host = host(coding, [&[0x28, 0xb5, 0x2f, 0xfd][..], &recording(900)[6..]].concat()).await;
        let bench = Bench::new();
        let err = bench.fail(&host.url("/a.mp3")).await;
        assert!(err.to_string().contains("unknown content coding"), "{err}");
    }
    let host = host("gzip", gzip(b"")).await;
    let err = Bench::new().fail(&host.url("/a.mp3")).await;
    assert!(matches!(err, FetchError::Empty { .. }), "{err:?}");
}

#[tokio::test]
async fn limits_count_what_comes_out() {
    let zeros = [audio(), vec![0; 8 << 20]].concat();
    for (coding, body) in [
        ("gzip", gzip(&zeros)),
        ("deflate", zlib(&zeros)),
        ("deflate", deflate(&zeros)),
        ("", gzip(&zeros)),
        ("gzip, gzip", gzip(&gzip(&zeros))),
    ] {
        assert!(body.len() < 100_000);
        let host = host(coding, body).await;
        let bench = Bench::with("max_bytes = 1000000", Duration::from_secs(30));
        let err = bench.fail(&host.url("/a.mp3")).await;
        assert!(matches!(err, FetchError::TooLarge { limit_bytes: 1_000_000, .. }), "{coding}: {err:?}");
        assert_eq!(bench.files(), Vec::<String>::new());
    }
    // MP3 does not pack: its packed body is a little longer than the limit that its content meets.
    let plain = audio();
    let body = gzip(&plain);
    let fits = Bench::with(&format!("max_bytes = {}", plain.len()), Duration::from_secs(30));
    let fetched = fits.fetch(&host("gzip", body.clone()).await.url("/a.mp3")).await;
    assert_is(&fits, &fetched, &plain);
    let exceeds = Bench::with(&format!("max_bytes = {}", plain.len() - 1), Duration::from_secs(30));
    let err = exceeds.fail(&host("gzip", body).await.url("/a.mp3")).await;
    assert!(matches!(err, FetchError::TooLarge { .. }), "{err:?}");
}

/// Serves a packed body with ranges; each connection breaks after `step` bytes. Only the first answer names the coding.
fn brittle(body: Vec<u8>, step: usize) -> impl Fn(&Seen, usize) -> Reply {
    move |seen, _| {
        let from = seen.offset("\"v1\"").unwrap_or(0);
        let to = (from + step).min(body.len());
        let length = format!("Content-Length: {}", body.len() - from);
        if from == 0 {
            let headers = [length.as_str(), "ETag: \"v1\"", "Content-Encoding: gzip"];
            return reply("200 OK", &headers, &body[..to], Then::Close);
        }
        let range = format!("Content-Range: bytes {from}-{}/{}", body.len() - 1, body.len());
        reply("206 Partial Content", &[&length, &range, "ETag: \"v1\""], &body[from..to], Then::Close)
    }
}

#[tokio::test]
async fn a_broken_transfer_is_continued_in_the_packed_bytes() {
    let plain = recordings::delivery().bytes.to_vec();
    let body = gzip(&plain);
    let step = body.len() / 8 + 1;
    let host = Host::start(brittle(body, step)).await;
    let bench = Bench::new();
    // Five connections are one attempt; the note it leaves remembers the coding.
    let err = bench.fail(&host.url("/a.mp3")).await;
    assert!(matches!(err, FetchError::Interrupted { .. }), "{err:?}");
    assert_eq!(bench.files(), ["original.part", "original.resume"]);
    let fetched = bench.fetch(&host.url("/a.mp3")).await;
    assert_is(&bench, &fetched, &plain);
    let offsets: Vec<_> = host.seen().iter().map(|seen| seen.offset("\"v1\"").unwrap_or(0)).collect();
    assert_eq!(offsets, (0..8).map(|n| n * step).collect::<Vec<_>>(), "no packed byte was asked for twice");
}

#[tokio::test]
async fn of_a_packed_body_that_was_cut_the_beginning_is_kept_and_called_short() {
    let plain = recordings::delivery().bytes.to_vec();
    for (coding, body) in
        [("gzip", gzip(&plain)), ("deflate", zlib(&plain)), ("deflate", deflate(&plain)), ("br", brotli(&plain))]
    {
        let part = body[..body.len() * 7 / 10].to_vec();
        let header = format!("Content-Encoding: {coding}");
        let host = Host::start(move |_, _| reply("200 OK", &[&header], &part, Then::Close)).await;
        let bench = Bench::new();
        let fetched = bench.fetch(&host.url("/a.mp3")).await;
        assert!(fetched.is_short, "{coding}");
        let kept = std::fs::read(&fetched.path).unwrap();
        assert!(plain.starts_with(&kept) && kept.len() > plain.len() / 3, "{coding}: {} bytes", kept.len());
    }
}
