//! What the cache knows of a revision of a data set, in the files of Python's `huggingface_hub` 2.4.
//!
//! ```text
//! datasets--owner--name/refs/<revision>           the commit that a branch or tag was when the hub was asked last
//! datasets--owner--name/trees/<commit>.json       the files that the commit has, with sizes and hashes
//! datasets--owner--name/snapshots/<commit>/...    those that are here
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use walkdir::WalkDir;

use super::file::Repository;
use super::listing::{LONGEST, LargeFile, ListedFile, Listing, is_below};
use crate::bounded::{read_file, read_text};
use crate::digest::is_hexadecimal;
use crate::error::Result;
use crate::output::Output;

/// From so many files on, the hub's list may not have all, as `huggingface_hub` says of it. Such a list is not kept
/// for others.
const TOO_MANY: usize = 50_000;

/// The most bytes of a file below `refs`, which holds a commit.
const LONGEST_REFERENCE: u64 = 4 << 10;

/// The folder of a data set in the cache.
pub struct Snapshots {
    folder: PathBuf,
}

/// The content of a file below `trees`.
#[derive(Serialize, Deserialize)]
struct Tree {
    format_version: u32,
    files: BTreeMap<String, TreeFile>,
}

#[derive(Serialize, Deserialize)]
struct TreeFile {
    size: i64,
    blob_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    lfs_sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lfs_size: Option<i64>,
}

/// Of the files below `trees`.
const FORMAT_VERSION: u32 = 1;

impl Snapshots {
    /// The folder of a repository in the cache in `dir`.
    pub fn new(dir: &Path, repository: Repository) -> Self {
        Self { folder: dir.join(repository.folder()) }
    }

    /// The folder of the files of a commit.
    pub fn of(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// The commit that a revision is, or was when the hub was asked last.
    pub fn commit(&self, revision: &str) -> Option<String> {
        if is_hexadecimal(revision, 40) {
            return Some(revision.into());
        }
        let text = read_text(&self.reference(revision)?, LONGEST_REFERENCE).ok()?;
        Some(text.trim().to_string()).filter(|commit| is_hexadecimal(commit, 40))
    }

    /// The list of a commit's files, if it was kept.
    pub fn listing(&self, commit: &str) -> Option<Listing> {
        let tree: Tree = serde_json::from_slice(&read_file(&self.tree(commit), LONGEST).ok()?).ok()?;
        let files = tree.files.into_iter().map(|(name, file)| ListedFile {
            name,
            size: Some(file.size),
            blob_id: Some(file.blob_id),
            lfs: file.lfs_sha256.map(|sha256| LargeFile { sha256, size: file.lfs_size }),
        });
        (tree.format_version == FORMAT_VERSION).then(|| Listing::new(commit.into(), files.collect()).ok()).flatten()
    }

    /// The names of a commit's files that are here.
    pub fn names(&self, commit: &str) -> Vec<String> {
        let dir = self.of(commit);
        let entries = WalkDir::new(&dir).follow_links(true).sort_by_file_name().into_iter().flatten();
        let files = entries.filter(|entry| entry.file_type().is_file());
        let name = |path: &Path| {
            let parts: Option<Vec<&str>> = path.strip_prefix(&dir).ok()?.iter().map(|part| part.to_str()).collect();
            Some(parts?.join("/"))
        };
        files.filter_map(|entry| name(entry.path())).collect()
    }

    /// Keeps what the hub said, so that it need not be asked by those who are offline.
    ///
    /// # Errors
    /// If it cannot be written, without which everything else works.
    pub fn keep(&self, revision: &str, listing: &Listing) -> Result<()> {
        if let Some(path) = self.reference(revision).filter(|_| revision != listing.commit)
            && read_text(&path, LONGEST_REFERENCE).ok().as_ref() != Some(&listing.commit)
        {
            write(&path, listing.commit.as_bytes())?;
        }
        let path = self.tree(&listing.commit);
        if path.exists() || listing.files.len() >= TOO_MANY {
            return Ok(());
        }
        let files: Option<BTreeMap<_, _>> =
            listing.files.iter().map(|file| Some((file.name.clone(), file.in_tree()?))).collect();
        let tree = files.map(|files| Tree { format_version: FORMAT_VERSION, files });
        match tree.and_then(|tree| serde_json::to_vec_pretty(&tree).ok()) {
            Some(text) => write(&path, &text),
            None => Ok(()),
        }
    }

    fn reference(&self, revision: &str) -> Option<PathBuf> {
        is_below(revision).then(|| self.folder.join("refs").join(revision))
    }

    fn tree(&self, commit: &str) -> PathBuf {
        self.folder.join("trees").join(format!("{commit}.json"))
    }
}

impl ListedFile {
    /// As it is kept, if everything is known of it.
    fn in_tree(&self) -> Option<TreeFile> {
        Some(TreeFile {
            size: self.size?,
            blob_id: self.blob_id.clone()?,
            lfs_sha256: self.lfs.as_ref().map(|lfs| lfs.sha256.clone()),
            lfs_size: self.lfs.as_ref().and_then(|lfs| lfs.size.or(self.size)),
        })
    }
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(crate::error::Error::io("write", path))?;
    }
    Output::create(path)?.write(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    /// A folder in which a list of one file is kept, and the list.
    fn kept(dir: &Path) -> (Snapshots, Listing) {
        let file = ListedFile { name: "a.tar".into(), size: Some(5), blob_id: Some(COMMIT.into()), lfs: None };
        let listing = Listing::new(COMMIT.into(), vec![file]).unwrap();
        let snapshots = Snapshots::new(dir, Repository::Dataset("a/b"));
        snapshots.keep("main", &listing).unwrap();
        (snapshots, listing)
    }

    #[test]
    fn what_was_kept_is_found_unless_it_is_too_long() {
        let dir = tempfile::tempdir().unwrap();
        let (snapshots, _) = kept(dir.path());
        assert_eq!(snapshots.listing(COMMIT).unwrap().files[0].name, "a.tar");
        assert_eq!(snapshots.commit("main").as_deref(), Some(COMMIT));
        let reference = snapshots.reference("main").unwrap();
        for (lines, found) in [(100, Some(COMMIT)), (LONGEST_REFERENCE as usize, None)] {
            fs::write(&reference, format!("{COMMIT}{}", "\n".repeat(lines))).unwrap();
            assert_eq!(snapshots.commit("main").as_deref(), found);
        }
    }

    #[cfg(unix)]
    #[test]
    fn pipes_in_its_place_are_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let (snapshots, listing) = kept(dir.path());
        for path in [snapshots.reference("main").unwrap(), snapshots.tree(COMMIT)] {
            fs::remove_file(&path).unwrap();
            crate::bounded::make_pipe(&path);
        }
        assert_eq!(snapshots.commit("main"), None);
        assert!(snapshots.listing(COMMIT).is_none());
        let error = snapshots.keep("main", &listing).unwrap_err().to_string();
        assert!(error.ends_with("it is not a regular file"), "{error}");
    }
}
