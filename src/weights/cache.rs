//! Keeps folded weights, so that a checkpoint is read and folded once.
//!
//! Reading and folding a checkpoint costs more than running the network once. The folded weights are
//! therefore [kept](crate::kept) as safetensors, named by the SHA-256 of the checkpoint and the version of the
//! format. A copy that is missing, damaged or of another version is made again silently.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use candle_core::{Storage, Tensor};
use safetensors::{Dtype, SafeTensors, View};

use crate::bounded::open_file;
use crate::error::{Context, Reason, Result, bail, ensure};
use crate::kept::replace_with;
use crate::weights::checkpoint::Checkpoint;
use crate::weights::config::Naming;
use crate::weights::fold::infer_config;
use crate::weights::folded::Weights;

/// Changes whenever folded files of an earlier version must not be used any more.
pub(crate) const FORMAT: &str = "v1";

/// The folded copy of the checkpoint with that hash, made by `make` where there is none.
pub(super) fn cached(dir: Option<&Path>, sha256: &str, make: impl FnOnce() -> Result<Weights>) -> Result<Weights> {
    let Some(dir) = dir else { return make() };
    if let Some(weights) = find(dir, sha256) {
        return Ok(weights);
    }
    let weights = make()?;
    // A cache that cannot be written is no reason to fail.
    let _ = write(&cache_path(dir, sha256), &weights);
    Ok(weights)
}

/// The folded copy of the checkpoint with that hash, if there is one and it is whole.
pub(crate) fn find(dir: &Path, sha256: &str) -> Option<Weights> {
    read(&cache_path(dir, sha256)).ok()
}

/// Where the folded copy of a checkpoint with that hash is.
pub(super) fn cache_path(dir: &Path, sha256: &str) -> PathBuf {
    dir.join(format!("{sha256}.{FORMAT}.safetensors"))
}

/// Reads a folded copy, by memory map.
fn read(path: &Path) -> Result<Weights, Reason> {
    let file = open_file(path)?;
    // SAFETY: the map is read-only and short-lived, and this program replaces these files by rename;
    // it never changes one in place.
    let bytes = unsafe { memmap2::Mmap::map(&file)? };
    let (_, metadata) = SafeTensors::read_metadata(&bytes)?;
    let recorded = metadata.metadata().as_ref().and_then(|m| m.get(CHECKSUM)).context("no checksum")?.clone();
    let tensors = Checkpoint::from_bytes(&bytes)?.into_tensors();
    let weights = Weights::new(infer_config(Naming::Folded, &tensors)?, tensors)?;
    ensure!(checksum(&weights)? == recorded, "damaged");
    Ok(weights)
}

/// Writes a folded copy, with the checksum of all tensors in the header.
fn write(path: &Path, weights: &Weights) -> Result<(), Reason> {
    let metadata = HashMap::from([(CHECKSUM.to_string(), checksum(weights)?)]);
    let described = weights.tensors().iter().map(|(name, tensor)| (name, Described(tensor)));
    let header = safetensors::serialize(described, Some(metadata))?;
    replace_with(path, |file| {
        file.write_all(&header)?;
        // Of one type, tensors follow each other in the order of their names.
        for tensor in weights.tensors().values() {
            with_elements(tensor, |elements| file.write_all(bytemuck::cast_slice(elements)))??;
        }
        Ok(())
    })
}

/// A tensor of float32 for the header of a safetensors file. Its elements are written from where they are: all
/// together are 40 MB, of which the usual way makes two copies.
struct Described<'a>(&'a Tensor);

impl View for Described<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        self.0.dims()
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&[])
    }

    fn data_len(&self) -> usize {
        self.0.elem_count() * size_of::<f32>()
    }
}

/// Calls `use_them` with the elements of a contiguous tensor of float32 on the CPU.
fn with_elements<T>(tensor: &Tensor, use_them: impl FnOnce(&[f32]) -> T) -> Result<T, Reason> {
    let (storage, layout) = tensor.storage_and_layout();
    let (Storage::Cpu(storage), Some((start, end))) = (&*storage, layout.contiguous_offsets()) else {
        bail!("not a contiguous tensor on the CPU");
    };
    Ok(use_them(&storage.as_slice::<f32>()?[start..end]))
}

/// The entry of the header's metadata that holds the [`checksum`].
const CHECKSUM: &str = "crc32";

/// The CRC-32 of names, shapes and elements of all tensors.
fn checksum(weights: &Weights) -> Result<String, Reason> {
    let mut hasher = crc32fast::Hasher::new();
    for (name, tensor) in weights.tensors() {
        hasher.update(format!("{name} {:?} {:?} ", tensor.dtype(), tensor.dims()).as_bytes());
        with_elements(tensor, |elements| hasher.update(bytemuck::cast_slice(elements)))?;
    }
    Ok(format!("{:08x}", hasher.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::collections::BTreeMap;
    use std::fs;

    /// The elements of every tensor.
    fn elements(weights: &Weights) -> BTreeMap<String, Vec<f32>> {
        let elements = |t: &Tensor| t.flatten_all().unwrap().to_vec1().unwrap();
        weights.tensors().iter().map(|(name, t)| (name.clone(), elements(t))).collect()
    }

    #[test]
    fn a_copy_is_made_once_and_again_when_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let made = Cell::new(0);
        let load = || {
            cached(Some(dir.path()), "0123", || {
                made.set(made.get() + 1);
                Weights::from_model("qlnet-digits")
            })
            .unwrap()
        };
        let first = load();
        let second = load();
        assert_eq!(made.get(), 1);
        assert_eq!(first.config(), second.config());
        assert_eq!(elements(&first), elements(&second));

        let path = dir.path().join(format!("0123.{FORMAT}.safetensors"));
        let good = fs::read(&path).unwrap();
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
            fs::write(&path, bad).unwrap();
            assert_eq!(elements(&load()), elements(&first));
            assert_eq!(made.get(), before + 1);
            assert_eq!(fs::read(&path).unwrap(), good);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing temporary is left");
    }

    /// A pipe would be waited for, and a device is no copy.
    #[cfg(unix)]
    #[test]
    fn what_is_no_file_is_replaced_by_a_copy() {
        let dir = tempfile::tempdir().unwrap();
        let path = cache_path(dir.path(), "0123");
        let pipe = dir.path().join("pipe");
        crate::bounded::make_pipe(&pipe);
        for target in [&pipe, Path::new("/dev/zero")] {
            let _ = fs::remove_file(&path);
            std::os::unix::fs::symlink(target, &path).unwrap();
            let made = cached(Some(dir.path()), "0123", || Weights::from_model("qlnet-digits")).unwrap();
            assert!(path.symlink_metadata().unwrap().is_file());
            assert_eq!(elements(&find(dir.path(), "0123").unwrap()), elements(&made));
        }
        fs::rename(&pipe, &path).unwrap();
        assert!(find(dir.path(), "0123").is_none());
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_done_without() {
        let dir = Path::new("/proc/nowhere");
        let weights = cached(Some(dir), "0123", || Weights::from_model("qlnet-digits"));
        assert_eq!(weights.unwrap().config().num_classes, 10);
    }
}
