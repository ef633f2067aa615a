//! The lines of files of labels and of class maps.

use std::fs::File;
use std::path::Path;

use crate::bounded::read_at_most;
use crate::error::{DatasetProblem, Error, Result};

/// A line of a text file, without blanks around it.
pub struct Line {
    /// From 1.
    pub number: usize,
    pub text: String,
}

/// The most bytes of a file of labels: those of ImageNet's 1.3 million training images take 50 to 100 MB. A device or a
/// pipe may have no end, and would fill the memory.
const LARGEST: u64 = 256 << 20;

/// The bytes of a file of labels, which may be a pipe, as where a shell has `<(...)` in its place.
pub fn read_labels(file: &Path) -> Result<Vec<u8>> {
    read_up_to(LARGEST, file)
}

fn read_up_to(largest: u64, file: &Path) -> Result<Vec<u8>> {
    let read = File::open(file).and_then(|opened| read_at_most(largest, opened, 0));
    read.map_err(Error::io("read", file))?.ok_or_else(|| {
        let words = "a file of labels larger than 256 MiB, which is the most that is read";
        DatasetProblem::Labels.error(format!("{}: {words}", file.display()))
    })
}

/// The lines of a text file that are not blank.
pub fn read_lines(file: &Path) -> Result<Vec<Line>> {
    let shown = file.display();
    let text = String::from_utf8(read_labels(file)?)
        .map_err(|_| DatasetProblem::Labels.error(format!("{shown} is not a text file in UTF-8; save it as one")))?;
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let lines: Vec<Line> = (1..)
        .zip(text.trim_start_matches('\u{feff}').lines())
        .map(|(number, text)| Line { number, text: text.trim().to_string() })
        .filter(|line| !line.text.is_empty())
        .collect();
    if lines.is_empty() {
        return Err(DatasetProblem::Labels.error(format!("{shown} is empty")));
    }
    Ok(lines)
}

/// What may stand between a name and a class.
pub const SEPARATORS: [char; 3] = ['\t', ',', ' '];

/// The name and the class of a line: what stands before and after the first separator that a class
/// follows.
pub fn name_and_class(line: &str, class: impl Fn(&str) -> Option<u32>) -> Option<(&str, u32)> {
    SEPARATORS.into_iter().find_map(|separator| {
        let (name, rest) = line.split_once(separator)?;
        let [name, rest] = [name, rest].map(|text| text.trim().trim_matches('"'));
        (!name.is_empty()).then_some((name, class(rest)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_without_an_end_are_not_read_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("labels.txt");
        std::fs::write(&path, [b'1'; 1000]).unwrap();
        assert_eq!(read_up_to(1000, &path).unwrap().len(), 1000);
        let refused = |path: &Path| {
            let error = read_up_to(999, path).unwrap_err().to_string();
            assert!(error.contains("a file of labels larger than 256 MiB"), "{error}");
        };
        refused(&path);
        #[cfg(unix)]
        refused(Path::new("/dev/zero"));
    }
}
