//! Relay to the settings of a replica.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use jiff::SignedDuration;
use tidegate_policy::model::Label;

use super::login_user::address_range;
use super::{Identity, Refusal, Refusals, labels, reason};
use crate::Relay;

/// What a replica of a fleet must know about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelaySettings {
    pub name: Label,
    pub namespace: Label,
    /// The Mesh's name, in the same namespace.
    pub mesh: Label,
    /// The Relay's labels, by which terminals choose fleets.
    pub labels: BTreeMap<String, String>,
    pub region: Option<Label>,
    /// In the order written; each once.
    pub listeners: Vec<u16>,
    pub drain_timeout: SignedDuration,
    pub limits: RelayLimits,
    /// Where proxies are that must send a PROXY header; nobody else may.
    pub proxies: Vec<IpNet>,
    /// The Secret with the certificate of TLS; without it each replica makes one for itself.
    pub tls_secret: Option<String>,
}

/// Bounds on what one replica has at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayLimits {
    /// Connections before authentication.
    pub unauthenticated: u32,
    /// Those from one source (/24 or /56).
    pub per_source: u32,
    /// Key exchanges that those may begin a second.
    pub handshakes_per_source: u32,
    /// Connections of one login user.
    pub connections_per_user: u32,
    /// Live sessions of one login user.
    pub sessions_per_user: u32,
    /// Bytes per second of one session, each way, at least [`LEAST_BANDWIDTH`]; `None`: no limit.
    pub bandwidth_per_session: Option<u64>,
}

/// A session of less a second would not be one.
pub const LEAST_BANDWIDTH: u64 = 16 << 10;
const MOST_BANDWIDTH: u64 = 8192 << 40;

/// A quantity of bytes as the CRD takes it: digits, and k, M, G, T, or Ki, Mi, Gi, Ti.
fn bytes(quantity: &str) -> Option<u64> {
    let digits = quantity.find(|c: char| !c.is_ascii_digit()).unwrap_or(quantity.len());
    let (number, unit) = quantity.split_at_checked(digits)?;
    let unit: u64 = match unit {
        "" => 1,
        "k" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit).filter(|bytes| *bytes <= MOST_BANDWIDTH)
}

/// A Relay.
pub fn relay(resource: &Relay) -> Result<RelaySettings, Vec<Refusal>> {
    let mut refusals = Refusals::default();
    let spec = &resource.spec;
    let nobody = Identity { uid: "".into(), generation: 0, created: jiff::Timestamp::UNIX_EPOCH };
    let meta = refusals.meta(&resource.metadata, &nobody);
    let mesh = refusals.label("spec.meshRef.name", &spec.mesh_ref.name);
    let region = spec.region.as_ref().map(|region| refusals.label("spec.region", region));
    if spec.replicas.is_some() == spec.autoscaling.is_some() {
        refusals.add(
            "spec",
            reason::INVALID_VALUE,
            "must have exactly one of replicas and autoscaling",
        );
    }
    let declared = spec.exposure.iter().filter_map(|exposure| exposure.proxy_protocol.as_ref());
    let mut proxies = Vec::new();
    for (i, text) in declared.flat_map(|declared| &declared.from).enumerate() {
        let at = format!("spec.exposure.proxyProtocol.from[{i}]");
        proxies.extend(refusals.take(at, reason::INVALID_ADDRESS, address_range(text)));
    }
    let secret = spec.tls.as_ref().and_then(|tls| tls.secret_ref.as_ref());
    let tls_secret = secret.and_then(|secret| {
        refusals.take("spec.tls.secretRef.name", reason::INVALID_NAME, secret_name(&secret.name))
    });
    if spec.tls.as_ref().is_some_and(|tls| tls.issuer_ref.is_some()) {
        refusals.not_supported("spec.tls.issuerRef");
    }
    if spec.listeners.is_empty() {
        refusals.add("spec.listeners", reason::REQUIRED, "must have at least one port");
    }
    let (mut listeners, mut seen) = (Vec::new(), BTreeSet::new());
    for (i, listener) in spec.listeners.iter().enumerate() {
        let at = format!("spec.listeners[{i}].port");
        let Some(port) = refusals.port(at.as_str(), listener.port) else { continue };
        if seen.insert(port) {
            listeners.push(port);
        } else {
            refusals.add(at, reason::DUPLICATE, "is listed twice");
        }
    }
    let drain_timeout = refusals.duration(
        "spec.drain.timeout",
        &spec.drain.timeout,
        SignedDuration::ZERO,
        SignedDuration::from_hours(24),
    );
    let mut limit = |field: &str, value: i32, least: u32| {
        let value = u32::try_from(value).ok().filter(|value| (least..=65536).contains(value));
        if value.is_none() {
            refusals.add(
                field,
                reason::INVALID_VALUE,
                format_args!("must be from {least} to 65536"),
            );
        }
        value
    };
    let unauthenticated = limit("spec.limits.unauthenticated", spec.limits.unauthenticated, 16);
    let per_source = limit("spec.limits.perSource", spec.limits.per_source, 1);
    let handshakes_per_source =
        limit("spec.limits.handshakesPerSource", spec.limits.handshakes_per_source, 1);
    let connections_per_user =
        limit("spec.limits.connectionsPerUser", spec.limits.connections_per_user, 1);
    let sessions_per_user = limit("spec.limits.sessionsPerUser", spec.limits.sessions_per_user, 1);
    let bandwidth = spec.limits.bandwidth_per_session.as_ref().map(|quantity| {
        let bytes = bytes(quantity).filter(|bytes| *bytes >= LEAST_BANDWIDTH);
        if bytes.is_none() {
            refusals.add(
                "spec.limits.bandwidthPerSession",
                reason::INVALID_VALUE,
                "must be a number of bytes such as 200Mi, from 16Ki to 8192Ti",
            );
        }
        bytes
    });
    let compiled = (|| {
        let meta = meta?;
        Some(RelaySettings {
            name: meta.key.name,
            namespace: meta.key.namespace,
            mesh: mesh?,
            labels: labels(resource.metadata.labels.as_ref()),
            region: region.flatten(),
            listeners,
            drain_timeout: drain_timeout?,
            limits: RelayLimits {
                unauthenticated: unauthenticated?,
                per_source: per_source?,
                handshakes_per_source: handshakes_per_source?,
                connections_per_user: connections_per_user?,
                sessions_per_user: sessions_per_user?,
                bandwidth_per_session: bandwidth.map_or(Some(None), |it| it.map(Some))?,
            },
            proxies,
            tls_secret,
        })
    })();
    refusals.finish(compiled)
}

/// A Secret's name: an RFC 1123 subdomain.
fn secret_name(text: &str) -> Result<String, &'static str> {
    let part = |part: &str| {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        !part.is_empty()
            && part.chars().all(inner)
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    if text.len() <= 253 && text.split('.').all(part) {
        Ok(text.to_owned())
    } else {
        Err("must be a Secret's name: lower-case letters, digits, '-' and '.'")
    }
}
