//! What elements are made of: operations on the folded weights of one convolution.

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};

use crate::weights::config::Skip;
use crate::weights::fold::Weights;

/// An operation on a convolution, named as in [`crate::weights::config::Conv`]. Matrices and vectors are float64.
///
/// `W` is its weight, as a matrix of outputs and inputs, and `b` its bias.
#[derive(Clone, Debug)]
pub enum Op {
    /// `W -> M W`, `b -> M b`, for `M` with square blocks `[blocks, n, n]` along its diagonal.
    Left { conv: String, matrix: Tensor, inverse: Tensor },
    /// `W -> W M`, likewise.
    Right { conv: String, matrix: Tensor, inverse: Tensor },
    /// `W -> diag(d) W`, `b -> diag(d) b`.
    ScaleOutputs { conv: String, factors: Tensor, of: Of },
    /// `W -> W diag(d)`.
    ScaleInputs { conv: String, factors: Tensor },
    /// Output `i` is what output `order[i]` was.
    PermuteOutputs { conv: String, order: Vec<u32> },
    /// Input `i` is what input `order[i]` was.
    PermuteInputs { conv: String, order: Vec<u32> },
    /// `b -> b + v`.
    AddToBias { conv: String, shift: Tensor },
    /// `b -> b - W v`: the input has moved by `v`, and the output stays.
    ForgetShift { conv: String, shift: Tensor },
    /// Makes the identity skip of a block a convolution that does the same.
    ExplicitSkip { layer: usize, block: usize },
}

/// The parameters that an operation on outputs changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    Both,
    Weight,
}

impl Of {
    fn parts(self) -> &'static [&'static str] {
        match self {
            Self::Both => &["weight", "bias"],
            Self::Weight => &["weight"],
        }
    }
}

impl Op {
    /// # Errors
    /// If the weights have no such convolution, or another width.
    fn apply(&self, weights: &mut Weights) -> Result<()> {
        match self {
            Self::Left { conv, matrix, .. } => {
                let left = |t: &Tensor| -> Result<Tensor> {
                    let (blocks, n, _) = matrix.dims3()?;
                    Ok(matrix.matmul(&t.reshape((blocks, n, ()))?)?.reshape(t.shape())?)
                };
                Of::Both.parts().iter().try_for_each(|part| change(weights, conv, part, left))
            }
            Self::Right { conv, matrix, .. } => change(weights, conv, "weight", |t| {
                let (blocks, n, _) = matrix.dims3()?;
                let columns = t.reshape(((), blocks, n))?.transpose(0, 1)?.contiguous()?;
                Ok(columns.matmul(matrix)?.transpose(0, 1)?.reshape(t.shape())?)
            }),
            Self::ScaleOutputs { conv, factors, of } => {
                let scale = |t: &Tensor| -> Result<Tensor> {
                    let n = t.dim(0)?;
                    Ok(t.reshape((n, ()))?.broadcast_mul(&factors.reshape((n, 1))?)?.reshape(t.shape())?)
                };
                of.parts().iter().try_for_each(|part| change(weights, conv, part, scale))
            }
            Self::ScaleInputs { conv, factors } => change(weights, conv, "weight", |t| {
                let n = factors.dim(0)?;
                Ok(t.reshape(((), n))?.broadcast_mul(&factors.reshape((1, n))?)?.reshape(t.shape())?)
            }),
            Self::PermuteOutputs { conv, order } => {
                let order = Tensor::new(order.as_slice(), &Device::Cpu)?;
                let permute = |t: &Tensor| -> Result<Tensor> { Ok(t.index_select(&order, 0)?) };
                Of::Both.parts().iter().try_for_each(|part| change(weights, conv, part, permute))
            }
            Self::PermuteInputs { conv, order } => {
                let order = Tensor::new(order.as_slice(), &Device::Cpu)?;
                change(weights, conv, "weight", |t| Ok(t.index_select(&order, 1)?))
            }
            Self::AddToBias { conv, shift } => change(weights, conv, "bias", |t| Ok((t + shift)?)),
            Self::ForgetShift { conv, shift } => {
                let weight = tensor(weights, conv, "weight")?;
                let moved = weight.reshape(((), shift.dim(0)?))?.matmul(&shift.unsqueeze(1)?)?.squeeze(1)?;
                change(weights, conv, "bias", |t| Ok((t - moved)?))
            }
            Self::ExplicitSkip { layer, block } => explicit_skip(weights, *layer, *block),
        }
    }

    fn inverse(self) -> Result<Self> {
        let inverted = |order: Vec<u32>| {
            let mut inverse = vec![0; order.len()];
            order.iter().zip(0..).for_each(|(to, from)| inverse[*to as usize] = from);
            inverse
        };
        Ok(match self {
            Self::Left { conv, matrix, inverse } => Self::Left { conv, matrix: inverse, inverse: matrix },
            Self::Right { conv, matrix, inverse } => Self::Right { conv, matrix: inverse, inverse: matrix },
            Self::ScaleOutputs { conv, factors, of } => Self::ScaleOutputs { conv, factors: factors.recip()?, of },
            Self::ScaleInputs { conv, factors } => Self::ScaleInputs { conv, factors: factors.recip()? },
            Self::PermuteOutputs { conv, order } => Self::PermuteOutputs { conv, order: inverted(order) },
            Self::PermuteInputs { conv, order } => Self::PermuteInputs { conv, order: inverted(order) },
            Self::AddToBias { conv, shift } => Self::AddToBias { conv, shift: shift.neg()? },
            Self::ForgetShift { conv, shift } => Self::ForgetShift { conv, shift: shift.neg()? },
            // An explicit skip stays one.
            op @ Self::ExplicitSkip { .. } => op,
        })
    }
}

fn explicit_skip(weights: &mut Weights, layer: usize, block: usize) -> Result<()> {
    let config = weights.config.layers.get_mut(layer - 1).and_then(|blocks| blocks.get_mut(block));
    let config = config.with_context(|| format!("there is no layer{layer}.{block}"))?;
    if config.skip == Skip::Identity {
        config.skip = Skip::Linear;
        let (n, name) = (config.out_channels, format!("layer{layer}.{block}.skip"));
        let identity = Tensor::eye(n, DType::F64, &Device::Cpu)?.reshape((n, n, 1, 1))?;
        weights.tensors.insert(format!("{name}.weight"), identity);
        weights.tensors.insert(format!("{name}.bias"), Tensor::zeros(n, DType::F64, &Device::Cpu)?);
    }
    Ok(())
}

fn tensor(weights: &Weights, conv: &str, part: &str) -> Result<Tensor> {
    weights.tensors.get(&format!("{conv}.{part}")).cloned().with_context(|| format!("there is no `{conv}.{part}`"))
}

fn change(weights: &mut Weights, conv: &str, part: &str, by: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<()> {
    let changed = by(&tensor(weights, conv, part)?).with_context(|| format!("`{conv}.{part}`"))?;
    weights.tensors.insert(format!("{conv}.{part}"), changed);
    Ok(())
}

/// How much of an element is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Both,
    /// Only the first half: what changes the values that are written, without what makes up for it where
    /// they are read. No symmetry, but a step of the same size: what checks are checked with.
    Writing,
}

/// An element of a family's group, or several in sequence.
#[derive(Clone, Debug, Default)]
pub struct Element {
    writing: Vec<Op>,
    reading: Vec<Op>,
}

impl Element {
    pub(super) fn new(writing: Vec<Op>, reading: Vec<Op>) -> Self {
        Self { writing, reading }
    }

    /// Whether it moves nothing.
    pub fn is_empty(&self) -> bool {
        self.writing.is_empty() && self.reading.is_empty()
    }

    /// The half that is written, as if it were all.
    #[cfg(test)]
    pub(super) fn writing_half(self) -> Self {
        Self::new(self.writing, Vec::new())
    }

    /// Both, one after the other; for elements that act on different parts of the network.
    pub(super) fn and(mut self, other: Self) -> Self {
        self.writing.extend(other.writing);
        self.reading.extend(other.reading);
        self
    }

    /// Moves weights, which are float64.
    ///
    /// # Errors
    /// If they are those of another configuration.
    pub fn apply(&self, weights: &mut Weights, side: Side) -> Result<()> {
        self.writing.iter().try_for_each(|op| op.apply(weights))?;
        if side == Side::Both {
            self.reading.iter().try_for_each(|op| op.apply(weights))?;
        }
        Ok(())
    }

    /// The element that takes back what this one does, the last first.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn inverse(self) -> Result<Self> {
        let inverse = |ops: Vec<Op>| ops.into_iter().rev().map(Op::inverse).collect::<Result<Vec<_>>>();
        Ok(Self { writing: inverse(self.reading)?, reading: inverse(self.writing)? })
    }
}
