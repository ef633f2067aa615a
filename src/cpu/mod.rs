//! The fast path on the CPU, in float32.

pub mod block;
pub mod buffer;
pub mod depthwise;
pub mod hardball;
pub mod matmul;
pub mod stem;
pub(crate) mod vector;
