//! Support windows that open and close all along, one after the other at each site: some close as
//! declared, some are edited to close earlier, some are suspended. Each is a file that is written,
//! edited and removed while the relay runs.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use rand::Rng as _;
use tokio::task::JoinSet;

use crate::clock::monotonic;
use crate::listener::lock;
use crate::manifest::{SupportWindow, in_seconds};

use super::stage::{GROUP, Machine, Stage};

/// From an edit that moves the end of a window until that end: more than a reload takes.
const NOTICE: i64 = 3;

/// How long after a window's end what happens may be of that end: a cut that is late, and an edit that is
/// read late.
const JUST: Duration = Duration::from_secs(3);

/// What ends a window's sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    Closed,
    /// By an edit of its end.
    ClosedEarlier,
    Suspended,
}

impl Why {
    pub const ALL: [Self; 3] = [Self::Closed, Self::ClosedEarlier, Self::Suspended];

    pub fn words(self) -> &'static str {
        match self {
            Self::Closed => "at their deadline",
            Self::ClosedEarlier => "at a deadline that an edit moved",
            Self::Suspended => "by suspending the window",
        }
    }
}

/// A window's end as it is declared now.
#[derive(Clone, Copy, Debug)]
pub struct End {
    pub at: Instant,
    pub why: Why,
}

pub struct Window {
    end: Mutex<End>,
}

impl Window {
    /// Told before the relay can know.
    pub fn end(&self) -> End {
        *lock(&self.end)
    }

    pub fn left(&self) -> Duration {
        self.end().at.saturating_duration_since(Instant::now())
    }
}

pub struct Site {
    number: usize,
    /// Those that stay.
    pub terminals: Vec<Machine>,
    open: Mutex<Option<Arc<Window>>>,
    /// The window before that.
    former: Mutex<Option<Arc<Window>>>,
}

impl Site {
    pub fn new(number: usize) -> Self {
        Self { number, terminals: Vec::new(), open: Mutex::default(), former: Mutex::default() }
    }

    pub fn name(&self) -> String {
        format!("site-{}", self.number)
    }

    /// The window that is open, if one is.
    pub fn open(&self) -> Option<Arc<Window>> {
        lock(&self.open).clone()
    }

    /// Whether a window of this site has just ended.
    pub fn has_just_ended(&self) -> bool {
        let windows = [&self.open, &self.former].map(|it| lock(it).clone());
        windows.iter().flatten().any(|it| {
            let since = Instant::now().checked_duration_since(it.end().at);
            since.is_some_and(|it| it <= JUST)
        })
    }

    fn ends(&self) {
        let ended = lock(&self.open).take();
        *lock(&self.former) = ended;
    }
}

pub fn begin(stage: &Arc<Stage>, load: &mut JoinSet<()>) {
    for n in 0..stage.sites.len() {
        load.spawn(keep(Arc::clone(stage), n));
    }
}

async fn keep(stage: Arc<Stage>, n: usize) {
    let mut draws = stage.draws(3, n);
    let site = &stage.sites[n];
    let mut former: Option<SupportWindow> = None;
    // Not all sites at once.
    tokio::time::sleep(Duration::from_millis(draws.random_range(0..2000))).await;
    for count in 0_u64.. {
        let mut seconds = draws.random_range(stage.plan.windows.clone());
        if count == 0 {
            // As if it had been open for a while: or all sites would go up and down together.
            seconds = draws.random_range(*stage.plan.windows.start() / 2..=seconds);
        }
        let (opens, closes) =
            (Timestamp::now() - SignedDuration::from_mins(1), in_seconds(seconds.cast_signed()));
        let manifest = SupportWindow {
            users: Vec::new(),
            groups: vec![GROUP.to_owned()],
            terminals: Vec::new(),
            selector: vec![("site".to_owned(), site.name())],
            ..SupportWindow::once(&format!("{}-{count}", site.name()), "", "", opens, closes)
        }
        .services(&["web"]);
        stage.gate.put(&manifest);
        stage.tally.count("windows opened");
        let end = End { at: monotonic(closes), why: Why::Closed };
        let window = Arc::new(Window { end: Mutex::new(end) });
        *lock(&site.open) = Some(Arc::clone(&window));
        let early = Duration::from_secs(seconds).mul_f64(draws.random_range(0.3..0.7));
        match draws.random_range(0..10) {
            0..6 => tokio::time::sleep_until(end.at.into()).await,
            6..8 => {
                tokio::time::sleep(early).await;
                let sooner = in_seconds(NOTICE);
                if sooner < closes {
                    let at = monotonic(sooner);
                    *lock(&window.end) = End { at, why: Why::ClosedEarlier };
                    stage.gate.put(&manifest.clone().closing_at(sooner));
                    stage.tally.count("windows edited");
                }
                tokio::time::sleep_until(window.end().at.into()).await;
            }
            _ => {
                tokio::time::sleep(early).await;
                *lock(&window.end) = End { at: Instant::now(), why: Why::Suspended };
                stage.gate.put(&manifest.clone().suspended());
                stage.tally.count("windows suspended");
            }
        }
        site.ends();
        tokio::time::sleep(Duration::from_millis(draws.random_range(500..3000))).await;
        // Not at once, so that none is removed while its sessions are being cut.
        if let Some(former) = former.replace(manifest) {
            stage.gate.remove(&former);
        }
    }
}
