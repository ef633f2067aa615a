//! From a model's name or a checkpoint file to folded weights.
//!
//! In come a name that the registry knows, or the path or bytes of a checkpoint; out go [`Weights`]: the
//! parameters of a network with batch norm folded in, and its dimensions. May use `input`, whose
//! preprocessing a registered model names, and `random`; nothing of the network.
//!
//! ```text
//! load             the way through all of these, and a plain form for callers
//! registry         which file holds a model's weights, and what its outputs mean
//! published        the checkpoints of registered models, downloaded if need be
//! hashed_file      a file that is hashed once while it is read
//! checkpoint       file -> named tensors
//! infer            names and shapes of tensors -> config, the dimensions of a network
//! bounds           how large those may be
//! fold             named tensors -> folded weights
//! folded           the folded weights
//! random           folded weights without a checkpoint
//! export           folded weights -> files for other programs
//! convert          checkpoint -> safetensors, with what PyTorch's network has, or folded
//! cache            keeps folded weights, which makes the second time fast
//! ```
//!
//! The dimensions are here and not with the network, because folding needs them: the network knows the
//! weights, and the weights know nothing of it.

mod bounds;
pub(crate) mod cache;
pub(crate) mod checkpoint;
pub(crate) mod config;
mod convert;
mod export;
mod fold;
mod folded;
mod hashed_file;
mod infer;
mod load;
mod published;
mod random;
pub(crate) mod registry;

pub use crate::hub::{ContentHash, Event as DownloadEvent, HubFile, Repository};
pub use checkpoint::Checkpoint;
pub use config::{BlockConfig, Config, Conv, Skip};
pub use convert::Converted;
pub use folded::Weights;
pub use load::{Event, Loaded, load_file, load_model};
pub(crate) use load::{Found, Source, load_unless};
pub use published::checkpoint_of_model;
pub use registry::{Label, MODELS, Model, Published, WeightsSource, find};
