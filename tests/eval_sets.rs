//! Several sets of images in one run.
#![cfg_attr(not(unix), allow(unused_imports, reason = "a test is for Unix alone"))]

#[path = "support/eval.rs"]
mod eval_support;
mod support;

use std::fs;
use std::path::Path;

use eval_support::{HELD_OUT, json, messages};
use serde_json::Value;
use support::program::{DIGITS, Qlnet, assert_error, not_found, records, stderr, stdout};

#[test]
fn several_sets_are_one_table_and_have_files_of_their_own() {
    let qlnet = Qlnet::new();
    let (odd, all) = (qlnet.some_digits("odd", &[1, 3, 5, 7, 9]), Path::new(HELD_OUT));
    let [p, classes, report] = ["p.csv", "c.csv", "r.html"].map(|name| qlnet.path(name).display().to_string());
    let files = ["--predictions", &p, "--per-class", &classes, "--report", &report];
    let output = qlnet.eval_sets(&[all, &odd], &[&["--json"], &files[..]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let lines = records(&output);
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[0]["set"], &lines[1]["set"]), (&"digits-held-out".into(), &"odd".into()));
    assert!(messages(&output).starts_with("note: odd: images of 5 classes, scored among the model's 10; --restrict"));

    // Each is what it is alone, but for its name and the time.
    for (set, data, line) in [("digits-held-out", all, &lines[0]), ("odd", &odd, &lines[1])] {
        let [one, one_class] = ["one.csv", "one-class.csv"].map(|name| qlnet.path(name).display().to_string());
        let mut alone = json(&qlnet.eval_sets(&[data], &["--json", "--predictions", &one, "--per-class", &one_class]));
        assert!(alone.get("set").is_none());
        alone["set"] = set.into();
        for field in ["seconds", "images_per_second"] {
            alone[field] = line[field].clone();
        }
        assert_eq!(&alone, line);
        for (name, one) in [("p", &one), ("c", &one_class)] {
            assert!(fs::read(qlnet.path(&format!("{name}.{set}.csv"))).unwrap() == fs::read(one).unwrap(), "{name}");
        }
        let title = format!("qlnet-digits <small>on {set}</small>");
        assert!(fs::read_to_string(qlnet.path(&format!("r.{set}.html"))).unwrap().contains(&title));
    }
    assert!(["p.csv", "c.csv", "r.html"].iter().all(|name| !qlnet.path(name).exists()));

    let table = stdout(&qlnet.eval_sets(&[all, &odd], &["--limit", "100"]));
    for line in [
        "set                  images      top-1         95 % interval      top-5            part",
        "digits-held-out         100",
        "odd                     100",
        "model              qlnet-digits",
        "images per second",
        "dtype              f32",
    ] {
        assert!(table.lines().any(|found| found.starts_with(line)), "`{line}` is not in:\n{table}");
    }
    assert!(table.contains("the first 100\n"), "{table}");
}

#[test]
fn sets_are_checked_before_the_first_is_evaluated() {
    let qlnet = Qlnet::new();
    let (all, odd, wrong) = (Path::new(HELD_OUT), qlnet.some_digits("odd", &[1, 3]), qlnet.some_digits("wrong", &[4]));
    fs::rename(wrong.join("4"), wrong.join("four")).unwrap();
    let file = qlnet.path("p.csv").display().to_string();
    let predictions = ["--predictions", &file];
    let missing = qlnet.path("misssing");
    assert_error(&qlnet.eval_sets(&[all, &odd, &missing], &predictions), &["misssing", &not_found(&missing)]);
    assert_error(&qlnet.eval_sets(&[all, &odd, all], &predictions), &["digits-held-out.tar is named twice"]);
    let output = qlnet.eval_sets(&[all, &wrong], &predictions);
    assert_error(&output, &["`four`", "--class-map"]);
    assert!(!qlnet.files().iter().any(|name| name.starts_with("p.")), "{:?}", qlnet.files());
    let output = qlnet.run(&["eval", "--merge", "a.csv", "--data", "a", "--data", "b"]);
    assert_error(&output, &["--merge are of one set"]);
    // Files that would be written over each other, and those of an interrupted run.
    let clash = qlnet.file("p.odd.csv", b"");
    let labels = ["--predictions", &file, "--labels", clash.to_str().unwrap()];
    assert_error(&qlnet.eval_sets(&[all, &odd], &labels), &["p.odd.csv would be written over"]);
    let begun = qlnet.file("p.odd.csv.partial", b"path,");
    let output = qlnet.eval_sets(&[all, &odd], &predictions);
    assert_error(&output, &["p.odd.csv.partial holds predictions", "--resume", "p.csv, or delete it"]);
    assert!(fs::read(begun).unwrap() == b"path," && !qlnet.path("p.digits-held-out.csv").exists());
}

#[test]
fn what_is_complete_is_read_and_what_is_not_goes_on() {
    let qlnet = Qlnet::new();
    let (all, odd) = (Path::new(HELD_OUT), qlnet.some_digits("odd", &[1, 3, 5, 7, 9]));
    let file = qlnet.path("p.csv").display().to_string();
    let expected = records(&qlnet.eval_sets(&[all, &odd], &["--json", "--predictions", &file]));
    let part = qlnet.path("p.odd.csv");
    let whole = fs::read(&part).unwrap();
    fs::remove_file(&part).unwrap();
    qlnet.file("p.odd.csv.partial", &whole[..whole.len() / 3]);
    let output = qlnet.eval_sets(&[all, &odd], &["--json", "--resume", &file]);
    let found = records(&output);
    assert!(messages(&output).contains("p.digits-held-out.csv: 360 of 360 images are done"), "{}", messages(&output));
    assert!(fs::read(&part).unwrap() == whole);
    assert_eq!((&found[0]["images"], &found[0]["images_per_second"]), (&360.into(), &Value::Null));
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!((&found["loss"], &found["top5"]), (&expected["loss"], &expected["top5"]));
    }
}

#[test]
fn images_without_scores_are_counted_over_all_sets() {
    let qlnet = Qlnet::new();
    let (all, odd, even) = (Path::new(HELD_OUT), qlnet.some_digits("odd", &[1, 3]), qlnet.some_digits("even", &[2]));
    fs::write(odd.join("3/a.png"), b"no image").unwrap();
    let output = qlnet.eval_sets(&[&odd, all], &[]);
    assert_eq!(output.status.code(), Some(1));
    let message = messages(&output);
    assert!(message.contains("error: 1 of 74 images of odd could not be read and were not scored"), "{message}");
    let table = stdout(&output);
    assert!(table.contains("not scored") && table.contains("digits-held-out"), "{table}");
    assert_eq!(qlnet.eval_sets(&[&odd, all], &["--skip-errors"]).status.code(), Some(0));
    for file in fs::read_dir(even.join("2")).unwrap() {
        fs::write(file.unwrap().path(), b"no image").unwrap();
    }
    assert_eq!(qlnet.eval_sets(&[&even, all], &["--skip-errors"]).status.code(), Some(1), "a set without any score");
}
/// What was interrupted is said, also of the sets that were not begun, and one `--resume` goes on with all.
#[cfg(unix)]
#[test]
fn an_interrupted_run_goes_on_with_all_sets() {
    use std::process::{Command, Stdio};
    let qlnet = Qlnet::new();
    let (many, odd) = (qlnet.unpacked("many"), qlnet.some_digits("odd", &[1, 3]));
    // Each image ten times, so that there is time to be interrupted.
    for folder in fs::read_dir(&many).unwrap().map(|entry| entry.unwrap().path()) {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>() {
            (0..10).for_each(|copy| fs::hard_link(&path, path.with_extension(format!("{copy}.png"))).unwrap());
        }
    }
    let file = qlnet.path("p.csv").display().to_string();
    let sets = ["--data", odd.to_str().unwrap(), "--data", many.to_str().unwrap(), "--data", HELD_OUT];
    let common = [&["eval", DIGITS[0], DIGITS[1], "--batch-size", "8"], &sets[..]].concat();
    let mut command = qlnet.command();
    command.args(&common).args(["--threads", "1", "--workers", "1", "--predictions", &file]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let start = std::time::Instant::now();
    while fs::metadata(qlnet.path("p.many.csv.partial")).map_or(0, |metadata| metadata.len()) < 2000 {
        assert!(start.elapsed().as_secs() < 60, "no predictions");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    let (table, message) = (stdout(&output), stderr(&output));
    assert!(table.contains("\nodd ") && table.contains("interrupted after"), "{table}");
    assert!(message.contains(" of 3,960 images of many; what is done is in") && message.contains("p.many.csv.partial"));
    assert!(message.contains(&format!("--resume {file}\n")), "{message}");
    assert!(message.contains("interrupted: 1 of 3 sets are left"), "{message}");
    let resumed = qlnet.run(&[&common[..], &["--json", "--resume", &file]].concat());
    let lines = records(&resumed);
    let images: Vec<_> = lines.iter().map(|line| (&line["images"], &line["complete"])).collect();
    let whole = [73, 3960, 360].map(Value::from);
    assert_eq!(images, whole.iter().map(|images| (images, &Value::Bool(true))).collect::<Vec<_>>());
    assert_eq!(lines[0]["seconds"], Value::Null);
}

/// A path without `--imagenet-val` is one set. Several are what a shell has made of a pattern with braces.
#[test]
fn one_set_needs_no_option() {
    let qlnet = Qlnet::new();
    let named = qlnet.eval(Path::new(HELD_OUT), &["--json", "--limit", "20"]);
    let plain = qlnet.run(&["eval", HELD_OUT, DIGITS[0], DIGITS[1], "--json", "--limit", "20"]);
    let [named, plain] = [named, plain].map(|output| json(&output));
    for key in ["images", "top1", "loss", "data"] {
        assert_eq!(named[key], plain[key], "{key}");
    }
    for args in [&["eval", "x-0.tar", "x-1.tar"][..], &["eval", "--imagenet-val", "x-0.tar", "x-1.tar"]] {
        let output = qlnet.run(args);
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains("tip: quote the names of several files"), "{}", stderr(&output));
    }
    let output = qlnet.run(&["eval"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("<PATH>"), "{}", stderr(&output));
}
