//! Models over the network, from a server that breaks off, lies and has other things to say.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use aftercall::domain::{Classify, Fault};
use aftercall::transcript::engine::{EngineError, Recogniser, Search};
use aftercall::transcript::models::{PullError, SaidHash, known, pull};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path as Asked, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::StreamExt;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

const MODEL: &str = "parakeet-110m";

/// How the server answers a request for the model's network.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Behaviour {
    Well,
    /// So many bytes, and then the connection ends.
    CutAfter(usize),
    /// Ranges are not known to it.
    WholeOnly,
    Status(u16),
}

#[derive(Clone)]
struct Server {
    network: Bytes,
    behaviour: Arc<Mutex<Behaviour>>,
    /// The first byte asked for, each time.
    from: Arc<Mutex<Vec<usize>>>,
    base: String,
}

impl Server {
    /// Serves this network and the small network's tokens under the name of a known model.
    async fn start(network: Vec<u8>) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}/mirror/", listener.local_addr().unwrap());
        let behaviour = Arc::new(Mutex::new(Behaviour::Well));
        let server = Self { network: network.into(), behaviour, from: Arc::default(), base };
        let router = Router::new().route("/mirror/{model}/{file}", get(serve)).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        server
    }

    fn be(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap() = behaviour;
    }

    fn asked_from(&self) -> Vec<usize> {
        std::mem::take(&mut self.from.lock().unwrap())
    }

    async fn pull(&self, models: &Path, said: &[SaidHash]) -> Result<PathBuf, PullError> {
        pull(&reqwest::Client::new(), &known(MODEL).unwrap(), models, &self.base, said, &|_| {}).await
    }

    fn hashes(&self) -> Vec<SaidHash> {
        vec![
            ("model.onnx".to_owned(), hash(&self.network)),
            ("tokens.txt".to_owned(), hash(&std::fs::read(golden("tokens.txt")).unwrap())),
        ]
    }
}

async fn serve(
    State(server): State<Server>,
    Asked((model, file)): Asked<(String, String)>,
    headers: HeaderMap,
) -> Response {
    assert_eq!(model, MODEL);
    if file == "tokens.txt" {
        return std::fs::read(golden("tokens.txt")).unwrap().into_response();
    }
    let range = headers.get("range").map(|value| value.to_str().unwrap());
    let from: usize =
        range.map_or(0, |range| range.strip_prefix("bytes=").unwrap().trim_end_matches('-').parse().unwrap());
    server.from.lock().unwrap().push(from);
    let behaviour = *server.behaviour.lock().unwrap();
    match behaviour {
        Behaviour::Status(code) => StatusCode::from_u16(code).unwrap().into_response(),
        Behaviour::CutAfter(count) => {
            let some = server.network.slice(from..(from + count).min(server.network.len()));
            // What was written is sent on its way before the end comes.
            let end = async {
                tokio::task::yield_now().await;
                Err(std::io::Error::other("gone"))
            };
            let pieces = futures::stream::iter([Ok(some)]).chain(futures::stream::once(end));
            Body::from_stream(pieces).into_response()
        }
        Behaviour::Well if from > 0 => (StatusCode::PARTIAL_CONTENT, server.network.slice(from..)).into_response(),
        Behaviour::Well | Behaviour::WholeOnly => server.network.clone().into_response(),
    }
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden").join(name)
}

fn network() -> Vec<u8> {
    std::fs::read(golden("model.onnx")).unwrap()
}

fn hash(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn load(dir: &Path) -> Result<Recogniser, EngineError> {
    Recogniser::load(dir, Search::Greedy, 1)
}

#[tokio::test]
async fn what_broke_off_is_gone_on_with_and_the_model_runs() {
    let server = Server::start(network()).await;
    let models = tempfile::tempdir().unwrap();
    server.be(Behaviour::CutAfter(10_000));
    let failure = server.pull(models.path(), &server.hashes()).await.unwrap_err();
    assert!(matches!(failure, PullError::Transfer { .. }), "{failure}");
    assert_eq!(failure.fault(), Fault::Transient);
    assert!(!models.path().join(MODEL).exists());
    server.be(Behaviour::Well);
    let dir = server.pull(models.path(), &server.hashes()).await.unwrap();
    assert_eq!(server.asked_from(), [0, 10_000]);
    assert_eq!(std::fs::read(dir.join("model.onnx")).unwrap(), network());
    assert_eq!(load(&dir).unwrap().manifest().name, MODEL);
    assert_eq!(std::fs::read_dir(models.path()).unwrap().count(), 1, "nothing else is left");
}

#[tokio::test]
async fn a_server_without_ranges_is_asked_for_all_of_it_again() {
    let server = Server::start(network()).await;
    let models = tempfile::tempdir().unwrap();
    server.be(Behaviour::CutAfter(10_000));
    server.pull(models.path(), &server.hashes()).await.unwrap_err();
    server.be(Behaviour::WholeOnly);
    let dir = server.pull(models.path(), &server.hashes()).await.unwrap();
    assert_eq!(std::fs::read(dir.join("model.onnx")).unwrap(), network());
}

#[tokio::test]
async fn what_is_not_what_was_promised_is_not_installed() {
    let models = tempfile::tempdir().unwrap();
    let whole = Server::start(network()).await;
    // Truncated on the server, and another file under the same name.
    let truncated = network()[..20_000].to_vec();
    for wrong in [truncated, b"<html>not found</html>".to_vec()] {
        let server = Server::start(wrong).await;
        let failure = server.pull(models.path(), &whole.hashes()).await.unwrap_err();
        assert!(matches!(failure, PullError::WrongHash { .. }), "{failure}");
        assert_eq!(failure.fault(), Fault::Permanent);
        assert!(!models.path().join(MODEL).exists());
    }
    // The wrong bytes are gone: the next pull begins anew.
    whole.pull(models.path(), &whole.hashes()).await.unwrap();
    assert_eq!(whole.asked_from(), [0]);
    let failure = whole.pull(tempfile::tempdir().unwrap().path(), &[]).await.unwrap_err();
    assert!(failure.to_string().contains("--sha256 model.onnx=HEX"), "{failure}");
    assert_eq!(whole.asked_from(), [0; 0], "nothing is fetched that nobody can verify");
}

#[tokio::test]
async fn a_file_of_another_architecture_is_installed_and_refused_by_the_engine() {
    let server = Server::start(b"these are not the weights".to_vec()).await;
    let models = tempfile::tempdir().unwrap();
    let dir = server.pull(models.path(), &server.hashes()).await.unwrap();
    let refused = load(&dir).unwrap_err();
    assert!(matches!(refused, EngineError::Architecture { .. }), "{refused}");
    assert_eq!(refused.fault(), Fault::Permanent);
}

#[tokio::test]
async fn answers_that_are_no_file_are_told_apart() {
    let server = Server::start(network()).await;
    let models = tempfile::tempdir().unwrap();
    for (status, fault) in
        [(404, Fault::Permanent), (403, Fault::Permanent), (429, Fault::Transient), (503, Fault::Transient)]
    {
        server.be(Behaviour::Status(status));
        let failure = server.pull(models.path(), &server.hashes()).await.unwrap_err();
        assert!(matches!(failure, PullError::Answer { .. }) && failure.fault() == fault, "{status}: {failure}");
    }
}

#[tokio::test]
async fn a_full_disk_says_so_and_is_gone_on_with_later() {
    let server = Server::start(network()).await;
    let models = tempfile::tempdir().unwrap();
    let staging = models.path().join(format!(".{MODEL}.part"));
    std::fs::create_dir_all(&staging).unwrap();
    let part = staging.join("model.onnx.part");
    std::os::unix::fs::symlink("/dev/full", &part).unwrap();
    let failure = server.pull(models.path(), &server.hashes()).await.unwrap_err();
    assert!(matches!(failure, PullError::NoRoom { .. }), "{failure}");
    assert_eq!(failure.fault(), Fault::Transient);
    assert!(!models.path().join(MODEL).exists());
    std::fs::remove_file(&part).unwrap();
    server.pull(models.path(), &server.hashes()).await.unwrap();
}
