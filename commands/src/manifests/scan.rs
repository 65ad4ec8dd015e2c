//! Lists the manifests below a directory: names and stamps, no contents. Touches the disk, blocks,
//! and reads no clock.
//!
//! Symbolic links to files and directories are followed, so that a mounted ConfigMap works (its
//! visible names are links into `..data`); a link to a directory that holds it is passed over, and
//! what can be reached twice is listed once, under the first of its names.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};

/// The most files that a directory of manifests may hold, hidden and foreign ones not counted.
pub const MAX_FILES: usize = 50_000;
/// The most directory entries that one listing looks at.
pub const MAX_ENTRIES: usize = 500_000;
/// The largest manifest.
pub const MAX_FILE_BYTES: u64 = 16 << 20;
/// The deepest nesting of directories.
pub const MAX_DEPTH: usize = 32;

/// What tells one version of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub device: u64,
    pub inode: u64,
    pub size: u64,
    /// Seconds and nanoseconds.
    pub modified: (i64, i64),
    pub changed: (i64, i64),
}

impl Stamp {
    fn of(data: &Metadata) -> Self {
        Self {
            device: data.dev(),
            inode: data.ino(),
            size: data.size(),
            modified: (data.mtime(), data.mtime_nsec()),
            changed: (data.ctime(), data.ctime_nsec()),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub path: PathBuf,
    pub stamp: Stamp,
}

/// Something below the directory that could not be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Relative name of a file, or of a directory with a trailing `/`.
    pub name: Arc<str>,
    /// What is wrong: the rest of a sentence that begins with the name.
    pub why: String,
}

impl Trouble {
    /// Whether `file` is the thing in trouble or lies below it.
    pub fn covers(&self, file: &str) -> bool {
        if self.name.ends_with('/') { file.starts_with(&*self.name) } else { file == &*self.name }
    }
}

/// One look at a directory.
#[derive(Clone, Debug)]
pub struct Listing {
    /// By name relative to the root, with `/` between its parts.
    pub files: BTreeMap<Arc<str>, Entry>,
    /// Every directory that was entered, and those that linked files lie in: what to watch.
    pub directories: BTreeMap<PathBuf, Stamp>,
    /// What could not be looked at; a listing with one of these is not complete.
    pub troubles: Vec<Trouble>,
    /// What is passed over and should be known: neither good nor bad.
    pub ignored: Vec<Trouble>,
    pub root: Stamp,
}

/// Why a directory could not be listed at all.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    #[error("cannot read the manifests in {}: {error}", path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("{} is not a directory; give the directory that holds the manifests", .0.display())]
    NotADirectory(PathBuf),
    #[error("{} holds more than {MAX_FILES} manifests or {MAX_ENTRIES} entries; split it into meshes", .0.display())]
    TooMany(PathBuf),
}

/// Whether a file of this name is a manifest, by its name alone.
pub fn is_manifest(name: &str) -> bool {
    let known = [".yaml", ".yml", ".json"].iter().any(|ending| name.ends_with(ending));
    known && !name.starts_with('.')
}

/// Lists every manifest below `root`.
pub fn list(root: &Path) -> Result<Listing, ListError> {
    let unreadable = |error| ListError::Unreadable { path: root.into(), error };
    let data = fs::metadata(root).map_err(unreadable)?;
    if !data.is_dir() {
        return Err(ListError::NotADirectory(root.into()));
    }
    let mut walk = Walk {
        listing: Listing {
            files: BTreeMap::new(),
            directories: BTreeMap::new(),
            troubles: Vec::new(),
            ignored: Vec::new(),
            root: Stamp::of(&data),
        },
        seen: HashSet::new(),
        entries: 0,
    };
    walk.seen.insert((data.dev(), data.ino()));
    match walk.directory(root, "", &data, 0) {
        Ok(()) => Ok(walk.listing),
        Err(Stop::Failed(error)) => Err(unreadable(error)),
        Err(Stop::TooMany) => Err(ListError::TooMany(root.into())),
    }
}

struct Walk {
    listing: Listing,
    /// Device and inode of every file and directory taken so far.
    seen: HashSet<(u64, u64)>,
    entries: usize,
}

enum Stop {
    Failed(io::Error),
    TooMany,
}

impl Walk {
    /// Lists one directory and what lies below; an error in a directory below is its trouble alone.
    fn directory(
        &mut self,
        path: &Path,
        prefix: &str,
        data: &Metadata,
        depth: usize,
    ) -> Result<(), Stop> {
        self.listing.directories.insert(path.into(), Stamp::of(data));
        let mut names = Vec::new();
        for entry in fs::read_dir(path).map_err(Stop::Failed)? {
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                return Err(Stop::TooMany);
            }
            names.push(entry.map_err(Stop::Failed)?.file_name());
        }
        names.sort();
        for name in names {
            let Some(text) = name.to_str() else {
                if name.as_encoded_bytes().first() != Some(&b'.') {
                    let shown = name.to_string_lossy();
                    self.ignore(prefix, &shown, "has a name that is not UTF-8 and is not read");
                }
                continue;
            };
            if text.starts_with('.') {
                continue;
            }
            if text.chars().any(char::is_control) {
                let shown = text.escape_debug().to_string();
                self.ignore(prefix, &shown, "has control characters in its name and is not read");
                continue;
            }
            self.entry(&path.join(&name), prefix, text, depth)?;
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, prefix: &str, name: &str, depth: usize) -> Result<(), Stop> {
        let data = match fs::metadata(path) {
            Ok(data) => data,
            // Gone since the directory was read; or a link to nothing, which is the same.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => {
                if is_manifest(name) || error.kind() == io::ErrorKind::PermissionDenied {
                    self.trouble(format!("{prefix}{name}"), format!("cannot be read: {error}"));
                }
                return Ok(());
            }
        };
        let id = (data.dev(), data.ino());
        if data.is_dir() {
            let below = format!("{prefix}{name}/");
            if depth >= MAX_DEPTH {
                let why = format!("is not read: it lies more than {MAX_DEPTH} directories deep");
                self.trouble(below, why);
            } else if self.seen.insert(id) {
                match self.directory(path, &below, &data, depth + 1) {
                    Err(Stop::Failed(error)) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(Stop::Failed(error)) => {
                        self.trouble(below, format!("cannot be read: {error}"));
                    }
                    other => return other,
                }
            }
        } else if is_manifest(name) {
            if !data.is_file() {
                // Opening a pipe would wait for its writer.
                self.ignore(prefix, name, "is no regular file and is not read");
            } else if self.seen.insert(id) {
                if self.listing.files.len() >= MAX_FILES {
                    return Err(Stop::TooMany);
                }
                self.watch_target(path);
                let entry = Entry { path: path.into(), stamp: Stamp::of(&data) };
                self.listing.files.insert(format!("{prefix}{name}").into(), entry);
            }
        }
        Ok(())
    }

    /// A linked file changes where it lies, not where its link does.
    fn watch_target(&mut self, path: &Path) {
        let linked = fs::symlink_metadata(path).is_ok_and(|data| data.is_symlink());
        let parent = || fs::canonicalize(path).ok()?.parent().map(Path::to_path_buf);
        if linked
            && let Some(parent) = parent()
            && let Ok(data) = fs::metadata(&parent)
        {
            self.listing.directories.insert(parent, Stamp::of(&data));
        }
    }

    fn trouble(&mut self, name: String, why: String) {
        self.listing.troubles.push(Trouble { name: name.into(), why });
    }

    fn ignore(&mut self, prefix: &str, name: &str, why: &str) {
        let name = format!("{prefix}{name}");
        self.listing.ignored.push(Trouble { name: name.into(), why: why.into() });
    }
}

/// The bytes of one manifest; the error is the rest of a sentence that begins with its name.
pub fn read(path: &Path) -> Result<Vec<u8>, ReadError> {
    // NONBLOCK: it may have become a pipe since it was listed.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::open(path, flags, Mode::empty())
        .map_err(|error| ReadError::of(&error.into()))?;
    let file = fs::File::from(file);
    let data = file.metadata().map_err(|error| ReadError::of(&error))?;
    if !data.is_file() {
        return Err(ReadError::Bad("is no regular file".into()));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|error| ReadError::of(&error))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(ReadError::Bad(format!("is larger than {} MiB", MAX_FILE_BYTES >> 20)));
    }
    Ok(bytes)
}

/// Why a listed file gave no bytes.
#[derive(Debug)]
pub enum ReadError {
    /// It is not there any more.
    Gone,
    Bad(String),
}

impl ReadError {
    fn of(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::NotFound {
            Self::Gone
        } else {
            Self::Bad(format!("cannot be read: {error}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn names(root: &Path) -> Vec<String> {
        list(root).unwrap().files.keys().map(ToString::to_string).collect()
    }

    #[test]
    fn manifests_are_told_by_their_names_and_dot_names_are_passed_over() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("a/b")).unwrap();
        fs::create_dir_all(root.path().join(".git")).unwrap();
        for name in
            ["x.yaml", "a/y.yml", "a/b/z.json", ".git/c.yaml", ".s.yaml", "n.txt", "o.yaml~"]
        {
            fs::write(root.path().join(name), "").unwrap();
        }
        assert_eq!(names(root.path()), ["a/b/z.json", "a/y.yml", "x.yaml"]);
    }

    #[test]
    fn a_mounted_config_map_is_read_through_its_links() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        fs::create_dir(root.join("..2026_11_23")).unwrap();
        fs::write(root.join("..2026_11_23/w.yaml"), "w").unwrap();
        symlink("..2026_11_23", root.join("..data")).unwrap();
        symlink("..data/w.yaml", root.join("w.yaml")).unwrap();
        let listing = list(root).unwrap();
        assert_eq!(listing.files.keys().map(|n| &**n).collect::<Vec<_>>(), ["w.yaml"]);
        let target = fs::canonicalize(root.join("..2026_11_23")).unwrap();
        assert!(
            listing.directories.contains_key(&target),
            "the linked file's directory is watched"
        );
    }

    #[test]
    fn links_in_a_circle_end_and_what_is_reached_twice_is_listed_once() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        fs::create_dir(root.join("a")).unwrap();
        fs::write(root.join("a/w.yaml"), "w").unwrap();
        symlink("..", root.join("a/up")).unwrap();
        symlink(".", root.join("self")).unwrap();
        symlink("a", root.join("b")).unwrap();
        symlink("a/w.yaml", root.join("w2.yaml")).unwrap();
        symlink("nowhere.yaml", root.join("dangling.yaml")).unwrap();
        assert_eq!(names(root), ["a/w.yaml"]);
    }

    #[test]
    fn a_pipe_is_never_opened() {
        let root = tempfile::tempdir().unwrap();
        let pipe = root.path().join("p.yaml");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            Mode::RUSR | Mode::WUSR,
            0,
        )
        .unwrap();
        let listing = list(root.path()).unwrap();
        assert!(listing.files.is_empty());
        assert_eq!(&*listing.ignored[0].name, "p.yaml");
        assert!(matches!(read(&pipe), Err(ReadError::Bad(_))));
    }

    #[test]
    fn a_missing_root_is_an_error_and_so_is_a_file() {
        let root = tempfile::tempdir().unwrap();
        let missing = root.path().join("missing");
        assert!(matches!(list(&missing), Err(ListError::Unreadable { .. })));
        fs::write(&missing, "").unwrap();
        assert!(matches!(list(&missing), Err(ListError::NotADirectory(_))));
    }
}
