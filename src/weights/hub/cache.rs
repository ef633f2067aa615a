//! Where files are kept: the cache of Python's `huggingface_hub`, whose layout hf-hub knows.
//!
//! ```text
//! models--owner--name/blobs/<sha256>                    the content
//! models--owner--name/blobs/<sha256>.incomplete         what has arrived so far
//! models--owner--name/snapshots/<revision>/<file>       a link to the blob
//! .locks/models--owner--name/<sha256>.lock              held while downloading
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use hf_hub::{Cache, Repo, RepoType};

use super::Event;
use crate::weights::digest::sha256;
use crate::weights::registry::HubFile;

/// `$HF_HOME`, or where it is unless set.
pub fn home() -> PathBuf {
    let below_home = |name: &str| dirs::home_dir().unwrap_or_else(std::env::temp_dir).join(name);
    variable("HF_HOME")
        .unwrap_or_else(|| variable("XDG_CACHE_HOME").unwrap_or_else(|| below_home(".cache")).join("huggingface"))
}

/// `$HF_HUB_CACHE`, or where it is unless set.
pub fn dir() -> PathBuf {
    variable("HF_HUB_CACHE").or_else(|| variable("HUGGINGFACE_HUB_CACHE")).unwrap_or_else(|| home().join("hub"))
}

/// A folder that the environment names; as in Python, `~` is the home directory.
pub fn variable(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(std::env::var_os(name).filter(|value| !value.is_empty())?);
    match (path.strip_prefix("~"), dirs::home_dir()) {
        (Ok(rest), Some(home)) => Some(home.join(rest)),
        _ => Some(path),
    }
}

/// How hf-hub calls the repository of a file.
pub fn repo(file: &HubFile) -> Repo {
    Repo::with_revision(file.repository.into(), RepoType::Model, file.revision.into())
}

/// Where a file belongs in the cache.
pub struct Place {
    pub blob: PathBuf,
    pub incomplete: PathBuf,
    pub pointer: PathBuf,
    blobs: PathBuf,
    lock: PathBuf,
}

impl Place {
    pub fn new(dir: &Path, file: &HubFile) -> Self {
        let repo = repo(file);
        let lock = dir.join(".locks").join(repo.folder_name()).join(format!("{}.lock", file.sha256));
        let cache = Cache::new(dir.into()).repo(repo);
        let blob = cache.blob_path(file.sha256);
        Self {
            incomplete: blob.with_file_name(format!("{}.incomplete", file.sha256)),
            pointer: cache.pointer_path(file.revision).join(file.file),
            blobs: blob.parent().unwrap_or(dir).into(),
            blob,
            lock,
        }
    }

    /// Makes the folder for the content, and waits until no other process downloads the same file.
    pub fn lock(&self, report: &mut dyn FnMut(Event)) -> Result<File> {
        fs::create_dir_all(&self.blobs).with_context(|| format!("cannot write {}", self.blobs.display()))?;
        let failed = || format!("cannot lock {}", self.lock.display());
        if let Some(parent) = self.lock.parent() {
            fs::create_dir_all(parent).with_context(failed)?;
        }
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&self.lock).with_context(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                report(Event::Notice("another process is downloading the same file; waiting for it"));
                file.lock().with_context(failed)?;
            }
            // A file system without locks. Two downloads at once would spoil each other, which the
            // check of the content finds.
            Err(TryLockError::Error(_)) => {}
        }
        Ok(file)
    }

    /// Takes over what a Python process that was killed has left, if there is nothing of ours. In
    /// huggingface_hub 2.4 each has a file of its own, `<sha256>.<8 digits>.incomplete`. It is copied: on
    /// file systems whose locks do not work, the process may be alive. Without it the download begins
    /// at 0, so errors are of no interest.
    pub fn adopt(&self) {
        let prefix = format!("{}.", self.blob.file_name().unwrap_or_default().to_string_lossy());
        let is_one = |name: &str| {
            let digits = name.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(".incomplete"));
            digits.is_some_and(|digits| digits.len() == 8)
        };
        let (false, Ok(entries)) = (self.incomplete.exists(), fs::read_dir(&self.blobs)) else { return };
        let others = entries.flatten().filter(|entry| is_one(&entry.file_name().to_string_lossy()));
        let largest = others.max_by_key(|entry| entry.metadata().map_or(0, |metadata| metadata.len()));
        if let Some(largest) = largest {
            let copy = self.incomplete.with_extension("copy");
            if fs::copy(largest.path(), &copy).and_then(|_| fs::rename(&copy, &self.incomplete)).is_err() {
                let _ = fs::remove_file(&copy);
            }
        }
    }

    /// Points the snapshot at the blob. Where links need privileges or do not exist, it gets a copy.
    pub fn link(&self) -> Result<()> {
        let failed = || format!("cannot write {}", self.pointer.display());
        let parent = self.pointer.parent().unwrap_or(&self.blobs);
        fs::create_dir_all(parent).with_context(failed)?;
        let made = parent.join(format!(".{}.new", std::process::id()));
        // A process of that number may have been killed here.
        let _ = fs::remove_file(&made);
        // From snapshots/<revision>/<file>, as huggingface_hub links.
        #[cfg(unix)]
        let linked =
            std::os::unix::fs::symlink(Path::new("../../blobs").join(self.blob.file_name().unwrap_or_default()), &made);
        #[cfg(not(unix))]
        let linked = fs::hard_link(&self.blob, &made);
        if linked.is_err() {
            fs::copy(&self.blob, &made).with_context(failed)?;
        }
        fs::rename(&made, &self.pointer).with_context(failed)
    }

    /// Removes a damaged copy: the blob that the snapshot points at, and the pointer.
    pub fn discard(&self) -> Result<()> {
        let [blob, blobs] = [&self.pointer, &self.blobs].map(|path| path.canonicalize().ok());
        if let (Some(blob), Some(blobs)) = (blob, blobs)
            && blob.starts_with(blobs)
        {
            fs::remove_file(&blob).with_context(|| format!("cannot remove {}", blob.display()))?;
        }
        if self.pointer.symlink_metadata().is_ok() {
            fs::remove_file(&self.pointer).with_context(|| format!("cannot remove {}", self.pointer.display()))?;
        }
        Ok(())
    }
}

/// How a file differs from what its pin says, if it does.
///
/// # Errors
/// If it cannot be read.
pub fn fault_of(path: &Path, file: &HubFile) -> Result<Option<String>> {
    let size = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.len();
    if size != file.size {
        return Ok(Some(format!("{} has {size} bytes, expected {}", file.file, file.size)));
    }
    let found = sha256(path)?;
    Ok((found != file.sha256).then(|| format!("{} has SHA-256 {found}, expected {}", file.file, file.sha256)))
}
