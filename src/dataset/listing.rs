//! Finds the images of a directory or an archive.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::decode::has_image_extension;

/// The images of a directory or an archive, in the order of their paths, before anything is known of
/// what they show.
pub struct Listing {
    pub(super) path: PathBuf,
    pub(super) container: Container,
    pub(super) entries: Vec<Entry>,
}

/// What holds the images.
pub(super) enum Container {
    Directory(PathBuf),
    Tar(PathBuf),
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
    /// If it cannot be read, the archive is compressed or cut short, or there is no image.
    pub fn new(path: &Path) -> Result<Self> {
        let shown = path.display();
        let metadata = path.metadata().with_context(|| shown.to_string())?;
        let (container, mut entries) = if metadata.is_dir() {
            let mut entries = Vec::new();
            search(path, "", 0, &mut entries)?;
            (Container::Directory(path.to_path_buf()), entries)
        } else {
            (Container::Tar(path.to_path_buf()), archived(path).with_context(|| shown.to_string())?)
        };
        ensure!(!entries.is_empty(), "{shown}: no images here (known by their extension, such as .JPEG or .png)");
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        // Files of predictions have an image a line.
        if let Some(odd) = entries.iter().find(|entry| entry.path.contains(char::is_control)) {
            bail!("{shown}: rename {:?}: a control character in a name", odd.path);
        }
        if let Some(pair) = entries.windows(2).find(|pair| pair[0].path == pair[1].path) {
            bail!("{shown}: {} is in the archive twice", pair[0].path);
        }
        Ok(Self { path: path.to_path_buf(), container, entries })
    }

    /// The paths of all images, in order.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| &*entry.path)
    }
}

/// Adds what lies in a directory and below. Links are followed: a subset of ImageNet is often a
/// folder of them.
fn search(directory: &Path, prefix: &str, depth: usize, entries: &mut Vec<Entry>) -> Result<()> {
    let shown = directory.display();
    ensure!(depth < 16, "{shown}: more than 16 folders deep; does a link lead in a circle?");
    let found = std::fs::read_dir(directory).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
    for item in found.with_context(|| format!("cannot read {shown}"))? {
        let name = item.file_name();
        let image = has_image_extension(Path::new(&name));
        // A link that leads nowhere has no metadata: it is found out when it is read.
        let metadata = item.path().metadata().ok();
        let is_directory = metadata.as_ref().is_some_and(|metadata| metadata.is_dir());
        if !image && !is_directory {
            continue;
        }
        let name = name.to_str().with_context(|| format!("{}: rename it to UTF-8", item.path().display()))?;
        let path = format!("{prefix}{name}");
        if image {
            let size = metadata.map_or(0, |metadata| metadata.len());
            entries.push(Entry { path: path.into(), size, offset: 0, regular: true });
        } else {
            search(&item.path(), &format!("{path}/"), depth + 1, entries)?;
        }
    }
    Ok(())
}

/// The images of a tar archive.
fn archived(path: &Path) -> Result<Vec<Entry>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut start = Vec::new();
    file.by_ref().take(512).read_to_end(&mut start)?;
    let compressed = [&b"\x1f\x8b"[..], b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"PK\x03\x04"];
    ensure!(
        !compressed.iter().any(|magic| start.starts_with(magic)),
        "this is compressed; only a plain tar archive can be read in place: unpack it first"
    );
    ensure!(start.len() == 512, "neither a directory nor a tar archive");
    file.seek(SeekFrom::Start(0))?;

    let mut archive = tar::Archive::new(&file);
    let mut entries = Vec::new();
    let mut end = 0;
    for entry in archive.entries_with_seek()? {
        let entry = entry.map_err(|error| match end {
            0 => anyhow!("neither a directory nor a tar archive ({error})"),
            _ => anyhow!("the archive is damaged or cut short after {end} bytes ({error})"),
        })?;
        let (offset, size) = (entry.raw_file_position(), entry.size());
        end = offset.saturating_add(size).next_multiple_of(512);
        let name = entry.path()?.into_owned();
        ensure!(offset.saturating_add(size) <= length, "the archive is cut short in {}", name.display());
        if !has_image_extension(&name) {
            continue;
        }
        let parts: Vec<_> =
            name.iter().map(|part| part.to_str()).collect::<Option<_>>().context("a name is not UTF-8")?;
        let path = parts.iter().filter(|part| **part != ".").copied().collect::<Vec<_>>().join("/");
        let kind = entry.header().entry_type();
        let regular = kind.is_file() || kind.is_contiguous();
        entries.push(Entry { path: path.into(), size, offset, regular });
    }
    // Two blocks of zeros, of which a reader needs to see one.
    let mut mark = [1; 512];
    file.seek(SeekFrom::Start(end))?;
    let marked = file.read_exact(&mut mark).is_ok() && mark == [0; 512];
    ensure!(marked, "the archive is cut short: it has no end mark after {end} bytes");
    Ok(entries)
}
