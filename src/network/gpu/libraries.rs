//! NVIDIA's libraries, which are opened when a device is first asked for. `libraries.c` beside this file has the
//! functions that candle calls; here are the words for what came of it.
//!
//! On Linux with glibc, x86-64 and aarch64. Elsewhere the program is linked with the libraries, and does not start
//! without them.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::error::{Reason, Result, bail, ensure};

/// CUDA's version of the compiler that made the kernels.
const BUILT_WITH: &str = env!("QLNET_CUDA_VERSION");

/// What CUDA runs on.
#[derive(Debug, Serialize)]
pub struct Found {
    /// CUDA's version that the driver knows, such as `13.0`.
    pub driver: String,
    /// CUDA's version that the program was built with.
    pub built_with: &'static str,
    /// Libraries that were opened, `cublas`, `curand` and `driver`, and their files.
    pub libraries: BTreeMap<&'static str, &'static str>,
}

/// Opens the libraries, the first time, and says what was found.
///
/// # Errors
/// What is missing, and what to do. Later calls say the same.
pub fn open() -> Result<Found, Reason> {
    let opened = opened();
    let (major, _) = BUILT_WITH.split_once('.').unwrap_or((BUILT_WITH, ""));
    let reason = in_brackets(opened.reason);
    match opened.step {
        Step::Driver => bail!(
            "no NVIDIA driver is found{reason}; install it, or name the folder of libcuda.so.1 in LD_LIBRARY_PATH"
        ),
        Step::Start if opened.code == NO_DEVICE => bail!("NVIDIA's driver sees no GPU{reason}"),
        Step::Start => bail!("NVIDIA's driver does not start, with error {}{reason}", opened.code),
        Step::Blas | Step::Done => {}
    }
    let driver = version(opened.version);
    ensure!(
        opened.version >= number(BUILT_WITH),
        "NVIDIA's driver is too old: it knows CUDA {driver}, and this program needs {BUILT_WITH}{}",
        if BUILT_WITH == "13.0" { "; update it to 580 or later" } else { "; update it" }
    );
    if opened.step == Step::Blas {
        bail!(
            "NVIDIA's driver is there, but libcublas.so.{major} is not{reason}; install CUDA {major}'s libraries, with \
             `pip install nvidia-cublas` for example, or name their folder in LD_LIBRARY_PATH"
        );
    }
    let libraries = [("driver", opened.driver), ("cublas", opened.blas), ("curand", opened.random)];
    let libraries = libraries.into_iter().filter(|(_, file)| !file.is_empty()).collect();
    Ok(Found { driver, built_with: BUILT_WITH, libraries })
}

/// Whether the machine has a driver that sees a GPU, whether or not the program can use it.
pub fn has_gpu() -> bool {
    let Opened { step, code, .. } = opened();
    step != Step::Driver && (step, code) != (Step::Start, NO_DEVICE)
}

/// `CUDA_ERROR_NO_DEVICE`.
const NO_DEVICE: i32 = 100;

/// The loader's words, or the driver's, if there are any.
fn in_brackets(words: &str) -> String {
    if words.is_empty() { String::new() } else { format!(" ({words})") }
}

/// The driver's number of a version: 1000 times the first and 10 times the second part.
fn number(version: &str) -> i32 {
    let part = |text: &str| text.parse().unwrap_or(0);
    version.split_once('.').map_or(0, |(major, minor)| 1000 * part(major) + 10 * part(minor))
}

/// A version by its number.
fn version(number: i32) -> String {
    format!("{}.{}", number / 1000, number % 1000 / 10)
}

/// How far the opening came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Everything is open.
    Done,
    /// The driver's library is not there.
    Driver,
    /// The driver does not start.
    Start,
    /// cuBLAS is not there.
    Blas,
}

/// What came of the opening.
#[derive(Debug)]
struct Opened {
    step: Step,
    code: i32,
    version: i32,
    reason: &'static str,
    driver: &'static str,
    blas: &'static str,
    random: &'static str,
}

#[cfg(opens_cuda)]
fn opened() -> Opened {
    use std::ffi::{CStr, c_char, c_int};

    /// `struct qlnet_libraries` of `libraries.c`.
    #[repr(C)]
    struct Libraries {
        step: c_int,
        code: c_int,
        version: c_int,
        reason: *const c_char,
        driver: *const c_char,
        blas: *const c_char,
        random: *const c_char,
    }

    // Whole: what calls CUDA's functions may be linked before anything calls this one.
    #[link(name = "qlnet_libraries", kind = "static", modifiers = "+whole-archive")]
    unsafe extern "C" {
        fn qlnet_open_cuda() -> *const Libraries;
    }

    // SAFETY: it may be called from any thread at any time, and returns a structure that no longer changes.
    let libraries = unsafe { &*qlnet_open_cuda() };
    // SAFETY: the texts are never null, end with a zero, and stay as they are.
    let text = |text: *const c_char| unsafe { CStr::from_ptr(text) }.to_str().unwrap_or_default();
    Opened {
        step: match libraries.step {
            0 => Step::Done,
            1 => Step::Driver,
            2 => Step::Start,
            _ => Step::Blas,
        },
        code: libraries.code,
        version: libraries.version,
        reason: text(libraries.reason),
        driver: text(libraries.driver),
        blas: text(libraries.blas),
        random: text(libraries.random),
    }
}

/// The program is linked with the libraries: they are open. The driver tells its version.
#[cfg(not(opens_cuda))]
fn opened() -> Opened {
    use candle_core::cuda::cudarc::driver::{result, sys};

    let (mut version, code) = (0, result::init().err().map_or(0, |error| error.0 as i32));
    // SAFETY: it writes one number.
    unsafe { sys::cuDriverGetVersion(&mut version) };
    let step = if code == 0 { Step::Done } else { Step::Start };
    Opened { step, code, version, reason: "", driver: "", blas: "", random: "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_the_drivers_numbers() {
        assert_eq!((number("13.0"), number("12.4"), number("11")), (13000, 12040, 0));
        assert_eq!((version(13000), version(12080)), ("13.0".into(), "12.8".into()));
    }

    /// With a driver or without: the words are those of a step, they say whether there is a GPU, and stay the same.
    #[test]
    fn opening_says_what_is_there() {
        const WITHOUT_GPU: [&str; 2] = ["no NVIDIA driver is found", "sees no GPU"];
        const WITH_GPU: [&str; 3] = ["does not start", "is too old: it knows CUDA", "is there, but libcublas.so."];
        let words = || open().map(|found| format!("{found:?}")).map_err(|reason| reason.to_string());
        let found = words();
        match &found {
            Ok(libraries) => assert!(has_gpu() && libraries.contains(BUILT_WITH), "{libraries}"),
            Err(reason) => {
                let known = if has_gpu() { &WITH_GPU[..] } else { &WITHOUT_GPU };
                assert!(known.iter().any(|step| reason.contains(step)), "{reason}");
            }
        }
        assert_eq!(words(), found);
    }
}
