//! QLNet, an image classifier built from quasi-linear hyperbolic PDEs, on [candle](candle_core).
//!
//! Liu, Shao, Bai, "A Novel Convolutional Neural Network Architecture with a Continuous Symmetry",
//! [arXiv 2308.01621](https://arxiv.org/abs/2308.01621).
//!
//! There is one way through, and a module for each step, which knows only the steps before it:
//!
//! ```text
//! decode, resample, preprocess    image file -> pixels -> the network's input
//! registry, hub                   which file holds the weights, and how it gets here
//! checkpoint                      file -> named tensors
//! config, fold                    -> folded weights: convolutions with biases, batch norm gone
//! weights                         the four above behind a cache
//! model, ops                      -> the network, in candle's operations and ours
//! cpu, simd                       the fast ones for the CPU
//! classifier                      -> logits -> named predictions
//! dataset, eval                   many images with labels -> accuracy, predictions, report
//! symmetry                        folded weights -> other weights with the same output
//! cli, commands                   what the program parses and prints
//! bench, device, digest, output,  what they call besides
//! random, text, threads
//! ```
//!
//! ```
//! use qlnet::{classifier::Classifier, decode, registry, weights};
//!
//! let model = registry::find("qlnet-digits")?;
//! let weights = weights::from_model(model, &mut |_| {})?;
//! let classifier = Classifier::new(
//!     &weights,
//!     model.labels(),
//!     model.preprocess(),
//!     candle_core::Device::Cpu,
//!     candle_core::DType::F32,
//! )?;
//! let bytes = std::fs::read("samples/digits/3-45.png")?;
//! let crop = classifier.preprocess.crop_of(&bytes, "3-45.png".as_ref(), decode::Options::default())?;
//! let predictions = classifier.classify(&[crop.pixels], 1)?.remove(0)?;
//! assert_eq!(predictions[0].label, "3");
//! # anyhow::Ok(())
//! ```

pub mod bench;
pub mod checkpoint;
pub mod classifier;
pub mod cli;
pub mod commands;
pub mod config;
pub mod cpu;
pub mod dataset;
pub mod decode;
pub mod device;
pub mod digest;
pub mod eval;
pub mod fold;
pub mod hub;
pub mod model;
pub mod ops;
pub mod output;
pub mod preprocess;
pub mod random;
pub mod registry;
pub mod resample;
pub mod simd;
pub mod symmetry;
pub mod text;
pub mod threads;
pub mod weights;
