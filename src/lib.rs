//! QLNet, an image classifier built from quasi-linear hyperbolic PDEs, on [candle](candle_core).
//!
//! Liu, Shao, Bai, "A Novel Convolutional Neural Network Architecture with a Continuous Symmetry",
//! [arXiv 2308.01621](https://arxiv.org/abs/2308.01621).
//!
//! There is one way through, and a folder for each room on it, which knows only the rooms above it in this
//! list:
//!
//! ```text
//! input       image file -> pixels -> the network's input
//! hub         the name of a file or a data set on the Hugging Face hub -> files on this machine
//! weights     a model's name or a checkpoint file -> folded weights
//! network     the network's input -> logits -> named predictions
//! features    rows of numbers, one for each of many images -> a file for NumPy or a table
//! page        what HTML pages are made of
//! sheet       images and their predictions -> pictures and pages to look at
//! eval        many images with labels -> accuracy, predictions, report
//! symmetry    folded weights -> other weights with the same output
//! cli         the program: what it parses, prints and advises
//!
//! bounded, digest, error, kept, output, panics, random, simd, text    what all rooms may use
//! ```
//!
//! A classifier in two lines, and everything below it in the modules:
//!
//! ```
//! let classifier = qlnet::Classifier::from_model("qlnet-digits")?;
//! let predictions = classifier.classify(&std::fs::read("samples/digits/3-45.png")?)?;
//! assert_eq!(predictions[0].label, "3");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Weights that are downloaded or folded are kept in files: in the cache of Python's `huggingface_hub`, whose
//! variables (`HF_HOME`, `HF_TOKEN` and others) are read, and in what `QLNET_CACHE` names, or `qlnet` in the
//! user's folder for caches, with the hash of each checkpoint file. There are also the weights as they are packed for
//! the CPU, which a [`Classifier`] maps into memory. [`Weights::from_bytes`] and [`Classifier::new`] keep nothing.
//! Computing is done by rayon's threads, with the instruction set that `QLNET_SIMD` allows. The first image that is
//! decoded installs a panic hook: a decoder that panics makes an error of its image, and prints nothing.
//!
//! Errors are variants of [`Error`]. Tensors are [candle's](candle_core) and pixels those of the crate
//! [`image`]; both crates are exported here in the versions that this one uses.

#[cfg(target_endian = "big")]
compile_error!(
    "qlnet is for little-endian machines: candle, and the kernels here, take the bytes of files of weights as they are"
);

mod bounded;
#[doc(hidden)]
pub mod cli;
mod digest;
mod error;
pub mod eval;
pub mod features;
mod hub;
pub mod input;
#[doc(hidden)]
pub mod internals;
mod kept;
pub mod network;
mod output;
mod page;
mod panics;
mod random;
mod sheet;
mod simd;
pub mod symmetry;
mod text;
pub mod weights;

pub use candle_core;
pub use image;

pub use error::{DatasetProblem, Error, PredictionsProblem, Reason, Result};
pub use network::{Classifier, Prediction};
pub use weights::Weights;
