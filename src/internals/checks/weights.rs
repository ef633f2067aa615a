//! Checkpoints, and what is kept of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use candle_core::{DType, Device, Tensor};

use super::{Outcome, file, one_line, twice};
use crate::network::Precision;
use crate::network::cpu::operand::Products;
use crate::network::packed_file::PackedFile;
use crate::weights::checkpoint::pickle::{self, Heap, Value};
use crate::weights::{Checkpoint, Weights, cache};

/// A checkpoint file of whatever form.
pub fn checkpoint(bytes: &[u8]) -> Outcome {
    let checkpoint = twice(|| Checkpoint::from_bytes(bytes), |one, other| same(one.tensors(), other.tensors()))?;
    let size: usize = checkpoint.tensors().values().map(size).sum();
    assert!(size <= 2 * bytes.len(), "{size} bytes of tensors in a file of {}", bytes.len());
    let weights = Weights::from_checkpoint(&checkpoint).map_err(|error| one_line(&error))?;
    weights.config().check().expect("weights have a configuration that is whole");
    for (name, tensor) in weights.tensors() {
        assert!(elements(tensor).iter().all(|value| f32::from_bits(*value).is_finite()), "{name} is not finite");
    }
    let written = weights.to_safetensors().expect("weights can be written");
    let again = Weights::from_bytes(&written).expect("what was written can be read");
    assert_eq!(again.config(), weights.config());
    same(again.tensors(), weights.tensors());
    Ok(())
}

/// A pickle.
pub fn pickle(bytes: &[u8]) -> Outcome {
    // Enough to see a difference.
    let shown = |heap: &Heap, value: &Value| {
        let object = |index| heap.get(&Value::Object(index)).map(|object| format!("{object:.200?}"));
        (format!("{value:?}"), (0..200).map_while(object).collect::<Vec<_>>())
    };
    let (heap, value) =
        twice(|| pickle::load(bytes), |one, other| assert_eq!(shown(&one.0, &one.1), shown(&other.0, &other.1)))?;
    assert!(!matches!(value, Value::Object(_)) || heap.get(&value).is_some(), "a reference to no object");
    Ok(())
}

/// A file of folded weights in the cache.
pub fn folded(bytes: &[u8], scratch: &Path) -> Outcome {
    file(scratch, &format!("0123.{}.safetensors", cache::FORMAT), bytes);
    let find = || cache::find(scratch, "0123").ok_or("not whole");
    let weights = twice(find, |one, other| same(one.tensors(), other.tensors()))?;
    weights.config().check().expect("weights have a configuration that is whole");
    Ok(())
}

/// A file of packed weights in the cache, for each of what networks compute in: either the whole file, or the JSON of a
/// network's dimensions, a line break and the data, which get what has to be before them.
pub fn packed(bytes: &[u8], scratch: &Path) -> Outcome {
    let kinds =
        [(Precision::F32, Products::Float32), (Precision::Bf16, Products::Bfloat16), (Precision::Int8, Products::Int8)];
    let outcomes = kinds.map(|(precision, products)| packed_for(bytes, scratch, precision, products));
    // They have other lengths.
    outcomes.into_iter().reduce(Result::or).expect("there are three")
}

fn packed_for(bytes: &[u8], scratch: &Path, precision: Precision, products: Products) -> Outcome {
    let file = PackedFile::new(scratch, SHA256, precision, products, "");
    let whole = if bytes.starts_with(MAGIC) { bytes.to_vec() } else { with_header(bytes, file.path()) };
    fs::write(file.path(), whole).expect("the folder for scratch files can be written");
    let network = twice(|| file.read().ok_or("not whole"), |one, other| assert_eq!(one.config(), other.config()))?;
    let images = Tensor::zeros((1, 3, 32, 32), DType::F32, &Device::Cpu).expect("a small tensor");
    let logits = network.forward(&images).expect("a network that is whole can be run");
    assert_eq!(logits.dims(), [1, network.config().num_classes]);
    Ok(())
}

/// What a file of packed weights begins with.
const MAGIC: &[u8] = b"QLNETPKD";
const SHA256: &str = "0123";

/// A whole file of packed weights, with the header that it needs to be read from this path.
fn with_header(bytes: &[u8], path: &Path) -> Vec<u8> {
    const PAGE: usize = 4096;
    let (config, data) = bytes.split_at(bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len()));
    let data = data.get(1..).unwrap_or_default();
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let key = name.replacen('.', " ", 1);
    let start = format!(r#"{{"key":"{key}","length":{},"config":"#, data.len());
    let header = [start.as_bytes(), config, b"}"].concat();
    let mut whole = MAGIC.to_vec();
    for number in [header.len() as u32, crc32fast::hash(&header), crc32fast::hash(data)] {
        whole.extend(number.to_le_bytes());
    }
    whole.extend(header);
    whole.resize(whole.len().next_multiple_of(PAGE), 0);
    whole.extend(data);
    whole
}

/// Checks that two sets of tensors are the same, to the bit.
fn same(one: &BTreeMap<String, Tensor>, other: &BTreeMap<String, Tensor>) {
    assert!(one.keys().eq(other.keys()), "other names");
    for (name, tensor) in one {
        let other = &other[name];
        assert!(tensor.dtype() == other.dtype() && tensor.dims() == other.dims(), "{name} has another shape");
        assert!(elements(tensor) == elements(other), "{name} has other elements");
    }
}

/// The elements of a tensor, as the bits of float32.
fn elements(tensor: &Tensor) -> Vec<u32> {
    let values = tensor.to_dtype(DType::F32).and_then(|tensor| tensor.flatten_all()?.to_vec1::<f32>());
    values.expect("a tensor on the CPU").into_iter().map(f32::to_bits).collect()
}

fn size(tensor: &Tensor) -> usize {
    tensor.elem_count() * tensor.dtype().size_in_bytes()
}
