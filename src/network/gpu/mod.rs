//! CUDA and Metal.

pub(crate) mod cards;
#[cfg(feature = "cuda")]
pub(crate) mod libraries;
