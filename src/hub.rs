//! Fetches pinned files from the Hugging Face hub into the cache that Python's `huggingface_hub`
//! uses too.
//!
//! The requests are hf-hub's (endpoint, token, proxy, redirects, retries of 429 and 5xx). What it
//! does not do is done here: bytes already fetched are kept when a connection is cut or falls
//! silent and asked for no second time, and the content is checked against size and SHA-256 before
//! anything can use it.
//!
//! The layout of the cache, below `$HF_HUB_CACHE`, `$HF_HOME/hub` or `~/.cache/huggingface/hub`:
//!
//! ```text
//! models--owner--name/blobs/<sha256>                    the content
//! models--owner--name/blobs/<sha256>.incomplete         what has arrived so far
//! models--owner--name/snapshots/<revision>/<file>       a link to the blob
//! .locks/models--owner--name/<sha256>.lock              held while downloading
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use futures::StreamExt;
use hf_hub::{HFClient, HFError};
use tokio::time::timeout;

use crate::digest::sha256;
use crate::registry::HubFile;

/// Where the hub is, where its cache is, and how patient a download is.
#[derive(Clone, Debug)]
pub struct Hub {
    /// `https://huggingface.co` unless `HF_ENDPOINT` or this says otherwise.
    pub endpoint: Option<String>,
    pub cache: PathBuf,
    /// Only look into the cache.
    pub offline: bool,
    /// A connection that delivers nothing for so long is given up.
    pub silence: Duration,
    /// Attempts in a row that bring nothing new before the download fails.
    pub attempts: u32,
    /// Pause before the second attempt; it doubles with each further one.
    pub pause: Duration,
}

/// What a caller may want to show of a download.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// So many bytes are here; the size of the file is known beforehand.
    Progress(u64),
    /// Something went wrong that is being dealt with.
    Notice(&'a str),
}

impl Hub {
    /// As the environment says: `HF_HUB_CACHE`, `HF_HOME`, `HF_HUB_OFFLINE`, and
    /// `HF_HUB_DOWNLOAD_TIMEOUT` (seconds of silence, 30 unless set). hf-hub itself reads
    /// `HF_ENDPOINT` and `HF_TOKEN`.
    pub fn from_env() -> Self {
        let variable = |name: &str| std::env::var(name).unwrap_or_default();
        Self {
            endpoint: None,
            cache: cache_dir(),
            offline: ["1", "ON", "YES", "TRUE"].contains(&variable("HF_HUB_OFFLINE").to_uppercase().as_str()),
            silence: Duration::from_secs(variable("HF_HUB_DOWNLOAD_TIMEOUT").parse().unwrap_or(30)),
            attempts: 4,
            pause: Duration::from_secs(1),
        }
    }

    /// The path of a pinned file in the cache. Downloads it unless it is there; if it is, nothing
    /// touches the network. Its content is checked either way, and removed if it is wrong.
    ///
    /// # Errors
    /// If the file has to be downloaded and the hub cannot be reached, refuses, keeps breaking off,
    /// or delivers something else.
    pub fn fetch(&self, file: &HubFile, report: &mut dyn FnMut(Event)) -> Result<PathBuf> {
        let place = Place::new(&self.cache, file);
        if place.pointer.exists() && fault_of(&place.pointer, file)?.is_none() {
            return Ok(place.pointer);
        }
        ensure!(
            !self.offline,
            "{} is not in the cache ({}), or damaged, and HF_HUB_OFFLINE is set",
            file.file,
            self.cache.display()
        );
        fs::create_dir_all(&place.blobs).with_context(|| format!("cannot write {}", place.blobs.display()))?;
        let _lock = place.lock(report)?;
        // Looked at again under the lock: another process may have finished in between.
        if place.pointer.exists() {
            match fault_of(&place.pointer, file)? {
                None => return Ok(place.pointer),
                Some(fault) => {
                    report(Event::Notice(&format!("the cached copy is damaged and is removed: {fault}")));
                    place.discard()?;
                }
            }
        }
        // A snapshot may have lost its link.
        if !place.blob.exists() || fault_of(&place.blob, file)?.is_some() {
            self.download(file, &place, report)?;
        }
        place.link()?;
        Ok(place.pointer)
    }

    /// Fills the blob, from what an earlier attempt left if there is any.
    fn download(&self, file: &HubFile, place: &Place, report: &mut dyn FnMut(Event)) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut builder = HFClient::builder();
        if let Some(endpoint) = &self.endpoint {
            builder = builder.endpoint(endpoint);
        }
        let client = builder.build().map_err(|error| anyhow!("cannot set up the hub client: {error}"))?;
        let failed = || format!("cannot write {}", place.incomplete.display());
        let mut resume = true;
        loop {
            let pieced = runtime.block_on(self.fill(&client, file, place, resume, report))?;
            let Some(fault) = fault_of(&place.incomplete, file)? else {
                return fs::rename(&place.incomplete, &place.blob).with_context(failed);
            };
            fs::remove_file(&place.incomplete).with_context(failed)?;
            // What an earlier run left may have been wrong, or the server may not do ranges.
            let endpoint = client.endpoint();
            ensure!(pieced, "{endpoint} delivered something other than the pinned file, and it was removed: {fault}");
            report(Event::Notice(&format!(
                "what was put together from several attempts is wrong, starting anew: {fault}"
            )));
            resume = false;
        }
    }

    /// Appends to the incomplete file until it has the full size; without `resume`, every request is
    /// for the whole file. Tells whether it was pieced together from several requests.
    async fn fill(
        &self,
        client: &HFClient,
        file: &HubFile,
        place: &Place,
        resume: bool,
        report: &mut dyn FnMut(Event<'_>),
    ) -> Result<bool> {
        let failed = || format!("cannot write {}", place.incomplete.display());
        let mut out = OpenOptions::new().create(true).append(true).open(&place.incomplete).with_context(failed)?;
        let length = |out: &File| anyhow::Ok(out.metadata().with_context(failed)?.len());
        let at_first = length(&out)?;
        let mut pieced = at_first > 0;
        let mut attempt = 1;
        loop {
            let before = length(&out)?;
            if before >= file.size {
                out.sync_all().with_context(failed)?;
                return Ok(pieced);
            }
            pieced = resume && before > 0;
            if !resume {
                out.set_len(0).with_context(failed)?;
            }
            let start = if resume { before } else { 0 };
            let problem = match self.transfer(client, file, &mut out, start, report).await {
                Ok(()) => continue,
                Err(Fault::Final(error)) => return Err(error),
                Err(Fault::Unreachable(problem)) if length(&out)? == at_first => {
                    bail!(
                        "cannot reach the Hugging Face hub at {} ({problem}) for {} of {}, revision {:.8}",
                        client.endpoint(),
                        file.file,
                        file.repository,
                        file.revision
                    )
                }
                Err(Fault::Unreachable(problem) | Fault::Passing(problem)) => problem,
            };
            attempt = if length(&out)? > before { 1 } else { attempt + 1 };
            ensure!(
                attempt <= self.attempts,
                "cannot fetch {} of {}, revision {:.8}, from {}: {problem}, {} times in a row; the {} bytes that \
                 came are kept for the next try",
                file.file,
                file.repository,
                file.revision,
                client.endpoint(),
                self.attempts,
                length(&out)?
            );
            report(Event::Notice(&format!("{problem}; trying again")));
            tokio::time::sleep(self.pause * 2u32.saturating_pow(attempt.saturating_sub(2))).await;
        }
    }

    /// One request for the bytes from `start` on, written as they come.
    async fn transfer(
        &self,
        client: &HFClient,
        file: &HubFile,
        out: &mut File,
        start: u64,
        report: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Fault> {
        let silent = |_| Fault::Passing(format!("no answer for {} s", self.silence.as_secs_f64()));
        let cannot_write = |error: std::io::Error| Fault::Final(anyhow!("cannot write the download: {error}"));
        let (owner, name) = hf_hub::split_id(file.repository);
        let repository = client.model(owner, name);
        let request = repository
            .download_file_stream()
            .filename(file.file)
            .revision(file.revision)
            .maybe_range((start > 0).then_some(start..file.size))
            .send();
        let (length, mut stream) = timeout(self.silence, request).await.map_err(silent)?.map_err(fault)?;
        // hf-hub tells the length of the file or that of the range, as the server has it. Anything
        // else is something else: a page that asks for a login, for example.
        if let Some(length) = length.filter(|length| *length != file.size && *length != file.size - start) {
            let (from, size) = (client.endpoint(), file.size);
            return Err(Fault::Final(anyhow!("{from} answers with {length} bytes, where {} has {size}", file.file)));
        }
        let mut here = start;
        report(Event::Progress(here));
        while let Some(chunk) = timeout(self.silence, stream.next()).await.map_err(silent)? {
            let chunk = chunk.map_err(fault)?;
            here += chunk.len() as u64;
            out.write_all(&chunk).map_err(cannot_write)?;
            report(Event::Progress(here.min(file.size)));
            if here > file.size && start == 0 {
                let (from, size) = (client.endpoint(), file.size);
                return Err(Fault::Final(anyhow!("{from} sends more than the {size} bytes of {}", file.file)));
            } else if here > file.size {
                // The server does not do ranges and has begun from the beginning.
                return Ok(());
            }
        }
        if here < file.size {
            return Err(Fault::Passing(format!("the connection was cut after {here} of {} bytes", file.size)));
        }
        Ok(())
    }
}

/// Why a transfer ended early.
enum Fault {
    /// Worth another attempt.
    Passing(String),
    /// No connection. hf-hub has tried several times already.
    Unreachable(String),
    Final(anyhow::Error),
}

fn fault(error: HFError) -> Fault {
    match &error {
        HFError::AuthRequired { .. }
        | HFError::Forbidden { .. }
        | HFError::RepoNotFound { .. }
        | HFError::RevisionNotFound { .. }
        | HFError::EntryNotFound { .. } => Fault::Final(anyhow!("the hub refuses: {error}")),
        HFError::Request { source, .. } if source.is_connect() => Fault::Unreachable(innermost(&error)),
        HFError::Request { .. } => Fault::Passing(format!("the connection broke ({})", innermost(&error))),
        _ => Fault::Passing(error.to_string()),
    }
}

/// The last cause in an error's chain, which says what happened: `Connection refused`.
fn innermost(error: &HFError) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// Where a file belongs in the cache.
struct Place {
    /// The repository's folder.
    repository: PathBuf,
    blobs: PathBuf,
    blob: PathBuf,
    incomplete: PathBuf,
    pointer: PathBuf,
    lock: PathBuf,
}

impl Place {
    fn new(cache: &Path, file: &HubFile) -> Self {
        let folder = format!("models--{}", file.repository.replace('/', "--"));
        let repository = cache.join(&folder);
        let blobs = repository.join("blobs");
        Self {
            blob: blobs.join(file.sha256),
            incomplete: blobs.join(format!("{}.incomplete", file.sha256)),
            pointer: repository.join("snapshots").join(file.revision).join(file.file),
            lock: cache.join(".locks").join(&folder).join(format!("{}.lock", file.sha256)),
            blobs,
            repository,
        }
    }

    /// Waits until no other process downloads the same file.
    fn lock(&self, report: &mut dyn FnMut(Event)) -> Result<File> {
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

    /// Points the snapshot at the blob. Windows, where links need privileges, gets a copy.
    fn link(&self) -> Result<()> {
        let failed = || format!("cannot write {}", self.pointer.display());
        let parent = self.pointer.parent().unwrap_or(&self.repository);
        fs::create_dir_all(parent).with_context(failed)?;
        let made = parent.join(format!(".{}.new", std::process::id()));
        #[cfg(unix)]
        {
            // From snapshots/<revision>/<file>, as huggingface_hub links.
            let target = Path::new("../../blobs").join(self.blob.file_name().unwrap_or_default());
            std::os::unix::fs::symlink(target, &made).with_context(failed)?;
        }
        #[cfg(not(unix))]
        fs::copy(&self.blob, &made).with_context(failed)?;
        fs::rename(&made, &self.pointer).with_context(failed)
    }

    /// Removes a damaged copy: the blob that the snapshot points at, and the pointer.
    fn discard(&self) -> Result<()> {
        let blob = self.pointer.canonicalize().ok();
        let repository = self.repository.canonicalize().ok();
        if let (Some(blob), Some(repository)) = (blob, repository)
            && blob.starts_with(repository)
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
fn fault_of(path: &Path, file: &HubFile) -> Result<Option<String>> {
    let size = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.len();
    if size != file.size {
        return Ok(Some(format!("{} has {size} bytes, expected {}", file.file, file.size)));
    }
    let found = sha256(path)?;
    Ok((found != file.sha256).then(|| format!("{} has SHA-256 {found}, expected {}", file.file, file.sha256)))
}

/// The cache that `huggingface_hub` uses. Where `HOME` is not set, as on Windows, hf-hub would look
/// elsewhere.
fn cache_dir() -> PathBuf {
    let set = ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HOME"];
    match dirs::home_dir() {
        Some(home) if set.iter().all(|name| std::env::var_os(name).is_none()) => {
            home.join(".cache").join("huggingface").join("hub")
        }
        _ => hf_hub::resolve_cache_dir(),
    }
}
