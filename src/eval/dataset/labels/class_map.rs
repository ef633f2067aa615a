//! A file that says which folder, or which number, is which class.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use super::classes::Classes;
use super::lines::{Line, SEPARATORS, name_and_class, read_lines};
use crate::error::{Context, DatasetProblem, Reason, Result, bail, ensure};

/// Reads lines of a folder's name and its class; or of only the folder's name, the first of class 0,
/// as in timm's class maps.
pub fn read_class_map(file: &Path, classes: &Classes, folders: &BTreeSet<&str>) -> Result<HashMap<String, u32>> {
    let lines = read_lines(file)?;
    class_map(file, lines, classes, folders).map_err(DatasetProblem::Labels.because())
}

fn class_map(
    file: &Path,
    mut lines: Vec<Line>,
    classes: &Classes,
    folders: &BTreeSet<&str>,
) -> Result<HashMap<String, u32>, Reason> {
    let named =
        |line: &Line| name_and_class(&line.text, |class| classes.named(class)).map(|(f, class)| (f.to_string(), class));
    let has_classes = lines.iter().any(|line| named(line).is_some() && !folders.contains(line.text.as_str()));
    let names_folder = |line: &Line| line.text.split_once(SEPARATORS).is_some_and(|(name, _)| folders.contains(name));
    if has_classes && named(&lines[0]).is_none() && !names_folder(&lines[0]) {
        // A header.
        lines.remove(0);
    }
    let mut map = HashMap::new();
    for (index, line) in (0..).zip(&lines) {
        let at = || format!("{}, line {}", file.display(), line.number);
        let (folder, class) = if has_classes {
            named(line).with_context(|| {
                format!("{}: no class of the model in `{}`; expected {}", at(), line.text, classes.kinds())
            })?
        } else {
            let (folder, count) = (line.text.clone(), classes.count);
            ensure!((index as usize) < count, "{}: more folders than the model has classes ({count})", at());
            if let Some(class) = classes.by_wnid.get(&folder).filter(|class| **class != index) {
                bail!("{}: `{folder}` is class {class} of the model, and not {index}; write `{folder} {class}`", at());
            }
            (folder, index)
        };
        if let Some(folder) = map.insert(folder.clone(), class).map(|_| folder) {
            bail!("{}: `{folder}` is there twice", at());
        }
    }
    Ok(map)
}

/// Reads what class each number is: lines of a number and a class, or as in `map_clsloc.txt` of ILSVRC's development
/// kit, of a WordNet id and its number.
pub fn read_numbers(file: &Path, classes: &Classes) -> Result<HashMap<u32, u32>> {
    let lines = read_lines(file)?;
    numbers(file, &lines, classes).map_err(DatasetProblem::Labels.because())
}

fn numbers(file: &Path, lines: &[Line], classes: &Classes) -> Result<HashMap<u32, u32>, Reason> {
    let numbered = |text: &str| {
        let mut words = text.split(SEPARATORS).filter(|word| !word.is_empty());
        if let (Some(first), Some(number)) = (words.next(), words.next())
            && let Some(class) = classes.by_wnid.get(first)
        {
            return Some((number.parse().ok()?, *class));
        }
        let (number, class) = name_and_class(text, |class| classes.named(class))?;
        Some((number.parse().ok()?, class))
    };
    let mut map = HashMap::new();
    for (index, Line { number, text }) in lines.iter().enumerate() {
        let at = || format!("{}, line {number}", file.display());
        match numbered(text) {
            Some((label, class)) => {
                let before = map.insert(label, class);
                ensure!(before.is_none_or(|before| before == class), "{}: {label} is there twice", at());
            }
            // The first may be a header.
            None if index == 0 => {}
            None => bail!("{}: no number with a class of the model in `{text}`", at()),
        }
    }
    ensure!(!map.is_empty(), "{}: no numbers with classes of the model", file.display());
    Ok(map)
}
