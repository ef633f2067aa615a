//! The symmetry of the network: ways to move its weights that leave its output as it is.
//!
//! In come folded weights; out go other weights with the same logits, and the evidence that they are the
//! same. May use `weights`, and `network` to compute logits; nothing else of the program but `random`.
//!
//! With batch norm folded in, every family of [`families`] is exact by algebra (`docs/symmetry.md` has the
//! proofs). An [`Element`] of one is a list of operations on folded weights, of which one half changes what
//! is written and the other what is read.
//!
//! ```text
//! element, structure, matrices    what elements are, and what they act on
//! families                        a file for each family
//! check, path, balance, audit     what moving along them shows
//! plot                            a path as a picture
//! ```
//!
//! Liu, Shao, Bai, "A Novel Convolutional Neural Network Architecture with a Continuous Symmetry",
//! [arXiv 2308.01621](https://arxiv.org/abs/2308.01621), section 3, has the rotations and GL(n).

pub mod audit;
pub mod balance;
pub mod check;
mod element;
pub mod families;
mod matrices;
pub mod path;
pub mod plot;
mod structure;

pub use element::{Element, Side};
pub use families::{FAMILIES, Family, Subgroup, draw, find};
