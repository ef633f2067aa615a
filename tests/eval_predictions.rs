//! Files of predictions: they are continued, put together, and the same however they come about.
#![cfg_attr(not(unix), allow(dead_code, unused_imports, reason = "some tests are for Unix alone"))]

#[path = "support/eval.rs"]
mod eval_support;
mod support;

use std::fs;
use std::path::Path;

use eval_support::{HELD_OUT, json};
use qlnet::eval::dataset::Listing;
use serde_json::Value;
use support::program::{DIGITS, Qlnet, assert_error, stderr, stdout};

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

/// A limit on the size of files stands in for a full disk.
#[cfg(unix)]
#[test]
fn a_full_disk_is_one_error_and_the_rows_are_kept() {
    let qlnet = Qlnet::new();
    let (file, whole) = (qlnet.path("p.csv"), qlnet.path("whole.csv"));
    json(&qlnet.eval(Path::new(HELD_OUT), &["--json", "--predictions", whole.to_str().unwrap()]));
    let predictions = ["--predictions", file.to_str().unwrap()];
    let args = [&["eval", "--imagenet-val", HELD_OUT][..], &DIGITS, &predictions].concat();
    let output = qlnet.run_after("ulimit -f 20", &args);
    assert_error(&output, &["cannot write", "p.csv.partial", "--resume"]);
    assert!(!file.exists());
    json(&qlnet.eval(Path::new(HELD_OUT), &["--json", "--resume", file.to_str().unwrap()]));
    assert!(fs::read(&file).unwrap() == fs::read(&whole).unwrap());
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

/// A row of a file of JSON lines, whose run is that of a shard.
fn of_shard(row: &Value, run: &str, shard: &str) -> Value {
    let mut run: Value = serde_json::from_str(run).unwrap();
    run["shard"] = shard.into();
    let mut row = row.clone();
    row["run"] = run.to_string().into();
    row
}

/// Systems limit how many files a program may have open, often to 256.
#[cfg(unix)]
#[test]
fn many_shards_are_put_together_with_few_files_open() {
    const SHARDS: usize = 300;
    let qlnet = Qlnet::new();
    let (whole, merged) = (qlnet.path("whole.jsonl"), qlnet.path("merged.jsonl"));
    let expected = json(&qlnet.eval(Path::new(HELD_OUT), &["--json", "--predictions", whole.to_str().unwrap()]));
    let whole = fs::read_to_string(whole).unwrap();
    let mut rows: Vec<Value> = whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let run = rows[0].as_object_mut().unwrap().remove("run").unwrap();
    let files: Vec<String> = (0..SHARDS)
        .map(|shard| {
            let first = of_shard(&rows[shard], run.as_str().unwrap(), &format!("{}/{SHARDS}", shard + 1));
            let others = rows.iter().skip(shard + SHARDS).step_by(SHARDS);
            let text: String = [&first].into_iter().chain(others).map(|row| format!("{row}\n")).collect();
            qlnet.file(&format!("{shard}.jsonl"), text.as_bytes()).to_str().unwrap().to_string()
        })
        .collect();
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let args = [&["eval", "--json", "--predictions", merged.to_str().unwrap(), "--merge"], &files[..]].concat();
    let result = json(&qlnet.run_after("ulimit -n 64", &args));
    for field in ["images", "top1", "loss", "data"] {
        assert_eq!(result[field], expected[field], "{field}");
    }
    assert!(fs::read_to_string(merged).unwrap() == whole);
}

/// What was interrupted goes on with other threads, and in other batches, to the same file: for that, each
/// image's numbers must be the same to the last bit.
#[test]
fn threads_and_batches_change_no_bit() {
    let qlnet = Qlnet::new();
    let predictions = |threads: &str, batch: &str| {
        let file = qlnet.path(&format!("{threads}-{batch}.csv"));
        let args = ["--threads", threads, "--batch-size", batch, "--sample", "70", "--seed", "5", "--predictions"];
        json(&qlnet.eval(Path::new(HELD_OUT), &[&args[..], &[file.to_str().unwrap(), "--json"]].concat()));
        fs::read(file).unwrap()
    };
    let expected = predictions("1", "1");
    for threads in ["1", "2", "3", "5"] {
        for batch in ["1", "7", "32"] {
            assert!(predictions(threads, batch) == expected, "{threads} threads, {batch} images at a time");
        }
    }
}
