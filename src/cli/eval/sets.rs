//! What `--imagenet-val` names: sets of images, each with a name and files of its own.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use anyhow::{Result, bail, ensure};

use super::arguments::{Eval, ResultArgs};
use crate::cli::data_sets;
use crate::cli::print::say;
use crate::error::Error;
use crate::eval::corruptions::{Corrupted, find_corrupted};
use crate::eval::dataset::Listing;
use crate::eval::predictions::{partial, without_partial};
use crate::input::preprocess::Preprocess;

/// Images that are evaluated as one.
pub struct Set {
    /// What tells it from the other sets, also in the names of files.
    pub name: String,
    /// What was named, or a folder of it.
    pub path: PathBuf,
    /// How its images become the network's input.
    pub preprocess: Preprocess,
    /// Where it is a part of ImageNet-C: the name of all of that, and which part it is.
    pub corrupted: Option<(String, Corrupted)>,
    /// The files of its own that are asked for.
    pub files: Files,
}

/// The files that are written for a set.
#[derive(Clone, Default)]
pub struct Files {
    pub predictions: Option<PathBuf>,
    pub resume: Option<PathBuf>,
    pub per_class: Option<PathBuf>,
    pub report: Option<PathBuf>,
}

impl Files {
    /// As they are named.
    pub fn named(args: &ResultArgs) -> Self {
        let ResultArgs { predictions, resume, per_class, report, .. } = args;
        let [predictions, resume, per_class, report] = [predictions, resume, per_class, report].map(Clone::clone);
        Self { predictions, resume, per_class, report }
    }

    /// Those of one of several sets: `p.csv` becomes `p.NAME.csv`.
    fn of_set(args: &ResultArgs, name: &str) -> Self {
        let of_set = |file: &Option<PathBuf>| {
            let file = without_partial(file.as_ref()?);
            let extension = file.extension().unwrap_or_default().to_string_lossy().into_owned();
            Some(file.with_extension(format!("{name}.{extension}")))
        };
        Self {
            predictions: of_set(&args.predictions),
            resume: of_set(&args.resume),
            per_class: of_set(&args.per_class),
            report: of_set(&args.report),
        }
    }

    /// All of them.
    pub fn paths(&self) -> Vec<PathBuf> {
        [&self.predictions, &self.resume, &self.per_class, &self.report].into_iter().flatten().cloned().collect()
    }
}

/// The images of a set.
pub fn open(args: &Eval, path: &Path) -> Result<Listing> {
    data_sets::listing(path, &args.layout.layout())
}

/// Whether more than one table line comes of what was named: a second argument, or ImageNet-C.
pub fn are_several(sets: &[Set]) -> bool {
    sets.len() > 1 || sets.iter().any(|set| set.corrupted.is_some())
}

/// The sets that were named, in that order. A folder of ImageNet-C is one for each corruption and severity.
///
/// # Errors
/// If something that was named is not there or cannot be read, or the file of an interrupted run would be lost.
pub fn sets(args: &Eval) -> Result<Vec<Set>> {
    let paths = args.sets();
    for (place, path) in paths.iter().enumerate() {
        ensure!(!paths[..place].contains(path), "{} is named twice; name every set once", path.display());
        if data_sets::name_on_hub(path)?.is_none() && !is_pattern(path) {
            path.metadata().map_err(Error::io("read", path))?;
        }
    }
    let model = args.model.registered();
    let (whole, crops) = (args.preprocess.resolve(model)?, args.preprocess.resolve_for_crops(model)?);
    let mut sets = Vec::new();
    for (name, path) in names(paths).into_iter().zip(paths) {
        let corrupted = if path.is_dir() { find_corrupted(path)? } else { Vec::new() };
        if corrupted.is_empty() {
            sets.push(set(name, path, whole, None));
            continue;
        }
        if whole != crops {
            let words = "are crops already, which are not resized, as their authors do it";
            say("note", &format!("{name}: the images of ImageNet-C {words} ({crops}); --resize and --preprocess do"));
        }
        for part in corrupted {
            ensure_folder_of_folders(&part.folder)?;
            let folder = part.folder.clone();
            let corruption = if name.ends_with(part.corruption.name) { "" } else { part.corruption.name };
            let full = [&name, corruption, &part.severity.to_string()];
            let full = full.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-");
            sets.push(set(full, &folder, crops, Some((name.clone(), part))));
        }
    }
    let several = are_several(&sets);
    ensure_distinct_names(&mut sets);
    for set in &mut sets {
        set.files = if several { Files::of_set(&args.results, &set.name) } else { Files::named(&args.results) };
    }
    if several {
        ensure_nothing_is_lost(args, &sets)?;
    }
    Ok(sets)
}

/// Parts of ImageNet-C may have got the name of another set: what is named later gets a number.
fn ensure_distinct_names(sets: &mut [Set]) {
    let mut taken = BTreeSet::new();
    for set in sets {
        let own = set.name.clone();
        let mut number = 1;
        while !taken.insert(set.name.to_lowercase()) {
            number += 1;
            set.name = format!("{own}-{number}");
        }
    }
}

fn set(name: String, path: &Path, preprocess: Preprocess, corrupted: Option<(String, Corrupted)>) -> Set {
    Set { name, path: path.to_path_buf(), preprocess, corrupted, files: Files::default() }
}

/// Whether it may stand for files of other names, or for some that are not here yet.
fn is_pattern(path: &Path) -> bool {
    path.to_str().is_some_and(|text| text.contains(['{', '*', '?']))
}

/// There may be ninety-five of these, with fifty thousand images each: all are searched only when their turn comes.
fn ensure_folder_of_folders(folder: &Path) -> Result<()> {
    let mut entries = folder.read_dir().map_err(Error::io("read", folder))?;
    let any = entries.any(|entry| entry.is_ok_and(|entry| entry.path().is_dir()));
    ensure!(any, "{}: no class folders here", folder.display());
    Ok(())
}

/// Of several sets, the file of a later one may be that of an interrupted run: that is found out before the first
/// set is evaluated.
fn ensure_nothing_is_lost(args: &Eval, sets: &[Set]) -> Result<()> {
    let Some(all) = &args.results.predictions else { return Ok(()) };
    let begun = |set: &&Set| {
        let begun = set.files.predictions.as_deref().map(partial).and_then(|file| file.metadata().ok());
        begun.is_some_and(|file| file.len() > 0)
    };
    if let Some(file) = sets.iter().find(begun).and_then(|set| set.files.predictions.as_deref()) {
        let (file, all) = (partial(file), without_partial(all));
        bail!(
            "{} holds predictions of a run that was interrupted; go on with all sets by --resume {}, or delete it",
            file.display(),
            all.display()
        );
    }
    Ok(())
}

/// Names by which to tell what was named apart: the last part of each path, or as many parts as it takes.
fn names(paths: &[PathBuf]) -> Vec<String> {
    let parts: Vec<Vec<String>> = paths.iter().map(|path| parts(path)).collect();
    let longest = parts.iter().map(Vec::len).max().unwrap_or_default();
    let name = |place: usize| {
        let of = |other: usize, length: usize| {
            let parts: &[String] = &parts[other];
            parts[parts.len().saturating_sub(length)..].join("-").to_lowercase()
        };
        let unique =
            |length: &usize| (0..paths.len()).all(|other| other == place || of(other, *length) != of(place, *length));
        match (1..=longest).find(unique) {
            Some(length) => parts[place][parts[place].len().saturating_sub(length)..].join("-"),
            None => format!("{}-{}", parts[place].join("-"), place + 1),
        }
    };
    (0..paths.len()).map(name).collect()
}

/// The parts of a path as they may stand in the name of a file.
fn parts(path: &Path) -> Vec<String> {
    // Where the path ends in `.` or `..`, it says no name.
    let path = if path.file_name().is_none() { path.canonicalize().unwrap_or_default() } else { path.to_path_buf() };
    let plain = |part: Component| match part {
        Component::Normal(part) => Some(part.to_string_lossy().into_owned()),
        _ => None,
    };
    let mut parts: Vec<String> = path.components().filter_map(plain).collect();
    if let Some(last) = parts.last_mut() {
        let stem = [".tar", ".parquet"].iter().find_map(|ending| last.strip_suffix(ending));
        *last = stem.unwrap_or(last).to_string();
    }
    let usable = |c: char| c.is_alphanumeric() || "._-".contains(c);
    let parts = parts.iter().map(|part| {
        let text: String = part.chars().map(|c| if usable(c) { c } else { '-' }).collect();
        text.trim_matches(['-', '.']).to_string()
    });
    let parts: Vec<String> = parts.filter(|part| !part.is_empty()).collect();
    if parts.is_empty() { vec!["images".into()] } else { parts }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_tell_sets_apart() {
        let named = |paths: &[&str]| names(&paths.iter().map(PathBuf::from).collect::<Vec<_>>());
        assert_eq!(named(&["/data/imagenet/val"]), ["val"]);
        assert_eq!(
            named(&["/data/imagenet/val/", "v2/val", "imagenet-a.tar"]),
            ["imagenet-val", "v2-val", "imagenet-a"]
        );
        assert_eq!(named(&["a/x/val", "b/x/val", "val"]), ["a-x-val", "b-x-val", "val"]);
        assert_eq!(named(&["a/VAL", "b/val"]), ["a-VAL", "b-val"]);
        assert_eq!(named(&["hf:ILSVRC/imagenet-1k", "v 2"]), ["imagenet-1k", "v-2"]);
        assert_eq!(named(&["x/imagenet1k-validation-{0000..0063}.tar"]), ["imagenet1k-validation--0000..0063"]);
        assert_eq!(named(&["a/b", "a-b"]), ["b", "a-b"]);
        assert_eq!(named(&["../val", "val"]), ["val-1", "val-2"]);
        assert_eq!(named(&["/"]), ["images"]);
    }

    #[test]
    fn every_set_has_files_of_its_own() {
        let file = |name: &str| Some(PathBuf::from(name));
        let mut args = clap_results();
        args.predictions = file("out/p.v1.csv");
        args.report = file("r.html");
        let files = Files::of_set(&args, "imagenet-a");
        assert_eq!(files.paths(), [PathBuf::from("out/p.v1.imagenet-a.csv"), PathBuf::from("r.imagenet-a.html")]);
        args.predictions = None;
        args.resume = file("p.jsonl.partial");
        assert_eq!(Files::of_set(&args, "v").resume, file("p.v.jsonl"));
    }

    fn clap_results() -> ResultArgs {
        ResultArgs {
            json: false,
            predictions: None,
            resume: None,
            per_class: None,
            report: None,
            skip_errors: false,
            merge: Vec::new(),
            compare: Vec::new(),
        }
    }
}
