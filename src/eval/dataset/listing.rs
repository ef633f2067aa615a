//! The images of a directory or an archive, and their bytes.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::archive;
use crate::error::{Context, DatasetProblem, Error, Reason, Result, bail, ensure};
use crate::input::files::{Links, images_below, read_bounded};

/// The images of a directory or an archive, in the order of their paths, before anything is known of
/// what they show.
pub struct Listing {
    pub(super) path: PathBuf,
    is_archive: bool,
    /// In the order of their paths, each path once.
    pub(super) entries: Vec<Entry>,
}

/// An image file that was found.
pub(super) struct Entry {
    /// Below the directory, or in the archive; `/` separates the parts.
    pub path: Box<str>,
    /// In bytes; 0 if that cannot be found out.
    pub size: u64,
    /// Where its bytes begin in the archive.
    pub offset: u64,
    /// Whether it is a file, and not something else with an image's name. Only known in an archive.
    pub regular: bool,
}

impl Entry {
    /// The file's name, without folders.
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    /// The first folder of its path.
    pub fn folder(&self) -> Option<&str> {
        self.path.split_once('/').map(|(folder, _)| folder)
    }
}

impl Listing {
    /// Searches a directory, and all below it, or a tar archive, for files with an image's extension.
    /// Nothing is decoded.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read; [`Error::Dataset`] if the archive is compressed or cut short, if
    /// there is no image, or an image has a name that cannot be used.
    pub fn new(path: &Path) -> Result<Self> {
        let shown = path.display();
        let is_archive = !path.metadata().map_err(Error::io("read", path))?.is_dir();
        let mut entries = if is_archive {
            let file = File::open(path).map_err(Error::io("read", path))?;
            archive::images_of(file).context(&shown).map_err(DatasetProblem::Archive.because())?
        } else {
            images_of_directory(path)?
        };
        if entries.is_empty() {
            return Err(DatasetProblem::NoImages
                .error(format!("{shown}: no images here (known by their extension, such as .JPEG or .png)")));
        }
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        // Files of predictions have an image a line.
        if let Some(odd) = entries.iter().find(|entry| entry.path.contains(char::is_control)) {
            return Err(
                DatasetProblem::Image.error(format!("{shown}: rename {:?}: a control character in a name", odd.path))
            );
        }
        if let Some(pair) = entries.windows(2).find(|pair| pair[0].path == pair[1].path) {
            return Err(DatasetProblem::Archive.error(format!("{shown}: {} is in the archive twice", pair[0].path)));
        }
        Ok(Self { path: path.to_path_buf(), is_archive, entries })
    }

    /// The number of images.
    pub fn images(&self) -> usize {
        self.entries.len()
    }

    /// The paths of all images, in order.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| &*entry.path)
    }

    /// The path of an image below the directory, or in the archive; `/` separates the parts.
    ///
    /// # Panics
    /// If there are not so many images.
    pub fn path(&self, image: usize) -> &str {
        &self.entries[image].path
    }

    /// The image at that path, if there is one.
    pub fn find(&self, path: &str) -> Option<usize> {
        self.entries.binary_search_by(|entry| (*entry.path).cmp(path)).ok()
    }

    /// The bytes of an image file.
    ///
    /// # Errors
    /// If it cannot be read. The message does not name it.
    ///
    /// # Panics
    /// If there are not so many images.
    pub fn read(&self, image: usize) -> Result<Vec<u8>> {
        let entry = &self.entries[image];
        let bytes = if self.is_archive { self.read_from_archive(entry) } else { self.read_from_directory(entry) };
        bytes.map_err(DatasetProblem::Image.because())
    }

    fn read_from_directory(&self, entry: &Entry) -> Result<Vec<u8>, Reason> {
        let path = self.path.join(&*entry.path);
        let metadata = match path.metadata() {
            Err(_) if path.is_symlink() => bail!("a link that leads nowhere"),
            metadata => metadata?,
        };
        ensure!(!metadata.is_dir(), "a directory, not an image");
        ensure!(metadata.is_file(), "not a regular file");
        Ok(read_bounded(File::open(path)?)?)
    }

    fn read_from_archive(&self, entry: &Entry) -> Result<Vec<u8>, Reason> {
        ensure!(entry.regular, "a directory or a link in the archive, not an image");
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(entry.offset))?;
        let bytes = read_bounded(std::io::Read::take(file, entry.size))?;
        ensure!(bytes.len() as u64 == entry.size, "the archive has become shorter");
        Ok(bytes)
    }
}

/// The images in a directory and below. Links are followed: a subset of ImageNet is often a folder of them.
fn images_of_directory(root: &Path) -> Result<Vec<Entry>> {
    let image = |path: Result<PathBuf>| {
        let path = path.map_err(explain_link)?;
        let below = path.strip_prefix(root).unwrap_or(&path);
        let parts = below.iter().map(|part| part.to_str()).collect::<Option<Vec<_>>>();
        let parts = parts
            .ok_or_else(|| DatasetProblem::Image.error(format!("{}: rename it to UTF-8", path.display())))?
            .join("/");
        // What is wrong with a file is found out when it is read.
        let size = path.metadata().map_or(0, |metadata| metadata.len());
        Ok(Entry { path: parts.into(), size, offset: 0, regular: true })
    };
    images_below(root, Links::Followed).map(image).collect()
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
