//! Fetches files from the Hugging Face hub into the cache that Python's `huggingface_hub` uses too.
//!
//! In comes a [`HubFile`]: repository, commit, name, size and hash; or the name of a data set. Out go paths of files in
//! the cache that have this size and this hash. May use what all rooms may, and nothing else of the program.
//!
//! ```text
//! file            which file, and what its content has to be
//! dataset         a data set's name -> the files of one split
//! listing         which files a data set has: a question to the hub
//! splits          names of files -> those of one split
//! snapshot        what the cache knows of a data set's revision
//! cache           the files of the cache, and the lock
//! link            the second path of a file in the cache: a link or a copy
//! download        attempt after attempt, until the file is complete
//! attempts        how often, and how long the pauses are
//! temporary       files that are made under a temporary name
//! http            one request, along its redirects
//! proxy           which proxy a request goes through
//! refusal         what responses mean that bring nothing
//! request_error   what errors of a connection mean, in words
//! ```
//!
//! hf-hub knows the folders of the cache; the requests are plain HTTP through ureq, in this thread. `docs/download.md` says
//! what happens in each case of fault.

mod attempts;
mod cache;
mod dataset;
mod download;
mod file;
mod http;
mod link;
mod listing;
mod proxy;
mod refusal;
mod request_error;
mod snapshot;
mod splits;
mod temporary;

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use self::cache::{CachePaths, mismatch};
pub use self::dataset::{DatasetEvent, DatasetFiles, DatasetName, PREFIX};
use self::download::Download;
pub use self::file::{ContentHash, HubFile, Repository};
use self::http::Client;
pub use self::proxy::Proxies;
use self::request_error::without_secrets;
pub use self::splits::{FilesKind, SplitFiles, files_of_split};
use crate::bounded::{read_at_most, read_text};
use crate::error::{DatasetProblem, Error, Reason, Result};
use crate::kept;

/// Where the hub is, where its cache is, and how long a download waits and how often it tries.
///
/// These are settings, and every value of each is allowed, so they are plain fields: take those of the
/// environment with [`Hub::from_env`], and change what should be otherwise.
#[derive(Clone)]
pub struct Hub {
    /// The address of the hub: `https://huggingface.co`, or `https://NAME:PASSWORD@mirror.example`.
    pub endpoint: String,
    /// The access token. It is sent to the endpoint's own scheme, host and port, and never to another.
    pub token: Option<String>,
    /// The proxies that requests go through.
    pub proxies: Proxies,
    /// The directory of the cache: what `HF_HUB_CACHE` names.
    pub cache_dir: PathBuf,
    /// The directory where the SHA-256 of a data set's files in the cache are remembered, if they are.
    pub hashes: Option<PathBuf>,
    /// Look into the cache only, and send nothing.
    pub offline: bool,
    /// A connection that delivers nothing for so long is given up.
    pub read_timeout: Duration,
    /// A download fails after so many attempts in a row that together bring less than 64 KiB.
    pub attempts: u32,
    /// The pause before the second attempt. It doubles with each further one.
    pub backoff: Duration,
}

/// The most bytes of a file that holds a token.
const LONGEST_TOKEN: u64 = 4 << 10;

/// What a caller may want to show of a download.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// The number of bytes of the file that have arrived. [`HubFile::size`] is the number of all.
    Progress(u64),
    /// Something went wrong, and the download goes on.
    Notice(&'a str),
    /// The download is complete, and this is the path of the file.
    Stored(&'a Path),
}

impl Hub {
    /// The settings that the environment names, in the variables that Python's `huggingface_hub` reads:
    /// `HF_ENDPOINT`, `HF_TOKEN` (or the token that `hf auth login` left), `HF_HUB_CACHE`, `HF_HOME`,
    /// `HF_HUB_OFFLINE` and `HF_HUB_DOWNLOAD_TIMEOUT` (the read timeout in seconds, 30 unless set); and
    /// those of [`Proxies`].
    pub fn from_env() -> Self {
        // What is not UTF-8 is not passed over: huggingface.co would be asked in place of a mirror. With replacement
        // characters it is no address, which is told when it is to be asked, and no token.
        let variable = |name: &str| {
            let value = std::env::var_os(name)?.to_string_lossy().into_owned();
            Some(value).filter(|value| !value.trim().is_empty())
        };
        let is_true = |name: &str| {
            variable(name).is_some_and(|value| ["1", "ON", "YES", "TRUE"].contains(&value.to_uppercase().as_str()))
        };
        let stored_token = || match cache::path_variable("HF_TOKEN_PATH") {
            // It may be a pipe, which a shell puts in the place of `<(...)`.
            Some(path) => {
                let bytes = read_at_most(LONGEST_TOKEN, File::open(path).ok()?, 0).ok()??;
                String::from_utf8(bytes).ok()
            }
            None => read_text(&cache::home_dir().join("token"), LONGEST_TOKEN).ok(),
        };
        let token = variable("HF_TOKEN").or_else(|| variable("HUGGING_FACE_HUB_TOKEN")).or_else(stored_token);
        Self {
            endpoint: variable("HF_ENDPOINT").map_or("https://huggingface.co".into(), |e| e.trim().into()),
            token: token
                .map(|token| token.trim().to_string())
                .filter(|token| !token.is_empty() && !is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN")),
            proxies: Proxies::from_env(),
            cache_dir: cache::cache_dir(),
            hashes: kept::cache_dir(),
            offline: is_true("HF_HUB_OFFLINE"),
            read_timeout: variable("HF_HUB_DOWNLOAD_TIMEOUT")
                .and_then(|seconds| seconds.parse().ok())
                .filter(|seconds| *seconds > 0)
                .map_or(Duration::from_secs(30), Duration::from_secs),
            attempts: 4,
            backoff: Duration::from_secs(1),
        }
    }

    /// The address at which the hub serves a file, without the name and password of the endpoint.
    pub fn url(&self, file: &HubFile) -> String {
        format!("{}/{}", self.public_endpoint(), file.path())
    }

    /// The path of a pinned file in the cache, if there is one of its size. Nothing is downloaded or read.
    pub fn here(&self, file: &HubFile) -> Option<PathBuf> {
        let paths = CachePaths::new(&self.cache_dir, file);
        paths.has_pointer(file).then_some(paths.pointer)
    }

    /// The path of a pinned file in the cache. Downloads the file unless it is there; if it is, no request
    /// is sent. Its content is checked either way, and removed if it is wrong; only that of a data set is not read again
    /// where its hash is [remembered](Self::hashes).
    ///
    /// # Errors
    /// [`Error::Download`], or for a data set [`Error::Dataset`], if the file has to be downloaded, and the hub cannot be reached, refuses, keeps
    /// breaking off or delivers something else, or [`offline`](Self::offline) is set. [`Error::Io`] if a
    /// file of the cache cannot be read or written.
    pub fn fetch(&self, file: &HubFile, report: &mut dyn FnMut(Event)) -> Result<PathBuf> {
        let paths = CachePaths::new(&self.cache_dir, file);
        let hashes = self.hashes_for(file);
        if paths.pointer.exists() && mismatch(&paths.pointer, file, hashes)?.is_none() {
            return Ok(paths.pointer);
        }
        if self.offline {
            let reason = format!(
                "{} is not in the cache ({}), or damaged, and HF_HUB_OFFLINE is set",
                file.file,
                self.cache_dir.display()
            );
            return Err(self.error(file, reason));
        }
        let lock = paths.lock(report)?;
        if lock.is_some() {
            paths.remove_abandoned();
        }
        // Looked at again under the lock: another process may have finished in between.
        if paths.pointer.exists() {
            match mismatch(&paths.pointer, file, hashes)? {
                None => return Ok(paths.pointer),
                Some(mismatch) => {
                    report(Event::Notice(&format!("the cached copy is damaged and is removed: {mismatch}")));
                    paths.discard()?;
                }
            }
        }
        // A snapshot may have lost its link.
        if !paths.blob.exists() || mismatch(&paths.blob, file, hashes)?.is_some() {
            paths.adopt();
            Download { hub: self, file, paths: &paths, report }.run()?;
        }
        paths.link(file)?;
        report(Event::Stored(&paths.pointer));
        Ok(paths.pointer)
    }

    /// Where hashes are remembered that make it needless to read such a file again: weights are read in any case.
    fn hashes_for(&self, file: &HubFile) -> Option<&Path> {
        self.hashes.as_deref().filter(|_| matches!(file.repository, Repository::Dataset(_)))
    }

    /// What asks for the files of a repository.
    fn client(&self, repository: Repository) -> Client {
        let page = format!("{}/{}", self.public_endpoint(), repository.path());
        let listed = matches!(repository, Repository::Dataset(_));
        Client::new(page, listed, self.authorization(), self.proxies.clone(), self.read_timeout)
    }

    /// The endpoint without a name and password.
    fn public_endpoint(&self) -> String {
        without_secrets(self.endpoint.trim_end_matches('/'))
    }

    /// The value of the header `Authorization`, for the endpoint alone.
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

    /// The error of a file that cannot be downloaded.
    fn error(&self, file: &HubFile, reason: String) -> Error {
        match file.repository {
            Repository::Model(_) => {
                Error::Download { file: file.file.into(), url: self.url(file), reason: Reason::new(reason) }
            }
            Repository::Dataset(_) => Error::Dataset { problem: DatasetProblem::Download, reason: Reason::new(reason) },
        }
    }
}

/// Without the token and the passwords.
impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Hub")
            .field("endpoint", &self.public_endpoint())
            .field("cache_dir", &self.cache_dir)
            .field("offline", &self.offline)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let hub =
            Hub { endpoint: "https://me:secret@hub.example".into(), token: Some("secret".into()), ..Hub::from_env() };
        let shown = format!("{hub:?}");
        assert!(shown.contains("https://hub.example") && !shown.contains("secret"), "{shown}");
    }
}
