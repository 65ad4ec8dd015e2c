//! Second step, pure: a Relay as its owner wrote it becomes what the builders may rely on, or one
//! sentence that says why it is not served.

use std::fmt::Display;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::IPBlock;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource as _, ResourceExt as _};
use tidegate_crds::compile::{self, RelaySettings, reason};
use tidegate_crds::mesh::TenantsFrom;
use tidegate_crds::relay::{
    Dns, DnsProvider, Exposure, ExposureType, ExternalTrafficPolicy, IpFamilyPolicy, Pod,
};
use tidegate_crds::{Mesh, Relay};

use super::dereference::Dereferenced;
use super::{ADMIN_PORT, MESH_PORT, MESH_SERVICE_SUFFIX};

/// Why a Relay is not served as written: the reason and message of `Ready=False`. What runs of it
/// already goes on as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{sentence}")]
pub struct NotServed {
    /// CamelCase, for the condition.
    pub reason: &'static str,
    /// ASCII, at most 300 bytes.
    pub sentence: String,
    /// Whether only an edit of the Relay helps; else something else is waited for.
    pub refused: bool,
}

impl NotServed {
    fn refused(reason: &'static str, sentence: impl Into<String>) -> Self {
        Self { reason, sentence: clip(sentence.into()), refused: true }
    }

    fn waits(reason: &'static str, sentence: impl Into<String>) -> Self {
        Self { reason, sentence: clip(sentence.into()), refused: false }
    }
}

/// Sentences for people are ASCII and at most 300 bytes.
pub fn clip(mut sentence: String) -> String {
    sentence.retain(|c| c.is_ascii() && !c.is_ascii_control());
    sentence.truncate(300);
    sentence
}

/// What a replica may connect to beside its peers and DNS.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiServer {
    pub address: IpAddr,
    pub port: u16,
}

/// A Relay that can be built.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidatedRelay {
    pub namespace: String,
    pub name: String,
    /// Makes everything that is built go with the Relay.
    pub owner: OwnerReference,
    pub mesh: String,
    /// Whether the Mesh also serves other namespaces than its own.
    pub tenants: TenantsFrom,
    pub settings: RelaySettings,
    pub replicas: i32,
    pub exposure: Exposure,
    /// From `spec.egress.extraCIDRs`, without what no replica may ever reach.
    pub extra_ranges: Vec<IPBlock>,
    /// Sorted. None is known while the EndpointSlices name none: then no replica gets there, and the
    /// first event of them puts that right.
    pub api_servers: Vec<ApiServer>,
    pub pod: Pod,
    pub image: String,
    /// Where the operator runs, which reads the replicas' admin ports.
    pub operator_namespace: String,
}

impl ValidatedRelay {
    pub fn host_port(&self) -> bool {
        self.exposure.r#type == ExposureType::HostPort
    }
}

/// Everything that a Relay needs before anything of it is built.
pub fn validate(found: &Dereferenced) -> Result<ValidatedRelay, NotServed> {
    let relay = &found.relay;
    let name = relay.name_any();
    let namespace = relay.namespace().unwrap_or_default();
    check_name(&name)?;
    let settings = compile::relay(relay).map_err(|refusals| {
        let first = refusals.first();
        let reason = first.map_or(reason::INVALID_VALUE, |refusal| refusal.reason);
        let more = refusals.len().saturating_sub(1);
        let first = first.map(ToString::to_string).unwrap_or_default();
        let sentence = if more == 0 { first } else { format!("{first}; and {more} more") };
        NotServed::refused(reason, sentence)
    })?;
    unsupported(relay)?;
    reserved_ports(&settings.listeners)?;
    let replicas = relay.spec.replicas.unwrap_or(1);
    let extra_ranges = extra_ranges(relay)?;
    let mesh = check_mesh(relay, found.mesh.as_deref())?;
    let api_servers = api_servers(&found.api_server);
    Ok(ValidatedRelay {
        owner: owner(relay)?,
        mesh: mesh.name_any(),
        tenants: mesh.spec.tenants.as_ref().map_or(TenantsFrom::Same, |tenants| tenants.from),
        settings,
        replicas,
        exposure: exposure(relay),
        extra_ranges,
        api_servers,
        pod: relay.spec.pod.clone().unwrap_or_default(),
        image: found.image.clone(),
        operator_namespace: found.operator_namespace.clone(),
        namespace,
        name,
    })
}

/// The Relay's name becomes that of two Services: `R` and `R-mesh`.
fn check_name(name: &str) -> Result<(), NotServed> {
    let longest = 63 - MESH_SERVICE_SUFFIX.len();
    let problem = if name.len() > longest {
        format!("must be at most {longest} characters")
    } else if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        "must begin with a letter".to_owned()
    } else if name.ends_with(MESH_SERVICE_SUFFIX) {
        format!("must not end in {MESH_SERVICE_SUFFIX}")
    } else {
        return Ok(());
    };
    Err(NotServed::refused(
        reason::INVALID_NAME,
        format!(
            "metadata.name: {problem}, since Services are named after it; make a Relay of another name"
        ),
    ))
}

/// What is in the schema, and not built yet, is refused where it is set.
fn unsupported(relay: &Relay) -> Result<(), NotServed> {
    let refused = |field: &dyn Display, instead: &str| {
        Err(NotServed::refused(
            reason::NOT_SUPPORTED,
            format!("{field}: is not supported yet; {instead}"),
        ))
    };
    if relay.spec.autoscaling.is_some() {
        return refused(&"spec.autoscaling", "set spec.replicas");
    }
    if let Some(Dns { provider, .. }) = &relay.spec.dns
        && *provider != DnsProvider::None
    {
        return refused(&"spec.dns.provider", "set None and publish the names by hand");
    }
    Ok(())
}

/// Ports that a replica has for itself: no listener can be bound there.
fn reserved_ports(listeners: &[u16]) -> Result<(), NotServed> {
    for (i, port) in listeners.iter().enumerate() {
        let what = match *port {
            ADMIN_PORT => "probes and metrics",
            MESH_PORT => "the other replicas",
            _ => continue,
        };
        return Err(NotServed::refused(
            "PortReserved",
            format!(
                "spec.listeners[{i}].port: {port} is the replicas' own port for {what}; take another"
            ),
        ));
    }
    Ok(())
}

fn check_mesh<'a>(relay: &Relay, mesh: Option<&'a Mesh>) -> Result<&'a Mesh, NotServed> {
    let name = &relay.spec.mesh_ref.name;
    let namespace = relay.namespace().unwrap_or_default();
    let Some(mesh) = mesh else {
        return Err(NotServed::waits(
            "MeshNotFound",
            format!(
                "there is no Mesh {name} in namespace {namespace}; create it, or name another in a new Relay"
            ),
        ));
    };
    let ready = mesh
        .status
        .iter()
        .flat_map(|status| &status.conditions)
        .find(|condition| condition.type_ == "Ready");
    match ready {
        Some(ready)
            if ready.status == "True" && ready.observed_generation == mesh.meta().generation =>
        {
            Ok(mesh)
        }
        Some(ready) if ready.status == "False" => Err(NotServed::waits(
            "MeshNotReady",
            format!("the Mesh {name} is not ready: {}", ready.message),
        )),
        _ => Err(NotServed::waits(
            "MeshNotReady",
            format!(
                "the Mesh {name} is not ready yet: the operator has not looked at it as it is now"
            ),
        )),
    }
}

/// An object that came from the API server has a uid; one without can own nothing.
fn owner(relay: &Relay) -> Result<OwnerReference, NotServed> {
    relay.controller_owner_ref(&()).ok_or_else(|| {
        NotServed::waits("NoIdentity", "the Relay has no uid, so nothing can be made for it")
    })
}

fn exposure(relay: &Relay) -> Exposure {
    let mut exposure = relay.spec.exposure.clone().unwrap_or(Exposure {
        r#type: ExposureType::LoadBalancer,
        annotations: std::collections::BTreeMap::new(),
        external_traffic_policy: None,
        ip_family_policy: None,
        proxy_protocol: None,
    });
    exposure.external_traffic_policy.get_or_insert(ExternalTrafficPolicy::Local);
    exposure.ip_family_policy.get_or_insert(IpFamilyPolicy::PreferDualStack);
    exposure
}

/// Where no replica may ever connect to, whatever `extraCIDRs` says: itself, link-local addresses,
/// and the metadata services of clouds, which hand out a node's credentials.
const NEVER: [&str; 11] = [
    "0.0.0.0/8",
    "127.0.0.0/8",
    "169.254.0.0/16",
    // Metadata of Alibaba and of Oracle; the others' is link-local.
    "100.100.100.200/32",
    "192.0.0.192/32",
    "::/128",
    "::1/128",
    "fe80::/10",
    // The metadata of AWS over IPv6.
    "fd00:ec2::254/128",
    // IPv4 in IPv6's clothes.
    "::ffff:0:0/96",
    "64:ff9b::/96",
];

fn extra_ranges(relay: &Relay) -> Result<Vec<IPBlock>, NotServed> {
    let ranges = relay.spec.egress.iter().flat_map(|egress| &egress.extra_cidrs);
    ranges
        .enumerate()
        .map(|(i, range)| {
            let at = format!("spec.egress.extraCIDRs[{i}]");
            let invalid = || {
                NotServed::refused(
                    reason::INVALID_ADDRESS,
                    format!("{at}: must be an address or a range such as 203.0.113.0/24"),
                )
            };
            let range: IpNet = match range.parse::<IpAddr>() {
                Ok(address) => address.into(),
                Err(_) => range.parse().map_err(|_| invalid())?,
            };
            let never: Vec<IpNet> = NEVER.iter().filter_map(|text| text.parse().ok()).collect();
            if let Some(never) = never.iter().find(|never| never.contains(&range)) {
                return Err(NotServed::refused(
                    reason::INVALID_ADDRESS,
                    format!(
                        "{at}: lies within {never}, which no replica may ever reach; take it out"
                    ),
                ));
            }
            let except: Vec<String> = never
                .iter()
                // The API server takes no such range; no packet has such an address either.
                .filter(|never| range.contains(*never) && !never.to_string().starts_with("::ffff:"))
                .map(ToString::to_string)
                .collect();
            Ok(IPBlock {
                cidr: range.trunc().to_string(),
                except: (!except.is_empty()).then_some(except),
            })
        })
        .collect()
}

/// The addresses and TCP ports of the Service `default/kubernetes`.
pub fn api_servers(slices: &[EndpointSlice]) -> Vec<ApiServer> {
    let mut found = Vec::new();
    for slice in slices {
        let ports: Vec<u16> = slice
            .ports
            .iter()
            .flatten()
            .filter(|port| port.protocol.as_deref().unwrap_or("TCP") == "TCP")
            .filter_map(|port| u16::try_from(port.port?).ok())
            .collect();
        let addresses = slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
        for address in addresses.filter_map(|text| text.parse::<IpAddr>().ok()) {
            found.extend(ports.iter().map(|port| ApiServer { address, port: *port }));
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}
