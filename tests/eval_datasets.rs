//! Which images `qlnet eval` finds, and what it takes them to show.

#[path = "support/eval.rs"]
mod eval_support;
mod support;

use std::fs;
use std::path::{Path, PathBuf};

use eval_support::{HELD_OUT, held_out, json, messages, rows};
use qlnet::eval::dataset::Listing;
use qlnet::weights::{Config, Weights};
use serde_json::Value;
use support::fixture;
use support::program::{Qlnet, assert_error, not_found, stderr};

/// The file of predictions of a run, and what it says on standard error.
fn predictions(qlnet: &Qlnet, data: &Path, name: &str, args: &[&str]) -> (String, String) {
    let file = qlnet.path(name);
    let output = qlnet.eval(data, &[&["--predictions", file.to_str().unwrap(), "--json"], args].concat());
    json(&output);
    (fs::read_to_string(&file).unwrap(), messages(&output))
}

/// A tar archive in the home directory, of all that is in `dir`, below the folder `around`.
fn archive(qlnet: &Qlnet, name: &str, around: &str, dir: &Path) -> PathBuf {
    let mut archive = tar::Builder::new(fs::File::create(qlnet.path(name)).unwrap());
    archive.append_dir_all(around, dir).unwrap();
    archive.finish().unwrap();
    qlnet.path(name)
}

#[test]
fn every_form_of_a_dataset_gives_the_same() {
    let qlnet = Qlnet::new();
    let predictions = |data: &Path, name: &str, args: &[&str]| predictions(&qlnet, data, name, args);
    // The archive, and the same unpacked.
    let whole = predictions(Path::new(HELD_OUT), "tar.csv", &[]);
    assert_eq!(predictions(&qlnet.unpacked("folders"), "folders.csv", &[]), whole);

    // One folder, with labels in every way: as a list, by Kaggle's file beside the images, in a tar.
    let (flat, labels) = qlnet.flat("flat", 20);
    let list: String = labels.iter().map(|label| format!("{label}\n")).collect();
    let list = qlnet.file("list.txt", list.as_bytes());
    let (expected, _) = predictions(&flat, "flat.csv", &["--labels", list.to_str().unwrap()]);
    assert_eq!(expected.lines().count(), 21);
    let kaggle: String =
        labels.iter().enumerate().rev().map(|(i, l)| format!("ILSVRC2012_val_{:08},{l} 1 2 3 4 \n", i + 1)).collect();
    fs::write(flat.join("LOC_val_solution.csv"), format!("ImageId,PredictionString\n{kaggle}")).unwrap();
    let (found, note) = predictions(&flat, "kaggle.csv", &[]);
    assert_eq!(found, expected);
    assert!(note.starts_with("note: labels from") && note.trim_end().ends_with("LOC_val_solution.csv"), "{note}");
    let val = archive(&qlnet, "val.tar", ".", &flat);
    assert_eq!(predictions(&val, "val.csv", &["--labels", list.to_str().unwrap()]).0, expected);

    // A folder around all of them, in an archive.
    let around = archive(&qlnet, "around.tar", "val", &qlnet.path("folders"));
    assert!(predictions(&around, "around.csv", &[]) == whole);

    // Folders with names of their own, by a class map.
    let folders = qlnet.path("named");
    fs::create_dir(&folders).unwrap();
    for (digit, name) in ["zero", "one", "two"].into_iter().enumerate() {
        fs::rename(qlnet.path("folders").join(digit.to_string()), folders.join(name)).unwrap();
    }
    let map = qlnet.file("map.txt", b"one 1\ntwo 2\nzero 0\n");
    let (named, _) = predictions(&folders, "named.csv", &["--class-map", map.to_str().unwrap()]);
    let expected: Vec<_> = rows(&qlnet.path("tar.csv")).into_iter().filter(|row| row["label"].as_str() < "3").collect();
    assert_eq!(named.lines().count(), 1 + expected.len());
    for row in rows(&qlnet.path("named.csv")) {
        let name = row["path"].rsplit('/').next().unwrap().to_string();
        let same = expected.iter().find(|other| other["path"].ends_with(&name)).unwrap();
        assert_eq!((&row["label"], &row["loss"]), (&same["label"], &same["loss"]));
    }
}

#[cfg(unix)]
#[test]
fn links_are_followed() {
    use std::os::unix::fs::symlink;
    let qlnet = Qlnet::new();
    let (folders, links) = (qlnet.unpacked("folders"), qlnet.path("links"));
    fs::create_dir(&links).unwrap();
    for digit in 0..10 {
        symlink(folders.join(digit.to_string()), links.join(digit.to_string())).unwrap();
    }
    let whole = predictions(&qlnet, Path::new(HELD_OUT), "tar.csv", &[]);
    assert!(predictions(&qlnet, &links, "links.csv", &[]) == whole);
    symlink("nowhere", links.join("10")).unwrap();
    assert_error(&qlnet.eval(&links, &[]), &["links/10", &not_found("nowhere"), "mend it or remove it"]);
    fs::remove_file(links.join("10")).unwrap();
    symlink(".", links.join("10")).unwrap();
    assert_error(&qlnet.eval(&links, &[]), &["links/10", "in a circle", "mend it or remove it"]);
}

/// macOS writes `._NAME` beside `NAME` where a file system or an archive cannot hold all that it knows of it.
#[test]
fn what_macos_leaves_beside_images_is_none() {
    let qlnet = Qlnet::new();
    let whole = predictions(&qlnet, Path::new(HELD_OUT), "whole.csv", &[]);
    let folders = qlnet.unpacked("folders");
    let names: Vec<String> = Listing::new(&folders).unwrap().paths().map(str::to_string).collect();
    for name in names.iter().step_by(50) {
        let (folder, file) = name.split_once('/').unwrap();
        fs::write(folders.join(folder).join(format!("._{file}")), b"Mac OS X").unwrap();
    }
    assert!(predictions(&qlnet, &folders, "folders.csv", &[]) == whole);
    let archive = archive(&qlnet, "mac.tar", ".", &folders);
    assert!(predictions(&qlnet, &archive, "archive.csv", &[]) == whole);
}

/// Files of predictions and JSON hold names as text: two that are not UTF-8 would become the same.
#[cfg(target_os = "linux")]
#[test]
fn names_are_utf8() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let qlnet = Qlnet::new();
    let folders = qlnet.unpacked("folders");
    fs::write(folders.join("3").join(OsStr::from_bytes(b"\xff.png")), b"").unwrap();
    assert_error(&qlnet.eval(&folders, &[]), &["folders", "3", "rename it to UTF-8"]);
    let archive = archive(&qlnet, "latin.tar", ".", &folders);
    assert_error(&qlnet.eval(&archive, &[]), &["latin.tar", "not UTF-8"]);
    // Nor do lines break in the middle of a name.
    let folders = qlnet.unpacked("other");
    fs::write(folders.join("3/new\nline.png"), b"").unwrap();
    assert_error(&qlnet.eval(&folders, &[]), &["3/new\\nline.png", "a control character in a name"]);
}

/// Asserts that a dataset is refused before a file of predictions is begun.
fn refused(qlnet: &Qlnet, data: &Path, args: &[&str], parts: &[&str]) {
    let file = qlnet.path("refused.csv");
    assert_error(&qlnet.eval(data, &[args, &["--predictions", file.to_str().unwrap()]].concat()), parts);
    assert!(!qlnet.files().iter().any(|name| name.starts_with("refused")), "{:?}", qlnet.files());
}

#[test]
fn wrong_datasets_are_explained() {
    let qlnet = Qlnet::new();
    let refused = |data: &Path, args: &[&str], parts: &[&str]| refused(&qlnet, data, args, parts);
    refused(&qlnet.path("missing"), &[], &["missing", &not_found(qlnet.path("missing"))]);
    fs::create_dir_all(qlnet.path("empty/3")).unwrap();
    refused(&qlnet.path("empty"), &[], &["empty: no images here"]);
    let (flat, labels) = qlnet.flat("flat", 20);
    refused(&flat, &[], &["not in class folders", "--labels"]);
    let list = |name: &str, labels: &[u32]| {
        let text: String = labels.iter().map(|label| format!("{label}\n")).collect();
        qlnet.file(name, text.as_bytes()).to_str().unwrap().to_string()
    };
    refused(&flat, &["--labels", &list("short.txt", &labels[1..])], &["short.txt has 19 labels", "20 images"]);
    refused(
        &flat,
        &["--labels", &list("wrong.txt", &[&labels[1..], &[10]].concat())],
        &["wrong.txt, line 20: `10`", "0 to 9"],
    );
    refused(&flat, &["--labels", "nowhere.txt"], &["cannot read nowhere.txt"]);
    refused(&flat, &["--class-map", &list("map.txt", &[1])], &["name a list of labels with --labels"]);
    let real = qlnet.file("real.json", b"{}");
    let good = list("labels.txt", &labels);
    refused(&flat, &["--labels", &good, "--real-labels", real.to_str().unwrap()], &["real.json", "list of lists"]);

    // Both forms at once.
    fs::create_dir(flat.join("3")).unwrap();
    fs::copy(flat.join("ILSVRC2012_val_00000007.png"), flat.join("3/ILSVRC2012_val_00000007.png")).unwrap();
    refused(&flat, &[], &["in class folders (1) and beside them (20, 1 names in both)"]);
    refused(&flat, &["--labels", &good], &["have one name"]);

    let folders = qlnet.unpacked("folders");
    fs::rename(folders.join("7"), folders.join("seven")).unwrap();
    refused(&folders, &[], &["folders", "`seven`", "--class-map"]);
    refused(qlnet.home.path(), &[], &["`folders`", "did you mean"]);
    // A network of seven classes without labels.
    let weights = fixture("two-filters.pth.tar");
    let [folders, weights] = [&folders, &weights].map(|path| path.to_str().unwrap());
    let output = qlnet.run(&["eval", "-q", "--data", folders, "--weights", weights]);
    assert_error(&output, &["`8`", "`9`", "labels or indices"]);
}

#[test]
fn archives_that_are_cut_compressed_or_none_are_refused() {
    let qlnet = Qlnet::new();
    let refused = |data: &Path, parts: &[&str]| refused(&qlnet, data, &[], parts);
    let archive = fs::read(held_out()).unwrap();
    let entries = 360 * 1024;
    for (length, message) in [
        (entries / 2 + 100, "damaged or cut short"),
        (entries / 2 + 520, "cut short in"),
        (entries / 2, "no end mark"),
        (entries, "no end mark"),
        (300, "neither a directory nor a tar archive"),
        (0, "neither a directory nor a tar archive"),
    ] {
        let cut = qlnet.file("cut.tar", &archive[..length]);
        refused(&cut, &["cut.tar", message]);
    }
    refused(&qlnet.file("val.tar.gz", &[&b"\x1f\x8b"[..], &archive[..1000]].concat()), &["compressed"]);
    refused(&qlnet.file("noise.tar", &[7; 5000]), &["neither a directory nor a tar archive"]);
    let twice = [&archive[..entries], &archive[..]].concat();
    refused(&qlnet.file("twice.tar", &twice), &["is in the archive twice"]);
}

/// A list of the development kit is asked about, and its map says what the numbers mean.
#[test]
fn numbers_of_the_development_kit_need_its_map() {
    let qlnet = Qlnet::new();
    // A network with ImageNet's classes; what it says of digits does not matter here.
    let weights = Weights::random(&Config { num_classes: 1000, ..Config::qlnet_digits() }, 1).unwrap();
    let weights = qlnet.file("thousand.safetensors", &weights.to_safetensors().unwrap());
    let (flat, _) = qlnet.flat("flat", 3);
    fs::write(flat.join("ILSVRC2012_validation_ground_truth.txt"), "490\n361\n171\n").unwrap();
    let map = qlnet.file("map_clsloc.txt", b"n02119789 171 kit_fox\nn01440764 361 tench\nn01751748 490 sea_snake\n");
    let rows = qlnet.path("rows.jsonl");
    let run = |args: &[&str]| {
        let flat = flat.to_str().unwrap();
        let common = ["eval", flat, "--crop", "64", "--weights", weights.to_str().unwrap()];
        qlnet.run(&[&common[..], &["--predictions", rows.to_str().unwrap()], args].concat())
    };
    assert_error(&run(&[]), &["ground_truth.txt", "indices from 0", "--zero-based", "--class-map"]);
    for (args, expected) in
        [(&["--zero-based"][..], [490, 361, 171]), (&["--class-map", map.to_str().unwrap()], [65, 0, 278])]
    {
        let output = run(args);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let rows = fs::read_to_string(&rows).unwrap();
        let label = |row: &str| serde_json::from_str::<Value>(row).unwrap()["label"].as_u64().unwrap();
        assert_eq!(rows.lines().map(label).collect::<Vec<_>>(), expected);
    }
}
