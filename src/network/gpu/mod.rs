//! Kernels for GPUs.

#[cfg(test)]
mod host_tests;
