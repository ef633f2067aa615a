//! A whole block as one operation, on the CPU, with activations in float32. Tests compare it with the block's parts.

use std::io::{self, Write};
use std::ops::Deref;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Storage, Tensor};

use super::{Values, slice, values};
use crate::network::cpu::block::{PackedBlock, Parameters};
use crate::network::cpu::operand::{Format, Products};
use crate::network::cpu::packed::Sections;
use crate::weights::config::BlockConfig;

/// A block with its weights packed.
#[derive(Clone, Debug)]
pub struct FusedBlock(PackedBlock);

impl FusedBlock {
    /// Packs the folded parameters of a block, weight and bias of each convolution in PyTorch's
    /// order and in float32.
    ///
    /// # Errors
    /// If one of them is not in float32 on the CPU.
    ///
    /// # Panics
    /// If one of them does not have as many values as the configuration says.
    pub fn new(
        config: &BlockConfig,
        products: Products,
        conv1: (&Tensor, &Tensor),
        conv2: (&Tensor, &Tensor),
        conv3: (&Tensor, &Tensor),
        skip: Option<(&Tensor, &Tensor)>,
    ) -> Result<Self> {
        let read = |(weight, bias)| Ok::<_, candle_core::Error>((values(weight)?, values(bias)?));
        let [conv1, conv2, conv3] = [read(conv1)?, read(conv2)?, read(conv3)?];
        let skip = skip.map(read).transpose()?;
        fn view<S: Deref<Target = Storage>>((weight, bias): &(Values<S>, Values<S>)) -> Result<(&[f32], &[f32])> {
            Ok((weight.as_slice()?, bias.as_slice()?))
        }
        let parameters = Parameters {
            conv1: view(&conv1)?,
            conv2: view(&conv2)?,
            conv3: view(&conv3)?,
            skip: skip.as_ref().map(view).transpose()?,
        };
        Ok(Self(PackedBlock::new(config, products, &parameters)))
    }

    /// [`Self::new`] with what [`Self::write`] has written of a block of the same configuration and format, if
    /// there is so much.
    pub fn restore(config: &BlockConfig, format: Format, sections: &mut Sections) -> Option<Self> {
        PackedBlock::restore(config, format, sections).map(Self)
    }

    /// Writes all weights as they are in memory.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        self.0.write(out)
    }

    /// `[n, h, w, c]` to `[n, ceil(h / stride), ceil(w / stride), o]`.
    ///
    /// # Errors
    /// If `x` is not in float32 on the CPU, or has another number of channels.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.contiguous()?.apply_op1_no_bwd(self)
    }
}

impl CustomOp1 for FusedBlock {
    fn name(&self) -> &'static str {
        "block"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n, h, w, c) = layout.shape().dims4()?;
        let &BlockConfig { in_channels: input, out_channels: output, stride, .. } = self.0.config();
        if c != input || n * h * w == 0 {
            candle_core::bail!("a block for [n, h, w, {input}], found {:?}", layout.dims());
        }
        let y = self.0.forward(slice(x, layout)?, n, h, w);
        Ok((CpuStorage::F32(y), (n, h.div_ceil(stride), w.div_ceil(stride), output).into()))
    }
}
