//! The product of the two halves of a 1x1 convolution: the network's only nonlinearity inside a
//! block, where others have ReLU.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, D, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{Float, for_float, on_cpu, slice};
use crate::simd::vectorised;

/// `(a + bias_a) * (b + bias_b)`, where `a` and `b` are the halves of the last dimension:
/// `[..., 2w]` and a bias `[2w]` make `[..., w]`.
pub fn gate(x: &Tensor, bias: &Tensor) -> Result<Tensor> {
    if x.device().is_cpu() {
        on_cpu(x, [bias], |x, [bias]| x.apply_op2_no_bwd(bias, &Gate))
    } else {
        gate_plain(x, bias)
    }
}

/// [`gate`] in candle's own operations.
pub fn gate_plain(x: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let w = x.dim(D::Minus1)? / 2;
    let x = x.broadcast_add(bias)?;
    x.narrow(D::Minus1, 0, w)? * x.narrow(D::Minus1, w, w)?
}

struct Gate;

impl CustomOp2 for Gate {
    fn name(&self) -> &'static str {
        "gate"
    }

    fn cpu_fwd(&self, x: &CpuStorage, xl: &Layout, b: &CpuStorage, bl: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut dims = xl.dims().to_vec();
        let last = dims.len() - 1;
        dims[last] /= 2;
        for_float!(x, T => {
            let out = product(slice::<T>(x, xl)?, slice(b, bl)?);
            Ok((<T as candle_core::WithDType>::to_cpu_storage_owned(out), dims.into()))
        })
    }
}

fn product<T: Float>(x: &[T], bias: &[T]) -> Vec<T> {
    let w = bias.len() / 2;
    let mut out = vec![T::ZERO; x.len() / 2];
    let pixels = (1usize << 14).div_ceil(w);
    out.par_chunks_mut(pixels * w).zip(x.par_chunks(pixels * 2 * w)).for_each(|(out, x)| {
        multiply(out, x, bias);
    });
    out
}

vectorised! {
    fn multiply<T: Float>(out: &mut [T], x: &[T], bias: &[T]) {
        let w = bias.len() / 2;
        let (bias_a, bias_b) = bias.split_at(w);
        for (out, x) in out.chunks_exact_mut(w).zip(x.chunks_exact(2 * w)) {
            let (a, b) = x.split_at(w);
            for i in 0..w {
                out[i] = (a[i] + bias_a[i]) * (b[i] + bias_b[i]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    #[test]
    fn fast_and_plain_agree() {
        for dtype in [DType::F32, DType::F64] {
            let x = Tensor::randn(0f32, 1.0, (2, 5, 7, 24), &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
            let bias = Tensor::randn(0f32, 1.0, 24, &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
            let (fast, plain) = (gate(&x, &bias).unwrap(), gate_plain(&x, &bias).unwrap());
            assert_eq!(fast.dims(), &[2, 5, 7, 12]);
            let difference = (fast - plain).unwrap().abs().unwrap().max_all().unwrap();
            assert_eq!(difference.to_dtype(DType::F64).unwrap().to_scalar::<f64>().unwrap(), 0.0);
        }
    }
}
