//! Which files of a data set are those of one split, by their names, as Python's `datasets` finds them
//! (`data_files.py`, version 5.2): a split's name stands in the name of each file, or in that of a folder.
//!
//! ```text
//! data/validation-00000-of-00014.parquet      the split is what stands before the number, whatever it is
//! val/0.tar, imagenet-test-64/0.parquet       else a keyword in the name of a folder
//! imagenet1k-validation-0000.tar              else a keyword in the name of the file
//! unsupervised-00000-of-00001.parquet         else what stands before the number, in any folder
//! 0.tar                                       else no name says a split
//! ```
//!
//! The first of these forms that any file has is that of all. A data set on the hub and its folder on a disk have
//! the same names, so they are read in the same way.

mod names;

use std::collections::{BTreeMap, BTreeSet};

use self::names::{KEYWORDS, Split, folder_of, keywords_of, number, splits, what_is_there};
use crate::error::{Reason, Result, bail, ensure};
use crate::text::{printable, thousands};

/// What the files of a split are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilesKind {
    /// Tables whose rows hold an image and its label.
    Parquet,
    /// Archives, such as the shards of WebDataset.
    Tar,
}

/// The files of one split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitFiles {
    /// The split's name, as the data set has it: `validation`, or `valid`; nothing where no name says a split.
    pub split: Option<String>,
    /// What the files are.
    pub kind: FilesKind,
    /// Indices of the names, in the order of the names.
    pub files: Vec<usize>,
    /// What a person should know of the choice, such as that it is not the validation split.
    pub note: Option<String>,
}

/// The files of a split among all files of a data set, whose names are paths below its folder with `/` between
/// their parts.
///
/// `wanted` is the name of a split, or `FOLDER/SPLIT` for one of the files below a folder alone, where a data set
/// has several configurations; `FOLDER/` leaves the split open. `val` and `validation` are the same split, as are
/// the other names of one line of `datasets`' list. Without a split it is that of validation; if there is none, that of
/// test, or the only one, with a note. Where a split is there as Parquet and as tar, it is Parquet.
///
/// # Errors
/// If there are no such files, no such split, or several that could be meant; if the files are of several sets, or
/// some of those that are numbered `-00003-of-00014` are missing.
pub fn files_of_split(names: &[&str], wanted: Option<&str>) -> Result<SplitFiles, Reason> {
    let (folder, split) = match wanted.map(|wanted| wanted.rsplit_once('/').unwrap_or(("", wanted))) {
        Some((folder, split)) => (folder.trim_matches('/'), Some(split).filter(|split| !split.is_empty())),
        None => ("", None),
    };
    let below = |name: &str| folder.is_empty() || name.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
    let indices: Vec<usize> = (0..names.len()).filter(|index| below(names[*index])).collect();
    ensure!(!indices.is_empty() || names.is_empty(), "there is no folder `{}` with files", printable(folder));
    let candidates = [FilesKind::Parquet, FilesKind::Tar].map(|kind| {
        let named: Vec<_> = indices.iter().map(|index| (*index, names[*index])).filter(|n| kind.has(n.1)).collect();
        (kind, splits(&named))
    });
    let all: BTreeSet<&Split> = candidates.iter().flat_map(|(_, splits)| splits.keys()).collect();
    if all.is_empty() {
        let here: Vec<&str> = indices.iter().map(|index| names[*index]).collect();
        bail!("there are no Parquet files and no .tar archives{}", what_is_there(&here));
    }
    let (split, note) = choose(&all, split)?;
    // One of them has it.
    let chosen = candidates.iter().find_map(|(kind, splits)| Some((*kind, splits.get(split)?)));
    let Some((kind, found)) = chosen else { bail!("there is no {split}") };
    let files = only_set(split, found, names)?;
    complete(&files, names)?;
    Ok(SplitFiles { split: split.0.clone(), kind, files, note })
}

/// The split that is wanted, or the one to take where none is named, and what to say of it.
fn choose<'a>(all: &BTreeSet<&'a Split>, wanted: Option<&str>) -> Result<(&'a Split, Option<String>), Reason> {
    let of = |line: &[&str]| {
        line.iter().find_map(|keyword| {
            all.iter().copied().find(|split| split.0.as_ref().is_some_and(|name| name.eq_ignore_ascii_case(keyword)))
        })
    };
    if let Some(wanted) = wanted {
        let exact = all.iter().copied().find(|split| split.0.as_deref() == Some(wanted));
        return match exact.or_else(|| of(keywords_of(wanted)?)) {
            Some(split) => Ok((split, None)),
            None => bail!("there is no split `{}`; there is {}", printable(wanted), list(all)),
        };
    }
    if let Some(split) = of(KEYWORDS[0]) {
        return Ok((split, None));
    }
    let only = all.first().copied().filter(|_| all.len() == 1);
    let train = |split: &Split| split.keywords() == Some(KEYWORDS[2]);
    let test = of(KEYWORDS[1]).filter(|test| all.iter().all(|split| split == test || train(split)));
    match only.or(test) {
        Some(split @ Split(None)) => Ok((split, None)),
        Some(split) => Ok((split, Some(format!("there is no validation split; the split is {split}")))),
        None => bail!("there is no validation split; name one of these: {}", list(all)),
    }
}

fn list(all: &BTreeSet<&Split>) -> String {
    all.iter().map(|split| split.to_string()).collect::<Vec<_>>().join(", ")
}

/// The files of a split, in the order of their names, if they are all of one set.
fn only_set(split: &Split, sets: &BTreeMap<String, Vec<usize>>, names: &[&str]) -> Result<Vec<usize>, Reason> {
    let (Some((_, files)), 1) = (sets.first_key_value(), sets.len()) else {
        let first: Vec<String> = sets.keys().take(4).map(|set| printable(set)).collect();
        let more = if sets.len() > 4 { format!(" and {} others", sets.len() - 4) } else { String::new() };
        let folders: BTreeSet<&str> = sets.values().map(|files| folder_of(names[files[0]])).collect();
        let advice = match folders.iter().find(|folder| !folder.is_empty()) {
            Some(folder) if folders.len() > 1 => {
                let split = split.0.as_deref().unwrap_or_default();
                format!("; name the folder too, as in `{}`", printable(&format!("{folder}/{split}")))
            }
            _ => String::new(),
        };
        bail!("{split} is in several sets, which are not mixed: {}{more}{advice}", first.join(", "));
    };
    let mut files = files.clone();
    files.sort_by_key(|index| names[*index]);
    Ok(files)
}

/// Nothing, if all of the numbered files are there.
fn complete(files: &[usize], names: &[&str]) -> Result<(), Reason> {
    let mut series: BTreeMap<(&str, usize), BTreeSet<usize>> = BTreeMap::new();
    for name in files.iter().map(|index| names[*index]) {
        if let Some((part, total, end)) = number(name) {
            ensure!(part < total, "{} is one of more than it says there are", printable(name));
            let new = series.entry((&name[..end], total)).or_default().insert(part);
            ensure!(new, "number {part} of {}-*-of-{total:05} is there twice", printable(&name[..end]));
        }
    }
    for ((before, total), parts) in series {
        let missing: Vec<usize> = (0..total).filter(|part| !parts.contains(part)).take(total.min(4)).collect();
        if let Some(first) = missing.first() {
            let (before, have) = (printable(before), thousands(parts.len() as u64));
            bail!(
                "{before}-{first:05}-of-{total:05} is missing: {have} of {} files are there",
                thousands(total as u64)
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: &[&str], wanted: Option<&str>) -> SplitFiles {
        files_of_split(names, wanted).unwrap()
    }

    fn error(names: &[&str], wanted: Option<&str>) -> String {
        files_of_split(names, wanted).unwrap_err().to_string()
    }

    /// The names `BEFORE-00000-of-TOTAL.parquet` and so on.
    fn parts(before: &str, total: usize) -> Vec<String> {
        (0..total).map(|part| format!("{before}-{part:05}-of-{total:05}.parquet")).collect()
    }

    /// The split that is taken where none is named, and the names of its files.
    fn taken(names: &[&str], wanted: Option<&str>) -> (Option<String>, Vec<String>) {
        let found = of(names, wanted);
        (found.split, found.files.iter().map(|index| names[*index].to_string()).collect())
    }

    #[test]
    fn layouts_of_the_hub_are_read() {
        // ILSVRC/imagenet-1k
        let imagenet: Vec<String> = [("data/train", 294), ("data/validation", 14), ("data/test", 28)]
            .iter()
            .flat_map(|(b, n)| parts(b, *n))
            .collect();
        let mut names: Vec<&str> = vec![".gitattributes", "README.md", "classes.py"];
        names.extend(imagenet.iter().rev().map(String::as_str));
        let (split, files) = taken(&names, None);
        assert_eq!((split.as_deref(), files), (Some("validation"), parts("data/validation", 14)));
        assert_eq!(taken(&names, Some("test")).1, parts("data/test", 28));
        assert_eq!(of(&names, Some("val")).split.as_deref(), Some("validation"));
        // The same, where the folder `data` itself is named.
        let names: Vec<&str> = imagenet.iter().map(|name| &name[5..]).collect();
        assert_eq!(taken(&names, None).1, parts("validation", 14));

        // ylecun/mnist has no validation split.
        let names = ["README.md", "mnist/test-00000-of-00001.parquet", "mnist/train-00000-of-00001.parquet"];
        let found = of(&names, None);
        assert_eq!((found.split.as_deref(), &*found.files, found.kind), (Some("test"), &[1][..], FilesKind::Parquet));
        assert!(found.note.unwrap().contains("there is no validation split; the split is test"));

        // timm/imagenet-1k-wds
        let names = ["imagenet1k-train-0000.tar", "imagenet1k-validation-01.tar", "imagenet1k-validation-00.tar"];
        let found = of(&names, None);
        assert_eq!(
            (found.split.as_deref(), &*found.files, found.kind),
            (Some("validation"), &[2, 1][..], FilesKind::Tar)
        );
        assert_eq!(found.note, None);

        // clip-benchmark/wds_imagenet-a
        let names =
            ["classnames.txt", "test/0.tar", "test/1.tar", "test/nshards.txt", "zeroshot_classification_templates.txt"];
        assert_eq!(of(&names, None).files, [1, 2]);
        assert_eq!(of(&names, Some("test")).note, None);

        // zh-plus/tiny-imagenet
        let names = [
            "data/train-00000-of-00001-1359597a978bc4fa.parquet",
            "data/valid-00000-of-00001-70d52db3c749a935.parquet",
        ];
        for wanted in [None, Some("valid"), Some("validation")] {
            assert_eq!(taken(&names, wanted), (Some("valid".into()), vec![names[1].into()]));
        }
    }

    #[test]
    fn folders_and_words_of_the_name_say_the_split() {
        for (names, expected) in [
            (&["train/0.parquet", "val/0.parquet", "val/part/1.parquet"][..], &[1, 2][..]),
            (&["set/imagenet-val-64/a.tar", "set/imagenet-train-64/a.tar"], &[0]),
            (&["Validation/0.tar", "interval/0.tar"], &[0]),
            (&["imagenet_val_0.TAR", "devil-0.tar", "imagenet_train_0.tar"], &[0]),
            // No name says a split.
            (&["0.tar", "1.tar", "notes.txt"], &[0, 1]),
            // Hidden files and the caches of programs are passed over.
            (&["dev-0.parquet", ".dev-1.parquet", "__cache__/dev-2.parquet"], &[0]),
            // Folders count before files, as in datasets.
            (&["val/train-0.parquet", "validation-0.parquet"], &[0]),
            // Parquet before tar.
            (&["validation-0.tar", "validation-0.parquet"], &[1]),
            (&["validation-0.tar", "train-0.parquet"], &[0]),
        ] {
            assert_eq!(of(names, None).files, expected, "{names:?}");
        }
        let names = ["data/unsupervised-00000-of-00001.parquet", "data/train-00000-of-00001.parquet"];
        assert_eq!(of(&names, Some("unsupervised")).files, [0]);
        assert_eq!(error(&names, None), "there is no validation split; name one of these: train, unsupervised");
        assert_eq!(error(&names, Some("dev")), "there is no split `dev`; there is train, unsupervised");
        assert_eq!(of(&["imagenet_a-00000-of-00001.parquet"], None).split.as_deref(), Some("imagenet_a"));
    }

    #[test]
    fn sets_are_not_mixed() {
        let names = ["fine/test-00000-of-00001.parquet", "plain_text/test-00000-of-00001.parquet"];
        let text = error(&names, None);
        assert!(text.contains("fine/test-*-of-00001, plain_text/test-*-of-00001; name the folder too"), "{text}");
        assert!(text.contains("`fine/test`"), "{text}");
        for wanted in ["plain_text/test", "plain_text/"] {
            assert_eq!(of(&names, Some(wanted)).files, [1]);
        }
        assert!(error(&names, Some("text/test")).contains("there is no folder `text`"));
        for names in [
            &["imagenet1k-val-0.tar", "imagenet22k-val-0.tar"][..],
            &["val-0.tar", "val_small-0.tar"],
            &["val/0.tar", "validation/0.tar"],
            &["data/val-00000-of-00001.parquet", "data/val-00000-of-00002.parquet"],
            &["a/0.tar", "b/0.tar"],
            &["a-test/0.tar", "r-test/0.tar"],
        ] {
            assert!(error(names, None).contains("in several sets"), "{names:?}");
        }
    }

    #[test]
    fn missing_files_are_told() {
        let all = parts("data/validation", 14);
        let some: Vec<&str> = all.iter().map(String::as_str).filter(|name| !name.contains("-00003-")).collect();
        assert_eq!(error(&some, None), "data/validation-00003-of-00014 is missing: 13 of 14 files are there");
        let twice = ["data/val-00000-of-00001-aa.parquet", "data/val-00000-of-00001-bb.parquet"];
        assert!(error(&twice, None).contains("number 0 of data/val-*-of-00001 is there twice"));
        assert_eq!(
            error(&["a.zip", "b.zip", "c.tar.gz", "README", ".gitattributes"], None),
            "there are no Parquet files and no .tar archives, only 2 .zip, 1 .tar.gz, 1 files without an ending"
        );
        assert!(error(&[], None).ends_with("no .tar archives"));
    }
}
