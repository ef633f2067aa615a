//! `qlnet classify` as a user runs it.
#![cfg_attr(not(target_os = "linux"), allow(unused_imports, reason = "some tests are for Linux alone"))]

mod support;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use support::program::{DIGITS, Qlnet, assert_error, not_found, records, stderr, stdout};
use support::{fixture, reference_dir};

#[test]
fn the_embedded_model_reads_the_samples() {
    let output = Qlnet::new().run(&["classify", "samples/digits", "--json", DIGITS[0], DIGITS[1]]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).is_empty());
    let records = records(&output);
    assert_eq!(records.len(), 10);
    for record in &records {
        let image = Path::new(record["image"].as_str().unwrap());
        let digit = &image.file_name().unwrap().to_str().unwrap()[..1];
        assert_eq!(record["model"], "qlnet-digits");
        let predictions = record["predictions"].as_array().unwrap();
        assert_eq!(predictions.len(), 5);
        assert_eq!(predictions[0]["label"], digit, "{record}");
        assert_eq!(predictions[0]["index"].to_string(), digit);
        assert_eq!(predictions[0]["wnid"], Value::Null);
        let column = |name: &str| -> Vec<f64> { predictions.iter().map(|p| p[name].as_f64().unwrap()).collect() };
        assert!(column("probability").is_sorted_by(|a, b| a >= b));
        assert!(column("logit").is_sorted_by(|a, b| a >= b));
        let (p, l) = (column("probability"), column("logit"));
        assert!(((p[0] / p[1]).ln() - (l[0] - l[1])).abs() < 1e-4, "probabilities are the softmax of the logits");
    }
}

#[test]
fn all_probabilities_add_up_to_one() {
    let output = Qlnet::new().run(&["classify", "samples/digits/3-45.png", "--json", "-k", "99", DIGITS[0], DIGITS[1]]);
    let predictions = records(&output)[0]["predictions"].as_array().unwrap().clone();
    assert_eq!(predictions.len(), 10);
    let sum: f64 = predictions.iter().map(|p| p["probability"].as_f64().unwrap()).sum();
    assert!((sum - 1.0).abs() < 1e-9, "{sum}");
}

#[test]
fn people_get_an_aligned_table() {
    let output = Qlnet::new().run(&["classify", "samples/digits/7-81.png", "-k", "3", DIGITS[0], DIGITS[1]]);
    let text = stdout(&output);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "samples/digits/7-81.png");
    assert_eq!(lines.len(), 4);
    assert!(lines[1].ends_with("  7") && lines[1].contains('█'), "{text}");
    let widths: Vec<_> = lines[1..].iter().map(|line| line.chars().count()).collect();
    assert!(widths.iter().all(|w| *w == widths[0]), "{text}");
}

#[test]
fn standard_input_is_an_image() {
    let qlnet = Qlnet::new();
    let mut child = qlnet
        .command()
        .args(["classify", "-", "--json", DIGITS[0], DIGITS[1]])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let sample = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("samples/digits/4-24.png")).unwrap();
    child.stdin.take().unwrap().write_all(&sample).unwrap();
    let record = &records(&child.wait_with_output().unwrap())[0];
    assert_eq!(record["image"], "-");
    assert_eq!(record["predictions"][0]["label"], "4");
}

#[test]
fn batches_and_threads_change_no_answer() {
    let qlnet = Qlnet::new();
    let logits = |args: &[&str]| -> Vec<(String, f64)> {
        let all = [&["classify", "samples/digits", "--json", "-k", "1", DIGITS[0], DIGITS[1]], args].concat();
        records(&qlnet.run(&all))
            .iter()
            .map(|r| (r["image"].to_string(), r["predictions"][0]["logit"].as_f64().unwrap()))
            .collect()
    };
    let expected = logits(&[]);
    for args in [&["--batch-size", "1"][..], &["--batch-size", "3", "--threads", "1"], &["--threads", "3"]] {
        assert_eq!(logits(args), expected, "{args:?}");
    }
}

#[test]
fn preprocessing_can_be_set() {
    let qlnet = Qlnet::new();
    let logit = |args: &[&str]| {
        let output =
            qlnet.run(&[&["classify", "samples/digits/9-37.png", "--json", DIGITS[0], DIGITS[1]], args].concat());
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        records(&output)[0]["predictions"][0]["logit"].as_f64().unwrap()
    };
    let default = logit(&[]);
    assert_eq!(
        default,
        logit(&["--preprocess", "timm", "--resize", "64", "--interpolation", "bicubic", "--crop", "64"])
    );
    assert_eq!(logit(&["--preprocess", "notebook"]), logit(&["--resize", "73", "--interpolation", "bilinear"]));
    assert_ne!(default, logit(&["--preprocess", "notebook"]));
    assert_ne!(default, logit(&["--crop", "96"]));
    assert_error(
        &qlnet.run(&["classify", "samples/digits/9-37.png", "--resize", "60", DIGITS[0], DIGITS[1]]),
        &["the crop (64) is larger", "(60)"],
    );
}

#[test]
fn fewer_bits_agree() {
    let qlnet = Qlnet::new();
    for dtype in ["f16", "bf16", "int8"] {
        let output = qlnet.run(&["classify", "samples/digits", "--json", "--dtype", dtype, DIGITS[0], DIGITS[1]]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        for record in records(&output) {
            let image = Path::new(record["image"].as_str().unwrap()).file_name().unwrap().to_str().unwrap();
            assert_eq!(record["predictions"][0]["label"], image[..1], "{dtype} {image}");
        }
    }
    // Products of this network's activations leave float16's range.
    let weights = fixture("two-filters.pth.tar");
    let args = ["classify", "samples/digits/1-21.png", "--dtype", "f16", "--weights", weights.to_str().unwrap()];
    let output = qlnet.command().args(args).arg("-q").output().unwrap();
    assert_error(&output, &["samples/digits/1-21.png", "overflows in f16", "--dtype f32"]);
}

/// Preprocessing and labels are those of a model, and not in the file.
#[test]
fn weights_of_another_model_than_is_meant_are_noticed() {
    let qlnet = Qlnet::new();
    let args = ["classify", "samples/digits/3-45.png", "--weights", "models/qlnet-digits.safetensors"];
    let note = stderr(&qlnet.run(&args));
    assert!(note.starts_with("note: these weights have 10 classes") && note.contains("--model names it"), "{note}");
    let output = qlnet.command().args(args).args(DIGITS).output().unwrap();
    assert!(stderr(&output).is_empty() && stdout(&output).contains("95.15 %"), "{}", stderr(&output));
}

#[test]
fn one_bad_image_does_not_stop_the_others() {
    let qlnet = Qlnet::new();
    let bad = qlnet.file("bad.png", b"this is text");
    let output = qlnet.run(&[
        "classify",
        "samples/digits/0-78.png",
        bad.to_str().unwrap(),
        "nowhere.png",
        "samples/digits/1-21.png",
        "--json",
        DIGITS[0],
        DIGITS[1],
    ]);
    assert_eq!(output.status.code(), Some(1));
    let labels: Vec<_> = records(&output).iter().map(|r| r["predictions"][0]["label"].clone()).collect();
    assert_eq!(labels, ["0", "1"]);
    let message = stderr(&output);
    assert_eq!(message.lines().count(), 2, "{message}");
    assert!(message.contains("bad.png") && message.contains("nowhere.png"), "{message}");
}

#[test]
#[cfg(target_os = "linux")]
fn results_survive_a_standard_error_that_cannot_be_written() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let args = ["classify", "nowhere.png", "samples/digits/3-45.png", "--json", DIGITS[0], DIGITS[1]];
    let output = Qlnet::new().command().args(args).stderr(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(records(&output)[0]["predictions"][0]["label"], "3");
}

#[test]
fn bad_images_are_explained() {
    let qlnet = Qlnet::new();
    let jpeg = std::fs::read(fixture("decode/rgb.jpg")).unwrap();
    let png = std::fs::read(fixture("decode/rgb.png")).unwrap();
    let empty_dir = qlnet.home.path().join("empty");
    std::fs::create_dir(&empty_dir).unwrap();
    let nowhere = not_found("nowhere");
    let mut cases: Vec<(PathBuf, &str)> = vec![
        (qlnet.home.path().join("nowhere.png"), &nowhere),
        (empty_dir, "no images in this directory"),
        (qlnet.file("empty.jpg", b""), "empty"),
        (qlnet.file("text.png", b"not an image"), "not an image of a known format"),
        (qlnet.file("short.jpg", &jpeg[..jpeg.len() * 2 / 3]), "damaged or incomplete JPEG"),
        (qlnet.file("short.png", &png[..png.len() / 2]), "damaged or incomplete PNG"),
        (qlnet.file("magic.png", &png[..8]), "PNG"),
    ];
    // Windows has no such names.
    if cfg!(unix) {
        cases.push((qlnet.file("new\nline.png", b"text"), "not an image"));
    }
    for (path, part) in cases {
        let path = path.to_str().unwrap();
        let output = qlnet.run(&["classify", path, DIGITS[0], DIGITS[1]]);
        assert_error(&output, &[&path.replace('\n', "\\n"), part]);
    }
}

#[test]
fn a_picture_that_is_not_there_is_told_before_anything_is_downloaded() {
    let output = Qlnet::new().run(&["classify", "no-such.png"]);
    assert_error(&output, &["no-such.png", "os error 2"]);
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let qlnet = Qlnet::new();
    let mut child = qlnet
        .command()
        .args(["classify", "samples/digits", "--batch-size", "1", DIGITS[0], DIGITS[1]])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(stderr(&output).is_empty(), "{}", stderr(&output));
}

/// What was wrong before the reader left is wrong all the same.
#[test]
fn an_error_before_the_reader_leaves_stays_one() {
    let qlnet = Qlnet::new();
    let bad = qlnet.file("bad.png", b"this is text");
    let args = ["classify", bad.to_str().unwrap(), "samples/digits", "--batch-size", "1", DIGITS[0], DIGITS[1]];
    let mut child = qlnet.command().args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("bad.png") && stderr(&output).lines().count() == 1, "{}", stderr(&output));
}

/// macOS leaves `._photo.png` beside `photo.png` on disks of other systems: no picture, and no error.
#[test]
fn what_macos_leaves_beside_pictures_is_passed_over() {
    let qlnet = Qlnet::new();
    let digit = std::fs::read("samples/digits/3-45.png").unwrap();
    std::fs::create_dir_all(qlnet.home.path().join("photos/more")).unwrap();
    qlnet.file("photos/b.png", &digit);
    qlnet.file("photos/._b.png", b"\0\x05\x16\x07");
    qlnet.file("photos/more/a.png", &digit);
    let photos = qlnet.home.path().join("photos");
    let output = qlnet.run(&["classify", photos.to_str().unwrap(), "--json", DIGITS[0], DIGITS[1]]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let images: Vec<_> = records(&output).iter().map(|r| PathBuf::from(r["image"].as_str().unwrap())).collect();
    assert_eq!(images, [photos.join("b.png"), photos.join("more/a.png")]);
}

#[test]
#[cfg(target_os = "linux")]
fn names_that_are_not_utf_8_stay_apart() {
    use std::os::unix::ffi::OsStrExt;
    let qlnet = Qlnet::new();
    let digit = std::fs::read("samples/digits/3-45.png").unwrap();
    let names = [&b"\xe9.png"[..], b"\xe8.png"].map(|name| std::ffi::OsStr::from_bytes(name).to_owned());
    let paths = names.map(|name| qlnet.home.path().join(name));
    paths.iter().for_each(|path| std::fs::write(path, &digit).unwrap());
    let output = qlnet.command().args(["classify", "--json", DIGITS[0], DIGITS[1]]).args(&paths).output().unwrap();
    let records = records(&output);
    assert_eq!(records[0]["image"], records[1]["image"], "as far as they can be shown");
    let bytes = |record: &Value| BASE64_STANDARD.decode(record["image_base64"].as_str().unwrap()).unwrap();
    for (record, path) in records.iter().zip(&paths) {
        assert_eq!(bytes(record), path.as_os_str().as_bytes());
    }
    let output = qlnet.run(&["classify", "--json", "samples/digits/3-45.png", DIGITS[0], DIGITS[1]]);
    assert!(!stdout(&output).contains("image_base64"));
}

/// All 1000 logits of every reference image, from the files.
#[test]
fn the_full_size_network_equals_pytorch_from_the_files() {
    let Some(dir) = reference_dir() else { return };
    let qlnet = Qlnet::new();
    let expected: Value = serde_json::from_str(&std::fs::read_to_string(dir.join("expected.json")).unwrap()).unwrap();
    let expected = expected["images"].as_array().unwrap();
    let mut command = qlnet.command();
    command.args(["classify", "--json", "--no-exif", "-k", "1000", "--weights"]);
    command.arg(dir.join("qlnet-50-v0.digits.pth.tar"));
    command.args(expected.iter().map(|image| dir.join(image["image"].as_str().unwrap())));
    let records = records(&command.output().unwrap());
    assert_eq!(records.len(), expected.len());
    for (record, image) in records.iter().zip(expected) {
        let wanted: Vec<f64> = image["logits"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
        let largest = wanted.iter().fold(0f64, |m, v| m.max(v.abs()));
        let predictions = record["predictions"].as_array().unwrap();
        assert_eq!(predictions.len(), 1000);
        for p in predictions {
            let difference = p["logit"].as_f64().unwrap() - wanted[p["index"].as_u64().unwrap() as usize];
            assert!(difference.abs() < 1e-4 * largest, "{}: {p} differs by {difference}", image["image"]);
        }
        let top = (0..1000).max_by(|a, b| wanted[*a].total_cmp(&wanted[*b])).unwrap();
        assert_eq!(predictions[0]["index"], top, "{}", image["image"]);
    }
}
