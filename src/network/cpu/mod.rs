//! The fast path on the CPU, in float32.

pub(crate) mod block;
pub(crate) mod buffer;
pub(crate) mod depthwise;
pub mod hardball;
pub mod matmul;
pub(crate) mod segments;
pub(crate) mod stem;
pub(crate) mod vector;
