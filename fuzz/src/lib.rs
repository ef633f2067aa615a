//! What the fuzz targets share: each runs a check of `qlnet::internals::checks` on what libFuzzer makes up, and bounds
//! its memory and its time.

#[path = "../../tests/support/meter.rs"]
mod meter;
mod mutate;

use std::collections::BTreeMap;
use std::panic;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once, OnceLock};
use std::time::Duration;

use libfuzzer_sys::Corpus;
use qlnet::internals::checks;

pub use mutate::{checkpoint, packed, pickle, png, safetensors, tar};

#[global_allocator]
static ALLOCATOR: meter::Counted = meter::Counted;

/// The most CPU time that one input may take, with sanitizers, of all threads.
const LONGEST: Duration = Duration::from_secs(5);

/// Makes the fuzz target of a check.
#[macro_export]
macro_rules! target {
    ($name:literal) => {
        libfuzzer_sys::fuzz_target!(|bytes: &[u8]| -> libfuzzer_sys::Corpus { $crate::run($name, bytes) });
    };
    ($name:literal, $mutate:path) => {
        $crate::target!($name);
        libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, most: usize, seed: u32| {
            $crate::mutated($mutate, data, size, most, seed)
        });
    };
}

/// Runs a check. Of a picture's target, inputs of another format are left to the target of that.
pub fn run(target: &str, bytes: &[u8]) -> Corpus {
    count_panics();
    let format = |bytes| checks::format_of(bytes, format!("a.{target}").as_ref());
    if let Some(formats) = formats_of(target)
        && !format(bytes).is_some_and(|format| formats.contains(&&*format))
    {
        return Corpus::Reject;
    }
    let start = cpu_time();
    let (outcome, most) = meter::measured(|| checks::check(target, bytes, scratch()));
    let time = cpu_time() - start;
    drop(outcome);
    let allowed = meter::most(bytes.len());
    assert!(most <= allowed, "{most} bytes of memory for {} of input, {allowed} are allowed", bytes.len());
    assert!(time <= LONGEST, "{time:?} of CPU time");
    Corpus::Keep
}

/// What formats are called that a target is for.
fn formats_of(target: &str) -> Option<&'static [&'static str]> {
    Some(match target {
        "jpeg" => &["JPEG"],
        "png" => &["PNG"],
        "gif" => &["GIF"],
        "webp" => &["WebP"],
        "tiff" => &["TIFF"],
        "bmp" => &["BMP", "DIB"],
        "ico" => &["ICO", "CUR"],
        "dds" => &["DDS"],
        "tga" => &["TGA"],
        "qoi" => &["QOI"],
        "pnm" => &["PBM"],
        "hdr" => &["HDR"],
        "exr" => &["EXR"],
        "farbfeld" => &["FF"],
        _ => return None,
    })
}

/// Counts the panics that the program catches, by the place where they are, and prints each place once and the numbers
/// now and then. Other panics go on to libFuzzer's hook, which ends the process.
fn count_panics() {
    static HOOK: Once = Once::new();
    static PLACES: Mutex<BTreeMap<String, usize>> = Mutex::new(BTreeMap::new());
    HOOK.call_once(|| {
        // The program puts its hook over libFuzzer's with the first picture, and asks it what is to be said.
        drop(checks::check("png", b"\x89PNG\r\n\x1a\n", scratch()));
        let program = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let place = info.location().map(ToString::to_string).unwrap_or_default();
            // The numbers of versions tell enough of a path.
            let place = place.rsplit_once("/src/index").map_or(&*place, |(_, after)| after).to_string();
            let mut places = PLACES.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            let count = places.entry(place.clone()).or_default();
            *count += 1;
            if count.is_power_of_two() {
                eprintln!("PANIC {count} times: {place}: {}", message(info.payload()));
            }
            drop(places);
            program(info);
        }));
    });
}

fn message(payload: &dyn std::any::Any) -> String {
    let text = payload.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default()
}

/// A folder for files, which `run.sh` removes: one for each process.
fn scratch() -> &'static Path {
    static SCRATCH: OnceLock<PathBuf> = OnceLock::new();
    SCRATCH.get_or_init(|| {
        let folder = std::env::temp_dir().join(format!("qlnet-fuzz-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("the folder for temporary files can be written");
        folder
    })
}

/// What this process has computed.
fn cpu_time() -> Duration {
    // SAFETY: a structure of two numbers, which the function fills.
    let time = unsafe {
        let mut time: libc::timespec = std::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time);
        time
    };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Changes an input by `mutate`, which gives nothing where it can do nothing with it, or by libFuzzer's own ways.
pub fn mutated(
    mutate: fn(&[u8], &mut mutate::Chance) -> Option<Vec<u8>>,
    data: &mut [u8],
    size: usize,
    most: usize,
    seed: u32,
) -> usize {
    let mut chance = mutate::Chance::new(seed);
    // One in eight as it comes.
    let changed = if chance.below(8) == 0 { None } else { mutate(&data[..size], &mut chance) };
    match changed {
        Some(changed) if changed.len() <= most => {
            data[..changed.len()].copy_from_slice(&changed);
            changed.len()
        }
        _ => libfuzzer_sys::fuzzer_mutate(data, size, most),
    }
}
