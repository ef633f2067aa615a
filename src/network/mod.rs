//! The network, from normalised images to named predictions.
//!
//! In come folded weights and images `[n, 3, h, w]`; out go logits, and what they mean. May use `weights`
//! and `input`.
//!
//! ```text
//! model         the network: reads like the paper
//! ops           its operations, in candle's, which every device runs
//! cpu           the fast ones for the CPU
//! device        where it runs
//! classifier    the network with its preprocessing and the names of its outputs
//! bench         how long it takes
//! ```

pub mod bench;
pub mod classifier;
pub mod cpu;
pub mod device;
pub mod model;
pub mod ops;
