//! The members of tar archives, which are read where they are.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use super::listing::{Entry, Kind};
use super::{IS_LFS_POINTER, LFS_POINTER};
use crate::error::{Reason, Result, bail, ensure};
use crate::input::files::{is_image_name, read_bounded};

/// A file in an archive, or something else that has a name there.
pub struct Member {
    /// `/` separates the parts.
    pub path: String,
    /// Where its bytes begin.
    pub offset: u64,
    /// In bytes.
    pub size: u64,
    /// Whether it is a file.
    pub regular: bool,
}

/// The members of a tar archive, in its order.
pub fn members(path: &Path) -> Result<Vec<Member>, Reason> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut start = Vec::new();
    file.by_ref().take(512).read_to_end(&mut start)?;
    let compressed = [&b"\x1f\x8b"[..], b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"PK\x03\x04"];
    ensure!(
        !compressed.iter().any(|magic| start.starts_with(magic)),
        "this is compressed; only a plain tar archive can be read in place: unpack it first"
    );
    ensure!(!start.starts_with(LFS_POINTER), "{IS_LFS_POINTER}");
    ensure!(start.len() == 512, "neither a directory nor a tar archive");
    file.seek(SeekFrom::Start(0))?;

    let mut archive = tar::Archive::new(&file);
    let mut members = Vec::new();
    let mut end = 0;
    for entry in archive.entries_with_seek()? {
        let entry = entry.map_err(|_| match end {
            0 => Reason::new("neither a directory nor a tar archive"),
            _ => Reason::new(format!("the archive is damaged or cut short after {end} bytes")),
        })?;
        let (offset, size) = (entry.raw_file_position(), entry.size());
        end = offset.saturating_add(size).next_multiple_of(512);
        let name = entry.path()?.into_owned();
        let kind = entry.header().entry_type();
        ensure!(
            !kind.is_gnu_sparse(),
            "{} is stored without its holes (tar --sparse), which is not read",
            name.display()
        );
        ensure!(offset.saturating_add(size) <= length, "the archive is cut short in {}", name.display());
        let parts = name.components().filter_map(|part| match part {
            Component::Normal(part) => Some(part.to_str()),
            _ => None,
        });
        let Some(parts) = parts.collect::<Option<Vec<_>>>() else {
            ensure!(!is_image_name(&name), "{}: not UTF-8", name.display());
            continue;
        };
        let path = parts.join("/");
        members.push(Member { path, offset, size, regular: kind.is_file() || kind.is_contiguous() });
    }
    // Two blocks of zeros, of which a reader needs to see one.
    let mut mark = [1; 512];
    file.seek(SeekFrom::Start(end))?;
    let marked = file.read_exact(&mut mark).is_ok() && mark == [0; 512];
    ensure!(marked, "the archive is cut short: it has no end mark after {end} bytes");
    Ok(members)
}

/// The images among the members of an archive.
pub fn images(members: Vec<Member>) -> Vec<Entry> {
    let images = members.into_iter().filter(|member| is_image_name(member.path.as_ref()));
    let mut entries: Vec<_> = images.map(|member| member.entry(0)).collect();
    strip_common_folder(&mut entries);
    entries
}

impl Member {
    /// As an image in the archive of that number.
    pub fn entry(&self, archive: u32) -> Entry {
        let kind = if self.regular { Kind::File } else { Kind::NoFile };
        Entry { path: (*self.path).into(), size: self.size, place: self.offset, file: archive, kind, label: None }
    }
}

/// The bytes of an image in one of the archives.
pub fn read(archives: &[PathBuf], entry: &Entry) -> Result<Vec<u8>, Reason> {
    match entry.kind {
        Kind::File => {}
        Kind::NoFile => bail!("a directory or a link in the archive, not an image"),
        Kind::Missing => bail!("the sample has no image that can be decoded"),
    }
    let mut file = File::open(&archives[entry.file as usize])?;
    file.seek(SeekFrom::Start(entry.place))?;
    let bytes = read_bounded(file.take(entry.size), entry.size)?;
    ensure!(bytes.len() as u64 == entry.size, "the archive has become shorter");
    Ok(bytes)
}

/// Removes folders around all class folders, as `tar cf val.tar val` puts one there.
fn strip_common_folder(entries: &mut [Entry]) {
    // Up to the folder that an image is in. Looked at once for each path, of which one may have a million parts.
    let around = |path: &str| path.rmatch_indices('/').nth(1).map_or(0, |(at, _)| at + 1);
    let Some(first) = entries.first() else { return };
    let common = entries.iter().fold(around(&first.path), |length, entry| {
        let both = first.path.bytes().zip(entry.path.bytes()).take(length.min(around(&entry.path)));
        let same = both.take_while(|(one, other)| one == other).count();
        first.path.as_bytes()[..same].iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1)
    });
    if common > 0 {
        entries.iter_mut().for_each(|entry| entry.path = entry.path[common..].into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_around_all_are_removed() {
        let stripped = |paths: &[&str]| {
            let member = |path: &&str| Member { path: path.to_string(), offset: 0, size: 0, regular: true };
            images(paths.iter().map(member).collect())
                .into_iter()
                .map(|entry| entry.path.into())
                .collect::<Vec<String>>()
        };
        assert_eq!(stripped(&["val/3/a.png", "val/7/b.png"]), ["3/a.png", "7/b.png"]);
        assert_eq!(stripped(&["x/val/3/a.png", "x/val/37/b.png"]), ["3/a.png", "37/b.png"]);
        assert_eq!(stripped(&["val/3/a.png", "val/3/b.png"]), ["3/a.png", "3/b.png"]);
        assert_eq!(stripped(&["val/a.png", "val/b.png"]), ["val/a.png", "val/b.png"]);
        assert_eq!(stripped(&["val/a.png", "val/3/b.png"]), ["val/a.png", "val/3/b.png"]);
        assert_eq!(stripped(&["v\u{e9}/3/a.png", "v\u{e8}/3/b.png"]), ["v\u{e9}/3/a.png", "v\u{e8}/3/b.png"]);
        assert_eq!(stripped(&["a.png"]), ["a.png"]);
        assert_eq!(stripped(&[]), [""; 0]);
        // It would take hours, if each folder were looked for in the whole path.
        let deep = format!("{}a.png", "d/".repeat(500_000));
        assert_eq!(stripped(&[&deep, &deep]), ["d/a.png", "d/a.png"]);
    }
}
