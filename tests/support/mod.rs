//! What several test files share.
#![allow(dead_code, reason = "each test file uses a part")]

pub mod browser;
pub mod networks;
pub mod pipe;
pub mod program;

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};

/// Fixtures that are checkpoints of small networks, one of each form that is taken.
pub const CHECKPOINTS: [&str; 5] = [
    "two-filters.pth.tar",
    "one-filter.safetensors",
    "shared-kernels.pth",
    "channels-last-half.pth",
    "bfloat16.safetensors",
];

/// A file under `tests/fixtures`, made by the scripts in `reference`.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// The tensors of a safetensors file.
pub fn tensors(path: &Path) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

/// Largest difference of two tensors, relative to the largest absolute value of the second.
pub fn relative_difference(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.dims(), expected.dims());
    let largest =
        |t: Tensor| -> f64 { t.abs().unwrap().max_all().unwrap().to_dtype(DType::F64).unwrap().to_scalar().unwrap() };
    let [found, expected] = [found, expected].map(|t| t.to_dtype(DType::F64).unwrap());
    largest((found - &expected).unwrap()) / largest(expected)
}

/// NHWC to NCHW.
pub fn nchw(x: &Tensor) -> Tensor {
    x.permute((0, 3, 1, 2)).unwrap().contiguous().unwrap()
}

/// The folder of a full-size checkpoint and what PyTorch computes with it: 80 MB that are not part
/// of the repository. `QLNET_REFERENCE_DIR` names it; without it, tests that need it say so and pass.
pub fn reference_dir() -> Option<PathBuf> {
    let dir = match std::env::var_os("QLNET_REFERENCE_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/reference"),
    };
    if dir.join("expected.json").exists() {
        return Some(dir);
    }
    // Written past the test harness, which shows what `eprintln!` prints only of tests that fail.
    let text = format!("skipped: {} has no expected.json; set QLNET_REFERENCE_DIR to run this test\n", dir.display());
    std::io::stderr().write_all(text.as_bytes()).unwrap();
    None
}
