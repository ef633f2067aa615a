//! Whether the list of families is complete: as many directions in the space of parameters leave all
//! logits where they are, to first order, as the families have dimensions.
//!
//! The Jacobian of the logits with respect to all folded parameters, over many images, has a row for
//! each image and logit. Its null space are the directions in which no logit changes; its dimension is
//! the number of parameters less the rank, which the singular values tell.

use candle_core::{DType, Device, IndexOp, Tensor, Var};
use candle_nn::VarBuilder;
use nalgebra::DMatrix;
use rayon::prelude::*;
use serde::Serialize;

use super::check::noise;
use super::families::Family;
use super::refused;
use super::structure::{blocks, streams};
use crate::error::{Error, Result};
use crate::network::model::QLNet;
use crate::weights::Weights;
use crate::weights::config::Config;

/// A network with more parameters takes too long.
pub const MOST_PARAMETERS: usize = 4000;
/// Values of all images together. The default network takes 0.3 million.
const MOST_VALUES: usize = 1 << 24;
/// Derivatives of all equations. Where there are a quarter more equations than parameters, 4000 of these have 20 million.
const MOST_DERIVATIVES: usize = 1 << 25;
/// Singular values below this, relative to the largest, count as zero. In float64 they are where they
/// are zero below 1e-14; others have been above 1e-6.
const ZERO: f64 = 1e-10;
/// How many times the last singular value that is not zero must be larger than the first that is, or the
/// rank is not clear.
const GAP: f64 = 1e4;

/// What was counted.
#[derive(Clone, Debug, Serialize)]
pub struct Audit {
    /// Whether the families have as many dimensions as there are directions that change no logit, and it is
    /// clear how many these are.
    pub passed: bool,
    /// The dimensions of the network, in words.
    pub network: String,
    /// What the random images were drawn with.
    pub seed: u64,
    /// The parameters of the network, and columns of the Jacobian.
    pub parameters: usize,
    /// Rows of the Jacobian.
    pub equations: usize,
    /// Its rank.
    pub rank: usize,
    /// Directions in which no logit changes.
    pub null_space: usize,
    /// The families that have dimensions and keep the architecture.
    pub families: Vec<Counted>,
    /// One for each stream in which no pixel stayed inside the ball that it begins with: there, what makes
    /// the stream, skip and conv3, may also share a scale.
    pub scales: usize,
    /// All dimensions together.
    pub expected: usize,
    /// The last singular value that is not zero, relative to the largest.
    pub last_nonzero: f64,
    /// The first singular value that counts as zero, relative to the largest.
    pub first_zero: f64,
}

/// A family and its dimensions.
#[derive(Clone, Debug, Serialize)]
pub struct Counted {
    /// The family's name.
    pub family: &'static str,
    /// The dimension of its group for this network.
    pub dimensions: usize,
}

/// The network that is audited unless another is given: two filters a channel, three layers.
///
/// It has few hidden channels for its width. The product of two affine functions of `c` channels is one of
/// `(c + 1)(c + 2) / 2` monomials' combinations, and where there are about as many hidden channels as
/// that, there are more ways to write the same function than the families have.
pub fn small() -> Config {
    let mut config = Config::new(3, &[(3, 2), (4, 3), (5, 2)], 3, 2, 3);
    config.layers.iter_mut().flatten().for_each(|block| block.hidden_channels = 3);
    config
}

/// Counts, on so many random images that there are a quarter more equations than parameters, and so large
/// that the last layer still has 3x3 pixels: on fewer, some taps of conv2 would only see padding.
///
/// # Errors
/// [`Error::TooLargeToAudit`] if the network has more than [`MOST_PARAMETERS`]; [`Error::Symmetry`] if it has
/// explicit skips, takes images that are too many or too large, overflows, or one of its hardballs never acts on these images, because the group is
/// larger then than the families say; [`Error::Compute`] if there is no memory.
pub fn audit(weights: &Weights, families: &[&dyn Family], seed: u64) -> Result<Audit> {
    let config = weights.config();
    if config.has_explicit_skips() {
        return Err(refused("a network with explicit skips has more symmetries than the families that are counted"));
    }
    let parameters: usize = weights.tensors().values().map(|tensor| tensor.elem_count()).sum();
    if parameters > MOST_PARAMETERS {
        return Err(Error::TooLargeToAudit { parameters, limit: MOST_PARAMETERS });
    }
    let network = Differentiable::new(weights)?;
    let (images, side) = images_for(config, parameters)?;
    let noise = noise(images, side, seed)?.to_dtype(DType::F64)?;
    let scales = streams_outside_their_ball(&network.net, config, &noise)?;
    let equations = images * config.num_classes;
    let values = network.singular_values(&noise, config.num_classes)?;
    // At least one: the derivatives by the last bias are all 1.
    let rank = values.iter().filter(|value| **value > ZERO).count();
    let null_space = parameters - rank;

    let families: Vec<_> = families
        .iter()
        .filter(|family| family.keeps_architecture())
        .map(|family| Counted { family: family.name(), dimensions: family.dimensions(config, None) })
        .filter(|counted| counted.dimensions > 0)
        .collect();
    let expected = families.iter().map(|counted| counted.dimensions).sum::<usize>() + scales;
    let (last_nonzero, first_zero) = (values[rank - 1], values.get(rank).copied().unwrap_or(0.0));
    Ok(Audit {
        passed: null_space == expected && last_nonzero > GAP * first_zero,
        network: config.to_string(),
        seed,
        parameters,
        equations,
        rank,
        null_space,
        families,
        scales,
        expected,
        last_nonzero,
        first_zero,
    })
}

/// How many images an audit takes, and how many pixels these have on a side.
///
/// # Errors
/// If there would be too many of them, or of what is computed from them: each layer doubles the sides, and classes that are many
/// more than the features make equations that are not independent.
fn images_for(config: &Config, parameters: usize) -> Result<(usize, usize)> {
    // An image gives as many independent equations as it has logits, or features that they are made of.
    let images = (5 * parameters).div_ceil(4 * config.num_classes.min(config.num_features()));
    let layers = config.layers.len();
    let side = (8usize << (layers - 1)) + 1;
    if [side, side, 3].into_iter().fold(images, usize::saturating_mul) > MOST_VALUES {
        let message =
            format!("an audit of {layers} layers takes {images} images of {side}x{side} pixels: that is too much");
        return Err(refused(message));
    }
    let equations = images.saturating_mul(config.num_classes);
    if equations.saturating_mul(parameters) > MOST_DERIVATIVES {
        let message = format!(
            "an audit of {} classes takes {equations} equations of {parameters} parameters: that is too much",
            config.num_classes
        );
        return Err(refused(message));
    }
    Ok((images, side))
}

/// A network whose logits can be differentiated by its parameters, in float64.
struct Differentiable {
    net: QLNet,
    parameters: Vec<(String, Var)>,
}

impl Differentiable {
    fn new(weights: &Weights) -> Result<Self> {
        let weights = weights.to_dtype(DType::F64)?;
        let parameter = |(name, tensor): (&String, &Tensor)| Ok((name.clone(), Var::from_tensor(tensor)?));
        let parameters: Vec<_> = weights.tensors().iter().map(parameter).collect::<Result<_>>()?;
        let tensors = parameters.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
        let builder = VarBuilder::from_tensors(tensors, DType::F64, &Device::Cpu);
        Ok(Self { net: QLNet::new_plain(weights.config(), builder)?, parameters })
    }

    /// The singular values of the Jacobian of the logits of all images `[n, 3, h, w]`, the largest first, divided by the
    /// largest.
    fn singular_values(&self, images: &Tensor, num_classes: usize) -> Result<Vec<f64>> {
        let rows = (0..images.dim(0)?).into_par_iter().map(|image| -> Result<Vec<Vec<f64>>> {
            let logits = self.net.forward_observed(&images.narrow(0, image, 1)?, &mut |_, _| {})?;
            (0..num_classes).map(|class| self.gradient(&logits.i((0, class))?)).collect()
        });
        let rows: Vec<Vec<f64>> = rows.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
        if !rows.iter().flatten().all(|value| value.is_finite()) {
            return Err(refused("the network overflows on random images: smaller weights are needed"));
        }
        let jacobian = DMatrix::from_fn(rows.len(), rows[0].len(), |row, column| rows[row][column]);
        let mut values = jacobian.singular_values().as_slice().to_vec();
        values.sort_by(|a, b| b.total_cmp(a));
        Ok(values.iter().map(|value| value / values[0]).collect())
    }

    /// The derivative of a number by all parameters, one after the other.
    fn gradient(&self, logit: &Tensor) -> Result<Vec<f64>> {
        let gradients = logit.backward()?;
        let mut row = Vec::new();
        for (name, var) in &self.parameters {
            let gradient = gradients.get(var.as_tensor()).ok_or_else(|| refused(format!("`{name}` has no effect")))?;
            row.extend(gradient.flatten_all()?.to_vec1::<f64>()?);
        }
        Ok(row)
    }
}

/// In how many streams no pixel of these images lies inside the ball that the stream begins with. The ball
/// before the head counts where it is the only one.
fn streams_outside_their_ball(net: &QLNet, config: &Config, images: &Tensor) -> Result<usize> {
    let mut steps: Vec<String> = blocks(config, None)
        .filter(|block| block.config.skip.ends_in_hardball())
        .map(|block| format!("layer{}.{}", block.layer, block.index))
        .collect();
    steps.push("act".into());
    let mut shares = Vec::new();
    net.forward_observed(images, &mut |step, x| {
        if steps.iter().any(|other| other == step) {
            shares.push((step.to_string(), share_inside(x)));
        }
    })?;
    // Where the stem's stream runs into the final ball, all of it may have a scale.
    let whole = streams(config, None).last().is_some_and(|stream| stream.first.is_none());
    let mut outside = 0;
    for (step, share) in shares {
        let share = share?;
        if share == 1.0 {
            let message = format!("the hardball after {step} never acts on these images: larger weights are needed");
            return Err(refused(message));
        }
        outside += usize::from(share == 0.0 && (step != "act" || whole));
    }
    Ok(outside)
}

/// Share of the pixels of `[n, h, w, c]`, after a hardball, that lie inside the ball.
fn share_inside(x: &Tensor) -> candle_core::Result<f64> {
    let radius = (x.dim(3)? as f64).sqrt();
    let inside = x.sqr()?.sum(3)?.sqrt()?.lt(radius * (1.0 - 1e-12))?;
    inside.to_dtype(DType::F64)?.mean_all()?.to_scalar::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_networks_may_take_too_much_all_the_same() {
        let taken = |layers: usize, classes: usize| {
            let config = Config::new(1, &vec![(1, 1); layers], 1, 1, classes);
            images_for(&config, 2000).map_err(|error| error.to_string())
        };
        assert_eq!(taken(3, 2), Ok((2500, 33)));
        let error = "an audit of 7 layers takes 2500 images of 513x513 pixels: that is too much".to_string();
        assert_eq!(taken(7, 2), Err(error));
        let error = "an audit of 10 classes takes 25000 equations of 2000 parameters: that is too much".to_string();
        assert_eq!(taken(3, 10), Err(error));
        assert!(taken(16, 1 << 20).is_err() && images_for(&small(), MOST_PARAMETERS).is_ok());
    }
}
