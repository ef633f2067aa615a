//! From a model's name or a file to folded weights, through a cache that makes the second time fast.

use std::convert::Infallible;
use std::path::Path;
use std::time::SystemTime;

use crate::digest::sha256_of;
use crate::error::{At, Error, Result};
use crate::hub;
use crate::kept::cache_dir;
use crate::kept::remembered_hash::RememberedHash;
use crate::weights::cache::{cache_path, cached, find};
use crate::weights::checkpoint::{self, Checkpoint};
use crate::weights::folded::Weights;
use crate::weights::hashed_file::HashedFile;
use crate::weights::published::fetched;
use crate::weights::registry::{self, Model, WeightsSource};

/// What a caller may want to show while weights are made ready.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Something about the download.
    Hub(hub::Event<'a>),
    /// Batch norm is about to be folded, which is done once for each checkpoint.
    Folding,
    /// The file that weights are taken from.
    Reading {
        /// What it holds: `the checkpoint`, or what was made of that and kept.
        what: &'static str,
        /// Where it is.
        path: &'a Path,
    },
    /// What took seconds to make of the weights cannot be kept, so that it is made again each time.
    NotKept {
        /// Where it would be.
        path: &'a Path,
        /// Why.
        error: &'a std::io::Error,
    },
}

/// Folded weights, and the checkpoint that they are made of.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The folded weights.
    pub weights: Weights,
    /// The SHA-256 of the checkpoint, in lower-case hexadecimal.
    pub sha256: String,
}

/// Where a checkpoint is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source<'a> {
    /// In a file.
    File(&'a Path),
    /// In the file of a registered model.
    Model(&'a Model),
}

/// What files are called that weights are taken from.
const CHECKPOINT: &str = "the checkpoint";
const FOLDED: &str = "the checkpoint's weights, folded and kept";

/// What there is for a checkpoint.
pub(crate) enum Found<T> {
    /// Something that was made of its weights and kept.
    Kept(T),
    /// Its weights, and whether what is made of them is worth keeping.
    Weights { weights: Weights, keep: bool },
}

/// What `kept` knows for the SHA-256 of a checkpoint, else its folded weights, through a cache directory if there is
/// one; with the SHA-256. Nothing is kept for a checkpoint that is built in or cannot be read twice.
///
/// # Errors
/// Those of [`load_file`] and [`load_model`].
pub(crate) fn load_unless<T>(
    cache: Option<&Path>,
    source: Source,
    kept: &dyn Fn(&str) -> Option<T>,
    report: &mut dyn FnMut(Event),
) -> Result<(Found<T>, String)> {
    match source {
        Source::File(path) => load_through(cache, path, SystemTime::now(), kept, report),
        Source::Model(model) => load_registered(cache, model, kept, report),
    }
}

/// [`load_unless`], where nothing is kept but folded weights.
fn load(source: Source, report: &mut dyn FnMut(Event)) -> Result<Loaded> {
    match load_unless(cache_dir().as_deref(), source, &|_| None::<Infallible>, report)? {
        (Found::Weights { weights, .. }, sha256) => Ok(Loaded { weights, sha256 }),
        (Found::Kept(never), _) => match never {},
    }
}

/// The folded weights of a checkpoint file. What cannot be read twice, such as a pipe, is not cached.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read, [`Error::Checkpoint`] if it is no checkpoint or a damaged one, and
/// [`Error::OtherNetwork`] if it is not a QLNet's.
pub fn load_file(path: &Path, report: &mut dyn FnMut(Event)) -> Result<Loaded> {
    load(Source::File(path), report)
}

/// The folded weights of a registered model, downloaded if need be.
///
/// # Errors
/// [`Error::Download`] if they have to be downloaded and cannot be; others if the file cannot be read.
pub fn load_model(model: &Model, report: &mut dyn FnMut(Event)) -> Result<Loaded> {
    load(Source::Model(model), report)
}

/// [`load_unless`] for a file through a cache directory, if there is one. Nothing has been read of the file before
/// `now`.
fn load_through<T>(
    cache: Option<&Path>,
    path: &Path,
    now: SystemTime,
    kept: &dyn Fn(&str) -> Option<T>,
    report: &mut dyn FnMut(Event),
) -> Result<(Found<T>, String)> {
    let (file, metadata) = checkpoint::open(path)?;
    if !metadata.is_file() {
        let bytes = checkpoint::read_all(file, path)?;
        report(Event::Folding);
        let weights = Weights::from_bytes(&bytes).at(path.display())?;
        return Ok((Found::Weights { weights, keep: false }, sha256_of(&bytes)));
    }
    let remembered = cache.and_then(|dir| RememberedHash::new(dir, path, &metadata));
    if let (Some(dir), Some(sha256)) = (cache, remembered.as_ref().and_then(RememberedHash::read)) {
        if let Some(kept) = kept(&sha256) {
            return Ok((Found::Kept(kept), sha256));
        }
        if let Some(weights) = find(dir, &sha256) {
            report(Event::Reading { what: FOLDED, path: &cache_path(dir, &sha256) });
            return Ok((Found::Weights { weights, keep: true }, sha256));
        }
    }
    let file = HashedFile::new(file).map_err(Error::io("read", path))?;
    let sha256 = file.sha256().to_string();
    let found = match kept(&sha256) {
        Some(kept) => Found::Kept(kept),
        None => {
            let weights = reported(cache, &sha256, report, |report| {
                report(Event::Reading { what: CHECKPOINT, path });
                report(Event::Folding);
                let length = file.length();
                Weights::from_checkpoint(&Checkpoint::read(file, length, path)?).at(path.display())
            })?;
            Found::Weights { weights, keep: true }
        }
    };
    if let Some(remembered) = remembered {
        remembered.write(&sha256, now);
    }
    Ok((found, sha256))
}

/// [`load_unless`] for a registered model.
fn load_registered<T>(
    cache: Option<&Path>,
    model: &Model,
    kept: &dyn Fn(&str) -> Option<T>,
    report: &mut dyn FnMut(Event),
) -> Result<(Found<T>, String)> {
    let file = match &model.source {
        WeightsSource::Embedded(bytes) => {
            return Ok((Found::Weights { weights: Weights::from_bytes(bytes)?, keep: false }, sha256_of(bytes)));
        }
        WeightsSource::Hub(file) => file,
    };
    // Of a model it is the SHA-256.
    let sha256 = file.hash.digits();
    if let Some(kept) = kept(sha256) {
        return Ok((Found::Kept(kept), sha256.to_string()));
    }
    let weights = reported(cache, sha256, report, |report| {
        let path = fetched(file, report)?;
        report(Event::Reading { what: CHECKPOINT, path: &path });
        report(Event::Folding);
        Weights::from_checkpoint(&Checkpoint::open(&path)?).at(path.display())
    })?;
    Ok((Found::Weights { weights, keep: true }, sha256.to_string()))
}

/// [`cached`], where it is reported if there is a folded copy.
fn reported(
    cache: Option<&Path>,
    sha256: &str,
    report: &mut dyn FnMut(Event),
    make: impl FnOnce(&mut dyn FnMut(Event)) -> Result<Weights>,
) -> Result<Weights> {
    let mut made = false;
    let weights = cached(cache, sha256, || {
        made = true;
        make(report)
    })?;
    if let Some(dir) = cache.filter(|_| !made) {
        report(Event::Reading { what: FOLDED, path: &cache_path(dir, sha256) });
    }
    Ok(weights)
}

impl Weights {
    /// The weights of a registered model, such as `qlnet-50-v0`. If they are not on this machine they are
    /// downloaded. [`load_model`] reports the progress.
    ///
    /// # Errors
    /// [`Error::UnknownModel`] if no model has that name, and those of [`load_model`].
    pub fn from_model(name: &str) -> Result<Self> {
        Ok(load_model(registry::find(name)?, &mut |_| {})?.weights)
    }

    /// The weights of a checkpoint file, which `torch.save` or [`Self::to_safetensors`] may have written.
    ///
    /// # Errors
    /// Those of [`load_file`].
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        Ok(load_file(path.as_ref(), &mut |_| {})?.weights)
    }

    /// The weights of a checkpoint, from the bytes of its file. Nothing is cached.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if it is no checkpoint or a damaged one, and [`Error::OtherNetwork`] if it is not
    /// a QLNet's.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        Self::from_checkpoint(&Checkpoint::from_bytes(bytes)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::time::Duration;

    const TWO_FILTERS: &[u8] = include_bytes!("../../tests/fixtures/two-filters.pth.tar");
    const ONE_FILTER: &[u8] = include_bytes!("../../tests/fixtures/one-filter.safetensors");

    /// The folded weights of a file.
    fn load_weights(
        cache: Option<&Path>,
        path: &Path,
        now: SystemTime,
        report: &mut dyn FnMut(Event),
    ) -> Result<Loaded> {
        let (found, sha256) = load_through(cache, path, now, &|_| None::<()>, report)?;
        let Found::Weights { weights, .. } = found else { panic!("nothing else is kept") };
        Ok(Loaded { weights, sha256 })
    }

    /// Loads a file, and tells whether it was folded.
    fn load(cache: &Path, path: &Path, now: SystemTime) -> (Loaded, bool) {
        let mut folded = false;
        let report = &mut |event: Event| folded |= matches!(event, Event::Folding);
        let loaded = load_weights(Some(cache), path, now, report).unwrap();
        (loaded, folded)
    }

    /// A time when no file was changed lately.
    fn later() -> SystemTime {
        SystemTime::now() + Duration::from_secs(60)
    }

    #[test]
    fn the_hash_is_that_of_what_was_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let (cache, path) = (dir.path().join("cache"), dir.path().join("weights"));
        for (content, filters) in [(TWO_FILTERS, 2), (ONE_FILTER, 1)] {
            fs::write(&path, content).unwrap();
            for fold in [true, false] {
                let (loaded, folded) = load(&cache, &path, SystemTime::now());
                assert_eq!(folded, fold);
                assert_eq!(loaded.sha256, sha256_of(content));
                assert_eq!(loaded.weights.config().layers[0][0].filters, filters);
            }
        }
        let digits = load_model(registry::find("qlnet-digits").unwrap(), &mut |_| {}).unwrap();
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/qlnet-digits.safetensors");
        assert_eq!(digits.sha256, sha256_of(&fs::read(file).unwrap()));
    }

    /// A record that says something else than the file shows whether the file was hashed.
    #[test]
    fn a_hash_is_remembered_until_the_file_changes() {
        let dir = tempfile::tempdir().unwrap();
        let (cache, path) = (dir.path().join("cache"), dir.path().join("weights"));
        fs::write(&path, TWO_FILTERS).unwrap();
        let place = || RememberedHash::new(&cache, &path, &fs::metadata(&path).unwrap()).unwrap();
        let right = sha256_of(TWO_FILTERS);
        let load = || {
            let (Loaded { weights, sha256 }, folded) = load(&cache, &path, later());
            assert_eq!(weights.config().layers[0][0].filters, if sha256 == right { 2 } else { 1 });
            (sha256, folded)
        };
        assert_eq!(place().read(), None);
        assert_eq!(load(), (right.clone(), true));
        assert_eq!(place().read(), Some(right.clone()));

        let other = sha256_of(ONE_FILTER);
        place().write(&other, later());
        assert_eq!(load(), (right.clone(), false), "a hash without a folded copy is not believed");
        assert_eq!(place().read(), Some(right.clone()));
        cached(Some(&cache), &other, || Weights::from_bytes(ONE_FILTER)).unwrap();
        place().write(&other, later());
        assert_eq!(load(), (other, false), "the record is believed");

        let touched = SystemTime::now() - Duration::from_secs(3600);
        fs::File::options().write(true).open(&path).unwrap().set_modified(touched).unwrap();
        assert_eq!(load(), (right.clone(), false), "a touched file is hashed again");
        assert_eq!(place().read(), Some(right));
    }

    /// Whether the hash is remembered or not, what is kept for it is taken before any weights.
    #[test]
    fn what_is_kept_for_a_hash_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let (cache, path) = (dir.path().join("cache"), dir.path().join("weights"));
        fs::write(&path, TWO_FILTERS).unwrap();
        let right = sha256_of(TWO_FILTERS);
        for _ in 0..2 {
            let kept = |sha256: &str| (sha256 == right).then_some(7);
            let nothing = &mut |event: Event| panic!("{event:?}");
            let (found, sha256) = load_through(Some(&cache), &path, later(), &kept, nothing).unwrap();
            assert!(matches!(found, Found::Kept(7)) && sha256 == right);
        }
        let place = RememberedHash::new(&cache, &path, &fs::metadata(&path).unwrap()).unwrap();
        assert_eq!(place.read(), Some(right));
        assert_eq!(fs::read_dir(&cache).unwrap().count(), 1, "the weights were not folded");
    }

    #[test]
    fn what_cannot_be_loaded_is_not_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let (cache, path) = (dir.path().join("cache"), dir.path().join("weights"));
        fs::write(&path, &TWO_FILTERS[..1000]).unwrap();
        assert!(load_weights(Some(&cache), &path, later(), &mut |_| {}).is_err());
        assert!(!cache.exists());
    }

    #[test]
    fn a_file_that_changes_between_hash_and_folding_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (cache, path) = (dir.path().join("cache"), dir.path().join("weights"));
        for content in [TWO_FILTERS, ONE_FILTER] {
            fs::write(&path, content).unwrap();
            let mut changed = content.to_vec();
            changed[content.len() / 2] ^= 1;
            let loaded = load_weights(Some(&cache), &path, later(), &mut |_| fs::write(&path, &changed).unwrap());
            let error = loaded.unwrap_err().to_string();
            assert!(error.contains("another program changed the file"), "{error}");
        }
        assert!(!cache.exists(), "nothing is kept");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_pipe_has_a_hash_too() {
        use std::io::Write;
        use std::os::fd::AsRawFd;
        let (reader, mut writer) = std::io::pipe().unwrap();
        let writing = std::thread::spawn(move || writer.write_all(TWO_FILTERS).unwrap());
        let dir = tempfile::tempdir().unwrap();
        let path = format!("/proc/self/fd/{}", reader.as_raw_fd());
        let (loaded, folded) = load(&dir.path().join("cache"), Path::new(&path), later());
        writing.join().unwrap();
        assert!(folded);
        assert_eq!(loaded.sha256, sha256_of(TWO_FILTERS));
        assert_eq!(loaded.weights.config().layers[0][0].filters, 2);
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let kept = dir.path().join("weights");
        let error = |content: &[u8]| {
            fs::write(&kept, content).unwrap();
            load_weights(None, &kept, SystemTime::now(), &mut |_| {}).unwrap_err()
        };
        assert!(matches!(error(b"").root(), Error::Checkpoint(_)));
        assert!(matches!(error(&TWO_FILTERS[..1000]).root(), Error::Checkpoint(_)));
        let other = error(include_bytes!("../../tests/fixtures/resnet.pth"));
        assert!(matches!(other.root(), Error::OtherNetwork(_)), "{other}");
        assert!(matches!(load_file(dir.path(), &mut |_| {}), Err(Error::Checkpoint(_))));
        let nowhere = load_file(&dir.path().join("nowhere"), &mut |_| {}).unwrap_err();
        assert!(
            matches!(&nowhere, Error::Io { action: "open", cause, .. } if cause.kind() == std::io::ErrorKind::NotFound)
        );
        assert!(matches!(Weights::from_model("qlnet-digit"), Err(Error::UnknownModel { nearest: Some(_), .. })));
    }
}
