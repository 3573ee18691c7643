//! The HTTP clients recordings are asked with: no proxy, no cookies, no keys, redirects followed by hand so that
//! every hop passes the guard.

use std::error::Error;
use std::sync::OnceLock;
use std::time::Duration;

use reqwest::header::{ACCEPT_ENCODING, IF_RANGE, LOCATION, RANGE};
use reqwest::{Client, ClientBuilder, Response};
use url::Url;

use super::error::FetchError;
use super::guard::{GuardedResolver, HostPolicy, RefusedAddress, Route};

const USER_AGENT: &str = concat!("aftercall/", env!("CARGO_PKG_VERSION"));
/// Idle connections to a recording host are of little use and their addresses age.
const KEEP_IDLE: Duration = Duration::from_secs(30);

/// One client per [`Route`], made when first needed.
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
    /// Why every https connection of this client is going to fail: the system has no CA certificates.
    no_roots: Option<String>,
}

/// The last answer of a chain of redirects and the host that gave it.
pub(super) struct Answer {
    pub host: String,
    pub response: Response,
}

impl Clients {
    pub(super) const fn new(connect_timeout: Duration) -> Self {
        Self { connect_timeout, guarded: OnceLock::new(), trusted: OnceLock::new(), trusted_plain: OnceLock::new() }
    }

    /// Asks for the recording, or for its rest, following redirects as far as the policy and the limit allow.
    pub(super) async fn get(
        &self,
        url: &Url,
        policy: &HostPolicy,
        rest: Option<(u64, &str)>,
        max_redirects: u8,
        patience: Duration,
    ) -> Result<Answer, FetchError> {
        let mut url = url.clone();
        for _ in 0..=max_redirects {
            let host = url.host_str().unwrap_or_default().to_owned();
            let made = self.of(policy.route(&url)?)?;
            let mut request = made.client.get(url.clone()).header(ACCEPT_ENCODING, "identity");
            if let Some((received_bytes, validator)) = rest {
                request = request.header(RANGE, format!("bytes={received_bytes}-")).header(IF_RANGE, validator);
            }
            let Ok(sent) = tokio::time::timeout(patience, request.send()).await else {
                return Err(FetchError::TooSlow { host, received_bytes: 0, window: patience });
            };
            let response = sent.map_err(|err| unreachable(&host, made, err))?;
            match next_hop(&url, &response) {
                Hop::Stay => return Ok(Answer { host, response }),
                Hop::To(next) => url = next,
                Hop::Nowhere => return Err(FetchError::Unexpected { host, status: response.status().as_u16() }),
            }
        }
        Err(FetchError::TooManyRedirects { limit: max_redirects })
    }

    fn of(&self, route: Route) -> Result<&Made, FetchError> {
        let made = match route {
            Route::Guarded => self.guarded.get_or_init(|| with_roots(|| self.plain().dns_resolver(GuardedResolver))),
            Route::Trusted => self.trusted.get_or_init(|| with_roots(|| self.plain())),
            Route::TrustedPlain => self.trusted_plain.get_or_init(|| without_roots(self.plain(), None)),
        };
        made.as_ref().map_err(|reason| FetchError::Client(reason.clone()))
    }

    fn plain(&self) -> ClientBuilder {
        Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .user_agent(USER_AGENT)
            .connect_timeout(self.connect_timeout)
            .pool_idle_timeout(KEEP_IDLE)
    }
}

/// A client that trusts the system's CA certificates, or, where there are none, nobody: what the guard refuses is
/// refused all the same.
fn with_roots(builder: impl Fn() -> ClientBuilder) -> Result<Made, String> {
    provide_crypto();
    match builder().build() {
        Ok(client) => Ok(Made { client, no_roots: None }),
        Err(err) => without_roots(builder(), Some(chain(&err))),
    }
}

fn without_roots(builder: ClientBuilder, no_roots: Option<String>) -> Result<Made, String> {
    provide_crypto();
    let client = builder.tls_certs_only(std::iter::empty()).build().map_err(|err| chain(&err))?;
    Ok(Made { client, no_roots })
}

/// The client panics without a process-wide provider; whoever installed one first keeps it.
fn provide_crypto() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

enum Hop {
    Stay,
    To(Url),
    Nowhere,
}

fn next_hop(from: &Url, response: &Response) -> Hop {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Hop::Stay;
    }
    let location = response.headers().get(LOCATION).and_then(|text| text.to_str().ok());
    let next = location.and_then(|text| from.join(text).ok());
    match next {
        Some(next) if next.username().is_empty() && next.password().is_none() => Hop::To(next),
        _ => Hop::Nowhere,
    }
}

fn unreachable(host: &str, made: &Made, err: reqwest::Error) -> FetchError {
    let err = err.without_url();
    let mut cause: Option<&(dyn Error + 'static)> = Some(&err);
    while let Some(link) = cause {
        if let Some(refused) = link.downcast_ref::<RefusedAddress>() {
            return refused.to_error();
        }
        cause = link.source();
    }
    match &made.no_roots {
        Some(reason) => FetchError::Client(reason.clone()),
        None => FetchError::Unreachable { host: host.to_owned(), cause: chain(&err) },
    }
}

/// An error with all its causes on one line. Callers take the URL out of it first.
pub(super) fn chain(err: &(dyn Error + 'static)) -> String {
    let mut text = err.to_string();
    let mut cause = err.source();
    while let Some(err) = cause {
        text = format!("{text}: {err}");
        cause = err.source();
    }
    text
}
