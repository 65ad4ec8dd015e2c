# shellcheck shell=bash disable=SC2034,SC2154 # variables are shared between files
# The names of the cluster: CoreDNS beside the control plane, so that no node's end takes it along,
# behind the Service that pods ask. DIR/dns/hosts takes more names, in the form of /etc/hosts.

define_dns() {
    mkdir -p "$dir/dns"
    : >"$dir/dns/hosts"
    user_kubeconfig dns /CN=tidegate:dns
    cat >"$dir/dns/Corefile" <<CONF
.:53 {
    errors
    ready $(address_of control):8181
    cache 1
    hosts $dir/dns/hosts {
        ttl 1
        reload 1s
        fallthrough
    }
    kubernetes cluster.local in-addr.arpa {
        kubeconfig $dir/pki/dns.kubeconfig
        ttl 1
    }
}
CONF
    define dns "${in_control[@]}" "$node_bin/coredns" -conf "$dir/dns/Corefile"
}

dns_ready() {
    [[ $(within control curl -s "http://$(address_of control):8181/ready") == OK ]]
}

dns_objects() {
    admin apply --server-side -f - >/dev/null <<YAML
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: "tidegate:dns"}
rules:
- {apiGroups: [""], resources: [services, pods, namespaces], verbs: [list, watch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "tidegate:dns"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "tidegate:dns"}
subjects:
- {apiGroup: rbac.authorization.k8s.io, kind: User, name: "tidegate:dns"}
---
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system}
spec:
  clusterIP: $dns_service
  ports:
  - {name: dns, port: 53, protocol: UDP}
  - {name: dns-tcp, port: 53, protocol: TCP}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: kube-dns
  namespace: kube-system
  labels: {kubernetes.io/service-name: kube-dns}
addressType: IPv4
endpoints:
- addresses: [$(address_of control)]
ports:
- {name: dns, port: 53, protocol: UDP}
- {name: dns-tcp, port: 53, protocol: TCP}
YAML
}
