//! The thread that writes the trail: many records, one fsync.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{
    self, Receiver, RecvTimeoutError, Sender, SyncSender, TryRecvError, TrySendError,
};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::event::{Event, Reason, What};
use super::log::Log;
use super::{AuditError, Settings};
use crate::clock;
use crate::state::StateDir;

/// The most records that share one fsync.
const BATCH: usize = 512;
/// While lines cannot be written: how often it is tried without anyone asking.
const PROBE: Duration = Duration::from_secs(1);
/// How long after the last line the pin of the end is synced.
const IDLE: Duration = Duration::from_secs(5);
/// Batches that wait for the copy's reader.
const COPIES: usize = 1024;
/// How long `close` waits for the copy's reader.
const LAST_COPY: Duration = Duration::from_secs(1);

pub enum Message {
    Record(Box<Record>),
    Close(oneshot::Sender<()>),
}

pub struct Record {
    pub event: Event,
    pub reply: oneshot::Sender<Result<u64, AuditError>>,
    /// Its place in the bounded queue.
    pub _room: OwnedSemaphorePermit,
}

/// What others may see of the writer.
#[derive(Debug, Default)]
pub struct Shared {
    /// Why lines cannot be written, while they cannot.
    trouble: Mutex<Option<String>>,
    /// A record waited too long for the disk, and no batch has been done since.
    pub stuck: AtomicBool,
    pub copies_dropped: AtomicU64,
    /// The number of the last durable line; 0 before the first of this process.
    pub last_seq: AtomicU64,
}

impl Shared {
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }
}

pub struct Writer {
    log: Log,
    shared: Arc<Shared>,
    copies: Option<Copies>,
    clock: Box<dyn Fn() -> Timestamp + Send>,
    written: Box<dyn Fn(u64, Duration) + Send>,
    /// Records refused since the trouble began.
    refused: u64,
    /// The lock is held for as long as lines may be written.
    state: StateDir,
}

impl Writer {
    pub fn new(
        log: Log,
        shared: Arc<Shared>,
        settings: Settings,
        state: StateDir,
    ) -> io::Result<Self> {
        let Settings { copy_to, clock, written, rotate_at: _ } = settings;
        let copies = copy_to.map(|to| Copies::start(to, Arc::clone(&shared))).transpose()?;
        let mut writer = Self { log, shared, copies, clock, written, refused: 0, state };
        if writer.log.has_pending() {
            writer.write(Vec::new());
        }
        Ok(writer)
    }

    /// Until everyone who could record is gone, or `close`.
    pub fn run(mut self, queue: &Receiver<Message>) {
        let closed = loop {
            match queue.recv_timeout(self.patience()) {
                Ok(Message::Close(done)) => break Some(done),
                Ok(Message::Record(first)) => {
                    let (batch, close) = gather(first, queue);
                    self.write(batch);
                    if close.is_some() {
                        break close;
                    }
                }
                Err(RecvTimeoutError::Timeout) if self.in_trouble() => self.write(Vec::new()),
                Err(RecvTimeoutError::Timeout) => self.log.head().sync(),
                Err(RecvTimeoutError::Disconnected) => break None,
            }
        };
        self.log.head().sync();
        if let Some(copies) = self.copies.take() {
            copies.finish();
        }
        // From here on another process may write.
        let Self { log, state, .. } = self;
        drop((log, state));
        if let Some(done) = closed {
            // Nobody may wait for it any more.
            let _ = done.send(());
        }
    }

    fn in_trouble(&self) -> bool {
        self.shared.trouble().is_some()
    }

    fn patience(&mut self) -> Duration {
        if self.in_trouble() {
            PROBE
        } else if self.log.head().unsynced() {
            IDLE
        } else {
            Duration::from_hours(1)
        }
    }

    fn write(&mut self, batch: Vec<Record>) {
        // An outage is not over while the next lines would have no room.
        let recovered = self.log.reserve().is_ok().then(|| self.recovered()).flatten();
        let mut events: Vec<&Event> = recovered.iter().collect();
        events.extend(batch.iter().map(|record| &record.event));
        let extra = u64::from(recovered.is_some());
        let begun = clock::boot();
        let appended = self.log.append(&events);
        self.shared.stuck.store(false, Ordering::Relaxed);
        match appended {
            Ok(appended) => {
                if !events.is_empty() {
                    (self.written)(events.len() as u64, clock::boot().since(begun));
                }
                if recovered.is_some() {
                    tracing::info!(refused = self.refused, "the audit log can be written again");
                    self.refused = 0;
                }
                match self.log.reserve() {
                    Ok(()) if recovered.is_some() || !self.in_trouble() => self.shared.set(None),
                    Ok(()) => {}
                    Err(error) => self.trouble(&error),
                }
                for (seq, record) in (appended.first + extra..).zip(batch) {
                    self.shared.last_seq.store(seq, Ordering::Relaxed);
                    // A caller that gave up has its line all the same.
                    let _ = record.reply.send(Ok(seq));
                }
                if let Some(copies) = &self.copies {
                    copies.send(appended.text);
                }
            }
            Err(error) => {
                self.trouble(&error);
                let error = error.to_string();
                self.refused += batch.len() as u64;
                for record in batch {
                    let _ = record.reply.send(Err(AuditError::NotWritten(error.clone())));
                }
            }
        }
    }

    fn trouble(&self, error: &io::Error) {
        if !self.in_trouble() {
            tracing::error!(%error, "the audit log cannot be written");
        }
        self.shared.set(Some(error.to_string()));
    }

    /// The line that tells of an outage that is over if it can be written.
    fn recovered(&self) -> Option<Event> {
        let trouble = self.shared.trouble()?;
        let sentence = format!("the audit log could not be written for a while: {trouble}");
        let reason = Reason { code: "NotWritten".to_owned(), sentence };
        let mut event = Event {
            count: Some(self.refused),
            reason: Some(reason),
            ..Event::new(What::Recovered, (self.clock)())
        };
        event.shorten();
        Some(event)
    }
}

/// What has come meanwhile, up to a batch.
fn gather(
    first: Box<Record>,
    queue: &Receiver<Message>,
) -> (Vec<Record>, Option<oneshot::Sender<()>>) {
    let mut batch = vec![*first];
    while batch.len() < BATCH {
        match queue.try_recv() {
            Ok(Message::Record(record)) => batch.push(*record),
            Ok(Message::Close(done)) => return (batch, Some(done)),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
        }
    }
    (batch, None)
}

/// Copies durable lines to a writer that may be slow, stuck or gone.
struct Copies {
    queue: SyncSender<Vec<u8>>,
    done: Receiver<()>,
    shared: Arc<Shared>,
}

impl Copies {
    fn start(mut to: Box<dyn io::Write + Send>, shared: Arc<Shared>) -> io::Result<Self> {
        let (queue, texts) = mpsc::sync_channel::<Vec<u8>>(COPIES);
        let (finished, done) = mpsc::channel();
        let counts = Arc::clone(&shared);
        let work = move || {
            for text in texts {
                if to.write_all(&text).and_then(|()| to.flush()).is_err() {
                    count(&counts, &text);
                }
            }
            let _ = finished.send(());
        };
        thread::Builder::new().name("audit copy".to_owned()).spawn(work)?;
        Ok(Self { queue, done, shared })
    }

    fn send(&self, text: Vec<u8>) {
        if let Err(TrySendError::Full(text) | TrySendError::Disconnected(text)) =
            self.queue.try_send(text)
        {
            count(&self.shared, &text);
        }
    }

    fn finish(self) {
        let Self { queue, done, .. } = self;
        drop(queue);
        let _ = done.recv_timeout(LAST_COPY);
    }
}

fn count(shared: &Shared, text: &[u8]) {
    let lines = text.split(|byte| *byte == b'\n').count().saturating_sub(1) as u64;
    shared.copies_dropped.fetch_add(lines, Ordering::Relaxed);
}

/// Starts the thread.
pub fn start(writer: Writer) -> io::Result<Sender<Message>> {
    let (sender, queue) = mpsc::channel();
    thread::Builder::new().name("audit".to_owned()).spawn(move || writer.run(&queue))?;
    Ok(sender)
}
