//! `qlnet cache`: what is kept in files, and what of it is of no use any more.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, anyhow};
use clap::Args;
use serde::{Serialize, Serializer};

use super::arguments::PREPARED;
use super::print::{print_and_go_on, say, strong, to_json};
use crate::error::Error;
use crate::hub::Hub;
use crate::kept::cache_dir;
use crate::kept::inventory::{KeptFile, Kind, Useless, Uses, files, useless};
use crate::network::packed_kind::{Fit, PackedKind};
use crate::output::abandoned;
use crate::text::{count, printable, size, thousands};
use crate::weights::cache::FORMAT;
use crate::weights::{MODELS, WeightsSource};

/// Show what is kept in files, or remove what is of no use
///
/// So that a start takes little time, the program keeps what it makes of each checkpoint: its weights with batch norm
/// folded in, these as they are packed for the CPU in each element type, and the SHA-256 of files. All of it is made
/// again when it is missing. It is in what QLNET_CACHE names, or in `qlnet` in the user's folder for caches.
///
/// Files that were downloaded are in the cache of the hub, which other programs share: those of the models are shown,
/// and never removed. `hf cache ls` and `hf cache rm` of Python's huggingface_hub look after that cache.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Cache {
    /// Remove what cannot or need not be used any more
    ///
    /// That is what other versions of this program made; copies of checkpoints of which no
    /// file is known any more; hashes of such files; copies for other CPUs that nobody has used for 30 days; of these
    /// nothing that was written in the last ten minutes. And what killed runs left. Nothing that this program did not write.
    #[arg(long)]
    prune: bool,
    /// With --prune: only say what would be removed
    #[arg(long, requires = "prune")]
    dry_run: bool,
    /// Print one JSON object
    ///
    /// {"directory", "bytes", "files": [{"path", "kind", "model", "checkpoint", "sha256", "bytes", "last_used",
    /// "useless", "removed"}], "hub": {"directory", "files": [{"model", "path", "bytes"}]}}; "last_used" is in seconds
    /// since 1970, and "useless" says why a file is, or is null.
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  qlnet cache                        what is kept, of which checkpoint, how large
  qlnet cache --prune --dry-run      what would be removed
  qlnet cache --prune                remove it";

/// A path as far as it is UTF-8, which a text in JSON has to be.
fn as_text<S: Serializer>(path: &Path, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    path.to_string_lossy().serialize(serializer)
}

/// The same of a path that may not be there.
fn as_text_if_any<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    path.as_ref().map(|path| path.to_string_lossy()).serialize(serializer)
}

/// What is kept.
#[derive(Serialize)]
struct Report {
    /// There is none where the system has no place for caches.
    #[serde(serialize_with = "as_text_if_any")]
    directory: Option<PathBuf>,
    bytes: u64,
    files: Vec<Entry>,
    hub: HubReport,
}

/// A file of the cache.
#[derive(Serialize)]
struct Entry {
    #[serde(serialize_with = "as_text")]
    path: PathBuf,
    /// `folded`, `packed`, `hash` or `temporary`.
    kind: &'static str,
    /// What of the kind.
    #[serde(skip)]
    details: String,
    /// The registered model whose checkpoint it was made of.
    model: Option<&'static str>,
    /// A file that it was made of, or whose hash it is.
    #[serde(serialize_with = "as_text_if_any")]
    checkpoint: Option<PathBuf>,
    /// Of the checkpoint.
    sha256: Option<String>,
    bytes: u64,
    last_used: Option<u64>,
    useless: Option<String>,
    removed: bool,
}

/// What the cache of the hub has of the models.
#[derive(Serialize)]
struct HubReport {
    #[serde(serialize_with = "as_text")]
    directory: PathBuf,
    files: Vec<HubEntry>,
}

#[derive(Serialize)]
struct HubEntry {
    model: &'static str,
    #[serde(serialize_with = "as_text")]
    path: PathBuf,
    bytes: u64,
}

/// Shows what is kept, and removes what is of no use if it is told to.
pub fn run(args: &Cache) -> Result<ExitCode> {
    let directory = cache_dir();
    let found = match &directory {
        Some(dir) => files(dir).map_err(Error::io("read", dir))?,
        None => Vec::new(),
    };
    let useless = useless(&found, &uses(), SystemTime::now());
    let mut entries = entries(&found, &useless);
    let all = match args.prune && !args.dry_run {
        true => prune(&mut entries)?,
        false => true,
    };
    let kept = entries.iter().filter(|entry| !entry.removed);
    let report = Report { directory, bytes: kept.map(|entry| entry.bytes).sum(), files: entries, hub: hub() };
    if args.json {
        print_and_go_on(&to_json(&report)?)?;
    } else if args.prune {
        print_and_go_on(&pruned(&report, args.dry_run))?;
    } else {
        print_and_go_on(&table(&report))?;
    }
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The registered models that are files, with their SHA-256.
fn registered() -> impl Iterator<Item = (&'static str, &'static str)> {
    MODELS.iter().filter_map(|model| match &model.source {
        WeightsSource::Hub(file) => Some((model.name, file.hash.digits())),
        WeightsSource::Embedded(_) => None,
    })
}

/// Why each of the files is of no use, if it is not.
fn uses() -> Uses<'static> {
    let packed = |kind: &str| match PackedKind::parse(kind).map(|kind| kind.fit(&PREPARED)) {
        Some(Fit::Here) => None,
        Some(Fit::Elsewhere) => Some(Useless::OtherCpu),
        Some(Fit::Nowhere) | None => Some(Useless::OldFormat),
    };
    Uses { folded: FORMAT, packed, registered: registered().map(|(_, sha256)| sha256).collect() }
}

/// What is known of each file.
fn entries(files: &[KeptFile], useless: &[Option<Useless>]) -> Vec<Entry> {
    let mut checkpoints = BTreeMap::new();
    for file in files {
        if let Kind::Hash(Some(recorded)) = &file.kind {
            checkpoints.insert(recorded.sha256.as_str(), recorded.path.clone());
        }
    }
    let entry = |(file, useless): (&KeptFile, &Option<Useless>)| {
        let (kind, details, sha256) = match &file.kind {
            Kind::Folded { sha256, version } => ("folded", format!("weights, folded ({version})"), Some(sha256)),
            Kind::Packed { sha256, kind } => ("packed", packed_for(kind), Some(sha256)),
            Kind::Hash(_) => ("hash", "hash".into(), None),
            Kind::Temporary => (TEMPORARY, "temporary file".into(), None),
        };
        let checkpoint = match &file.kind {
            Kind::Hash(Some(recorded)) => Some(recorded.path.clone()),
            _ => sha256.and_then(|sha256| checkpoints.get(sha256.as_str()).cloned()),
        };
        let model = registered().find(|(_, known)| sha256.is_some_and(|sha256| sha256 == known)).map(|(name, _)| name);
        let seconds = |time: SystemTime| Some(time.duration_since(UNIX_EPOCH).ok()?.as_secs());
        Entry {
            path: file.path.clone(),
            kind,
            details,
            model,
            checkpoint,
            sha256: sha256.cloned(),
            bytes: file.size,
            last_used: file.used.and_then(seconds),
            useless: useless.map(|useless| useless.to_string()),
            removed: false,
        }
    };
    files.iter().zip(useless).map(entry).collect()
}

/// What [`Kind::Temporary`] is called.
const TEMPORARY: &str = "temporary";

/// For what a network was packed.
fn packed_for(kind: &str) -> String {
    match PackedKind::parse(kind) {
        Some(PackedKind { precision, lanes, arch, .. }) => format!("packed for {precision}, {arch} with {lanes} lanes"),
        None => format!("packed ({kind})"),
    }
}

/// Removes what is of no use. Returns whether all of that could be removed.
fn prune(entries: &mut [Entry]) -> Result<bool> {
    let mut all = true;
    for entry in entries.iter_mut().filter(|entry| entry.useless.is_some()) {
        let lock = (entry.kind == TEMPORARY).then(|| abandoned(&entry.path, true));
        if let Some(None) = lock {
            // A run has begun to write it.
            continue;
        }
        match fs::remove_file(&entry.path) {
            Ok(()) => entry.removed = true,
            // Somebody was faster.
            Err(error) if error.kind() == ErrorKind::NotFound => entry.removed = true,
            // As on Windows, where files that are mapped stay.
            Err(error) => {
                all = false;
                let error = anyhow!(Error::io("remove", &entry.path)(error));
                say("warning", &super::print::one_line(&error));
            }
        }
    }
    Ok(all)
}

/// What the cache of the hub has.
fn hub() -> HubReport {
    let hub = Hub::from_env();
    let files = MODELS.iter().filter_map(|model| {
        let WeightsSource::Hub(file) = &model.source else { return None };
        Some(HubEntry { model: model.name, path: hub.here(file)?, bytes: file.size })
    });
    HubReport { files: files.collect(), directory: hub.cache_dir }
}

/// What was removed, or would be.
fn pruned(report: &Report, dry: bool) -> String {
    let going: Vec<_> =
        report.files.iter().filter(|entry| if dry { entry.useless.is_some() } else { entry.removed }).collect();
    let (verb, all) = (if dry { "would remove" } else { "removed" }, going.iter().map(|entry| entry.bytes).sum());
    let mut lines: Vec<_> = going
        .iter()
        .map(|entry| {
            let (path, reason) = (shown(&entry.path), entry.useless.as_deref().unwrap_or_default());
            format!("{verb} {path}: {reason} ({})", size(entry.bytes))
        })
        .collect();
    let left = report.bytes - if dry { all } else { 0 };
    let files = count(going.len() as u64, "file");
    lines.push(format!("{verb} {files}, {}; {} left", size(all), size(left)));
    lines.join("\n")
}

/// All that is kept, for people.
fn table(report: &Report) -> String {
    let mut lines = match &report.directory {
        Some(dir) => {
            vec![format!("{}: {}, {}", shown(dir), count(report.files.len() as u64, "file"), size(report.bytes))]
        }
        None => vec!["nothing is kept: this system has no folder for caches, and QLNET_CACHE names none".to_string()],
    };
    let mut groups = BTreeMap::<String, Vec<&Entry>>::new();
    for entry in report.files.iter().filter(|entry| entry.sha256.is_some()) {
        groups.entry(title(entry)).or_default().push(entry);
    }
    for (title, entries) in groups {
        lines.push(strong(&title));
        for Entry { details, bytes, last_used, useless, .. } in entries {
            let useless = useless.as_ref().map_or(String::new(), |useless| format!("  {useless}"));
            let used = last_used.map_or(String::new(), ago);
            lines.push(format!("  {details:42} {:>9}  {used}{useless}", size(*bytes)).trim_end().to_string());
        }
    }
    for (kind, name) in [("hash", "hash of a file"), ("temporary", "temporary file")] {
        let entries: Vec<_> = report.files.iter().filter(|entry| entry.kind == kind).collect();
        if !entries.is_empty() {
            let number = thousands(entries.len() as u64);
            lines.push(format!("{}: {number}, {}", strong(name), size(entries.iter().map(|entry| entry.bytes).sum())));
        }
    }
    lines.push(String::new());
    lines.push(format!("{}, the hub's cache:", shown(&report.hub.directory)));
    if report.hub.files.is_empty() {
        lines.push("  none of the models".into());
    }
    for HubEntry { model, path, bytes } in &report.hub.files {
        lines.push(format!("  {model:14} {:>9}  {}", size(*bytes), shown(path)));
    }
    let useless: Vec<_> = report.files.iter().filter(|entry| entry.useless.is_some()).collect();
    if !useless.is_empty() {
        let bytes = useless.iter().map(|entry| entry.bytes).sum();
        lines.push(format!("\n--prune removes {}, {}", count(useless.len() as u64, "file"), size(bytes)));
    }
    lines.join("\n")
}

/// The checkpoint of a file.
fn title(entry: &Entry) -> String {
    let sha256 = entry.sha256.as_deref().unwrap_or_default();
    match (entry.model, &entry.checkpoint) {
        (Some(model), _) => format!("{model} ({sha256:.8})"),
        (None, Some(path)) => format!("{} ({sha256:.8})", shown(path)),
        (None, None) => format!("a checkpoint that was not found again ({sha256:.8})"),
    }
}

fn shown(path: &Path) -> String {
    printable(&path.display().to_string())
}

/// `used today`, `used 3 days ago`
fn ago(seconds: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    match now.saturating_sub(seconds) / 86400 {
        0 => "used today".into(),
        1 => "used yesterday".into(),
        days => format!("used {} days ago", thousands(days)),
    }
}
