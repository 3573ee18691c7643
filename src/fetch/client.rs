//! The HTTP clients for recordings: no proxy, no cookies, no keys. Redirects are followed by our own code, so that
//! every hop passes the address guard. Path and query are sent byte for byte. Clients that take parsed URLs change
//! bytes that a signature covers, so this one builds on hyper.

use std::error::Error;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, ACCEPT_ENCODING, HeaderValue, IF_RANGE, LOCATION, RANGE, USER_AGENT};
use hyper::http::request::Builder;
use hyper::{Request, Response, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::crypto::{CryptoProvider, ring};
use rustls::{ClientConfig, RootCertStore};

use super::error::FetchError;
use super::guard::{HostPolicy, RefusedAddress, Resolver, Route};
use crate::domain::{Address, chain};

const AGENT: &str = concat!("aftercall/", env!("CARGO_PKG_VERSION"));
/// Idle connections to a recording host are rarely reused, and their addresses become outdated.
const KEEP_IDLE: Duration = Duration::from_secs(30);

type Client = legacy::Client<HttpsConnector<HttpConnector<Resolver>>, Empty<Bytes>>;

/// One client per [`Route`], created on first use.
#[derive(Debug)]
pub(super) struct Clients {
    connect_timeout: Duration,
    guarded: OnceLock<Result<Made, String>>,
    trusted: OnceLock<Result<Made, String>>,
    trusted_plain: OnceLock<Result<Made, String>>,
}

#[derive(Debug)]
struct Made {
    client: Client,
    /// Why every https connection of this client will fail: the system has no CA certificates.
    no_roots: Option<String>,
}

/// The part of a recording that is requested.
#[derive(Debug, Clone, Copy)]
pub(super) enum RequestedPart<'a> {
    Whole,
    /// From this byte on, of the version with this validator.
    Rest {
        first: u64,
        validator: Option<&'a str>,
    },
    /// One byte. The answer's header contains the total size.
    Size,
}

/// The last answer of a redirect chain, and its host.
pub(super) struct HttpAnswer {
    pub host: String,
    pub response: Response<Incoming>,
}

impl Clients {
    pub(super) const fn new(connect_timeout: Duration) -> Self {
        Self { connect_timeout, guarded: OnceLock::new(), trusted: OnceLock::new(), trusted_plain: OnceLock::new() }
    }

    /// Requests the recording, or a part of it. It follows redirects within the policy and the limit.
    pub(super) async fn get(
        &self,
        address: &Address,
        policy: &HostPolicy,
        wanted: RequestedPart<'_>,
        max_redirects: u8,
        patience: Duration,
    ) -> Result<HttpAnswer, FetchError> {
        let mut address = address.clone();
        for _ in 0..=max_redirects {
            let host = address.url().host_str().unwrap_or_default().to_owned();
            let made = self.of(policy.route(address.url())?)?;
            let request = request(&address, wanted).ok_or_else(|| unaskable(&host))?;
            let Ok(sent) = tokio::time::timeout(patience, made.client.request(request)).await else {
                return Err(FetchError::TooSlow { host, received_bytes: 0, window: patience });
            };
            let response = sent.map_err(|err| unreachable(&host, made, &err))?;
            match next_hop(&address, &response) {
                Hop::Stay => return Ok(HttpAnswer { host, response }),
                Hop::To(next) => address = next,
                Hop::Nowhere => return Err(FetchError::Unexpected { host, status: response.status().as_u16() }),
            }
        }
        Err(FetchError::TooManyRedirects { limit: max_redirects })
    }

    fn of(&self, route: Route) -> Result<&Made, FetchError> {
        let made = match route {
            Route::Guarded => self.guarded.get_or_init(|| self.with_roots(Resolver::Guarded)),
            Route::Trusted => self.trusted.get_or_init(|| self.with_roots(Resolver::Open)),
            Route::TrustedPlain => self.trusted_plain.get_or_init(|| self.without_roots(Resolver::Open, None)),
        };
        made.as_ref().map_err(|reason| FetchError::Client(reason.clone()))
    }

    /// A client with the system's CA certificates. Without CA certificates the client trusts no server, but the address
    /// guard still reports refused addresses.
    fn with_roots(&self, lookup: Resolver) -> Result<Made, String> {
        match HttpsConnectorBuilder::new().with_provider_and_platform_verifier(crypto()) {
            Ok(builder) => Ok(Made {
                client: client(builder.https_or_http().enable_all_versions().wrap_connector(self.connector(lookup))),
                no_roots: None,
            }),
            Err(err) => self.without_roots(lookup, Some(chain(&err))),
        }
    }

    fn without_roots(&self, lookup: Resolver, no_roots: Option<String>) -> Result<Made, String> {
        let tls = ClientConfig::builder_with_provider(crypto())
            .with_safe_default_protocol_versions()
            .map_err(|err| chain(&err))?
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let builder = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_all_versions();
        Ok(Made { client: client(builder.wrap_connector(self.connector(lookup))), no_roots })
    }

    fn connector(&self, lookup: Resolver) -> HttpConnector<Resolver> {
        let mut connector = HttpConnector::new_with_resolver(lookup);
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(self.connect_timeout));
        connector
    }
}

fn client(connector: HttpsConnector<HttpConnector<Resolver>>) -> Client {
    legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(KEEP_IDLE)
        .build(connector)
}

fn crypto() -> Arc<CryptoProvider> {
    CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(ring::default_provider()))
}

/// None where the address makes no valid request.
fn request(address: &Address, wanted: RequestedPart<'_>) -> Option<Request<Empty<Bytes>>> {
    let uri = Uri::builder()
        .scheme(address.url().scheme())
        .authority(address.authority())
        .path_and_query(address.target())
        .build()
        .ok()?;
    let plain = Request::get(uri)
        .header(USER_AGENT, HeaderValue::from_static(AGENT))
        .header(ACCEPT, HeaderValue::from_static("*/*"))
        .header(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    let part = |request: Builder, range: String| request.header(RANGE, range);
    let request = match wanted {
        RequestedPart::Whole => plain,
        RequestedPart::Size => part(plain, "bytes=0-0".to_owned()),
        RequestedPart::Rest { first, validator: None } => part(plain, format!("bytes={first}-")),
        RequestedPart::Rest { first, validator: Some(validator) } => {
            part(plain, format!("bytes={first}-")).header(IF_RANGE, validator)
        }
    };
    request.body(Empty::new()).ok()
}

fn unaskable(host: &str) -> FetchError {
    FetchError::RefusedUrl { host: Some(host.to_owned()), reason: "the URL cannot be used in a request" }
}

enum Hop {
    Stay,
    To(Address),
    Nowhere,
}

fn next_hop(from: &Address, response: &Response<Incoming>) -> Hop {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Hop::Stay;
    }
    let location = response.headers().get(LOCATION);
    location.and_then(|location| from.join(location.as_bytes())).map_or(Hop::Nowhere, Hop::To)
}

fn unreachable(host: &str, made: &Made, err: &legacy::Error) -> FetchError {
    let mut cause: Option<&(dyn Error + 'static)> = Some(err);
    while let Some(link) = cause {
        if let Some(refused) = link.downcast_ref::<RefusedAddress>() {
            return refused.to_error();
        }
        cause = link.source();
    }
    match &made.no_roots {
        Some(reason) => FetchError::Client(reason.clone()),
        None => FetchError::Unreachable { host: host.to_owned(), cause: chain(err) },
    }
}
