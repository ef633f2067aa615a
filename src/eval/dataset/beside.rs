//! Files about a data set that are read because they lie beside it: nobody named them, and whoever made the data set may
//! have put anything there.

use std::io::ErrorKind;
use std::path::Path;

use crate::bounded::read_file;
use crate::error::{Reason, Result};

/// Whether something is there that is neither a file nor a folder: to open a pipe may take for ever, and a device may
/// have no end.
pub fn is_special(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir())
}

/// The bytes of a file that is not larger than `largest`; `None` if there is no file.
///
/// # Errors
/// If it cannot be read, is larger, or is no regular file. The error does not name it.
pub fn read_beside(path: &Path, largest: u64) -> Result<Option<Vec<u8>>, Reason> {
    match read_file(path, largest) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        read => Ok(Some(read?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_are_read_and_not_larger_ones() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("classnames.txt");
        let read = |path: &Path| read_beside(path, 5).map_err(|error| error.to_string());
        assert_eq!(read(&path), Ok(None));
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read(&path), Ok(Some(b"12345".to_vec())));
        std::fs::write(&path, "123456").unwrap();
        assert_eq!(read(&path), Err("larger than 5 bytes".into()));
        assert_eq!(read(dir.path()), Err("not a regular file".into()));
        assert!(!is_special(&path) && !is_special(dir.path()) && !is_special(&dir.path().join("nowhere")));
        #[cfg(unix)]
        {
            let pipe = dir.path().join("pipe");
            crate::bounded::make_pipe(&pipe);
            for special in [&pipe, Path::new("/dev/zero")] {
                assert_eq!(read(special), Err("not a regular file".into()));
                assert!(is_special(special));
            }
        }
    }
}
