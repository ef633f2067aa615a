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
//! weights     a model's name or a checkpoint file -> folded weights
//! network     the network's input -> logits -> named predictions
//! eval        many images with labels -> accuracy, predictions, report
//! symmetry    folded weights -> other weights with the same output
//! cli         the program: what it parses, prints and advises
//! ```
//!
//! ```
//! use qlnet::input::decode::Options;
//! use qlnet::network::classifier::Classifier;
//! use qlnet::weights::{self, registry};
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
//! let crop = classifier.preprocess().crop_of(&bytes, "3-45.png".as_ref(), Options::default())?;
//! let predictions = classifier.classify_crops(&[crop.pixels], 1)?.remove(0)?;
//! assert_eq!(predictions[0].label, "3");
//! # anyhow::Ok(())
//! ```

pub mod cli;
pub mod error;
pub mod eval;
pub mod input;
pub mod network;
pub mod output;
pub mod random;
pub mod simd;
pub mod symmetry;
pub mod text;
pub mod weights;
