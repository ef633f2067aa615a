//! WebDataset shards: tar archives in which the files of a sample share a key, the part of their path before the
//! first dot of the name.
//!
//! ```text
//! 00001.jpg  00001.cls  00001.json      an image, its class in decimal, and {"label": 7, ...}
//! ```
//!
//! Aizman, Maltby, Breuel, "High Performance I/O For Large Scale Deep Learning",
//! [arXiv 2001.01858](https://arxiv.org/abs/2001.01858), and the library `webdataset`, whose names of keys and
//! extensions these are.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::Layout;
use super::archive::Member;
use super::beside::read_beside;
use super::listing::{Entry, Kind};
use crate::error::{Context, Reason, Result, bail, ensure};
use crate::input::files::is_image_name;

/// Extension of the file with a sample's class, where none is named.
const CLASS: &str = "cls";
/// Field of a sample's JSON with its class, where none is named.
const LABEL: &str = "label";
/// In bytes, of a file that says a sample's class: much more than any needs.
const LONGEST: u64 = 1 << 20;
/// In bytes, of a file that names classes: those of ImageNet-21k with all their synonyms take one megabyte.
const LARGEST_NAMES: u64 = 16 << 20;

/// Key and extension of a file: `a/b` and `seg.png` of `a/b.seg.png`. Hidden files are part of no sample.
fn key_and_extension(path: &str) -> Option<(&str, &str)> {
    let name = path.rfind('/').map_or(0, |slash| slash + 1);
    let dot = name + path[name..].find('.').filter(|dot| *dot > 0)?;
    Some((&path[..dot], &path[dot + 1..]))
}

/// The files of a sample, by their numbers among an archive's members.
#[derive(Default)]
struct Sample {
    image: Option<usize>,
    class: Option<usize>,
    json: Option<usize>,
}

/// Whether the files of an archive are samples, and not images whose folders or a list say what they show: whether
/// an image has a file beside it that says its class.
pub fn is_shard(archive: &Path, members: &[Member], layout: &Layout) -> Result<bool, Reason> {
    let beside = beside_images(members, layout);
    if beside.iter().any(|(_, extension)| *extension == class_extension(layout)) {
        return Ok(true);
    }
    // JSON beside an image can say anything: a few will show whether it says a class.
    const LOOKED_AT: usize = 100;
    let mut file = File::open(archive)?;
    let json = beside.into_iter().filter(|(_, extension)| *extension == "json").take(LOOKED_AT);
    let mut labels = json.map(|(json, _)| label_in_json(&mut file, json, layout));
    Ok(labels.any(|label| label.is_ok_and(|label| label.is_some())))
}

/// The files of the samples that have images, these too, with their extensions, in the order of the archive.
fn beside_images<'a>(members: &'a [Member], layout: &Layout) -> Vec<(&'a Member, &'a str)> {
    let images = members.iter().filter(|member| is_image(member, layout));
    let keys: HashSet<&str> = images.filter_map(|image| Some(key_and_extension(&image.path)?.0)).collect();
    let parts = members.iter().filter_map(|member| Some((member, key_and_extension(&member.path)?)));
    parts.filter(|(_, (key, _))| keys.contains(key)).map(|(member, (_, extension))| (member, extension)).collect()
}

/// What the samples of an archive have that is no shard, for a message.
pub fn what_samples_have(members: &[Member], layout: &Layout) -> String {
    let endings: BTreeSet<String> =
        beside_images(members, layout).iter().map(|(_, extension)| format!("`{extension}`")).collect();
    match endings.is_empty() {
        true => "there are no images in it".into(),
        false => format!("its samples have {}", endings.into_iter().take(8).collect::<Vec<_>>().join(", ")),
    }
}

/// Whether a file in an archive is the image of its sample.
fn is_image(member: &Member, layout: &Layout) -> bool {
    let extension = key_and_extension(&member.path).map_or("", |(_, extension)| extension);
    match &layout.input_key {
        Some(wanted) => wanted.split(';').any(|wanted| wanted.trim_start_matches('.').eq_ignore_ascii_case(extension)),
        None => is_image_name(member.path.as_ref()),
    }
}

/// Extension of the file with a sample's class.
fn class_extension(layout: &Layout) -> &str {
    layout.target_key.as_deref().map_or(CLASS, |key| key.trim_start_matches('.'))
}

/// The images of a shard with their labels: of the archive of that number, whose samples' paths begin with `name`.
pub fn entries(
    archive: &Path,
    number: u32,
    name: &str,
    members: Vec<Member>,
    layout: &Layout,
) -> Result<Vec<Entry>, Reason> {
    let mut file = File::open(archive)?;
    let samples = samples_of(&members, layout)?;
    let mut entries = Vec::with_capacity(samples.len());
    for (key, Sample { image, class, json }) in samples {
        let label = match (class, json) {
            (Some(class), _) => Some(label_in_text(&mut file, &members[class])?),
            (None, Some(json)) => label_in_json(&mut file, &members[json], layout)?,
            (None, None) => None,
        };
        let found = match image {
            Some(image) => members[image].entry(number),
            // What has neither an image nor a label is no sample, but a file about the shard.
            None if label.is_none() => continue,
            None => Entry { path: key.into(), size: 0, place: 0, file: number, kind: Kind::Missing, label },
        };
        entries.push(Entry { path: format!("{name}/{}", found.path).into(), label, ..found });
    }
    Ok(entries)
}

/// The file with names of classes that clip-benchmark writes beside shards, or beside their folder.
pub fn names_file(archive: &Path) -> Result<Option<PathBuf>, Reason> {
    // Of links, as the hub's cache consists of, the folder counts in which they are.
    let folder = archive.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    let folder = folder.canonicalize()?;
    for file in folder.ancestors().take(2).map(|folder| folder.join("classnames.txt")) {
        if file.try_exists().with_context(|| file.display())? {
            return Ok(Some(file));
        }
    }
    Ok(None)
}

/// The names of classes in such a file, a line each. Labels of clip-benchmark's subsets of ImageNet count these, and not the
/// thousand.
pub fn class_names(file: &Path) -> Result<Vec<String>, Reason> {
    let shown = file.display();
    let bytes = read_beside(file, LARGEST_NAMES).context(&shown)?.with_context(|| format!("{shown}: it is gone"))?;
    let text = String::from_utf8(bytes).context(&shown)?;
    let names: Vec<String> = text.trim_end().lines().map(|line| line.trim().to_string()).collect();
    ensure!(!names.contains(&String::new()), "{shown}: a line is blank, and lines are counted");
    Ok(names)
}

/// The samples of an archive by their keys, in the order of these, so that of several faults the same one is said each
/// time.
fn samples_of<'a>(members: &'a [Member], layout: &Layout) -> Result<BTreeMap<&'a str, Sample>, Reason> {
    let mut samples: BTreeMap<&str, Sample> = BTreeMap::new();
    for (index, member) in members.iter().enumerate() {
        let Some((key, extension)) = key_and_extension(&member.path) else { continue };
        let sample = samples.entry(key).or_default();
        let place = if is_image(member, layout) {
            &mut sample.image
        } else if extension == class_extension(layout) {
            &mut sample.class
        } else if extension == "json" {
            &mut sample.json
        } else {
            continue;
        };
        if let Some(other) = place.replace(index) {
            let (one, other) = (&members[other].path, &member.path);
            ensure!(one != other, "{one} is in the archive twice");
            bail!("the sample {key} has both {one} and {other}; an input key (--input-key) says which is the image");
        }
    }
    Ok(samples)
}

/// What a file says that has nothing but a class.
fn label_in_text(archive: &mut File, member: &Member) -> Result<i32, Reason> {
    let bytes = read(archive, member)?;
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim();
    let shown: String = text.chars().take(20).collect();
    text.parse().with_context(|| format!("{} holds no class index: {shown:?}", member.path))
}

/// The class in a sample's JSON, if it says one.
fn label_in_json(archive: &mut File, member: &Member, layout: &Layout) -> Result<Option<i32>, Reason> {
    let bytes = read(archive, member)?;
    let json: serde_json::Value =
        serde_json::from_slice(&bytes).with_context(|| format!("{} is no JSON", member.path))?;
    let field = layout.target_key.as_deref().filter(|key| !["json", ".json"].contains(key)).unwrap_or(LABEL);
    let Some(value) = json.get(field).filter(|value| !value.is_null()) else { return Ok(None) };
    let label = value.as_i64().and_then(|label| i32::try_from(label).ok());
    label.map(Some).with_context(|| format!("{}: {field} is no class index: {value}", member.path))
}

fn read(archive: &mut File, member: &Member) -> Result<Vec<u8>, Reason> {
    ensure!(member.regular && member.size <= LONGEST, "{} is no file that could say a class", member.path);
    archive.seek(SeekFrom::Start(member.offset))?;
    let mut bytes = vec![0; member.size as usize];
    archive.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_webdataset() {
        // As webdataset.tariterators.base_plus_ext has them.
        for (path, expected) in [
            ("a/b/00001.jpg", Some(("a/b/00001", "jpg"))),
            ("00001.seg.png", Some(("00001", "seg.png"))),
            ("a.b/c", None),
            ("a.b/c.d", Some(("a.b/c", "d"))),
            (".hidden.jpg", None),
            ("a/._x.jpg", None),
            ("00001", None),
            ("00001.", Some(("00001", ""))),
        ] {
            assert_eq!(key_and_extension(path), expected, "{path}");
        }
    }
}
