//! The address guard: which hosts may serve a recording. Recording URLs come from outside. Without the guard, a sender
//! of a URL could make the worker read from its own internal network (server-side request forgery).

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::{Context, Poll};
use std::vec;

use futures::future::BoxFuture;
use hyper_util::client::legacy::connect::dns::Name;
use ipnet::{Ipv4Net, Ipv6Net};
use tower::Service;
use url::{Host, Url};

use super::error::FetchError;

/// Refused IPv4 ranges: the IANA special-purpose registry (RFC 6890 and its updates), multicast (RFC 5771), and Azure's
/// metadata host, which is in public address space.
const REFUSED_V4: [Ipv4Net; 16] = [
    v4([0, 0, 0, 0], 8),
    v4([10, 0, 0, 0], 8),
    v4([100, 64, 0, 0], 10),
    v4([127, 0, 0, 0], 8),
    v4([168, 63, 129, 16], 32),
    v4([169, 254, 0, 0], 16),
    v4([172, 16, 0, 0], 12),
    v4([192, 0, 0, 0], 24),
    v4([192, 0, 2, 0], 24),
    v4([192, 88, 99, 0], 24),
    v4([192, 168, 0, 0], 16),
    v4([198, 18, 0, 0], 15),
    v4([198, 51, 100, 0], 24),
    v4([203, 0, 113, 0], 24),
    v4([224, 0, 0, 0], 4),
    v4([240, 0, 0, 0], 4),
];

/// All global unicast IPv6 addresses (RFC 4291 section 2.5.4). Other addresses are loopback, unique local, link-local,
/// multicast, IPv4-mapped (`::ffff:0:0/96`) or NAT64 (`64:ff9b::/96`). The last two contain an IPv4 address.
const GLOBAL_V6: Ipv6Net = v6([0x2000, 0], 3);

/// Refused parts of that range: Teredo and other protocol assignments, documentation, 6to4.
const REFUSED_V6: [Ipv6Net; 4] =
    [v6([0x2001, 0], 23), v6([0x2001, 0x0db8], 32), v6([0x2002, 0], 16), v6([0x3fff, 0], 20)];

const fn v4(octets: [u8; 4], prefix: u8) -> Ipv4Net {
    let [a, b, c, d] = octets;
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(start: [u16; 2], prefix: u8) -> Ipv6Net {
    let [a, b] = start;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0), prefix)
}

/// True for an address that only a configured host may have.
fn is_refused(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => REFUSED_V4.iter().any(|net| net.contains(&address)),
        IpAddr::V6(address) => !GLOBAL_V6.contains(&address) || REFUSED_V6.iter().any(|net| net.contains(&address)),
    }
}

/// The host rules of one source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostPolicy {
    /// Hosts of `recording_hosts`. Any port, plain http and private addresses are allowed.
    named: BTreeSet<String>,
    /// The platform's API exactly as configured (scheme, host, port). The operator already sends keys to it.
    own: Option<url::Origin>,
}

impl HostPolicy {
    /// Any public host over https, nothing else.
    #[must_use]
    pub fn public_only() -> Self {
        Self::default()
    }

    /// The policy of a source with this API address and these `recording_hosts`.
    #[must_use]
    pub fn new(base_url: &Url, recording_hosts: &[String]) -> Self {
        Self { named: recording_hosts.iter().map(|host| plain(host)).collect(), own: Some(base_url.origin()) }
    }

    /// The client for this URL.
    ///
    /// # Errors
    /// [`FetchError::RefusedUrl`] when the URL is not allowed.
    pub(super) fn route(&self, url: &Url) -> Result<Route, FetchError> {
        let Some(host) = url.host() else { return Err(refused("", "the URL has no host")) };
        let name = plain(&host.to_string());
        let plain_http = match url.scheme() {
            "https" => false,
            "http" => true,
            _ => return Err(refused(&name, "only http and https are supported")),
        };
        if self.named.contains(&name) || self.own.as_ref() == Some(&url.origin()) {
            return Ok(if plain_http { Route::TrustedPlain } else { Route::Trusted });
        }
        let literal = match host {
            Host::Ipv4(address) => Some(IpAddr::V4(address)),
            Host::Ipv6(address) => Some(IpAddr::V6(address)),
            Host::Domain(_) => None,
        };
        // An IP literal never reaches the resolver, so it is checked here.
        if literal.is_some_and(is_refused) {
            return Err(refused(&name, PRIVATE));
        }
        if plain_http {
            return Err(refused(&name, "plain http is used only towards hosts named in recording_hosts"));
        }
        Ok(Route::Guarded)
    }
}

/// The client for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    /// https to public addresses.
    Guarded,
    /// https to a configured host at any address.
    Trusted,
    /// Plain http to a configured host.
    TrustedPlain,
}

const PRIVATE: &str =
    "its address is private, local or reserved; name the host in recording_hosts if recordings really are there";

fn refused(host: &str, reason: &'static str) -> FetchError {
    FetchError::RefusedUrl { host: Some(host.to_owned()).filter(|host| !host.is_empty()), reason }
}

/// A host in the form for comparison: lower case, no brackets, no final dot.
fn plain(host: &str) -> String {
    host.trim().trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_ascii_lowercase()
}

/// A name had no allowed address. The error passes through the HTTP client's error chain.
#[derive(Debug)]
pub(super) struct RefusedAddress(String);

impl RefusedAddress {
    pub(super) fn to_error(&self) -> FetchError {
        refused(&self.0, PRIVATE)
    }
}

impl fmt::Display for RefusedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {PRIVATE}", self.0)
    }
}

impl std::error::Error for RefusedAddress {}

/// The system's resolver.
#[derive(Debug, Clone, Copy)]
pub(super) enum Resolver {
    /// Returns every address.
    Open,
    /// Removes refused addresses. The check is on the addresses that the connection then uses. So a name that changes
    /// its answer between check and connect does not pass the guard.
    Guarded,
}

type Addresses = vec::IntoIter<SocketAddr>;
type LookupError = Box<dyn std::error::Error + Send + Sync>;

impl Service<Name> for Resolver {
    type Response = Addresses;
    type Error = LookupError;
    type Future = BoxFuture<'static, Result<Addresses, LookupError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), LookupError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let lookup = *self;
        Box::pin(async move {
            // The connector replaces port 0 by the URL's port.
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            match lookup {
                Self::Open => Ok(found.into_iter()),
                Self::Guarded => allowed(name.as_str(), found),
            }
        })
    }
}

fn allowed(name: &str, found: Vec<SocketAddr>) -> Result<Addresses, LookupError> {
    if found.is_empty() {
        return Err(Box::new(io::Error::new(io::ErrorKind::NotFound, "the name has no address")));
    }
    let kept: Vec<SocketAddr> = found.into_iter().filter(|address| !is_refused(address.ip())).collect();
    if kept.is_empty() {
        return Err(Box::new(RefusedAddress(plain(name))));
    }
    Ok(kept.into_iter())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn private_reserved_and_disguised_addresses_are_refused() {
        let addresses = [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
            "3fff::1",
        ];
        for text in addresses {
            assert!(is_refused(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn public_addresses_are_not() {
        for text in ["8.8.8.8", "1.1.1.1", "52.216.0.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450::1"]
        {
            assert!(!is_refused(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn literals_in_every_spelling_are_refused_and_https_is_required() {
        let policy = HostPolicy::public_only();
        let spellings = [
            "https://127.0.0.1/a",
            "https://2130706433/a",
            "https://0x7f.1/a",
            "https://0177.0.0.1/a",
            "https://127.1/a",
            "https://[::1]/a",
            "https://[::ffff:10.0.0.1]/a",
            "https://169.254.169.254/latest/meta-data",
            "http://recordings.example.com/a",
            "http://8.8.8.8/a",
            "ftp://recordings.example.com/a",
        ];
        for text in spellings {
            assert!(matches!(policy.route(&url(text)), Err(FetchError::RefusedUrl { .. })), "{text}");
        }
        assert_eq!(policy.route(&url("https://recordings.example.com/a")).unwrap(), Route::Guarded);
    }

    #[test]
    fn a_named_host_may_be_private_plain_and_on_any_port() {
        let named = ["Storage.Internal".to_owned(), "10.0.0.5".to_owned(), "[fd00::5]".to_owned()];
        let policy = HostPolicy::new(&url("https://api.example.com/v1"), &named);
        for text in ["http://storage.internal:9000/a", "http://10.0.0.5:81/a", "http://[fd00::5]/a"] {
            assert_eq!(policy.route(&url(text)).unwrap(), Route::TrustedPlain, "{text}");
        }
        assert_eq!(policy.route(&url("https://STORAGE.internal./a")).unwrap(), Route::Trusted);
        assert!(policy.route(&url("http://10.0.0.6/a")).is_err());
    }

    #[test]
    fn the_platforms_own_address_is_used_as_written_and_no_further() {
        let policy = HostPolicy::new(&url("http://127.0.0.1:8090/v1"), &[]);
        assert_eq!(policy.route(&url("http://127.0.0.1:8090/rec/1.mp3")).unwrap(), Route::TrustedPlain);
        assert!(policy.route(&url("http://127.0.0.1:6379/")).is_err());
        assert!(policy.route(&url("https://127.0.0.1:8090/")).is_err());
    }

    #[test]
    fn of_a_mixed_answer_only_public_addresses_are_used() {
        let both = vec!["10.0.0.1:0".parse().unwrap(), "8.8.8.8:0".parse().unwrap()];
        let kept: Vec<SocketAddr> = allowed("mixed.test", both).unwrap().collect();
        assert_eq!(kept, ["8.8.8.8:0".parse().unwrap()]);
        let err = allowed("inside.test", vec!["10.0.0.1:0".parse().unwrap()]).err().unwrap();
        assert!(err.downcast_ref::<RefusedAddress>().is_some());
    }
}
