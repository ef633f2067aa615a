//! Finds image files and reads them.

use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use crate::error::{Error, Result};

/// File name extensions of the formats that can be decoded.
const EXTENSIONS: [&str; 25] = [
    "bmp", "cur", "dds", "dib", "exr", "ff", "gif", "hdr", "ico", "jfif", "jpe", "jpeg", "jpg", "mpo", "pam", "pbm",
    "pgm", "png", "pnm", "ppm", "qoi", "tga", "tif", "tiff", "webp",
];

/// Whether a file is an image of a format that can be decoded, by its name. `._photo.jpg` is none: macOS
/// leaves such files beside others, on file systems and in archives that cannot hold all it knows of them.
pub fn is_image_name(path: &Path) -> bool {
    let extension = path.extension().and_then(OsStr::to_str).map(str::to_lowercase);
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str()))
        && !path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"._"))
}

/// How a directory is searched for images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// Links to directories are passed over: they may lead in circles.
    NotFollowed,
    /// Links to directories are followed, and one that leads in a circle is an error. A directory with an
    /// image's name is found as an image, so that reading it says what is wrong.
    Followed,
}

/// The images below a directory, known by their names, in the order of their paths. What cannot be read
/// is an error in its place; the search goes on behind it. Images that are links, also such as lead nowhere,
/// are found either way.
pub fn images_below(directory: &Path, links: Links) -> impl Iterator<Item = Result<PathBuf>> {
    let follow = links == Links::Followed;
    let walk = WalkDir::new(directory).min_depth(1).follow_links(follow).sort_by_file_name();
    walk.into_iter().filter_map(move |entry| match entry {
        Ok(entry) => {
            let image = is_image_name(entry.path()) && (follow || !entry.file_type().is_dir());
            image.then(|| Ok(entry.into_path()))
        }
        // Found out when it is read: here it is only a name.
        Err(error) if error.path().is_some_and(|path| path.is_symlink() && is_image_name(path)) => {
            error.path().map(|path| Ok(path.to_path_buf()))
        }
        Err(error) => {
            let path = error.path().unwrap_or(Path::new("")).to_path_buf();
            let circle = error.loop_ancestor().map(|ancestor| {
                std::io::Error::other(format!("this link leads in a circle, to {}", ancestor.display()))
            });
            let cause = circle.or_else(|| error.into_io_error());
            Some(Err(Error::Io { action: "read", path, cause: cause.unwrap_or_else(|| std::io::Error::other("?")) }))
        }
    })
}

/// The most bytes that an image file may have.
const LIMIT: u64 = 1 << 28;

/// Everything that an image file holds, unless it is endless, as devices and pipes may be.
///
/// # Errors
/// If it cannot be read, or is larger than 256 MiB.
pub fn read_bounded(file: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(LIMIT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LIMIT {
        return Err(std::io::Error::other("larger than 256 MiB, which no image should be"));
    }
    Ok(bytes)
}
