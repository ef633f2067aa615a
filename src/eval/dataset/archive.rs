//! Finds the images of a tar archive, which are read where they are.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Component;

use super::listing::Entry;
use crate::error::{Context, Reason, Result, ensure};
use crate::input::files::is_image_name;

/// The images of a tar archive, in its order.
pub fn images_of(mut file: File) -> Result<Vec<Entry>, Reason> {
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
            0 => Reason::new("neither a directory nor a tar archive"),
            _ => Reason::new(format!("the archive is damaged or cut short after {end} bytes")),
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
        let path = parts.collect::<Result<Vec<_>, _>>()?.join("/");
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
