//! Asks one replica's admin port for its counts. The one place where the operator dials anything but
//! the API server. Touches the network; bounded in time and bytes (invariant 8).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::ADMIN_PORT;
use super::build::RELAY_LABEL;

/// From dialling to the last byte.
const LONGEST: Duration = Duration::from_secs(2);
/// Of an answer, all that is read.
const LARGEST: u64 = 1 << 20;

/// What one replica has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Terminals connected.
    pub terminals: u32,
    /// Sessions live.
    pub sessions: u32,
}

/// Why a replica was not counted.
#[derive(Debug, thiserror::Error)]
pub enum CountError {
    #[error("the pod has no address to dial")]
    NoAddress,
    #[error("it did not answer within {}s", LONGEST.as_secs())]
    Late,
    #[error("it cannot be read: {0}")]
    Io(#[from] std::io::Error),
    #[error("its answer has no counts")]
    Malformed,
}

/// Dials `pod` at one of the addresses that its own status has, and reads its counts.
pub async fn read(pod: &Pod) -> Result<Count, CountError> {
    let address = own_address(pod).ok_or(CountError::NoAddress)?;
    let answer = tokio::time::timeout(LONGEST, fetch(SocketAddr::new(address, ADMIN_PORT)));
    let text = answer.await.map_err(|_| CountError::Late)??;
    parse(&text).ok_or(CountError::Malformed)
}

/// The address of a running replica, as its kubelet reported it. A pod in its node's network, a
/// loopback, link-local or multicast address is none of ours.
fn own_address(pod: &Pod) -> Option<IpAddr> {
    pod.metadata.labels.as_ref()?.get(RELAY_LABEL)?;
    let host = pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false);
    let status = pod.status.as_ref()?;
    if host || status.phase.as_deref() != Some("Running") {
        return None;
    }
    let addresses = status.pod_ips.iter().flatten().filter_map(|ip| ip.ip.parse::<IpAddr>().ok());
    addresses.into_iter().find(|address| match address {
        IpAddr::V4(v4) => {
            !(v4.is_loopback() || v4.is_link_local() || v4.is_unspecified() || v4.is_multicast())
        }
        IpAddr::V6(v6) => {
            !(v6.is_loopback()
                || v6.is_unicast_link_local()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6.to_ipv4_mapped().is_some())
        }
    })
}

#[expect(clippy::disallowed_methods, reason = "the one place that dials, checked addresses alone")]
async fn fetch(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(LARGEST).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Both gauges, out of a whole HTTP answer.
fn parse(answer: &str) -> Option<Count> {
    if !answer.lines().next()?.contains(" 200") {
        return None;
    }
    let gauge = |name: &str| {
        let value = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        value.trim().parse::<u32>().ok()
    };
    Some(Count {
        terminals: gauge("tidegate_terminals_connected")?,
        sessions: gauge("tidegate_sessions_current")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(phase: &str, ips: &[&str]) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "a", "labels": {RELAY_LABEL: "berlin"}},
            "spec": {"containers": []},
            "status": {"phase": phase, "podIPs": ips.iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>()},
        }))
        .unwrap()
    }

    #[test]
    fn only_a_running_replicas_own_address_is_dialled() {
        assert_eq!(own_address(&pod("Running", &["10.1.2.3"])), "10.1.2.3".parse().ok());
        assert_eq!(own_address(&pod("Running", &["fd00::7"])), "fd00::7".parse().ok());
        assert_eq!(own_address(&pod("Pending", &["10.1.2.3"])), None);
        for never in [
            "127.0.0.1",
            "169.254.169.254",
            "::1",
            "fe80::1",
            "0.0.0.0",
            "::ffff:127.0.0.1",
            "224.0.0.1",
        ] {
            assert_eq!(own_address(&pod("Running", &[never])), None, "{never}");
        }
        let mut other = pod("Running", &["10.1.2.3"]);
        other.metadata.labels = None;
        assert_eq!(own_address(&other), None);
        let mut host = pod("Running", &["10.1.2.3"]);
        host.spec.as_mut().unwrap().host_network = Some(true);
        assert_eq!(own_address(&host), None);
    }

    #[test]
    fn counts_are_read_out_of_the_metrics() {
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n# HELP tidegate_terminals_connected x\n\
            tidegate_terminals_connected 7\ntidegate_sessions_current 2\ntidegate_sessions_opened_total 9\n";
        assert_eq!(parse(answer), Some(Count { terminals: 7, sessions: 2 }));
        assert_eq!(parse("HTTP/1.1 500 no\r\n\r\ntidegate_terminals_connected 7\n"), None);
        assert_eq!(parse("HTTP/1.1 200 OK\r\n\r\ntidegate_terminals_connected 7\n"), None);
        assert_eq!(parse(""), None);
    }
}
