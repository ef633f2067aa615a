//! Puts a blob of the cache at its second path: by a link, or by a copy where links cannot be made.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use tempfile::TempPath;

use super::cache::mismatch;
use super::temporary::make_temporary;
use crate::error::{Error, Result};
use crate::weights::registry::HubFile;

/// Makes a link to the first path at the second.
pub type Link = fn(&Path, &Path) -> io::Result<()>;

/// The kinds of links to try, in order. On Windows symlinks need privileges.
pub const LINKS: &[Link] = &[
    #[cfg(unix)]
    symlink,
    hard_link,
];

/// Links as huggingface_hub does, from `snapshots/<revision>/<file>` to `blobs/<sha256>`, so that the cache can
/// be moved.
#[cfg(unix)]
fn symlink(blob: &Path, path: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(Path::new("../../blobs").join(blob.file_name().unwrap_or_default()), path)
}

fn hard_link(blob: &Path, path: &Path) -> io::Result<()> {
    fs::hard_link(blob, path)
}

/// Puts the content of `blob`, which is that of `file`, at `path`: by the first of the links that can be made,
/// else by a copy. exFAT and some network mounts have no links. What is at `path` afterwards is complete, or
/// what was there before.
///
/// # Errors
/// If no link can be made, and `path` cannot be written or the copy is not as it should be.
pub fn link_or_copy(links: &[Link], blob: &Path, path: &Path, file: &HubFile) -> Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(dir).map_err(Error::io("write", path))?;
    if links.iter().any(|link| place_link(*link, blob, dir, path, file).is_ok()) {
        return Ok(());
    }
    let copy = copy_to_temporary(blob, dir, file.sha256).map_err(Error::io("write", path))?;
    if let Some(mismatch) = mismatch(&copy, file)? {
        return Err(Error::io("write", path)(io::Error::other(mismatch)));
    }
    copy.persist(path).map_err(|error| Error::io("write", path)(error.error))
}

/// Makes a link beside `path`, and moves it there if it leads to the blob.
fn place_link(link: Link, blob: &Path, dir: &Path, path: &Path, file: &HubFile) -> io::Result<()> {
    let made = make_temporary(dir, file.sha256, |path| link(blob, path))?.into_temp_path();
    // Some mounts make links that lead nowhere.
    if fs::metadata(&made)?.len() != file.size {
        return Err(io::Error::other("the link does not lead to the blob"));
    }
    made.persist(path).map_err(|error| error.error)
}

/// Copies a file to a temporary one in `dir`, which goes when what is returned is dropped. Its permissions are
/// those of any new file; the `tempfile` crate's own are for the user alone.
pub fn copy_to_temporary(from: &Path, dir: &Path, sha256: &str) -> io::Result<TempPath> {
    let mut from = File::open(from)?;
    let mut copy = make_temporary(dir, sha256, |path| File::create_new(path))?;
    io::copy(&mut from, copy.as_file_mut())?;
    copy.as_file().sync_all()?;
    Ok(copy.into_temp_path())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::sha256_of;
    use std::path::PathBuf;

    const CONTENT: &[u8] = b"the content of a file";

    /// A cache with one blob, and the path that its pin belongs at.
    struct Setting {
        dir: tempfile::TempDir,
        file: HubFile,
        blob: PathBuf,
        path: PathBuf,
    }

    fn setting() -> Setting {
        let dir = tempfile::tempdir().unwrap();
        let sha256 = sha256_of(CONTENT).leak();
        let file = HubFile { repository: "a/b", revision: "c", file: "d", size: CONTENT.len() as u64, sha256 };
        let blob = dir.path().join("blobs").join(&*sha256);
        fs::create_dir(dir.path().join("blobs")).unwrap();
        fs::write(&blob, CONTENT).unwrap();
        let path = dir.path().join("snapshots").join("c").join("d");
        Setting { dir, file, blob, path }
    }

    impl Setting {
        fn assert_placed(&self) {
            assert_eq!(fs::read(&self.path).unwrap(), CONTENT);
            assert_eq!(fs::read_dir(self.path.parent().unwrap()).unwrap().count(), 1, "nothing temporary is left");
        }

        /// Whether a change of the blob is one of the other path too.
        fn is_shared(&self) -> bool {
            fs::write(&self.blob, "changed").unwrap();
            fs::read(&self.path).unwrap() == b"changed"
        }
    }

    /// As a file system without links refuses.
    fn refused(_: &Path, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// As a mount makes links that lead nowhere.
    fn leading_nowhere(_: &Path, path: &Path) -> io::Result<()> {
        fs::write(path, "")
    }

    #[test]
    fn each_way_is_taken_where_those_before_it_fail() {
        let hard: Link = hard_link;
        for (links, is_shared) in [
            (LINKS, true),
            (&[refused, hard], true),
            (&[leading_nowhere, hard], true),
            (&[refused, refused], false),
            (&[leading_nowhere, refused], false),
            (&[], false),
        ] {
            let s = setting();
            link_or_copy(links, &s.blob, &s.path, &s.file).unwrap();
            s.assert_placed();
            // A file that is there is replaced.
            fs::remove_file(&s.path).unwrap();
            fs::write(&s.path, "damaged").unwrap();
            link_or_copy(links, &s.blob, &s.path, &s.file).unwrap();
            s.assert_placed();
            assert_eq!(s.is_shared(), is_shared);
            assert!(s.dir.path().exists());
        }
    }

    #[test]
    fn a_copy_that_is_not_the_file_is_not_placed() {
        let s = setting();
        fs::write(&s.blob, [0; CONTENT.len()]).unwrap();
        let error = link_or_copy(&[refused], &s.blob, &s.path, &s.file).unwrap_err();
        assert!(matches!(&error, Error::Io { action: "write", path, .. } if *path == s.path), "{error}");
        assert!(error.to_string().contains("SHA-256"), "{error}");
        assert!(!s.path.exists());
        assert_eq!(fs::read_dir(s.path.parent().unwrap()).unwrap().count(), 0, "nothing temporary is left");
    }

    #[test]
    fn what_is_there_is_kept_where_no_way_works() {
        let s = setting();
        link_or_copy(&[], &s.blob, &s.path, &s.file).unwrap();
        fs::remove_file(&s.blob).unwrap();
        assert!(link_or_copy(&[refused], &s.blob, &s.path, &s.file).is_err());
        s.assert_placed();
    }
}
