//! QLNet, as in Liu, Shao, Bai, "A Novel Convolutional Neural Network Architecture with a
//! Continuous Symmetry" (arXiv 2308.01621), on folded weights. Its errors are candle's.

use std::io::{self, Write};

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;

use crate::network::batching::Batching;
use crate::network::cpu::operand::{Format, Products};
use crate::network::cpu::packed::Sections;
use crate::network::gpu;
use crate::network::ops::{self, Depthwise, GatedDepthwise, product};
use crate::network::precision::Precision;
use crate::weights::Weights;
use crate::weights::config::{BlockConfig, Config};

/// The network. Activations between the stem and the head are NHWC.
#[derive(Clone, Debug)]
pub struct QLNet {
    config: Config,
    stem: Stem,
    layers: Vec<Vec<Block>>,
    head: Head,
    batching: Batching,
    /// Whether CUDA may round what enters products of float32.
    tf32: bool,
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

    /// The same on another device.
    fn to_device(&self, device: &Device) -> Result<Self> {
        Ok(Self { weight: self.weight.to_device(device)?, bias: self.bias.to_device(device)? })
    }

    /// `[..., c]` to `[..., o]`.
    fn forward(&self, x: &Tensor, tf32: bool) -> Result<Tensor> {
        ops::biased(&product(x, &self.weight, tf32)?, &self.bias)
    }
}

/// The first convolution, ReLU and pool.
#[derive(Clone, Debug)]
enum Stem {
    /// On every device.
    Plain(Affine),
    /// As a product of windows, on a GPU with kernels.
    Windows(ops::WindowStem),
    /// With its weight packed, on the CPU.
    Fused(ops::FusedStem),
}

impl Stem {
    /// [Images](QLNet::forward) to `[n, ceil(h / 4), ceil(w / 4), o]`.
    fn forward(&self, images: &Tensor) -> Result<Tensor> {
        match self {
            Self::Plain(stem) => ops::stem(&ops::planes(images, stem.weight.dtype())?, &stem.weight, &stem.bias),
            Self::Windows(stem) => stem.forward(&ops::channels_last(images, stem.dtype())?),
            Self::Fused(stem) => stem.forward(images),
        }
    }
}

/// The linear map from features to logits.
#[derive(Clone, Debug)]
enum Head {
    /// On every device.
    Plain(Affine),
    /// With its weight packed, on the CPU.
    Fused(ops::FusedLinear),
}

impl Head {
    /// Features `[n, num_features]` to logits `[n, classes]`.
    fn forward(&self, features: &Tensor, tf32: bool) -> Result<Tensor> {
        let fc = match self {
            Self::Plain(fc) => fc,
            Self::Fused(fc) => return fc.forward(features),
        };
        if !features.device().is_cpu() {
            return fc.forward(features, tf32);
        }
        // How a product of several rows is rounded depends on their number, and an image's logits must
        // not depend on its batch: one row at a time.
        let logits = (0..features.dim(0)?).map(|image| fc.forward(&features.narrow(0, image, 1)?, tf32));
        Tensor::cat(&logits.collect::<Result<Vec<_>>>()?, 0)
    }
}

/// One block: `y = skip(x) + conv3(conv2(a * b))`, where `a` and `b` are the halves of `conv1(x)`.
#[derive(Clone, Debug)]
enum Block {
    /// Operation by operation, on every device.
    Plain(PlainBlock),
    /// The same in one pass, on the CPU.
    Fused(Box<ops::FusedBlock>),
}

/// The parameters of a block.
#[derive(Clone, Debug)]
struct PlainBlock {
    /// The weight of conv1, `[2c, i]`.
    conv1: Tensor,
    /// The bias of conv1, and conv2.
    hidden: GatedDepthwise,
    /// With the bias of the skip, if that is a convolution.
    conv3: Affine,
    /// The weight of a 1x1 convolution where the block changes the width, instead of the identity.
    skip: Option<Tensor>,
    hardball: bool,
    stride: usize,
    tf32: bool,
}

impl Block {
    fn new(config: &BlockConfig, fuse: Option<Products>, tf32: bool, vb: VarBuilder, device: &Device) -> Result<Self> {
        let &BlockConfig { in_channels: input, hidden_channels: hidden, filters, out_channels: output, stride, skip } =
            config;
        let rows = filters * hidden;
        let conv1 = Affine::pointwise(input, 2 * hidden, vb.pp("conv1"))?;
        let conv2 = Affine::new(&[rows, 1, 3, 3], vb.pp("conv2"))?;
        let conv3 = Affine::pointwise(rows, output, vb.pp("conv3"))?;
        let skip_conv = skip.is_convolution().then(|| Affine::pointwise(input, output, vb.pp("skip"))).transpose()?;
        if let Some(products) = fuse {
            let [conv1, conv2, conv3] = [&conv1, &conv2, &conv3].map(Affine::pair);
            return ops::FusedBlock::new(config, products, conv1, conv2, conv3, skip_conv.as_ref().map(Affine::pair))
                .map(|block| Self::Fused(Box::new(block)));
        }
        let bias = match &skip_conv {
            Some(skip) => (&conv3.bias + &skip.bias)?,
            None => conv3.bias,
        };
        let conv3 = Affine { weight: Depthwise::reorder_columns(&conv3.weight, filters)?, bias };
        let conv2 = Depthwise::new(&conv2.weight, &conv2.bias, filters, stride)?;
        Ok(Self::Plain(PlainBlock {
            conv1: conv1.weight.to_device(device)?,
            hidden: GatedDepthwise::new(&conv1.bias, &conv2, device)?,
            conv3: conv3.to_device(device)?,
            skip: skip_conv.map(|skip| skip.weight.to_device(device)).transpose()?,
            hardball: skip.ends_in_hardball(),
            stride,
            tf32,
        }))
    }

    /// `[n, h, w, c]` to `[n, ceil(h / stride), ceil(w / stride), o]`. Shows what conv2 makes, unless it is fused.
    fn forward(&self, x: &Tensor, inside: impl FnOnce(&Tensor)) -> Result<Tensor> {
        let PlainBlock { conv1, hidden, conv3, skip, hardball, stride, tf32 } = match self {
            Self::Plain(block) => block,
            Self::Fused(block) => return block.forward(x),
        };
        let hidden = ops::gated_depthwise(product(x, conv1, *tf32)?, hidden)?;
        inside(&hidden);
        let y = product(&hidden, &conv3.weight, *tf32)?;
        drop(hidden);
        match skip {
            None => ops::residual(&y, &conv3.bias, x, *hardball),
            Some(skip) => {
                let x = product(&ops::subsample(x, *stride)?, skip, *tf32)?;
                ops::residual(&y, &conv3.bias, &x, *hardball)
            }
        }
    }
}

impl QLNet {
    /// Builds the network from folded parameters, under the names that [`Config::convs`] gives, with blocks made
    /// of candle's and our single operations on every device.
    ///
    /// # Errors
    /// If the `VarBuilder` lacks one of them or has it in another shape.
    pub fn new_plain(config: &Config, vb: VarBuilder) -> Result<Self> {
        let device = vb.device().clone();
        Self::build(config, None, false, vb, &device)
    }

    /// Prepares the parameters where they are, and takes them to the device.
    fn build(config: &Config, fuse: Option<Products>, tf32: bool, vb: VarBuilder, device: &Device) -> Result<Self> {
        let layers = config.layers.iter().enumerate().map(|(i, blocks)| {
            let vb = vb.pp(format!("layer{}", i + 1));
            blocks.iter().enumerate().map(|(j, block)| Block::new(block, fuse, tf32, vb.pp(j), device)).collect()
        });
        let stem = Affine::new(&[config.stem_channels, 3, 7, 7], vb.pp("stem"))?;
        let fc = Affine::new(&[config.num_classes, config.num_features()], vb.pp("fc"))?;
        let windows = gpu::runs_on(device, vb.dtype()) && !stem.weight.track_op();
        Ok(Self {
            config: config.clone(),
            stem: match fuse {
                Some(_) => Stem::Fused(ops::FusedStem::new(&stem.weight, &stem.bias)?),
                None if windows => {
                    Stem::Windows(ops::WindowStem::new(&stem.weight, &stem.bias, tf32)?.to_device(device)?)
                }
                None => Stem::Plain(stem.to_device(device)?),
            },
            layers: layers.collect::<Result<_>>()?,
            head: match fuse {
                Some(_) => Head::Fused(ops::FusedLinear::new(&fc.weight, &fc.bias)?),
                None => Head::Plain(fc.to_device(device)?),
            },
            // When the weights are there: activations have the rest.
            batching: Batching::new(device, vb.dtype()),
            tf32,
        })
    }

    /// Builds the network from folded weights, on a device and in an element type. On the CPU its blocks are fused
    /// where they can be.
    ///
    /// # Errors
    /// If the device fails, or has no such element type.
    pub fn from_weights(weights: &Weights, precision: Precision, device: &Device) -> Result<Self> {
        match precision {
            Precision::Int8 if !device.is_cpu() => candle_core::bail!("int8 is computed on the CPU only"),
            Precision::Tf32 if !device.is_cuda() => candle_core::bail!("TF32 is computed on CUDA only"),
            Precision::Tf32 if !gpu::runs_on(device, DType::F32) => candle_core::bail!("QLNET_GPU_KERNELS is off"),
            _ => {}
        }
        // Prepared on the CPU: on a GPU that would want other kernels than the network does, for each of which a driver takes
        // seconds when it compiles them for the first time.
        let vb = weights.var_builder(precision.dtype(device), &Device::Cpu);
        Self::build(weights.config(), precision.fused(device), precision == Precision::Tf32, vb, device)
    }

    /// [`Self::from_weights`] on the CPU with what [`Self::write_packed`] has written of a network of the same
    /// configuration and format. Nothing if it does not have these sizes.
    pub(super) fn from_packed(config: &Config, format: Format, sections: &mut Sections) -> Option<Self> {
        let stem = Stem::Fused(ops::FusedStem::restore(3, config.stem_channels, sections)?);
        let mut layers = Vec::new();
        for blocks in &config.layers {
            let mut block = |block| {
                let block = ops::FusedBlock::restore(block, format, sections)?;
                Some(Block::Fused(Box::new(block)))
            };
            layers.push(blocks.iter().map(&mut block).collect::<Option<_>>()?);
        }
        let head = Head::Fused(ops::FusedLinear::restore(config.num_features(), config.num_classes, sections)?);
        let batching = Batching::new(&Device::Cpu, DType::F32);
        Some(Self { config: config.clone(), stem, layers, head, batching, tf32: false })
    }

    /// Writes all weights as they are in memory, for [`Self::from_packed`].
    ///
    /// # Errors
    /// If they cannot be written, or the network has parts that are not fused.
    pub(super) fn write_packed(&self, out: &mut dyn Write) -> io::Result<()> {
        match &self.stem {
            Stem::Fused(stem) => stem.write(out)?,
            Stem::Plain(_) | Stem::Windows(_) => return Err(io::ErrorKind::Unsupported.into()),
        }
        for block in self.layers.iter().flatten() {
            match block {
                Block::Fused(block) => block.write(out)?,
                Block::Plain(_) => return Err(io::ErrorKind::Unsupported.into()),
            }
        }
        match &self.head {
            Head::Fused(head) => head.write(out),
            Head::Plain(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// The dimensions of the network.
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Logits `[n, classes]`, in memory, of normalised images `[n, 3, h, w]`, both of the type [`Precision::dtype`]. Where the
    /// network is plain, as on a GPU, images may also be bytes `[n, h, w, 3]`, which are normalised there.
    ///
    /// # Errors
    /// If the images are not of this shape and element type, or the device fails.
    pub fn forward(&self, images: &Tensor) -> Result<Tensor> {
        self.in_parts(images, |part| self.logits_of(&self.features_observed(part, &mut |_, _| {})?))
    }

    /// Features `[n, num_features]` of normalised images `[n, 3, h, w]`: each channel's mean over all pixels of
    /// the last activation, of which the logits are an affine function.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn features(&self, images: &Tensor) -> Result<Tensor> {
        self.in_parts(images, |part| self.features_observed(part, &mut |_, _| {}))
    }

    /// The activation `[n, h, w, c]` after the stem and so many blocks, and the last hardball if `act` says so, of
    /// normalised images `[n, 3, h, w]`, as `then` hands it on. What comes after it is not computed.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub(super) fn activation(
        &self,
        images: &Tensor,
        blocks: usize,
        act: bool,
        then: impl Fn(Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        self.in_parts(images, |part| {
            let mut x = self.stem.forward(part)?;
            for block in self.layers.iter().flatten().take(blocks) {
                x = block.forward(&x, |_| {})?;
            }
            then(if act { ops::hardball(&x)? } else { x })
        })
    }

    /// How many of these images go through the network together on its device.
    pub(super) fn images_at_once(&self, images: &Tensor, device: &Device) -> Result<usize> {
        let (height, width) = sides(images)?;
        Ok(self.batching.images_at_once(&self.config, device, height, width))
    }

    /// What `run` makes of parts of the images, in memory.
    pub(super) fn in_parts(&self, images: &Tensor, run: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
        self.batching.in_parts(&self.config, images, run)
    }

    /// Logits of features `[n, num_features]`, or of what single places have instead.
    pub(super) fn logits_of(&self, features: &Tensor) -> Result<Tensor> {
        self.head.forward(features, self.tf32)
    }

    /// [`Self::forward`] that shows the output of every step, `stem`, `layer1.0`, ..., `act`, NHWC, of all images at once.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn forward_observed(&self, images: &Tensor, observe: &mut dyn FnMut(&str, &Tensor)) -> Result<Tensor> {
        let _alone = gpu::alone(images.device());
        self.logits_of(&self.features_observed(images, &mut |step, x| {
            if !step.ends_with("conv2") {
                observe(step, x);
            }
        })?)
    }

    /// [`Self::features`], showing the output of every step, and of conv2 of plain blocks as `layer1.0.conv2`.
    pub(crate) fn features_observed(&self, images: &Tensor, observe: &mut dyn FnMut(&str, &Tensor)) -> Result<Tensor> {
        let mut x = self.stem.forward(images)?;
        observe("stem", &x);
        for (i, blocks) in self.layers.iter().enumerate() {
            for (j, block) in blocks.iter().enumerate() {
                x = block.forward(&x, |hidden| observe(&format!("layer{}.{j}.conv2", i + 1), hidden))?;
                observe(&format!("layer{}.{j}", i + 1), &x);
            }
        }
        x = ops::hardball(&x)?;
        observe("act", &x);
        ops::mean(&x)
    }
}

/// Height and width of [images](QLNet::forward).
pub(super) fn sides(images: &Tensor) -> Result<(usize, usize)> {
    let (_, first, second, third) = images.dims4()?;
    Ok(if images.dtype() == DType::U8 { (first, second) } else { (second, third) })
}
