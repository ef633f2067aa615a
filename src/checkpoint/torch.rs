//! The zip that `torch.save` has written since PyTorch 1.6: a pickle that describes the tensors,
//! and one entry of raw elements for each storage.

use std::collections::BTreeMap;
use std::io::Cursor;

use anyhow::{Context, Result, anyhow, bail, ensure};
use candle_core::{Device, Tensor};
use zip::{CompressionMethod, ZipArchive};

use super::pickle::{self, Heap, Object, TensorRef, Value};

/// The tensors of a training state's `state_dict`, or of a bare one. Everything else in the file,
/// the optimizer's tensors above all, is not read.
pub fn read(bytes: &[u8]) -> Result<BTreeMap<String, Tensor>> {
    let zip = Zip::new(bytes)?;
    let pickle = zip
        .entries
        .keys()
        .find(|name| *name == "data.pkl" || name.ends_with("/data.pkl"))
        .context("a zip without data.pkl: torch.save did not write this file")?;
    let folder = pickle.trim_end_matches("data.pkl");
    if zip.entries.contains_key(&format!("{folder}byteorder")) {
        let order = zip.content(&format!("{folder}byteorder"))?;
        ensure!(order == b"little", "the tensors are big-endian; re-save the file on a little-endian machine");
    }

    let (heap, root) = pickle::load(zip.content(pickle)?).context("data.pkl")?;
    let mut tensors = BTreeMap::new();
    let mut checked: Option<(&str, &[u8])> = None;
    let mut total = 0usize;
    let mut references = state_dict(&heap, &root)?;
    // Storages in turn, so that each is checked once however many tensors share it.
    references.sort_by(|a, b| a.1.storage.key.cmp(&b.1.storage.key));
    for (name, reference) in &references {
        let key = &*reference.storage.key;
        let storage = match checked {
            Some((checked, content)) if checked == key => content,
            _ => zip.content(&format!("{folder}data/{key}"))?,
        };
        checked = Some((key, storage));
        if let Some(tensor) = tensor(storage, reference).with_context(|| format!("tensor `{name}`"))? {
            // Tensors may share storages; a few that do are no reason to fill the memory.
            total = total.saturating_add(tensor.elem_count() * tensor.dtype().size_in_bytes());
            ensure!(total / 2 <= bytes.len(), "the tensors are much larger than the file: they share their storages");
            tensors.insert(name.to_string(), tensor);
        }
    }
    Ok(tensors)
}

/// The entries of a zip as they lie in the file. PyTorch stores them without compression.
struct Zip<'a> {
    bytes: &'a [u8],
    entries: BTreeMap<String, Entry>,
}

struct Entry {
    start: u64,
    size: u64,
    crc32: u32,
    stored: bool,
}

impl<'a> Zip<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self> {
        let damaged = |error| anyhow!("damaged or incomplete: the zip cannot be read ({error}); fetch the file again");
        let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(damaged)?;
        let mut entries = BTreeMap::new();
        for i in 0..archive.len() {
            let file = archive.by_index_raw(i).map_err(damaged)?;
            let stored = file.compression() == CompressionMethod::Stored && !file.encrypted();
            let start = file.data_start().context("damaged or incomplete: an entry of the zip has no content")?;
            let name = file.name().map_err(damaged)?.into_owned();
            entries.insert(name, Entry { start, size: file.size(), crc32: file.crc32(), stored });
        }
        Ok(Self { bytes, entries })
    }

    /// The content of an entry, checked against its CRC-32.
    fn content(&self, name: &str) -> Result<&'a [u8]> {
        let damaged = || format!("damaged: `{name}` in the zip is not what was saved; fetch the file again");
        let entry = self.entries.get(name).with_context(|| format!("damaged: `{name}` is missing in the zip"))?;
        ensure!(
            entry.stored,
            "`{name}` in the zip is compressed, as torch.save never writes it; unpack and zip it with -0"
        );
        let (start, size) = (usize::try_from(entry.start)?, usize::try_from(entry.size)?);
        let content = self.bytes.get(start..).and_then(|rest| rest.get(..size)).with_context(damaged)?;
        ensure!(crc32fast::hash(content) == entry.crc32, damaged());
        Ok(content)
    }
}

/// Finds the weights: under `state_dict` (timm, most scripts) or `model`, or the root itself.
fn state_dict<'a>(heap: &'a Heap, root: &'a Value) -> Result<Vec<(&'a str, &'a TensorRef)>> {
    let Some(items) = heap.dict(root) else {
        bail!("the file holds no dictionary of tensors; save model.state_dict(), not the model object");
    };
    let nested = ["state_dict", "model"]
        .iter()
        .find_map(|wanted| items.iter().find(|(key, value)| is_str(key, wanted) && heap.dict(value).is_some()));
    let items = nested.and_then(|(_, value)| heap.dict(value)).unwrap_or(items);
    let tensors: Vec<_> = items
        .iter()
        .filter_map(|(key, value)| match (key, heap.get(value)) {
            (Value::Str(name), Some(Object::Tensor(tensor))) => Some((&**name, tensor)),
            _ => None,
        })
        .collect();
    ensure!(!tensors.is_empty(), "the file holds no tensors under `state_dict`, `model` or at its top");
    Ok(tensors)
}

fn is_str(value: &Value, text: &str) -> bool {
    matches!(value, Value::Str(s) if **s == *text)
}

/// The tensor that `reference` describes, in row-major order; `None` if its elements are integers.
fn tensor(storage: &[u8], reference: &TensorRef) -> Result<Option<Tensor>> {
    let Some(dtype) = reference.storage.dtype else { return Ok(None) };
    let size = dtype.size_in_bytes();
    let expected = reference.storage.len.checked_mul(size).context("its storage is impossibly large")?;
    ensure!(storage.len() == expected, "its storage has {} bytes, {expected} expected", storage.len());

    let outside = "it reaches outside its storage";
    let (shape, stride) = (&reference.shape, &reference.stride);
    let count = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).context(outside)?;
    if count == 0 {
        return Ok(Some(Tensor::from_raw_buffer(&[], dtype, shape, &Device::Cpu)?));
    }
    let mut last = reference.offset;
    for (d, s) in shape.iter().zip(stride) {
        let reach = d.saturating_sub(1).checked_mul(*s).context(outside)?;
        last = last.checked_add(reach).context(outside)?;
    }
    ensure!(last < reference.storage.len, outside);
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
