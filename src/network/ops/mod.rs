//! The operations of the network, one a file, in candle's operations, which every device runs. Where
//! the CPU has a faster way ([`crate::network::cpu`], and [`depthwise`]'s own kernel), or GPUs have
//! ([`crate::network::gpu`]), tests compare it with the plain one.
//!
//! In come tensors, out go tensors; errors are candle's. Of the program it may use `cpu` and `gpu`, the configuration
//! of a block from `weights`, and how pixels are normalised from `input`.
//!
//! Activations are NHWC: a 1x1 convolution is then one matrix product, and everything else works
//! on contiguous channels.

mod depthwise;
mod fused;
mod gate;
mod gated;
mod hardball;
mod linear;
mod mean;
mod pixels;
mod product;
mod residual;
mod stem;
mod subsample;

pub use depthwise::{Depthwise, depthwise, depthwise_plain};
pub use fused::FusedBlock;
pub use gated::{GatedDepthwise, gated_depthwise};
pub use hardball::hardball;
pub use linear::FusedLinear;
pub use mean::mean;
pub use pixels::{channels_last, planes};
pub use product::product;
pub use residual::{biased, residual};
pub use stem::{FusedStem, WindowStem, stem, stem_plain};
pub use subsample::subsample;

use std::ops::{Deref, Range};

use candle_core::{CpuStorage, DType, Layout, Result, Storage, Tensor, WithDType, bail};

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

/// Whether a derivative will be asked for: kernels have none.
fn is_tracked(tensors: [&Tensor; 3]) -> bool {
    tensors.into_iter().any(Tensor::track_op)
}

/// The elements of a contiguous CPU tensor.
fn slice<'a, T: WithDType>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<T>()?[start..end]),
        None => bail!("a contiguous tensor is needed, found strides {:?}", layout.stride()),
    }
}

/// The elements of a float32 tensor on the CPU, in its order.
enum Values<S> {
    InPlace(S, Range<usize>),
    Copied(Vec<f32>),
}

/// The elements of a tensor, which are copied if they are not contiguous.
fn values(tensor: &Tensor) -> Result<Values<impl Deref<Target = Storage>>> {
    let (storage, layout) = tensor.storage_and_layout();
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(Values::InPlace(storage, start..end)),
        None => Ok(Values::Copied(tensor.flatten_all()?.to_vec1()?)),
    }
}

impl<S: Deref<Target = Storage>> Values<S> {
    fn as_slice(&self) -> Result<&[f32]> {
        match self {
            Self::InPlace(storage, range) => match &**storage {
                Storage::Cpu(storage) => Ok(&storage.as_slice()?[range.clone()]),
                _ => bail!("a tensor on the CPU is needed"),
            },
            Self::Copied(values) => Ok(values),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::tests::test_stream;
    use candle_core::{Device, Shape, Var};
    use rand_distr::{Distribution, StandardNormal};

    /// The operations that a derivative goes through give what the kernels give, and the derivative is that
    /// of differences.
    #[test]
    fn tracked_operations_have_values_and_derivatives() {
        let mut rng = test_stream(1);
        let mut normal = |shape: &[usize]| {
            let count = Shape::from(shape).elem_count();
            let values: Vec<f64> = StandardNormal.sample_iter(&mut rng).take(count).collect();
            Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
        };
        let (weight, bias) = (normal(&[5, 3, 7, 7]), normal(&[5]));
        let (filters, filter_bias) = (normal(&[10, 1, 3, 3]), normal(&[10]));
        // Odd sizes: of even ones candle cannot derive a convolution with a stride.
        for (h, w) in [(21, 17), (33, 9), (1, 3)] {
            let images = normal(&[2, 3, h, w]);
            let run = |weight: &Tensor, filters: &Tensor| {
                let x = stem(&images, weight, &bias).unwrap();
                depthwise(&x, &Depthwise::new(filters, &filter_bias, 2, 2).unwrap()).unwrap()
            };
            let expected = run(&weight, &filters);
            let (weight, filters) = (Var::from_tensor(&weight).unwrap(), Var::from_tensor(&filters).unwrap());
            let found = run(weight.as_tensor(), filters.as_tensor());
            let largest = |t: &Tensor| t.abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap();
            assert!(largest(&(&found - &expected).unwrap()) < 1e-12 * largest(&expected), "{h}x{w}");

            let weights = normal(found.dims());
            let sum = |y: &Tensor| (y * &weights).unwrap().sum_all().unwrap();
            let gradients = sum(&found).backward().unwrap();
            for (var, first) in [(&weight, true), (&filters, false)] {
                let direction = normal(var.dims());
                let along = (gradients.get(var).unwrap() * &direction).unwrap().sum_all().unwrap();
                let at = |step: f64| {
                    let moved = (var.as_tensor().detach() + (&direction * step).unwrap()).unwrap();
                    let y = if first { run(&moved, &filters.detach()) } else { run(&weight.detach(), &moved) };
                    sum(&y).to_scalar::<f64>().unwrap()
                };
                let (found, expected) = (along.to_scalar::<f64>().unwrap(), (at(1e-7) - at(-1e-7)) / 2e-7);
                assert!((found - expected).abs() < 1e-4 * expected.abs().max(1.0), "{h}x{w}: {found} {expected}");
            }
        }
    }
}
