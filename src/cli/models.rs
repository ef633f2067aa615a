//! `qlnet models`: which networks are known by name, and which are here.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use super::arguments::PREPARED;
use super::print::{print, strong, to_json};
use crate::hub::Hub;
use crate::kept::cache_dir;
use crate::kept::inventory::{Kind, files};
use crate::network::packed_kind::{Fit, PackedKind};
use crate::text::{bytes, percent, printable, thousands};
use crate::weights::cache::FORMAT;
use crate::weights::{MODELS, Model, WeightsSource};

/// List the models, and which of them are on this machine
///
/// Nothing is downloaded and nothing is asked of the network. A model is here if its file is in the cache of the hub,
/// or if folded or packed weights of it are kept (see `qlnet cache`): these suffice.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Models {
    /// Print a JSON object a line
    ///
    /// {"name", "parameters", "classes", "input_size", "top1", "top1_images", "top1_source", "download_bytes", "sha256",
    /// "url", "here", "downloaded", "kept"}; "top1" is from 0 to 1.
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  qlnet models                                      all of them
  qlnet models --json | jq -r 'select(.here).name'  those that need no download";

/// A model, and where it is.
#[derive(Serialize)]
struct Entry {
    name: &'static str,
    parameters: Option<u64>,
    classes: usize,
    input_size: u32,
    top1: Option<f64>,
    top1_images: Option<&'static str>,
    top1_source: Option<&'static str>,
    /// Unless it is built in.
    download_bytes: Option<u64>,
    sha256: Option<&'static str>,
    url: Option<String>,
    /// Whether it can be used without a download.
    here: bool,
    /// In the cache of the hub.
    downloaded: Option<String>,
    /// Files that were made of it.
    kept: Vec<String>,
}

/// Lists the models.
pub fn run(args: &Models) -> Result<ExitCode> {
    let (hub, mut kept) = (Hub::from_env(), kept());
    let mut entries = MODELS.iter().map(|model| entry(model, &hub, &mut kept));
    if args.json {
        entries.try_for_each(|entry| print(&to_json(&entry)?))?;
    } else {
        print(&table(&entries.collect::<Vec<_>>()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The files that were made of each checkpoint, by its SHA-256.
fn kept() -> BTreeMap<String, Vec<PathBuf>> {
    let mut kept = BTreeMap::<_, Vec<_>>::new();
    // What cannot be read is not used either.
    for file in cache_dir().and_then(|dir| files(&dir).ok()).into_iter().flatten() {
        let fits = |kind: &str| PackedKind::parse(kind).is_some_and(|kind| kind.fit(&PREPARED) == Fit::Here);
        match file.kind {
            Kind::Folded { sha256, version } if version == FORMAT => kept.entry(sha256).or_default().push(file.path),
            Kind::Packed { sha256, kind } if fits(&kind) => kept.entry(sha256).or_default().push(file.path),
            _ => {}
        }
    }
    kept
}

fn entry(model: &'static Model, hub: &Hub, kept: &mut BTreeMap<String, Vec<PathBuf>>) -> Entry {
    let file = match &model.source {
        WeightsSource::Hub(file) => Some(file),
        WeightsSource::Embedded(_) => None,
    };
    // As far as it is UTF-8, which a text in JSON has to be.
    let text = |path: PathBuf| path.display().to_string();
    let downloaded = file.and_then(|file| hub.here(file)).map(text);
    let kept = file
        .and_then(|file| kept.remove(file.hash.digits()))
        .unwrap_or_default()
        .into_iter()
        .map(text)
        .collect::<Vec<_>>();
    Entry {
        name: model.name,
        parameters: model.parameters,
        classes: (model.config)().num_classes,
        input_size: model.input_size,
        top1: model.published.map(|published| published.top1),
        top1_images: model.published.map(|published| published.images),
        top1_source: model.published.map(|published| published.source),
        download_bytes: file.map(|file| file.size),
        sha256: file.map(|file| file.hash.digits()),
        url: file.map(|file| hub.url(file)),
        here: file.is_none() || downloaded.is_some() || !kept.is_empty(),
        downloaded,
        kept,
    }
}

/// The models for people.
fn table(entries: &[Entry]) -> String {
    let head = format!("{:14} {:>10} {:>8} {:>8} {:>8}  HERE", "MODEL", "PARAMETERS", "DOWNLOAD", "INPUT", "TOP-1");
    let mut lines = vec![strong(&head)];
    for entry in entries {
        let unknown = || "-".to_string();
        let parameters = entry.parameters.map_or_else(unknown, thousands);
        let download = entry.download_bytes.map_or_else(unknown, bytes);
        let (input, top1) = (format!("{0}x{0}", entry.input_size), entry.top1.map_or_else(unknown, percent));
        let here = match (&entry.downloaded, entry.kept.first()) {
            _ if entry.download_bytes.is_none() => "built in".to_string(),
            (Some(path), _) | (None, Some(path)) => printable(path),
            (None, None) => "no".to_string(),
        };
        lines.push(format!("{:14} {parameters:>10} {download:>8} {input:>8} {top1:>8}  {here}", entry.name));
    }
    lines.push(String::new());
    for Entry { name, url, .. } in entries {
        lines.extend(url.as_ref().map(|url| format!("{name:14} from {url}")));
    }
    for entry in entries {
        let with_it: Vec<_> =
            entries.iter().filter(|other| other.claim() == entry.claim()).map(|other| other.name).collect();
        // Each claim once, with the first model that it is about.
        if let Some((images, source)) = entry.claim().filter(|_| with_it[0] == entry.name) {
            lines.push(format!("top-1 of {}: on {images}, as {source} says", with_it.join(" and ")));
        }
    }
    lines.join("\n")
}

impl Entry {
    /// On which images its accuracy was measured, and who says so.
    fn claim(&self) -> Option<(&'static str, &'static str)> {
        self.top1_images.zip(self.top1_source)
    }
}
