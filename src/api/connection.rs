//! Connection limits of the API. The number of connections is limited in total and per address. An idle connection is
//! closed. An idle connection without a request is closed earlier when few places are free.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use ipnet::IpNet;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

/// Limits on the number of connections and on their idle time.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    /// Connections at the same time. Further connections wait to be accepted. Keep it well below the usual limit of
    /// open files.
    pub(super) most: usize,
    /// Connections of one address at the same time. Further connections are closed.
    pub(super) of_address: usize,
    /// Reverse proxies. Their connections do not count per address, because many clients share one proxy.
    pub(super) proxies: Vec<IpNet>,
    /// A connection without traffic for this long is closed.
    pub(super) idle: Duration,
    /// The idle limit of a connection without a request while fewer than a quarter of all places are free.
    pub(super) idle_when_near: Duration,
}

/// A listener that enforces [`Limits`].
#[derive(Debug)]
pub(super) struct Connections {
    listener: TcpListener,
    places: Arc<Semaphore>,
    limits: Limits,
    addresses: Arc<Addresses>,
}

/// Open connections by address.
#[derive(Debug, Default)]
struct Addresses(Mutex<HashMap<IpAddr, usize>>);

/// One counted connection of an address. Drop releases it.
#[derive(Debug)]
struct AddressEntry {
    address: IpAddr,
    of: Arc<Addresses>,
}

impl Addresses {
    /// None when the address has reached its limit.
    fn enter(self: &Arc<Self>, address: IpAddr, most: usize) -> Option<AddressEntry> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = all.entry(address).or_insert(0);
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(AddressEntry { address, of: self.clone() })
    }
}

impl Drop for AddressEntry {
    fn drop(&mut self) {
        let mut all = self.of.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.address);
            }
        }
    }
}

/// The key under which an address is counted. IPv6 addresses count by their /64 network, because one customer has all
/// addresses of a network (RFC 6177).
fn counted(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}

impl Connections {
    pub(super) fn new(listener: TcpListener, limits: Limits) -> Self {
        Self { listener, places: Arc::new(Semaphore::new(limits.most)), limits, addresses: Arc::default() }
    }

    /// The next connection within the limit of its address. Connections over the limit are closed at once.
    async fn next(&mut self) -> (TcpStream, SocketAddr, Option<AddressEntry>) {
        loop {
            let (stream, peer) = Listener::accept(&mut self.listener).await;
            let address = peer.ip().to_canonical();
            if self.limits.proxies.iter().any(|proxy| proxy.contains(&address)) {
                return (stream, peer, None);
            }
            if let Some(entry) = self.addresses.enter(counted(address), self.limits.of_address) {
                return (stream, peer, Some(entry));
            }
        }
    }
}

impl Listener for Connections {
    type Io = ApiConnection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (ApiConnection, SocketAddr) {
        let (stream, peer, entry) = self.next().await;
        // The semaphore is never closed.
        let place = self.places.clone().acquire_owned().await.ok();
        let connection = ApiConnection {
            stream,
            moved: Instant::now(),
            alarm: Box::pin(sleep(self.limits.idle.min(self.limits.idle_when_near))),
            limits: self.limits.clone(),
            places: self.places.clone(),
            requests: ConnectionRequests::default(),
            _place: place,
            _entry: entry,
        };
        (connection, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Requests in progress on a connection.
#[derive(Debug, Clone, Default)]
pub(super) struct ConnectionRequests(Arc<AtomicUsize>);

/// One request in progress. Drop releases it.
#[derive(Debug)]
pub(super) struct Answering(Arc<AtomicUsize>);

impl ConnectionRequests {
    /// Counts one more request until the result is dropped.
    pub(super) fn one(&self) -> Answering {
        self.0.fetch_add(1, Ordering::Relaxed);
        Answering(self.0.clone())
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connected<IncomingStream<'_, Connections>> for ConnectionRequests {
    fn connect_info(stream: IncomingStream<'_, Connections>) -> Self {
        stream.io().requests.clone()
    }
}

/// A connection that closes itself after its idle time.
#[derive(Debug)]
pub(super) struct ApiConnection {
    stream: TcpStream,
    moved: Instant,
    alarm: Pin<Box<Sleep>>,
    limits: Limits,
    places: Arc<Semaphore>,
    requests: ConnectionRequests,
    _place: Option<OwnedSemaphorePermit>,
    _entry: Option<AddressEntry>,
}

impl ApiConnection {
    /// Passes on the result of the stream. Traffic restarts the idle timer; an expired timer is an error.
    fn watched<T>(&mut self, cx: &mut Context<'_>, moved: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if moved.is_ready() {
            self.moved = Instant::now();
            return moved;
        }
        while self.alarm.as_mut().poll(cx).is_ready() {
            let rested = self.moved.elapsed();
            if rested >= self.may_rest() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            // The number of free places may change before the next check.
            let again = self.limits.idle_when_near.saturating_sub(rested).max(LOOK);
            self.alarm.as_mut().reset(Instant::now() + again.min(self.limits.idle.saturating_sub(rested)));
        }
        Poll::Pending
    }

    fn may_rest(&self) -> Duration {
        let near = self.places.available_permits() < self.limits.most / 4;
        let waits_for_nothing = self.requests.0.load(Ordering::Relaxed) == 0;
        if near && waits_for_nothing { self.limits.idle.min(self.limits.idle_when_near) } else { self.limits.idle }
    }
}

/// Time between two checks of the free places on an idle connection.
const LOOK: Duration = Duration::from_secs(1);

impl AsyncRead for ApiConnection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        this.watched(cx, read)
    }
}

impl AsyncWrite for ApiConnection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.watched(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        this.watched(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn limits() -> Limits {
        let (idle, idle_when_near) = (Duration::from_secs(60), Duration::from_millis(200));
        Limits { most: 8, of_address: 8, proxies: Vec::new(), idle, idle_when_near }
    }

    async fn listening(limits: Limits) -> (Connections, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        (Connections::new(listener, limits), at)
    }

    #[tokio::test]
    async fn a_silent_connection_ends_and_a_talking_one_does_not() {
        let (mut connections, at) = listening(Limits { idle: Duration::from_millis(200), ..limits() }).await;
        let mut client = TcpStream::connect(at).await.unwrap();
        let (mut server, _) = connections.accept().await;
        let mut byte = [0];
        for _ in 0..3 {
            client.write_all(b"x").await.unwrap();
            assert_eq!(server.read(&mut byte).await.unwrap(), 1);
        }
        let ended = tokio::time::timeout(Duration::from_secs(20), server.read(&mut byte)).await.unwrap();
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn near_the_limit_only_those_that_wait_for_nothing_end() {
        let (mut connections, at) = listening(limits()).await;
        let (mut clients, mut served) = (Vec::new(), Vec::new());
        for _ in 0..6 {
            clients.push(TcpStream::connect(at).await.unwrap());
            served.push(connections.accept().await.0);
        }
        let mut byte = [0];
        let short = Duration::from_secs(2);
        // Two of eight places are free: that is exactly a quarter.
        assert!(tokio::time::timeout(short, served[0].read(&mut byte)).await.is_err(), "it ended with places free");
        clients.push(TcpStream::connect(at).await.unwrap());
        served.push(connections.accept().await.0);
        let answering = served[1].requests.one();
        assert!(tokio::time::timeout(short, served[1].read(&mut byte)).await.is_err(), "its request is being answered");
        drop(answering);
        for mut connection in served {
            let ended = tokio::time::timeout(Duration::from_secs(20), connection.read(&mut byte)).await;
            if connection.places.available_permits() < 2 {
                assert_eq!(ended.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
            }
        }
    }

    #[tokio::test]
    async fn places_are_given_back() {
        let (mut connections, at) = listening(limits()).await;
        let _client = TcpStream::connect(at).await.unwrap();
        let (server, _) = connections.accept().await;
        assert_eq!(connections.places.available_permits(), 7);
        assert_eq!(connections.addresses.0.lock().unwrap().len(), 1);
        drop(server);
        assert_eq!(connections.places.available_permits(), 8);
        assert!(connections.addresses.0.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn an_address_has_only_so_many_unless_it_is_a_proxy() {
        for (proxies, served) in [(vec![], 2), (vec!["127.0.0.0/8".parse().unwrap()], 5)] {
            let (mut connections, at) = listening(Limits { of_address: 2, proxies, ..limits() }).await;
            let mut clients = Vec::new();
            for _ in 0..5 {
                clients.push(TcpStream::connect(at).await.unwrap());
            }
            let mut held = Vec::new();
            while let Ok(accepted) = tokio::time::timeout(Duration::from_millis(500), connections.accept()).await {
                held.push(accepted);
            }
            assert_eq!(held.len(), served);
        }
    }

    #[test]
    fn an_ipv6_customer_is_one_address() {
        for (address, whose) in [
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("2001:db8:1:2:ffff::1", "2001:db8:1:2::"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("192.0.2.8", "192.0.2.8"),
        ] {
            assert_eq!(counted(address.parse().unwrap()).to_string(), whose, "{address}");
        }
    }
}
