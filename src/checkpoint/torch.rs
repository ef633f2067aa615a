//! The zip that `torch.save` has written since PyTorch 1.6: a pickle that describes the tensors,
//! and one entry of raw elements for each storage.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};

use anyhow::{Context, Result, bail, ensure};
use candle_core::Tensor;
use zip::ZipArchive;

use super::pickle::{self, Heap, Object, TensorRef, Value};

/// The tensors of a training state's `state_dict`, or of a bare one. Everything else in the file,
/// the optimizer's tensors above all, is not read.
pub fn read(bytes: &[u8]) -> Result<BTreeMap<String, Tensor>> {
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|error| {
        anyhow::anyhow!("damaged or incomplete: the zip cannot be read ({error}); fetch the file again")
    })?;
    let pickle_name = archive
        .file_names()
        .filter_map(|name| Some(name.ok()?.into_owned()))
        .find(|name| name == "data.pkl" || name.ends_with("/data.pkl"))
        .context("a zip without data.pkl: torch.save did not write this file")?;
    let folder = pickle_name.trim_end_matches("data.pkl").to_string();
    if archive.index_for_name(&format!("{folder}byteorder")).is_some() {
        let order = entry(&mut archive, &format!("{folder}byteorder"))?;
        ensure!(order == b"little", "the tensors are big-endian; re-save the file on a little-endian machine");
    }

    let (heap, root) = pickle::load(&entry(&mut archive, &pickle_name)?).context("data.pkl")?;
    let mut references = state_dict(&heap, &root)?;
    // Storages in turn, so that each is read once however many tensors share it.
    references.sort_by(|a, b| a.1.storage.key.cmp(&b.1.storage.key));
    let mut tensors = BTreeMap::new();
    let mut loaded: Option<(&str, Vec<u8>)> = None;
    for (name, reference) in &references {
        let key = &*reference.storage.key;
        if loaded.as_ref().is_none_or(|(loaded, _)| *loaded != key) {
            loaded = Some((key, entry(&mut archive, &format!("{folder}data/{key}"))?));
        }
        let elements = loaded.as_ref().map_or(&[][..], |(_, bytes)| bytes);
        if let Some(tensor) = tensor(elements, reference).with_context(|| format!("tensor `{name}`"))? {
            tensors.insert(name.to_string(), tensor);
        }
    }
    Ok(tensors)
}

/// The bytes of one zip entry, checked against its CRC-32.
fn entry(archive: &mut ZipArchive<Cursor<&[u8]>>, name: &str) -> Result<Vec<u8>> {
    let damaged = || format!("damaged: cannot read `{name}` in the zip; fetch the file again");
    let mut file = archive.by_name(name).with_context(damaged)?;
    // The size is the file's own claim: a bound to read to, not a number to allocate blindly.
    let size = file.size();
    let mut bytes = Vec::with_capacity(size.min(1 << 26) as usize);
    // One byte more than claimed, so that the reader meets the end, where the zip crate compares
    // the checksum, and a bomb cannot unfold.
    file.by_ref().take(size.saturating_add(1)).read_to_end(&mut bytes).with_context(damaged)?;
    ensure!(bytes.len() as u64 == size, damaged());
    Ok(bytes)
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
    let mut last = reference.offset;
    for (d, s) in shape.iter().zip(stride) {
        let reach = d.saturating_sub(1).checked_mul(*s).context(outside)?;
        last = last.checked_add(reach).context(outside)?;
    }
    ensure!(count == 0 || last < reference.storage.len, outside);
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
    let tensor = if count == 0 {
        super::tensor_from_bytes(&[], dtype, shape)?
    } else if contiguous {
        super::tensor_from_bytes(&storage[start..start + count * size], dtype, shape)?
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
        super::tensor_from_bytes(&elements, dtype, shape)?
    };
    Ok(Some(tensor))
}
