//! The sample platform for `aftercall demo` and for tests. It serves four dialects over real HTTP on loopback, with
//! calls and recordings.
//!
//! It builds the JSON of the platforms' documents itself and shares no code with the client in `wire`. Shared code
//! would hide a misreading of the documents.

mod atoms;
mod audio;
mod calls;
mod cockpit;
mod connection;
mod entries;
mod fault;
mod host;
mod krosai;
mod platform;
mod receiver;
pub mod recordings;
mod records;
mod request_log;
mod sample;
mod state;
mod text;
mod watch;
mod zudu;

#[cfg(test)]
mod tests;

pub use audio::SampleAudio;
pub use calls::{Sample, sample_calls};
pub use fault::FaultAnswer;
pub use platform::{Builder, RunningPlatform, SamplePlatform};
pub use records::{IdempotencyKeys, Record};
pub use request_log::{Hook, RequestInfo, RequestKind, Requests};
pub use sample::{Api, SampleCall, SampleRecording, SampleText, atoms_id};
pub use state::{Clock, Keys, ListOrder, ZuduDetail};

use jiff::Timestamp;
use serde_json::json;

use crate::domain::{Classify, Fault, Outcome, Side};

/// Why the sample platform cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error("the sheet of the sample recordings cannot be read")]
    Sheet(#[source] serde_json::Error),
    #[error("the sheet of the sample recordings has no dialogue `{0}`")]
    NoDialogue(&'static str),
    #[error("the sample platform's listener has no address")]
    Listener(#[source] std::io::Error),
}

impl Classify for DemoError {
    fn fault(&self) -> Fault {
        Fault::Permanent
    }

    fn side(&self) -> Side {
        Side::Worker
    }
}

/// The name of the source of this kind in [`sources_toml`].
#[must_use]
pub const fn source_name(api: Api) -> &'static str {
    match api {
        Api::KrosaiV1 => "krosai",
        Api::KrosaiCockpit => "krosai-cockpit",
        Api::Zudu => "zudu",
        Api::Atoms => "atoms",
    }
}

/// A platform with these calls. Its receiver has a record of each call that gets a delivery.
#[must_use]
fn sample_platform(samples: &[Sample], clock: Clock) -> SamplePlatform {
    let platform = SamplePlatform::builder(clock).calls(samples.iter().map(|sample| sample.call.clone())).build();
    for Sample { call, expected, .. } in samples {
        if call.api == Api::Atoms && *expected != Outcome::NotEligible {
            platform.register_record(&call.id, json!({ "call_id": call.id, "status": "completed" }));
        }
    }
    platform
}

/// The calls, dated relative to `now`, and the platform that serves them.
pub fn sample(now: Timestamp, clock: Clock) -> Result<(Vec<Sample>, SamplePlatform), DemoError> {
    let samples = sample_calls(now)?;
    let platform = sample_platform(&samples, clock);
    Ok((samples, platform))
}

/// The four sources of a sample platform with [`Keys::default`] at `base_url` (`http://127.0.0.1:PORT`), in the form of
/// `aftercall.toml`.
#[must_use]
pub fn sources_toml(base_url: &str) -> String {
    let keys = Keys::default();
    let source = |api: Api, dialect: &str, key: &str, more: &str| {
        format!(
            "[[source]]\nname = \"{}\"\ndialect = \"{dialect}\"\nbase_url = \"{base_url}{}\"\napi_key = \"{key}\"\n\
             recording_hosts = [\"127.0.0.1\"]\nrecording_grace = \"2s\"\npoll = \"off\"\nlanguage = \"en\"\n{more}\n",
            source_name(api),
            api.base_path(),
        )
    };
    // The document of this form names no unit. The sample platform reports percent.
    let percent = "packet_loss_unit = \"percent\"\n";
    let metadata = format!("api_secret = \"{}\"\nwrite_back = \"metadata\"\n", keys.zudu_secret);
    let http = format!(
        "write_back = \"http\"\n[source.http]\nmethod = \"PATCH\"\nif_match = true\n\
         url = \"{base_url}/receiver/calls/{{{{ call.id }}}}\"\n\
         [source.http.headers]\nauthorization = \"Bearer {}\"\n",
        keys.receiver
    );
    [
        source(Api::KrosaiV1, "krosai", &keys.krosai, percent),
        source(Api::KrosaiCockpit, "krosai", &keys.cockpit, ""),
        source(Api::Zudu, "zudu", &keys.zudu, &metadata),
        source(Api::Atoms, "atoms", &keys.atoms, &http),
    ]
    .concat()
}
