//! The images of a directory.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::listing::{Entry, Kind};
use crate::error::{DatasetProblem, Error, Reason, Result, bail, ensure};
use crate::input::files::{Links, images_below, read_bounded};

/// The images in a directory and below. Links are followed: a subset of ImageNet is often a folder of them.
pub fn images(root: &Path) -> Result<Vec<Entry>> {
    let image = |path: Result<PathBuf>| {
        let path = path.map_err(explain_link)?;
        let below = path.strip_prefix(root).unwrap_or(&path);
        let parts = below.iter().map(|part| part.to_str()).collect::<Option<Vec<_>>>();
        let parts = parts
            .ok_or_else(|| DatasetProblem::Image.error(format!("{}: rename it to UTF-8", path.display())))?
            .join("/");
        // What is wrong with a file is found out when it is read.
        let size = path.metadata().map_or(0, |metadata| metadata.len());
        Ok(Entry { path: parts.into(), size, place: 0, file: 0, kind: Kind::File, label: None })
    };
    images_below(root, Links::Followed).map(image).collect()
}

/// The bytes of an image.
pub fn read(root: &Path, entry: &Entry) -> Result<Vec<u8>, Reason> {
    let path = root.join(&*entry.path);
    let metadata = match path.metadata() {
        Err(_) if path.is_symlink() => bail!("a link that leads nowhere"),
        metadata => metadata?,
    };
    ensure!(!metadata.is_dir(), "a directory, not an image");
    ensure!(metadata.is_file(), "not a regular file");
    Ok(read_bounded(File::open(path)?, metadata.len())?)
}

/// A link that leads nowhere, or in a circle, may stand for a class: that is an error, with words of its own.
fn explain_link(error: Error) -> Error {
    match &error {
        Error::Io { path, cause, .. } if path.is_symlink() => {
            DatasetProblem::Image.error(format!("{}: {cause}; mend it or remove it", path.display()))
        }
        _ => error,
    }
}
