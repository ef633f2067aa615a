//! `qlnet eval` as a user runs it.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use qlnet::eval::dataset::{Classes, Dataset, Listing, Selection};
use serde_json::Value;
use support::program::{DIGITS, Qlnet, assert_error, stderr, stdout};
use support::{fixture, reference_dir};

const HELD_OUT: &str = "samples/digits-held-out.tar";

impl Qlnet {
    /// Evaluates qlnet-digits.
    fn eval(&self, data: &Path, args: &[&str]) -> Output {
        let data = data.to_str().unwrap();
        self.run(&[&["eval", "--imagenet-val", data, DIGITS[0], DIGITS[1]], args].concat())
    }

    /// The held-out digits as a folder per class.
    fn unpacked(&self, name: &str) -> PathBuf {
        let dir = self.home.path().join(name);
        let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join(HELD_OUT);
        tar::Archive::new(fs::File::open(archive).unwrap()).unpack(&dir).unwrap();
        dir
    }

    /// The first `count` of them in one folder, and their labels.
    fn flat(&self, name: &str, count: usize) -> (PathBuf, Vec<u32>) {
        let (from, dir) = (self.unpacked(&format!("{name}-source")), self.home.path().join(name));
        fs::create_dir(&dir).unwrap();
        let paths: Vec<String> = Listing::new(&from).unwrap().paths().map(str::to_string).collect();
        let labels = paths.iter().step_by(paths.len() / count).take(count).enumerate().map(|(i, path)| {
            fs::copy(from.join(path), dir.join(format!("ILSVRC2012_val_{:08}.png", i + 1))).unwrap();
            path[..1].parse().unwrap()
        });
        let labels = labels.collect();
        (dir, labels)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Names of what is in the home directory.
    fn files(&self) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(self.home.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn json(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    serde_json::from_str(&stdout(output)).unwrap()
}

/// The rows of a CSV file, by column.
fn rows(path: &Path) -> Vec<std::collections::HashMap<String, String>> {
    csv::Reader::from_path(path).unwrap().deserialize().map(Result::unwrap).collect()
}

#[test]
fn the_held_out_digits_score_as_in_pytorch() {
    let qlnet = Qlnet::new();
    let file = qlnet.path("p.csv");
    let output = qlnet.eval(Path::new(HELD_OUT), &["--json", "--predictions", file.to_str().unwrap()]);
    let result = json(&output);
    assert!(stderr(&output).is_empty(), "{}", stderr(&output));
    assert_eq!((result["images"].as_u64(), result["errors"].as_u64()), (Some(360), Some(0)));
    assert_eq!((result["top1"].as_f64(), result["top5"].as_f64()), (Some(357.0 / 360.0), Some(1.0)));
    assert!(result["images_per_second"].as_f64().unwrap() > 0.0);
    let (found, expected) = (rows(&file), rows(&fixture("digits-held-out.csv")));
    assert_eq!((found.len(), expected.len()), (360, 360));
    let mut loss = 0.0;
    for (found, expected) in found.iter().zip(&expected) {
        for column in ["path", "label", "top1", "top2", "top3", "top4", "top5", "rank"] {
            assert_eq!(found[column], expected[column], "{column} of {}", found["path"]);
        }
        for column in ["p1", "p2", "p3", "p4", "p5", "loss"] {
            let number = |row: &std::collections::HashMap<String, String>| row[column].parse::<f64>().unwrap();
            let (found, expected) = (number(found), number(expected));
            assert!((found - expected).abs() <= 2e-6 + 1e-5 * expected.abs(), "{column}: {found} {expected}");
        }
        loss += expected["loss"].parse::<f64>().unwrap() / 360.0;
    }
    assert!((result["loss"].as_f64().unwrap() - loss).abs() < 1e-6);
}

/// The twelve digits among the reference images, in a full-size network with ImageNet's classes.
#[test]
fn reference_images_score_as_in_pytorch() {
    let Some(reference) = reference_dir() else { return };
    let expected: Value = serde_json::from_slice(&fs::read(reference.join("expected.json")).unwrap()).unwrap();
    let qlnet = Qlnet::new();
    let dir = qlnet.path("val");
    for entry in fs::read_dir(reference.join("images")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if let Some((wnid, _)) = name.split_once("_ILSVRC") {
            fs::create_dir_all(dir.join(wnid)).unwrap();
            fs::copy(&path, dir.join(wnid).join(name)).unwrap();
        }
    }
    let (weights, file) = (reference.join("qlnet-50-v0.digits.pth.tar"), qlnet.path("p.jsonl"));
    let [data, weights, predictions] = [&dir, &weights, &file].map(|path| path.to_str().unwrap());
    let args = ["eval", "--imagenet-val", data, "--weights", weights, "--predictions", predictions, "--json"];
    let result = json(&qlnet.run(&args));
    assert_eq!(result["images"], 12);
    let mut right = 0;
    for line in fs::read_to_string(&file).unwrap().lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let name = row["path"].as_str().unwrap().rsplit('/').next().unwrap();
        let mut images = expected["images"].as_array().unwrap().iter();
        let image = images.find(|image| image["image"].as_str().unwrap().ends_with(name)).unwrap();
        let logits: Vec<f64> = image["logits"].as_array().unwrap().iter().map(|l| l.as_f64().unwrap()).collect();
        let label = row["label"].as_u64().unwrap() as usize;
        let rank = 1 + logits.iter().filter(|logit| **logit > logits[label]).count() as u64;
        assert_eq!(row["rank"], rank, "{name}");
        let sum: f64 = logits.iter().map(|logit| logit.exp()).sum();
        let top = row["top1"].as_u64().unwrap() as usize;
        assert!(logits.iter().all(|logit| *logit <= logits[top]), "{name}");
        assert!((row["p1"].as_f64().unwrap() - logits[top].exp() / sum).abs() < 2e-3, "{name}");
        right += u64::from(rank == 1);
    }
    assert_eq!(result["top1"], right as f64 / 12.0);
}

#[test]
fn every_form_of_a_dataset_gives_the_same() {
    let qlnet = Qlnet::new();
    let predictions = |data: &Path, name: &str, args: &[&str]| {
        let file = qlnet.path(name);
        let output = qlnet.eval(data, &[&["--predictions", file.to_str().unwrap(), "--json"], args].concat());
        json(&output);
        (fs::read_to_string(&file).unwrap(), stderr(&output))
    };
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
    let mut archive = tar::Builder::new(fs::File::create(qlnet.path("val.tar")).unwrap());
    archive.append_dir_all(".", &flat).unwrap();
    archive.finish().unwrap();
    assert_eq!(predictions(&qlnet.path("val.tar"), "val.csv", &["--labels", list.to_str().unwrap()]).0, expected);

    // A folder around all of them, in an archive.
    let mut archive = tar::Builder::new(fs::File::create(qlnet.path("around.tar")).unwrap());
    archive.append_dir_all("val", qlnet.path("folders")).unwrap();
    archive.finish().unwrap();
    assert!(predictions(&qlnet.path("around.tar"), "around.csv", &[]) == whole);

    // Links to folders.
    #[cfg(unix)]
    {
        let links = qlnet.path("links");
        fs::create_dir(&links).unwrap();
        for digit in 0..10 {
            let folder = qlnet.path("folders").join(digit.to_string());
            std::os::unix::fs::symlink(folder, links.join(digit.to_string())).unwrap();
        }
        assert!(predictions(&links, "links.csv", &[]) == whole);
        std::os::unix::fs::symlink("nowhere", links.join("10")).unwrap();
        assert_error(&qlnet.eval(&links, &[]), &["links/10", "No such file", "mend it or remove it"]);
    }

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

#[test]
fn real_labels_accept_several_answers() {
    let qlnet = Qlnet::new();
    let (flat, labels) = qlnet.flat("flat", 20);
    fs::write(flat.join("labels.txt"), labels.iter().map(|label| format!("{label}\n")).collect::<String>()).unwrap();
    // The first image shows nothing that anybody agrees on, the second something else.
    let mut lists: Vec<Vec<u32>> = labels.iter().map(|label| vec![(label + 1) % 10, *label]).collect();
    lists[0].clear();
    lists[1] = vec![(labels[1] + 1) % 10];
    let real = qlnet.file("real.json", serde_json::to_string(&lists).unwrap().as_bytes());
    let result = json(&qlnet.eval(&flat, &["--json", "--real-labels", real.to_str().unwrap()]));
    assert_eq!((&result["top1"], &result["real_images"]), (&Value::from(1.0), &Value::from(19)));
    assert_eq!(result["real"], 18.0 / 19.0);
    let table = stdout(&qlnet.eval(&flat, &["--real-labels", real.to_str().unwrap()]));
    assert!(table.contains("ReaL               94.74 %") && table.contains("of 19 images"), "{table}");
}

#[test]
fn a_part_is_chosen_by_number_or_by_seed() {
    let qlnet = Qlnet::new();
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join(HELD_OUT);
    let select = |selection| -> Vec<String> {
        let classes = Classes::new(&qlnet::weights::registry::find("qlnet-digits").unwrap().labels());
        let dataset = Dataset::new(Listing::new(&archive).unwrap(), &classes, None, None).unwrap().select(selection);
        assert!((0..dataset.images()).all(|image| dataset.path(image)[..1] == dataset.label(image).to_string()));
        dataset.listing().paths().map(str::to_string).collect()
    };
    let all = select(Selection::All);
    assert_eq!(select(Selection::First(7)), all[..7]);
    let random = |count, seed| select(Selection::Random { count, seed });
    assert_eq!(random(20, 1), random(20, 1));
    assert_ne!(random(20, 1), random(20, 2));
    assert_eq!(random(1000, 1), all);
    assert!(random(20, 1).is_sorted() && random(20, 1).len() == 20);
    // Every image is drawn with the same probability: 360 draws of a tenth each, of 36.
    let mut drawn = std::collections::HashMap::<String, u32>::new();
    (0..360).flat_map(|seed| random(36, seed)).for_each(|path| *drawn.entry(path).or_default() += 1);
    assert!(all.iter().all(|path| (10..=70).contains(&drawn[path])));

    let sample = ["--sample", "50", "--seed", "3"];
    let result = json(&qlnet.eval(&archive, &[&["--json"], &sample[..]].concat()));
    assert_eq!((&result["images"], &result["complete"]), (&Value::from(50), &Value::from(true)));
    assert_eq!(result["selection"]["random"]["seed"], 3);
    let table = stdout(&qlnet.eval(&archive, &[&["--shard", "2/2"], &sample[..]].concat()));
    assert!(table.starts_with("images             25   50 at random, seed 3, shard 2/2"), "{table}");
}

#[test]
fn an_interrupted_run_goes_on_to_the_same_result() {
    let qlnet = Qlnet::new();
    for format in ["csv", "jsonl"] {
        let (whole, part) = (qlnet.path(&format!("whole.{format}")), qlnet.path(&format!("part.{format}")));
        let partial = qlnet.path(&format!("part.{format}.partial"));
        let expected = json(&qlnet.eval(Path::new(HELD_OUT), &["--json", "--predictions", whole.to_str().unwrap()]));
        let bytes = fs::read(&whole).unwrap();
        let resume = ["--json", "--resume", part.to_str().unwrap()];
        // As a kill leaves it: cut at any byte.
        for length in [0, 1, 90, 700, 1234, bytes.len() / 2, bytes.len() - 1, bytes.len()] {
            fs::write(&partial, &bytes[..length]).unwrap();
            let result = json(&qlnet.eval(Path::new(HELD_OUT), &resume));
            assert!(fs::read(&part).unwrap() == bytes, "{format}, {length} bytes");
            assert!(!partial.exists());
            for field in ["images", "top1", "top5", "loss", "calibration_error", "data"] {
                assert_eq!(result[field], expected[field], "{field}");
            }
            fs::remove_file(&part).unwrap();
        }
        // Cut under its own name; and complete, when nothing is left to do.
        fs::write(&part, &bytes[..bytes.len() / 3]).unwrap();
        json(&qlnet.eval(Path::new(HELD_OUT), &resume));
        assert!(fs::read(&part).unwrap() == bytes);
        let result = json(&qlnet.eval(Path::new(HELD_OUT), &resume));
        assert_eq!((&result["images"], &result["images_per_second"]), (&Value::from(360), &Value::Null));

        // Not without being asked, and not as another run.
        fs::write(&partial, &bytes[..bytes.len() / 2]).unwrap();
        let path = part.to_str().unwrap();
        let eval = |args: &[&str]| qlnet.eval(Path::new(HELD_OUT), args);
        assert_error(&eval(&["--predictions", path]), &["part.", ".partial holds", "--resume"]);
        assert_error(&eval(&["--resume", path, "--limit", "100"]), &["other data (360 images", "100 images"]);
        assert_error(&eval(&["--resume", path, "--crop", "48"]), &["other preprocessing", "crop 48"]);
        assert_error(&eval(&["--resume", path, "--dtype", "f16"]), &["other dtype"]);
        assert_error(&eval(&["--resume", path, "--shard", "1/2"]), &["another shard (1/1 there, 1/2 here)"]);
        let weights = qlnet.path("weights.safetensors");
        let mut other =
            candle_core::safetensors::load("models/qlnet-digits.safetensors", &candle_core::Device::Cpu).unwrap();
        other.insert("fc.bias".into(), other["fc.bias"].affine(1.0, 0.5).unwrap());
        candle_core::safetensors::save(&other, &weights).unwrap();
        assert_error(&eval(&["--resume", path, "--weights", weights.to_str().unwrap()]), &["other weights"]);
        // The rows are still there.
        assert!(fs::read(&partial).unwrap() == bytes[..bytes.len() / 2]);
        let mut damaged = bytes[..bytes.len() / 2].to_vec();
        damaged[1000..1010].fill(b'x');
        fs::write(&partial, &damaged).unwrap();
        assert_error(&eval(&["--resume", path]), &["line ", "damaged"]);
        fs::remove_file(&partial).unwrap();
    }
}

#[cfg(unix)]
#[test]
fn signals_lose_nothing() {
    use std::process::{Command, Stdio};
    let qlnet = Qlnet::new();
    // Each image ten times, so that there is time to be interrupted.
    let folders = qlnet.unpacked("folders");
    let paths: Vec<String> = Listing::new(&folders).unwrap().paths().map(str::to_string).collect();
    for (path, copy) in paths.iter().flat_map(|path| (0..10).map(move |copy| (path, copy))) {
        fs::hard_link(folders.join(path), folders.join(format!("{}-{copy}.png", path.trim_end_matches(".png"))))
            .unwrap();
    }
    let whole = qlnet.path("whole.csv");
    let expected = json(&qlnet.eval(&folders, &["--json", "--predictions", whole.to_str().unwrap()]));
    for (signal, code) in [("INT", Some(130)), ("TERM", Some(130)), ("KILL", None)] {
        let part = qlnet.path(&format!("{signal}.csv"));
        let partial = qlnet.path(&format!("{signal}.csv.partial"));
        let args = [
            "eval",
            "--data",
            folders.to_str().unwrap(),
            DIGITS[0],
            DIGITS[1],
            "--batch-size",
            "8",
            "--threads",
            "1",
            "--workers",
            "1",
        ];
        let per_class = qlnet.file("classes.csv", b"earlier");
        let mut command = qlnet.command();
        command.args(args).args(["--predictions", part.to_str().unwrap(), "--per-class", per_class.to_str().unwrap()]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let start = std::time::Instant::now();
        while fs::metadata(&partial).map_or(0, |metadata| metadata.len()) < 2000 {
            assert!(start.elapsed().as_secs() < 60, "no predictions");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        Command::new("kill").args([format!("-{signal}"), child.id().to_string()]).status().unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), code, "{}", stderr(&output));
        assert!(partial.exists() && !part.exists());
        // What is written at the end is not written in the middle.
        assert_eq!(fs::read(&per_class).unwrap(), b"earlier");
        if code.is_some() {
            assert!(stdout(&output).contains("interrupted after"), "{}", stdout(&output));
            let message = stderr(&output);
            assert!(
                message.contains("of 3,960 images; what is done is in") && message.contains("--resume"),
                "{message}"
            );
        }
        let resumed = qlnet.eval(&folders, &["--json", "--batch-size", "8", "--resume", part.to_str().unwrap()]);
        assert!(stderr(&resumed).contains("of 3,960 images are done"), "{}", stderr(&resumed));
        assert_eq!(json(&resumed)["loss"], expected["loss"]);
        assert!(fs::read(&part).unwrap() == fs::read(&whole).unwrap());
    }
}

#[test]
fn shards_together_are_the_whole() {
    let qlnet = Qlnet::new();
    let eval = |args: &[&str]| qlnet.eval(Path::new(HELD_OUT), args);
    let [whole, per_class, a, b, c, merged] = ["whole.csv", "classes.csv", "a.csv", "b.csv", "c.csv", "m.csv"]
        .map(|name| qlnet.path(name).to_str().unwrap().to_string());
    let expected = json(&eval(&["--json", "--predictions", &whole, "--per-class", &per_class]));
    let classes = fs::read(&per_class).unwrap();
    for (index, path) in [&a, &b, &c].into_iter().enumerate() {
        json(&eval(&["--json", "--predictions", path, "--shard", &format!("{}/3", index + 1)]));
    }
    let merge = |files: &[&String], args: &[&str]| {
        let files: Vec<&str> = files.iter().map(|file| file.as_str()).collect();
        qlnet.run(&[&["eval", "--merge"], &files[..], args].concat())
    };
    let result = json(&merge(&[&c, &a, &b], &["--json", "--predictions", &merged, "--per-class", &per_class]));
    for field in ["images", "errors", "top1", "top1_interval", "top5", "loss", "calibration_error", "model", "data"] {
        assert_eq!(result[field], expected[field], "{field}");
    }
    assert!(fs::read(&merged).unwrap() == fs::read(&whole).unwrap());
    assert!(fs::read(&per_class).unwrap() == classes);

    assert_error(&merge(&[&a, &c], &[]), &["gap", "shard 2/3 is missing"]);
    assert_error(&merge(&[&a, &b, &c, &b], &[]), &["overlap", "b.csv", "shard 2/3"]);
    assert_error(&merge(&[&whole, &a], &[]), &["one of", "shards"]);
    let other = qlnet.path("other.csv").to_str().unwrap().to_string();
    json(&eval(&["--json", "--predictions", &other, "--shard", "2/3", "--resize", "70"]));
    assert_error(&merge(&[&a, &other, &c], &[]), &["other.csv", "other preprocessing", "a.csv"]);
    // Cut, emptied, changed, still being written, or something else.
    let bytes = fs::read(&b).unwrap();
    let text = String::from_utf8(bytes.clone()).unwrap();
    let changed = text.replacen("1/0", "1/9", 1);
    let doubled = format!("{text}{}\n", text.lines().last().unwrap());
    let unlike = text.replacen("path,", "name,", 1);
    for (content, message) in [
        (&bytes[..bytes.len() / 2], "gap"),
        (b"", "has no predictions"),
        (changed.as_bytes(), "not those of the images"),
        (doubled.as_bytes(), "more rows than images"),
        (text.replacen("2/3", "9/3", 1).as_bytes(), "does not say what it is of"),
        (unlike.as_bytes(), "not a file of predictions"),
    ] {
        fs::write(&b, content).unwrap();
        assert_error(
            &merge(&[&a, &b, &c], &["--predictions", &other]),
            &["b.csv", message][usize::from(message.starts_with("not those"))..],
        );
    }
    fs::rename(&b, format!("{b}.partial")).unwrap();
    assert_error(&merge(&[&a, &b, &c], &[]), &["gap", "b.csv is not complete"]);
    assert!(!qlnet.files().iter().any(|name| name.contains("other.csv.partial")), "{:?}", qlnet.files());
    assert_eq!(eval(&["--shard", "0/3"]).status.code(), Some(2));
    assert_eq!(eval(&["--shard", "4/3"]).status.code(), Some(2));
    assert_error(&eval(&["--limit", "2", "--shard", "3/3"]), &["shard 3/3 is empty"]);
}

#[test]
fn unreadable_images_are_counted_and_named() {
    let qlnet = Qlnet::new();
    let folders = qlnet.unpacked("folders");
    let bad = |name: &str| folders.join("4").join(name);
    fs::write(bad("a-empty.png"), b"").unwrap();
    fs::write(bad("b-text.JPEG"), b"<html>not found</html>").unwrap();
    fs::create_dir(bad("c-directory.png")).unwrap();
    let sample = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("samples/digits/4-24.png")).unwrap();
    fs::write(bad("d-cut.png"), &sample[..sample.len() / 2]).unwrap();
    let mut names = vec!["a-empty", "b-text", "c-directory", "d-cut"];
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("nowhere.png", bad("e-link.png")).unwrap();
        names.push("e-link");
    }
    let count = names.len();
    let file = qlnet.path("p.csv");
    let args = ["--json", "--predictions", file.to_str().unwrap()];
    let output = qlnet.eval(&folders, &args);
    assert_eq!(output.status.code(), Some(1));
    let result: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!((&result["images"], &result["errors"]), (&Value::from(360), &Value::from(count)));
    assert_eq!(result["top1"], 357.0 / 360.0);
    let message = stderr(&output);
    assert_eq!(message.lines().count(), count + 1, "{message}");
    for (name, unreadable) in names.iter().zip(result["failed"].as_array().unwrap()) {
        assert!(message.contains(&format!("error: 4/{name}")), "{name}: {message}");
        assert!(
            unreadable["path"].as_str().unwrap().contains(name) && !unreadable["error"].as_str().unwrap().is_empty()
        );
    }
    assert!(message.contains(&format!("{count} of {} images could not be read", 360 + count)), "{message}");
    let (bad, good): (Vec<_>, Vec<_>) = rows(&file).into_iter().partition(|row| !row["error"].is_empty());
    assert_eq!((bad.len(), good.len()), (count, 360));
    assert!(bad.iter().all(|row| row["top1"].is_empty() && row["loss"].is_empty()));

    let accepted = qlnet.eval(&folders, &[&args[..], &["--skip-errors"]].concat());
    assert_eq!(json(&accepted)["errors"], count);
    // They stay errors in what is resumed or merged.
    let resumed = qlnet.eval(&folders, &["--json", "--resume", file.to_str().unwrap()]);
    assert_eq!(resumed.status.code(), Some(1));
    let merged = qlnet.run(&["eval", "--merge", file.to_str().unwrap(), "--skip-errors", "--json"]);
    assert_eq!(json(&merged)["failed"], result["failed"]);

    fs::remove_dir_all(&folders).unwrap();
    fs::create_dir_all(folders.join("1")).unwrap();
    fs::write(folders.join("1/x.png"), b"no image").unwrap();
    let output = qlnet.eval(&folders, &["--skip-errors"]);
    assert_eq!(output.status.code(), Some(1), "nothing was scored");
}

#[test]
fn wrong_datasets_are_explained() {
    let qlnet = Qlnet::new();
    let refused = |data: &Path, args: &[&str], parts: &[&str]| {
        let file = qlnet.path("refused.csv");
        assert_error(&qlnet.eval(data, &[args, &["--predictions", file.to_str().unwrap()]].concat()), parts);
        assert!(!qlnet.files().iter().any(|name| name.starts_with("refused")), "{:?}", qlnet.files());
    };
    refused(&qlnet.path("missing"), &[], &["missing", "No such file"]);
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
    refused(&flat, &["--class-map", &list("map.txt", &[1])], &["--class-map is for class folders"]);
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
    let output = qlnet.run(&["eval", "--data", folders.to_str().unwrap(), "--weights", weights.to_str().unwrap()]);
    assert_error(&output, &["`8`", "`9`", "labels or indices"]);

    // Archives that are cut, compressed or none.
    let archive = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(HELD_OUT)).unwrap();
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
        refused(&cut, &[], &["cut.tar", message]);
    }
    refused(&qlnet.file("val.tar.gz", &[&b"\x1f\x8b"[..], &archive[..1000]].concat()), &[], &["compressed"]);
    refused(&qlnet.file("noise.tar", &[7; 5000]), &[], &["neither a directory nor a tar archive"]);
    let twice = [&archive[..entries], &archive[..]].concat();
    refused(&qlnet.file("twice.tar", &twice), &[], &["is in the archive twice"]);
}

#[test]
fn files_are_written_whole_or_not_at_all() {
    let qlnet = Qlnet::new();
    let eval = |args: &[&str]| qlnet.eval(Path::new(HELD_OUT), args);
    assert_error(&eval(&["--predictions", "p.txt"]), &["p.txt", ".csv or .jsonl"]);
    assert_error(&eval(&["--per-class", "p.txt"]), &["p.txt", ".csv"]);
    assert_error(&eval(&["--report", "p.pdf"]), &["p.pdf", ".html"]);
    let one = qlnet.path("one.csv").to_str().unwrap().to_string();
    assert_error(&eval(&["--predictions", &one, "--per-class", &one]), &["would be written over", "another name"]);
    assert_error(&eval(&["--labels", &one, "--predictions", &one]), &["would be written over"]);
    let directory = qlnet.path("directory.csv");
    fs::create_dir(&directory).unwrap();
    fs::create_dir(qlnet.path("directory.html")).unwrap();
    for option in ["--predictions", "--per-class", "--report"] {
        let directory = directory.with_extension(if option == "--report" { "html" } else { "csv" });
        let nowhere = if option == "--report" { "/nowhere/p.html" } else { "/nowhere/p.csv" };
        assert_error(&eval(&[option, nowhere]), &[&format!("cannot write {nowhere}"), "No such file"]);
        assert_error(&eval(&[option, directory.to_str().unwrap()]), &["directory.", "it is a directory"]);
    }
    assert!(qlnet.files().iter().all(|name| name == "cache" || name.starts_with("directory.")), "{:?}", qlnet.files());
}

/// A limit on the size of files stands in for a full disk.
#[cfg(unix)]
#[test]
fn a_full_disk_is_one_error_and_the_rows_are_kept() {
    let qlnet = Qlnet::new();
    let (file, whole) = (qlnet.path("p.csv"), qlnet.path("whole.csv"));
    json(&qlnet.eval(Path::new(HELD_OUT), &["--json", "--predictions", whole.to_str().unwrap()]));
    let mut command = std::process::Command::new("sh");
    let program = qlnet.command();
    for (name, value) in program.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    let script = format!(
        "trap '' XFSZ; ulimit -f 20; exec '{}' eval --data {HELD_OUT} {} {} --predictions '{}'",
        program.get_program().to_str().unwrap(),
        DIGITS[0],
        DIGITS[1],
        file.display()
    );
    let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).args(["-c", &script]).output().unwrap();
    assert_error(&output, &["cannot write", "p.csv.partial", "--resume"]);
    assert!(!file.exists());
    json(&qlnet.eval(Path::new(HELD_OUT), &["--json", "--resume", file.to_str().unwrap()]));
    assert!(fs::read(&file).unwrap() == fs::read(&whole).unwrap());
}

#[test]
fn the_report_needs_nothing_else() {
    let qlnet = Qlnet::new();
    let folders = qlnet.unpacked("folders & <more>");
    fs::write(folders.join("3/<b>&.png"), b"").unwrap();
    // Mistakes enough to show: half of the sevens are labelled as ones.
    for path in fs::read_dir(folders.join("7")).unwrap().map(|entry| entry.unwrap().path()).step_by(2) {
        fs::rename(&path, folders.join("1").join(path.file_name().unwrap())).unwrap();
    }
    let (report, per_class, file) = (qlnet.path("report.html"), qlnet.path("classes.csv"), qlnet.path("p.csv"));
    let [report_name, per_class_name, file_name] = [&report, &per_class, &file].map(|path| path.to_str().unwrap());
    let outputs = ["--report", report_name, "--per-class", per_class_name, "--predictions", file_name, "--skip-errors"];
    let result = json(&qlnet.eval(&folders, &[&outputs[..], &["--json"]].concat()));
    let html = fs::read_to_string(&report).unwrap();
    for section in [
        "Accuracy per class",
        "Calibration",
        "Most confused",
        "Most confident mistakes",
        "Images without scores",
        "How it was measured",
    ] {
        assert!(html.contains(&format!("<h2>{section}</h2>")), "{section}");
    }
    assert!(html.contains("prefers-color-scheme: dark"));
    assert!(html.contains(&format!("{:.2} %", 100.0 * result["top1"].as_f64().unwrap())));
    assert!(html.contains("folders &amp; &lt;more&gt;") && html.contains("3/&lt;b&gt;&amp;.png"));
    assert!(!html.contains("<b>&.png") && !html.contains("<script") && !html.contains("http"));
    let pictures = html.matches("<img ").count();
    assert_eq!(pictures, html.matches("src=\"data:image/jpeg;base64,").count());
    assert!(pictures > 10, "{pictures}");
    assert_eq!(html.matches("<div").count(), html.matches("</div>").count());
    assert_eq!(html.matches("<section>").count(), html.matches("</section>").count());

    let classes = rows(&per_class);
    assert_eq!(classes.len(), 10);
    assert_eq!((&*classes[1]["confused_with"], &*classes[1]["confused_with_label"]), ("7", "7"));
    let weighted = |class: &std::collections::HashMap<String, String>| -> f64 {
        class["top1"].parse::<f64>().unwrap() * class["images"].parse::<f64>().unwrap()
    };
    let right: f64 = classes.iter().map(weighted).sum();
    assert!((right / 360.0 - result["top1"].as_f64().unwrap()).abs() < 1e-9);

    // From the predictions alone, with the images where they are given.
    let [again, without] = ["again.html", "without.html"].map(|name| qlnet.path(name));
    let merge = ["eval", "--skip-errors", "--merge", file_name, "--report"];
    let images = ["--imagenet-val", folders.to_str().unwrap()];
    let output = qlnet.run(&[&merge[..], &[again.to_str().unwrap()], &images[..]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(fs::read_to_string(&again).unwrap() == html);
    qlnet.run(&[&merge[..], &[without.to_str().unwrap()]].concat());
    assert!(fs::read_to_string(&without).unwrap().contains("no picture"));
}

#[test]
fn the_table_says_what_was_measured() {
    let output = Qlnet::new().eval(Path::new(HELD_OUT), &[]);
    let table = stdout(&output);
    for line in [
        "images             360",
        "top-1              99.17 %   95 % interval 97.58 % to 99.72 %",
        "top-5              100.00 %   95 % interval 98.94 % to 100.00 %",
        "cross-entropy      0.0646",
        "model              qlnet-digits",
        "preprocessing      resize 64 bicubic, crop 64, JPEG by",
        "dtype              f32",
    ] {
        assert!(table.lines().any(|found| found.starts_with(line)), "`{line}` is not in:\n{table}");
    }
    assert!(table.contains("weights            SHA-256 ff1a0a63e48a6530"), "{table}");
}
