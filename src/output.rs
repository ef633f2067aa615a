//! Files that appear complete or not at all.

use std::io::{Error as IoError, ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::error::{Error, Result};

/// A file that is to be written later, as a whole.
pub struct Output {
    path: PathBuf,
}

impl Output {
    /// Finds out whether the file can be written, before work is done for it.
    ///
    /// # Errors
    /// If its directory is missing or cannot be written.
    pub fn create(path: &Path) -> Result<Self> {
        let path = target(path)?;
        temporary(&path).map_err(Error::io("write", &path))?;
        Ok(Self { path })
    }

    /// Writes the content under another name beside it, and then gives it its name.
    ///
    /// # Errors
    /// If it cannot be written, as on a full disk.
    pub fn write(self, content: &[u8]) -> Result<()> {
        let mut file = self.begin()?;
        file.append(content)?;
        file.finish()
    }

    /// Begins to write it part by part.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn begin(self) -> Result<Growing> {
        let file = temporary(&self.path).map_err(Error::io("write", &self.path))?;
        Ok(Growing { file, path: self.path })
    }
}

/// A file that is being written under another name. Dropped before it is complete, it is removed.
pub struct Growing {
    file: NamedTempFile,
    path: PathBuf,
}

impl Growing {
    /// Writes what comes next.
    ///
    /// # Errors
    /// If it cannot be written, as on a full disk.
    pub fn append(&mut self, content: &[u8]) -> Result<()> {
        self.file.write_all(content).map_err(Error::io("write", &self.path))
    }

    /// Writes over the beginning.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_start(&mut self, content: &[u8]) -> Result<()> {
        let write = self.file.rewind().and_then(|()| self.file.write_all(content));
        write.and_then(|()| self.file.seek(SeekFrom::End(0))).map(drop).map_err(Error::io("write", &self.path))
    }

    /// Makes sure that the disk has all of it.
    ///
    /// # Errors
    /// If the disk does not take it.
    pub fn sync(&self) -> Result<()> {
        self.file.as_file().sync_all().map_err(Error::io("write", &self.path))
    }

    /// Gives it its name: it is complete.
    ///
    /// # Errors
    /// If the disk or the directory does not take it.
    pub fn finish(self) -> Result<()> {
        let Self { file, path } = self;
        let finish = || {
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|error| error.error)
        };
        finish().map(drop).map_err(Error::io("write", &path))
    }

    /// The name that it will have.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The file that is meant: where a link leads.
///
/// # Errors
/// If there is a directory or a device of that name.
pub fn target(path: &Path) -> Result<PathBuf> {
    let no_file = |kind, words: &str| Err(Error::io("write", path)(IoError::new(kind, words)));
    match path.metadata() {
        Ok(metadata) if metadata.is_file() => path.canonicalize().map_err(Error::io("write", path)),
        Ok(metadata) if metadata.is_dir() => no_file(ErrorKind::IsADirectory, "it is a directory"),
        Ok(_) => no_file(ErrorKind::InvalidInput, "it is not a regular file"),
        Err(_) => Ok(path.to_path_buf()),
    }
}

/// The directory that a file is in.
pub fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A file in the same directory, which is removed when it is dropped.
fn temporary(path: &Path) -> std::io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".qlnet-");
    #[cfg(unix)]
    {
        // As any file that is created, less what the umask takes away.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(directory(path)).map_err(|error| {
        // Without the temporary name, which helps no one.
        let text = error.to_string();
        IoError::new(error.kind(), text.split(" at path ").next().unwrap_or_default().to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_grows_has_its_name_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows");
        let begin = || {
            let mut file = Output::create(&path).unwrap().begin().unwrap();
            file.append(b"????").unwrap();
            file.append(b" rows").unwrap();
            file.write_start(b"four").unwrap();
            file.append(b".").unwrap();
            file
        };
        drop(begin());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let file = begin();
        assert!(!path.exists() && file.path() == path);
        file.finish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"four rows.");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report.html");
        let output = Output::create(&path).unwrap();
        assert!(!path.exists());
        drop(output);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing temporary is left");
        std::fs::write(&path, "old").unwrap();
        Output::create(&path).unwrap().write(b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert!(Output::create(dir.path()).is_err());
        assert!(Output::create(&dir.path().join("missing/report.html")).is_err());
        #[cfg(unix)]
        {
            // A link is followed; a device stays one.
            let link = dir.path().join("link.html");
            std::os::unix::fs::symlink(&path, &link).unwrap();
            Output::create(&link).unwrap().write(b"through").unwrap();
            assert!(link.is_symlink() && std::fs::read(&path).unwrap() == b"through");
            assert!(Output::create(Path::new("/dev/null")).is_err());
        }
    }
}
