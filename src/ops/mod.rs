//! The operations of the network, one a file, in candle's operations, which every device runs. Where
//! the CPU has a faster way ([`crate::cpu`], and [`depthwise`]'s own kernel), it is tested against
//! the plain one.
//!
//! Activations are NHWC: a 1x1 convolution is then one matrix product, and everything else works
//! on contiguous channels.

mod depthwise;
mod fused;
mod gate;
mod hardball;
mod stem;

pub use depthwise::{Depthwise, depthwise, depthwise_plain};
pub use fused::FusedBlock;
pub use gate::gate;
pub use hardball::hardball;
pub use stem::{stem, stem_plain};

use candle_core::{CpuStorage, DType, Layout, Result, Tensor, WithDType, bail};

/// Runs a CPU kernel on an activation and its parameters. Kernels know float32 and float64; half
/// precision is computed in float32 and rounded at the end.
fn on_cpu<const N: usize>(
    x: &Tensor,
    parameters: [&Tensor; N],
    kernel: impl FnOnce(&Tensor, [&Tensor; N]) -> Result<Tensor>,
) -> Result<Tensor> {
    let x = x.contiguous()?;
    match x.dtype() {
        DType::F16 | DType::BF16 => {
            let mut wide = Vec::with_capacity(N);
            for parameter in parameters {
                wide.push(parameter.to_dtype(DType::F32)?);
            }
            kernel(&x.to_dtype(DType::F32)?, std::array::from_fn(|i| &wide[i]))?.to_dtype(x.dtype())
        }
        _ => kernel(&x, parameters),
    }
}

/// The elements of a contiguous CPU tensor.
fn slice<'a, T: WithDType>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<T>()?[start..end]),
        None => bail!("a contiguous tensor is needed, found strides {:?}", layout.stride()),
    }
}
