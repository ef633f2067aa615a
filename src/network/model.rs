//! QLNet, as in Liu, Shao, Bai, "A Novel Convolutional Neural Network Architecture with a
//! Continuous Symmetry" (arXiv 2308.01621), on folded weights.

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;

use crate::network::ops::{self, Depthwise};
use crate::weights::config::{BlockConfig, Config};
use crate::weights::fold::Weights;

/// How many of a batch's images run together. On the CPU, so many that every thread has work, and not
/// many more: their activations would need more memory and leave the cache. Elsewhere, so many that
/// tensors stay below 2^32 elements, which is as far as candle's kernels count.
fn batch(images: &Tensor) -> Result<usize> {
    /// Four images of 224x224.
    const PIXELS: usize = 4 * 224 * 224;
    let (_, _, height, width) = images.dims4()?;
    Ok(if images.device().is_cpu() {
        let threads = rayon::current_num_threads();
        (PIXELS / (height * width).max(1)).max(1).next_multiple_of(threads)
    } else {
        256
    })
}

/// The network. Activations between the stem and the head are NHWC.
#[derive(Clone, Debug)]
pub struct QLNet {
    stem: Affine,
    layers: Vec<Vec<Block>>,
    fc: Affine,
}

/// A weight and a bias.
#[derive(Clone, Debug)]
struct Affine {
    weight: Tensor,
    bias: Tensor,
}

impl Affine {
    /// A convolution or linear map whose weight has the given PyTorch shape.
    fn new(shape: &[usize], vb: VarBuilder) -> Result<Self> {
        Ok(Self { weight: vb.get(shape, "weight")?, bias: vb.get(shape[0], "bias")? })
    }

    /// A 1x1 convolution, as the matrix `[o, c]` that it is.
    fn pointwise(c: usize, o: usize, vb: VarBuilder) -> Result<Self> {
        let Self { weight, bias } = Self::new(&[o, c, 1, 1], vb)?;
        Ok(Self { weight: weight.reshape((o, c))?, bias })
    }

    fn pair(&self) -> (&Tensor, &Tensor) {
        (&self.weight, &self.bias)
    }

    /// `[..., c]` to `[..., o]`, without the bias.
    fn product(&self, x: &Tensor) -> Result<Tensor> {
        let mut shape = x.dims().to_vec();
        let last = shape.len() - 1;
        let rows = x.reshape(((), shape[last]))?;
        shape[last] = self.weight.dim(0)?;
        rows.matmul(&self.weight.t()?)?.reshape(shape)
    }

    /// `[..., c]` to `[..., o]`.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.product(x)?.broadcast_add(&self.bias)
    }
}

/// One block: `y = skip(x) + conv3(conv2(a * b))`, where `a` and `b` are the halves of `conv1(x)`.
#[derive(Clone, Debug)]
enum Block {
    Plain(Parts),
    /// The same in one pass, on the CPU.
    Fused(Box<ops::FusedBlock>),
}

#[derive(Clone, Debug)]
struct Parts {
    conv1: Affine,
    conv2: Depthwise,
    conv3: Affine,
    /// A 1x1 convolution where the block changes the width, instead of the identity.
    skip: Option<Affine>,
    hardball: bool,
    stride: usize,
}

impl Block {
    fn new(config: &BlockConfig, fuse: bool, vb: VarBuilder) -> Result<Self> {
        let &BlockConfig { in_channels: input, hidden_channels: hidden, filters, out_channels: output, stride, skip } =
            config;
        let rows = filters * hidden;
        let conv1 = Affine::pointwise(input, 2 * hidden, vb.pp("conv1"))?;
        let conv2 = Affine::new(&[rows, 1, 3, 3], vb.pp("conv2"))?;
        let conv3 = Affine::pointwise(rows, output, vb.pp("conv3"))?;
        let skip_conv = skip.is_convolution().then(|| Affine::pointwise(input, output, vb.pp("skip"))).transpose()?;
        if fuse {
            let [conv1, conv2, conv3] = [&conv1, &conv2, &conv3].map(Affine::pair);
            return ops::FusedBlock::new(config, conv1, conv2, conv3, skip_conv.as_ref().map(Affine::pair))
                .map(|block| Self::Fused(Box::new(block)));
        }
        Ok(Self::Plain(Parts {
            conv1,
            conv2: Depthwise::new(&conv2.weight, &conv2.bias, filters, stride)?,
            conv3: Affine { weight: Depthwise::reorder_columns(&conv3.weight, filters)?, ..conv3 },
            skip: skip_conv,
            hardball: skip.ends_in_hardball(),
            stride,
        }))
    }

    /// `[n, h, w, c]` to `[n, ceil(h / stride), ceil(w / stride), o]`.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let Parts { conv1, conv2, conv3, skip, hardball, stride } = match self {
            Self::Plain(parts) => parts,
            Self::Fused(block) => return block.forward(x),
        };
        let hidden = ops::gate(&conv1.product(x)?, &conv1.bias)?;
        let y = conv3.forward(&ops::depthwise(&hidden, conv2)?)?;
        let y = match skip {
            None => y + x,
            Some(skip) => y + skip.forward(&every(x, *stride)?)?,
        }?;
        if *hardball { ops::hardball(&y) } else { Ok(y) }
    }
}

/// Every `stride`-th row and column of `[n, h, w, c]`: what a strided 1x1 convolution reads.
fn every(x: &Tensor, stride: usize) -> Result<Tensor> {
    if stride == 1 {
        return Ok(x.clone());
    }
    let (n, h, w, c) = x.dims4()?;
    let (oh, ow) = (h.div_ceil(stride), w.div_ceil(stride));
    let x = x.pad_with_zeros(1, 0, oh * stride - h)?.pad_with_zeros(2, 0, ow * stride - w)?;
    x.reshape(&[n, oh, stride, ow, stride, c][..])?.narrow(2, 0, 1)?.narrow(4, 0, 1)?.reshape((n, oh, ow, c))
}

impl QLNet {
    /// Builds the network from folded parameters, under the names that [`Config::convs`] gives. On
    /// the CPU in float32 its blocks are fused.
    ///
    /// # Errors
    /// If the `VarBuilder` lacks one of them or has it in another shape.
    pub fn new(config: &Config, vb: VarBuilder) -> Result<Self> {
        let fuse = vb.device().is_cpu() && vb.dtype() == DType::F32;
        Self::build(config, fuse, vb)
    }

    /// [`Self::new`] with blocks made of candle's and our single operations on every device.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn new_plain(config: &Config, vb: VarBuilder) -> Result<Self> {
        Self::build(config, false, vb)
    }

    fn build(config: &Config, fuse: bool, vb: VarBuilder) -> Result<Self> {
        let layers = config.layers.iter().enumerate().map(|(i, blocks)| {
            let vb = vb.pp(format!("layer{}", i + 1));
            blocks.iter().enumerate().map(|(j, block)| Block::new(block, fuse, vb.pp(j))).collect()
        });
        Ok(Self {
            stem: Affine::new(&[config.stem_channels, 3, 7, 7], vb.pp("stem"))?,
            layers: layers.collect::<Result<_>>()?,
            fc: Affine::new(&[config.num_classes, config.num_features()], vb.pp("fc"))?,
        })
    }

    /// Builds the network from folded weights, on a device and in an element type.
    pub fn from_weights(weights: &Weights, dtype: DType, device: &Device) -> Result<Self> {
        Self::new(&weights.config, weights.var_builder(dtype, device))
    }

    /// Logits `[n, classes]` of normalised images `[n, 3, h, w]`, in the network's element type.
    pub fn forward(&self, images: &Tensor) -> Result<Tensor> {
        let (n, batch) = (images.dim(0)?, batch(images)?);
        if n <= batch {
            return self.forward_observed(images, &mut |_, _| {});
        }
        let parts = (0..n).step_by(batch).map(|start| {
            let part = images.narrow(0, start, batch.min(n - start))?;
            self.forward_observed(&part, &mut |_, _| {})
        });
        Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 0)
    }

    /// [`Self::forward`] that shows the output of every step, `stem`, `layer1.0`, ..., `act`, on
    /// its way. They are NHWC.
    pub fn forward_observed(&self, images: &Tensor, observe: &mut dyn FnMut(&str, &Tensor)) -> Result<Tensor> {
        let mut x = ops::stem(images, &self.stem.weight, &self.stem.bias)?;
        observe("stem", &x);
        for (i, blocks) in self.layers.iter().enumerate() {
            for (j, block) in blocks.iter().enumerate() {
                x = block.forward(&x)?;
                observe(&format!("layer{}.{j}", i + 1), &x);
            }
        }
        x = ops::hardball(&x)?;
        observe("act", &x);
        let features = x.flatten(1, 2)?.mean(1)?;
        if !features.device().is_cpu() {
            return self.fc.forward(&features);
        }
        // How a product of several rows is rounded depends on their number, and an image's logits must
        // not depend on its batch: one row at a time.
        let logits = (0..features.dim(0)?).map(|image| self.fc.forward(&features.narrow(0, image, 1)?));
        Tensor::cat(&logits.collect::<Result<Vec<_>>>()?, 0)
    }
}
