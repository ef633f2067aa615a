//! The depthwise 3x3 convolution, with one or several filters per channel.
//!
//! candle's `conv2d` with groups runs one convolution per group and concatenates them, hundreds of
//! launches here. The plain version below is nine shifted products whatever the channels. On the CPU
//! that takes about twenty times as long as the kernel below, which is one pass; blocks in float32 use neither, but
//! [`FusedBlock`](super::FusedBlock).
//!
//! With `f` filters per channel the outputs are ordered filter by filter, `[filter 0 of all
//! channels, filter 1 of all channels, ...]`, where PyTorch puts the filters of one channel side by
//! side. Each filter then reads and writes contiguous channels. [`Depthwise::new`] and
//! [`Depthwise::reorder_columns`] convert, once, at load.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, WithDType, bail};
use rayon::prelude::*;

use super::{is_tracked, on_cpu, slice};
use crate::simd::vectorised;

/// The parameters of a depthwise convolution, padding 1.
#[derive(Clone, Debug)]
pub struct Depthwise {
    /// `[9, f, channels]`: for every tap, row by row, the weights of each filter.
    pub(super) weight: Tensor,
    /// `[f * channels]`, filter by filter.
    pub(super) bias: Tensor,
    pub(super) stride: usize,
}

impl Depthwise {
    /// From PyTorch's weight `[channels * f, 1, 3, 3]` and bias `[channels * f]`, in which output
    /// `f * c + k` is filter `k` of channel `c`.
    ///
    /// # Errors
    /// If the shapes do not fit.
    ///
    /// # Panics
    /// If `filters` is zero.
    pub fn new(weight: &Tensor, bias: &Tensor, filters: usize, stride: usize) -> Result<Self> {
        let channels = weight.dim(0)? / filters;
        let weight = weight.reshape((channels, filters, 9))?.permute((2, 1, 0))?.contiguous()?;
        let bias = bias.reshape((channels, filters))?.t()?.flatten_all()?;
        Ok(Self { weight, bias, stride })
    }

    /// Reorders the columns `[o, channels * f]` of the map that reads a depthwise convolution's
    /// output from PyTorch's order to ours.
    ///
    /// # Errors
    /// If there are not as many columns as outputs.
    ///
    /// # Panics
    /// If `filters` is zero.
    pub fn reorder_columns(weight: &Tensor, filters: usize) -> Result<Tensor> {
        let (rows, columns) = weight.dims2()?;
        weight.reshape((rows, columns / filters, filters))?.transpose(1, 2)?.reshape((rows, columns))
    }
}

/// `[n, h, w, channels]` to `[n, ceil(h / stride), ceil(w / stride), f * channels]`.
///
/// # Errors
/// If the shapes do not fit, or the device fails.
pub fn depthwise(x: &Tensor, conv: &Depthwise) -> Result<Tensor> {
    if x.device().is_cpu() && !is_tracked([x, &conv.weight, &conv.bias]) {
        let kernel = Kernel { stride: conv.stride };
        on_cpu(x, [&conv.weight, &conv.bias], |x, [weight, bias]| x.apply_op3_no_bwd(weight, bias, &kernel))
    } else {
        depthwise_plain(x, conv)
    }
}

/// [`depthwise`] in candle's own operations: a number of launches that depends on the nine taps
/// only.
///
/// # Errors
/// As [`depthwise`].
pub fn depthwise_plain(x: &Tensor, conv: &Depthwise) -> Result<Tensor> {
    let (n, h, w, c) = x.dims4()?;
    let (_, filters, _) = conv.weight.dims3()?;
    let s = conv.stride;
    let (oh, ow) = (h.div_ceil(s), w.div_ceil(s));
    // Padded so far that every tap is a view of `s * oh` rows and columns, of which every `s`-th
    // counts: the rows of each phase are split off by a reshape.
    let (ph, pw) = (s * (oh + 2), s * (ow + 2));
    let x = x.pad_with_zeros(1, 1, ph - h - 1)?.pad_with_zeros(2, 1, pw - w - 1)?;
    let x = x.reshape(&[n, ph / s, s, pw / s, s, c][..])?;
    let mut sum = conv.bias.reshape((1, 1, 1, filters, c))?.broadcast_as((n, oh, ow, filters, c))?;
    for tap in 0..9 {
        let (ky, kx) = (tap / 3, tap % 3);
        let view = x
            .narrow(1, ky / s, oh)?
            .narrow(2, ky % s, 1)?
            .narrow(3, kx / s, ow)?
            .narrow(4, kx % s, 1)?
            .reshape((n, oh, ow, 1, c))?;
        sum = (sum + view.broadcast_mul(&conv.weight.get(tap)?)?)?;
    }
    sum.reshape((n, oh, ow, filters * c))
}

/// The convolution in one pass, on the CPU.
struct Kernel {
    stride: usize,
}

impl CustomOp3 for Kernel {
    fn name(&self) -> &'static str {
        "depthwise"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        w: &CpuStorage,
        wl: &Layout,
        b: &CpuStorage,
        bl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let shape @ (n, height, width, c) = xl.shape().dims4()?;
        let (_, filters, channels) = wl.shape().dims3()?;
        if channels != c || bl.dims() != [filters * c] {
            bail!("depthwise filters for {channels} channels, found {:?} and {:?}", xl.dims(), bl.dims());
        }
        let out = match x {
            CpuStorage::F32(_) => CpuStorage::F32(self.run(slice(x, xl)?, shape, slice(w, wl)?, slice(b, bl)?)),
            CpuStorage::F64(_) => CpuStorage::F64(self.run(slice(x, xl)?, shape, slice(w, wl)?, slice(b, bl)?)),
            other => bail!("no depthwise kernel for {:?}", other.dtype()),
        };
        Ok((out, (n, height.div_ceil(self.stride), width.div_ceil(self.stride), filters * c).into()))
    }
}

impl Kernel {
    fn run<T: WithDType>(
        &self,
        x: &[T],
        (n, h, w, c): (usize, usize, usize, usize),
        weight: &[T],
        bias: &[T],
    ) -> Vec<T> {
        let (oh, ow, outputs) = (h.div_ceil(self.stride), w.div_ceil(self.stride), bias.len());
        let mut out = vec![T::zero(); n * oh * ow * outputs];
        out.par_chunks_mut(ow * outputs).enumerate().for_each(|(row, out)| {
            let image = &x[row / oh * h * w * c..][..h * w * c];
            convolve_row(out, image, weight, bias, row % oh * self.stride, self.stride, (h, w));
        });
        out
    }
}

vectorised! {
    /// One row of output pixels of an image `[h, w, channels]`, whose window begins at the row above `top`.
    fn convolve_row<T: WithDType>(
        out: &mut [T],
        image: &[T],
        weight: &[T],
        bias: &[T],
        top: usize,
        stride: usize,
        size: (usize, usize),
    ) {
        let (h, w) = size;
        let c = image.len() / (h * w);
        for (ox, out) in out.chunks_exact_mut(bias.len()).enumerate() {
            out.copy_from_slice(bias);
            for (tap, weight) in weight.chunks_exact(bias.len()).enumerate() {
                // One more than the row and the column, which may be -1.
                let (y, x) = (top + tap / 3, ox * stride + tap % 3);
                if !(1..=h).contains(&y) || !(1..=w).contains(&x) {
                    continue;
                }
                let pixel = &image[((y - 1) * w + x - 1) * c..][..c];
                for (out, weight) in out.chunks_exact_mut(c).zip(weight.chunks_exact(c)) {
                    for ((out, x), weight) in out.iter_mut().zip(pixel).zip(weight) {
                        *out += *x * *weight;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{normal, tests::test_stream};
    use candle_core::{D, DType};

    fn distance(a: &Tensor, b: &Tensor) -> f64 {
        assert_eq!(a.dims(), b.dims());
        (a - b).unwrap().abs().unwrap().max_all().unwrap().to_dtype(DType::F64).unwrap().to_scalar().unwrap()
    }

    /// candle's own grouped convolution, in our order of outputs.
    fn candle(x: &Tensor, weight: &Tensor, bias: &Tensor, filters: usize, stride: usize) -> Tensor {
        let channels = weight.dim(0).unwrap() / filters;
        let x = x.permute((0, 3, 1, 2)).unwrap().contiguous().unwrap();
        let y = x.conv2d(weight, 1, stride, 1, channels).unwrap();
        let y = y.broadcast_add(&bias.reshape((1, (), 1, 1)).unwrap()).unwrap();
        let (n, rows, h, w) = y.dims4().unwrap();
        let y = y.reshape((n, channels, filters, h, w)).unwrap().permute((0, 3, 4, 2, 1)).unwrap();
        y.reshape((n, h, w, rows)).unwrap()
    }

    #[test]
    fn fast_plain_and_candle_agree() {
        let rng = &mut test_stream(1);
        let mut random = |shape: &[usize]| normal(shape, rng).unwrap();
        for (h, w, channels, filters, stride) in
            [(6, 6, 8, 2, 1), (7, 5, 8, 2, 2), (8, 6, 40, 1, 2), (5, 9, 33, 1, 1), (1, 1, 4, 2, 1), (1, 2, 4, 3, 2)]
        {
            let x = random(&[2, h, w, channels]);
            let (weight, bias) = (random(&[channels * filters, 1, 3, 3]), random(&[channels * filters]));
            let conv = Depthwise::new(&weight, &bias, filters, stride).unwrap();
            let fast = depthwise(&x, &conv).unwrap();
            let plain = depthwise_plain(&x, &conv).unwrap();
            let candle = candle(&x, &weight, &bias, filters, stride);
            assert!(distance(&fast, &candle) < 1e-5, "fast, {h}x{w}, {channels}x{filters}, stride {stride}");
            assert!(distance(&plain, &candle) < 1e-5, "plain, {h}x{w}, {channels}x{filters}, stride {stride}");
        }
    }

    #[test]
    fn reordered_columns_read_reordered_outputs() {
        let rng = &mut test_stream(1);
        let mut random = |shape: &[usize]| normal(shape, rng).unwrap();
        let (channels, filters) = (6, 2);
        let x = random(&[1, 4, 4, channels]);
        let (weight, bias) = (random(&[channels * filters, 1, 3, 3]), random(&[channels * filters]));
        let reader = random(&[3, channels * filters]);
        let ours = depthwise(&x, &Depthwise::new(&weight, &bias, filters, 1).unwrap()).unwrap();
        let ours = ours.broadcast_matmul(&Depthwise::reorder_columns(&reader, filters).unwrap().t().unwrap()).unwrap();
        let x = x.permute((0, 3, 1, 2)).unwrap().contiguous().unwrap();
        let theirs = x.conv2d(&weight, 1, 1, 1, channels).unwrap();
        let theirs = theirs.broadcast_add(&bias.reshape((1, (), 1, 1)).unwrap()).unwrap();
        let theirs = theirs.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap();
        let theirs = theirs.broadcast_matmul(&reader.t().unwrap()).unwrap();
        assert!(distance(&ours, &theirs) < 1e-5);
        assert_eq!(ours.dim(D::Minus1).unwrap(), 3);
    }
}
