//! Lists of images: a name a line, or each with NUL at its end.

use std::io::{BufRead, Read};
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};

/// Adds the names of a list that each end with the byte `end`; the last may do without.
///
/// # Errors
/// If the list cannot be read, or is no list of names with such an end.
pub fn read_list(list: impl BufRead, end: u8, names: &mut Vec<PathBuf>) -> Result<()> {
    // Names of a million images have a hundred million bytes.
    read_names(list, end, 256 << 20, names)
}

/// Names with no more than so many bytes together.
fn read_names(mut list: impl BufRead, end: u8, largest: u64, names: &mut Vec<PathBuf>) -> Result<()> {
    /// More than any system allows a path.
    const LONGEST: u64 = 1 << 16;
    let (mut line, mut length) = (Vec::new(), 0);
    for number in 1.. {
        length += line.len() as u64;
        ensure!(length <= largest, "larger than {} MiB: no list of images", largest >> 20);
        line.clear();
        // The limit is for files that are no lists, and devices that have no end.
        if list.by_ref().take(LONGEST).read_until(end, &mut line)? == 0 {
            break;
        }
        let ended = line.last() == Some(&end);
        ensure!(
            ended || (line.len() as u64) < LONGEST,
            "name {number} is longer than a path can be: no list of images"
        );
        let name = if ended { &line[..line.len() - 1] } else { &line[..] };
        let name = if end == b'\n' { text_line(name, number)? } else { name };
        if end == 0 && !ended && number == 1 && name.contains(&b'\n') {
            bail!("no name ends with NUL, which -0 expects; leave it out where each is a line");
        }
        if !name.is_empty() {
            names.push(to_path(name).with_context(|| format!("name {number} is not UTF-8"))?);
        }
    }
    Ok(())
}

/// A line of a list without what programs of Windows add: a mark before the first, and a carriage return after each.
///
/// # Errors
/// If it cannot be a line of a list in UTF-8.
fn text_line(line: &[u8], number: u64) -> Result<&[u8]> {
    if number == 1 && (line.starts_with(&[0xff, 0xfe]) || line.starts_with(&[0xfe, 0xff])) {
        bail!("a list in UTF-16; save it as UTF-8");
    }
    ensure!(!line.contains(&0), "line {number} contains NUL; where NUL ends the names, say so with -0");
    let line = if number == 1 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) } else { line };
    Ok(line.strip_suffix(b"\r").unwrap_or(line))
}

/// A path of these very bytes.
#[cfg(unix)]
fn to_path(name: &[u8]) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    Some(std::ffi::OsStr::from_bytes(name).into())
}

/// A path, which has no bytes here.
#[cfg(not(unix))]
fn to_path(name: &[u8]) -> Option<PathBuf> {
    std::str::from_utf8(name).ok().map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(bytes: &[u8], end: u8) -> Result<Vec<PathBuf>> {
        let mut names = Vec::new();
        read_list(bytes, end, &mut names).map(|()| names)
    }

    #[test]
    fn names_of_a_list_are_lines() {
        let names = ["a.png", " b c.png", "d"].map(PathBuf::from);
        for text in ["a.png\n b c.png\nd\n", "a.png\r\n b c.png\r\nd", "\u{feff}a.png\n\n\r\n b c.png\nd\n\n"] {
            assert_eq!(list(text.as_bytes(), b'\n').unwrap(), names, "{text:?}");
        }
        for text in ["", "\n", "\r\n\n"] {
            assert!(list(text.as_bytes(), b'\n').unwrap().is_empty());
        }
    }

    #[test]
    fn names_that_end_with_nul_may_contain_anything_else() {
        let names = ["a\nb.png", "\u{feff}c\r", "d"].map(PathBuf::from);
        for text in ["a\nb.png\0\u{feff}c\r\0d\0", "a\nb.png\0\0\u{feff}c\r\0d"] {
            assert_eq!(list(text.as_bytes(), 0).unwrap(), names, "{text:?}");
        }
    }

    #[test]
    #[cfg(unix)]
    fn names_that_are_not_utf_8_keep_their_bytes() {
        let names = list(b"\xe9.png\n\xe8.png\n", b'\n').unwrap();
        assert_eq!(names[0].as_os_str().as_encoded_bytes(), b"\xe9.png");
        assert_eq!(names[1].as_os_str().as_encoded_bytes(), b"\xe8.png");
    }

    #[test]
    fn what_is_no_list_is_refused() {
        let long = vec![b'a'; 1 << 17];
        let cases = [
            (&b"a.png\nb.png\0c.png\n"[..], b'\n', "line 2 contains NUL"),
            (b"a.png\nb.png\n", 0, "no name ends with NUL"),
            (b"\xff\xfea\0.\0p\0\n\0", b'\n', "UTF-16"),
            (&long, b'\n', "longer than a path"),
            (&long, 0, "longer than a path"),
        ];
        for (text, end, part) in cases {
            let error = list(text, end).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_list_has_an_end() {
        let mut names = Vec::new();
        read_names(&b"a\n".repeat(1 << 19)[..], b'\n', 1 << 20, &mut names).unwrap();
        assert_eq!(names.len(), 1 << 19);
        let error = read_names(std::io::BufReader::new(std::io::repeat(0)), 0, 1 << 20, &mut names).unwrap_err();
        assert_eq!(error.to_string(), "larger than 1 MiB: no list of images");
    }
}
