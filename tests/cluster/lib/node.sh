# shellcheck shell=bash disable=SC2034,SC2154 # variables are shared between files
# A node: containerd, kubelet and kube-proxy in a network namespace, a mount namespace and a cgroup
# of their own. `hold` keeps the mount namespace; in-node enters all three.
#
# Uses: dir, id, nodes, control_bin, node_bin, server, services, pods.

dns_service=10.96.0.10

# Where the node's cgroups are: once in cgroup v2; in v1 once per controller, and once more where a
# v2 without controllers is mounted beside them.
cgroups_of() {
    local root=/sys/fs/cgroup
    if [[ -f $root/cgroup.controllers ]]; then
        echo "$root/tidegate-$id-$1"
        return
    fi
    awk -v "group=tidegate-$id-$1" '$3 ~ /^cgroup2?$/ {print $2 "/" group}' /proc/mounts
}

cgroups_up() {
    local group root=/sys/fs/cgroup
    if [[ -f $root/cgroup.controllers ]]; then
        echo "+cpu +cpuset +memory +pids" >$root/cgroup.subtree_control
    fi
    for group in $(cgroups_of "$1"); do
        mkdir -p "$group"
        if [[ $group == "$root/tidegate-$id-$1" ]]; then
            echo "+cpu +cpuset +memory +pids" >"$group/cgroup.subtree_control"
        elif [[ -e $group/cpuset.mems ]]; then
            # In v1 a new cpuset is empty, and holds no process until it is filled.
            echo 1 >"$group/cgroup.clone_children"
            cat "$group/../cpuset.cpus" >"$group/cpuset.cpus"
            cat "$group/../cpuset.mems" >"$group/cpuset.mems"
        fi
        # v2 wants processes in leaves only.
        mkdir -p "$group/system"
    done
}

# Every process of the node: what `up` started there, the shims, the pods.
processes_of() {
    local group
    for group in $(cgroups_of "$1"); do
        find "$group" -name cgroup.procs -exec cat {} + 2>/dev/null || true
    done | sort -un
}

empty() {
    [[ -z $(processes_of "$1") ]]
}

# end_processes_of N: again until none is left, since they start others.
end_processes_of() {
    # shellcheck disable=SC2046  # one id a word
    kill -s KILL $(processes_of "$1") 2>/dev/null || true
    empty "$1"
}

cgroups_down() {
    local group
    for group in $(cgroups_of "$1"); do
        if [[ -d $group ]]; then
            find "$group" -depth -type d -exec rmdir {} \;
        fi
    done
}

write_containerd_config() {
    local node=$1 snapshots=overlayfs
    if [[ $(stat -f -c %T "$dir") == overlayfs ]]; then
        # An overlay cannot be the upper half of another.
        snapshots=native
    fi
    cat >"$dir/nodes/$node/containerd.toml" <<TOML
version = 3
root = "/run/node/containerd"
state = "/run/containerd"

[grpc]
  address = "/run/containerd/containerd.sock"

[plugins."io.containerd.cri.v1.images"]
  snapshotter = "$snapshots"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "tidegate.test/pause:1"

[plugins."io.containerd.cri.v1.runtime"]
  # runc may not lower a score where CAP_SYS_RESOURCE is missing.
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["/usr/lib/cni"]
    conf_dir = "/run/node/cni.conf"
  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
        SystemdCgroup = false
TOML
}

# Each pod has a veth pair to its node, which routes: no bridge within the node whose own switching
# would pass kube-proxy by.
write_cni_config() {
    local node=$1
    mkdir -p "$dir/nodes/$node/cni.conf"
    cat >"$dir/nodes/$node/cni.conf/10-pods.conflist" <<JSON
{
  "cniVersion": "1.0.0",
  "name": "pods",
  "plugins": [
    {
      "type": "ptp",
      "ipam": {
        "type": "host-local",
        "ranges": [[{"subnet": "$pods.$node.0/24"}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": "/run/node/cni"
      }
    },
    {"type": "portmap", "capabilities": {"portMappings": true}, "backend": "nftables"}
  ]
}
JSON
}

write_kubelet_config() {
    local node=$1
    cat >"$dir/nodes/$node/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $(address_of "node-$node")
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
tlsCertFile: $dir/pki/node-$node.crt
tlsPrivateKeyFile: $dir/pki/node-$node.key
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: $dir/pki/ca.crt}
authorization: {mode: Webhook}
clusterDomain: cluster.local
clusterDNS: [$dns_service]
resolvConf: $dir/nodes/$node/resolv.conf
volumePluginDir: /run/node/plugins
cgroupDriver: cgroupfs
cgroupRoot: /tidegate-$id-$node
enforceNodeAllocatable: []
failCgroupV1: false
failSwapOn: false
makeIPTablesUtilChains: false
# The controller manager takes a node that was silent for 12 s for dead.
nodeLeaseDurationSeconds: 8
nodeStatusUpdateFrequency: 5s
# Images are never fetched, so none may be thrown away.
imageGCHighThresholdPercent: 100
evictionHard:
  memory.available: 50Mi
  nodefs.available: 1%
  nodefs.inodesFree: 1%
  imagefs.available: 1%
YAML
    echo "nameserver $(address_of control)" >"$dir/nodes/$node/resolv.conf"
}

write_proxy_config() {
    local node=$1
    cat >"$dir/nodes/$node/kube-proxy.yaml" <<YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: $dir/pki/kube-proxy.kubeconfig}
hostnameOverride: node-$node
mode: nftables
clusterCIDR: $pods.0.0/16
# The machine's table of connections is not ours to size.
conntrack: {maxPerCore: 0, min: 0}
YAML
}

# define_node N: writes its configuration and its components.
define_node() {
    local node=$1 name=node-$1
    mkdir -p "$dir/nodes/$node"/{containerd,kubelet,cni,cni-cache,cni.conf,plugins,log}
    user_kubeconfig "$name" "/O=system:nodes/CN=system:node:$name" \
        "IP:$(address_of "$name"),DNS:$name"
    write_containerd_config "$node"
    write_cni_config "$node"
    write_kubelet_config "$node"
    write_proxy_config "$node"
    define "$name/hold" nsenter --net="/run/netns/$(namespace "$name")" -- \
        unshare --mount --propagation private -- "$here/lib/hold" "$dir/nodes/$node" "$node_bin/pause"
    define "$name/containerd" "$here/lib/in-node" "$dir" "$node" \
        env PATH="$node_bin:$PATH:/usr/sbin:/sbin" \
        "$node_bin/containerd" --config /run/node/containerd.toml
    define "$name/kubelet" "$here/lib/in-node" "$dir" "$node" \
        env PATH="$PATH:/usr/sbin:/sbin" "$control_bin/kubelet" \
        --config=/run/node/kubelet.yaml --kubeconfig="$dir/pki/$name.kubeconfig" \
        --hostname-override="$name" --node-ip="$(address_of "$name")" \
        --node-labels="topology.kubernetes.io/zone=zone-$node"
    define "$name/kube-proxy" "$here/lib/in-node" "$dir" "$node" \
        env PATH="$PATH:/usr/sbin:/sbin" "$control_bin/kube-proxy" --config=/run/node/kube-proxy.yaml
}

held() {
    [[ -e $dir/nodes/$1/held ]]
}

# ctr_on N ARG...
ctr_on() {
    local node=$1
    shift
    CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS=1 \
        "$here/lib/in-node" "$dir" "$node" "$node_bin/ctr" --namespace k8s.io "$@"
}

# start_node N: all of it; what runs already is left alone.
start_node() {
    local node=$1 name=node-$1
    cgroups_up "$node"
    if gone "$name/hold"; then
        rm -f "$dir/nodes/$node/held"
    fi
    start "$name/hold"
    wait_until "the mount namespace of $name" 10 held "$node" || { complain "$name/hold" && return 1; }
    start "$name/containerd"
    wait_until "containerd of $name" 30 ctr_on "$node" version \
        || { complain "$name/containerd" && return 1; }
    start "$name/kube-proxy"
    start "$name/kubelet"
}

# kill_node N: as when its power fails, but for the kernel's part in the network.
kill_node() {
    local node=$1 name=node-$1 component
    for component in kubelet containerd kube-proxy; do
        stop "$name/$component" KILL
    done
    wait_until "the end of all processes of $name" 20 end_processes_of "$node"
}

node_ready() {
    [[ $(admin get node "node-$1" \
        -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}') == True ]]
}

# The pause image, made by hand so that nothing but tar is needed: an archive as `docker save` writes.
pause_image() {
    local out=$1 scratch layer
    scratch=$(mktemp -d "$dir/pause.XXXXXX")
    tar -C "$node_bin" --owner=0 --group=0 -cf "$scratch/layer.tar" pause
    layer=$(sha256sum "$scratch/layer.tar" | cut -d' ' -f1)
    cat >"$scratch/config.json" <<JSON
{"architecture": "$(architecture)", "os": "linux", "config": {"Entrypoint": ["/pause"]},
 "rootfs": {"type": "layers", "diff_ids": ["sha256:$layer"]}}
JSON
    cat >"$scratch/manifest.json" <<JSON
[{"Config": "config.json", "RepoTags": ["tidegate.test/pause:1"], "Layers": ["layer.tar"]}]
JSON
    tar -C "$scratch" -cf "$out" manifest.json config.json layer.tar
    rm -rf "$scratch"
}

architecture() {
    case $(uname -m) in
    x86_64) echo amd64 ;;
    aarch64) echo arm64 ;;
    *) uname -m ;;
    esac
}
