//! How far apart weights are.

use candle_core::{Storage, Tensor};

use super::refused;
use crate::error::Result;
use crate::weights::Weights;

/// How far two networks' parameters are apart, relative to the norm of the first, over the tensors that
/// differ and that both have. If all of these are zero in the first network, the distance is not relative. Both are float64.
///
/// # Errors
/// [`crate::Error::Symmetry`] if the shapes of two tensors are not the same; [`crate::Error::Compute`] if one is not float64.
pub fn distance(from: &Weights, to: &Weights) -> Result<f64> {
    let (mut moved, mut whole) = (0.0, 0.0);
    for (name, tensor) in from.tensors() {
        // Tensors that no operation touched are shared.
        let Some(other) = to.tensors().get(name).filter(|other| other.id() != tensor.id()) else { continue };
        if other.shape() != tensor.shape() {
            return Err(refused(format!("`{name}` has the shape {:?}, not {:?}", other.dims(), tensor.dims())));
        }
        let [from, to] = [tensor.contiguous()?, other.contiguous()?];
        // In place: of a large network, copies alone would take as long as the sums.
        let [(from, from_layout), (to, to_layout)] = [&from, &to].map(Tensor::storage_and_layout);
        let (Storage::Cpu(from), Storage::Cpu(to)) = (&*from, &*to) else {
            return Err(refused("weights to compare are not on the CPU"));
        };
        let (from, to) = (from.as_slice::<f64>()?, to.as_slice::<f64>()?);
        let (from, to) = (&from[from_layout.start_offset()..], &to[to_layout.start_offset()..]);
        let count = tensor.elem_count();
        let squares = squares(&from[..count], &to[..count]);
        moved += squares.0;
        whole += squares.1;
    }
    Ok(if whole > 0.0 { (moved / whole).sqrt() } else { moved.sqrt() })
}

/// The sums of the squares of `to - from` and of `from`, in eight parts each, which a CPU computes side by side.
fn squares(from: &[f64], to: &[f64]) -> (f64, f64) {
    let (mut moved, mut whole) = ([0.0; 8], [0.0; 8]);
    for (from, to) in from.chunks(8).zip(to.chunks(8)) {
        for (part, (from, to)) in from.iter().zip(to).enumerate() {
            moved[part] += (to - from).powi(2);
            whole[part] += from.powi(2);
        }
    }
    (moved.iter().sum(), whole.iter().sum())
}
