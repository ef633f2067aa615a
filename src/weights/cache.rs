//! Keeps folded weights, so that a checkpoint is read and folded once.
//!
//! Reading and folding a checkpoint costs more than running the network once. The folded weights are
//! therefore kept as safetensors in a cache directory of this program's own (`$XDG_CACHE_HOME/qlnet` or what
//! the platform has in its place), named by the SHA-256 of the checkpoint and the version of the format. A
//! copy that is missing, damaged or of another version is made again silently, and where the directory
//! cannot be written the program works without it. The [records](crate::weights::remembered_hash) of the hashes
//! of checkpoint files are in the same directory, and so are the networks that the room `network` has packed for
//! the CPU at hand.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use candle_core::{Storage, Tensor};
use safetensors::{Dtype, SafeTensors, View};

use crate::error::{Context, Reason, Result, bail, ensure};
use crate::weights::checkpoint::Checkpoint;
use crate::weights::config::Naming;
use crate::weights::digest::is_sha256;
use crate::weights::fold::infer_config;
use crate::weights::folded::Weights;
use crate::weights::remembered_hash;

/// Changes whenever folded files of an earlier version must not be used any more.
pub(crate) const FORMAT: &str = "v1";

/// Where folded weights are kept: the directory that `QLNET_CACHE` names, else `qlnet` in the platform's
/// place for caches, if it has one.
pub fn cache_dir() -> Option<PathBuf> {
    let named = std::env::var_os("QLNET_CACHE").filter(|name| !name.is_empty());
    named.map(PathBuf::from).or_else(|| Some(dirs::cache_dir()?.join("qlnet")))
}

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
pub(super) fn find(dir: &Path, sha256: &str) -> Option<Weights> {
    read(&cache_path(dir, sha256)).ok()
}

/// Where the folded copy of a checkpoint with that hash is.
fn cache_path(dir: &Path, sha256: &str) -> PathBuf {
    dir.join(format!("{sha256}.{FORMAT}.safetensors"))
}

/// Reads a folded copy, by memory map.
fn read(path: &Path) -> Result<Weights, Reason> {
    let file = File::open(path)?;
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

/// Writes a file of the cache such that it is there whole or not at all.
pub(super) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    replace_with(path, |file| file.write_all(content))
}

/// [`replace`] with what `write` writes.
pub(crate) fn replace_with<E: From<io::Error>>(
    path: &Path,
    write: impl FnOnce(&mut File) -> Result<(), E>,
) -> Result<(), E> {
    let dir = path.parent().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    fs::create_dir_all(dir)?;
    remove_abandoned(dir);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut file = tempfile::Builder::new().prefix(&format!(".{name}.")).suffix(TEMPORARY).tempfile_in(dir)?;
    write(file.as_file_mut())?;
    file.persist(path).map_err(io::Error::from)?;
    Ok(())
}

/// What the names of packed networks end with.
pub(crate) const PACKED: &str = "packed";

/// What the names of files end with while they are written.
const TEMPORARY: &str = ".tmp";

/// Removes the temporary files of runs that were killed while they wrote, and nothing else: the directory may
/// be one that other programs use.
fn remove_abandoned(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().map_while(Result::ok) {
        let metadata = entry.metadata().ok().filter(|metadata| metadata.is_file());
        let age = metadata.and_then(|metadata| metadata.modified().ok()?.elapsed().ok());
        if age.is_some_and(|age| age > Duration::from_secs(600)) && is_temporary(&entry.file_name().to_string_lossy()) {
            // Another run may have been faster.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Whether a file's name is of the form that [`replace`] gives to temporary files: of folded copies, in any
/// version of the format, `.<SHA-256>.v1.safetensors.<random letters and digits>.tmp`; of packed networks, with
/// some letters and digits for what they are packed for, `.<SHA-256>.v1-f32-float-16.packed.<...>.tmp`; and of
/// remembered hashes `.<SHA-256>.hash.<...>.tmp`.
fn is_temporary(name: &str) -> bool {
    let parse = || {
        let (sha256, rest) = name.strip_prefix('.')?.split_once('.')?;
        let (kind, random) = rest.strip_suffix(TEMPORARY)?.rsplit_once('.')?;
        let all = |text: &str, of: fn(u8) -> bool| !text.is_empty() && text.bytes().all(of);
        let known = match kind.strip_prefix('v').and_then(|kind| kind.split_once('.')) {
            Some((version, "safetensors")) => all(version, |b| b.is_ascii_digit()),
            Some((version, PACKED)) => all(version, |b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')),
            _ => kind == remembered_hash::EXTENSION,
        };
        Some(is_sha256(sha256) && known && all(random, |b| b.is_ascii_alphanumeric()))
    };
    parse().unwrap_or(false)
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
    use std::time::SystemTime;

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

    #[test]
    fn a_directory_that_cannot_be_written_is_done_without() {
        let dir = Path::new("/proc/nowhere");
        let weights = cached(Some(dir), "0123", || Weights::from_model("qlnet-digits"));
        assert_eq!(weights.unwrap().config().num_classes, 10);
    }

    #[test]
    fn only_abandoned_files_of_this_program_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let sha256 = "0123456789abcdef".repeat(4);
        let ours = ["v1.safetensors", "v1-f32-float-16-x86_64.packed", "hash"]
            .map(|kind| format!(".{sha256}.{kind}.AbC123.tmp"));
        let others = [
            ".qlnet-notes".to_string(),
            ".tmpAbC123".to_string(),
            format!(".{sha256}.tmp"),
            format!(".{}.v1.safetensors.AbC123.tmp", &sha256[1..]),
            format!(".{sha256}.hashes.AbC123.tmp"),
            format!(".{sha256}.v1-f32.x.packed.AbC123.tmp"),
            format!("{sha256}.v0.safetensors"),
            format!("{sha256}.hash"),
        ];
        let old = SystemTime::now() - Duration::from_secs(3600);
        for name in others.iter().chain(&ours) {
            File::create(dir.path().join(name)).unwrap().set_modified(old).unwrap();
        }
        let fresh = format!(".{sha256}.v1.safetensors.XyZ789.tmp");
        fs::write(dir.path().join(&fresh), "").unwrap();
        // As old as the file, with a name of the same form.
        let folder = format!(".{sha256}.v1.safetensors.folder.tmp");
        fs::create_dir(dir.path().join(&folder)).unwrap();
        #[cfg(unix)]
        File::open(dir.path().join(&folder)).unwrap().set_modified(old).unwrap();

        let load = || cached(Some(dir.path()), &sha256, || Weights::from_model("qlnet-digits")).unwrap();
        load();
        for name in &ours {
            assert!(!dir.path().join(name).exists(), "{name}");
        }
        for name in others.iter().chain([&fresh, &folder]) {
            assert!(dir.path().join(name).exists(), "{name}");
        }
        assert!(cache_path(dir.path(), &sha256).exists(), "a folder in the way does not stop caching");
        assert_eq!(elements(&load()), elements(&Weights::from_model("qlnet-digits").unwrap()));
    }

    /// What the clean-up knows is what is written.
    #[test]
    fn temporary_files_have_their_form() {
        for kind in [&format!("{FORMAT}.safetensors"), remembered_hash::EXTENSION] {
            let prefix = format!(".{}.{kind}.", "0123456789abcdef".repeat(4));
            let file = tempfile::Builder::new().prefix(&prefix).suffix(TEMPORARY).tempfile().unwrap();
            let name = file.path().file_name().unwrap().to_str().unwrap();
            assert!(is_temporary(name), "{name}");
        }
    }
}
