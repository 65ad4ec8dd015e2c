# `just` comes with `pip install rust-just` or `cargo install just`; nothing needs it, every recipe
# is a line that can be typed.

# Show the recipes
default:
    @just --list

# Write the code in its form
fmt:
    cargo fmt --all

# Form and lints, as CI checks them
lint:
    scripts/lint.sh

# Bans, licences and sources of the dependencies
deny:
    scripts/deny.sh

# All tests; arguments go to cargo test
test *ARGS:
    scripts/test.sh {{ARGS}}

# One file of the integration tests: just embedded cut
embedded NAME *ARGS:
    cargo test --locked -p tidegate-tests --test embedded_{{NAME}} {{ARGS}} -- --nocapture

# Everything that CI runs
ci:
    .ci/run

# The gate on loopback, with a session and its cut
quickstart *ARGS:
    ./quickstart {{ARGS}}

# Write crds/yaml/ anew
crds:
    cargo run --locked -p tidegate-crds --bin crdgen

# Write the golden file of sentences anew
bless:
    TIDEGATE_BLESS=1 cargo test --locked -p tidegate-tests --test embedded_sentences

# All properties by twenty times as many cases, from a seed that it draws and prints: just proptest-long 100 policy ssh
proptest-long *ARGS:
    scripts/proptest-long.sh {{ARGS}}

# 1 GiB both ways, and a minute of edits under a running session
transfer-long:
    TIDEGATE_LONG=1 cargo test --locked -p tidegate-tests --test embedded_transfer -- --nocapture scp
    TIDEGATE_LONG=1 cargo test --locked -p tidegate-tests --test embedded_policy -- --nocapture editing

# Crashes at every step of the admission, 20 rounds
onetime-long:
    TIDEGATE_LONG=1 cargo test --locked -p tidegate-tests --test embedded_onetime -- --nocapture

# A thousand sessions with one deadline, through an optimised build
crowd:
    cargo test --locked -p tidegate-tests --test embedded_crowd -- --nocapture

# Hostile peers, four times as many for ten seconds each, through an optimised build
hostile *ARGS:
    TIDEGATE_HOSTILE_LONG=1 cargo test --locked -p tidegate-tests --test embedded_hostile -- --nocapture --test-threads 1 {{ARGS}}

# A server and a client of SSH over 20 million random steps: TIDEGATE_SEED=7 just ssh-sim
ssh-sim:
    TIDEGATE_LONG=1 cargo test --locked --release -p tidegate-ssh-client --no-default-features --test sim -- --nocapture

# Ten minutes for each target of crds/fuzz, relay/fuzz, ssh/fuzz and transport/fuzz, or for those that are named; what is found is kept
fuzz *TARGETS:
    scripts/fuzz.sh --keep 600 {{TARGETS}}

# The programs of the test cluster, once per change of tests/cluster/go
cluster-build:
    tests/cluster/build

# A cluster with two nodes, or with what up is told: just cluster-up --nodes 0
cluster-up *ARGS='--nodes 2':
    tests/cluster/up {{ARGS}}

# Its end: just cluster-down DIR
cluster-down DIR:
    tests/cluster/down --dir {{DIR}}

# Lost nodes, outages of the API server and its store, ten minutes without an operator, on two nodes
fleet-long:
    TIDEGATE_LONG=1 cargo test --locked -p tidegate-tests --test cluster_fleet -- --nocapture --test-threads 1

# Every combination of algorithms with each SSH client; PuTTY and dropbear move 1 GiB each way across ten rekeys
interop-long:
    TIDEGATE_LONG=1 cargo test --locked --release -p tidegate-ssh --test interop -- --nocapture

# Fifty kills of the operator in a storm of applies, five minutes at rest
operator-long:
    TIDEGATE_LONG=1 cargo test --locked -p tidegate-tests --test api_operator_policy -- --nocapture --test-threads 1

# 10,000 windows and 1,000 users: convergence and memory of the operator
bench-operator *ARGS:
    scripts/bench-operator.sh {{ARGS}}

# 100,000 windows: `decide`, one changed window as both sources apply it, memory
bench-policy *ARGS:
    scripts/bench-policy.sh {{ARGS}}

# This relay against OpenSSH's sshd as the relay, and both against the floor; --short takes two minutes
bench-relay *ARGS:
    scripts/bench-relay.sh {{ARGS}}

# Half an hour of a thousand terminals, staff and hostile peers, with a plot and a verdict: just soak 120s
soak *ARGS:
    scripts/soak.sh {{ARGS}}
