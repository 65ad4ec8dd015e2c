//! The replicas.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment,
};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, EnvVarSource,
    HTTPGetAction, KeyToPath, Lifecycle, LifecycleHandler, ObjectFieldSelector, PodSecurityContext,
    PodSpec, PodTemplateSpec, Probe, ProjectedVolumeSource, ResourceRequirements, SeccompProfile,
    SecretProjection, SecretVolumeSource, SecurityContext, SleepAction, Sysctl, Toleration,
    TopologySpreadConstraint, Volume, VolumeMount, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::service::listener_name;
use super::{labels, metadata, selector};
use crate::mesh::{HOST_KEY_FILE, HOST_KEYS};
use crate::relay::validate::ValidatedRelay;
use crate::relay::{ADMIN_PORT, MESH_PORT};

/// Where the Secret of `spec.tls.secretRef` is mounted.
const TLS: &str = "/etc/tidegate-tls";
/// The user and group of the image; nobody of the node.
const USER: i64 = 65532;
/// Between a pod's removal from the endpoints and its SIGTERM: nodes need a moment to hear of it.
const PRE_STOP: i64 = 5;
/// What a replica may take beside the drain: the pre-stop sleep, its last records, its peers' ends.
const GRACE_BEYOND_DRAIN: i64 = 60;
/// How long a replica stays bound to a node that is unreachable; Kubernetes' own default is 300 s.
const UNREACHABLE: i64 = 30;

/// The fleet's Deployment.
pub fn build(relay: &ValidatedRelay) -> Deployment {
    Deployment {
        metadata: metadata(relay, relay.name.clone()),
        spec: Some(DeploymentSpec {
            replicas: Some(relay.replicas),
            selector: selector(relay),
            strategy: Some(strategy(relay)),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta { labels: Some(labels(relay)), ..ObjectMeta::default() }),
                spec: Some(pod(relay)),
            },
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    }
}

/// New replicas before old ones go; where they want the same ports of a node, the other way round.
fn strategy(relay: &ValidatedRelay) -> DeploymentStrategy {
    let (part, none) = (IntOrString::String("25%".into()), IntOrString::Int(0));
    let (surge, unavailable) = if relay.host_port() { (none, part) } else { (part, none) };
    DeploymentStrategy {
        type_: Some("RollingUpdate".into()),
        rolling_update: Some(RollingUpdateDeployment {
            max_surge: Some(surge),
            max_unavailable: Some(unavailable),
        }),
    }
}

fn pod(relay: &ValidatedRelay) -> PodSpec {
    let wanted = &relay.pod;
    PodSpec {
        service_account_name: Some(relay.name.clone()),
        // The token that the kubelet mounts is bound to this pod; the admission policy goes by that.
        automount_service_account_token: Some(true),
        enable_service_links: Some(false),
        security_context: Some(pod_security(relay)),
        termination_grace_period_seconds: Some(
            relay.settings.drain_timeout.as_secs().saturating_add(GRACE_BEYOND_DRAIN),
        ),
        tolerations: Some(tolerations(relay)),
        topology_spread_constraints: Some(topology_spread(relay)),
        node_selector: (!wanted.node_selector.is_empty()).then(|| wanted.node_selector.clone()),
        priority_class_name: wanted.priority_class_name.clone(),
        image_pull_secrets: (!wanted.image_pull_secrets.is_empty())
            .then(|| wanted.image_pull_secrets.clone()),
        containers: vec![container(relay)],
        volumes: Some(
            [
                Volume {
                    name: "state".into(),
                    empty_dir: Some(EmptyDirVolumeSource::default()),
                    ..Volume::default()
                },
                host_keys(),
            ]
            .into_iter()
            .chain(relay.settings.tls_secret.as_deref().map(certificate))
            .collect(),
        ),
        ..PodSpec::default()
    }
}

/// Both host keys, as far as they are there: one that is made later comes into running pods, which wait
/// for the one that they are to serve.
fn host_keys() -> Volume {
    let [a, b] = HOST_KEYS;
    let source = |secret: &str, suffix: &str| VolumeProjection {
        secret: Some(SecretProjection {
            name: secret.into(),
            optional: Some(true),
            items: Some(vec![KeyToPath {
                key: HOST_KEY_FILE.into(),
                path: format!("{HOST_KEY_FILE}{suffix}"),
                mode: None,
            }]),
        }),
        ..VolumeProjection::default()
    };
    Volume {
        name: "host-keys".into(),
        projected: Some(ProjectedVolumeSource {
            // The kubelet adds the group's right to read, by fsGroup, and no more.
            default_mode: Some(0o400),
            sources: Some(vec![source(a, ""), source(b, "_b")]),
        }),
        ..Volume::default()
    }
}

/// The certificate of TLS. Without the Secret pods run all the same, with one of their own until it comes.
fn certificate(secret: &str) -> Volume {
    Volume {
        name: "tls".into(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret.into()),
            optional: Some(true),
            // As for the host keys.
            default_mode: Some(0o400),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}

/// The restricted Pod Security Standard, for which a host port alone is too much.
fn pod_security(relay: &ValidatedRelay) -> PodSecurityContext {
    let low = relay.settings.listeners.iter().any(|port| *port < 1024);
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        fs_group: Some(USER),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".into(),
            ..SeccompProfile::default()
        }),
        // Instead of CAP_NET_BIND_SERVICE; one of the sysctls that the standard allows.
        sysctls: low.then(|| {
            vec![Sysctl { name: "net.ipv4.ip_unprivileged_port_start".into(), value: "0".into() }]
        }),
        ..PodSecurityContext::default()
    }
}

fn container(relay: &ValidatedRelay) -> Container {
    let args = [
        "serve",
        "--kube",
        "--relay",
        &relay.name,
        // The mount itself belongs to root; the relay wants a directory that is its own.
        "--state",
        "/var/lib/tidegate/state",
        "--host-key",
        &format!("/etc/tidegate/{HOST_KEY_FILE}"),
        "--admin",
        &format!("0.0.0.0:{ADMIN_PORT}"),
    ];
    let mut args: Vec<String> = args.iter().map(ToString::to_string).collect();
    let mut mounts = vec![
        VolumeMount {
            name: "state".into(),
            mount_path: "/var/lib/tidegate".into(),
            ..VolumeMount::default()
        },
        VolumeMount {
            name: "host-keys".into(),
            mount_path: "/etc/tidegate".into(),
            read_only: Some(true),
            ..VolumeMount::default()
        },
    ];
    if relay.settings.tls_secret.is_some() {
        for (flag, file) in [("--tls-cert", "tls.crt"), ("--tls-key", "tls.key")] {
            args.extend([flag.to_owned(), format!("{TLS}/{file}")]);
        }
        mounts.push(VolumeMount {
            name: "tls".into(),
            mount_path: TLS.into(),
            read_only: Some(true),
            ..VolumeMount::default()
        });
    }
    Container {
        name: "relay".into(),
        image: Some(relay.image.clone()),
        image_pull_policy: Some("IfNotPresent".into()),
        args: Some(args),
        env: Some(vec![
            from_pod("POD_NAME", "metadata.name"),
            from_pod("POD_NAMESPACE", "metadata.namespace"),
        ]),
        ports: Some(ports(relay)),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".into()]),
                ..Capabilities::default()
            }),
            ..SecurityContext::default()
        }),
        resources: Some(relay.pod.resources.clone().unwrap_or_else(resources)),
        readiness_probe: Some(Probe {
            period_seconds: Some(2),
            failure_threshold: Some(2),
            ..probe("/readyz")
        }),
        liveness_probe: Some(Probe {
            period_seconds: Some(10),
            failure_threshold: Some(6),
            ..probe("/healthz")
        }),
        lifecycle: Some(Lifecycle {
            pre_stop: Some(LifecycleHandler {
                // By the kubelet itself: there is no shell and no sleep in the image.
                sleep: Some(SleepAction { seconds: PRE_STOP }),
                ..LifecycleHandler::default()
            }),
            ..Lifecycle::default()
        }),
        volume_mounts: Some(mounts),
        ..Container::default()
    }
}

fn ports(relay: &ValidatedRelay) -> Vec<ContainerPort> {
    let named = |name: String, port: u16| ContainerPort {
        name: Some(name),
        container_port: i32::from(port),
        protocol: Some("TCP".into()),
        ..ContainerPort::default()
    };
    let listeners = relay.settings.listeners.iter().map(|port| ContainerPort {
        host_port: relay.host_port().then(|| i32::from(*port)),
        ..named(listener_name(*port), *port)
    });
    listeners.chain([named("admin".into(), ADMIN_PORT), named("mesh".into(), MESH_PORT)]).collect()
}

/// No limit on CPU: a throttled replica would cut late. Memory is bounded by the relay's own caps;
/// the limit is for what is not foreseen.
fn resources() -> ResourceRequirements {
    let quantities = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .map(|(name, amount)| ((*name).to_owned(), Quantity((*amount).to_owned())))
            .collect::<BTreeMap<_, _>>()
    };
    ResourceRequirements {
        requests: Some(quantities(&[("cpu", "100m"), ("memory", "128Mi")])),
        limits: Some(quantities(&[("memory", "1Gi")])),
        ..ResourceRequirements::default()
    }
}

fn probe(path: &str) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.into()),
            port: IntOrString::String("admin".into()),
            ..HTTPGetAction::default()
        }),
        timeout_seconds: Some(2),
        ..Probe::default()
    }
}

fn from_pod(name: &str, field: &str) -> EnvVar {
    EnvVar {
        name: name.into(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector { field_path: field.into(), api_version: None }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}

/// What the Relay says, and a short stay on lost nodes where it says nothing of these.
fn tolerations(relay: &ValidatedRelay) -> Vec<Toleration> {
    let mut tolerations = relay.pod.tolerations.clone();
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let said = tolerations.iter().any(|toleration| toleration.key.as_deref() == Some(key));
        if !said {
            tolerations.push(Toleration {
                key: Some(key.into()),
                operator: Some("Exists".into()),
                effect: Some("NoExecute".into()),
                toleration_seconds: Some(UNREACHABLE),
                ..Toleration::default()
            });
        }
    }
    tolerations
}

/// Over nodes and zones, as evenly as there is room.
fn topology_spread(relay: &ValidatedRelay) -> Vec<TopologySpreadConstraint> {
    if !relay.pod.topology_spread.is_empty() {
        return relay.pod.topology_spread.clone();
    }
    ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
        .map(|key| TopologySpreadConstraint {
            max_skew: 1,
            topology_key: key.into(),
            when_unsatisfiable: "ScheduleAnyway".into(),
            label_selector: Some(selector(relay)),
            // The replicas of one revision among themselves: those that leave do not count.
            match_label_keys: Some(vec!["pod-template-hash".into()]),
            ..TopologySpreadConstraint::default()
        })
        .into()
}
