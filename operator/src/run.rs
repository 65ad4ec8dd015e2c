//! Puts one operator process together, runs it, and takes it apart again.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use kube::{Client, Config};
use tidegate_process::admin::{Admin, Shown};
use tidegate_process::logging;
use tidegate_process::supervisor::Supervisor;
use tokio::signal::unix::{SignalKind, signal};

use crate::Context;
use crate::cli::RunArgs;
use crate::events::EventRecorder;
use crate::lease::{Held, Keeper};
use crate::metrics::Metrics;
use crate::write::Writer;
use crate::{fence, mesh, records, relay, world};

/// Where the relays' image is without `--relay-image` and `RELAY_IMAGE`.
const IMAGE: &str = concat!("ghcr.io/tidegate/tidegate-relay:", env!("CARGO_PKG_VERSION"));
/// How long writes on their way are waited for at the end, before the lease is let go by itself.
const LAST_WRITES: Duration = Duration::from_secs(3);
/// How long the runtime may take to end its tasks.
const END: Duration = Duration::from_secs(1);

/// Runs until it is told to end, or loses the lease. The error goes to standard error as one sentence.
pub fn run(args: &RunArgs) -> ExitCode {
    match try_run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidegate-operator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn try_run(args: &RunArgs) -> anyhow::Result<()> {
    logging::init(args.log_format, args.log_level.as_deref())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(operate(args));
    runtime.shutdown_timeout(END);
    result
}

/// What the admin port shows. A replica that stands by is as ready as one that leads.
struct Health {
    metrics: Arc<Metrics>,
    tasks: Supervisor,
}

impl Shown for Health {
    fn not_ready(&self) -> Vec<String> {
        Vec::new()
    }

    fn metrics(&self) -> Result<String, String> {
        self.metrics.set_tasks(self.tasks.tasks(), self.tasks.panics());
        self.metrics.render().map_err(|error| error.to_string())
    }
}

async fn operate(args: &RunArgs) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let config = Config::infer().await.context("no way to an API server is configured")?;
    let namespace = own_namespace(args, &config);
    let client = Client::try_from(config.clone()).context("cannot make an API client")?;
    let metrics = Arc::new(Metrics::new().context("cannot register the metrics")?);
    let tasks = Supervisor::new();

    if let Some(address) = args.admin {
        let admin = Admin::bind(address).await?;
        tracing::info!(address = %admin.address(), "serves /metrics, /healthz and /readyz");
        let health = Health { metrics: Arc::clone(&metrics), tasks: tasks.clone() };
        tasks.critical("admin", admin.serve(Arc::new(health)));
    }

    let identity = identity();
    let held = Held::new();
    let mut keeper = Keeper::new(client.clone(), &namespace, identity.clone(), held.clone());
    tracing::info!(namespace, identity, "started");
    tokio::select! {
        () = keeper.acquire() => {}
        failure = tasks.failed() => return Err(failure.into()),
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    }
    tracing::info!("leads");
    metrics.set_leading(true);

    let fenced = fence::client(&config, &held).context("cannot make an API client for writes")?;
    let writer = Writer::new(fenced, held.clone(), Arc::clone(&metrics));
    let (events, writing) = EventRecorder::new(writer.clone(), identity, Arc::clone(&metrics));
    tasks.critical("events", writing);
    let relay_image = relay_image(args);
    let context = Context {
        client,
        writer,
        namespace,
        relay_image,
        metrics: Arc::clone(&metrics),
        tasks: tasks.clone(),
        events,
    };
    start(&Arc::new(context));

    tokio::select! {
        lost = keeper.keep() => Err(lost.into()),
        failure = tasks.failed() => {
            step_down(&held, keeper).await;
            Err(failure.into())
        }
        _ = terminate.recv() => { step_down(&held, keeper).await; Ok(()) }
        _ = interrupt.recv() => { step_down(&held, keeper).await; Ok(()) }
    }
}

/// Starts every controller; none of them ends while the program runs.
fn start(context: &Arc<Context>) {
    let tasks = &context.tasks;
    let (tenancy, served) = tokio::sync::watch::channel(mesh::Tenancy::default());
    tasks.critical("world", world::run(Arc::clone(context)));
    tasks.critical("mesh", mesh::run(Arc::clone(context), tenancy));
    let (holds, held) = tokio::sync::watch::channel(None);
    tasks.critical("relay", relay::run(Arc::clone(context), served.clone(), held));
    tasks.critical("records", records::run(Arc::clone(context), served, holds));
}

/// Sends no further write, and lets another replica lead as soon as none is on its way.
async fn step_down(held: &Held, keeper: Keeper) {
    held.give_up();
    if tokio::time::timeout(LAST_WRITES, held.idle()).await.is_ok() {
        keeper.release().await;
    }
    tracing::info!("ended");
}

fn own_namespace(args: &RunArgs, config: &Config) -> String {
    let given = args.namespace.clone().or_else(|| set("POD_NAMESPACE"));
    given.unwrap_or_else(|| config.default_namespace.clone())
}

fn relay_image(args: &RunArgs) -> String {
    args.relay_image.clone().or_else(|| set("RELAY_IMAGE")).unwrap_or_else(|| IMAGE.to_owned())
}

/// The environment variable, unless it is unset or empty.
fn set(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// This process's alone: a container that is started again in the same pod has another.
fn identity() -> String {
    let pod = set("POD_NAME").or_else(|| set("HOSTNAME"));
    let pod = pod.unwrap_or_else(|| format!("pid-{}", std::process::id()));
    format!("{pod}_{:016x}", rand::random::<u64>())
}
