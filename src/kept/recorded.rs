//! What the records of hashes say, to whoever looks through the directory.

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;

use super::remembered_hash::{FORMAT, LONGEST, RememberedHash};
use crate::bounded::read_text;
use crate::digest::is_sha256;

/// What a record says.
pub(crate) struct Recorded {
    /// The hash that it holds.
    pub sha256: String,
    /// The file that it is about.
    pub path: PathBuf,
    /// Whether the file is as it was, so that the record is used.
    pub holds: bool,
}

impl Recorded {
    /// Reads a record of any version. There is nothing in the place of what it says if that cannot be used.
    ///
    /// # Errors
    /// If it is no record, but another program's file, is longer than a record is, or cannot be read.
    pub(crate) fn read(record: &Path) -> io::Result<Option<Self>> {
        let text = read_text(record, LONGEST)?;
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let is_version = |word: &str| word.strip_prefix('v').is_some_and(|digits| digits.parse::<u32>().is_ok());
        let [version, sha256, .., path, crc32] = words.as_slice() else { return Err(ErrorKind::InvalidData.into()) };
        let is_crc32 = crc32.len() == 8 && crc32.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_version(version) || !is_sha256(sha256) || !is_crc32 {
            return Err(ErrorKind::InvalidData.into());
        }
        let Some(path) = (*version == FORMAT).then(|| decoded(path)).flatten() else { return Ok(None) };
        let place = |metadata: Metadata| RememberedHash::new(record.parent()?, &path, &metadata);
        let holds = match fs::metadata(&path) {
            Ok(metadata) => place(metadata).is_some_and(|place| place.line(sha256) == text),
            // What cannot be looked at now, may be there.
            Err(error) => error.kind() != ErrorKind::NotFound,
        };
        Ok(Some(Self { sha256: sha256.to_string(), path, holds }))
    }
}

/// The path that stands in a record.
fn decoded(text: &str) -> Option<PathBuf> {
    let bytes: Vec<u8> = percent_decode_str(text).collect();
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStringExt;
        Some(std::ffi::OsString::from_vec(bytes).into())
    }
    #[cfg(not(unix))]
    String::from_utf8(bytes).ok().map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    /// The record of a file that was written long ago, and the file.
    fn recorded(dir: &Path, name: &str) -> (PathBuf, PathBuf) {
        let (cache, file) = (dir.join("cache"), dir.join(name));
        fs::write(&file, "content").unwrap();
        let place = RememberedHash::new(&cache, &file, &fs::metadata(&file).unwrap()).unwrap();
        place.write(&"0123456789abcdef".repeat(4), SystemTime::now() + Duration::from_secs(60));
        let record = fs::read_dir(&cache).unwrap().next().unwrap().unwrap().path();
        (record, file.canonicalize().unwrap())
    }

    #[test]
    fn a_record_names_its_file_and_holds_until_that_changes() {
        // Windows has no names with a tab.
        let odd = if cfg!(windows) { "my weights, 100 % of ä.pth" } else { "my weights, 100 %\tof ä.pth" };
        for name in ["weights.pth", odd] {
            let dir = tempfile::tempdir().unwrap();
            let (record, file) = recorded(dir.path(), name);
            let read = || Recorded::read(&record).unwrap().unwrap();
            assert_eq!((read().path, read().sha256), (file.clone(), "0123456789abcdef".repeat(4)));
            assert!(read().holds);
            fs::write(&file, "contents").unwrap();
            assert!(!read().holds, "changed");
            fs::remove_file(&file).unwrap();
            assert!(!read().holds, "gone");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_name_need_not_be_text() {
        use std::os::unix::ffi::OsStrExt;
        let dir = tempfile::tempdir().unwrap();
        let name = std::ffi::OsStr::from_bytes(b"weights\xff");
        let file = dir.path().join(name);
        if fs::write(&file, "content").is_err() {
            // Such as macOS's file systems.
            return;
        }
        let cache = dir.path().join("cache");
        let place = RememberedHash::new(&cache, &file, &fs::metadata(&file).unwrap()).unwrap();
        place.write(&"0".repeat(64), SystemTime::now() + Duration::from_secs(60));
        let record = fs::read_dir(&cache).unwrap().next().unwrap().unwrap().path();
        let read = Recorded::read(&record).unwrap().unwrap();
        assert!(read.holds && read.path.file_name() == Some(name));
    }

    #[test]
    fn what_is_of_another_version_says_nothing_and_what_is_foreign_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let read = |text: &str| {
            let path = dir.path().join("record");
            fs::write(&path, text).unwrap();
            Recorded::read(&path)
        };
        let sha256 = "0123456789abcdef".repeat(4);
        assert!(matches!(read(&format!("v1 {sha256} 1 2 3 4 5 0a1b2c3d\n")), Ok(None)));
        for foreign in ["", "hello", "v1 abc 1 2 3 4 5 6", "a b c d e f g h i", &format!("{sha256}  weights.pth\n")] {
            assert!(read(foreign).is_err(), "{foreign}");
        }
        let blanks = " ".repeat(LONGEST as usize);
        assert!(read(&format!("v1 {sha256} 1 2 3 4 5 0a1b2c3d{blanks}")).is_err(), "longer than any record");
        #[cfg(unix)]
        {
            let pipe = dir.path().join("pipe");
            crate::bounded::make_pipe(&pipe);
            assert!(Recorded::read(&pipe).is_err());
        }
    }
}
