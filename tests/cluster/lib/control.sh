# shellcheck shell=bash disable=SC2034,SC2154 # variables are shared between files
# The control plane: etcd, kube-apiserver, kube-controller-manager and kube-scheduler. Without nodes
# it listens on a loopback address of its own, so any number stand side by side with no ports to
# choose; with nodes it lives in a network namespace of its own.
#
# Uses: dir, address (where it listens), server (its URL), in_control (a prefix that enters its
# namespace, empty on loopback), control_bin.

services=10.96.0.0/16
api_service=10.96.0.1

control_certificates() {
    mkdir -p "$dir/pki"
    authority ca
    authority front-proxy-ca
    certificate ca apiserver /CN=kube-apiserver \
        "IP:$address,IP:$api_service,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
    certificate ca apiserver-kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client
    certificate front-proxy-ca front-proxy-client /CN=front-proxy-client
    service_account_keys
    user_kubeconfig admin /O=system:masters/CN=admin
    cp "$dir/pki/admin.kubeconfig" "$dir/kubeconfig"
}

define_etcd() {
    # What is lost with the machine may be lost: no fsync.
    define etcd "${in_control[@]}" "$control_bin/etcd" --name tidegate --data-dir "$dir/etcd" \
        --unsafe-no-fsync --log-level warn \
        --listen-client-urls "http://$address:2379" --advertise-client-urls "http://$address:2379" \
        --listen-peer-urls "http://$address:2380" --initial-advertise-peer-urls "http://$address:2380" \
        --initial-cluster "tidegate=http://$address:2380"
}

define_apiserver() {
    cp "$here/audit-policy.yaml" "$dir/audit-policy.yaml"
    local endpoints=(--advertise-address="$address")
    if [[ ${#in_control[@]} -eq 0 ]]; then
        # No pod will ask for it, and a loopback address is no endpoint.
        endpoints+=(--endpoint-reconciler-type=none)
    fi
    define kube-apiserver "${in_control[@]}" "$control_bin/kube-apiserver" \
        --bind-address="$address" --secure-port=6443 "${endpoints[@]}" \
        --etcd-servers="http://$address:2379" \
        --tls-cert-file="$dir/pki/apiserver.crt" --tls-private-key-file="$dir/pki/apiserver.key" \
        --client-ca-file="$dir/pki/ca.crt" \
        --kubelet-certificate-authority="$dir/pki/ca.crt" \
        --kubelet-client-certificate="$dir/pki/apiserver-kubelet-client.crt" \
        --kubelet-client-key="$dir/pki/apiserver-kubelet-client.key" \
        --kubelet-preferred-address-types=InternalIP \
        --requestheader-client-ca-file="$dir/pki/front-proxy-ca.crt" \
        --requestheader-allowed-names=front-proxy-client \
        --requestheader-username-headers=X-Remote-User \
        --requestheader-group-headers=X-Remote-Group \
        --requestheader-extra-headers-prefix=X-Remote-Extra- \
        --proxy-client-cert-file="$dir/pki/front-proxy-client.crt" \
        --proxy-client-key-file="$dir/pki/front-proxy-client.key" \
        --enable-aggregator-routing=true \
        --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction \
        --allow-privileged=true \
        --service-cluster-ip-range="$services" \
        --service-account-issuer=https://kubernetes.default.svc.cluster.local \
        --service-account-key-file="$dir/pki/service-accounts.pub" \
        --service-account-signing-key-file="$dir/pki/service-accounts.key" \
        --audit-policy-file="$dir/audit-policy.yaml" --audit-log-path="$dir/audit.log"
}

define_controller_manager() {
    user_kubeconfig controller-manager /CN=system:kube-controller-manager
    # A dead node is noticed soon, so that tests of it are short.
    define_restarted kube-controller-manager "${in_control[@]}" "$control_bin/kube-controller-manager" \
        --kubeconfig="$dir/pki/controller-manager.kubeconfig" \
        --authentication-kubeconfig="$dir/pki/controller-manager.kubeconfig" \
        --authorization-kubeconfig="$dir/pki/controller-manager.kubeconfig" \
        --bind-address="$address" --cert-dir="$dir/pki/controller-manager" \
        --leader-elect=false --use-service-account-credentials=true \
        --service-account-private-key-file="$dir/pki/service-accounts.key" \
        --root-ca-file="$dir/pki/ca.crt" \
        --cluster-signing-cert-file="$dir/pki/ca.crt" --cluster-signing-key-file="$dir/pki/ca.key" \
        --node-monitor-period=2s --node-monitor-grace-period=12s
}

define_scheduler() {
    user_kubeconfig scheduler /CN=system:kube-scheduler
    define_restarted kube-scheduler "${in_control[@]}" "$control_bin/kube-scheduler" \
        --kubeconfig="$dir/pki/scheduler.kubeconfig" \
        --authentication-kubeconfig="$dir/pki/scheduler.kubeconfig" \
        --authorization-kubeconfig="$dir/pki/scheduler.kubeconfig" \
        --bind-address="$address" --cert-dir="$dir/pki/scheduler" --leader-elect=false
}

api_ready() {
    admin get --raw /readyz
}

# healthy PORT: whether the component that serves its health there says that it is well.
healthy() {
    [[ $(curl -sk --max-time 2 "https://$address:$1/healthz") == ok ]]
}

# start_serving COMPONENT: of the control plane; returns when it serves.
start_serving() {
    local component=$1
    start "$component"
    case $component in
    kube-apiserver) wait_until "the API server at $server" 60 api_ready ;;
    kube-controller-manager) wait_until "$component" 60 healthy 10257 ;;
    kube-scheduler) wait_until "$component" 60 healthy 10259 ;;
    esac || { complain "$component" && return 1; }
}

# start_control [COMPONENT...]: etcd and the API server, then the others.
start_control() {
    local component
    for component in etcd kube-apiserver "$@"; do
        start_serving "$component"
    done
}
