pub mod checkpoint;
pub mod config;
pub mod decode;
pub mod fold;
pub mod model;
pub mod ops;
pub mod preprocess;
pub mod resample;
