//! Which files a data set has: what the hub's API says of a revision.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use serde::Deserialize;

use super::attempts::Attempts;
use super::dataset::DatasetName;
use super::file::{ContentHash, HubFile, Repository, encoded};
use super::request_error::RequestError;
use super::{Event, Hub};
use crate::digest::{is_hexadecimal, is_sha256};
use crate::error::{Context, Reason, Result, bail, ensure};
use crate::text::printable;

/// A longer list is not read, the hub's or what was kept of one. Of each file there are some 300 bytes.
pub(super) const LONGEST: u64 = 64 << 20;
/// The most bytes of a file's name with its folders: Linux takes no longer path.
const LONGEST_NAME: usize = 4096;

/// The files of a data set at one commit.
pub struct Listing {
    /// The full hash of the commit.
    pub commit: String,
    /// In the order in which they were listed.
    pub files: Vec<ListedFile>,
}

/// A file as it is listed. Only of those that are downloaded must everything be there.
#[derive(Deserialize)]
pub struct ListedFile {
    /// With `/` between its folders.
    #[serde(rename = "rfilename")]
    pub name: String,
    /// In bytes.
    pub size: Option<i64>,
    /// Git's hash: of the content, or for a file that Git LFS keeps of what Git has in its place.
    #[serde(rename = "blobId")]
    pub blob_id: Option<String>,
    /// There for a file that Git LFS keeps.
    pub lfs: Option<LargeFile>,
}

/// What Git LFS knows of a file.
#[derive(Deserialize)]
pub struct LargeFile {
    /// Of the content.
    pub sha256: String,
    /// In bytes.
    pub size: Option<i64>,
}

/// The answer of `api/datasets/OWNER/NAME/revision/REVISION?blobs=true`, as far as it is read.
#[derive(Deserialize)]
struct Answer {
    sha: String,
    siblings: Vec<ListedFile>,
}

impl Listing {
    /// A list that is safe to use: no name leads out of the data set's folder.
    ///
    /// # Errors
    /// If the commit is none, or a name is not one of a file below a folder, or too long, or there twice.
    pub fn new(commit: String, files: Vec<ListedFile>) -> Result<Self, Reason> {
        ensure!(is_hexadecimal(&commit, 40), "`{}` is no commit", printable(&commit));
        let mut seen = BTreeSet::new();
        for ListedFile { name, .. } in &files {
            let start = &name[..name.floor_char_boundary(100)];
            ensure!(
                name.len() <= LONGEST_NAME,
                "the name `{}...` has {} bytes, and no path has more than {LONGEST_NAME}",
                printable(start),
                name.len()
            );
            ensure!(is_below(name), "the name `{}` is not one of a file in a folder", printable(name));
            ensure!(seen.insert(name.as_str()), "`{}` is listed twice", printable(name));
        }
        Ok(Self { commit, files })
    }

    /// Reads the answer of the hub.
    fn parse(text: &[u8]) -> Result<Self, Reason> {
        let answer: Answer = serde_json::from_slice(text).context("that is no list of files")?;
        Self::new(answer.sha, answer.siblings)
    }

    /// A file, as it can be downloaded.
    ///
    /// # Errors
    /// If its size or its hash is not listed, or is none.
    pub fn file<'a>(&'a self, repository: Repository<'a>, index: usize) -> Result<HubFile<'a>, Reason> {
        let ListedFile { name, size, blob_id, lfs } = &self.files[index];
        let listed = || format!("{} is listed", printable(name));
        let size = size.with_context(|| format!("{} without its size", listed()))?;
        let size = u64::try_from(size).map_err(|_| Reason::new(format!("{} with a size of {size}", listed())))?;
        let hash = match (lfs, blob_id) {
            (Some(LargeFile { sha256, size: other }), _) => {
                let same = other.is_none_or(|other| u64::try_from(other) == Ok(size));
                ensure!(same, "{} with two sizes", listed());
                ensure!(is_sha256(sha256), "{} with a hash that is no SHA-256", listed());
                ContentHash::Sha256(sha256)
            }
            (None, Some(id)) if is_hexadecimal(id, 40) => ContentHash::Git(id),
            _ => bail!("{} without a hash of its content", listed()),
        };
        Ok(HubFile { repository, revision: &self.commit, file: name, size, hash })
    }
}

/// Whether a list ends in the middle, as where a connection broke of which nobody knew how long it would be.
fn is_cut(text: &[u8]) -> bool {
    let parsed: Result<serde::de::IgnoredAny, serde_json::Error> = serde_json::from_slice(text);
    !text.is_empty() && parsed.is_err_and(|error| error.is_eof())
}

/// Whether a name is that of a file below a folder, on this system too.
pub fn is_below(name: &str) -> bool {
    let plain = name.split('/').all(|part| !matches!(part, "" | "." | "..")) && !name.contains('\0');
    plain && Path::new(name).components().all(|part| matches!(part, Component::Normal(_)))
}

impl Hub {
    /// Asks the hub for the files of a data set, with as many attempts as a download has.
    ///
    /// # Errors
    /// If the hub cannot be reached, refuses, keeps breaking off, or answers with something else.
    pub(super) fn list(&self, name: &DatasetName, report: &mut dyn FnMut(Event)) -> Result<Listing, Reason> {
        let (repository, endpoint) = (name.repository(), self.public_endpoint());
        let (owned, revision) = (repository.name(), encoded(&name.revision));
        let url = format!("{endpoint}/api/datasets/{owned}/revision/{revision}?blobs=true");
        let client = self.client(repository);
        let mut attempts = Attempts::new(0);
        loop {
            let (problem, retry_after) = match client.listing(&url, LONGEST, attempts.number) {
                Ok(text) if is_cut(&text) => (format!("{endpoint} broke off in the list of files"), None),
                Ok(text) => return Listing::parse(&text).with_context(|| format!("{endpoint} answers wrongly")),
                Err(RequestError::Permanent(problem)) => bail!("{problem}"),
                Err(RequestError::Unreachable { host, problem }) => bail!("cannot reach {host} ({problem})"),
                Err(RequestError::Transient { problem, retry_after }) => (problem, retry_after),
            };
            attempts.again(self, 0, &problem, retry_after, report).map_err(Reason::new)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn parse(siblings: &str) -> Result<Listing, String> {
        let text = format!(r#"{{"id": "a/b", "sha": "{COMMIT}", "gated": "auto", "siblings": [{siblings}]}}"#);
        Listing::parse(text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn files_are_known_by_what_the_hub_says() {
        let sha256 = "0123456789abcdef".repeat(4);
        let listing = parse(&format!(
            r#"{{"rfilename": "README.md", "size": 5, "blobId": "{COMMIT}"}},
               {{"rfilename": "data/a.parquet", "size": 7, "blobId": "{COMMIT}",
                "lfs": {{"sha256": "{sha256}", "size": 7, "pointerSize": 134}}}}"#
        ))
        .unwrap();
        let files = [0, 1].map(|index| listing.file(Repository::Dataset("a/b"), index).unwrap());
        assert_eq!((files[0].size, files[0].hash), (5, ContentHash::Git(COMMIT)));
        assert_eq!((files[1].file, files[1].hash), ("data/a.parquet", ContentHash::Sha256(&sha256)));
        assert_eq!(files[1].revision, COMMIT);
    }

    #[test]
    fn lists_that_cannot_be_used_are_refused() {
        for name in ["../up", "/etc/passwd", "a/../../b", "a//b", "./a", "", "a/", ".."] {
            let error = parse(&format!(r#"{{"rfilename": "{name}"}}"#)).err().unwrap();
            assert!(error.contains("is not one of a file in a folder"), "{name}: {error}");
        }
        let long = |length| parse(&format!(r#"{{"rfilename": "{}"}}"#, "n".repeat(length)));
        assert!(long(LONGEST_NAME).is_ok());
        let error = long(LONGEST_NAME + 1).err().unwrap();
        assert!(error.contains("...` has 4097 bytes, and no path has more than 4096") && error.len() < 200, "{error}");
        assert!(parse(r#"{"rfilename": "a"}, {"rfilename": "a"}"#).err().unwrap().contains("listed twice"));
        for text in ["", "[]", "<html>", r#"{"sha": 5, "siblings": []}"#, r#"{"siblings": []}"#] {
            assert!(Listing::parse(text.as_bytes()).err().unwrap().to_string().contains("no list of files"), "{text}");
        }
        let text = r#"{"sha": "../../x", "siblings": []}"#;
        assert!(Listing::parse(text.as_bytes()).err().unwrap().to_string().contains("is no commit"));
    }

    #[test]
    fn files_of_which_too_little_is_listed_are_refused() {
        for (rest, part) in [
            (String::new(), "without its size"),
            (r#", "size": -5"#.into(), "with a size of -5"),
            (r#", "size": 5"#.into(), "without a hash"),
            (r#", "size": 5, "blobId": "../x""#.into(), "without a hash"),
            (format!(r#", "size": 5, "blobId": "{COMMIT}", "lfs": {{"sha256": "{COMMIT}"}}"#), "no SHA-256"),
            (format!(r#", "size": 5, "lfs": {{"sha256": "{}", "size": 6}}"#, "a".repeat(64)), "two sizes"),
        ] {
            let listing = parse(&format!(r#"{{"rfilename": "a.tar"{rest}}}"#)).unwrap();
            let error = listing.file(Repository::Dataset("a/b"), 0).unwrap_err().to_string();
            assert!(error.contains("a.tar is listed") && error.contains(part), "{error}");
        }
    }
}
