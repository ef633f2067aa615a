//! From a model's name or a file to folded weights, through a cache that makes the second time
//! fast.
//!
//! Reading and folding a checkpoint costs more than running the network once. The folded weights
//! are therefore kept as safetensors in our own cache directory (`$XDG_CACHE_HOME/qlnet` or what the
//! platform has in its place), named by the SHA-256 of the checkpoint and the version of our format.
//! A copy that is missing, damaged or of another version is made again without a word, and where
//! the directory cannot be written the program works without it.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use safetensors::SafeTensors;

use crate::checkpoint::{Checkpoint, map_file};
use crate::config::{Config, Naming};
use crate::digest::sha256;
use crate::fold::Weights;
use crate::hub::{Event, Hub};
use crate::registry::{Model, Source};

/// Changes whenever folded files of an earlier version must not be used any more.
const FORMAT: &str = "v1";

/// The folded weights of a checkpoint file.
///
/// # Errors
/// If it cannot be read or is not a QLNet's.
pub fn from_file(path: &Path) -> Result<Weights> {
    // Opened first: what cannot be mapped has an error that says why.
    drop(map_file(path)?);
    let sha256 = sha256(path)?;
    cached(cache_dir().as_deref(), &sha256, || fold(path))
}

/// The folded weights of a known model, downloaded if need be.
///
/// # Errors
/// If they have to be downloaded and cannot be. The message names the ways on.
pub fn from_model(model: &Model, report: &mut dyn FnMut(Event)) -> Result<Weights> {
    match &model.source {
        Source::Embedded(bytes) => Weights::from_checkpoint(&Checkpoint::from_bytes(bytes)?),
        Source::Hub(file) => cached(cache_dir().as_deref(), file.sha256, || {
            let path = Hub::from_env().fetch(file, report).map_err(|error| {
                anyhow!(
                    "{error:#}; give --weights a copy of {}, or use --model qlnet-digits, which is built in",
                    file.file
                )
            })?;
            fold(&path)
        }),
    }
}

fn fold(path: &Path) -> Result<Weights> {
    Weights::from_checkpoint(&Checkpoint::open(path)?).with_context(|| path.display().to_string())
}

/// Where folded weights are kept, if the platform has a place for caches.
pub fn cache_dir() -> Option<PathBuf> {
    dirs::cache_dir().map(|dir| dir.join("qlnet"))
}

/// The folded copy of the checkpoint with that hash, made by `make` where there is none.
fn cached(dir: Option<&Path>, sha256: &str, make: impl FnOnce() -> Result<Weights>) -> Result<Weights> {
    let Some(dir) = dir else { return make() };
    let path = dir.join(format!("{sha256}.{FORMAT}.safetensors"));
    if let Ok(weights) = read(&path) {
        return Ok(weights);
    }
    let weights = make()?;
    // A cache that cannot be written is no reason to fail.
    let _ = write(dir, &path, &weights);
    Ok(weights)
}

/// Reads a folded copy, by memory map.
fn read(path: &Path) -> Result<Weights> {
    let bytes = map_file(path)?;
    let (header, metadata) = SafeTensors::read_metadata(&bytes)?;
    let recorded = metadata.metadata().as_ref().and_then(|m| m.get(CHECKSUM)).context("no checksum")?;
    ensure!(*recorded == checksum(&bytes[8 + header..]), "damaged");
    let Checkpoint { tensors } = Checkpoint::from_bytes(&bytes)?;
    let shape = |name: &str| tensors.get(name).map(|t| t.dims());
    let config = Config::infer(Naming::Folded, tensors.keys().map(String::as_str), shape)?;
    Ok(Weights { config, tensors })
}

/// Writes a folded copy, with the checksum of its elements in the header.
fn write(dir: &Path, path: &Path, weights: &Weights) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    let bare = safetensors::serialize(&weights.tensors, None)?;
    let (header, _) = SafeTensors::read_metadata(&bare)?;
    let metadata = HashMap::from([(CHECKSUM.to_string(), checksum(&bare[8 + header..]))]);
    drop(bare);
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(&safetensors::serialize(&weights.tensors, Some(metadata))?)?;
    file.persist(path)?;
    Ok(())
}

/// The entry of the header's metadata that holds the CRC-32 of all that follows the header.
const CHECKSUM: &str = "crc32";

fn checksum(elements: &[u8]) -> String {
    format!("{:08x}", crc32fast::hash(elements))
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
                from_model(crate::registry::find("qlnet-digits")?, &mut |_| {})
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
        for bad in [&flipped[..], &good[..good.len() / 2], b"", b"{}"] {
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
        let weights = cached(Some(dir), "0123", || from_model(crate::registry::find("qlnet-digits")?, &mut |_| {}));
        assert_eq!(weights.unwrap().config.classes, 10);
    }
}
