//! The symmetry of the network: ways to move its weights that leave its output as it is.
//!
//! In come folded weights; out go other weights with the same logits, and the evidence that they are the
//! same. May use `weights`, `network` to compute logits, and `page` to show them; nothing else of the program but
//! `random`, and from `input` what makes the network's input of pixels that are drawn.
//!
//! With batch norm folded in, every family of `families` is exact by algebra (`docs/symmetry.md` has the
//! proofs). An [`Element`] of one is a list of operations on folded weights, of which one half changes what
//! is written and the other what is read.
//!
//! ```text
//! element, structure, matrices    what elements are, and what they act on
//! families                        a file for each family
//! check, path, balance, audit     what moving along them shows; distance says how far it goes
//! prepare                         moves weights to where rounding to eight bits hurts least
//! plot                            a path as a picture
//! page                            paths as a page with a slider, which shows weights and answers
//! ```
//!
//! Weights at random are moved along a family like this; [`Subject`] shows that the output stays:
//!
//! ```
//! use qlnet::candle_core::Device;
//! use qlnet::network::Precision;
//! use qlnet::symmetry::{Side, Subject, draw, find, noise};
//! use qlnet::weights::Config;
//! use qlnet::weights::Weights;
//!
//! let weights = Weights::random(&Config::qlnet_digits(), 1)?;
//! let images = noise(2, 32, 1)?;
//! let subject = Subject::new(&weights, &images, Precision::F32, &Device::Cpu)?;
//! let mut moved = subject.weights().clone();
//! for family in find(&["stage-rotation", "filter-mixing"])? {
//!     draw(family, &moved, None, None, 7)?.apply(&mut moved, Side::Both)?;
//! }
//! let change = subject.compare(&moved)?;
//! assert!(change.weight_change > 0.1 && change.logit_change <= subject.tolerance());
//! # Ok::<(), qlnet::Error>(())
//! ```
//!
//! Liu, Shao, Bai, "A Novel Convolutional Neural Network Architecture with a Continuous Symmetry",
//! [arXiv 2308.01621](https://arxiv.org/abs/2308.01621), section 3, has the rotations and GL(n).

pub(crate) mod audit;
pub(crate) mod balance;
pub(crate) mod check;
mod distance;
mod element;
pub(crate) mod families;
mod matrices;
pub(crate) mod page;
pub(crate) mod path;
pub mod plot;
pub(crate) mod prepare;
mod structure;

pub use audit::{Audit, Counted, MOST_PARAMETERS, audit, small};
pub use balance::{HalfPrecision, balance};
pub use check::{Change, Compared, FAR, Outcome, Subject, noise};
pub use distance::distance;
pub use element::{Element, Side};
#[doc(hidden)]
pub use families::Subgroup;
pub use families::{FAMILIES, Family, draw, find};
pub use path::{Step, walk};
pub use prepare::prepare_for_int8;

use crate::error::{Error, Reason};

/// The error of what the symmetry cannot be applied to.
fn refused(words: impl Into<String>) -> Error {
    Error::Symmetry(Reason::new(words))
}
