//! Files that are made under a temporary name and then renamed, so that no file is seen half-made.
//!
//! The names are `.qlnet-`, the first digits of the blob's SHA-256, and random characters. A run that is
//! killed leaves such a file; the next run that holds the lock of the same blob removes it.

use std::fs;
use std::io;
use std::path::Path;

use tempfile::NamedTempFile;

/// How many random characters end a name.
const RANDOM_LENGTH: usize = 6;

fn prefix(sha256: &str) -> String {
    format!(".qlnet-{sha256:.16}-")
}

/// Calls `make` with a name in `dir` that nothing has, for it to make a file or a link of this name. That is
/// removed when what is returned is dropped.
pub fn make_temporary<T>(
    dir: &Path,
    sha256: &str,
    make: impl FnMut(&Path) -> io::Result<T>,
) -> io::Result<NamedTempFile<T>> {
    tempfile::Builder::new().prefix(&prefix(sha256)).rand_bytes(RANDOM_LENGTH).make_in(dir, make)
}

/// Removes the temporary files of a blob that killed runs left in `dir`. To be called under the blob's lock,
/// where nobody else uses any. One that cannot be removed only takes space.
pub fn remove_abandoned(dir: &Path, sha256: &str) {
    let prefix = prefix(sha256);
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let random = name.to_str().and_then(|name| name.strip_prefix(&prefix)).unwrap_or_default();
        if random.len() == RANDOM_LENGTH && random.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn what_killed_runs_left_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let sha256 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        // As if the run were killed: the file is not removed.
        make_temporary(dir.path(), sha256, |path| File::create_new(path)).unwrap().keep().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let mut others = [
            ".qlnet-0123456789abcdef-12345",
            ".qlnet-0123456789abcdef-1234.6",
            ".qlnet-fedcba9876543210-123456",
            ".qlnet-123456",
            ".tmp123456",
            sha256,
        ];
        for name in others {
            File::create_new(dir.path().join(name)).unwrap();
        }
        remove_abandoned(dir.path(), sha256);
        let entries = fs::read_dir(dir.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        others.sort();
        assert_eq!(names, others);
    }

    #[test]
    fn a_temporary_file_goes_unless_it_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        drop(make_temporary(dir.path(), "0123", |path| File::create_new(path)).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
