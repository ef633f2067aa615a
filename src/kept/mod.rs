//! What this program keeps in files of its own, so that it need not be computed or read again.
//!
//! A directory (`$XDG_CACHE_HOME/qlnet` or what the platform has in its place) holds folded weights, the networks
//! that are packed for the CPU at hand, and the [records](remembered_hash) of the hashes of files. What is missing or
//! damaged is made again silently, and where the directory cannot be written the program works without it. The files
//! that are downloaded are elsewhere, in the cache of the hub.

pub(crate) mod inventory;
pub(crate) mod recorded;
pub(crate) mod remembered_hash;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::digest::is_sha256;
use crate::output::{locked, remove_abandoned};

/// The directory: the one that `QLNET_CACHE` names, else `qlnet` in the platform's
/// place for caches, if it has one.
pub(crate) fn cache_dir() -> Option<PathBuf> {
    let named = std::env::var_os("QLNET_CACHE").filter(|name| !name.is_empty());
    named.map(PathBuf::from).or_else(|| Some(dirs::cache_dir()?.join("qlnet")))
}

/// Writes a file of the cache such that it is there whole or not at all.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    replace_with(path, |file| file.write_all(content))
}

/// [`replace`] with what `write` writes.
pub(crate) fn replace_with<E: From<io::Error>>(
    path: &Path,
    write: impl FnOnce(&mut File) -> Result<(), E>,
) -> Result<(), E> {
    let dir = path.parent().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    fs::create_dir_all(dir)?;
    // Nothing else: the directory may be one that other programs use.
    // Where a lock of another machine is not seen, that machine does without what it wanted to keep.
    remove_abandoned(dir, is_temporary, |_| true);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut file = locked(tempfile::Builder::new().prefix(&format!(".{name}.")).suffix(TEMPORARY), dir)?;
    write(file.as_file_mut())?;
    file.persist(path).map_err(io::Error::from)?;
    Ok(())
}

/// What the names of packed networks end with.
pub(crate) const PACKED: &str = "packed";

/// What the names of files end with while they are written.
const TEMPORARY: &str = ".tmp";

/// Whether a file's name is of the form that [`replace`] gives to temporary files: of folded copies, in any
/// version of the format, `.<SHA-256>.v1.safetensors.<random letters and digits>.tmp`; of packed networks, with
/// some letters and digits for what they are packed for, `.<SHA-256>.v1-f32-float-16.packed.<...>.tmp`; and of
/// remembered hashes `.<SHA-256>.hash.<...>.tmp`.
fn is_temporary(name: &str) -> bool {
    let parse = || {
        let (sha256, rest) = name.strip_prefix('.')?.split_once('.')?;
        let (kind, random) = rest.strip_suffix(TEMPORARY)?.rsplit_once('.')?;
        let all = |text: &str, of: fn(u8) -> bool| !text.is_empty() && text.bytes().all(of);
        let known = match kind.strip_prefix('v').and_then(|kind| kind.split_once('.')) {
            Some((version, "safetensors")) => all(version, |b| b.is_ascii_digit()),
            Some((version, PACKED)) => all(version, |b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')),
            _ => kind == remembered_hash::EXTENSION,
        };
        Some(is_sha256(sha256) && known && all(random, |b| b.is_ascii_alphanumeric()))
    };
    parse().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_abandoned_files_of_this_program_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let sha256 = "0123456789abcdef".repeat(4);
        let ours = ["v1.safetensors", "v1-f32-float-16-x86_64.packed", "hash"]
            .map(|kind| format!(".{sha256}.{kind}.AbC123.tmp"));
        let others = [
            ".qlnet-notes".to_string(),
            ".tmpAbC123".to_string(),
            format!(".{sha256}.tmp"),
            format!(".{}.v1.safetensors.AbC123.tmp", &sha256[1..]),
            format!(".{sha256}.hashes.AbC123.tmp"),
            format!(".{sha256}.v1-f32.x.packed.AbC123.tmp"),
            format!("{sha256}.v0.safetensors"),
            format!("{sha256}.hash"),
        ];
        for name in others.iter().chain(&ours) {
            fs::write(dir.path().join(name), "").unwrap();
        }
        // One that is being written, and a folder with a name of that form.
        let fresh = format!(".{sha256}.v1.safetensors.XyZ789.tmp");
        let being_written = File::create(dir.path().join(&fresh)).unwrap();
        being_written.lock().unwrap();
        let folder = format!(".{sha256}.v1.safetensors.folder.tmp");
        fs::create_dir(dir.path().join(&folder)).unwrap();

        let kept = dir.path().join(format!("{sha256}.v1.safetensors"));
        replace(&kept, b"content").unwrap();
        for name in &ours {
            assert!(!dir.path().join(name).exists(), "{name}");
        }
        for name in others.iter().chain([&fresh, &folder]) {
            assert!(dir.path().join(name).exists(), "{name}");
        }
        assert_eq!(fs::read(kept).unwrap(), b"content", "a folder in the way does not stop caching");
    }

    /// What the clean-up knows is what is written.
    #[test]
    fn temporary_files_have_their_form() {
        for kind in ["v1.safetensors", remembered_hash::EXTENSION] {
            let prefix = format!(".{}.{kind}.", "0123456789abcdef".repeat(4));
            let file = tempfile::Builder::new().prefix(&prefix).suffix(TEMPORARY).tempfile().unwrap();
            let name = file.path().file_name().unwrap().to_str().unwrap();
            assert!(is_temporary(name), "{name}");
        }
    }
}
