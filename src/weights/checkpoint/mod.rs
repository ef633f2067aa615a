//! Reads a checkpoint file, whatever its form, into named tensors.
//!
//! | form | recognised by | read by |
//! |---|---|---|
//! | `torch.save` of a training state with the weights under `state_dict` (timm's `.pth.tar`) | zip magic | `torch` |
//! | `torch.save` of a bare `state_dict` | zip magic | `torch` |
//! | safetensors | JSON header | `safetensors` |
//!
//! Tensors keep the element type of the file. Batch norm's `num_batches_tracked`, which inference does not need, are
//! kept for whoever writes the checkpoint again; other integer tensors are left out. The prefix `module.`, which PyTorch's
//! `DataParallel` puts before every name, is removed.

pub(crate) mod pickle;
mod safetensors;
mod torch;

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::{BufReader, Cursor, Read, Seek};
use std::path::Path;

use candle_core::Tensor;

use crate::error::{At, Error, Reason, Result, ensure};

/// The floating-point tensors of a checkpoint, by name, on the CPU. There is at least one.
pub struct Checkpoint {
    tensors: BTreeMap<String, Tensor>,
    /// How many batches each batch norm has seen, where the file says so.
    counts: BTreeMap<String, Tensor>,
}

impl Checkpoint {
    /// Reads the checkpoint file at `path`. Of a zip on a disk only what is needed is read, so it may be of
    /// any size.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read, and that of [`Self::from_bytes`].
    pub fn open(path: &Path) -> Result<Self> {
        let (file, metadata) = open(path)?;
        if metadata.is_file() {
            Self::read(BufReader::new(file), metadata.len(), path)
        } else {
            Self::from_bytes(&read_all(file, path)?).at(path.display())
        }
    }

    /// Reads a checkpoint from the content, of `length` bytes, of the file at `path`.
    pub(super) fn read(mut content: impl Read + Seek, length: u64, path: &Path) -> Result<Self> {
        let mut start = Vec::new();
        let read = content.by_ref().take(ZIP_MAGIC.len() as u64).read_to_end(&mut start);
        read.and_then(|_| content.rewind()).map_err(Error::io("read", path))?;
        if start == ZIP_MAGIC {
            torch::read(content, length).map_err(Error::Checkpoint).and_then(Self::from_tensors)
        } else {
            Self::from_bytes(&read_all(content, path)?)
        }
        .at(path.display())
    }

    /// Reads a checkpoint from the bytes of a file.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if the form is not known (with a hint where it is a common mistake), the file is
    /// damaged, or a pickle in it asks for anything but tensors and plain data.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let tensors = if bytes.starts_with(ZIP_MAGIC) {
            torch::read(Cursor::new(bytes), bytes.len() as u64)
        } else if safetensors::looks_like(bytes) {
            safetensors::read(bytes)
        } else {
            Err(Reason::new(explain_unknown(bytes)))
        };
        Self::from_tensors(tensors.map_err(Error::Checkpoint)?)
    }

    /// A checkpoint of tensors in memory, which have the names of PyTorch's `state_dict` or of folded weights.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if there are none.
    pub fn from_tensors(tensors: BTreeMap<String, Tensor>) -> Result<Self> {
        let prefixed = tensors.keys().all(|name| name.starts_with(PREFIX));
        let named = |(name, tensor): (String, Tensor)| match prefixed {
            true => (name[PREFIX.len()..].to_string(), tensor),
            false => (name, tensor),
        };
        let all = tensors.into_iter().map(named);
        let (tensors, counts): (BTreeMap<_, _>, _) = all.partition(|(_, tensor)| tensor.dtype().is_float());
        if tensors.is_empty() {
            return Err(Error::Checkpoint(Reason::new("the checkpoint holds no floating-point tensor")));
        }
        Ok(Self { tensors, counts })
    }

    /// The floating-point tensors by name.
    pub fn tensors(&self) -> &BTreeMap<String, Tensor> {
        &self.tensors
    }

    /// Those, and with them how many batches each batch norm has seen, in int64.
    pub(super) fn all_tensors(&self) -> BTreeMap<String, Tensor> {
        self.tensors.iter().chain(&self.counts).map(|(name, tensor)| (name.clone(), tensor.clone())).collect()
    }

    /// Whether they are folded weights, and not those of PyTorch's network.
    pub(super) fn is_folded(&self) -> bool {
        self.tensors.contains_key("stem.weight")
    }

    /// The tensors themselves.
    pub(super) fn into_tensors(self) -> BTreeMap<String, Tensor> {
        self.tensors
    }
}

/// What PyTorch's `DataParallel` puts before every name.
const PREFIX: &str = "module.";

/// Whether a tensor of integers says how many batches a batch norm has seen.
fn is_count(name: &str) -> bool {
    name.ends_with(".num_batches_tracked")
}

/// Whether steps from element to element can be computed for these sides: that is done with all of them, also of a tensor
/// without elements.
fn has_strides(shape: &[usize]) -> bool {
    shape.iter().filter(|side| **side > 0).try_fold(1usize, |product, side| product.checked_mul(*side)).is_some()
}

/// What a zip begins with.
const ZIP_MAGIC: &[u8] = b"PK\x03\x04";

/// Opens what may be a checkpoint file.
pub(super) fn open(path: &Path) -> Result<(File, Metadata)> {
    // Asked before it is opened: Windows opens no directory.
    if path.is_dir() {
        let reason = format!("{} is a directory, not a checkpoint file", path.display());
        return Err(Error::Checkpoint(Reason::new(reason)));
    }
    let file = File::open(path).map_err(Error::io("open", path))?;
    let metadata = file.metadata().map_err(Error::io("read", path))?;
    Ok((file, metadata))
}

/// Reads all content of the file at `path`, which must end before 2 GiB.
pub(super) fn read_all(content: impl Read, path: &Path) -> Result<Vec<u8>> {
    const LIMIT: u64 = 2 << 30;
    let mut bytes = Vec::new();
    content.take(LIMIT).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    let check = || -> Result<(), Reason> {
        let name = path.display();
        ensure!(!bytes.is_empty(), "{name} is empty");
        ensure!((bytes.len() as u64) < LIMIT, "{name} is larger than any checkpoint");
        Ok(())
    };
    check().map_err(Error::Checkpoint)?;
    Ok(bytes)
}

/// What a file of no known form most likely is, and what to do about it.
fn explain_unknown(bytes: &[u8]) -> String {
    const LEGACY_MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
    let start = &bytes[..bytes.len().min(64)];
    let contains = |needle: &[u8]| start.windows(needle.len()).any(|w| w == needle);
    // PyTorch's first format was a tar archive with members of these names.
    let is_tar = bytes.get(257..262) == Some(b"ustar");
    let members = ["sys_info", "pickle", "tensors", "storages"];
    let is_old_tar = is_tar && members.iter().any(|name| bytes.starts_with(name.as_bytes()));
    if contains(&LEGACY_MAGIC) || is_old_tar {
        "this is the format that PyTorch wrote before version 1.6; re-save it with a current one: \
         torch.save(torch.load(FILE, weights_only=False), 'weights.pth')"
            .into()
    } else if is_tar {
        "this is a tar archive, not a checkpoint; if there is one in it, unpack it".into()
    } else if start.starts_with(b"version https://git-lfs") {
        "this is a Git LFS pointer, not the weights; fetch them with `git lfs pull`".into()
    } else if start.trim_ascii_start().starts_with(b"<") {
        "this is a web page or XML, not a checkpoint; download the file itself".into()
    } else {
        "not a checkpoint: neither a zip that torch.save writes nor safetensors".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(bytes: &[u8]) -> String {
        Checkpoint::from_bytes(bytes).err().expect("must be refused").to_string()
    }

    #[test]
    fn unknown_files_are_explained() {
        // The first bytes of `torch.save(x, f, _use_new_zipfile_serialization=False)`.
        let legacy = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.";
        assert!(error(legacy).contains("re-save"));
        assert!(error(b"version https://git-lfs.github.com/spec/v1\n").contains("git lfs pull"));
        assert!(error(b"<!DOCTYPE html>").contains("web page"));
        assert!(error(b"hello").contains("neither"));
        let tar = |name: &str| {
            let mut header = [0; 512];
            header[..name.len()].copy_from_slice(name.as_bytes());
            header[257..262].copy_from_slice(b"ustar");
            header
        };
        assert!(error(&tar("sys_info")).contains("re-save"));
        assert!(error(&tar("val/0/1.png")).contains("a tar archive"));
    }

    #[test]
    fn a_safetensors_header_that_lies_is_refused() {
        let mut bytes = u64::MAX.to_le_bytes().to_vec();
        bytes.extend_from_slice(b"{}");
        assert!(error(&bytes).contains("header"), "{}", error(&bytes));
        let mut bytes = 100u64.to_le_bytes().to_vec();
        bytes.extend_from_slice(b"{\"a\":1}");
        assert!(error(&bytes).contains("header"), "{}", error(&bytes));
    }
}
