//! Announces changes below a directory: inotify watches on every directory that a listing entered.
//! It says only that something changed; what, the next listing tells.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tidegate_commands::manifests::scan::{Stamp, is_manifest};
use tokio::sync::mpsc;

pub struct Watch {
    watcher: Option<RecommendedWatcher>,
    /// Device and inode of each watched directory: a new directory under an old name is another.
    watched: HashMap<PathBuf, (u64, u64)>,
    /// Directories that were moved or removed since the last [`Watch::follow`].
    lost: Arc<Mutex<HashSet<PathBuf>>>,
    /// Why changes are not announced.
    failure: Option<String>,
}

impl Watch {
    /// `root` is absolute. The receiver gets a word for each change, and may miss some when many
    /// are waiting.
    pub fn new(root: &Path) -> (Self, mpsc::Receiver<()>) {
        let (sender, receiver) = mpsc::channel(16);
        let lost = Arc::new(Mutex::new(HashSet::new()));
        let filter = Filter { root: root.into(), lost: Arc::clone(&lost) };
        let made = notify::recommended_watcher(move |event| {
            if filter.matters(event) {
                // Full: the receiver has not even begun with those before.
                let _ = sender.try_send(());
            }
        });
        let (watcher, failure) = match made {
            Ok(watcher) => (Some(watcher), None),
            Err(error) => (None, Some(error.to_string())),
        };
        (Self { watcher, watched: HashMap::new(), lost, failure }, receiver)
    }

    /// Watches exactly these directories; whether one of them was not watched before, so that what
    /// changed in it until now went unseen.
    pub fn follow(&mut self, root: &Path, directories: &BTreeMap<PathBuf, Stamp>) -> bool {
        let Some(watcher) = &mut self.watcher else { return false };
        let mut wanted: HashMap<PathBuf, (u64, u64)> =
            directories.iter().map(|(p, s)| (p.clone(), (s.device, s.inode))).collect();
        // Where the root itself may be replaced. Its own identity is of no interest.
        if let Some(parent) = root.parent() {
            wanted.entry(parent.into()).or_insert((0, 0));
        }
        // With a directory that was moved, the watches on those below it were lost too.
        let lost: HashSet<PathBuf> =
            std::mem::take(&mut *self.lost.lock().unwrap_or_else(PoisonError::into_inner));
        self.watched.retain(|path, id| {
            let keep =
                wanted.get(path) == Some(id) && !path.ancestors().any(|above| lost.contains(above));
            if !keep {
                // It may be gone, and the watch with it.
                let _ = watcher.unwatch(path);
            }
            keep
        });
        let mut added = false;
        let mut failure = None;
        for (path, id) in wanted {
            if self.watched.contains_key(&path) {
                continue;
            }
            match watcher.watch(&path, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    added = true;
                    self.watched.insert(path, id);
                }
                Err(_) if root.parent() == Some(&path) => {}
                Err(error) => failure = Some(error.to_string()),
            }
        }
        if let Some(why) = &failure
            && self.failure.is_none()
        {
            tracing::warn!(%why, "changes of the manifests are not announced; looking twice a second");
        }
        self.failure = failure;
        added
    }

    /// Whether changes are announced at all.
    pub fn works(&self) -> bool {
        self.watcher.is_some() && self.failure.is_none()
    }
}

struct Filter {
    root: PathBuf,
    lost: Arc<Mutex<HashSet<PathBuf>>>,
}

impl Filter {
    fn matters(&self, event: notify::Result<notify::Event>) -> bool {
        // An error or an overflow: anything may have changed.
        let Ok(event) = event else { return true };
        if event.need_rescan() {
            return true;
        }
        let mut moved = false;
        match event.kind {
            // Our own reading is announced too.
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => {}
            EventKind::Access(_) => return false,
            EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)) => {
                moved = true;
                let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
                // Beyond that many, the next regular look has to do.
                if lost.len() < 100_000 {
                    lost.extend(event.paths.iter().cloned());
                }
            }
            _ => {}
        }
        event.paths.is_empty() || event.paths.iter().any(|path| self.concerns(path, moved))
    }

    /// Whether a change at `path` may change the manifests: not an editor's scratch file, not a
    /// neighbour of the root.
    fn concerns(&self, path: &Path, moved: bool) -> bool {
        if path == self.root {
            return true;
        }
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        if is_manifest(name) {
            return true;
        }
        let beside = path.parent() == self.root.parent();
        // `..data` of a mounted ConfigMap is swapped. What was moved may have been a directory.
        let hidden = name.starts_with('.') && !name.starts_with("..");
        !beside && !hidden && (moved || !name.contains('.') || path.is_dir())
    }
}
