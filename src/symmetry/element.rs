//! What elements are made of: operations on the folded weights of one convolution.

use candle_core::{DType, Device, Tensor};

use super::refused;
use crate::error::{Context, Error, Result};
use crate::weights::Weights;

/// An operation on a convolution, named as in [`crate::weights::config::Conv`]. Matrices and vectors are float64.
///
/// `W` is the convolution's weight, as a matrix of outputs and inputs, and `b` its bias.
#[derive(Clone, Debug)]
pub(super) enum Op {
    /// `W -> M W`, `b -> M b`, for `M` with square blocks `[blocks, n, n]` along its diagonal.
    Left { conv: String, matrix: Tensor, inverse: Tensor },
    /// `W -> W M`, for `M` of the same form.
    Right { conv: String, matrix: Tensor, inverse: Tensor },
    /// `W -> diag(d) W`, and `b -> diag(d) b` where the bias is scaled too.
    ScaleOutputs { conv: String, factors: Tensor, scaled: Scaled },
    /// `W -> W diag(d)`.
    ScaleInputs { conv: String, factors: Tensor },
    /// Output `i` is what output `order[i]` was.
    PermuteOutputs { conv: String, order: Vec<u32> },
    /// Input `i` is what input `order[i]` was.
    PermuteInputs { conv: String, order: Vec<u32> },
    /// `b -> b + v`.
    AddToBias { conv: String, shift: Tensor },
    /// `b -> b - W v`: the input has moved by `v`, and the output stays.
    AbsorbShift { conv: String, shift: Tensor },
    /// Makes the identity skip of a block a convolution that does the same.
    ExplicitSkip { layer: usize, block: usize },
}

/// The parameters of a convolution that an operation scales.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scaled {
    WeightAndBias,
    Weight,
}

impl Scaled {
    fn parts(self) -> &'static [&'static str] {
        match self {
            Self::WeightAndBias => &["weight", "bias"],
            Self::Weight => &["weight"],
        }
    }
}

impl Op {
    /// Fails if the weights have no such convolution, or one of another width.
    fn apply(&self, weights: &mut Weights) -> Result<()> {
        match self {
            Self::Left { conv, matrix, .. } => change_outputs(weights, conv, Scaled::WeightAndBias, |t| {
                let (blocks, n, _) = matrix.dims3()?;
                let rows = t.reshape((blocks, n, t.elem_count() / t.dim(0)?))?;
                matrix.matmul(&rows)?.reshape(t.shape())
            }),
            Self::Right { conv, matrix, .. } => change(weights, conv, "weight", |t| {
                let (blocks, n, _) = matrix.dims3()?;
                if blocks == 1 {
                    return t.reshape((t.dim(0)?, n))?.matmul(&matrix.squeeze(0)?)?.reshape(t.shape());
                }
                let columns = t.reshape((t.dim(0)?, blocks, n))?.transpose(0, 1)?.contiguous()?;
                columns.matmul(matrix)?.transpose(0, 1)?.reshape(t.shape())
            }),
            Self::ScaleOutputs { conv, factors, scaled } => change_outputs(weights, conv, *scaled, |t| {
                let n = t.dim(0)?;
                t.reshape((n, ()))?.broadcast_mul(&factors.reshape((n, 1))?)?.reshape(t.shape())
            }),
            Self::ScaleInputs { conv, factors } => change(weights, conv, "weight", |t| {
                let n = factors.dim(0)?;
                t.reshape((t.dim(0)?, n))?.broadcast_mul(&factors.reshape((1, n))?)?.reshape(t.shape())
            }),
            Self::PermuteOutputs { conv, order } => {
                let order = Tensor::new(order.as_slice(), &Device::Cpu)?;
                change_outputs(weights, conv, Scaled::WeightAndBias, |t| t.index_select(&order, 0))
            }
            Self::PermuteInputs { conv, order } => {
                let order = Tensor::new(order.as_slice(), &Device::Cpu)?;
                change(weights, conv, "weight", |t| t.index_select(&order, 1))
            }
            Self::AddToBias { conv, shift } => change(weights, conv, "bias", |t| t + shift),
            Self::AbsorbShift { conv, shift } => {
                let weight = tensor(weights, conv, "weight")?.clone();
                change(weights, conv, "bias", |t| {
                    let moved =
                        weight.reshape((weight.dim(0)?, shift.dim(0)?))?.matmul(&shift.unsqueeze(1)?)?.squeeze(1)?;
                    t - moved
                })
            }
            Self::ExplicitSkip { layer, block } => {
                weights.make_skip_explicit(*layer, *block).map_err(|error| refused(error.to_string()))
            }
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
            Self::ScaleOutputs { conv, factors, scaled } => {
                Self::ScaleOutputs { conv, factors: factors.recip()?, scaled }
            }
            Self::ScaleInputs { conv, factors } => Self::ScaleInputs { conv, factors: factors.recip()? },
            Self::PermuteOutputs { conv, order } => Self::PermuteOutputs { conv, order: inverted(order) },
            Self::PermuteInputs { conv, order } => Self::PermuteInputs { conv, order: inverted(order) },
            Self::AddToBias { conv, shift } => Self::AddToBias { conv, shift: shift.neg()? },
            Self::AbsorbShift { conv, shift } => Self::AbsorbShift { conv, shift: shift.neg()? },
            // An explicit skip stays one.
            op @ Self::ExplicitSkip { .. } => op,
        })
    }
}

/// The tensor `{conv}.{part}`, where `part` is `weight` or `bias`.
pub(super) fn tensor<'a>(weights: &'a Weights, conv: &str, part: &str) -> Result<&'a Tensor> {
    let missing = || refused(format!("there is no `{conv}.{part}`"));
    weights.tensors().get(&format!("{conv}.{part}")).ok_or_else(missing)
}

/// Changes the tensor `{conv}.{part}`, which keeps its shape.
fn change(
    weights: &mut Weights,
    conv: &str,
    part: &str,
    by: impl FnOnce(&Tensor) -> candle_core::Result<Tensor>,
) -> Result<()> {
    let before = tensor(weights, conv, part)?;
    let name = format!("{conv}.{part}");
    let after = by(before).with_context(|| format!("`{name}`")).map_err(Error::Symmetry)?;
    if after.dims() != before.dims() {
        let message = format!("`{name}` has the shape {:?}, and would get {:?}", before.dims(), after.dims());
        return Err(refused(message));
    }
    weights.replace(&name, after)
}

/// Changes the weight, and where it is to be scaled too the bias, whose one dimension is that of outputs.
fn change_outputs(
    weights: &mut Weights,
    conv: &str,
    scaled: Scaled,
    by: impl Fn(&Tensor) -> candle_core::Result<Tensor>,
) -> Result<()> {
    scaled.parts().iter().try_for_each(|part| change(weights, conv, part, &by))
}

/// How much of an element is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The whole element: the logits stay.
    Both,
    /// Only the half that changes the values that are written, without the half that makes up for it where
    /// they are read. This is no symmetry, but a step of the same size: the control of a check.
    Writing,
    /// Only the half that makes up for it: after [`Self::Writing`], the element is whole.
    Reading,
}

/// An element of a family's group, or several in sequence. [`draw`](super::draw) makes one; the default
/// moves nothing.
#[derive(Clone, Debug, Default)]
pub struct Element {
    writing: Vec<Op>,
    reading: Vec<Op>,
}

impl Element {
    pub(super) fn new(writing: Vec<Op>, reading: Vec<Op>) -> Self {
        Self { writing, reading }
    }

    /// Whether it moves nothing: the network, or the layer, has nothing that its family acts on.
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

    /// Moves weights, which are float64 ([`Weights::to_dtype`]). Tensors that the element does not act on
    /// stay shared with clones of the weights.
    ///
    /// # Errors
    /// [`Error::Symmetry`] if the weights are not float64, or those of another configuration than the
    /// element was drawn for. They are then as they were.
    pub fn apply(&self, weights: &mut Weights, side: Side) -> Result<()> {
        if let Some(tensor) = weights.tensors().values().find(|tensor| tensor.dtype() != DType::F64) {
            let dtype = tensor.dtype().as_str();
            return Err(refused(format!(
                "elements move weights in f64, and these are {dtype}: Weights::to_dtype converts them"
            )));
        }
        let mut moved = weights.clone();
        if side != Side::Reading {
            self.writing.iter().try_for_each(|op| op.apply(&mut moved))?;
        }
        if side != Side::Writing {
            self.reading.iter().try_for_each(|op| op.apply(&mut moved))?;
        }
        *weights = moved;
        Ok(())
    }

    /// The element that takes back what this one does, the last first. A skip that general-linear has made
    /// explicit stays explicit.
    ///
    /// # Errors
    /// [`Error::Compute`] if there is no memory.
    pub fn inverse(self) -> Result<Self> {
        let inverse = |ops: Vec<Op>| ops.into_iter().rev().map(Op::inverse).collect::<Result<Vec<_>>>();
        Ok(Self { writing: inverse(self.reading)?, reading: inverse(self.writing)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::symmetry::{draw, find};
    use crate::weights::config::Config;

    fn random(hidden_channels: usize) -> Weights {
        let mut config = Config::new(3, &[(3, 2), (4, 2)], 3, 2, 3);
        config.layers.iter_mut().flatten().for_each(|block| block.hidden_channels = hidden_channels);
        Weights::random(&config, 1).unwrap().to_dtype(DType::F64).unwrap()
    }

    /// Also where the numbers of channels divide each other, or a permutation has fewer of them and would
    /// cut a tensor off.
    #[test]
    fn weights_of_another_width_are_refused_and_stay() {
        let hidden = [
            "product-balance",
            "product-scale",
            "filter-mixing",
            "conv2-bias-shift",
            "hidden-permutation",
            "factor-swap",
        ];
        for family in find(&hidden).unwrap() {
            let element = draw(family, &random(3), None, None, 1).unwrap();
            for hidden_channels in [2, 4, 6] {
                let mut weights = random(hidden_channels);
                let before = weights.clone();
                let error = element.apply(&mut weights, Side::Both).unwrap_err();
                assert!(matches!(error, Error::Symmetry(_)), "{} {hidden_channels}: {error}", family.name());
                assert!(weights.tensors().iter().all(|(name, tensor)| tensor.id() == before.tensors()[name].id()));
            }
        }
    }
}
