//! Remembers the SHA-256 of a checkpoint file, so that a file that stays as it is need not be read to find its
//! folded copy.
//!
//! The same way a packed network, which is large, need not be read to know that it is whole.
//!
//! There is a record for each path, in the directory of the folded copies: a line of text, named by the
//! SHA-256 of the path. It holds the hash, the state of the file as far as the system tells it, its path, by which
//! [`Recorded`](super::recorded::Recorded) finds records that are of no use any more, and a CRC-32 of all that. A record that is not exactly what
//! would be written for the file now is as if it was not there.
//!
//! A clock has steps: a file that is written twice in one step has the same time of change for two contents.
//! As in git's index, the hash of a file that was changed shortly before is therefore not remembered. What
//! remains unseen is a program that keeps the file mapped into memory and writes to it, because systems stamp
//! that late, and where there is no time of change (Windows) a content of the same size whose time of
//! modification was set back.
//!
//! A power cut takes from a file what the disk does not have yet, though the file may keep its size and its times.
//! Before a hash is remembered the disk is therefore given the file that it is of.

use std::fmt;
use std::fs::{self, File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use percent_encoding::{AsciiSet, CONTROLS, percent_encode};

use crate::bounded::read_text;
use crate::digest::{is_sha256, sha256_of};
use crate::kept;

/// What the names of records end with.
pub(super) const EXTENSION: &str = "hash";

/// What records begin with. It changes whenever those of an earlier version must not be used any more.
pub(super) const FORMAT: &str = "v2";

/// The most bytes of a record. Linux takes no path of more than 4096, of which each takes three at most.
pub(super) const LONGEST: u64 = 64 << 10;

/// A file is changed no more in the step of the clock in which it was changed last when it is older than this.
/// The longest step is FAT's, of two seconds; the rest is for the system's clock, which stands still between
/// its ticks.
const SETTLED: Duration = Duration::from_secs(3);

/// The place where the hash of a file in its present state is kept.
pub(crate) struct RememberedHash {
    record: PathBuf,
    file: PathBuf,
    /// As it stands in the record.
    path: String,
    state: State,
}

impl RememberedHash {
    /// The place below a cache directory for the file at a path. The metadata is that of the opened file, and
    /// nothing has been read of it yet.
    pub(crate) fn new(cache: &Path, file: &Path, metadata: &Metadata) -> Option<Self> {
        // So a link that is turned to another file is another path.
        let path = fs::canonicalize(file).ok()?;
        let bytes = path.as_os_str().as_encoded_bytes();
        let record = cache.join(format!("{}.{EXTENSION}", sha256_of(bytes)));
        let text = percent_encode(bytes, SPECIAL).to_string();
        Some(Self { record, file: path, path: text, state: State::of(metadata)? })
    }

    /// The hash, if it was remembered for the file as it is.
    pub(crate) fn read(&self) -> Option<String> {
        let found = read_text(&self.record, LONGEST).ok()?;
        let sha256 = found.split(' ').nth(1).filter(|word| is_sha256(word))?;
        (found == self.line(sha256)).then(|| sha256.to_string())
    }

    /// Remembers the hash of what was read of the file after `now`, if every later change will show.
    pub(crate) fn write(&self, sha256: &str, now: SystemTime) {
        let settled = now.checked_sub(SETTLED).and_then(nanoseconds);
        let is_settled = settled.is_some_and(|settled| self.state.modified.max(self.state.changed) < settled);
        // The record must not survive a power cut that the bytes do not: they may have come from memory. Windows
        // wants to write what it syncs.
        if is_settled && (cfg!(not(unix)) || is_on_disk(File::open(&self.file).and_then(|file| file.sync_all()))) {
            // Without a record the file is hashed again.
            let _ = kept::replace(&self.record, self.line(sha256).as_bytes());
        }
    }

    /// The content of the record with that hash.
    pub(super) fn line(&self, sha256: &str) -> String {
        let text = format!("{FORMAT} {sha256} {} {}", self.state, self.path);
        format!("{text} {:08x}\n", crc32fast::hash(text.as_bytes()))
    }
}

/// What stands otherwise in a record's path than in the path: what ends a word or a line, and what is not ASCII.
const SPECIAL: &AsciiSet = &CONTROLS.add(b' ').add(b'%');

/// What tells one state of a file from another. Times are in nanoseconds since 1970.
struct State {
    size: u64,
    modified: i128,
    /// When content or metadata were changed, which no program can set; where no system tells that, when the file
    /// was made.
    changed: i128,
    /// With the inode it names a file, whatever its path; 0 where the system has no such numbers.
    device: u64,
    inode: u64,
}

impl State {
    #[cfg(unix)]
    fn of(metadata: &Metadata) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        let time = |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
        Some(Self {
            size: metadata.size(),
            modified: time(metadata.mtime(), metadata.mtime_nsec()),
            changed: time(metadata.ctime(), metadata.ctime_nsec()),
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }

    #[cfg(not(unix))]
    fn of(metadata: &Metadata) -> Option<Self> {
        let modified = nanoseconds(metadata.modified().ok()?)?;
        let changed = nanoseconds(metadata.created().ok()?)?;
        Some(Self { size: metadata.len(), modified, changed, device: 0, inode: 0 })
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { size, modified, changed, device, inode } = self;
        write!(f, "{size} {modified} {changed} {device} {inode}")
    }
}

/// Whether a file's bytes are on its disk, given what its sync returned. Where nothing can be written, nothing has to be.
fn is_on_disk(synced: io::Result<()>) -> bool {
    use io::ErrorKind::{InvalidInput, ReadOnlyFilesystem, Unsupported};
    synced.map_or_else(|error| matches!(error.kind(), InvalidInput | ReadOnlyFilesystem | Unsupported), |()| true)
}

/// A time as nanoseconds since 1970.
fn nanoseconds(time: SystemTime) -> Option<i128> {
    i128::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_nanos()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(unix)]
    fn disks_that_are_only_read_have_all() {
        assert!(is_on_disk(Ok(())));
        for (code, on_disk) in [(libc::EINVAL, true), (libc::EROFS, true), (libc::EIO, false)] {
            assert_eq!(is_on_disk(Err(io::Error::from_raw_os_error(code))), on_disk, "{code}");
        }
    }

    /// A cache, and a file that was modified long ago.
    struct Setting {
        _dir: tempfile::TempDir,
        cache: PathBuf,
        file: PathBuf,
    }

    impl Setting {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let (cache, file) = (dir.path().join("cache"), dir.path().join("weights"));
            write_old(&file, b"content");
            Self { _dir: dir, cache, file }
        }

        fn place(&self) -> RememberedHash {
            place(&self.cache, &self.file)
        }

        /// A setting whose file has a hash in the cache.
        fn remembered() -> Self {
            let setting = Self::new();
            setting.place().write(&some_hash(), later());
            assert_eq!(setting.place().read(), Some(some_hash()));
            setting
        }
    }

    fn place(cache: &Path, file: &Path) -> RememberedHash {
        RememberedHash::new(cache, file, &fs::metadata(file).unwrap()).unwrap()
    }

    fn long_ago() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_000_000_000)
    }

    fn now() -> SystemTime {
        SystemTime::now()
    }

    /// When a file that was written just now is settled.
    fn later() -> SystemTime {
        now() + Duration::from_secs(60)
    }

    fn some_hash() -> String {
        "0123456789abcdef".repeat(4)
    }

    fn write_old(path: &Path, content: &[u8]) {
        fs::write(path, content).unwrap();
        set_modified(path, long_ago());
    }

    fn set_modified(path: &Path, time: SystemTime) {
        File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    }

    #[test]
    fn a_change_of_time_or_size_is_seen() {
        let setting = Setting::remembered();
        set_modified(&setting.file, long_ago() + Duration::from_secs(2));
        assert_eq!(setting.place().read(), None);

        let setting = Setting::remembered();
        write_old(&setting.file, b"contents");
        assert_eq!(setting.place().read(), None);
        setting.place().write(&"f".repeat(64), later());
        assert_eq!(setting.place().read(), Some("f".repeat(64)));
        assert_eq!(fs::read_dir(&setting.cache).unwrap().count(), 1, "the record is replaced");
    }

    #[test]
    fn each_part_of_the_state_counts() {
        let setting = Setting::remembered();
        let changes: [fn(&mut State); 5] = [
            |state| state.size += 1,
            |state| state.modified += 1,
            |state| state.changed -= 1,
            |state| state.device += 1,
            |state| state.inode += 1,
        ];
        for (i, change) in changes.iter().enumerate() {
            let mut place = setting.place();
            change(&mut place.state);
            assert_eq!(place.read(), None, "{i}");
        }
    }

    /// Only the time of change tells: size and time of modification are the same.
    #[cfg(unix)]
    #[test]
    fn a_content_of_the_same_size_is_seen() {
        let setting = Setting::remembered();
        let before = setting.place().state;
        // Some clocks step every 10 ms.
        std::thread::sleep(Duration::from_millis(50));
        write_old(&setting.file, b"CONTENT");
        let after = setting.place().state;
        assert_eq!((before.size, before.modified, before.inode), (after.size, after.modified, after.inode));
        assert_eq!(setting.place().read(), None);
    }

    #[cfg(unix)]
    #[test]
    fn a_file_in_its_place_is_seen() {
        let setting = Setting::remembered();
        let other = setting.file.with_file_name("other");
        write_old(&other, b"CONTENT");
        fs::rename(&other, &setting.file).unwrap();
        assert_eq!(setting.place().read(), None);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_what_it_points_to() {
        let setting = Setting::remembered();
        let [link, other] = ["link", "other"].map(|name| setting.file.with_file_name(name));
        std::os::unix::fs::symlink(&setting.file, &link).unwrap();
        assert_eq!(place(&setting.cache, &link).read(), Some(some_hash()));
        write_old(&other, b"content");
        fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(&other, &link).unwrap();
        let turned = place(&setting.cache, &link);
        assert_eq!(turned.read(), None);
        assert_ne!(turned.record, setting.place().record);
    }

    #[test]
    fn a_file_that_was_just_changed_is_not_remembered() {
        let setting = Setting::new();
        let mut place = setting.place();
        let now = now();
        let at = |seconds: i128| nanoseconds(now).unwrap() + seconds * 1_000_000_000;
        for (modified, changed) in [(-2, -9), (-9, -2), (-3, -3), (0, 0), (3600, -9), (-9, 3600)] {
            (place.state.modified, place.state.changed) = (at(modified), at(changed));
            place.write(&some_hash(), now);
            assert!(!setting.cache.exists(), "{modified} {changed}");
        }
        (place.state.modified, place.state.changed) = (at(-4), at(-9));
        place.write(&some_hash(), now);
        assert_eq!(place.read(), Some(some_hash()));
        place.write(&some_hash(), UNIX_EPOCH);
    }

    /// The system's own times are compared with `now`.
    #[cfg(unix)]
    #[test]
    fn a_file_with_an_old_time_that_was_just_made_is_not_remembered() {
        let setting = Setting::new();
        setting.place().write(&some_hash(), now());
        assert_eq!(setting.place().read(), None);
    }

    #[test]
    fn a_damaged_record_is_as_none() {
        let setting = Setting::remembered();
        let place = setting.place();
        let good = fs::read(&place.record).unwrap();
        for i in 0..good.len() {
            let mut flipped = good.clone();
            flipped[i] ^= 1;
            for bad in [&flipped[..], &good[..i]] {
                fs::write(&place.record, bad).unwrap();
                assert_eq!(place.read(), None, "{}", String::from_utf8_lossy(bad));
            }
        }
        // A whole record of another version, and one with a hash that names a file elsewhere.
        let text = String::from_utf8(good).unwrap();
        let body = text[..text.len() - 10].to_string();
        let elsewhere = format!("../{}", &some_hash()[3..]);
        for body in [body.replacen(FORMAT, "v3", 1), body.replace(&some_hash(), &elsewhere)] {
            fs::write(&place.record, format!("{body} {:08x}\n", crc32fast::hash(body.as_bytes()))).unwrap();
            assert_eq!(place.read(), None, "{body}");
        }
        place.write(&some_hash(), later());
        assert_eq!(place.read(), Some(some_hash()));
        fs::remove_file(&place.record).unwrap();
        fs::create_dir(&place.record).unwrap();
        place.write(&some_hash(), later());
        assert_eq!(place.read(), None);
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_is_as_no_record() {
        let setting = Setting::remembered();
        let place = setting.place();
        fs::remove_file(&place.record).unwrap();
        crate::bounded::make_pipe(&place.record);
        assert_eq!(place.read(), None);
        place.write(&some_hash(), later());
        assert_eq!(place.read(), Some(some_hash()), "it is replaced");
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_done_without() {
        let setting = Setting::new();
        // A file is in the way.
        let place = place(&setting.file.join("cache"), &setting.file);
        place.write(&some_hash(), later());
        assert_eq!(place.read(), None);
        assert_eq!(fs::read(&setting.file).unwrap(), b"content");
    }
}
