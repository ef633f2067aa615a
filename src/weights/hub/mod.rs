//! Fetches pinned files from the Hugging Face hub into the cache that Python's `huggingface_hub`
//! uses too.
//!
//! In comes a [`HubFile`]: repository, commit, name, size and SHA-256. Out goes the path of a file in the
//! cache whose content has been checked against them. The cache's layout and the hub's addresses are
//! hf-hub's; the requests are plain HTTP through ureq, in this thread. `docs/download.md` says what happens
//! in each case of fault.

mod cache;
mod fault;
mod http;
mod proxy;

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hf_hub::Cache;

use self::cache::{Place, fault_of, repo};
use self::fault::{Fault, without_secrets};
use self::http::Client;
pub use self::proxy::Proxies;
use crate::weights::registry::HubFile;

/// Where the hub is, where its cache is, and how patient a download is.
#[derive(Clone, Debug)]
pub struct Hub {
    /// Such as `https://huggingface.co`, or `https://NAME:PASSWORD@mirror.example`.
    pub endpoint: String,
    /// Sent to the endpoint's own host, never to another.
    pub token: Option<String>,
    pub proxies: Proxies,
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
    /// The download is complete, and this is where the file lies.
    Stored(&'a Path),
}

impl Hub {
    /// As the environment says in the variables that Python's `huggingface_hub` reads: `HF_ENDPOINT`,
    /// `HF_TOKEN` (or the token that `hf auth login` left), `HF_HUB_CACHE`, `HF_HOME`, `HF_HUB_OFFLINE`, and
    /// `HF_HUB_DOWNLOAD_TIMEOUT` (seconds of silence, 30 unless set); and those of [`Proxies`].
    pub fn from_env() -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        let is_true = |name: &str| {
            variable(name).is_some_and(|value| ["1", "ON", "YES", "TRUE"].contains(&value.to_uppercase().as_str()))
        };
        let kept = || match cache::variable("HF_TOKEN_PATH") {
            Some(path) => fs::read_to_string(path).ok(),
            None => Cache::new(cache::home().join("hub")).token(),
        };
        let token = variable("HF_TOKEN").or_else(|| variable("HUGGING_FACE_HUB_TOKEN")).or_else(kept);
        Self {
            endpoint: variable("HF_ENDPOINT").map_or("https://huggingface.co".into(), |e| e.trim().into()),
            token: token
                .map(|token| token.trim().to_string())
                .filter(|token| !token.is_empty() && !is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN")),
            proxies: Proxies::from_env(),
            cache: cache::dir(),
            offline: is_true("HF_HUB_OFFLINE"),
            silence: variable("HF_HUB_DOWNLOAD_TIMEOUT")
                .and_then(|seconds| seconds.parse().ok())
                .filter(|seconds| *seconds > 0)
                .map_or(Duration::from_secs(30), Duration::from_secs),
            attempts: 4,
            pause: Duration::from_secs(1),
        }
    }

    /// The address at which the hub serves a file.
    pub fn url(&self, file: &HubFile) -> String {
        let repo = repo(file);
        format!("{}/{}/resolve/{}/{}", self.address(), repo.url(), repo.url_revision(), file.file)
    }

    /// The endpoint without a name and password.
    fn address(&self) -> String {
        without_secrets(self.endpoint.trim_end_matches('/'))
    }

    /// What is said to the endpoint of who asks.
    fn authorization(&self) -> Option<String> {
        let (_, rest) = self.endpoint.split_once("://")?;
        match (&self.token, rest.split('/').next()?.rsplit_once('@')) {
            (Some(token), _) => Some(format!("Bearer {token}")),
            (None, Some((name_and_password, _))) => {
                let decoded: Vec<u8> = percent_encoding::percent_decode_str(name_and_password).collect();
                Some(format!("Basic {}", BASE64_STANDARD.encode(decoded)))
            }
            (None, None) => None,
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
            place.adopt();
            self.download(file, &place, report)?;
        }
        place.link()?;
        report(Event::Stored(&place.pointer));
        Ok(place.pointer)
    }

    /// Fills the blob, from what an earlier attempt left if there is any.
    fn download(&self, file: &HubFile, place: &Place, report: &mut dyn FnMut(Event)) -> Result<()> {
        let failed = || format!("cannot write {}", place.incomplete.display());
        let mut anew = false;
        loop {
            let pieced = self.fill(file, place, report)?;
            let Some(fault) = fault_of(&place.incomplete, file)? else {
                return fs::rename(&place.incomplete, &place.blob).with_context(failed);
            };
            fs::remove_file(&place.incomplete).with_context(failed)?;
            // What an earlier run left may have been wrong.
            ensure!(
                pieced && !anew,
                "{} delivered something other than the pinned file, and it was removed: {fault}",
                self.address()
            );
            report(Event::Notice(&format!(
                "what was put together from several attempts is wrong, starting anew: {fault}"
            )));
            anew = true;
        }
    }

    /// Appends to the incomplete file until it has the full size. Tells whether it was pieced together
    /// from several requests.
    fn fill(&self, file: &HubFile, place: &Place, report: &mut dyn FnMut(Event)) -> Result<bool> {
        let failed = || format!("cannot write {}", place.incomplete.display());
        let client = Client::new(self.authorization(), self.proxies.clone(), self.silence);
        let url = self.url(file);
        let mut out =
            OpenOptions::new().create(true).truncate(false).write(true).open(&place.incomplete).with_context(failed)?;
        let at_first = out.seek(SeekFrom::End(0)).with_context(failed)?;
        let mut here = at_first;
        let mut pieced = here > 0;
        let mut attempt = 1;
        loop {
            if here >= file.size {
                out.sync_all().with_context(failed)?;
                return Ok(pieced);
            }
            pieced |= here > 0;
            let before = here;
            let (problem, pause) = match transfer(&client, &url, file, attempt, &mut out, &mut here, report) {
                Ok(()) => continue,
                Err(Failure::Writing(error)) => return Err(error).with_context(failed),
                Err(Failure::Asking(Fault::Final(problem))) => bail!("cannot fetch {}: {problem}", described(file)),
                Err(Failure::Asking(Fault::Unreachable { whom, problem })) => {
                    let problem = format!("cannot reach {whom} ({problem})");
                    ensure!(here > at_first, "{problem} for {}", described(file));
                    (problem, None)
                }
                Err(Failure::Asking(Fault::Passing { problem, pause })) => (problem, pause),
            };
            attempt = if here > before { 1 } else { attempt + 1 };
            if attempt > self.attempts {
                let kept = if here > 0 { format!("; the {here} bytes that came are kept") } else { String::new() };
                bail!("cannot fetch {}: {problem}, {} times in a row{kept}", described(file), self.attempts);
            }
            let pause = pause.unwrap_or(self.pause * 2u32.saturating_pow(attempt.saturating_sub(2)));
            let when = if pause.as_secs() > 1 { format!(" in {} s", pause.as_secs()) } else { String::new() };
            report(Event::Notice(&format!("{problem}; trying again{when}")));
            sleep(pause);
        }
    }
}

/// Why a transfer ended early.
enum Failure {
    Asking(Fault),
    Writing(std::io::Error),
}

/// One request for the bytes after the first `here`, which are appended as they come, and counted.
fn transfer(
    client: &Client,
    url: &str,
    file: &HubFile,
    attempt: u32,
    out: &mut File,
    here: &mut u64,
    report: &mut dyn FnMut(Event),
) -> Result<(), Failure> {
    let mut answer = client.open(url, *here, file.size, attempt).map_err(Failure::Asking)?;
    if answer.start < *here {
        report(Event::Notice(&format!(
            "{} only sends the whole file, from its beginning; the {here} bytes that are here are passed over",
            answer.from.host
        )));
    }
    report(Event::Progress(*here));
    let mut at = answer.start;
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = answer.read(&mut buffer).map_err(Failure::Asking)?;
        if count == 0 && at < file.size {
            let problem = format!("the connection to {} was cut after {at} of {} bytes", answer.from.host, file.size);
            return Err(Failure::Asking(Fault::Passing { problem, pause: None }));
        } else if count == 0 {
            return Ok(());
        }
        let known = (*here - at).min(count as u64);
        at += count as u64;
        if at > file.size {
            let problem = format!("{} sends more than the {} bytes of the file", answer.from.host, file.size);
            return Err(Failure::Asking(Fault::Final(problem)));
        }
        out.write_all(&buffer[known as usize..count]).map_err(Failure::Writing)?;
        *here += count as u64 - known;
        report(Event::Progress(*here));
    }
}

/// `qlnet-50-v0.pth.tar of liuyao/QLNet, revision c388ac00`
fn described(file: &HubFile) -> String {
    format!("{} of {}, revision {:.8}", file.file, file.repository, file.revision)
}
