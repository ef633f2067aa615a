//! Whether the list of families is complete: as many directions in the space of parameters leave all
//! logits where they are, to first order, as the families have dimensions.
//!
//! The Jacobian of the logits with respect to all folded parameters, over many images, has a row for
//! each image and logit. Its null space are the directions in which no logit changes; its dimension is
//! the number of parameters less the rank, which the singular values tell.

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, IndexOp, Tensor, Var};
use candle_nn::VarBuilder;
use nalgebra::DMatrix;
use rayon::prelude::*;
use serde::Serialize;

use super::check::noise;
use super::families::Family;
use super::structure::{blocks, streams};
use crate::network::model::QLNet;
use crate::weights::config::Config;
use crate::weights::fold::Weights;

/// A network with more parameters takes too long.
pub const MOST_PARAMETERS: usize = 4000;
/// Singular values below this, relative to the largest, count as zero. In float64 they are where they
/// are zero below 1e-14; others have been above 1e-6.
const ZERO: f64 = 1e-10;

/// What was counted.
#[derive(Clone, Debug, Serialize)]
pub struct Audit {
    /// Whether the families have as many dimensions as there are directions that change no logit, and it is
    /// clear how many these are.
    pub passed: bool,
    pub network: String,
    pub seed: u64,
    pub parameters: usize,
    /// Rows of the Jacobian.
    pub equations: usize,
    pub rank: usize,
    /// Directions in which no logit changes.
    pub null_space: usize,
    /// Of each family.
    pub families: Vec<Counted>,
    /// One for each stage in which no pixel stayed inside the ball of its first block: there, what makes
    /// it, skip and conv3, may also share a scale.
    pub scales: usize,
    /// All dimensions together.
    pub expected: usize,
    /// The last singular value that is not zero and the first that is, relative to the largest.
    pub last_nonzero: f64,
    pub first_zero: f64,
}

/// A family and its dimensions.
#[derive(Clone, Debug, Serialize)]
pub struct Counted {
    pub family: &'static str,
    pub dimensions: usize,
}

/// How many times the last singular value that is not zero must be larger than the first that is, or the
/// rank is not clear.
const GAP: f64 = 1e4;

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
/// If the network is too large, or one of its hardballs never acts on these images: then the group is
/// larger than the families say.
pub fn audit(weights: &Weights, families: &[&dyn Family], seed: u64) -> Result<Audit> {
    let config = &weights.config;
    let weights = weights.to_dtype(DType::F64)?;
    let parameters: usize = weights.tensors.values().map(|tensor| tensor.elem_count()).sum();
    ensure!(
        !config.has_explicit_skips(),
        "a network with explicit skips has more symmetries than the families that are counted"
    );
    ensure!(
        parameters <= MOST_PARAMETERS,
        "an audit takes a small network: this one has {parameters} parameters, and at most {MOST_PARAMETERS} are \
         feasible; leave out --model and --weights to take one that is made for it"
    );
    let vars: Vec<(String, Var)> =
        weights.tensors.iter().map(|(name, t)| Ok((name.clone(), Var::from_tensor(t)?))).collect::<Result<_>>()?;
    let tensors = vars.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
    let net = QLNet::new_plain(config, VarBuilder::from_tensors(tensors, DType::F64, &Device::Cpu))?;

    // An image gives as many independent equations as it has logits, or features that they are made of.
    let images = (5 * parameters).div_ceil(4 * config.num_classes.min(config.num_features()));
    let side = (8 << (config.layers.len() - 1)) + 1;
    let noise = noise(images, side, seed)?.to_dtype(DType::F64)?;
    let balls = Balls::observe(&net, config, &noise)?;
    let equations = images * config.num_classes;
    let rows = (0..images).into_par_iter().map(|image| -> Result<Vec<Vec<f64>>> {
        let logits = net.forward_observed(&noise.narrow(0, image, 1)?, &mut |_, _| {})?;
        (0..config.num_classes).map(|class| gradient(&logits.i((0, class))?, &vars)).collect()
    });
    let rows: Vec<Vec<f64>> = rows.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
    let finite = rows.iter().flatten().all(|value| value.is_finite());
    ensure!(finite, "the network overflows on random images: smaller weights are needed");
    let jacobian = DMatrix::from_fn(equations, parameters, |row, column| rows[row][column]);
    let mut values = jacobian.singular_values().as_slice().to_vec();
    values.sort_by(|a, b| b.total_cmp(a));
    let relative: Vec<f64> = values.iter().map(|value| value / values[0]).collect();
    let rank = relative.iter().filter(|value| **value > ZERO).count();
    let null_space = parameters - rank;

    let families: Vec<_> = families
        .iter()
        .filter(|family| family.keeps_architecture())
        .map(|family| Counted { family: family.name(), dimensions: family.dimensions(config, None) })
        .filter(|counted| counted.dimensions > 0)
        .collect();
    let scales = balls.never_inside;
    let expected = families.iter().map(|counted| counted.dimensions).sum::<usize>() + scales;
    let (last_nonzero, first_zero) = (relative[rank - 1], relative.get(rank).copied().unwrap_or(0.0));
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

/// The derivative of a number by all parameters, one after the other.
fn gradient(logit: &Tensor, vars: &[(String, Var)]) -> Result<Vec<f64>> {
    let gradients = logit.backward()?;
    let mut row = Vec::new();
    for (name, var) in vars {
        let gradient = gradients.get(var.as_tensor()).with_context(|| format!("`{name}` has no effect"))?;
        row.extend(gradient.flatten_all()?.to_vec1::<f64>()?);
    }
    Ok(row)
}

/// Where pixels lie, of the hardballs at the beginning of the stages.
struct Balls {
    never_inside: usize,
}

impl Balls {
    fn observe(net: &QLNet, config: &Config, images: &Tensor) -> Result<Self> {
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
        let mut never_inside = 0;
        for (step, share) in shares {
            let share = share?;
            ensure!(share < 1.0, "the hardball after {step} never acts on these images: larger weights are needed");
            never_inside += usize::from(share == 0.0 && (step != "act" || whole));
        }
        Ok(Self { never_inside })
    }
}

/// Share of the pixels of `[n, h, w, c]`, after a hardball, that lie inside the ball.
fn share_inside(x: &Tensor) -> Result<f64> {
    let radius = (x.dim(3)? as f64).sqrt();
    let inside = x.sqr()?.sum(3)?.sqrt()?.lt(radius * (1.0 - 1e-12))?;
    Ok(inside.to_dtype(DType::F64)?.mean_all()?.to_scalar::<f64>()?)
}
