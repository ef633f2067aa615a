//! Where files are kept: the cache of Python's `huggingface_hub`.
//!
//! ```text
//! models--owner--name/blobs/<hash>                      the content
//! models--owner--name/blobs/<hash>.incomplete           what has arrived so far
//! models--owner--name/snapshots/<revision>/<file>       a link to the blob, or a copy of it
//! .locks/models--owner--name/<hash>.lock                held while downloading
//! ```
//!
//! Data sets are in `datasets--owner--name`. The hash is the SHA-256 of files that Git LFS keeps, and Git's of others.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::link::{LINKS, copy_to_temporary, link_or_copy};
use super::{ContentHash, Event, HubFile, temporary};
use crate::bounded::open_to_write;
use crate::error::{Error, Result};
use crate::kept::remembered_hash::RememberedHash;

/// What `HF_HOME` names, or where it is unless set.
pub fn home_dir() -> PathBuf {
    let below_home = |name: &str| dirs::home_dir().unwrap_or_else(std::env::temp_dir).join(name);
    path_variable("HF_HOME")
        .unwrap_or_else(|| path_variable("XDG_CACHE_HOME").unwrap_or_else(|| below_home(".cache")).join("huggingface"))
}

/// What `HF_HUB_CACHE` names, or where it is unless set.
pub fn cache_dir() -> PathBuf {
    path_variable("HF_HUB_CACHE")
        .or_else(|| path_variable("HUGGINGFACE_HUB_CACHE"))
        .unwrap_or_else(|| home_dir().join("hub"))
}

/// A path that the environment names; as in Python, `~` is the home directory.
pub fn path_variable(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(std::env::var_os(name).filter(|value| !value.is_empty())?);
    match (path.strip_prefix("~"), dirs::home_dir()) {
        (Ok(rest), Some(home)) => Some(home.join(rest)),
        _ => Some(path),
    }
}

/// The paths of one file in the cache.
pub struct CachePaths {
    /// The content.
    pub blob: PathBuf,
    /// What has arrived so far.
    pub incomplete: PathBuf,
    /// The path under the file's own name, which is a link to the blob or a copy of it.
    pub pointer: PathBuf,
    /// The folder of the blob.
    blobs: PathBuf,
    lock: PathBuf,
    /// The digits of the content's hash.
    hash: String,
}

impl CachePaths {
    /// The paths of a file in the cache in `dir`.
    pub fn new(dir: &Path, file: &HubFile) -> Self {
        let folder = file.repository.folder();
        let (blobs, hash) = (dir.join(&folder).join("blobs"), file.hash.digits());
        Self {
            blob: blobs.join(hash),
            incomplete: blobs.join(format!("{hash}.incomplete")),
            pointer: dir.join(&folder).join("snapshots").join(file.revision).join(file.file),
            lock: dir.join(".locks").join(folder).join(format!("{hash}.lock")),
            blobs,
            hash: hash.into(),
        }
    }

    /// Whether there is something of the file's size under its own name.
    pub fn has_pointer(&self, file: &HubFile) -> bool {
        length(&self.pointer) == Some(file.size)
    }

    /// How many bytes of the file are here, as far as sizes tell.
    pub fn here(&self, file: &HubFile) -> u64 {
        if self.has_pointer(file) || length(&self.blob) == Some(file.size) {
            return file.size;
        }
        // Longer than the file is not of the file.
        length(&self.incomplete).filter(|length| *length <= file.size).unwrap_or_default()
    }

    /// Makes the folder of the blob, and waits until no other process downloads the same file. The lock is
    /// held until the file that is returned is closed. Returns nothing where the file system has no locks:
    /// two downloads at once would spoil each other there, which the check of the content finds.
    pub fn lock(&self, report: &mut dyn FnMut(Event)) -> Result<Option<File>> {
        fs::create_dir_all(&self.blobs).map_err(Error::io("write", &self.blobs))?;
        if let Some(parent) = self.lock.parent() {
            fs::create_dir_all(parent).map_err(Error::io("lock", &self.lock))?;
        }
        let file = open_to_write(&self.lock).map_err(Error::io("lock", &self.lock))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => {
                report(Event::Notice("another process is downloading the same file; waiting for it"));
                file.lock().map_err(Error::io("lock", &self.lock))?;
                Ok(Some(file))
            }
            Err(TryLockError::Error(_)) => Ok(None),
        }
    }

    /// Removes the temporary files of runs that were killed. To be called under the lock.
    pub fn remove_abandoned(&self) {
        for dir in [Some(&*self.blobs), self.pointer.parent()].into_iter().flatten() {
            temporary::remove_abandoned(dir, &self.hash);
        }
    }

    /// Takes over what a Python process that was killed has left, if there is nothing of ours. In
    /// huggingface_hub 2.4 each has a file of its own, `<hash>.<8 digits>.incomplete`. It is copied: on
    /// file systems whose locks do not work, the process may be alive. Without it the download begins
    /// at 0, so an error is ignored.
    pub fn adopt(&self) {
        let prefix = format!("{}.", self.blob.file_name().unwrap_or_default().to_string_lossy());
        let is_one = |name: &str| {
            let digits = name.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(".incomplete"));
            digits.is_some_and(|digits| digits.len() == 8)
        };
        let (false, Ok(entries)) = (self.incomplete.exists(), fs::read_dir(&self.blobs)) else { return };
        let others = entries.flatten().filter(|entry| is_one(&entry.file_name().to_string_lossy()));
        let files = others.filter(|entry| entry.metadata().is_ok_and(|metadata| metadata.is_file()));
        let largest = files.max_by_key(|entry| entry.metadata().map_or(0, |metadata| metadata.len()));
        let copy = largest.and_then(|largest| copy_to_temporary(&largest.path(), &self.blobs, &self.hash).ok());
        if let Some(copy) = copy {
            let _ = copy.persist(&self.incomplete);
        }
    }

    /// Makes the pointer, once the blob is complete.
    pub fn link(&self, file: &HubFile) -> Result<()> {
        link_or_copy(LINKS, &self.blob, &self.pointer, file)
    }

    /// Removes a damaged copy: the pointer, and the blob that it leads to.
    pub fn discard(&self) -> Result<()> {
        let [blob, blobs] = [&self.pointer, &self.blobs].map(|path| path.canonicalize().ok());
        if let (Some(blob), Some(blobs)) = (blob, blobs)
            && blob.starts_with(blobs)
        {
            fs::remove_file(&blob).map_err(Error::io("remove", &blob))?;
        }
        if self.pointer.symlink_metadata().is_ok() {
            fs::remove_file(&self.pointer).map_err(Error::io("remove", &self.pointer))?;
        }
        Ok(())
    }
}

/// The size of a file, if there is one.
fn length(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|metadata| metadata.len())
}

/// Whether the hash of a file as it is is remembered in the directory, and the one that it has to have.
pub fn is_remembered(path: &Path, file: &HubFile, hashes: Option<&Path>) -> bool {
    let remembered = || RememberedHash::new(hashes?, path, &fs::metadata(path).ok()?)?.read();
    remembered().as_deref() == Some(file.hash.digits())
}

/// How a file differs from what its pin says, in words, if it does. A SHA-256 that is remembered in the directory
/// `hashes` for the file as it is is believed.
///
/// # Errors
/// If it cannot be read.
pub fn mismatch(path: &Path, file: &HubFile, hashes: Option<&Path>) -> Result<Option<String>> {
    let now = SystemTime::now();
    // Before it is opened: a pipe, which has no bytes, would be waited for.
    let size = fs::metadata(path).map_err(Error::io("read", path))?.len();
    if size != file.size {
        return Ok(Some(format!("{} has {size} bytes, expected {}", file.file, file.size)));
    }
    let opened = File::open(path).and_then(|opened| Ok((opened.metadata()?, opened)));
    let (metadata, mut opened) = opened.map_err(Error::io("read", path))?;
    let remembered = match (hashes, file.hash) {
        (Some(dir), ContentHash::Sha256(_)) => RememberedHash::new(dir, path, &metadata),
        _ => None,
    };
    let expected = file.hash.digits();
    if remembered.as_ref().and_then(RememberedHash::read).as_deref() == Some(expected) {
        return Ok(None);
    }
    let found = file.hash.of(&mut opened, size).map_err(Error::io("read", path))?;
    if let Some(remembered) = remembered {
        remembered.write(&found, now);
    }
    Ok((found != expected).then(|| format!("{} has {} {found}, expected {expected}", file.file, file.hash.kind())))
}
