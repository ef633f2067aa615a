//! Files that appear complete or not at all.
//!
//! A file is written as `.qlnet-<random>.tmp` beside its name, put on the disk, and renamed; then the directory is put on
//! the disk, so that a power cut after that takes nothing back. The temporary file is locked while it is written. A run
//! that is killed leaves it without a lock, and the next one on the same machine that writes into the directory removes
//! it. Of another machine's locks a system may not know, so its files stay until they are old.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Error as IoError, ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use tempfile::{Builder, NamedTempFile};

use crate::digest::sha256_of;
use crate::error::{Error, Result};

/// A file that is to be written later, as a whole.
pub struct Output {
    path: PathBuf,
}

impl Output {
    /// Finds out whether the file can be written, before work is done for it.
    ///
    /// # Errors
    /// If its directory is missing or cannot be written.
    pub fn create(path: &Path) -> Result<Self> {
        let path = target(path)?;
        remove_abandoned_once(directory(&path));
        temporary(&path).map_err(Error::io("write", &path))?;
        Ok(Self { path })
    }

    /// Writes the content under another name beside it, and then gives it its name.
    ///
    /// # Errors
    /// If it cannot be written, as on a full disk.
    pub fn write(self, content: &[u8]) -> Result<()> {
        let mut file = self.begin()?;
        file.append(content)?;
        file.finish()
    }

    /// Begins to write it part by part.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn begin(self) -> Result<Growing> {
        let file = temporary(&self.path).map_err(Error::io("write", &self.path))?;
        Ok(Growing { file, path: self.path })
    }
}

/// A file that is being written under another name. Dropped before it is complete, it is removed.
pub struct Growing {
    file: NamedTempFile,
    path: PathBuf,
}

impl Growing {
    /// Writes what comes next.
    ///
    /// # Errors
    /// If it cannot be written, as on a full disk.
    pub fn append(&mut self, content: &[u8]) -> Result<()> {
        self.file.write_all(content).map_err(Error::io("write", &self.path))
    }

    /// Writes over the beginning.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_start(&mut self, content: &[u8]) -> Result<()> {
        let write = self.file.rewind().and_then(|()| self.file.write_all(content));
        write.and_then(|()| self.file.seek(SeekFrom::End(0))).map(drop).map_err(Error::io("write", &self.path))
    }

    /// Makes sure that the disk has all of it.
    ///
    /// # Errors
    /// If the disk does not take it.
    pub fn sync(&self) -> Result<()> {
        self.file.as_file().sync_all().map_err(Error::io("write", &self.path))
    }

    /// Gives it its name: it is complete.
    ///
    /// # Errors
    /// If the disk or the directory does not take it.
    pub fn finish(self) -> Result<()> {
        let Self { file, path } = self;
        let finish = || {
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|error| error.error)
        };
        finish().map_err(Error::io("write", &path))?;
        sync_directory(&path);
        Ok(())
    }

    /// The name that it will have.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The file that is meant: where a link leads.
///
/// # Errors
/// If there is a directory or a device of that name.
pub fn target(path: &Path) -> Result<PathBuf> {
    let no_file = |kind, words: &str| Err(Error::io("write", path)(IoError::new(kind, words)));
    match path.metadata() {
        Ok(metadata) if metadata.is_file() => path.canonicalize().map_err(Error::io("write", path)),
        Ok(metadata) if metadata.is_dir() => no_file(ErrorKind::IsADirectory, "it is a directory"),
        Ok(_) => no_file(ErrorKind::InvalidInput, "it is not a regular file"),
        Err(_) => Ok(path.to_path_buf()),
    }
}

/// The directory that a file is in.
pub fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes sure that the disk has the name of a file whose content it has. Not every file system can do that, and the
/// content is what tells of a disk that fails: errors are ignored.
pub fn sync_directory(path: &Path) {
    // Windows opens no directories.
    #[cfg(unix)]
    let _ = File::open(directory(path)).and_then(|directory| directory.sync_all());
    #[cfg(not(unix))]
    let _ = path;
}

const PREFIX: &str = ".qlnet-";
const SUFFIX: &str = ".tmp";

/// How many characters of a name are the machine's, and how many are random.
const MACHINE: usize = 6;
const RANDOM: usize = 6;

/// Where locks tell nothing, a temporary file that nobody has written to for so long was left by a run that was killed.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);

/// A file in the same directory, which is removed when it is dropped.
fn temporary(path: &Path) -> std::io::Result<NamedTempFile> {
    let mut builder = Builder::new();
    let prefix = format!("{PREFIX}{}", machine());
    builder.prefix(&prefix).suffix(SUFFIX).rand_bytes(RANDOM);
    #[cfg(unix)]
    {
        // As any file that is created, less what the umask takes away.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    locked(&builder, directory(path)).map_err(|error| {
        // Without the temporary name, which helps no one.
        let text = error.to_string();
        IoError::new(error.kind(), text.split(" at path ").next().unwrap_or_default().to_string())
    })
}

/// How often a file is opened again that lost its name before it was locked. Sixteen times in a row were seen on a busy machine
/// with three that made and removed it all the time; the bound is for file systems on which no file seems to keep its name.
pub const TRIES: usize = 1000;

/// Makes a temporary file and locks it, for as long as it is open. Its name is one that [`remove_abandoned`] takes for
/// a temporary file's.
///
/// # Errors
/// If the directory cannot be written.
pub fn locked(builder: &Builder, directory: &Path) -> std::io::Result<NamedTempFile> {
    let mut tries = 0;
    loop {
        let file = builder.tempfile_in(directory)?;
        tries += 1;
        // Before it was locked, another process may have taken it for one that was left.
        let lost = match file.as_file().try_lock() {
            Ok(()) => !has_name(file.as_file(), file.path()),
            Err(TryLockError::WouldBlock) => true,
            Err(TryLockError::Error(_)) => false,
        };
        if !lost || tries == TRIES {
            return Ok(file);
        }
    }
}

/// Whether it is this open file that has the name: another process may have removed or renamed it.
pub fn has_name(file: &File, path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let named = fs::metadata(path).map(identity);
        file.metadata().is_ok_and(|metadata| named.is_ok_and(|named| named == identity(metadata)))
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        path.exists()
    }
}

/// Letters that tell machines from each other whose processes do not see each other's locks.
fn machine() -> &'static str {
    static MACHINE_ID: LazyLock<String> = LazyLock::new(|| {
        // Of a system that runs, with all its containers. Elsewhere there is a name, if anything.
        let id = fs::read("/proc/sys/kernel/random/boot_id").ok();
        let name = || std::env::var_os("COMPUTERNAME").or_else(|| std::env::var_os("HOSTNAME"));
        let id = id.or_else(|| Some(name()?.into_encoded_bytes())).unwrap_or_default();
        sha256_of(&id)[..MACHINE].into()
    });
    &MACHINE_ID
}

/// Removes the temporary files in a directory that runs left which were killed, if all who may have locked them are seen,
/// as `is_seen` says by the name, or if they are old.
pub fn remove_abandoned(directory: &Path, is_temporary: impl Fn(&str) -> bool, is_seen: impl Fn(&str) -> bool) {
    for entry in fs::read_dir(directory).into_iter().flatten().map_while(Result::ok) {
        let is_file = || entry.file_type().is_ok_and(|kind| kind.is_file());
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| is_temporary(name)) else { continue };
        if let Some(_lock) = is_file().then(|| abandoned(&entry.path(), is_seen(name))).flatten() {
            // Another run may have been faster.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// A temporary file under its lock, if the run that wrote it was killed: if nobody has locked it, or where locks of others
/// are not seen, if it is old. None if it is being written, or cannot be opened.
pub fn abandoned(path: &Path, is_seen: bool) -> Option<File> {
    // To be written, because NFS locks no others.
    let file = OpenOptions::new().write(true).open(path).ok()?;
    let abandoned = match file.try_lock() {
        Ok(()) if is_seen => true,
        Err(TryLockError::WouldBlock) => false,
        Ok(()) | Err(TryLockError::Error(_)) => {
            let age = file.metadata().and_then(|metadata| metadata.modified()).map(|time| time.elapsed());
            matches!(age, Ok(Ok(age)) if age > ABANDONED)
        }
    };
    abandoned.then_some(file)
}

/// Removes what killed runs left in a directory, the first time that it is asked to: there may be many files in it,
/// and as many to write.
fn remove_abandoned_once(directory: &Path) {
    static KNOWN: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    let new = || KNOWN.lock().is_ok_and(|mut known| known.insert(directory.to_path_buf()));
    if new() {
        remove_abandoned(directory, is_temporary, is_of_this_machine);
    }
}

/// Whether a file's name is one of those that [`temporary`] gives.
fn is_temporary(name: &str) -> bool {
    let rest = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(SUFFIX));
    rest.is_some_and(|rest| rest.len() == MACHINE + RANDOM && rest.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

/// Whether such a name is of a file that this machine made.
fn is_of_this_machine(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|rest| rest.starts_with(machine()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    #[test]
    fn a_file_that_grows_has_its_name_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows");
        let begin = || {
            let mut file = Output::create(&path).unwrap().begin().unwrap();
            file.append(b"????").unwrap();
            file.append(b" rows").unwrap();
            file.write_start(b"four").unwrap();
            file.append(b".").unwrap();
            file
        };
        drop(begin());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let file = begin();
        assert!(!path.exists() && file.path() == path);
        file.finish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"four rows.");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report.html");
        let output = Output::create(&path).unwrap();
        assert!(!path.exists());
        drop(output);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing temporary is left");
        std::fs::write(&path, "old").unwrap();
        Output::create(&path).unwrap().write(b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert!(Output::create(dir.path()).is_err());
        assert!(Output::create(&dir.path().join("missing/report.html")).is_err());
        #[cfg(unix)]
        {
            // A link is followed; a device stays one.
            let link = dir.path().join("link.html");
            std::os::unix::fs::symlink(&path, &link).unwrap();
            Output::create(&link).unwrap().write(b"through").unwrap();
            assert!(link.is_symlink() && std::fs::read(&path).unwrap() == b"through");
            assert!(Output::create(Path::new("/dev/null")).is_err());
        }
    }

    #[test]
    fn what_killed_runs_left_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let held = Output::create(&path("rows")).unwrap().begin().unwrap();
        let held_name = held.file.path().to_path_buf();
        assert!(is_temporary(held_name.file_name().unwrap().to_str().unwrap()));
        let other = if machine() == "abcdef" { "fedcba" } else { "abcdef" };
        let [here, there] = [machine(), other].map(|machine| move |rest: &str| format!(".qlnet-{machine}{rest}"));
        let others = [
            &here("a1B2c.tmp")[..],
            &here("a1B2c3"),
            &here("a1B2.3.tmp"),
            &here("a1B2c3.tmp")[1..],
            ".tmpa1B2c3",
            // Of another machine, which may be writing it.
            &there("a1B2c3.tmp"),
        ];
        let left = [here("a1B2c3.tmp"), here("AAAAAA.tmp"), there("AAAAAA.tmp")];
        for name in others.into_iter().chain(left.iter().map(String::as_str)) {
            fs::write(path(name), "").unwrap();
        }
        let old = SystemTime::now() - 2 * ABANDONED;
        File::options().write(true).open(path(&left[2])).unwrap().set_modified(old).unwrap();
        let folder = here("folder.tmp");
        fs::create_dir(path(&folder)).unwrap();
        // As another process: this one has looked.
        remove_abandoned(dir.path(), is_temporary, is_of_this_machine);
        for name in &left {
            assert!(!path(name).exists(), "{name}");
        }
        for name in others.iter().chain(&[&folder[..]]) {
            assert!(path(name).exists(), "{name}");
        }
        assert!(held_name.exists(), "one that is being written stays");
        held.finish().unwrap();
        assert!(path("rows").exists());
    }

    /// Whoever cleans up may come between the making of a file and its lock.
    #[test]
    fn a_file_is_known_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let [path, other] = ["a", "b"].map(|name| dir.path().join(name));
        let file = File::create(&path).unwrap();
        assert!(has_name(&file, &path));
        fs::rename(&path, &other).unwrap();
        assert!(!has_name(&file, &path));
        #[cfg(unix)]
        {
            File::create(&path).unwrap();
            assert!(!has_name(&file, &path) && has_name(&file, &other));
        }
    }
}
