//! Puts one relay process together, runs it, and takes it apart again.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use futures_util::future::join_all;
use tidegate_crds::compile::RelaySettings;
use tokio_util::task::TaskTracker;

use crate::accept::{self, Listener};
use crate::admin::{self, Admin};
use crate::audit::{self, Audit, Event, What};
use crate::certificate::{self, StateDirectory};
use crate::claim::{AnyClaims, Claims as _, FileClaims, KubeClaims};
use crate::clock;
use crate::connection::{self, Door};
use crate::control::Control;
use crate::end::{self, Ending};
use crate::gate::{Gate, Parts};
use crate::history::Histories;
use crate::hostkeys::{Clients, Following};
use crate::kube::{self, KubeArgs};
use crate::lastseen;
use crate::logging::{self, LogFormat};
use crate::metrics::Metrics;
use crate::origin::{self, Origin};
use crate::published::Published;
use crate::record::{EndedBy, Records};
use crate::refusals::AtTheDoor;
use crate::sentences;
use crate::signals::{Signals, Told};
use crate::source::{self, Feed};
use crate::ssh::{BeforeWrite, Server, Settings as SshSettings};
use crate::state::{StateDir, StateError};
use crate::supervisor::Supervisor;
use crate::trail::{Trail, Who};
use crate::warden;

/// How often what is kept on disk is brought up to date.
const HOUSEKEEPING: Duration = Duration::from_secs(10);
/// How long the ends of sessions may take to be written down at the very end.
const LAST_LINES: Duration = Duration::from_secs(5);
/// How often it is looked at the very end whether one more session has been admitted.
const ONE_MORE: Duration = Duration::from_millis(100);

/// Run the gate, with its policy from a directory of YAML.
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    /// Directory of manifests: *.yaml, *.yml and *.json, read recursively
    #[arg(
        long,
        value_name = "DIR",
        required_unless_present = "kube",
        conflicts_with_all = ["kube", "namespace", "pod_name", "host_key"]
    )]
    pub manifests: Option<PathBuf>,
    /// Take the policy from the cluster that this relay is a pod of, or that KUBECONFIG names
    #[arg(long, requires_all = ["relay", "host_key"])]
    pub kube: bool,
    #[command(flatten)]
    pub cluster: KubeArgs,
    /// In a cluster: the relays' SSH host key A, never written; key B is looked for in FILE_b
    #[arg(long, value_name = "FILE")]
    pub host_key: Option<PathBuf>,
    /// The certificate of TLS, PEM, its chain behind it; without it the relay makes one for itself
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The key of the certificate, PEM; both files are read anew when they change and at SIGHUP
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Directory of what the relay keeps: its host key, audit log, claims, session records
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
    /// Listen here instead of on the Relay's listeners; may be given more than once
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Vec<SocketAddr>,
    /// Serve /metrics, /healthz and /readyz here
    #[arg(long, value_name = "ADDR:PORT")]
    pub admin: Option<SocketAddr>,
    /// The Relay resource that this process is; needed where the manifests hold more than one
    #[arg(long, value_name = "NAME")]
    pub relay: Option<String>,
    /// The form of the log on standard error
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub log_format: LogFormat,
    /// A level (error, warn, info, debug, trace) or a filter such as tidegate_relay=debug
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// Copy the audit log's lines to standard output
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub audit_stdout: bool,
    /// Start a new file of the audit log at this size
    #[arg(long, default_value_t = 64 << 20, value_name = "BYTES")]
    pub audit_rotate: u64,
}

/// Runs until it is told to end. The error goes to standard error as one sentence.
pub fn run(args: &ServeArgs) -> ExitCode {
    let result = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")
        .and_then(|runtime| {
            let result = runtime.block_on(serve(args));
            // Whatever still runs holds nothing that must be written.
            runtime.shutdown_timeout(Duration::from_millis(500));
            result
        });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidegate-relay: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(args: &ServeArgs) -> anyhow::Result<()> {
    logging::init(args.log_format, args.log_level.as_deref())?;
    let now = clock::now();
    let tasks = Supervisor::new();
    let metrics = Arc::new(Metrics::new()?);
    let origin = if args.kube {
        origin::cluster(args, &tasks, &metrics).await?
    } else {
        Some(origin::manifests(args, &tasks).await?)
    };
    // Told to end before there was any policy to serve by.
    let Some(origin) = origin else { return Ok(()) };
    let Origin { state, keyring, offered, feed, mut signals, name, .. } = origin;
    let relay = Arc::clone(&source::current(&feed).relay);

    let declared = args.listen.is_empty().then(|| relay.listeners.clone());
    let addresses = addresses(args, &relay);
    let listeners = accept::bind(&addresses)?;
    let bound: Vec<SocketAddr> = listeners.iter().map(Listener::address).collect();
    let (admin_address, admin) = match (origin.admin, args.admin) {
        (Some(served), _) => (Some(served), None),
        (None, Some(asked)) => {
            let admin = Admin::bind(asked).await?;
            (Some(admin.address()), Some(admin))
        }
        (None, None) => (None, None),
    };
    let claims: AnyClaims = match &origin.cluster {
        Some(cluster) => KubeClaims::new(cluster, &tasks).into(),
        None => FileClaims::open(&state, &name)?.into(),
    };

    let audit = Audit::open(
        &state,
        audit::Settings {
            rotate_at: args.audit_rotate,
            copy_to: args.audit_stdout.then(|| Box::new(std::io::stdout()) as _),
            written: {
                let metrics = Arc::clone(&metrics);
                Box::new(move |lines, took| metrics.audit_written(lines, took))
            },
            ..audit::Settings::new(|| clock::now().wall)
        },
    )?;
    let left_open = audit::left_open(&state.path("audit")?)?;
    let (records, _) = Records::open(&state, &name, now.wall)?;
    if origin.cluster.is_some() {
        // What was left open ends and sessions may begin before anything is published.
        records.hold();
    }
    let trail = Arc::new(Trail {
        audit,
        records,
        history: Histories::open(&state)?,
        metrics: Arc::clone(&metrics),
        tasks: tasks.clone(),
        relay_pod: name.clone(),
        at_the_door: AtTheDoor::default(),
        to_come: TaskTracker::new(),
    });
    let gate = Gate::new(Parts {
        name: name.clone(),
        policy: feed.clone(),
        claims,
        trail,
        metrics: Arc::clone(&metrics),
        tasks: tasks.clone(),
        since: now.wall,
        listeners: bound.clone(),
        admin: admin_address,
        host_keys: Clients::new(&offered, &state),
    });
    gate.registry.restore(lastseen::load(&state));
    begin(&gate, &bound, left_open).await?;
    // What was left open has its end by now.
    if let Some(cluster) = &origin.cluster {
        kube::sessions::start(&gate, cluster, &tasks);
    }
    let domain = gate.policy().snapshot.mesh().domain.to_string();
    let published = Published::new(&state, &offered.keys(), &bound, &domain)?;

    let guard = Arc::downgrade(&gate);
    let mut settings = SshSettings::new(offered.keys());
    settings.before_write = BeforeWrite(Arc::new(move || {
        if let Some(gate) = guard.upgrade() {
            warden::before_write(&gate);
        }
    }));
    for address in &bound {
        metrics.listens(address.port());
    }
    let server = Arc::new(Server::new(settings, tasks.clone()));
    let mut certificates =
        certificate::Following::new(certificates(args, &state)?, feed.clone(), Arc::clone(&server));
    certificates.look();
    tasks.critical("certificates", certificates.run());
    tasks.critical("warden", warden::watch(Arc::clone(&gate)));
    tasks.critical("settings", follow(Arc::clone(&gate), feed.clone(), declared));
    let (following, offering) = (Arc::clone(&gate), Arc::clone(&server));
    let following =
        Following { gate: following, feed, keyring, offered, server: offering, published };
    tasks.critical("host keys", following.run());
    tasks.critical("housekeeping", keep_house(Arc::clone(&gate), state.clone()));
    let control = Control::bind(state.root())?;
    tasks.critical("control socket", control.serve(Arc::clone(&gate)));
    if let Some(admin) = admin {
        tasks.critical("admin port", admin::serve(admin, metrics, Arc::clone(&gate) as _));
    }
    for listener in listeners {
        listen(&gate, &server, listener);
    }
    if let Some(readiness) = origin.readiness {
        readiness.opened(&gate);
    }
    tracing::info!(relay = %relay.name, listeners = ?bound, "serving");

    let result = tokio::select! {
        failure = tasks.failed() => Err(failure.into()),
        signal = signals.next() => match signal {
            Told::EndNow => Ok(()),
            // Without its warden the relay must not wait for anybody.
            Told::Drain => tokio::select! {
                failure = tasks.failed() => Err(failure.into()),
                () = drain(&gate, &mut signals) => Ok(()),
            },
        },
    };
    finish(&gate, &state).await;
    result
}

/// Where the certificate of TLS comes from.
fn certificates(args: &ServeArgs, state: &StateDir) -> Result<certificate::From, StateError> {
    let own = StateDirectory::of(state)?;
    Ok(match (&args.tls_cert, &args.tls_key) {
        (Some(certificate), Some(key)) => {
            certificate::From::Files { certificate: certificate.clone(), key: key.clone(), or: own }
        }
        _ => certificate::From::Own(own),
    })
}

/// The addresses to listen on: those of the command line, else the Relay's listeners on every
/// address of the machine, IPv4 and IPv6.
fn addresses(args: &ServeArgs, relay: &RelaySettings) -> Vec<SocketAddr> {
    if !args.listen.is_empty() {
        return args.listen.clone();
    }
    relay.listeners.iter().map(|port| accept::everywhere(*port)).collect()
}

/// Writes down that this process serves, and what the one before it left open.
/// The latter comes first: nothing before a Start is looked at again.
async fn begin(gate: &Gate, bound: &[SocketAddr], left_open: Vec<Event>) -> anyhow::Result<()> {
    let now = clock::now().wall;
    for allow in left_open {
        gate.trail.left_open(allow).await;
    }
    let event = |what| Event { relay_pod: Some(gate.name.clone()), ..Event::new(what, now) };
    gate.trail.audit.record(event(What::Start)).await?;
    for address in bound {
        let listen = Event { listener_port: Some(address.port()), ..event(What::Listen) };
        gate.trail.audit.record(listen).await?;
    }
    Ok(())
}

/// Accepts on one listener until the gate drains.
fn listen(gate: &Arc<Gate>, server: &Arc<Server>, listener: Listener) {
    let (serving, server) = (Arc::clone(gate), Arc::clone(server));
    let budget = gate.budget.clone();
    let accepting = accept::accept(listener, budget, move |socket, peer, port, ticket| {
        serving.metrics.connection_accepted();
        let ticket = Arc::new(ticket);
        let door = Arc::new(Door::new(&serving, peer.ip(), &ticket));
        let asked = Arc::clone(&door);
        let (connection, events) = server.start(socket, peer, asked);
        let evicted = connection.clone();
        ticket.on_eviction(move || evicted.kill());
        let gate = Arc::clone(&serving);
        let serve = connection::serve(gate, connection, events, door, port, ticket);
        serving.tasks.spawn("connection", serve);
    });
    let draining = gate.drained();
    gate.tasks.critical("listener", async move {
        tokio::select! {
            _ = accepting => {}
            () = draining.cancelled() => {}
        }
        // The port is closed as it should be, which is no failure.
        std::future::pending::<()>().await;
    });
}

/// Takes over what changed Mesh and Relay resources ask of a running process. `listeners` are those
/// that it was started with; `None` where the command line replaced them.
async fn follow(gate: Arc<Gate>, mut feed: Feed, listeners: Option<Vec<u16>>) {
    let mut told = listeners.clone();
    loop {
        let policy = source::current(&feed);
        gate.apply(&policy.relay);
        gate.metrics.snapshot_applied();
        if told.as_ref().is_some_and(|told| *told != policy.relay.listeners) {
            told = Some(policy.relay.listeners.clone());
            tracing::warn!(
                asked = ?policy.relay.listeners,
                ?listeners,
                "the Relay's listeners have changed; restart the relay to listen on them"
            );
        }
        if feed.changed().await.is_err() {
            return;
        }
    }
}

/// What is looked after every 10 s: nothing here is on the path of a session.
async fn keep_house(gate: Arc<Gate>, state: StateDir) {
    loop {
        tokio::time::sleep(HOUSEKEEPING).await;
        let now = clock::now().wall;
        let policy = gate.policy();
        let snapshot = &policy.snapshot;
        let carried: Vec<_> = gate
            .sessions
            .all()
            .iter()
            .map(|session| {
                let (bytes_in, bytes_out) = session.bytes();
                (session.id, bytes_in, bytes_out)
            })
            .collect();
        gate.trail.records.alive(now, &carried);
        gate.trail.records.retain(snapshot.mesh().session_retention, now);
        gate.trail.history.retain(snapshot.users().map(|user| user.login.clone()).collect());
        gate.claims.retain(&|window| snapshot.window(window).is_some(), now).await;
        for staff in gate.staff.all() {
            gate.trail.repeats(Who::Staff(&staff), false);
        }
        for terminal in gate.registry.all() {
            gate.trail.repeats(Who::Terminal(&terminal), false);
        }
        let boot = clock::boot();
        for line in gate.refusals.due(boot, false) {
            gate.trail.note(gate.trail.unauthenticated(line));
        }
        for line in gate.trail.turned_away(false) {
            gate.trail.note(line);
        }
        gate.exchanges.trim(boot);
        gate.probes.trim(boot);
        gate.forget_host_key_clients(snapshot);
        let (state, seen) = (state.clone(), gate.registry.remember(now));
        let clients = Arc::clone(&gate);
        // A disk may take its time; the sessions have none.
        let saving = tokio::task::spawn_blocking(move || {
            lastseen::save(&state, seen);
            clients.host_keys.save(&state);
        });
        if let Err(error) = saving.await {
            tracing::error!(%error, "keeping what was seen of clients");
        }
    }
}

/// Admits nobody any more, and waits until the sessions that live have ended, the Relay's drain
/// timeout is over, or a second signal comes.
async fn drain(gate: &Arc<Gate>, signals: &mut Signals) {
    gate.drain();
    let timeout = gate.settings().drain;
    gate.trail.note(Event {
        relay_pod: Some(gate.name.clone()),
        ..Event::new(What::Drain, clock::now().wall)
    });
    tracing::info!(sessions = gate.sessions.len(), ?timeout, "draining");
    tokio::select! {
        () = gate.sessions.none() => {}
        () = tokio::time::sleep(timeout) => {}
        _ = signals.next() => {}
    }
}

/// Ends what still lives, with its reason, and closes the trail.
async fn finish(gate: &Arc<Gate>, state: &StateDir) {
    lastseen::save(state, gate.registry.remember(clock::now().wall));
    gate.host_keys.save(state);
    gate.drain();
    // First: a terminal that goes would be the reason of its sessions' ends.
    end_all(gate);
    gate.close();
    gate.trail.to_come.close();
    let none = async {
        let none = || async { tokio::join!(gate.sessions.none(), gate.trail.to_come.wait()) };
        // One that was being admitted comes into its table only now.
        while tokio::time::timeout(ONE_MORE, none()).await.is_err() {
            end_all(gate);
        }
    };
    if tokio::time::timeout(LAST_LINES, none).await.is_err() {
        tracing::error!(
            "ends of sessions or connections are not written down; the next start will end the sessions"
        );
    }
    // Before the last line: nothing may come after that.
    let published = gate.trail.records.published();
    if tokio::time::timeout(LAST_LINES, published).await.is_err() {
        tracing::error!(
            "the API server does not know of all sessions; the next start will tell it"
        );
    }
    let last = gate.refusals.due(clock::boot(), true).into_iter();
    let last = last.map(|line| gate.trail.unauthenticated(line));
    let last = last.chain(gate.trail.turned_away(true));
    let last = last.map(|line| gate.trail.audit.record(line));
    let last = async { tokio::join!(join_all(last), gate.trail.to_come.wait()) };
    if tokio::time::timeout(LAST_LINES, last).await.is_err() {
        tracing::error!("refusals at the door are not in the audit log");
    }
    let stop =
        Event { relay_pod: Some(gate.name.clone()), ..Event::new(What::Stop, clock::now().wall) };
    if let Err(error) = gate.trail.audit.record(stop).await {
        tracing::error!(%error, "the end of the process is not in the audit log");
    }
    let close = async {
        gate.trail.records.flush().await;
        gate.trail.audit.close().await;
    };
    if tokio::time::timeout(LAST_LINES, close).await.is_err() {
        tracing::error!("the disk does not answer; the process ends without waiting for it");
    }
}

/// Ends the sessions, and then the connections, those without any among them.
fn end_all(gate: &Arc<Gate>) {
    let ending = || Ending::early(EndedBy::Drain, sentences::drained());
    end::all(gate, gate.sessions.all().into_iter().map(|session| (session, ending())));
    for link in gate.staff.all() {
        link.peer.end(&sentences::drained());
    }
    for link in gate.terminals.all() {
        link.peer.end(&sentences::drained());
    }
}
