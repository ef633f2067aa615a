//! Files that nobody named, read to a limit or extended: whoever may write into a cache, or made a data set, may have put
//! anything in their place. A pipe would be waited for, perhaps for ever, and a device may have no end.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use crate::text::thousands;

/// Reads a file that has no more than `largest` bytes; `None` if it has more. Room is made for `expected` bytes.
pub fn read_at_most(largest: u64, file: impl Read, expected: u64) -> io::Result<Option<Vec<u8>>> {
    // One byte more, so that the end is found without growing.
    let mut bytes = Vec::with_capacity(expected.min(largest) as usize + 1);
    file.take(largest + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes).filter(|bytes| bytes.len() as u64 <= largest))
}

/// Opens a regular file to be read. Links are followed.
///
/// # Errors
/// If it cannot be opened, or is no regular file.
pub fn open_file(path: &Path) -> io::Result<File> {
    // Before it is opened, which for a pipe may take for ever.
    ensure_regular(&fs::metadata(path)?, "not a regular file")?;
    File::open(path)
}

/// Opens a regular file to be written, or makes it. It is not cut, and its position is its beginning. Links are followed.
///
/// Not in the mode for appending: Windows does not let a file that is open in this mode be cut, and what is written must
/// land at the position that was sought.
///
/// # Errors
/// If it can be neither opened nor made, or is no regular file.
pub fn open_to_write(path: &Path) -> io::Result<File> {
    if let Ok(metadata) = fs::metadata(path) {
        ensure_regular(&metadata, "not a regular file, which it has to be: remove it")?;
    }
    OpenOptions::new().create(true).truncate(false).write(true).open(path)
}

fn ensure_regular(metadata: &fs::Metadata, otherwise: &'static str) -> io::Result<()> {
    if metadata.is_file() { Ok(()) } else { Err(io::Error::new(ErrorKind::InvalidInput, otherwise)) }
}

/// The bytes of a regular file that is not larger than `largest`. Links are followed.
///
/// # Errors
/// If it cannot be read, is larger, or is no regular file. The error does not name it.
pub fn read_file(path: &Path, largest: u64) -> io::Result<Vec<u8>> {
    let bytes = read_at_most(largest, open_file(path)?, 0)?;
    bytes.ok_or_else(|| io::Error::other(format!("larger than {} bytes", thousands(largest))))
}

/// [`read_file`] of a text.
///
/// # Errors
/// Also if it is not UTF-8.
pub fn read_text(path: &Path, largest: u64) -> io::Result<String> {
    String::from_utf8(read_file(path, largest)?).map_err(|_| ErrorKind::InvalidData.into())
}

/// Makes a pipe to which nobody writes.
#[cfg(all(test, unix))]
pub fn make_pipe(path: &Path) {
    assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, SeekFrom, Write};

    #[test]
    fn texts_are_read_to_a_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("text");
        let read = |path: &Path| read_text(path, 5).map_err(|error| error.kind());
        assert_eq!(read(&path), Err(ErrorKind::NotFound));
        for (content, expected) in [
            (&b"12345"[..], Ok("12345".to_string())),
            (b"123456", Err(ErrorKind::Other)),
            (b"1\xff", Err(ErrorKind::InvalidData)),
            (b"", Ok(String::new())),
        ] {
            fs::write(&path, content).unwrap();
            assert_eq!(read(&path), expected);
        }
        assert_eq!(read(dir.path()), Err(ErrorKind::InvalidInput));
    }

    #[test]
    fn a_file_is_extended_where_the_position_stands() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, b"abcdef").unwrap();
        let mut file = open_to_write(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"abcdef");
        // Refused by Windows, or written to the end, if the file were open for appending.
        file.set_len(3).unwrap();
        file.seek(SeekFrom::Start(1)).unwrap();
        file.write_all(b"X").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"aXc");
    }

    #[cfg(unix)]
    #[test]
    fn pipes_and_devices_are_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        let [pipe, link] = ["pipe", "link"].map(|name| dir.path().join(name));
        make_pipe(&pipe);
        std::os::unix::fs::symlink(&pipe, &link).unwrap();
        for special in [pipe.as_path(), &link, Path::new("/dev/zero")] {
            assert_eq!(read_file(special, 5).unwrap_err().to_string(), "not a regular file");
            assert_eq!(open_to_write(special).unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        // A link to a file is as the file.
        fs::remove_file(&pipe).unwrap();
        fs::write(&pipe, "12345").unwrap();
        assert_eq!(read_file(&link, 5).unwrap(), b"12345");
    }
}
