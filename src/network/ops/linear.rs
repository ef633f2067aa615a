//! The linear map of the head as one operation, on the CPU in float32.

use std::io::{self, Write};

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};

use super::{slice, values};
use crate::network::cpu::linear::PackedLinear;
use crate::network::cpu::packed::Sections;

/// A linear map with its weight packed.
#[derive(Clone, Debug)]
pub struct FusedLinear(PackedLinear);

impl FusedLinear {
    /// Packs a weight `[o, c]` and a bias `[o]`.
    ///
    /// # Errors
    /// If they have other shapes, or are not in float32 on the CPU.
    pub fn new(weight: &Tensor, bias: &Tensor) -> Result<Self> {
        let (outputs, inputs) = weight.dims2()?;
        if bias.dims() != [outputs] || weight.elem_count() == 0 {
            bail!("{outputs} biases are needed, found {:?}, for a map {:?}", bias.dims(), weight.dims());
        }
        let (weight, bias) = (values(weight)?, values(bias)?);
        Ok(Self(PackedLinear::new(inputs, weight.as_slice()?, bias.as_slice()?)))
    }

    /// [`Self::new`] with what [`Self::write`] has written of a map of the same size, if there is so much.
    pub fn restore(inputs: usize, outputs: usize, sections: &mut Sections) -> Option<Self> {
        PackedLinear::restore(inputs, outputs, sections).map(Self)
    }

    /// Writes all weights as they are in memory.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        self.0.write(out)
    }

    /// `[n, c]` to `[n, o]`.
    ///
    /// # Errors
    /// If `x` is not in float32 on the CPU, or has another number of values.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.contiguous()?.apply_op1_no_bwd(self)
    }
}

impl CustomOp1 for FusedLinear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n, inputs) = layout.shape().dims2()?;
        if inputs != self.0.inputs() {
            bail!("features [n, {}] are needed, found {:?}", self.0.inputs(), layout.dims());
        }
        let y = self.0.forward(slice(x, layout)?, n);
        Ok((CpuStorage::F32(y), (n, self.0.outputs()).into()))
    }
}
