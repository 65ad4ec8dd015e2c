#!/usr/bin/env bash
# Installs the Debian packages that the tests and the quickstart run: real SSH clients and servers,
# and what a cluster's nodes are made of beside the programs that tests/cluster/build compiles.
# `install-test-packages.sh quickstart` looks for the quickstart's part of them only.
set -euo pipefail

# program or file → package that brings it
needs=(
    "ssh openssh-client"
    "ssh-keygen openssh-client"
    "sshd openssh-server"
)
if [[ ${1:-} != quickstart ]]; then
    needs+=(
        "scp openssh-client"
        "sftp openssh-client"
        "/usr/lib/openssh/sftp-server openssh-sftp-server"
        "dropbear dropbear-bin"
        "dbclient dropbear-bin"
        "dropbearconvert dropbear-bin"
        "plink putty-tools"
        "puttygen putty-tools"
        "autossh autossh"
        "/usr/lib/$(uname -m)-linux-gnu/libssh.so.4 libssh-4"
        "rsync rsync"
        "git git"
        "mount mount"
        "shellcheck shellcheck"
        "faketime faketime"
        "openssl openssl"
        "curl curl"
        "ip iproute2"
        "runc runc"
        "/usr/lib/cni/ptp containernetworking-plugins"
        "nft nftables"
        "iptables iptables"
        "conntrack conntrack"
        "buildah buildah"
        "haproxy haproxy"
        "nginx nginx-light"
        "/usr/lib/nginx/modules/ngx_stream_module.so libnginx-mod-stream"
        "squid squid"
        "socat socat"
        "/usr/lib/python3/dist-packages/websockets/__init__.py python3-websockets"
    )
fi

PATH=$PATH:/usr/sbin:/sbin
missing=()
for need in "${needs[@]}"; do
    read -r program package <<<"$need"
    if ! command -v "$program" >/dev/null && [[ $program != /* || ! -e $program ]]; then
        missing+=("$package")
    fi
done
if [[ ${#missing[@]} -eq 0 ]]; then
    exit 0
fi
mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)

if [[ $(id -u) -ne 0 ]] || ! command -v apt-get >/dev/null; then
    echo "These packages are missing: ${missing[*]}" >&2
    echo "On Debian: sudo apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 1
fi
echo "Installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# A server that is installed for tests must not be started as a service of the machine.
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    trap 'rm -f "$policy"' EXIT
fi
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null </dev/null
