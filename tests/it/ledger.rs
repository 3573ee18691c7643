//! What the work used, entered with it: compared with what the platform and the object store saw.

use aftercall::demo::{Api, FaultAnswer, Kind, SampleCall};
use aftercall::store::{By, Sum};
use jiff::{SignedDuration, Timestamp};

use crate::harness::{Backend, Fixture, on_every_backend};

on_every_backend!(the_ledger_agrees_with_what_others_counted, an_attempt_that_failed_is_entered_too);

fn some(count: u32) -> impl FnOnce(Timestamp) -> Vec<SampleCall> {
    move |now| (0..count).map(|n| SampleCall::numbered(Api::KrosaiV1, n, now - SignedDuration::from_mins(5))).collect()
}

async fn sums(fixture: &Fixture, by: By) -> Vec<Sum> {
    let day = SignedDuration::from_hours(24);
    fixture.store.ledger(by, (fixture.now() - day, fixture.now() + day)).await.unwrap()
}

async fn the_ledger_agrees_with_what_others_counted(backend: Backend) {
    let fixture = Fixture::start(backend, some(3)).await;
    for n in 0..3 {
        fixture.trigger(Api::KrosaiV1, &format!("call_{n:06}")).await;
    }
    fixture.run_pending().await;
    let all = sums(&fixture, By::Source).await;
    assert_eq!(all.len(), 1);
    let sum = &all[0];
    assert_eq!((sum.of.as_deref(), sum.calls, sum.attempts), (Some("krosai"), 3, 3));
    let requests = fixture.platform.requests();
    let asked = requests.count(Kind::Detail) + requests.count(Kind::RecordingLink) + requests.count(Kind::List);
    assert_eq!(sum.platform_requests, asked as i64);
    let (mut writes, mut bytes, mut original) = (0, 0, 0);
    for n in 0..3 {
        let record = fixture.record(Api::KrosaiV1, &format!("call_{n:06}")).await;
        writes += record.artifacts.len() as i64;
        bytes += record.artifacts.iter().map(|artifact| artifact.size_bytes as i64).sum::<i64>();
        original += record.original.map_or(0, |artifact| artifact.size_bytes as i64);
    }
    assert_eq!((sum.object_writes, sum.bytes_stored, sum.bytes_fetched), (writes, bytes, original));
    assert!(sum.audio_ms > 0);
    assert_eq!((sum.free, sum.unpriced, sum.priced, sum.cost_micros), (3, 0, 0, 0));
    assert_eq!(sums(&fixture, By::Call).await.len(), 3);
    assert_eq!(sums(&fixture, By::Organization).await.len(), 1);
    let today = fixture.now().strftime("%Y-%m-%d").to_string();
    assert_eq!(sums(&fixture, By::Day).await[0].of.as_deref(), Some(today.as_str()));
    assert_eq!(fixture.store.spent_since(Timestamp::UNIX_EPOCH).await.unwrap(), 0);
}

async fn an_attempt_that_failed_is_entered_too(backend: Backend) {
    let fixture = Fixture::start(backend, some(1)).await;
    fixture
        .platform
        .set_faults(|request| (request.kind == Kind::Recording && request.nth == 1).then(|| FaultAnswer::status(500)));
    fixture.trigger(Api::KrosaiV1, "call_000000").await;
    fixture.run_pending().await;
    let all = sums(&fixture, By::Call).await;
    assert_eq!((all.len(), all[0].calls, all[0].attempts), (1, 1, 2));
    assert_eq!(all[0].platform_requests, fixture.asked(Kind::Detail, "call_000000") as i64);
}
