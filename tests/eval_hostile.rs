//! Files that somebody made to do harm, or that are no files, where `qlnet eval` reads what it was given or finds.

#[path = "support/eval.rs"]
mod eval_support;
mod support;

use std::fs;
use std::path::{Path, PathBuf};

use eval_support::{HELD_OUT, json};
use serde_json::Value;
use support::program::{Qlnet, assert_error, stdout};

/// The predictions of three images, and such a file in which the run says something else.
fn predictions(qlnet: &Qlnet, name: &str, change: impl Fn(&mut Value)) -> (PathBuf, PathBuf) {
    let (good, changed) = (qlnet.path("good.jsonl"), qlnet.path(name));
    if !good.exists() {
        json(&qlnet.eval(Path::new(HELD_OUT), &["--json", "--limit", "3", "--predictions", good.to_str().unwrap()]));
    }
    let text = fs::read_to_string(&good).unwrap();
    let mut rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut run: Value = serde_json::from_str(rows[0]["run"].as_str().unwrap()).unwrap();
    change(&mut run);
    rows[0]["run"] = run.to_string().into();
    fs::write(&changed, rows.iter().map(|row| format!("{row}\n")).collect::<String>()).unwrap();
    (good, changed)
}

/// Asserts that a file of predictions is refused with one line, alone and beside another.
fn refused(qlnet: &Qlnet, good: &Path, file: &Path, parts: &[&str]) {
    let [good, file] = [good, file].map(|path| path.to_str().unwrap());
    assert_error(&qlnet.run(&["eval", "--merge", file]), parts);
    assert_error(&qlnet.run(&["eval", "--compare", good, file]), parts);
    assert_error(&qlnet.run(&["eval", "--compare", file, good]), parts);
}

#[test]
fn batches_of_gigabytes_are_refused() {
    let qlnet = Qlnet::new();
    let output = qlnet.eval(Path::new(HELD_OUT), &["--crop", "4096", "--batch-size", "17"]);
    assert_error(&output, &["a batch of 17 images of 4096x4096 pixels is too large", "fewer"]);
    let bench = |args: &[&str]| qlnet.run(&[&["bench", "--model", "qlnet-digits"], args].concat());
    let output = bench(&["--batch-size", "1,4096", "--input-size", "4096"]);
    assert_error(&output, &["a batch of 4096 images of 4096x4096 pixels is too large"]);
    for args in [["--warmup", "4097"], ["--batch-size", "4097"]] {
        assert_eq!(bench(&args).status.code(), Some(2), "{args:?}");
    }
    assert_eq!(qlnet.eval(Path::new(HELD_OUT), &["--workers", "513"]).status.code(), Some(2));
}

#[test]
fn a_file_of_predictions_has_classes_that_can_be_named() {
    let qlnet = Qlnet::new();
    let (good, many) = predictions(&qlnet, "many.jsonl", |run| run["classes"] = (1 << 24).into());
    refused(&qlnet, &good, &many, &["many.jsonl: it says 16,777,216 classes", "at most 100,000"]);
}

#[test]
fn what_a_run_says_gives_the_terminal_no_orders() {
    let qlnet = Qlnet::new();
    let (good, escapes) = predictions(&qlnet, "escapes.jsonl", |run| {
        run["device"] = "cpu\u{1b}[31m\ntop-1 100 %".into();
        run["dtype"] = "f32\u{1b}[2J".into();
        run["jpeg_decoder"] = "a\nb".into();
    });
    let table = |file: &Path| {
        let output = qlnet.run(&["eval", "--merge", file.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(0));
        stdout(&output)
    };
    let text = table(&escapes);
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    assert!(text.contains(r"cpu\u{1b}[31m\ntop-1 100 %") && text.contains(r"JPEG by a\nb"), "{text}");
    assert_eq!(text.lines().count(), table(&good).lines().count(), "{text}");
}

#[test]
fn a_line_of_a_file_of_predictions_has_an_end() {
    let qlnet = Qlnet::new();
    let (good, _) = predictions(&qlnet, "other.jsonl", |_| {});
    let long = qlnet.file("long.jsonl", &vec![b' '; 2 << 20]);
    refused(&qlnet, &good, &long, &["long.jsonl, line 1: damaged: it is longer than 1 MiB"]);
    #[cfg(unix)]
    {
        let endless = qlnet.path("endless.jsonl");
        std::os::unix::fs::symlink("/dev/zero", &endless).unwrap();
        refused(&qlnet, &good, &endless, &["there is a gap", "endless.jsonl has no predictions"]);
    }
    // What a power cut leaves is no such line, however long it is.
    let whole = fs::read(&good).unwrap();
    let resumed = qlnet.path("resumed.jsonl");
    let end = whole.iter().position(|byte| *byte == b'\n').unwrap() + 40;
    qlnet.file("resumed.jsonl.partial", &[&whole[..end], &vec![0; 3 << 20]].concat());
    json(&qlnet.eval(Path::new(HELD_OUT), &["--json", "--limit", "3", "--resume", resumed.to_str().unwrap()]));
    assert!(fs::read(&resumed).unwrap() == whole);
}

/// A row that would not be read back.
#[test]
fn a_row_that_is_too_long_is_not_written() {
    let qlnet = Qlnet::new();
    let mut archive = tar::Builder::new(Vec::new());
    let image = fs::read("samples/digits/3-45.png").unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_size(image.len() as u64);
    header.set_mode(0o644);
    let name = format!("3/{}.png", "n".repeat(1 << 20));
    archive.append_data(&mut header, name, image.as_slice()).unwrap();
    let archive = qlnet.file("long.tar", &archive.into_inner().unwrap());
    let file = qlnet.path("rows.csv");
    // Without a word on the classes that are not there.
    let output = qlnet.eval(&archive, &["--restrict-to-present", "--predictions", file.to_str().unwrap()]);
    assert_error(&output, &["cannot write ", "rows.csv.partial: the row of 3/nnn", " is longer than 1 MiB"]);
    assert_eq!(qlnet.files().iter().filter(|name| name.starts_with("rows")).count(), 0, "{:?}", qlnet.files());
}

#[cfg(unix)]
mod unix {
    use std::io::Write;
    use std::os::unix::fs::symlink;
    use std::process::{Output, Stdio};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::support::fixture;
    use crate::support::pipe::make_pipe;
    use crate::support::program::DIGITS;

    /// Evaluates a set, which must not take for ever.
    fn ends(qlnet: &Qlnet, data: &Path, args: &[&str]) -> Output {
        let mut command = qlnet.command();
        command.args(["eval", "--imagenet-val", data.to_str().unwrap()]).args(DIGITS).args(args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let start = Instant::now();
        while child.try_wait().unwrap().is_none() {
            if start.elapsed() > Duration::from_secs(60) {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("{} takes for ever", data.display());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        child.wait_with_output().unwrap()
    }

    #[test]
    fn a_file_of_predictions_is_not_written_where_a_link_leads_that_nobody_named() {
        let qlnet = Qlnet::new();
        let (rows, partial, elsewhere) =
            (qlnet.path("rows.csv"), qlnet.path("rows.csv.partial"), qlnet.path("elsewhere"));
        symlink(&elsewhere, &partial).unwrap();
        for option in ["--predictions", "--resume"] {
            let eval = || qlnet.eval(Path::new(HELD_OUT), &["--limit", "3", option, rows.to_str().unwrap()]);
            let _ = fs::remove_file(&elsewhere);
            let words = "rows.csv.partial: it is a symbolic link, which is not followed: remove it";
            assert_error(&eval(), &["cannot write ", words]);
            assert!(!elsewhere.exists() && !rows.is_symlink());
            fs::write(&elsewhere, "").unwrap();
            assert_error(&eval(), &["cannot write ", words]);
            assert_eq!(fs::read(&elsewhere).unwrap(), b"");
        }
        // One that was named is followed.
        fs::remove_file(&partial).unwrap();
        let link = qlnet.path("link.csv");
        symlink(&elsewhere, &link).unwrap();
        json(&qlnet.eval(Path::new(HELD_OUT), &["--json", "--limit", "3", "--predictions", link.to_str().unwrap()]));
        assert!(link.is_symlink() && fs::read(&elsewhere).unwrap().starts_with(b"path,label,"));
    }

    #[test]
    fn files_of_labels_have_an_end() {
        let qlnet = Qlnet::new();
        for option in ["--labels", "--class-map", "--real-labels", "--valid-labels"] {
            let output = qlnet.eval(Path::new(HELD_OUT), &["--limit", "3", option, "/dev/zero"]);
            assert_error(&output, &["/dev/zero: a file of labels larger than 256 MiB"]);
        }
        // A pipe has one, as what a shell puts in the place of `<(...)`.
        let (flat, labels) = qlnet.flat("flat", 20);
        let mut command = qlnet.command();
        command.args(["eval", "--json", "--labels", "/dev/stdin", "--imagenet-val", flat.to_str().unwrap()]);
        command.args(DIGITS).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let text: String = labels.iter().map(|label| format!("{label}\n")).collect();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert_eq!(json(&child.wait_with_output().unwrap())["images"], 20);
    }

    /// A pipe that nobody writes to is waited for, and a device may have no end.
    #[test]
    fn what_lies_beside_shards_and_is_no_file_is_not_read() {
        let qlnet = Qlnet::new();
        let folder = qlnet.path("shards");
        let copy = || {
            let _ = fs::remove_dir_all(&folder);
            fs::create_dir(&folder).unwrap();
            for shard in ["00", "01", "02"].map(|number| format!("imagenet1k-validation-{number}.tar")) {
                fs::copy(fixture("sets/wds-timm").join(&shard), folder.join(&shard)).unwrap();
            }
        };
        copy();
        let expected = json(&ends(&qlnet, &folder, &["--json"]));
        for name in ["nshards.txt", "_info.json"] {
            make_pipe(&folder.join(name));
            assert_eq!(json(&ends(&qlnet, &folder, &["--json"]))["images"], expected["images"]);
            fs::remove_file(folder.join(name)).unwrap();
            symlink("/dev/zero", folder.join(name)).unwrap();
            assert_eq!(json(&ends(&qlnet, &folder, &["--json"]))["images"], expected["images"]);
        }
        for make in [make_pipe, |path: &Path| symlink("/dev/zero", path).unwrap()] {
            for (name, part) in [
                ("classnames.txt", "classnames.txt: not a regular file"),
                ("validation-03.parquet", "validation-03.parquet: it is not a regular file"),
                ("imagenet1k-validation-03.tar", "imagenet1k-validation-03.tar: it is not a regular file"),
            ] {
                copy();
                make(&folder.join(name));
                assert_error(&ends(&qlnet, &folder, &[]), &[part]);
            }
        }
    }
}
