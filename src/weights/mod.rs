//! From a model's name or a checkpoint file to folded weights.
//!
//! In come a name that the registry knows, or the path or bytes of a checkpoint; out go [`Weights`]: the
//! parameters of a network with batch norm folded in, and its dimensions. May use `input`, whose
//! preprocessing a registered model names, and nothing of the network.
//!
//! ```text
//! registry      which file holds a model's weights, and what its outputs mean
//! hub           how that file gets here
//! checkpoint    file -> named tensors
//! config        names and shapes of tensors -> the dimensions of a network
//! fold          named tensors -> folded weights
//! cache         all of these behind a cache that makes the second time fast
//! digest        SHA-256, which names what is kept
//! ```
//!
//! The dimensions are here and not with the network, because folding needs them: the network knows the
//! weights, and the weights know nothing of it.

mod cache;
pub mod checkpoint;
pub mod config;
pub mod digest;
pub mod fold;
pub mod hub;
pub mod registry;

pub use cache::{DownloadError, Event, cache_dir, from_file, from_model};
