//! The zip that `torch.save` has written since PyTorch 1.6: a pickle that describes the tensors,
//! and one entry of raw elements for each storage.

use std::collections::BTreeMap;
use std::io::{Read, Seek};

use candle_core::{DType, Device, Tensor};
use zip::read::{ArchiveOffset, Config as ZipConfig};
use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use super::pickle::{self, Heap, Object, TensorRef, Value};
use super::{has_strides, is_count};
use crate::error::{Context, Reason, bail, ensure};

/// Weights of more bytes are no QLNet's, and nothing is gained by filling the memory with them.
const LARGEST: u64 = 2 << 30;

/// Tensors of more than any checkpoint: a QLNet has some hundreds. A pickle refers to one again and again in three
/// bytes, and each that is made of it takes some hundred.
const MOST_TENSORS: usize = 1 << 16;

/// Bytes of a name, or of the key of a storage, which PyTorch numbers. A pickle refers to a text again and again in two
/// bytes, and texts are copied and compared.
const LONGEST_NAME: usize = 1000;

/// The floating-point tensors of a training state's `state_dict`, or of a bare one, and the counts of batch norms, in a
/// zip of `length` bytes. Everything else in the file, the optimizer's tensors above all, is not read.
pub fn read(source: impl Read + Seek, length: u64) -> Result<BTreeMap<String, Tensor>, Reason> {
    let mut zip = Zip::new(source, length)?;
    let folder = zip.folder()?;
    if zip.has(&format!("{folder}byteorder")) {
        let order = zip.content(&format!("{folder}byteorder"))?;
        ensure!(order == b"little", "the tensors are big-endian; re-save the file on a little-endian machine");
    }

    let (heap, root) = pickle::load(&zip.content(&format!("{folder}data.pkl"))?).context("data.pkl")?;
    let mut tensors = BTreeMap::new();
    let mut read: Option<(&str, Vec<u8>)> = None;
    let mut total = 0u64;
    let mut references = state_dict(&heap, &root)?;
    // Storages in turn, so that each is read once however many tensors share it.
    references.sort_by(|a, b| a.1.storage.key.cmp(&b.1.storage.key));
    for (name, reference) in &references {
        let key = &*reference.storage.key;
        let storage = match read {
            Some((last, content)) if last == key => content,
            _ => zip.content(&format!("{folder}data/{key}"))?,
        };
        if let Some(tensor) = tensor(name, &storage, reference).with_context(|| format!("tensor `{name}`"))? {
            // Tensors may share storages; a few that do are no reason to fill the memory.
            total = total.saturating_add((tensor.elem_count() * tensor.dtype().size_in_bytes()) as u64);
            ensure!(total / 2 <= length, "the tensors are much larger than the file: they share their storages");
            ensure!(total <= LARGEST, "the tensors have over {LARGEST} bytes together, more than any QLNet's");
            tensors.insert(name.to_string(), tensor);
        }
        read = Some((key, storage));
    }
    Ok(tensors)
}

/// The entries of a zip as they lie in the file. PyTorch stores them without compression.
struct Zip<R> {
    archive: ZipArchive<R>,
    /// Of the whole file, in bytes.
    length: u64,
    /// Of all entries that have been read.
    read: u64,
}

impl<R: Read + Seek> Zip<R> {
    fn new(source: R, length: u64) -> Result<Self, Reason> {
        // Nothing comes before the archive. Left to find that out, the crate takes PyTorch's zip64 end
        // records for the first entry where both have 76 bytes: where the file was saved under a name
        // whose stem has 21.
        let config = ZipConfig { archive_offset: ArchiveOffset::Known(0) };
        Ok(Self { archive: ZipArchive::with_config(config, source).map_err(damaged)?, length, read: 0 })
    }

    /// The folder in which everything lies, with its `/`: the name under which the file was saved.
    fn folder(&self) -> Result<String, Reason> {
        for name in self.archive.file_names() {
            let name = name.map_err(damaged)?;
            if let Some(folder) = name.strip_suffix("data.pkl")
                && folder.matches('/').count() == usize::from(folder.ends_with('/'))
                && (folder.is_empty() || folder.ends_with('/'))
            {
                return Ok(folder.to_string());
            }
        }
        bail!("a zip without data.pkl: torch.save did not write this file")
    }

    fn has(&self, name: &str) -> bool {
        self.archive.index_for_name(name).is_some()
    }

    /// The content of an entry, checked against its CRC-32.
    fn content(&mut self, name: &str) -> Result<Vec<u8>, Reason> {
        let changed = || format!("damaged: `{name}` in the zip is not what was saved; fetch the file again");
        let index =
            self.archive.index_for_name(name).with_context(|| format!("damaged: `{name}` is missing in the zip"))?;
        let mut entry = self.archive.by_index_raw(index).map_err(damaged)?;
        ensure!(
            entry.compression() == CompressionMethod::Stored && !entry.encrypted(),
            "`{name}` in the zip is compressed, as torch.save never writes it; unpack and zip it with -0"
        );
        let size = entry.size();
        // A zip can list the same bytes under many names, and reading them all would take for ever.
        self.read = self.read.saturating_add(size);
        ensure!(self.read <= self.length, "{}", changed());
        ensure!(size <= LARGEST, "`{name}` in the zip has {size} bytes, more than any part of a QLNet");
        let mut content = Vec::new();
        content.try_reserve_exact(size as usize).with_context(|| format!("no memory for `{name}`"))?;
        ensure!(entry.by_ref().take(size).read_to_end(&mut content)? as u64 == size, "{}", changed());
        ensure!(crc32fast::hash(&content) == entry.crc32(), "{}", changed());
        Ok(content)
    }
}

fn damaged(error: ZipError) -> Reason {
    Reason::new(format!("damaged or incomplete: the zip cannot be read ({error}); fetch the file again"))
}

/// Finds the weights: under `state_dict` (timm, most scripts) or `model`, or the root itself.
fn state_dict<'a>(heap: &'a Heap, root: &'a Value) -> Result<Vec<(&'a str, &'a TensorRef)>, Reason> {
    let Some(items) = heap.dict(root) else {
        bail!("the file holds no dictionary of tensors; save model.state_dict(), not the model object");
    };
    let nested = ["state_dict", "model"]
        .iter()
        .find_map(|wanted| items.iter().find(|(key, value)| is_str(key, wanted) && heap.dict(value).is_some()));
    let items = nested.and_then(|(_, value)| heap.dict(value)).unwrap_or(items);
    let mut tensors = BTreeMap::new();
    for (key, value) in items {
        let (Value::Str(name), Some(Object::Tensor(tensor))) = (key, heap.get(value)) else { continue };
        ensure!(tensors.len() < MOST_TENSORS, "the file holds over {MOST_TENSORS} tensors, more than any checkpoint");
        for (what, text) in [("tensor with a name", &**name), ("storage with a key", &tensor.storage.key)] {
            ensure!(
                text.len() <= LONGEST_NAME,
                "the file has a {what} of {} bytes, and at most {LONGEST_NAME} are allowed; it begins with `{}`",
                text.len(),
                &text[..text.floor_char_boundary(50)]
            );
        }
        ensure!(tensors.insert(&**name, tensor).is_none(), "the file holds two tensors `{name}`, and one is allowed");
    }
    ensure!(!tensors.is_empty(), "the file holds no tensors under `state_dict`, `model` or at its top");
    Ok(tensors.into_iter().collect())
}

fn is_str(value: &Value, text: &str) -> bool {
    matches!(value, Value::Str(s) if **s == *text)
}

/// The tensor that `reference` describes, in row-major order; `None` if its elements are integers, and no count.
fn tensor(name: &str, storage: &[u8], reference: &TensorRef) -> Result<Option<Tensor>, Reason> {
    let wanted = |dtype: &DType| dtype.is_float() || is_count(name);
    let Some(dtype) = reference.storage.dtype.filter(wanted) else { return Ok(None) };
    let size = dtype.size_in_bytes();
    let expected = reference.storage.len.checked_mul(size).context("its storage is impossibly large")?;
    ensure!(storage.len() == expected, "its storage has {} bytes, {expected} expected", storage.len());

    let outside = "it reaches outside its storage";
    let (shape, stride) = (&reference.shape, &reference.stride);
    ensure!(has_strides(shape), "{outside}");
    let count = shape.iter().product();
    if count == 0 {
        return Ok(Some(Tensor::from_raw_buffer(&[], dtype, shape, &Device::Cpu)?));
    }
    let mut last = reference.offset;
    for (d, s) in shape.iter().zip(stride) {
        let reach = d.saturating_sub(1).checked_mul(*s).context(outside)?;
        last = last.checked_add(reach).context(outside)?;
    }
    ensure!(last < reference.storage.len, "{outside}");
    ensure!(count <= reference.storage.len, "it is an expanded view; save a contiguous copy");

    let start = reference.offset * size;
    let contiguous = {
        let mut step = 1;
        shape.iter().zip(stride).rev().all(|(d, s)| {
            let fits = *d == 1 || *s == step;
            step *= d;
            fits
        })
    };
    let tensor = if contiguous {
        Tensor::from_raw_buffer(&storage[start..start + count * size], dtype, shape, &Device::Cpu)?
    } else {
        let mut elements = Vec::with_capacity(count * size);
        let mut index = vec![0; shape.len()];
        for _ in 0..count {
            let at = start + index.iter().zip(stride).map(|(i, s)| i * s).sum::<usize>() * size;
            elements.extend_from_slice(&storage[at..at + size]);
            for (i, d) in index.iter_mut().zip(shape).rev() {
                *i += 1;
                if *i < *d {
                    break;
                }
                *i = 0;
            }
        }
        Tensor::from_raw_buffer(&elements, dtype, shape, &Device::Cpu)?
    };
    Ok(Some(tensor))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Vec<u8> {
        [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
    }

    /// The names that are listed for a pickle of a dictionary, in which they all stand for one empty tensor. Its storage
    /// has that key. A name after itself is the text of before, referred to.
    fn listed(key: &str, names: &[&str]) -> Result<Vec<String>, Reason> {
        let storage = [b"(", &text("storage")[..], b"ctorch\nFloatStorage\n", &text(key), &text("cpu"), b"K\0tQ"];
        let start = [b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(", &storage.concat()[..]].concat();
        let mut pickle = [&start[..], b"K\0(K\0t(K\x01t\x89)tRq\x010}("].concat();
        for (i, name) in names.iter().enumerate() {
            match i.checked_sub(1).is_some_and(|before| std::ptr::eq(names[before], *name)) {
                true => pickle.extend(b"h\x02h\x01"),
                false => pickle.extend([&text(name)[..], b"q\x02h\x01"].concat()),
            }
        }
        pickle.extend(b"u.");
        let (heap, root) = pickle::load(&pickle).unwrap();
        Ok(state_dict(&heap, &root)?.into_iter().map(|(name, _)| name.to_string()).collect())
    }

    fn error(key: &str, names: &[&str]) -> String {
        listed(key, names).unwrap_err().to_string()
    }

    #[test]
    fn names_and_keys_are_of_some_length() {
        let (long, longer) = ("n".repeat(1000), "n".repeat(1001));
        assert_eq!(listed(&long, &["b", &long, "a"]).unwrap(), ["a", "b", &long]);
        let start = "n".repeat(50);
        let allowed = format!("of 1001 bytes, and at most 1000 are allowed; it begins with `{start}`");
        assert_eq!(error("0", &["a", &longer]), format!("the file has a tensor with a name {allowed}"));
        assert_eq!(error(&longer, &["a"]), format!("the file has a storage with a key {allowed}"));
        // Half a minute for two megabytes: a name by reference.
        let million = "n".repeat(1 << 20);
        assert!(error("0", &vec![&*million; 250_000]).contains("a name of 1048576 bytes"));
        // No character is cut.
        assert!(error("0", &[&"я".repeat(501)]).ends_with(&format!("`{}`", "я".repeat(25))));
    }

    #[test]
    fn a_name_stands_for_one_tensor() {
        for names in [&["a", "a"][..], &["a", "b", "a"]] {
            assert_eq!(error("0", names), "the file holds two tensors `a`, and one is allowed");
        }
    }

    #[test]
    fn tensors_are_of_some_number() {
        let names: Vec<String> = (0..=MOST_TENSORS).map(|i| format!("{i:05}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(listed("0", &names[1..]).unwrap(), names[1..]);
        assert_eq!(error("0", &names), "the file holds over 65536 tensors, more than any checkpoint");
    }
}
