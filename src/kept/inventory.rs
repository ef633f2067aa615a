//! What is in the directory, and what of it is of no use any more.

use std::collections::HashSet;
use std::fmt;
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::recorded::Recorded;
use super::remembered_hash::EXTENSION;
use super::{PACKED, is_temporary};
use crate::digest::is_sha256;
use crate::output::abandoned;

/// What is made for other CPUs is let be until nobody has used it for so long.
const FORGOTTEN: Duration = Duration::from_secs(30 * 24 * 3600);

/// What is younger may be of a run that has more to write.
const RECENT: Duration = Duration::from_secs(600);

/// A file that this program keeps.
pub(crate) struct KeptFile {
    pub path: PathBuf,
    pub kind: Kind,
    /// In bytes.
    pub size: u64,
    /// When it was written.
    pub written: Option<SystemTime>,
    /// When it was last read, as far as the system notes that, or written.
    pub used: Option<SystemTime>,
}

/// What is in a file.
pub(crate) enum Kind {
    /// The folded weights of the checkpoint with that SHA-256, in a version of the format.
    Folded { sha256: String, version: String },
    /// They as they are packed for what [`crate::network`] reads in `kind`.
    Packed { sha256: String, kind: String },
    /// The hash of a file, if this version reads it.
    Hash(Option<Recorded>),
    /// What a run that was killed, or has not finished, wrote.
    Temporary,
}

/// What the other rooms know of what they keep.
pub(crate) struct Uses<'a> {
    /// The version of the format of folded weights that is read.
    pub folded: &'a str,
    /// Why a packed network of that kind is of no use.
    pub packed: fn(&str) -> Option<Useless>,
    /// The SHA-256 of each registered checkpoint.
    pub registered: Vec<&'a str>,
}

/// Why a file is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Useless {
    /// No program of this version reads it.
    OldFormat,
    /// This CPU needs another, and nobody has used it lately.
    OtherCpu,
    /// Its checkpoint is no registered one, and was at no path where one still is.
    NoCheckpoint,
    /// It is the hash of a file that is gone or has changed.
    NoFile,
    /// A run that was killed has left it.
    Abandoned,
}

impl fmt::Display for Useless {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::OldFormat => "of another version of this program",
            Self::OtherCpu => "for another CPU, and not used for 30 days",
            Self::NoCheckpoint => "no file is known of its checkpoint",
            Self::NoFile => "its file is gone or has changed",
            Self::Abandoned => "left by a run that was killed",
        })
    }
}

/// The files of the directory that this program wrote, in the order of their names. Of what other programs have there,
/// nothing is looked at but names.
///
/// # Errors
/// If the directory is there and cannot be read.
pub(crate) fn files(dir: &Path) -> io::Result<Vec<KeptFile>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        // Another process may have removed it meanwhile. Links and pipes are not this program's, and not looked into.
        if let Some(metadata) = entry.metadata().ok().filter(Metadata::is_file)
            && let Some(kind) = kind(&entry.path())
        {
            let written = metadata.modified().ok();
            let used = metadata.accessed().ok().max(written);
            files.push(KeptFile { path: entry.path(), kind, size: metadata.len(), written, used });
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// What a file is, if this program wrote it.
fn kind(path: &Path) -> Option<Kind> {
    let name = path.file_name()?.to_str()?;
    if is_temporary(name) {
        return Some(Kind::Temporary);
    }
    let (sha256, rest) = name.split_once('.').filter(|(sha256, _)| is_sha256(sha256))?;
    let sha256 = sha256.to_string();
    match rest.rsplit_once('.') {
        Some((version, "safetensors")) if is_version(version) => Some(Kind::Folded { sha256, version: version.into() }),
        Some((kind, PACKED)) if is_packed(kind) => Some(Kind::Packed { sha256, kind: kind.into() }),
        None if rest == EXTENSION => Recorded::read(path).ok().map(Kind::Hash),
        _ => None,
    }
}

/// `v1`, `v2`, ...
fn is_version(text: &str) -> bool {
    text.strip_prefix('v').is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}

/// `v1-folded-v1-`, and more words: by the name alone, because to look into a file is to use it.
fn is_packed(kind: &str) -> bool {
    let words: Vec<&str> = kind.split('-').collect();
    matches!(words.as_slice(), [version, "folded", folded, _, ..] if is_version(version) && is_version(folded))
}

/// Why each of the files is of no use, if it is not. What was written in the last minutes is let be: the process that
/// did so may have more to write. A temporary file is in use as long as it is locked.
pub(crate) fn useless(files: &[KeptFile], uses: &Uses, now: SystemTime) -> Vec<Option<Useless>> {
    let older = |time: Option<SystemTime>, age| {
        time.and_then(|time| now.duration_since(time).ok()).is_some_and(|found| found > age)
    };
    let mut known: HashSet<&str> = uses.registered.iter().copied().collect();
    known.extend(files.iter().filter_map(|file| match &file.kind {
        Kind::Hash(Some(recorded)) if recorded.holds => Some(recorded.sha256.as_str()),
        _ => None,
    }));
    let copy = |sha256: &str| (!known.contains(sha256)).then_some(Useless::NoCheckpoint);
    let first = |file: &KeptFile| match &file.kind {
        Kind::Temporary => abandoned(&file.path, true).map(|_| Useless::Abandoned),
        _ if !older(file.written, RECENT) => None,
        Kind::Folded { version, .. } if version != uses.folded => Some(Useless::OldFormat),
        Kind::Folded { sha256, .. } => copy(sha256),
        Kind::Packed { sha256, kind } => match (uses.packed)(kind) {
            Some(Useless::OtherCpu) if !older(file.used, FORGOTTEN) => copy(sha256),
            useless => useless.or_else(|| copy(sha256)),
        },
        Kind::Hash(None) => Some(Useless::OldFormat),
        Kind::Hash(Some(recorded)) => (!recorded.holds).then_some(Useless::NoFile),
    };
    let found: Vec<_> = files.iter().map(first).collect();
    // The hash of a packed network goes with it.
    let going: HashSet<_> = files
        .iter()
        .zip(&found)
        .filter(|(file, useless)| useless.is_some() && matches!(file.kind, Kind::Packed { .. }))
        .filter_map(|(file, _)| file.path.canonicalize().ok())
        .collect();
    let of_going = |file: &KeptFile| matches!(&file.kind, Kind::Hash(Some(recorded)) if going.contains(&recorded.path));
    let with = |(file, useless): (&KeptFile, Option<Useless>)| useless.or(of_going(file).then_some(Useless::NoFile));
    files.iter().zip(found).map(with).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kept::remembered_hash::RememberedHash;
    use std::fs::File;

    const OTHER: &str = "1123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const KNOWN: &str = "2123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn uses() -> Uses<'static> {
        let packed = |kind: &str| match kind {
            "v1-folded-v7-here" => None,
            "v1-folded-v7-elsewhere" => Some(Useless::OtherCpu),
            _ => Some(Useless::OldFormat),
        };
        Uses { folded: "v7", packed, registered: vec![KNOWN] }
    }

    /// A directory with a file of each name, all as old as `days`.
    fn directory(names: &[(String, &[u8])], days: u64) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let time = SystemTime::now() - Duration::from_secs(days * 86400 + 3600);
        for (name, content) in names {
            let path = dir.path().join(name);
            fs::write(&path, content).unwrap();
            let times = fs::FileTimes::new().set_accessed(time).set_modified(time);
            File::options().write(true).open(&path).unwrap().set_times(times).unwrap();
        }
        dir
    }

    /// The names of what is of no use, and why.
    fn found(dir: &Path) -> Vec<(String, Useless)> {
        let files = files(dir).unwrap();
        let useless = useless(&files, &uses(), SystemTime::now());
        let name = |file: &KeptFile| file.path.file_name().unwrap().to_str().unwrap().to_string();
        files.iter().zip(useless).filter_map(|(file, useless)| Some((name(file), useless?))).collect()
    }

    #[test]
    fn what_is_of_no_use_is_found() {
        let old_hash = format!("v1 {OTHER} 1 2 3 4 5 0a1b2c3d\n");
        let files = [
            (format!(".{KNOWN}.v7.safetensors.AbC123.tmp"), &b"half"[..], Some(Useless::Abandoned)),
            (format!("{OTHER}.v1-folded-v7-here.packed"), b"network", Some(Useless::NoCheckpoint)),
            (format!("{OTHER}.hash"), old_hash.as_bytes(), Some(Useless::OldFormat)),
            (format!("{OTHER}.v7.safetensors"), b"weights", Some(Useless::NoCheckpoint)),
            (format!("{KNOWN}.v1-folded-v7-elsewhere.packed"), b"network", None),
            (format!("{KNOWN}.v1-folded-v7-here.packed"), b"network", None),
            (format!("{KNOWN}.v0-folded-v7-here.packed"), b"network", Some(Useless::OldFormat)),
            (format!("{KNOWN}.v6.safetensors"), b"weights", Some(Useless::OldFormat)),
            (format!("{KNOWN}.v7.safetensors"), b"weights", None),
        ];
        let all: Vec<_> = files.iter().map(|(name, content, _)| (name.clone(), *content)).collect();
        let mut expected: Vec<_> =
            files.iter().filter_map(|(name, _, useless)| Some((name.clone(), (*useless)?))).collect();
        expected.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(found(directory(&all, 1).path()), expected);
        let later = found(directory(&all, 31).path());
        assert!(
            later.contains(&(format!("{KNOWN}.v1-folded-v7-elsewhere.packed"), Useless::OtherCpu)) && later.len() == 7
        );
        let fresh = tempfile::tempdir().unwrap();
        all.iter().for_each(|(name, content)| fs::write(fresh.path().join(name), content).unwrap());
        let temporary = &all[0].0;
        let only_temporary = [(temporary.clone(), Useless::Abandoned)];
        assert_eq!(found(fresh.path()), only_temporary, "whoever wrote the others may not be done");
        let being_written = File::options().write(true).open(fresh.path().join(temporary)).unwrap();
        being_written.lock().unwrap();
        assert_eq!(found(fresh.path()), []);
    }

    #[test]
    fn other_programs_files_are_not_listed() {
        let foreign: [(String, &[u8]); 6] = [
            ("notes.txt".into(), b""),
            (format!("{OTHER}.here.packed"), b""),
            (format!("{OTHER}.hash"), b"0123  file.txt\n"),
            (format!("{OTHER}.safetensors"), b""),
            (format!("{}.v7.safetensors", &OTHER[1..]), b""),
            (format!("{OTHER}.v7x.safetensors"), b""),
        ];
        let dir = directory(&foreign, 99);
        fs::create_dir(dir.path().join(format!("{OTHER}.v7.safetensors"))).unwrap();
        #[cfg(unix)]
        {
            // A pipe would be waited for; a link leads to another program's files, whatever they hold.
            let [pipe, record, link] = [KNOWN, "record", &"a".repeat(64)].map(|name| dir.path().join(name));
            crate::bounded::make_pipe(&pipe.with_extension("hash"));
            fs::write(&record, format!("v1 {OTHER} 1 2 3 4 5 0a1b2c3d\n")).unwrap();
            std::os::unix::fs::symlink(&record, link.with_extension("hash")).unwrap();
        }
        assert!(files(dir.path()).unwrap().is_empty());
        assert!(files(&dir.path().join("missing")).unwrap().is_empty());
    }

    /// A checkpoint that is where it was keeps its copies; without it, all that is of it goes.
    #[test]
    fn copies_stay_with_their_checkpoint() {
        let names =
            [(format!("{OTHER}.v7.safetensors"), &b"w"[..]), (format!("{OTHER}.v1-folded-v7-here.packed"), b"network")];
        let dir = directory(&names, 1);
        let elsewhere = tempfile::tempdir().unwrap();
        let checkpoint = elsewhere.path().join("weights.pth");
        fs::write(&checkpoint, "weights").unwrap();
        let later = SystemTime::now() + Duration::from_secs(60);
        for (file, sha256) in [(&checkpoint, OTHER), (&dir.path().join(&names[1].0), KNOWN)] {
            let metadata = fs::metadata(file).unwrap();
            RememberedHash::new(dir.path(), file, &metadata).unwrap().write(sha256, later);
        }
        assert_eq!(files(dir.path()).unwrap().len(), 4);
        assert_eq!(found(dir.path()), []);
        fs::remove_file(&checkpoint).unwrap();
        // The record of the checkpoint was written just now; that of the packed network goes with it all the same.
        let reasons: Vec<_> = found(dir.path()).into_iter().map(|(_, useless)| useless).collect();
        let count = |useless| reasons.iter().filter(|found| **found == useless).count();
        assert_eq!((count(Useless::NoCheckpoint), count(Useless::NoFile)), (2, 1));
    }
}
