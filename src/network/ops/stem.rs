//! The stem: a 7x7 convolution of stride 2, ReLU, and a 3x3 max pool of stride 2. It takes the
//! image as NCHW, as PyTorch does, and gives NHWC to the blocks.

use std::io::{self, Write};

use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Result, Shape, Tensor, bail};

use super::{is_tracked, on_cpu, product, slice, values};
use crate::network::cpu::packed::Sections;
use crate::network::cpu::stem::PackedStem;
use crate::network::gpu;

/// Images `[n, 3, h, w]`, a weight `[o, 3, 7, 7]` and a bias `[o]` make `[n, h', w', o]`, where
/// `h'` is `h` halved twice, rounding up.
///
/// # Errors
/// If the shapes do not fit, or the device fails.
pub fn stem(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    if x.device().is_cpu() && x.dtype() != DType::F64 && !is_tracked([x, weight, bias]) {
        on_cpu(x, [weight, bias], |x, [weight, bias]| FusedStem::new(weight, bias)?.forward(x))
    } else {
        stem_plain(x, weight, bias)
    }
}

/// [`stem`] in candle's own operations. The pool pads with zeros where PyTorch pads with `-inf`:
/// after ReLU no value is below zero, so neither ever wins.
///
/// # Errors
/// As [`stem`].
pub fn stem_plain(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let y = x.conv2d(weight, 3, 2, 1, 1)?;
    let y = y.broadcast_add(&bias.reshape((1, (), 1, 1))?)?.relu()?;
    let pooled = if y.track_op() {
        max_pool_by_views(&y)?
    } else {
        y.pad_with_zeros(2, 1, 1)?.pad_with_zeros(3, 1, 1)?.max_pool2d_with_stride(3, 2)?
    };
    pooled.permute((0, 2, 3, 1))?.contiguous()
}

/// The 3x3 max pool of stride 2 as the maximum of nine shifted views: candle derives no pool whose
/// windows overlap.
fn max_pool_by_views(y: &Tensor) -> Result<Tensor> {
    let (n, c, h, w) = y.dims4()?;
    let (oh, ow) = (h.div_ceil(2), w.div_ceil(2));
    let y = y.pad_with_zeros(2, 1, 2 * oh + 1 - h)?.pad_with_zeros(3, 1, 2 * ow + 1 - w)?;
    let y = y.reshape(&[n, c, oh + 1, 2, ow + 1, 2][..])?;
    let view = |tap: usize| {
        let (ky, kx) = (tap / 3, tap % 3);
        let rows = y.narrow(2, ky / 2, oh)?.narrow(3, ky % 2, 1)?;
        rows.narrow(4, kx / 2, ow)?.narrow(5, kx % 2, 1)?.reshape((n, c, oh, ow))
    };
    (1..9).try_fold(view(0)?, |largest, tap| largest.maximum(&view(tap)?))
}

/// The stem on a GPU that has kernels: as a product of windows with the weight.
#[derive(Clone, Debug)]
pub struct WindowStem {
    /// `[o, WINDOW]`: rows, columns and channels of the filters, and zeros.
    weight: Tensor,
    bias: Tensor,
    tf32: bool,
}

impl WindowStem {
    /// From a weight `[o, 3, 7, 7]` and a bias `[o]`.
    ///
    /// # Errors
    /// If they have other shapes, or the device fails.
    pub fn new(weight: &Tensor, bias: &Tensor, tf32: bool) -> Result<Self> {
        let (outputs, 3, 7, 7) = weight.dims4()? else {
            bail!("a stem of 7x7 filters of three channels is needed, found {:?}", weight.dims());
        };
        let weight = weight.permute((0, 2, 3, 1))?.reshape((outputs, 7 * 7 * 3))?;
        let weight = weight.pad_with_zeros(1, 0, gpu::WINDOW - 7 * 7 * 3)?;
        Ok(Self { weight, bias: bias.clone(), tf32 })
    }

    /// The same on another device.
    ///
    /// # Errors
    /// If it fails, or lacks the memory.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        Ok(Self { weight: self.weight.to_device(device)?, bias: self.bias.to_device(device)?, tf32: self.tf32 })
    }

    /// [`stem`] of images `[n, h, w, 3]`.
    ///
    /// # Errors
    /// As [`stem`].
    pub fn forward(&self, images: &Tensor) -> Result<Tensor> {
        let (n, h, w, _) = images.dims4()?;
        let y = product(&gpu::windows(images)?.run()?, &self.weight, self.tf32)?;
        gpu::pool(&y.reshape((n, h.div_ceil(2), w.div_ceil(2), ()))?, &self.bias)?.run()
    }

    /// The element type that it computes in.
    pub fn dtype(&self) -> DType {
        self.weight.dtype()
    }
}

/// The stem on the CPU in float32, with its weight packed.
#[derive(Clone, Debug)]
pub struct FusedStem(PackedStem);

impl FusedStem {
    /// Packs a weight `[o, channels, 7, 7]` and a bias `[o]`.
    ///
    /// # Errors
    /// If they have other shapes, or are not in float32 on the CPU.
    pub fn new(weight: &Tensor, bias: &Tensor) -> Result<Self> {
        let (outputs, channels, 7, 7) = weight.dims4()? else {
            bail!("a stem of 7x7 filters is needed, found {:?}", weight.dims());
        };
        if bias.dims() != [outputs] || weight.elem_count() == 0 {
            bail!("{outputs} biases are needed, found {:?}, for filters {:?}", bias.dims(), weight.dims());
        }
        let (weight, bias) = (values(weight)?, values(bias)?);
        Ok(Self(PackedStem::new(channels, weight.as_slice()?, bias.as_slice()?)))
    }

    /// [`Self::new`] with what [`Self::write`] has written of a stem of the same size, if there is so much.
    pub fn restore(channels: usize, outputs: usize, sections: &mut Sections) -> Option<Self> {
        PackedStem::restore(channels, outputs, sections).map(Self)
    }

    /// Writes all weights as they are in memory.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        self.0.write(out)
    }

    /// [`stem`].
    ///
    /// # Errors
    /// If `x` is not in float32 on the CPU, or has another number of channels.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.contiguous()?.apply_op1_no_bwd(self)
    }
}

impl CustomOp1 for FusedStem {
    fn name(&self) -> &'static str {
        "stem"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n, channels, height, width) = layout.shape().dims4()?;
        if channels != self.0.channels() || n * height * width == 0 {
            bail!("images of {} channels are needed, found {:?}", self.0.channels(), layout.dims());
        }
        let y = self.0.forward(slice(x, layout)?, n, height, width);
        Ok((CpuStorage::F32(y), (n, height.div_ceil(4), width.div_ceil(4), self.0.outputs()).into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{normal, tests::test_stream};

    #[test]
    fn fast_and_plain_agree() {
        let rng = &mut test_stream(1);
        for (h, w) in [(64, 64), (33, 47), (8, 5), (1, 1), (7, 120)] {
            let mut random = |shape: &[usize]| normal(shape, rng).unwrap();
            let (x, weight, bias) = (random(&[2, 3, h, w]), random(&[12, 3, 7, 7]), random(&[12]));
            let (fast, plain) = (stem(&x, &weight, &bias).unwrap(), stem_plain(&x, &weight, &bias).unwrap());
            assert_eq!(fast.dims(), plain.dims());
            let difference = (fast - plain).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(difference < 1e-4, "{h}x{w}: {difference}");
        }
    }

    /// What is no number gives zeros in both, as in the kernel for GPUs, whose check says so too.
    #[test]
    fn weights_that_are_no_numbers_give_zeros() {
        let rng = &mut test_stream(1);
        let mut random = |shape: &[usize]| normal(shape, rng).unwrap();
        let (x, weight, bias) = (random(&[2, 3, 33, 47]), random(&[12, 3, 7, 7]), random(&[12]));
        let weight = (weight * f64::NAN).unwrap();
        for y in [stem(&x, &weight, &bias).unwrap(), stem_plain(&x, &weight, &bias).unwrap()] {
            assert!(y.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().all(|y| *y == 0.0));
        }
    }
}
