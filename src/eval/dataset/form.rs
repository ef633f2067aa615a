//! What a path means: a folder of images, archives, or tables.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::{self, File};
use std::io::{Error as IoError, ErrorKind, Read};
use std::path::{Path, PathBuf};

use serde::de::{MapAccess, SeqAccess};

use super::Layout;
use super::beside::{is_special, read_beside};
use super::braces::expand;
use super::json::{Kept, Part, parts, put};
use super::parquet::may_hold_images;
use crate::error::{Context, DatasetProblem, Error, Reason, Result, bail, ensure};
use crate::hub::{FilesKind, files_of_split};
use crate::input::files::{Links, images_below};

/// The files that hold images.
#[derive(Debug, PartialEq, Eq)]
pub enum Form {
    /// Images in a folder and below.
    Folder,
    /// Tar archives.
    Archives(Vec<PathBuf>),
    /// Parquet files.
    Tables(Vec<PathBuf>),
}

/// How deep below a folder its tables and shards are looked for: `data/validation/0.tar`.
const DEPTH: usize = 2;
/// A folder with more folders in it has classes, and none of their folders is looked into for tables and shards.
const FOLDERS: usize = 64;

impl Form {
    /// What a path means. Returns also what a person should know of a choice that was made.
    pub fn of(path: &Path, layout: &Layout) -> Result<(Self, Option<String>)> {
        let metadata = match path.metadata() {
            Ok(metadata) => metadata,
            Err(error) => match path.to_str().unwrap_or_default() {
                pattern if pattern.contains('{') => {
                    let files = files_of_pattern(pattern).map_err(DatasetProblem::Split.because())?;
                    return Ok((Self::of_files(files)?, None));
                }
                pattern if pattern.contains(['*', '?']) => {
                    let words = "is not there; of several files name the folder, or use braces, as in 'x-{00..63}.tar'";
                    return Err(DatasetProblem::Split.error(format!("{pattern} {words}")));
                }
                _ => return Err(Error::io("read", path)(error)),
            },
        };
        if !metadata.is_dir() {
            return Ok((Self::of_files(vec![path.to_path_buf()])?, None));
        }
        let files = tables_and_shards(path);
        let is_table = |name: &String| name.to_lowercase().ends_with(".parquet");
        // Tables about images lie beside tables of them, beside their shards or beside folders of them. Where there is
        // nothing else, what they lack is to be said.
        // What is no file is not looked into, and refused where it is one of those that are chosen.
        let may_hold = |file: &Path| is_special(file) || may_hold_images(file, layout);
        let (mut files, about): (Vec<String>, Vec<String>) =
            files.into_iter().partition(|name| !is_table(name) || may_hold(&path.join(name)));
        if files.is_empty() && !has_images(path) {
            files = about;
        }
        // Pictures beside archives: the archives may be anything. Beside tables: the pictures are a README's.
        if files.is_empty() || (!files.iter().any(is_table) && has_images(path)) {
            return Ok((Self::Folder, None));
        }
        let names: Vec<&str> = files.iter().map(String::as_str).collect();
        let chosen = files_of_split(&names, layout.split.as_deref())
            .context(path.display())
            .map_err(DatasetProblem::Split.because())?;
        let paths: Vec<PathBuf> = chosen.files.iter().map(|index| path.join(&files[*index])).collect();
        paths.iter().try_for_each(|path| ensure_regular(path))?;
        if chosen.kind == FilesKind::Tar {
            ensure_all_shards(&paths).context(path.display()).map_err(DatasetProblem::Split.because())?;
        }
        let form = match chosen.kind {
            FilesKind::Parquet => Self::Tables(paths),
            FilesKind::Tar => Self::Archives(paths),
        };
        Ok((form, chosen.note))
    }

    /// What files are that are named one by one.
    pub fn of_files(files: Vec<PathBuf>) -> Result<Self> {
        let tables = files.iter().map(|path| is_table(path).map_err(Error::io("read", path)));
        let tables = tables.collect::<Result<Vec<_>>>()?;
        if let Some(other) = tables.iter().position(|table| *table != tables[0]) {
            let (one, other) = (files[0].display(), files[other].display());
            return Err(DatasetProblem::Archive.error(format!("{one} and {other} are files of two kinds")));
        }
        Ok(if tables.first() == Some(&true) { Self::Tables(files) } else { Self::Archives(files) })
    }
}

/// Refuses a pipe or a device that has the name of a shard or table: to read it may take for ever.
fn ensure_regular(path: &Path) -> Result<()> {
    let words = "it is not a regular file";
    if is_special(path) { Err(Error::io("read", path)(IoError::new(ErrorKind::InvalidInput, words))) } else { Ok(()) }
}

/// The files that a name with braces stands for, all of which are there.
fn files_of_pattern(pattern: &str) -> Result<Vec<PathBuf>, Reason> {
    let files: Vec<PathBuf> = expand(pattern)?.into_iter().map(PathBuf::from).collect();
    let distinct: BTreeSet<&PathBuf> = files.iter().collect();
    ensure!(distinct.len() == files.len(), "{pattern} stands for a file twice");
    if let Some(folder) = files.iter().find(|file| file.is_dir()) {
        bail!("{pattern} stands for the folder {}, and several folders are several sets", folder.display());
    }
    let missing = files.iter().filter(|file| !file.exists()).collect::<Vec<_>>();
    if let Some(first) = missing.first() {
        let (some, all, beside) = (missing.len(), files.len(), neighbour(first));
        bail!("{pattern}: {some} of {all} files are not there, the first is {}{beside}", first.display());
    }
    Ok(files)
}

/// In bytes, of a file that holds nothing but a number.
const LONGEST_COUNT: u64 = 64;
/// In bytes, of a list of shards: a million names take less.
const LARGEST_INFO: u64 = 64 << 20;

/// What is read of timm's `_info.json`: the names of the shards of each split.
#[derive(Default)]
struct Info(BTreeMap<String, Split>);

impl Part for Info {
    fn field<'de, A: MapAccess<'de>>(&mut self, key: String, map: &mut A) -> Result<(), A::Error> {
        put(&mut self.0, key == "splits", map)
    }
}

#[derive(Default)]
struct Split(Filenames);

impl Part for Split {
    fn field<'de, A: MapAccess<'de>>(&mut self, key: String, map: &mut A) -> Result<(), A::Error> {
        put(&mut self.0, key == "filenames", map)
    }
}

/// What of a list is text.
#[derive(Default)]
struct Filenames(Vec<String>);

impl Part for Filenames {
    fn list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Self, A::Error> {
        let mut names = Vec::new();
        while let Some(Kept(name)) = list.next_element::<Kept<Option<String>>>()? {
            names.extend(name);
        }
        Ok(Self(names))
    }
}

/// Refuses shards of which some are missing, where a file beside them says how many there are: clip-benchmark's
/// `nshards.txt`, or the list of timm's `_info.json`.
fn ensure_all_shards(shards: &[PathBuf]) -> Result<(), Reason> {
    let Some(folder) = shards.first().and_then(|shard| shard.parent()) else { return Ok(()) };
    // What cannot be read, or is not understood, says nothing.
    let bytes = |name: &str, largest| read_beside(&folder.join(name), largest).ok().flatten().unwrap_or_default();
    if let Ok(count) = String::from_utf8_lossy(&bytes("nshards.txt", LONGEST_COUNT)).trim().parse::<usize>() {
        let here = shards.iter().filter(|shard| shard.parent() == Some(folder)).count();
        ensure!(count == here, "nshards.txt says that there are {count} shards, and there are {here}");
    }
    let Info(splits) = parts(&bytes("_info.json", LARGEST_INFO));
    // There may be thousands of shards, and as many names.
    let shards: HashSet<&Path> = shards.iter().map(PathBuf::as_path).collect();
    for Split(Filenames(names)) in splits.values() {
        let missing: Vec<&String> = names.iter().filter(|name| !shards.contains(&*folder.join(name))).collect();
        // Another split's are all elsewhere.
        let some = !missing.is_empty() && missing.len() < names.len();
        let first = missing.first().map_or("", |name| name);
        let (missing, all) = (missing.len(), names.len());
        ensure!(!some, "_info.json lists {first}, which is not there: {missing} of {all} shards are missing");
    }
    Ok(())
}

/// A file beside a missing one that is of the same kind: its number may have other digits.
fn neighbour(missing: &Path) -> String {
    let folder = missing.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    let name = missing.file_name().unwrap_or_default().to_string_lossy();
    let alike = |file: &String| Path::new(file).extension() == missing.extension();
    let common = |file: &String| file.chars().zip(name.chars()).take_while(|(one, other)| one == other).count();
    let nearest = children(folder).0.into_iter().filter(alike).max_by_key(common);
    nearest.map_or(String::new(), |name| format!("; there is {name}"))
}

/// Whether a file is a table: by its name, or by what it begins with.
fn is_table(path: &Path) -> std::io::Result<bool> {
    if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("parquet")) {
        return Ok(true);
    }
    let mut start = Vec::new();
    File::open(path)?.take(4).read_to_end(&mut start)?;
    Ok(start == b"PAR1")
}

/// Parquet files and tar archives below a folder, as paths from there with `/` between their parts. What cannot be
/// read is left for the search for images to find.
fn tables_and_shards(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut level = vec![(root.to_path_buf(), String::new())];
    for _ in 0..=DEPTH {
        let mut next = Vec::new();
        for (folder, prefix) in level {
            let (files, folders) = children(&folder);
            // What `datasets` writes beside a folder of images.
            let table = |name: &str| name.ends_with(".parquet") && name != "metadata.parquet";
            let files = files.into_iter().filter(|name| {
                let name = name.to_lowercase();
                table(&name) || name.ends_with(".tar")
            });
            found.extend(files.map(|name| format!("{prefix}{name}")));
            if folders.len() <= FOLDERS {
                next.extend(folders.into_iter().map(|name| (folder.join(&name), format!("{prefix}{name}/"))));
            }
        }
        level = next;
    }
    found.sort();
    found
}

/// The names in a folder that are not hidden: those of files, and those of folders.
fn children(folder: &Path) -> (Vec<String>, Vec<String>) {
    let (mut files, mut folders) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Some(name) = entry.file_name().to_str().filter(|name| !name.starts_with('.')).map(str::to_string) else {
            continue;
        };
        let is_folder = entry.path().is_dir();
        if is_folder { folders.push(name) } else { files.push(name) }
    }
    (files, folders)
}

/// Whether there are images in a folder, or in one of its folders or theirs.
fn has_images(root: &Path) -> bool {
    let images = images_below(root, Links::Followed).take(1);
    let depth = |image: Result<PathBuf>| image.ok().and_then(|path| Some(path.strip_prefix(root).ok()?.iter().count()));
    images.filter_map(depth).any(|depth| depth <= DEPTH + 1)
}

/// What a path holds that could have been images, for a message.
pub fn what_else(path: &Path) -> String {
    let (files, _) = if path.is_dir() { children(path) } else { Default::default() };
    let found = |endings: &[&str]| files.iter().find(|name| endings.iter().any(|ending| name.ends_with(ending)));
    if let Some(name) = found(&[".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar.zst", ".zip"]) {
        return format!("; unpack archives that are compressed, such as {name}");
    }
    let arrow =
        found(&[".arrow"]).map(|name| format!("; {name} is Arrow's: write Parquet, with to_parquet of `datasets`"));
    arrow.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shards `0.tar`, `1.tar` and so on, and what is said of them where a file beside them has this content.
    fn beside(name: &str, content: &str, shards: usize) -> Result<(), String> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(name), content).unwrap();
        let shards: Vec<PathBuf> = (0..shards).map(|shard| dir.path().join(format!("{shard}.tar"))).collect();
        ensure_all_shards(&shards).map_err(|reason| reason.to_string())
    }

    #[test]
    fn missing_shards_are_told() {
        assert_eq!(beside("nshards.txt", " 3\n", 3), Ok(()));
        let error = beside("nshards.txt", "3", 2).unwrap_err();
        assert_eq!(error, "nshards.txt says that there are 3 shards, and there are 2");
        let here = r#""filenames": ["0.tar", "1.tar"]"#;
        for (train, expected) in [
            (r#""num_samples": [1, {}]"#, Ok(())),
            (r#""filenames": 1}, "test": null, "other": {"filenames": [{}, "7.tar"]"#, Ok(())),
            // Another split's are all elsewhere.
            (r#""filenames": ["7.tar", "8.tar"]"#, Ok(())),
            (
                r#""filenames": ["0.tar", "8.tar", "9.tar"]"#,
                Err("_info.json lists 8.tar, which is not there: 2 of 3 shards are missing".into()),
            ),
        ] {
            let info = format!(r#"{{"version": 1, "splits": {{"train": {{{train}}}, "validation": {{{here}}}}}}}"#);
            assert_eq!(beside("_info.json", &info, 2), expected, "{info}");
        }
        // What is not understood says nothing.
        for (name, content) in [("nshards.txt", "three"), ("_info.json", "{"), ("_info.json", r#"{"splits": 1}"#)] {
            assert_eq!(beside(name, content, 2), Ok(()), "{content}");
        }
        let digits = "1".repeat(LONGEST_COUNT as usize + 1);
        assert_eq!(beside("nshards.txt", &digits, 2), Ok(()));
    }
}
