#!/usr/bin/env bash
# Measures the operator on a control plane of its own: 10,000 windows and 1,000 users, how long after the
# last apply it has said its word on all, how much memory it has, what it asks for at rest.
#   scripts/bench-operator.sh [--dev] [arguments of operator/examples/bench_policy.rs, such as --windows 1000]
# --dev: the debug build, which is there already when tests have run; else a release build is made.
set -euo pipefail
cd "$(dirname "$0")/.."

profile=(--release) built=release
if [[ ${1-} == --dev ]]; then
  profile=() built=debug
  shift
fi
cargo build --quiet "${profile[@]}" -p tidegate-operator --bin tidegate-operator --example bench_policy
target=${CARGO_TARGET_DIR:-target}

directory=$(tests/cluster/up --owner $$)
operator=
finish() {
  if [[ -n $operator ]]; then
    kill "$operator" 2>/dev/null || true
    wait "$operator" 2>/dev/null || true
  fi
  tests/cluster/down --dir "$directory"
}
trap finish EXIT

export KUBECONFIG=$directory/kubeconfig
kubectl() { "$directory/bin/kubectl" "$@"; }
kubectl apply --server-side -f crds/yaml/ >/dev/null
kubectl wait --for=condition=Established --timeout=30s -f crds/yaml/ >/dev/null
kubectl create namespace tidegate-system >/dev/null
kubectl create namespace bench >/dev/null
kubectl apply -f - >/dev/null <<'YAML'
apiVersion: tidegate.dev/v1alpha1
kind: Mesh
metadata: {name: bench, namespace: bench}
spec: {domain: bench.example.com}
YAML

"$target/$built/tidegate-operator" run --namespace tidegate-system 2>"$directory/operator.log" &
operator=$!
for _ in $(seq 100); do
  grep -q 'are known' "$directory/operator.log" && break
  kill -0 "$operator"
  sleep 0.1
done
"$target/$built/examples/bench_policy" --pid "$operator" --audit "$directory/audit.log" "$@"
