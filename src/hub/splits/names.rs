//! What the name of one file says of its split.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::FilesKind;
use crate::text::{printable, thousands};

/// What names of files call the splits, by the words of `datasets`; the first of each line is the split's name.
pub const KEYWORDS: [&[&str]; 3] =
    [&["validation", "valid", "val", "dev"], &["test", "testing", "eval", "evaluation"], &["train", "training"]];

/// What stands before and after a keyword.
const SEPARATORS: &[u8] = b"-._ 0123456789";

/// The name of a split, if names say one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Split(pub Option<String>);

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match &self.0 {
            Some(name) => f.write_str(&printable(name)),
            None => f.write_str("files whose names say no split"),
        }
    }
}

impl Split {
    fn named(name: &str) -> Self {
        Self(Some(name.into()))
    }

    /// The line of [`KEYWORDS`] that has its name.
    pub fn keywords(&self) -> Option<&'static [&'static str]> {
        keywords_of(self.0.as_deref()?)
    }
}

pub fn keywords_of(name: &str) -> Option<&'static [&'static str]> {
    KEYWORDS.into_iter().find(|line| line.iter().any(|keyword| keyword.eq_ignore_ascii_case(name)))
}

impl FilesKind {
    /// Whether a file is of this kind, and none that `datasets` passes over: hidden, or in a folder that begins with
    /// two underscores.
    pub fn has(self, name: &str) -> bool {
        let ending: &[u8] = if self == Self::Parquet { b".parquet" } else { b".tar" };
        let end = name.len().checked_sub(ending.len()).map(|at| &name.as_bytes()[at..]);
        let hidden = name.split('/').any(|part| part.starts_with('.'));
        let special = folder_of(name).split('/').any(|part| part.starts_with("__"));
        end.is_some_and(|end| end.eq_ignore_ascii_case(ending)) && !hidden && !special
    }
}

pub fn folder_of(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}

fn file_of(name: &str) -> &str {
    name.rsplit_once('/').map_or(name, |(_, file)| file)
}

/// For each split the sets of files that have its name. A set is named by what its files' names have in common; more
/// than one set cannot be evaluated as one.
pub type Splits = BTreeMap<Split, BTreeMap<String, Vec<usize>>>;

/// Finds the splits of a file in its name, each with the name of the set.
type Form = fn(&str) -> Vec<(Split, String)>;

/// Sorts files into splits.
pub fn splits(named: &[(usize, &str)]) -> Splits {
    let forms: [Form; 4] = [
        |name| of_number(name).filter(|_| folder_of(name).split('/').next_back() == Some("data")).into_iter().collect(),
        of_folder,
        of_file,
        |name| of_number(name).into_iter().collect(),
    ];
    for form in forms {
        let mut found = Splits::new();
        for (index, name) in named {
            for (split, set) in form(name) {
                found.entry(split).or_default().entry(set).or_default().push(*index);
            }
        }
        if !found.is_empty() {
            return found;
        }
    }
    let mut found = Splits::new();
    for (index, name) in named {
        let folder = format!("{}/*", folder_of(name)).trim_start_matches('/').to_string();
        found.entry(Split(None)).or_default().entry(folder).or_default().push(*index);
    }
    found
}

/// The number of a file and that of all, and where they begin: `-00003-of-00014`.
pub fn number(name: &str) -> Option<(usize, usize, usize)> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let at = name.rfind("-of-")?;
    let total = &name[at + 4..][..digits(&name[at + 4..])];
    let before = name[..at].trim_end_matches(|c: char| c.is_ascii_digit());
    let part = &name[before.len()..at];
    Some((part.parse().ok()?, total.parse().ok()?, before.strip_suffix('-')?.len()))
}

/// The split of `NAME-00000-of-00014.parquet`, if its name is a word.
fn of_number(name: &str) -> Option<(Split, String)> {
    let (_, total, end) = number(name)?;
    let split = file_of(&name[..end]);
    let is_word = !split.is_empty() && split.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.'));
    is_word.then(|| (Split::named(split), format!("{}-*-of-{total:05}", &name[..end])))
}

/// The splits that the folders' names say.
fn of_folder(name: &str) -> Vec<(Split, String)> {
    let folder = folder_of(name);
    let mut found = Vec::new();
    let mut begin = 0;
    for part in folder.split('/') {
        let end = begin + part.len();
        found.extend(keywords_in(part).map(|(split, _)| (split, end)));
        begin = end + 1;
    }
    once_each(found, |end| format!("{}/", &name[..end]))
}

/// The splits that the file's own name says.
fn of_file(name: &str) -> Vec<(Split, String)> {
    let file = file_of(name);
    let stem = file.rfind('.').map_or(file, |at| &file[..at]);
    let before = name.len() - file.len();
    let pattern = |end: usize| {
        let rest = match number(stem) {
            Some((_, total, at)) if at >= end => format!("{}-*-of-{total:05}", stars(&stem[end..at])),
            _ => stars(&stem[end..]),
        };
        format!("{}{rest}", &name[..before + end])
    };
    once_each(keywords_in(stem), pattern)
}

/// Text with `*` for each number.
fn stars(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c.is_ascii_digit() {
            true if out.ends_with('*') => {}
            true => out.push('*'),
            false => out.push(c),
        }
    }
    out
}

/// Each split with the first of its sets, which is named by where its keyword ends. Only those are given names: a long
/// name may hold a keyword many times, and the names of all together would be as long as its square.
fn once_each(
    found: impl IntoIterator<Item = (&'static str, usize)>,
    set: impl Fn(usize) -> String,
) -> Vec<(Split, String)> {
    let mut seen = BTreeSet::new();
    let first = found.into_iter().filter(|(split, _)| seen.insert(*split));
    first.map(|(split, end)| (Split::named(split), set(end))).collect()
}

/// The splits whose keywords stand in a name between separators, and where the keywords end.
fn keywords_in(part: &str) -> impl Iterator<Item = (&'static str, usize)> {
    let mut begin = 0;
    part.as_bytes().split(|byte| SEPARATORS.contains(byte)).filter_map(move |word| {
        let end = begin + word.len();
        begin = end + 1;
        let line = std::str::from_utf8(word).ok().and_then(keywords_of)?;
        Some((line[0], end))
    })
}

/// `, only ` and the kinds of files that are not hidden, the most frequent first.
pub fn what_is_there(names: &[&str]) -> String {
    let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
    for file in names.iter().map(|name| file_of(name)).filter(|file| !file.starts_with('.')) {
        let kind = match file.rsplit_once('.') {
            Some((stem, "gz" | "bz2" | "xz" | "zst")) if stem.ends_with(".tar") => {
                format!(".tar.{}", &file[stem.len() + 1..])
            }
            Some((_, ending)) => format!(".{ending}"),
            None => "files without an ending".into(),
        };
        *kinds.entry(kind).or_default() += 1;
    }
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    kinds.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let first = kinds.iter().take(4).map(|(kind, count)| format!("{} {}", thousands(*count), printable(kind)));
    let text = first.collect::<Vec<_>>().join(", ");
    match kinds.len() {
        0 => String::new(),
        1..=4 => format!(", only {text}"),
        _ => format!(", only {text} and others"),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Of a long name with a keyword in each part, the names of all sets would be as long as its square.
    #[test]
    fn only_the_first_set_of_each_split_gets_a_name() {
        let made = Cell::new(0);
        let set = |end: usize| {
            made.set(made.get() + 1);
            end.to_string()
        };
        let found = once_each(keywords_in(&"val-test.VAL_0dev ".repeat(10_000)), set);
        assert_eq!(found, [(Split::named("validation"), "3".into()), (Split::named("test"), "8".into())]);
        assert_eq!(made.get(), 2);
        let long = format!("{}val-{}train.x.tar", "val/".repeat(20_000), "val-".repeat(20_000));
        assert_eq!(of_folder(&long), [(Split::named("validation"), "val/".into())]);
        let found: Vec<Split> = of_file(&long).into_iter().map(|(split, _)| split).collect();
        assert_eq!(found, [Split::named("validation"), Split::named("train")]);
    }
}
