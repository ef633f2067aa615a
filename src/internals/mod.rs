//! The door for this repository's tests and benchmarks, which look at single steps. Anything here may change in
//! any version.

pub mod checks;

