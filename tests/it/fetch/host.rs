//! A recording host on loopback that answers by script, down to the last byte.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use aftercall::domain::RecordingUrl;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub const SECRET: &str = "X-Amz-Signature=5ecre7";

/// What the host does with a connection after it has sent the bytes of a reply.
#[derive(Clone, Copy)]
pub enum Then {
    Close,
    Reset,
    Hang,
    Forever,
}

pub struct Reply {
    pub bytes: Vec<u8>,
    pub then: Then,
}

pub fn reply(status: &str, headers: &[&str], body: &[u8], then: Then) -> Reply {
    let mut bytes = format!("HTTP/1.1 {status}\r\nConnection: close\r\n").into_bytes();
    for header in headers {
        bytes.extend_from_slice(format!("{header}\r\n").as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    Reply { bytes, then }
}

pub fn whole(body: &[u8]) -> Reply {
    reply("200 OK", &[&format!("Content-Length: {}", body.len()), "Content-Type: audio/mpeg"], body, Then::Close)
}

pub fn status(line: &str, headers: &[&str]) -> Reply {
    let mut all = vec!["Content-Length: 9"];
    all.extend(headers);
    reply(line, &all, b"go away !", Then::Close)
}

/// One request as the host saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub target: String,
    pub headers: BTreeMap<String, String>,
}

impl Seen {
    /// First byte asked for, when the validator is the right one.
    pub fn offset(&self, tag: &str) -> Option<usize> {
        if self.headers.get("if-range").is_some_and(|asked| asked != tag) {
            return None;
        }
        self.headers.get("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// A recording host that answers by script.
pub struct Host {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Host {
    pub async fn start(script: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_on("127.0.0.1:0", script).await
    }

    pub async fn start_on(address: &str, script: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, script) = (seen.clone(), Arc::new(script));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (log, script) = (log.clone(), script.clone());
                tokio::spawn(async move {
                    let Some((stream, seen)) = read_request(stream).await else { return };
                    let number = {
                        let mut log = log.lock().unwrap();
                        log.push(seen.clone());
                        log.len() - 1
                    };
                    send(stream, script(&seen, number)).await;
                });
            }
        });
        Self { address, seen }
    }

    pub fn url(&self, path: &str) -> RecordingUrl {
        RecordingUrl::parse(&format!("http://{}{path}?{SECRET}", self.address)).unwrap()
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

async fn read_request(mut stream: TcpStream) -> Option<(TcpStream, Seen)> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    let text = String::from_utf8(bytes).unwrap();
    let mut lines = text.lines();
    let target = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    Some((stream, Seen { target, headers }))
}

async fn send(mut stream: TcpStream, reply: Reply) {
    if stream.write_all(&reply.bytes).await.is_err() {
        return;
    }
    match reply.then {
        Then::Close => {
            let _ = stream.shutdown().await;
        }
        Then::Reset => {
            // Bytes sent before a reset may be dropped by the receiver: let them be read first.
            let _ = stream.writable().await;
            stream.set_zero_linger().unwrap();
        }
        Then::Hang => {
            // Until the other side gives up.
            let _ = stream.read(&mut [0]).await;
        }
        Then::Forever => while stream.write_all(&reply.bytes[reply.bytes.len() - 1024..]).await.is_ok() {},
    }
}
