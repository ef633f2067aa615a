//! The operations of the network, one a file, each with a plain candle version that every device
//! runs and a fast one for the CPU that is tested against it.
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
pub use gate::{gate, gate_plain};
pub(crate) use hardball::project_all;
pub use hardball::{hardball, hardball_plain};
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

/// Runs `$body` with `$T` as `f32` or `f64`, after the element type of the storage.
macro_rules! for_float {
    ($storage:expr, $T:ident => $body:expr) => {
        match $storage.dtype() {
            candle_core::DType::F32 => {
                type $T = f32;
                $body
            }
            candle_core::DType::F64 => {
                type $T = f64;
                $body
            }
            other => candle_core::bail!("no CPU kernel for {other:?}"),
        }
    };
}
use for_float;

/// float32 and float64, as far as the CPU kernels use them.
pub(crate) trait Float: WithDType {
    const ZERO: Self;
    fn sqrt(self) -> Self;
    fn from_usize(n: usize) -> Self;
}

macro_rules! impl_float {
    ($($T:ident),*) => {$(
        impl Float for $T {
            const ZERO: Self = 0.0;
            #[inline(always)]
            fn sqrt(self) -> Self {
                $T::sqrt(self)
            }
            fn from_usize(n: usize) -> Self {
                n as $T
            }
        }
    )*};
}
impl_float!(f32, f64);
