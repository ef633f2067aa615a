//! Finds the images of a directory or an archive.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::input::files::{is_image_name, read_bounded};

/// The images of a directory or an archive, in the order of their paths, before anything is known of
/// what they show.
pub struct Listing {
    pub(super) path: PathBuf,
    container: Container,
    pub(super) entries: Vec<Entry>,
}

/// What holds the images.
enum Container {
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
    pub fn read(&self, image: usize) -> Result<Vec<u8>> {
        let entry = &self.entries[image];
        match &self.container {
            Container::Directory(root) => {
                let path = root.join(&*entry.path);
                let metadata = match path.metadata() {
                    Err(_) if path.is_symlink() => bail!("a link that leads nowhere"),
                    metadata => metadata?,
                };
                ensure!(!metadata.is_dir(), "a directory, not an image");
                ensure!(metadata.is_file(), "not a regular file");
                Ok(read_bounded(File::open(path)?)?)
            }
            Container::Tar(file) => {
                ensure!(entry.regular, "a directory or a link in the archive, not an image");
                let mut file = File::open(file)?;
                file.seek(SeekFrom::Start(entry.offset))?;
                let bytes = read_bounded(file.take(entry.size))?;
                ensure!(bytes.len() as u64 == entry.size, "the archive has become shorter");
                Ok(bytes)
            }
        }
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
        // What macOS leaves beside files on other file systems.
        if name.as_encoded_bytes().starts_with(b"._") {
            continue;
        }
        let image = is_image_name(Path::new(&name));
        // An image that is a link that leads nowhere is found out when it is read. Another one might be
        // a class.
        let metadata = match item.path().metadata() {
            Err(error) if !image => bail!("{}: {error}; mend it or remove it", item.path().display()),
            metadata => metadata.ok(),
        };
        if !image && !metadata.as_ref().is_some_and(|metadata| metadata.is_dir()) {
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
        let entry = entry.map_err(|_| match end {
            0 => anyhow!("neither a directory nor a tar archive"),
            _ => anyhow!("the archive is damaged or cut short after {end} bytes"),
        })?;
        let (offset, size) = (entry.raw_file_position(), entry.size());
        end = offset.saturating_add(size).next_multiple_of(512);
        let name = entry.path()?.into_owned();
        ensure!(offset.saturating_add(size) <= length, "the archive is cut short in {}", name.display());
        if !is_image_name(&name) {
            continue;
        }
        let parts = name.components().filter_map(|part| match part {
            Component::Normal(part) => Some(part.to_str().with_context(|| format!("{}: not UTF-8", name.display()))),
            _ => None,
        });
        let path = parts.collect::<Result<Vec<_>>>()?.join("/");
        let kind = entry.header().entry_type();
        let regular = kind.is_file() || kind.is_contiguous();
        entries.push(Entry { path: path.into(), size, offset, regular });
    }
    // Two blocks of zeros, of which a reader needs to see one.
    let mut mark = [1; 512];
    file.seek(SeekFrom::Start(end))?;
    let marked = file.read_exact(&mut mark).is_ok() && mark == [0; 512];
    ensure!(marked, "the archive is cut short: it has no end mark after {end} bytes");
    strip_common_folder(&mut entries);
    Ok(entries)
}

/// Removes a folder around all class folders, as `tar cf val.tar val` puts it there.
fn strip_common_folder(entries: &mut [Entry]) {
    let common = |entries: &[Entry]| {
        let first = entries.first()?.folder()?.to_string();
        let inside = |entry: &Entry| entry.folder() == Some(&first) && entry.path.matches('/').count() > 1;
        entries.iter().all(inside).then_some(first.len() + 1)
    };
    while let Some(length) = common(entries) {
        entries.iter_mut().for_each(|entry| entry.path = entry.path[length..].into());
    }
}
