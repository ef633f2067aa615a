//! What holds for any bytes that a file may have, whoever wrote it: the fuzz targets and the tests of what they found
//! run these.
//!
//! Each check reads the bytes as the program does, and panics where a promise is broken: that what is taken is taken
//! the same way twice, that sizes agree, and that a refusal is one line. `scratch` is a folder of its own for those that
//! read files by their paths.
//!
//! ```text
//! weights       checkpoints, the pickles in them, folded and packed weights
//! pictures      image files, and how they have to be turned
//! sets          archives, shards and tables of images, and files of labels
//! predictions   files of predictions
//! ```

mod pictures;
mod predictions;
mod sets;
mod weights;

use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};

pub use pictures::format_of;

/// The words with which bytes were refused, unless they were taken.
pub type Outcome = Result<(), String>;

/// Every target, by its name.
pub const TARGETS: [&str; 25] = [
    "checkpoint",
    "pickle",
    "safetensors",
    "folded",
    "packed",
    "jpeg",
    "png",
    "gif",
    "webp",
    "tiff",
    "bmp",
    "ico",
    "dds",
    "tga",
    "qoi",
    "pnm",
    "hdr",
    "exr",
    "farbfeld",
    "exif",
    "tar",
    "webdataset",
    "parquet",
    "labels",
    "predictions",
];

/// Runs the check of that name.
///
/// # Panics
/// If a promise is broken, or there is no such target.
pub fn check(target: &str, bytes: &[u8], scratch: &Path) -> Outcome {
    match target {
        "checkpoint" | "safetensors" => weights::checkpoint(bytes),
        "pickle" => weights::pickle(bytes),
        "folded" => weights::folded(bytes, scratch),
        "packed" => weights::packed(bytes, scratch),
        "exif" => pictures::orientation(bytes),
        "tar" | "webdataset" => sets::archive(bytes, scratch),
        "parquet" => sets::table(bytes, scratch),
        "labels" => sets::labels(bytes, scratch),
        "predictions" => predictions::predictions(bytes, scratch),
        _ => pictures::picture(bytes, format!("a.{target}").as_ref()),
    }
}

/// The words of an error, which are one line that fits a screen.
fn one_line(error: &impl Display) -> String {
    let words = error.to_string();
    assert!(!words.is_empty(), "an error says nothing");
    assert!(!words.contains(char::is_control), "an error has control characters: {words:?}");
    assert!(words.len() <= 10_000, "an error has {} bytes: {}", words.len(), &words[..100]);
    words
}

/// What two readings of the same bytes gave, which is the same.
fn twice<T, E: Display>(mut read: impl FnMut() -> Result<T, E>, same: impl FnOnce(&T, &T)) -> Result<T, String> {
    match (read(), read()) {
        (Ok(one), Ok(other)) => {
            same(&one, &other);
            Ok(one)
        }
        (Err(one), Err(other)) => {
            let (one, other) = (one_line(&one), one_line(&other));
            assert_eq!(one, other, "the same bytes are refused for two reasons");
            Err(one)
        }
        (Ok(_), Err(error)) | (Err(error), Ok(_)) => panic!("the same bytes are taken and refused: {error}"),
    }
}

/// Writes a file of that name to the folder.
fn file(scratch: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = scratch.join(name);
    fs::write(&path, bytes).expect("the folder for scratch files can be written");
    path
}
