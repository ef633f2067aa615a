//! The network, from normalised images to named predictions.
//!
//! In come folded weights, and images: as a file's bytes, as pixels, or as tensors `[n, 3, h, w]`. Out go
//! logits, features, and named predictions. May use `weights` and `input`, and `random` and `simd`; knows nothing
//! of datasets, symmetries and the program.
//!
//! ```text
//! classifier    the network with its preprocessing and the names of its outputs: what most callers use
//! transfer      images to the device, and numbers back
//! class_map     where the network looked: the logit of a class, place by place
//! load          a checkpoint -> the network
//! packed_file   keeps the network as it is packed, which makes the second time fast
//! packed_kind   what a file of those is made for, in its name
//! model         the network, block by block as in the paper
//! layer         its steps by name, and what they make of images
//! batching      how many images run together
//! ops           its operations, built from candle's, which every device runs
//! cpu           fast versions of the operations for the CPU
//! gpu           and for CUDA and Metal
//! device        where it runs
//! precision     what it computes in
//! bench         how long it takes
//! ```

mod batching;
pub(crate) mod bench;
pub(crate) mod class_map;
pub(crate) mod classifier;
pub(crate) mod cpu;
pub(crate) mod device;
pub(crate) mod gpu;
mod layer;
pub(crate) mod load;
pub(crate) mod model;
pub(crate) mod ops;
pub(crate) mod packed_file;
pub(crate) mod packed_kind;
pub(crate) mod precision;
mod transfer;

pub use class_map::Explanation;
pub use classifier::{Classifier, Prediction};
pub use device::DeviceChoice;
pub use precision::Precision;
