//! The safetensors form of a checkpoint.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use safetensors::{Dtype, SafeTensorError, SafeTensors};

use super::{has_strides, is_count};
use crate::error::{Reason, bail, ensure};

/// Whether the file begins as a safetensors file does: eight bytes of length, then a JSON object.
pub fn looks_like(bytes: &[u8]) -> bool {
    bytes.get(8) == Some(&b'{')
}

/// All floating-point tensors of a safetensors file, and the counts of batch norms.
pub fn read(bytes: &[u8]) -> Result<BTreeMap<String, Tensor>, Reason> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| {
        // Of several tensors with such faults the crate tells any, another one each time.
        let error = match error {
            SafeTensorError::InvalidOffset(_)
            | SafeTensorError::ValidationOverflow
            | SafeTensorError::MisalignedSlice
            | SafeTensorError::TensorInvalidInfo => "invalid shape, data type or offsets of a tensor".to_string(),
            other => other.to_string(),
        };
        Reason::new(format!(
            "damaged safetensors file: its header does not describe its {} bytes ({error})",
            bytes.len()
        ))
    })?;
    let mut tensors = BTreeMap::new();
    // So that of several that are refused it is always the same.
    let mut views: Vec<_> = file.iter().collect();
    views.sort_unstable_by_key(|(name, _)| *name);
    for (name, view) in views {
        let dtype = match view.dtype() {
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            Dtype::F32 => DType::F32,
            Dtype::F64 => DType::F64,
            Dtype::I64 if is_count(name) => DType::I64,
            Dtype::I8 | Dtype::I16 | Dtype::I32 | Dtype::I64 | Dtype::U8 | Dtype::BOOL => continue,
            other => bail!("tensor `{name}` has elements of type {other:?}; floating-point ones are needed"),
        };
        ensure!(has_strides(view.shape()), "tensor `{name}` has the sides {:?}", view.shape());
        let tensor = Tensor::from_raw_buffer(view.data(), dtype, view.shape(), &Device::Cpu)?;
        tensors.insert(name.to_string(), tensor);
    }
    Ok(tensors)
}
