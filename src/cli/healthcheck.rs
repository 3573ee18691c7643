//! The command `healthcheck`. The configuration goes in. The exit code tells the health of the running process.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Ended, out};
use crate::config::Config;

/// Asks for `/healthz` at `ops.listen`, or at `api.listen` where `ops.listen` is not set.
pub(super) async fn run(config: &Config) -> Result<Ended> {
    let mut at = config.ops.listen.unwrap_or(config.api.listen);
    // An unspecified address such as 0.0.0.0 is for listening. The request goes to loopback.
    if at.ip().is_unspecified() {
        let loopback: IpAddr = if at.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
        at = SocketAddr::new(loopback, at.port());
    }
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).timeout(Duration::from_secs(5)).build()?;
    let answer =
        client.get(format!("http://{at}/healthz")).send().await.with_context(|| format!("nothing answers on {at}"))?;
    if answer.status().is_success() {
        return Ok(Ended::Well);
    }
    out::error(&format!("{at} answered {}", answer.status()));
    Ok(Ended::Failed)
}
