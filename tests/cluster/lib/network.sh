# shellcheck shell=bash disable=SC2034,SC2154 # variables are shared between files
# The cluster's network: one namespace is the switch (a bridge), everything else hangs on it with a
# veth pair: the control plane, each node, the machine itself, and the outside, which is three
# namespaces that are no part of the cluster and know no pod addresses.
#
#   .1 the machine   .2 the control plane   .11... the nodes   .101 client .102 terminal .103 staff
#
# Every name starts with tg and the cluster's id.

pods=10.244
outside=(client terminal staff)

# namespace NAME: its name on the machine.
namespace() {
    echo "tg-$id-$1"
}

# address_of NAME
address_of() {
    case $1 in
    machine) echo "$subnet.1" ;;
    control) echo "$subnet.2" ;;
    client) echo "$subnet.101" ;;
    terminal) echo "$subnet.102" ;;
    staff) echo "$subnet.103" ;;
    node-*) echo "$subnet.$((10 + ${1#node-}))" ;;
    *) die "no part of the network is named '$1'" ;;
    esac
}

# within NAME COMMAND...: in that network namespace.
within() {
    local name=$1
    shift
    nsenter --net="/run/netns/$(namespace "$name")" -- "$@"
}

# free_subnet: three numbers of a /24 that this machine has no route into, begun from the id.
free_subnet() {
    local try first second
    for try in {0..50}; do
        first=$((64 + (16#${id:0:2} + try) % 128))
        second=$((16#${id:2:2}))
        if ! ip -4 route show to match "10.$first.$second.0/24" | grep -qv '^default'; then
            echo "10.$first.$second"
            return
        fi
    done
    die "found no free network in 10.64.0.0/10"
}

# join NAME: a namespace of its own with a leg in the switch.
join() {
    local name=$1 space
    space=$(namespace "$name")
    ip netns add "$space"
    ip -n "$space" link set lo up
    ip -n "$(namespace switch)" link add "$name" type veth peer name eth0 netns "$space"
    ip -n "$(namespace switch)" link set "$name" master bridge up
    ip -n "$space" address add "$(address_of "$name")/24" dev eth0
    ip -n "$space" link set eth0 up
}

join_machine() {
    ip link add "tg$id" type veth peer name machine netns "$(namespace switch)"
    ip -n "$(namespace switch)" link set machine master bridge up
    ip address add "$(address_of machine)/24" dev "tg$id"
    ip link set "tg$id" up
}

# pod_routes NAME: the way to the pods of each node but its own.
pod_routes() {
    local name=$1 node
    for ((node = 1; node <= nodes; node++)); do
        if [[ $name != "node-$node" ]]; then
            ip -n "$(namespace "$name")" route add "$pods.$node.0/24" via "$(address_of "node-$node")"
        fi
    done
}

network_up() {
    local node name
    ip netns add "$(namespace switch)"
    ip -n "$(namespace switch)" link add bridge type bridge
    ip -n "$(namespace switch)" link set bridge up
    join_machine
    join control
    pod_routes control
    for ((node = 1; node <= nodes; node++)); do
        join "node-$node"
        pod_routes "node-$node"
        # A process of the node asks for Service addresses too, and they have no other route.
        ip -n "$(namespace "node-$node")" route add default via "$(address_of control)"
        within "node-$node" sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
    done
    for name in "${outside[@]}"; do
        join "$name"
    done
}

network_down() {
    local space
    ip link delete "tg$id" 2>/dev/null || true
    for space in $(ip netns list | awk '{print $1}' | grep "^tg-$id-" || true); do
        ip netns delete "$space"
    done
}
