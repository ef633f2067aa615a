//! The lines of files of labels and of class maps.

use std::path::Path;

use crate::error::{DatasetProblem, Error, Result};

/// A line of a text file, without blanks around it.
pub struct Line {
    /// From 1.
    pub number: usize,
    pub text: String,
}

/// The lines of a text file that are not blank.
pub fn read_lines(file: &Path) -> Result<Vec<Line>> {
    let shown = file.display();
    let bytes = std::fs::read(file).map_err(Error::io("read", file))?;
    let text = String::from_utf8(bytes)
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
