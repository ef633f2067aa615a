//! The depthwise 3x3 convolution, with one or several filters per channel.
//!
//! candle's `conv2d` with groups runs one convolution per group and concatenates them, hundreds of
//! launches here. The plain version below is nine shifted products whatever the channels; the CPU
//! kernel is one pass.
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
    weight: Tensor,
    /// `[f * channels]`, filter by filter.
    bias: Tensor,
    stride: usize,
}

impl Depthwise {
    /// From PyTorch's weight `[channels * f, 1, 3, 3]` and bias `[channels * f]`, in which output
    /// `f * c + k` is filter `k` of channel `c`.
    pub fn new(weight: &Tensor, bias: &Tensor, filters: usize, stride: usize) -> Result<Self> {
        let channels = weight.dim(0)? / filters;
        let weight = weight.reshape((channels, filters, 9))?.permute((2, 1, 0))?.contiguous()?;
        let bias = bias.reshape((channels, filters))?.t()?.flatten_all()?;
        Ok(Self { weight, bias, stride })
    }

    /// Reorders the columns `[o, channels * f]` of the map that reads a depthwise convolution's
    /// output from PyTorch's order to ours.
    pub fn reorder_columns(weight: &Tensor, filters: usize) -> Result<Tensor> {
        let (rows, columns) = weight.dims2()?;
        weight.reshape((rows, columns / filters, filters))?.transpose(1, 2)?.reshape((rows, columns))
    }
}

/// `[n, h, w, channels]` to `[n, ceil(h / stride), ceil(w / stride), f * channels]`.
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
        let (n, height, width, channels) = xl.shape().dims4()?;
        let (_, filters, weight_channels) = wl.shape().dims3()?;
        if weight_channels != channels {
            bail!("depthwise filters for {weight_channels} channels, found {channels}");
        }
        let (oh, ow) = (height.div_ceil(self.stride), width.div_ceil(self.stride));
        let geometry = Geometry { height, width, channels, filters, stride: self.stride, oh, ow };
        let out = match x {
            CpuStorage::F32(_) => CpuStorage::F32(convolve(slice(x, xl)?, slice(w, wl)?, slice(b, bl)?, n, &geometry)),
            CpuStorage::F64(_) => CpuStorage::F64(convolve(slice(x, xl)?, slice(w, wl)?, slice(b, bl)?, n, &geometry)),
            other => bail!("no depthwise kernel for {:?}", other.dtype()),
        };
        Ok((out, (n, oh, ow, filters * channels).into()))
    }
}

struct Geometry {
    height: usize,
    width: usize,
    channels: usize,
    filters: usize,
    stride: usize,
    oh: usize,
    ow: usize,
}

fn convolve<T: WithDType>(x: &[T], weight: &[T], bias: &[T], n: usize, g: &Geometry) -> Vec<T> {
    let outputs = g.filters * g.channels;
    let mut out = vec![T::zero(); n * g.oh * g.ow * outputs];
    out.par_chunks_mut(g.ow * outputs).enumerate().for_each(|(row, out)| {
        let image = &x[row / g.oh * g.height * g.width * g.channels..][..g.height * g.width * g.channels];
        convolve_row(out, image, weight, bias, row % g.oh, g);
    });
    out
}

/// Channels that are summed in registers over the nine taps before they are written.
const LANES: usize = 32;

vectorised! {
    /// One row of outputs, `[ow, f * channels]`.
    fn convolve_row<T: WithDType>(out: &mut [T], image: &[T], weight: &[T], bias: &[T], oy: usize, g: &Geometry) {
        let c = g.channels;
        for (ox, pixel) in out.chunks_exact_mut(g.filters * c).enumerate() {
            // The taps inside the image: where each reads, and its weights.
            let mut taps = [(0, 0); 9];
            let mut count = 0;
            for tap in 0..9 {
                let (y, x) = (oy * g.stride + tap / 3, ox * g.stride + tap % 3);
                if (1..=g.height).contains(&y) && (1..=g.width).contains(&x) {
                    taps[count] = (((y - 1) * g.width + x - 1) * c, tap * g.filters * c);
                    count += 1;
                }
            }
            let taps = &taps[..count];
            for k in 0..g.filters {
                let (out, bias) = (&mut pixel[k * c..][..c], &bias[k * c..][..c]);
                let mut start = 0;
                while start + LANES <= c {
                    let mut sum = [T::zero(); LANES];
                    sum.copy_from_slice(&bias[start..start + LANES]);
                    for (input, filter) in taps {
                        let input = &image[input + start..][..LANES];
                        let filter = &weight[filter + k * c + start..][..LANES];
                        for i in 0..LANES {
                            sum[i] += input[i] * filter[i];
                        }
                    }
                    out[start..start + LANES].copy_from_slice(&sum);
                    start += LANES;
                }
                for i in start..c {
                    let mut sum = bias[i];
                    for (input, filter) in taps {
                        sum += image[input + i] * weight[filter + k * c + i];
                    }
                    out[i] = sum;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{D, DType, Device};

    fn random(shape: &[usize]) -> Tensor {
        Tensor::randn(0f32, 1.0, shape, &Device::Cpu).unwrap()
    }

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
