//! A mean opinion score (`mos_cqe`) from network figures by the reduced E-model (ITU-T G.107, impairment values of
//! ITU-T G.113 appendix I). A recording holds no network figures. The platform's figures are the input.

use crate::domain::Network;
use crate::domain::quality::Mos;

/// Basic signal-to-noise ratio with all other parameters at their defaults.
const BASIC: f64 = 93.2;
/// Name of the method in the quality document.
const E_MODEL: &str = "ITU-T G.107";
/// Method name of a score that the platform gave.
const PROVIDER: &str = "provider";

/// Impairment of a codec by itself and under packet loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CodecImpairment {
    /// Equipment impairment without loss.
    pub ie: f64,
    /// Robustness against loss.
    pub bpl: f64,
}

/// G.711 with packet loss concealment.
const G711_PLC: CodecImpairment = CodecImpairment { ie: 0.0, bpl: 25.1 };
/// G.711 without concealment.
pub const G711: CodecImpairment = CodecImpairment { ie: 0.0, bpl: 4.3 };
/// G.729 annex A.
const G729A: CodecImpairment = CodecImpairment { ie: 11.0, bpl: 19.0 };

/// Rating factor R for a one-way delay (ms), a codec and a random packet loss (per cent).
#[must_use]
pub fn r_factor(delay_ms: f64, codec: CodecImpairment, loss_percent: f64) -> f64 {
    // Random loss has a burst ratio of 1.
    let loss = (95.0 - codec.ie) * loss_percent / (loss_percent + codec.bpl);
    BASIC - delay_impairment(delay_ms) - (codec.ie + loss)
}

/// Delay impairment Idd of G.107.
fn delay_impairment(delay_ms: f64) -> f64 {
    if delay_ms <= 100.0 {
        return 0.0;
    }
    let x = (delay_ms / 100.0).log2();
    let root = |x: f64| (1.0 + x.powi(6)).powf(1.0 / 6.0);
    25.0 * (root(x) - 3.0 * root(x / 3.0) + 2.0)
}

/// The score of a rating, G.107 annex B.
#[must_use]
pub fn score(r: f64) -> f64 {
    if r <= 0.0 {
        return 1.0;
    }
    if r >= 100.0 {
        return 4.5;
    }
    (1.0 + 0.035 * r + r * (r - 60.0) * (100.0 - r) * 7e-6).clamp(1.0, 4.5)
}

/// The score of a call with its assumptions, or the reason for no score.
#[must_use]
pub fn estimate(network: &Network) -> Mos {
    if let Some(mos) = network.mos {
        return Mos { mos_cqe: Some(mos), r_factor: None, method: PROVIDER.into(), assumed: vec![], reason: None };
    }
    let none = |reason: &str| Mos {
        mos_cqe: None,
        r_factor: None,
        method: E_MODEL.into(),
        assumed: vec![],
        reason: Some(reason.to_owned()),
    };
    let sane = |value: &f64| value.is_finite() && *value >= 0.0;
    let latency_ms = network.latency_ms.filter(sane);
    let loss_percent = network.packet_loss_percent.filter(|loss| sane(loss) && *loss <= 100.0);
    if loss_percent.is_none() && network.packet_loss_raw.is_some() {
        return none(if network.packet_loss_percent.is_some() {
            "packet_loss_out_of_range"
        } else {
            "packet_loss_unit_unknown"
        });
    }
    if loss_percent.is_none() && latency_ms.is_none() {
        return none("no_network_figures");
    }
    let mut assumed = Vec::new();
    let codec = match network.codec.as_deref().map(known_codec) {
        Some(Some(codec)) => codec,
        Some(None) => {
            assumed.push("codec impairment of G.711 with concealment (none is published for this codec)".to_owned());
            G711_PLC
        }
        None => {
            assumed.push("codec G.711 with concealment".to_owned());
            G711_PLC
        }
    };
    assumed.push(match latency_ms {
        Some(_) => "the platform's latency is the one-way delay".to_owned(),
        None => "delay up to 100 ms".to_owned(),
    });
    if loss_percent.is_none() {
        assumed.push("no packet loss".to_owned());
    } else {
        assumed.push("loss is random".to_owned());
    }
    assumed.push("no echo".to_owned());
    let r = r_factor(latency_ms.unwrap_or(0.0), codec, loss_percent.unwrap_or(0.0));
    Mos { mos_cqe: Some(score(r)), r_factor: Some(r), method: E_MODEL.into(), assumed, reason: None }
}

/// A codec by the names that platforms use. G.711 is taken with concealment, as receivers have it today.
fn known_codec(name: &str) -> Option<CodecImpairment> {
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    match plain.as_str() {
        "pcmu" | "pcma" | "g711" | "g711u" | "g711a" | "g711ulaw" | "g711alaw" | "ulaw" | "alaw" | "mulaw" => {
            Some(G711_PLC)
        }
        "g729" | "g729a" => Some(G729A),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_check_values() {
        let cases = [
            (0.0, G711_PLC, 0.0, 93.20, 4.409),
            (0.0, G711_PLC, 1.0, 89.56, 4.328),
            (0.0, G711, 1.0, 75.28, 3.834),
            (150.0, G711_PLC, 0.0, 93.04, 4.406),
            (200.0, G711_PLC, 0.0, 90.16, 4.343),
            (400.0, G711_PLC, 0.0, 69.13, 3.556),
            (150.0, G729A, 1.0, 77.84, 3.940),
        ];
        for (delay, codec, loss, r, mos) in cases {
            let rating = r_factor(delay, codec, loss);
            assert!((rating - r).abs() < 0.01, "{delay} {codec:?} {loss}: {rating}");
            assert!((score(rating) - mos).abs() < 0.001, "{delay} {codec:?} {loss}: {}", score(rating));
        }
        assert!((score(-20.0) - 1.0).abs() < 1e-9 && (score(120.0) - 4.5).abs() < 1e-9);
    }

    #[test]
    fn a_platforms_own_score_wins() {
        let network = Network { mos: Some(4.2), latency_ms: Some(900.0), ..Network::default() };
        let mos = estimate(&network);
        assert_eq!((mos.mos_cqe, mos.r_factor, mos.method.as_str()), (Some(4.2), None, "provider"));
    }

    #[test]
    fn without_figures_or_their_unit_there_is_a_reason_and_no_score() {
        let mos = estimate(&Network::default());
        assert_eq!((mos.mos_cqe, mos.reason.as_deref()), (None, Some("no_network_figures")));
        let unit = Network { latency_ms: Some(80.0), packet_loss_raw: Some(0.01), ..Network::default() };
        assert_eq!(estimate(&unit).reason.as_deref(), Some("packet_loss_unit_unknown"));
        let thinking = Network { platform_response_ms: Some(700.0), ..Network::default() };
        assert_eq!(estimate(&thinking).reason.as_deref(), Some("no_network_figures"));
        let broken = Network { packet_loss_raw: Some(-1.0), packet_loss_percent: Some(-1.0), ..Network::default() };
        assert_eq!(estimate(&broken).reason.as_deref(), Some("packet_loss_out_of_range"));
    }

    #[test]
    fn what_was_taken_and_not_measured_is_said() {
        let network = Network {
            latency_ms: Some(150.0),
            packet_loss_raw: Some(1.0),
            packet_loss_percent: Some(1.0),
            codec: Some("G.729a".into()),
            ..Network::default()
        };
        let mos = estimate(&network);
        assert!((mos.mos_cqe.unwrap() - 3.940).abs() < 0.001);
        assert_eq!(mos.assumed, ["the platform's latency is the one-way delay", "loss is random", "no echo"]);
        let opus = estimate(&Network { codec: Some("opus".into()), ..network });
        assert!(opus.assumed[0].starts_with("codec impairment"), "{:?}", opus.assumed);
    }
}
