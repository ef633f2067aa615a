//! From the name of a data set on the hub to the files of one of its splits on this machine.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::cache::{CachePaths, is_remembered, mismatch};
use super::file::{HubFile, Repository};
use super::listing::{Listing, is_below};
use super::snapshot::Snapshots;
use super::{Event, FilesKind, Hub, SplitFiles, files_of_split};
use crate::error::{DatasetProblem, Error, Reason, Result, ensure};
use crate::text::{bytes, printable};

/// A data set on the hub: `hf:OWNER/NAME[@REVISION][:SPLIT]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatasetName {
    /// `owner/name`, or `name` for a few old ones.
    pub name: String,
    /// A branch, a tag or the full hash of a commit; `main` unless it is named.
    pub revision: String,
    /// The name of a split, or `FOLDER/SPLIT` for one of the files below a folder alone.
    pub split: Option<String>,
}

/// The files of one split of a data set, which are in the cache and have the content that the hub says.
#[derive(Clone, Debug)]
pub struct DatasetFiles {
    /// The folder of the commit in the cache.
    pub dir: PathBuf,
    /// Below this folder, in the order of their names.
    pub files: Vec<PathBuf>,
    /// The full hash of the commit.
    pub commit: String,
    /// The name of the split, if names of files say one.
    pub split: Option<String>,
    /// What the files are.
    pub kind: FilesKind,
    /// What a person should know of the choice of the split.
    pub note: Option<String>,
}

/// What a caller may want to show while the files of a data set are made ready.
#[derive(Clone, Copy, Debug)]
pub enum DatasetEvent<'a> {
    /// So many bytes that are in the cache are read and checked, because their hashes are not remembered.
    Checking(u64),
    /// So much of all files is here.
    Progress {
        /// The number of the file that is downloaded, from 1.
        file: usize,
        /// The number of all files.
        files: usize,
        /// Of all files.
        bytes: u64,
        /// When all are here.
        size: u64,
    },
    /// Something went wrong, and the download goes on.
    Notice(&'a str),
}

/// What names of data sets on the hub begin with.
pub const PREFIX: &str = "hf:";

impl FromStr for DatasetName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parse = || {
            let rest = text.strip_prefix(PREFIX)?;
            // A revision of Git has no colon.
            let (rest, split) = rest.split_once(':').map_or((rest, None), |(rest, split)| (rest, Some(split)));
            let (name, revision) = rest.split_once('@').unwrap_or((rest, "main"));
            let is_name = name.split('/').count() <= 2 && name.split('/').all(is_part_of_name);
            let good = is_name && is_below(revision) && !revision.contains(char::is_control) && split != Some("");
            good.then(|| Self { name: name.into(), revision: revision.into(), split: split.map(String::from) })
        };
        parse().ok_or_else(|| {
            let words = format!(
                "`{}` does not name a data set on the hub, as hf:OWNER/NAME, hf:OWNER/NAME@REVISION or \
                 hf:OWNER/NAME:SPLIT do",
                printable(text)
            );
            Error::Dataset { problem: DatasetProblem::Name, reason: Reason::new(words) }
        })
    }
}

/// As `huggingface_hub` checks the two parts of a repository's name.
fn is_part_of_name(part: &str) -> bool {
    let ends = |c: char| part.starts_with(c) || part.ends_with(c);
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !part.is_empty()
        && part.len() <= 96
        && part.chars().all(known)
        && !(ends('-') || ends('.') || part.contains("--") || part.contains(".."))
}

impl fmt::Display for DatasetName {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.name)?;
        if self.revision != "main" { write!(f, "@{}", self.revision) } else { Ok(()) }
    }
}

impl DatasetName {
    /// Its repository.
    pub fn repository(&self) -> Repository<'_> {
        Repository::Dataset(&self.name)
    }

    fn error(&self, problem: DatasetProblem, reason: impl fmt::Display) -> Error {
        Error::Dataset { problem, reason: Reason::new(format!("{self}: {reason}")) }
    }
}

impl Hub {
    /// The files of a split of a data set: that of the name, else the one that is `wanted`, else as
    /// [`files_of_split`] says. Downloads those that are not in the cache, one after the other, each as
    /// [`Hub::fetch`] does.
    ///
    /// The hub is asked each time which files there are, unless the revision is a commit whose list is in the cache,
    /// or [`offline`](Self::offline) is set: then the files are those that the revision had when the hub was asked
    /// last.
    ///
    /// # Errors
    /// [`Error::Dataset`] if the hub cannot be reached, refuses, keeps breaking off or delivers something else, if
    /// there is no such split or several could be meant, if the disk is too small, or if files are not in the cache
    /// and [`offline`](Self::offline) is set; [`Error::Io`] if a file of the cache cannot be read or written.
    pub fn dataset(
        &self,
        name: &DatasetName,
        wanted: Option<&str>,
        report: &mut dyn FnMut(DatasetEvent),
    ) -> Result<DatasetFiles> {
        let snapshots = Snapshots::new(&self.cache_dir, name.repository());
        let commit = snapshots.commit(&name.revision);
        let kept = commit.as_ref().filter(|commit| self.offline || **commit == name.revision);
        let listing = match kept.and_then(|commit| snapshots.listing(commit)) {
            Some(listing) => listing,
            None if self.offline => return self.by_names(name, wanted, &snapshots, commit),
            None => self.listed(name, &snapshots, report)?,
        };
        let names: Vec<&str> = listing.files.iter().map(|file| file.name.as_str()).collect();
        let split = name.choose(&names, wanted)?;
        let files = split.files.iter().copied().chain(class_names(&names, &split));
        let files = files.map(|index| listing.file(name.repository(), index));
        let files: Vec<HubFile> =
            files.collect::<Result<_, _>>().map_err(|reason| name.error(DatasetProblem::Download, reason))?;
        let mut paths = self.ready(name, &files, report)?;
        paths.truncate(split.files.len());
        Ok(DatasetFiles::new(snapshots.of(&listing.commit), paths, listing.commit, split))
    }

    /// Asks the hub for the list of files, and keeps it.
    fn listed(
        &self,
        name: &DatasetName,
        snapshots: &Snapshots,
        report: &mut dyn FnMut(DatasetEvent),
    ) -> Result<Listing> {
        let listing = self.list(name, &mut |event| {
            if let Event::Notice(text) = event {
                report(DatasetEvent::Notice(text));
            }
        });
        let listing = listing.map_err(|reason| {
            let is_here = snapshots.commit(&name.revision).is_some();
            let advice = if is_here { "; HF_HUB_OFFLINE=1 takes what is in the cache" } else { "" };
            name.error(DatasetProblem::Download, format!("cannot list its files: {reason}{advice}"))
        })?;
        if let Err(error) = snapshots.keep(&name.revision, &listing) {
            report(DatasetEvent::Notice(&format!("without the hub these files will not be found: {error}")));
        }
        Ok(listing)
    }

    /// The paths of the files, which are downloaded if need be.
    fn ready(
        &self,
        name: &DatasetName,
        files: &[HubFile],
        report: &mut dyn FnMut(DatasetEvent),
    ) -> Result<Vec<PathBuf>> {
        let paths: Vec<CachePaths> = files.iter().map(|file| CachePaths::new(&self.cache_dir, file)).collect();
        let unknown = files.iter().zip(&paths).filter(|(file, paths)| {
            paths.has_pointer(file) && !is_remembered(&paths.pointer, file, self.hashes.as_deref())
        });
        match total(unknown.map(|(file, _)| file.size)) {
            0 => {}
            bytes => report(DatasetEvent::Checking(bytes)),
        }
        if self.offline {
            return self.complete(name, files, paths);
        }
        let mut here: Vec<u64> = files.iter().zip(&paths).map(|(file, paths)| paths.here(file)).collect();
        self.enough_space(name, files, &here)?;
        let size = total(files.iter().map(|file| file.size));
        let mut fetched = Vec::new();
        for (index, file) in files.iter().enumerate() {
            let path = self.fetch(file, &mut |event| match event {
                Event::Progress(received) => {
                    here[index] = received;
                    let bytes = total(here.iter().copied());
                    report(DatasetEvent::Progress { file: index + 1, files: files.len(), bytes, size });
                }
                Event::Notice(text) => report(DatasetEvent::Notice(text)),
                Event::Stored(_) => {}
            });
            let path = path.map_err(|error| match error {
                Error::Dataset { problem, reason } => name.error(problem, reason),
                error => error,
            })?;
            here[index] = file.size;
            fetched.push(path);
        }
        Ok(fetched)
    }

    /// The paths of the files, if all are in the cache.
    fn complete(&self, name: &DatasetName, files: &[HubFile], paths: Vec<CachePaths>) -> Result<Vec<PathBuf>> {
        let mut missing = Vec::new();
        for (file, paths) in files.iter().zip(&paths) {
            if !paths.pointer.exists() || mismatch(&paths.pointer, file, self.hashes.as_deref())?.is_some() {
                missing.push(file.file);
            }
        }
        let Some(first) = missing.first() else { return Ok(paths.into_iter().map(|paths| paths.pointer).collect()) };
        let dir = self.cache_dir.display();
        let (missing, all) = (missing.len(), files.len());
        let words = format!(
            "{missing} of {all} files, {} first, are not in the cache ({dir}), or damaged, and HF_HUB_OFFLINE is set",
            printable(first)
        );
        Err(name.error(DatasetProblem::Download, words))
    }

    /// Without the hub and its list: the files of the split by the names of those that are in the cache.
    fn by_names(
        &self,
        name: &DatasetName,
        wanted: Option<&str>,
        snapshots: &Snapshots,
        commit: Option<String>,
    ) -> Result<DatasetFiles> {
        let here = commit.map(|commit| (snapshots.names(&commit), commit)).filter(|(names, _)| !names.is_empty());
        let Some((names, commit)) = here else {
            let dir = self.cache_dir.display();
            let words = format!("it is not in the cache ({dir}), and HF_HUB_OFFLINE is set");
            return Err(name.error(DatasetProblem::Download, words));
        };
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let split = name.choose(&names, wanted)?;
        // The split of validation may be there, and not in the cache.
        if let Some(note) = split.note {
            let words = format!("among the files in the cache {note}: name it, as in {name}:SPLIT, to take it");
            return Err(name.error(DatasetProblem::Split, words));
        }
        let dir = snapshots.of(&commit);
        let files = split.files.iter().map(|index| dir.join(names[*index])).collect();
        Ok(DatasetFiles::new(dir, files, commit, split))
    }

    /// Nothing, if the disk has space for what is still missing of the files.
    fn enough_space(&self, name: &DatasetName, files: &[HubFile], here: &[u64]) -> Result<()> {
        // Files of the same content are downloaded once.
        let mut seen = BTreeSet::new();
        let missing = files.iter().zip(here).filter(|(file, _)| seen.insert(file.hash.digits()));
        let needed = total(missing.map(|(file, here)| file.size - here));
        let existing = self.cache_dir.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("."));
        // Where the system does not say, the download finds out.
        let Ok(free) = fs4::available_space(existing) else { return Ok(()) };
        enough(needed, free, &self.cache_dir).map_err(|reason| name.error(DatasetProblem::Space, reason))
    }
}

/// The list of the classes' names that clip-benchmark puts beside shards or beside their folder, which their labels
/// count.
fn class_names(names: &[&str], split: &SplitFiles) -> Option<usize> {
    let first = names[*split.files.first().filter(|_| split.kind == FilesKind::Tar)?];
    let folders = first.match_indices('/').map(|(slash, _)| &first[..=slash]).rev().chain([""]);
    let listed = |folder: &str| names.iter().position(|name| name.strip_prefix(folder) == Some("classnames.txt"));
    folders.take(2).find_map(listed)
}

/// The sum, however large a hub says that its files are.
fn total(sizes: impl Iterator<Item = u64>) -> u64 {
    sizes.fold(0, u64::saturating_add)
}

/// In bytes: what folders, links and the ends of blocks may need besides.
const MARGIN: u64 = 1 << 20;

/// Nothing, if so many bytes fit where so many are free.
fn enough(needed: u64, free: u64, dir: &Path) -> Result<(), Reason> {
    ensure!(
        needed == 0 || needed.saturating_add(MARGIN) <= free,
        "{} are to be downloaded to {}, where {} are free: make space, or name another place with HF_HUB_CACHE",
        bytes(needed),
        dir.display(),
        bytes(free)
    );
    Ok(())
}

impl DatasetName {
    fn choose(&self, names: &[&str], wanted: Option<&str>) -> Result<SplitFiles> {
        files_of_split(names, self.split.as_deref().or(wanted)).map_err(|r| self.error(DatasetProblem::Split, r))
    }
}

impl DatasetFiles {
    fn new(dir: PathBuf, files: Vec<PathBuf>, commit: String, split: SplitFiles) -> Self {
        Self { dir, files, commit, split: split.split, kind: split.kind, note: split.note }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_classes_come_with_their_shards() {
        let found = |names: &[&str]| class_names(names, &files_of_split(names, None).unwrap());
        assert_eq!(found(&["classnames.txt", "test/0.tar", "test/1.tar"]), Some(0));
        assert_eq!(found(&["test/0.tar", "test/classnames.txt"]), Some(1));
        assert_eq!(found(&["0.tar", "classnames.txt"]), Some(1));
        assert_eq!(found(&["classnames.txt", "a/test/0.tar"]), None);
        assert_eq!(found(&["classnames.txt", "data/test-00000-of-00001.parquet"]), None);
    }

    #[test]
    fn names_have_their_parts() {
        for (text, name, revision, split) in [
            ("hf:ILSVRC/imagenet-1k", "ILSVRC/imagenet-1k", "main", None),
            ("hf:mnist", "mnist", "main", None),
            ("hf:a/b@v1.0", "a/b", "v1.0", None),
            ("hf:a/b:test", "a/b", "main", Some("test")),
            ("hf:a/b@refs/convert/parquet:plain_text/test", "a/b", "refs/convert/parquet", Some("plain_text/test")),
        ] {
            let split = split.map(String::from);
            let expected = DatasetName { name: name.into(), revision: revision.into(), split };
            assert_eq!(text.parse::<DatasetName>().unwrap(), expected);
        }
        for text in [
            "ILSVRC/imagenet-1k",
            "hf:",
            "hf:a/b/c",
            "hf:a/",
            "hf:../b",
            "hf:a/b--c",
            "hf:a/b@",
            "hf:a/b@../../x",
            "hf:a/b@/etc",
            "hf:a/b:",
            "hf:a b/c",
        ] {
            let error = text.parse::<DatasetName>().unwrap_err();
            assert!(matches!(&error, Error::Dataset { problem: DatasetProblem::Name, .. }), "{text}: {error}");
        }
        assert_eq!("hf:a/b@c:d".parse::<DatasetName>().unwrap().to_string(), "hf:a/b@c");
    }

    #[test]
    fn a_disk_that_is_too_small_is_told_beforehand() {
        assert!(enough(0, 0, Path::new("/cache")).is_ok());
        assert!(enough(5, 5 + MARGIN, Path::new("/cache")).is_ok());
        assert!(enough(5, 4 + MARGIN, Path::new("/cache")).is_err());
        let error = enough(6_673_500_000, 1_204_000_000, Path::new("/cache")).unwrap_err().to_string();
        let expected = "6.67 GB are to be downloaded to /cache, where 1.20 GB are free: make space, or name another place \
                        with HF_HUB_CACHE";
        assert_eq!(error, expected);
    }
}
