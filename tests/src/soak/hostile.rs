//! Hostile peers, a steady mix: each kind has as many at once as the plan says, and comes again.

use std::io::Result;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, RngCore as _};
use tidegate_ssh_client::Key;
use tidegate_ssh_client::driver::{Connection, Serve, dial};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::pattern::piece;

use super::stage::{MALLORY, SERVICE, SLOTH, Stage, hostile_source, key_of};

/// Longer than any of them may stay: 20 s before a key is proven (DESIGN.md section 6, Caps).
const LONGEST: Duration = Duration::from_secs(30);
/// Of one flood: beyond what any buffer holds, and not all of a processor of this machine.
const FLOOD: usize = 4 << 20;
/// Opens of one who may not; 20 refusals have to close the connection (DESIGN.md section 6).
const OPENS: usize = 40;
/// Keys that nobody knows, of `Key::numbered`.
const UNKNOWN_KEYS: u32 = 3_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    HalfBanner,
    ConnectAndClose,
    UnknownKey,
    JunkTls,
    JunkHttp,
    EndlessBanner,
    IgnoreFlood,
    DeniedOpens,
    UnreadAnswers,
    NeverReads,
}

impl Kind {
    const ALL: [Self; 10] = [
        Self::HalfBanner,
        Self::ConnectAndClose,
        Self::UnknownKey,
        Self::JunkTls,
        Self::JunkHttp,
        Self::EndlessBanner,
        Self::IgnoreFlood,
        Self::DeniedOpens,
        Self::UnreadAnswers,
        Self::NeverReads,
    ];

    fn words(self) -> &'static str {
        match self {
            Self::HalfBanner => "hostile: half a banner",
            Self::ConnectAndClose => "hostile: connects and closes",
            Self::UnknownKey => "hostile: unknown key",
            Self::JunkTls => "hostile: junk after a TLS header",
            Self::JunkHttp => "hostile: junk as HTTP",
            Self::EndlessBanner => "hostile: endless banner",
            Self::IgnoreFlood => "hostile: flood of IGNORE",
            Self::DeniedOpens => "hostile: opens what it may not",
            Self::UnreadAnswers => "hostile: asks and reads no answer",
            Self::NeverReads => "hostile: a session that never reads",
        }
    }
}

pub fn begin(stage: &Arc<Stage>, load: &mut JoinSet<()>) {
    for (n, kind) in Kind::ALL.into_iter().enumerate() {
        for worker in 0..stage.plan.hostile {
            let source = hostile_source(n, worker);
            let draws = stage.draws(5, n * 1000 + worker);
            load.spawn(again(Arc::clone(stage), kind, source, draws));
        }
    }
}

async fn again(stage: Arc<Stage>, kind: Kind, source: Ipv4Addr, mut draws: StdRng) {
    loop {
        match timeout(LONGEST, once(&stage, kind, source, &mut draws)).await {
            // What the relay does to one ends in an error as often as not.
            Ok(_) => stage.tally.count(kind.words()),
            Err(_) => stage.tally.wrong(format!("{} was not ended within 30 s", kind.words())),
        }
        tokio::time::sleep(Duration::from_millis(draws.random_range(50..500))).await;
    }
}

async fn once(stage: &Stage, kind: Kind, source: Ipv4Addr, draws: &mut StdRng) -> Result<()> {
    let port = stage.gate.port;
    match kind {
        Kind::HalfBanner => {
            let mut socket = dial(source, port).await?;
            socket.write_all(b"SSH-2.0-Half").await?;
            to_end(&mut socket).await
        }
        Kind::ConnectAndClose => {
            for _ in 0..10 {
                drop(dial(source, port).await?);
            }
            Ok(())
        }
        Kind::UnknownKey => {
            let key = Key::numbered(UNKNOWN_KEYS + draws.random_range(0..1_000_000));
            let login = draws.random_range(0..100);
            let login = format!("staff-{login}");
            let offer = Arc::clone(&stage.offer);
            if Connection::login_from(source, port, offer, &login, key, Serve::Nothing)
                .await
                .is_ok()
            {
                stage.tally.wrong("an unknown key was let in".to_owned());
            }
            Ok(())
        }
        Kind::JunkTls => {
            let mut junk = vec![0; draws.random_range(6..20_000)];
            draws.fill_bytes(&mut junk);
            junk[..3].copy_from_slice(&[22, 3, 1]);
            let mut socket = dial(source, port).await?;
            socket.write_all(&junk).await?;
            to_end(&mut socket).await
        }
        Kind::JunkHttp => {
            let request = HTTP[draws.random_range(0..HTTP.len())];
            let mut socket = dial(source, port).await?;
            socket.write_all(request.as_bytes()).await?;
            to_end(&mut socket).await
        }
        Kind::EndlessBanner => flood(stage, source, b"", &b"no SSH here\r\n".repeat(100)).await,
        Kind::IgnoreFlood => {
            // A packet of 12 bytes in plain text: its length, 4 of padding, IGNORE with nothing.
            let packet = [0, 0, 0, 12, 6, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            flood(stage, source, b"SSH-2.0-Flood\r\n", &packet.repeat(100)).await
        }
        Kind::DeniedOpens => {
            let mallory = log_in(stage, source, MALLORY).await?;
            let host = stage.sites[0].terminals[0].host();
            for _ in 0..OPENS {
                if mallory.open(&host, SERVICE).await.is_ok() {
                    stage.tally.wrong("a user with no window opened a service".to_owned());
                }
                if mallory.ended().is_some() {
                    return Ok(());
                }
            }
            stage.tally.wrong(format!("{OPENS} refused opens did not close the connection"));
            Ok(())
        }
        Kind::UnreadAnswers => {
            let mallory = log_in(stage, source, MALLORY).await?;
            mallory.stop_reading().await?;
            mallory.flood(50_000).await?;
            hold(&mallory, draws).await;
            Ok(())
        }
        Kind::NeverReads => {
            let sloth = log_in(stage, source, SLOTH).await?;
            let site = &stage.sites[draws.random_range(0..stage.sites.len())];
            let machine = site.terminals[draws.random_range(0..site.terminals.len())];
            // Refused where no window is open.
            let channel = sloth.channel(&machine.host(), SERVICE).await?;
            sloth.stop_reading().await?;
            for part in 0..16 {
                channel.send(piece(part << 16, 64 << 10).to_vec()).await?;
            }
            hold(&sloth, draws).await;
            Ok(())
        }
    }
}

/// What a web server behind a careless proxy would take.
const HTTP: [&str; 5] = [
    "GET / HTTP/1.1\r\nHost: relay\r\n\r\n",
    "GET /tidegate HTTP/1.1\r\nHost: a\r\nHost: b\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
    "POST /tidegate HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n\
     0\r\n\r\nGET /tidegate HTTP/1.1\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "CONNECT 127.0.0.1:22 HTTP/1.1\r\n\r\n",
];

async fn log_in(stage: &Stage, source: Ipv4Addr, login: &str) -> Result<Connection> {
    let (port, offer, key) = (stage.gate.port, Arc::clone(&stage.offer), key_of(login));
    Connection::login_from(source, port, offer, login, key, Serve::Nothing).await
}

/// Keeps what is blocked for some seconds.
async fn hold(peer: &Connection, draws: &mut StdRng) {
    let long = Duration::from_millis(draws.random_range(2000..10_000));
    let _ = timeout(long, peer.closed()).await;
}

async fn to_end(socket: &mut TcpStream) -> Result<()> {
    let mut buffer = [0; 1024];
    while socket.read(&mut buffer).await? > 0 {}
    Ok(())
}

/// Sends a flood, and waits for the relay to end what it has not ended yet.
async fn flood(stage: &Stage, source: Ipv4Addr, first: &[u8], again: &[u8]) -> Result<()> {
    let mut socket = dial(source, stage.gate.port).await?;
    socket.write_all(first).await?;
    let mut sent = 0;
    while sent < FLOOD {
        socket.write_all(again).await?;
        sent += again.len();
    }
    to_end(&mut socket).await
}
