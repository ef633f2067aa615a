//! What a path means: a folder of images, archives, or tables.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::Layout;
use super::braces::expand;
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
        let (mut files, about): (Vec<String>, Vec<String>) =
            files.into_iter().partition(|name| !is_table(name) || may_hold_images(&path.join(name), layout));
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

/// Refuses shards of which some are missing, where a file beside them says how many there are: clip-benchmark's
/// `nshards.txt`, or the list of timm's `_info.json`.
fn ensure_all_shards(shards: &[PathBuf]) -> Result<(), Reason> {
    let Some(folder) = shards.first().and_then(|shard| shard.parent()) else { return Ok(()) };
    let text = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
    if let Ok(count) = text("nshards.txt").trim().parse::<usize>() {
        let here = shards.iter().filter(|shard| shard.parent() == Some(folder)).count();
        ensure!(count == here, "nshards.txt says that there are {count} shards, and there are {here}");
    }
    let info: serde_json::Value = serde_json::from_str(&text("_info.json")).unwrap_or_default();
    let splits = info["splits"].as_object().into_iter().flatten();
    for names in splits.filter_map(|(_, split)| split["filenames"].as_array()) {
        let here = |name: &str| shards.contains(&folder.join(name));
        let names: Vec<&str> = names.iter().filter_map(|name| name.as_str()).collect();
        let missing: Vec<&str> = names.iter().copied().filter(|name| !here(name)).collect();
        // Another split's are all elsewhere.
        let some = !missing.is_empty() && missing.len() < names.len();
        let first = missing.first().unwrap_or(&"");
        ensure!(
            !some,
            "_info.json lists {first}, which is not there: {} of {} shards are missing",
            missing.len(),
            names.len()
        );
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
