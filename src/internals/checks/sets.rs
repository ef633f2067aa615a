//! Archives and tables of images, and files of labels.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::{Outcome, file, one_line, twice};
use crate::cli::image_list::read_list;
use crate::error::Result;
use crate::eval::dataset::{Classes, Dataset, LabelFiles, Listing, RealLabels, read_outputs};
use crate::text::printable;
use crate::weights::registry::{MODELS, find};

/// Images of a set that are read.
const READ: usize = 8;

/// A tar archive of images, or a WebDataset shard.
pub fn archive(bytes: &[u8], scratch: &Path) -> Outcome {
    let path = file(scratch, "set.tar", bytes);
    let listing = listed(&path)?;
    for image in 0..listing.paths().count().min(READ) {
        let read = twice(|| listing.read(image), |one, other| assert!(one == other, "read twice, other bytes"));
        assert!(read.map_or(0, |image| image.len()) <= bytes.len(), "an image larger than its archive");
    }
    labelled(listing)
}

/// A Parquet file of images.
pub fn table(bytes: &[u8], scratch: &Path) -> Outcome {
    let path = file(scratch, "set.parquet", bytes);
    let listing = listed(&path)?;
    for image in 0..listing.paths().count().min(READ) {
        drop(twice(|| listing.read(image), |one, other| assert!(one == other, "read twice, other bytes")));
    }
    labelled(listing)
}

/// Lists the images of a set, and checks that they can be found.
fn listed(path: &Path) -> Result<Listing, String> {
    let same = |one: &Listing, other: &Listing| assert!(one.paths().eq(other.paths()) && one.note() == other.note());
    let listing = twice(|| Listing::new(path), same)?;
    for (image, path) in listing.paths().enumerate() {
        assert!(!path.contains(char::is_control), "{path:?}");
        assert_eq!(listing.find(path), Some(image), "{path}");
    }
    assert!(listing.paths().next().is_some(), "a set without images");
    Ok(listing)
}

/// Checks that what images show is a class.
fn labelled(listing: Listing) -> Outcome {
    let dataset = Dataset::new(listing, digits(), LabelFiles::default()).map_err(|error| one_line(&error))?;
    ensure_classes(&dataset, 10);
    Ok(())
}

fn ensure_classes(dataset: &Dataset, count: u32) {
    let labels = (0..dataset.images()).filter_map(|image| dataset.label(image));
    assert!(labels.into_iter().all(|label| label < count), "a label that is no class");
    assert_eq!(dataset.fingerprint().images, dataset.images());
}

/// A file of labels, of classes or of names. The first byte says which.
pub fn labels(bytes: &[u8], scratch: &Path) -> Outcome {
    let Some((kind, text)) = bytes.split_first() else { return Err("nothing".into()) };
    let [numbered, named, folders] = sets(scratch);
    let path = file(scratch, "labels.txt", text);
    let listing = |folder: &PathBuf| Listing::new(folder).expect("a folder of images");
    let dataset = |folder: &PathBuf, classes: &Classes, files: LabelFiles| {
        let read = || Dataset::new(listing(folder), classes, files);
        let dataset = twice(read, |one, other| {
            assert_eq!(one.fingerprint(), other.fingerprint());
        })?;
        ensure_classes(&dataset, if std::ptr::eq(classes, digits()) { 10 } else { 1000 });
        Ok(())
    };
    let of_labels = LabelFiles { labels: Some(&path), ..LabelFiles::default() };
    let of_classes = LabelFiles { class_map: Some(&path), ..LabelFiles::default() };
    match kind {
        b'0' => dataset(&named, digits(), of_labels),
        b'1' => dataset(&numbered, imagenet(), of_labels),
        b'2' => dataset(&numbered, imagenet(), LabelFiles { zero_based: true, ..of_labels }),
        b'3' => dataset(&folders, imagenet(), of_classes),
        b'4' => {
            let numbers = file(scratch, "numbers.txt", b"1\n2\n3\n");
            dataset(&numbered, imagenet(), LabelFiles { labels: Some(&numbers), ..of_classes })
        }
        b'5' | b'6' => {
            let listing = listing(if *kind == b'5' { &numbered } else { &named });
            let of = |real: &RealLabels| listing.paths().map(|path| real.of(path).to_vec()).collect::<Vec<_>>();
            let real =
                twice(|| RealLabels::open(&path, listing.paths(), 1000), |one, other| assert_eq!(of(one), of(other)))?;
            assert!(of(&real).concat().iter().all(|class| *class < 1000));
            Ok(())
        }
        b'7' => {
            let outputs = twice(|| read_outputs(&path, imagenet()), |one, other| assert_eq!(one, other))?;
            assert!(outputs.is_sorted_by(|one, other| one < other) && outputs.last().is_some_and(|last| *last < 1000));
            Ok(())
        }
        _ => {
            let end = if *kind == b'8' { b'\n' } else { 0 };
            let mut names = Vec::new();
            read_list(text, end, &mut names).map_err(|error| printable(&format!("{error:#}")))?;
            assert!(names.iter().all(|name| !name.as_os_str().is_empty()), "an empty name");
            Ok(())
        }
    }
}

/// Folders of three images each: with numbers in their names, with others, and in class folders.
fn sets(scratch: &Path) -> [PathBuf; 3] {
    let names = [
        ["ILSVRC2012_val_00000001.JPEG", "ILSVRC2012_val_00000002.JPEG", "ILSVRC2012_val_00000003.JPEG"],
        ["a.png", "b.png", "c.png"],
        ["n01440764/a.png", "cat/b.png", "7/c.png"],
    ];
    let folders = ["numbered", "named", "folders"].map(|folder| scratch.join(folder));
    for (folder, names) in folders.iter().zip(names) {
        for path in names.map(|name| folder.join(name)).into_iter().filter(|path| !path.exists()) {
            let made = fs::create_dir_all(path.parent().unwrap_or(folder)).and_then(|()| fs::write(&path, ""));
            made.expect("the folder for scratch files can be written");
        }
    }
    folders
}

fn digits() -> &'static Classes {
    static DIGITS: OnceLock<Classes> = OnceLock::new();
    DIGITS.get_or_init(|| Classes::new(&find("qlnet-digits").expect("it is registered").labels()))
}

fn imagenet() -> &'static Classes {
    static IMAGENET: OnceLock<Classes> = OnceLock::new();
    IMAGENET.get_or_init(|| Classes::new(&MODELS[0].labels()))
}
