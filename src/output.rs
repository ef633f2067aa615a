//! Files that are there whole or not at all.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tempfile::NamedTempFile;

/// A file that gets its name when its content is complete; until then it has another, which is
/// removed if it comes to nothing.
pub struct Output {
    file: NamedTempFile,
    path: PathBuf,
}

impl Output {
    /// Finds out whether the file can be written, before work is done for it.
    ///
    /// # Errors
    /// If its directory is missing or cannot be written.
    pub fn create(path: &Path) -> Result<Self> {
        let shown = path.display();
        ensure!(!path.is_dir(), "cannot write {shown}: it is a directory");
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut builder = tempfile::Builder::new();
        builder.prefix(".qlnet-");
        #[cfg(unix)]
        {
            // As any file that is created, less what the umask takes away.
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(std::fs::Permissions::from_mode(0o666));
        }
        let file = builder.tempfile_in(directory).with_context(|| format!("cannot write {shown}"))?;
        Ok(Self { file, path: path.to_path_buf() })
    }

    /// Writes the content and gives the file its name.
    ///
    /// # Errors
    /// If it cannot be written, as on a full disk.
    pub fn write(mut self, content: &[u8]) -> Result<()> {
        let failed = || format!("cannot write {}", self.path.display());
        self.file.write_all(content).and_then(|()| self.file.as_file().sync_all()).with_context(failed)?;
        self.file.persist(&self.path).map_err(|error| error.error).with_context(failed)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    }
}
