//! From a model's name or a file to folded weights, through a cache that makes the second time
//! fast.
//!
//! Reading and folding a checkpoint costs more than running the network once. The folded weights
//! are therefore kept as safetensors in our own cache directory (`$XDG_CACHE_HOME/qlnet` or what the
//! platform has in its place), named by the SHA-256 of the checkpoint and the version of our format.
//! A copy that is missing, damaged or of another version is made again without a word, and where
//! the directory cannot be written the program works without it.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use candle_core::Storage;
use safetensors::SafeTensors;

use crate::weights::checkpoint::Checkpoint;
use crate::weights::config::Naming;
use crate::weights::digest::sha256;
use crate::weights::fold::{Weights, infer_config};
use crate::weights::hub::{self, Hub};
use crate::weights::registry::{HubFile, Model, Source};

/// Changes whenever folded files of an earlier version must not be used any more.
const FORMAT: &str = "v1";

/// What a caller may want to show while weights are made ready.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// Something about the download.
    Hub(hub::Event<'a>),
    /// Batch norm is about to be folded, which is done once for each checkpoint.
    Folding,
}

/// A model could not be downloaded.
#[derive(Debug)]
pub struct DownloadError {
    /// What was to be downloaded.
    pub file: HubFile,
    /// Where it can be had by hand.
    pub url: String,
    source: anyhow::Error,
}

impl fmt::Display for DownloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.source)
    }
}

impl std::error::Error for DownloadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.source()
    }
}

/// The folded weights of a checkpoint file.
///
/// # Errors
/// If it cannot be read or is not a QLNet's.
pub fn from_file(path: &Path, report: &mut dyn FnMut(Event)) -> Result<Weights> {
    let Some(dir) = cache_dir().filter(|_| path.is_file()) else { return fold(path, report) };
    // Hashed as it streams by, which is all that a warm start needs of a file.
    let hash = sha256(path)?;
    if let Ok(weights) = read(&copy(&dir, &hash)) {
        return Ok(weights);
    }
    let weights = fold(path, report)?;
    // Hashed again: what is kept under a hash is made of the very bytes that have it, even if somebody
    // writes to the file. A cache that cannot be written is no reason to fail.
    if sha256(path)? == hash {
        let _ = write(&dir, &copy(&dir, &hash), &weights);
    }
    Ok(weights)
}

/// The folded weights of a known model, downloaded if need be.
///
/// # Errors
/// A [`DownloadError`] if they have to be downloaded and cannot be; others if the file cannot be read.
pub fn from_model(model: &Model, report: &mut dyn FnMut(Event)) -> Result<Weights> {
    match &model.source {
        Source::Embedded(bytes) => Weights::from_checkpoint(&Checkpoint::from_bytes(bytes)?),
        Source::Hub(file) => cached(cache_dir().as_deref(), file.sha256, || {
            let hub = Hub::from_env();
            let fetched = hub.fetch(file, &mut |event| report(Event::Hub(event)));
            let path =
                fetched.map_err(|source| DownloadError { file: *file, url: hub.url(file), source: source.into() })?;
            fold(&path, report)
        }),
    }
}

fn fold(path: &Path, report: &mut dyn FnMut(Event)) -> Result<Weights> {
    report(Event::Folding);
    let checkpoint = Checkpoint::open(path)?;
    Weights::from_checkpoint(&checkpoint).with_context(|| path.display().to_string())
}

/// Where folded weights are kept: what `QLNET_CACHE` names, else `qlnet` in the platform's place for
/// caches, if it has one.
pub fn cache_dir() -> Option<PathBuf> {
    let named = std::env::var_os("QLNET_CACHE").filter(|name| !name.is_empty());
    named.map(PathBuf::from).or_else(|| Some(dirs::cache_dir()?.join("qlnet")))
}

/// The folded copy of the checkpoint with that hash, made by `make` where there is none.
fn cached(dir: Option<&Path>, sha256: &str, make: impl FnOnce() -> Result<Weights>) -> Result<Weights> {
    let Some(dir) = dir else { return make() };
    let path = copy(dir, sha256);
    if let Ok(weights) = read(&path) {
        return Ok(weights);
    }
    let weights = make()?;
    // A cache that cannot be written is no reason to fail.
    let _ = write(dir, &path, &weights);
    Ok(weights)
}

/// Where the folded copy of a checkpoint with that hash is.
fn copy(dir: &Path, sha256: &str) -> PathBuf {
    dir.join(format!("{sha256}.{FORMAT}.safetensors"))
}

/// Reads a folded copy, by memory map.
fn read(path: &Path) -> Result<Weights> {
    let file = File::open(path)?;
    // SAFETY: the map is read-only and short-lived, and this program replaces these files by rename;
    // it never changes one in place.
    let bytes = unsafe { memmap2::Mmap::map(&file)? };
    let (_, metadata) = SafeTensors::read_metadata(&bytes)?;
    let recorded = metadata.metadata().as_ref().and_then(|m| m.get(CHECKSUM)).context("no checksum")?.clone();
    let Checkpoint { tensors } = Checkpoint::from_bytes(&bytes)?;
    let weights = Weights { config: infer_config(Naming::Folded, &tensors)?, tensors };
    ensure!(checksum(&weights)? == recorded, "damaged");
    Ok(weights)
}

/// Writes a folded copy, with the checksum of all tensors in the header.
fn write(dir: &Path, path: &Path, weights: &Weights) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    remove_abandoned(dir)?;
    let metadata = HashMap::from([(CHECKSUM.to_string(), checksum(weights)?)]);
    let mut file = tempfile::Builder::new().prefix(BEING_WRITTEN).tempfile_in(dir)?;
    file.write_all(&safetensors::serialize(&weights.tensors, Some(metadata))?)?;
    file.persist(path)?;
    Ok(())
}

/// What the names of files begin with that are being written.
const BEING_WRITTEN: &str = ".qlnet-";

/// Removes what runs that were killed while they wrote have left.
fn remove_abandoned(dir: &Path) -> Result<()> {
    for entry in std::fs::read_dir(dir)?.map_while(Result::ok) {
        let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|time| time.elapsed().ok());
        let old = age.is_some_and(|age| age > Duration::from_secs(600));
        if old && entry.file_name().to_string_lossy().starts_with(BEING_WRITTEN) {
            // Another run may have been faster.
            let _ = std::fs::remove_file(entry.path());
        }
    }
    Ok(())
}

/// The entry of the header's metadata that holds the [`checksum`].
const CHECKSUM: &str = "crc32";

/// The CRC-32 of names, shapes and elements of all tensors.
fn checksum(weights: &Weights) -> Result<String> {
    let mut hasher = crc32fast::Hasher::new();
    for (name, tensor) in &weights.tensors {
        hasher.update(format!("{name} {:?} {:?} ", tensor.dtype(), tensor.dims()).as_bytes());
        let (storage, layout) = tensor.storage_and_layout();
        let (Storage::Cpu(storage), Some((start, end))) = (&*storage, layout.contiguous_offsets()) else {
            bail!("`{name}` is not a contiguous tensor on the CPU");
        };
        let elements = &storage.as_slice::<f32>()?[start..end];
        // SAFETY: every float32 is four bytes, all of them initialised.
        hasher.update(unsafe { std::slice::from_raw_parts(elements.as_ptr().cast(), size_of_val(elements)) });
    }
    Ok(format!("{:08x}", hasher.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Tensor;
    use std::cell::Cell;
    use std::collections::BTreeMap;

    /// The elements of every tensor.
    fn elements(weights: &Weights) -> BTreeMap<String, Vec<f32>> {
        let elements = |t: &Tensor| t.flatten_all().unwrap().to_vec1().unwrap();
        weights.tensors.iter().map(|(name, t)| (name.clone(), elements(t))).collect()
    }

    #[test]
    fn a_copy_is_made_once_and_again_when_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let made = Cell::new(0);
        let load = || {
            cached(Some(dir.path()), "0123", || {
                made.set(made.get() + 1);
                from_model(crate::weights::registry::find("qlnet-digits")?, &mut |_| {})
            })
            .unwrap()
        };
        let first = load();
        let second = load();
        assert_eq!(made.get(), 1);
        assert_eq!(first.config, second.config);
        assert_eq!(elements(&first), elements(&second));

        let path = dir.path().join(format!("0123.{FORMAT}.safetensors"));
        let good = std::fs::read(&path).unwrap();
        let mut flipped = good.clone();
        flipped[good.len() / 2] ^= 1;
        // Two tensors of one shape exchange their names.
        let (one, other) = (&b"layer2.1.conv1.bias"[..], &b"layer3.0.conv1.bias"[..]);
        let at = |name: &[u8]| good.windows(name.len()).position(|w| w == name).unwrap();
        let mut exchanged = good.clone();
        exchanged[at(one)..][..one.len()].copy_from_slice(other);
        exchanged[at(other)..][..one.len()].copy_from_slice(one);
        for bad in [&flipped[..], &exchanged, &good[..good.len() / 2], b"", b"{}"] {
            let before = made.get();
            std::fs::write(&path, bad).unwrap();
            assert_eq!(elements(&load()), elements(&first));
            assert_eq!(made.get(), before + 1);
            assert_eq!(std::fs::read(&path).unwrap(), good);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing temporary is left");
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_done_without() {
        let dir = Path::new("/proc/nowhere");
        let weights =
            cached(Some(dir), "0123", || from_model(crate::weights::registry::find("qlnet-digits")?, &mut |_| {}));
        assert_eq!(weights.unwrap().config.num_classes, 10);
    }
}
