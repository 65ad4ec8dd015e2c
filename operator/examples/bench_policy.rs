//! Measures how fast an operator that runs says its word on many windows, and what it does at rest.
//! `scripts/bench-operator.sh` brings up what this needs, and ends it.
//!
//! It creates users, terminals and windows in the namespace `bench` as fast as the API server takes them,
//! waits until each has been accepted in its present generation, and reads the operator's memory from
//! /proc. It writes a table to standard output.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a measurement that meets something it did not expect has to fail loudly"
)]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use kube::api::{DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use ssh_key::private::Ed25519Keypair;
use ssh_key::public::KeyData;

const NAMESPACE: &str = "bench";

#[derive(Parser)]
struct Args {
    /// The operator's process
    #[arg(long)]
    pid: u32,
    /// The API server's audit log
    #[arg(long)]
    audit: PathBuf,
    #[arg(long, default_value_t = 10_000)]
    windows: usize,
    #[arg(long, default_value_t = 1_000)]
    users: usize,
    #[arg(long, default_value_t = 1_000)]
    terminals: usize,
    /// How many requests are under way at once
    #[arg(long, default_value_t = 16)]
    parallel: usize,
    /// For how many seconds it is watched at rest
    #[arg(long, default_value_t = 300)]
    rest: u64,
    /// How many seconds convergence may take
    #[arg(long, default_value_t = 60)]
    within: u64,
    /// How many MiB the operator may have resident
    #[arg(long, default_value_t = 128)]
    memory: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = Args::parse();
    let client = Client::try_default().await?;
    let idle = memory(args.pid)?;
    let began = Instant::now();
    create(&client, &args).await?;
    let applied = Instant::now();
    accepted(&client, args.windows, Duration::from_secs(args.within * 5)).await?;
    let converged = applied.elapsed();
    let busy = memory(args.pid)?;

    // Events, and what the lists above still cost, are over after a moment.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let before = lines(&args.audit)?;
    let cpu = cpu(args.pid)?;
    tokio::time::sleep(Duration::from_secs(args.rest)).await;
    let after = lines(&args.audit)?;
    let cpu = self::cpu(args.pid)? - cpu;
    let rest = after.get(before.len()..).unwrap_or_default();
    let (writes, reads, watches) = count(rest);
    let resting = memory(args.pid)?;

    let total = args.users + args.terminals + args.windows;
    println!("| what | figure | bound |");
    println!("|---|---|---|");
    let rate = f64::from(u32::try_from(total)?) / (applied - began).as_secs_f64();
    println!(
        "| {total} objects created | {:.1} s, {rate:.0} a second | |",
        (applied - began).as_secs_f64()
    );
    println!(
        "| converged after the last apply | {:.1} s | {} s |",
        converged.as_secs_f64(),
        args.within
    );
    println!(
        "| resident: idle, converged, at rest, most | {}, {}, {}, {} MiB | {} MiB |",
        idle.0, busy.0, resting.0, resting.1, args.memory
    );
    println!("| at rest for {} s: writes but the lease's | {writes} | 0 |", args.rest);
    println!("| at rest: requests that are no watch | {reads} | 0 |");
    println!("| at rest: watches begun anew | {watches} | |");
    println!("| at rest: CPU | {cpu} ms | |");
    if converged > Duration::from_secs(args.within) || resting.1 > args.memory || writes + reads > 0
    {
        for line in rest.iter().filter(|line| !is_lease(line)).take(10) {
            eprintln!("{line}");
        }
        bail!("a bound was not held");
    }
    Ok(())
}

fn api(client: &Client, kind: &str) -> (Api<DynamicObject>, ApiResource) {
    let kind = GroupVersionKind::gvk("tidegate.dev", "v1alpha1", kind);
    let resource = ApiResource::from_gvk(&kind);
    (Api::namespaced_with(client.clone(), NAMESPACE, &resource), resource)
}

async fn create(client: &Client, args: &Args) -> Result<()> {
    let users = (0..args.users).map(|i| {
        let spec = json!({"publicKeys": [key(i)], "groups": [format!("tier{}", i % 10)]});
        ("LoginUser", format!("user-{i}"), json!({}), spec)
    });
    let terminals = (0..args.terminals).map(|i| {
        let service = json!({"name": "ssh", "port": 22, "listenPort": 20_000 + i});
        let labels = json!({"site": format!("site-{}", i % 50)});
        let spec = json!({"publicKeys": [key(args.users + i)], "services": [service]});
        ("Terminal", format!("kiosk-{i}"), labels, spec)
    });
    let windows = (0..args.windows).map(|i| {
        let mut users = json!({"names": [format!("user-{}", i % args.users)]});
        if i % 5 == 0 {
            users["groups"] = json!([format!("tier{}", i % 10)]);
        }
        let mut terminals = json!({"names": [format!("kiosk-{}", i % args.terminals)]});
        if i % 10 == 0 {
            terminals["selector"] = json!({"matchLabels": {"site": format!("site-{}", i % 50)}});
        }
        let cron = format!("{} {} * * MON-FRI", i % 60, i % 24);
        let spec = json!({
            "case": {"number": format!("{i}")},
            "users": users, "terminals": terminals, "services": ["ssh"],
            "schedule": {"recurring": {"cron": cron, "timeZone": "Europe/Berlin", "duration": "2h"}},
        });
        ("SupportWindow", format!("window-{i}"), json!({}), spec)
    });
    let all = users.chain(terminals).chain(windows);
    stream::iter(all)
        .map(|(kind, name, labels, spec)| async move {
            let (api, _) = api(client, kind);
            let object: Value = json!({
                "apiVersion": "tidegate.dev/v1alpha1", "kind": kind,
                "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels}, "spec": spec,
            });
            let object: DynamicObject = serde_json::from_value(object)?;
            api.create(&PostParams::default(), &object)
                .await
                .with_context(|| format!("{kind} {name}"))?;
            anyhow::Ok(())
        })
        .buffer_unordered(args.parallel)
        .try_for_each(|()| async { Ok(()) })
        .await
}

/// Waits until so many windows have been accepted in their present generation.
async fn accepted(client: &Client, count: usize, within: Duration) -> Result<()> {
    let (api, resource) = api(client, "SupportWindow");
    let mut events = watcher::<DynamicObject>(
        Api::namespaced_with(client.clone(), NAMESPACE, &resource),
        watcher::Config::default(),
    )
    .default_backoff()
    .applied_objects()
    .boxed();
    drop(api);
    let mut seen = BTreeSet::new();
    let waiting = async {
        while seen.len() < count {
            let Some(window) = events.next().await else { bail!("the watch ended") };
            let window = window?;
            let conditions = window.data.pointer("/status/conditions").and_then(Value::as_array);
            let good = conditions.into_iter().flatten().any(|condition| {
                condition["type"] == "Accepted"
                    && condition["status"] == "True"
                    && condition["observedGeneration"] == json!(window.metadata.generation)
            });
            if good {
                seen.insert(window.name_any());
            }
        }
        Ok(())
    };
    tokio::time::timeout(within, waiting).await.context("the windows were not accepted")?
}

/// The `number`th public key.
fn key(number: usize) -> String {
    let mut seed = [7_u8; 32];
    for (byte, part) in seed.iter_mut().zip(number.to_le_bytes()) {
        *byte = part;
    }
    let pair = Ed25519Keypair::from_seed(&seed);
    let public = ssh_key::PublicKey::new(KeyData::Ed25519(pair.public), "");
    public.to_openssh().expect("a key").trim_end().to_owned()
}

/// What a process has resident now and had at most, in MiB.
fn memory(pid: u32) -> Result<(u64, u64)> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib / 1024)
    };
    field("VmRSS:").zip(field("VmHWM:")).context("no memory in /proc")
}

/// The CPU time of a process in ms; a tick is 10 ms.
fn cpu(pid: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(')').context("no name in /proc")?;
    let ticks =
        rest.split_whitespace().skip(11).take(2).filter_map(|tick| tick.parse::<u64>().ok());
    Ok(ticks.sum::<u64>() * 10)
}

/// The requests that people and the operator sent, as the audit log has them.
fn lines(audit: &std::path::Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(audit)?;
    let of_the_cluster = |line: &&str| {
        ["\"system:kube-", "\"system:apiserver", "\"system:serviceaccount", "\"system:node"]
            .iter()
            .any(|user| line.contains(&format!("\"username\":{user}")))
    };
    Ok(text.lines().filter(|line| !of_the_cluster(line)).map(str::to_owned).collect())
}

fn is_lease(line: &str) -> bool {
    line.contains("\"resource\":\"leases\"")
}

/// Writes, other requests, and watches.
fn count(lines: &[String]) -> (usize, usize, usize) {
    let (mut writes, mut reads, mut watches) = (0, 0, 0);
    for line in lines.iter().filter(|line| !is_lease(line)) {
        let verb = |verb: &str| line.contains(&format!("\"verb\":\"{verb}\""));
        if verb("watch") {
            watches += 1;
        } else if verb("get") || verb("list") {
            reads += 1;
        } else {
            writes += 1;
        }
    }
    (writes, reads, watches)
}
