//! A file on the hub: which one it is, and what its content has to be.

use std::fs::File;
use std::io;

use hf_hub::Repo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::digest;

/// A file of a repository on the Hugging Face hub, pinned by commit and content.
#[derive(Clone, Copy, Debug)]
pub struct HubFile<'a> {
    /// The repository.
    pub repository: Repository<'a>,
    /// The full hash of a commit that has the file.
    pub revision: &'a str,
    /// The name of the file in the repository, with `/` between its folders.
    pub file: &'a str,
    /// In bytes.
    pub size: u64,
    /// The hash of the content. On the hub it is also the ETag, and so the name of the blob in the cache.
    pub hash: ContentHash<'a>,
}

/// A repository on the hub, by its name: `owner/name`, or `name` for a few old data sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repository<'a> {
    /// The weights of a model.
    Model(&'a str),
    /// A data set.
    Dataset(&'a str),
}

/// What tells one content from another, in lower-case hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentHash<'a> {
    /// The SHA-256, which the hub knows of the files that Git LFS keeps: all large ones.
    Sha256(&'a str),
    /// The SHA-1 that Git gives to a file of this content, of any other.
    Git(&'a str),
}

/// What stands in a part of an address as it is.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A text as one part of an address: `/` is encoded too.
pub fn encoded(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}

impl<'a> Repository<'a> {
    /// `owner/name`
    pub fn name(self) -> &'a str {
        match self {
            Self::Model(name) | Self::Dataset(name) => name,
        }
    }

    /// Where its page is, below the address of the hub.
    pub(super) fn path(self) -> String {
        match self {
            Self::Model(name) => name.to_string(),
            Self::Dataset(name) => format!("datasets/{name}"),
        }
    }

    /// The name of its folder in the cache.
    pub(super) fn folder(self) -> String {
        let repo = match self {
            Self::Model(name) => Repo::model(name.into()),
            Self::Dataset(name) => Repo::dataset(name.into()),
        };
        repo.folder_name()
    }
}

impl HubFile<'_> {
    /// Its address below that of the hub.
    pub(super) fn path(&self) -> String {
        let file: Vec<String> = self.file.split('/').map(encoded).collect();
        format!("{}/resolve/{}/{}", self.repository.path(), encoded(self.revision), file.join("/"))
    }

    /// `qlnet-50-v0.pth.tar of liuyao/QLNet, revision c388ac00`
    pub(super) fn description(&self) -> String {
        format!("{} of {}, revision {:.8}", self.file, self.repository.name(), self.revision)
    }
}

impl<'a> ContentHash<'a> {
    /// The digits.
    pub fn digits(self) -> &'a str {
        match self {
            Self::Sha256(digits) | Self::Git(digits) => digits,
        }
    }

    /// What kind of hash it is, in words.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::Sha256(_) => "SHA-256",
            Self::Git(_) => "Git's SHA-1",
        }
    }

    /// The hash of this kind of a file of so many bytes.
    pub(super) fn of(self, file: &mut File, size: u64) -> io::Result<String> {
        match self {
            Self::Sha256(_) => digest::sha256_of_rest(file),
            Self::Git(_) => digest::git_sha1_of_rest(file, size),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_folders_are_those_of_huggingface_hub() {
        let file = HubFile {
            repository: Repository::Dataset("a/b"),
            revision: "refs/convert/parquet",
            file: "plain text/50%-ü.parquet",
            size: 0,
            hash: ContentHash::Git(""),
        };
        // hf_hub_url("a/b", "plain text/50%-ü.parquet", repo_type="dataset", revision="refs/convert/parquet")
        let expected = "datasets/a/b/resolve/refs%2Fconvert%2Fparquet/plain%20text/50%25-%C3%BC.parquet";
        assert_eq!(file.path(), expected);
        assert_eq!(Repository::Dataset("a/b").folder(), "datasets--a--b");
        assert_eq!(Repository::Dataset("mnist").folder(), "datasets--mnist");
        assert_eq!(Repository::Model("a/b-c").folder(), "models--a--b-c");
    }
}
