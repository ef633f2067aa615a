//! Moves weights to where rounding them, and what enters their products, to eight bits hurts least.
//!
//! In come weights; out go those of the same network, which depend on them alone. Five steps, each an element of
//! families of the symmetry (`docs/symmetry.md` has the formulae, and what each brings):
//!
//! ```text
//! stem          stem scaling: what reads the stem's stream has columns of one size
//!               conv2 bias shift, stream shift: what enters a product has the mean zero
//! pairs         filter mixing: the filters of a channel and the columns that read them are balanced
//! rotation      stage rotation: the rows of the skips are flat
//! selection     stem scaling: of some that are near, the one that the rounding happens to suit
//! calibration   drawn images, and the moments of what the network makes of them
//! dense         linear algebra
//! ```
//!
//! What the first four arrive at does not depend on where in the group the weights were, but for general linear:
//! its explicit skips each begin a stream of their own, and are turned like those before a ball. A step that the
//! weights give no answer to, such as what to divide a channel by that is zero, leaves that part where it is.
//!
//! Equalising and centring without data: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
//! Correction", 2019. Rotating: Ashkboos et al., "QuaRot", 2024; Liu et al., "SpinQuant", 2024.

mod calibration;
mod dense;
mod pairs;
mod rotation;
mod selection;
mod stem;

use candle_core::DType;

use self::calibration::Statistics;
use super::element::{Element, Side};
use crate::error::Result;
use crate::weights::Weights;

/// Moves weights to where rounding to eight bits hurts least: the same network, in float64. The same weights give
/// the same result.
///
/// ```
/// use qlnet::symmetry::prepare_for_int8;
///
/// let prepared = prepare_for_int8(&qlnet::Weights::from_model("qlnet-digits")?)?;
/// assert_eq!(prepared.config(), &qlnet::weights::Config::qlnet_digits());
/// # Ok::<(), qlnet::Error>(())
/// ```
///
/// # Errors
/// [`Error::Compute`](crate::error::Error::Compute) if there is no memory.
pub fn prepare_for_int8(weights: &Weights) -> Result<Weights> {
    let preparation = Preparation::new(weights)?;
    let mut weights = preparation.weights.clone();
    preparation.elements(&Step::ALL)?.iter().try_for_each(|element| element.apply(&mut weights, Side::Both))?;
    Ok(weights)
}

/// A step of [`prepare_for_int8`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// By stem scaling, the columns that read the stem's stream get one size.
    StemScaling,
    /// By conv2 bias shift and stream shift, what enters a product gets the mean zero.
    Centring,
    /// By filter mixing, the filters of a hidden channel and the columns that read them are balanced.
    FilterMixing,
    /// By stage rotation, the rows of the skips become flat.
    StageRotation,
    /// By stem scaling, the best of some networks that are near.
    Selection,
}

impl Step {
    /// Every step, in the order in which they are taken.
    pub const ALL: [Self; 5] =
        [Self::StemScaling, Self::Centring, Self::FilterMixing, Self::StageRotation, Self::Selection];

    /// Its name: `stem scaling`, `centring`, `filter mixing`, `stage rotation` or `selection`.
    pub fn name(self) -> &'static str {
        match self {
            Self::StemScaling => "stem scaling",
            Self::Centring => "centring",
            Self::FilterMixing => "filter mixing",
            Self::StageRotation => "stage rotation",
            Self::Selection => "selection",
        }
    }
}

/// Weights, and what is known of them before any step.
pub struct Preparation {
    /// In float64.
    weights: Weights,
    statistics: Statistics,
}

impl Preparation {
    /// Runs the network on the images that it is calibrated with.
    ///
    /// # Errors
    /// [`Error::Compute`](crate::error::Error::Compute) if there is no memory.
    pub fn new(weights: &Weights) -> Result<Self> {
        let weights = weights.to_dtype(DType::F64)?;
        let statistics = Statistics::new(&weights)?;
        Ok(Self { weights, statistics })
    }

    /// The elements of some steps, to be applied one after the other to the weights in float64. Those that move
    /// nothing are left out.
    ///
    /// # Errors
    /// [`Error::Compute`](crate::error::Error::Compute) if there is no memory.
    pub fn elements(&self, steps: &[Step]) -> Result<Vec<Element>> {
        let (mut weights, mut statistics) = (self.weights.clone(), self.statistics.clone());
        let config = weights.config().clone();
        let mut elements = Vec::new();
        for step in Step::ALL.into_iter().filter(|step| steps.contains(step)) {
            let element = match step {
                Step::StemScaling => stem::scaling(&weights, &config, &mut statistics)?,
                Step::Centring => stem::centring(&config, &statistics)?,
                Step::FilterMixing => pairs::mixing(&weights, &config, &statistics)?,
                Step::StageRotation => rotation::rotations(&weights, &config, &statistics)?,
                Step::Selection => selection::selection(&weights, &config)?,
            };
            if !element.is_empty() {
                element.apply(&mut weights, Side::Both)?;
                elements.push(element);
            }
        }
        Ok(elements)
    }
}
