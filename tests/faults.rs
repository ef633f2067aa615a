//! Disks that are full, folders that cannot be written, runs that were killed: for every file that the program writes.
//! `scripts/torture` does the same at random, with kills.
#![cfg(unix)]

#[path = "support/eval.rs"]
mod eval_support;
mod support;

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, SystemTime};

use eval_support::{HELD_OUT, json};
use support::fixture;
use support::program::{DIGITS, Qlnet, assert_error, stderr, stdout};

const IMAGES: &str = "samples/digits";

/// Every command that writes files: its arguments without the file, the option of the file, and names for it.
const WRITERS: &[(&[&str], &str, &[&str])] = &[
    (&["eval", HELD_OUT, DIGITS[0], DIGITS[1]], "--predictions", &["p.csv", "p.jsonl"]),
    (&["eval", HELD_OUT, DIGITS[0], DIGITS[1]], "--resume", &["q.csv"]),
    (&["eval", HELD_OUT, DIGITS[0], DIGITS[1]], "--per-class", &["c.csv"]),
    (&["eval", HELD_OUT, DIGITS[0], DIGITS[1]], "--report", &["r.html"]),
    (&["classify", IMAGES, DIGITS[0], DIGITS[1]], "--report", &["k.html"]),
    (&["features", IMAGES, DIGITS[0], DIGITS[1]], "--out", &["f.npy", "f.safetensors", "f.csv"]),
    (&["symmetry", DIGITS[0], DIGITS[1]], "--save", &["s.safetensors"]),
    (&["symmetry", DIGITS[0], DIGITS[1]], "--save-state-dict", &["d.safetensors"]),
    (&["symmetry", "--balance", DIGITS[0], DIGITS[1]], "--save", &["b.safetensors"]),
    (&["symmetry", "--path", "2", DIGITS[0], DIGITS[1]], "--report", &["y.html"]),
    (&["symmetry", "--path", "2", DIGITS[0], DIGITS[1]], "--plot", &["y.svg", "y.png"]),
    (&["symmetry", "--path", "2", DIGITS[0], DIGITS[1]], "--csv", &["y.csv"]),
    (&["convert", "tests/fixtures/two-filters.pth.tar"], "", &["w.safetensors"]),
];

/// The arguments with which a command writes a file.
fn arguments(args: &[&str], option: &str, path: &Path) -> Vec<String> {
    let named = [option, path.to_str().unwrap()].into_iter().filter(|word| !word.is_empty());
    args.iter().copied().chain(named).map(String::from).collect()
}

/// Asserts that a run failed with one line of error among what else it says.
fn assert_one_error(output: &Output, part: &str, of: &str) {
    let message = stderr(output);
    assert_eq!(output.status.code(), Some(1), "{of}: {message}");
    let lines: Vec<_> = message.lines().filter(|line| line.starts_with("error: ")).collect();
    assert!(matches!(lines[..], [line] if line.contains(part)), "{of}: {message}");
}

#[test]
fn no_byte_can_be_written_and_nothing_is_lost() {
    for (args, option, names) in WRITERS {
        for name in *names {
            let qlnet = Qlnet::new();
            // What is to be resumed would not be there.
            let old = *option != "--resume";
            let path = if old { qlnet.file(name, b"earlier") } else { qlnet.path(name) };
            let args = arguments(args, option, &path);
            let output = qlnet.run_after("ulimit -f 0", &args.iter().map(String::as_str).collect::<Vec<_>>());
            assert_one_error(&output, name, name);
            assert!(!old || fs::read(&path).unwrap() == b"earlier", "{name}");
            assert_eq!(qlnet.files().iter().filter(|file| *file != "cache").count(), usize::from(old), "{name}");
        }
    }
}

/// A file is in the way: for root no folder is read-only.
#[test]
fn a_folder_that_cannot_be_written_is_said_first() {
    for (args, option, names) in WRITERS {
        let qlnet = Qlnet::new();
        let path = qlnet.file("file", b"earlier").join(names[0]);
        let output = qlnet.run(&arguments(args, option, &path).iter().map(String::as_str).collect::<Vec<_>>());
        assert_error(&output, &[path.to_str().unwrap()]);
        assert_eq!(qlnet.files().iter().filter(|file| *file != "cache").count(), 1, "{option}");
    }
}

#[test]
fn what_a_killed_run_left_is_removed_and_what_is_being_written_is_not() {
    let qlnet = Qlnet::new();
    // As another machine's, so that what it is known by is its age.
    let old = SystemTime::now() - Duration::from_secs(2 * 24 * 3600);
    qlnet.file(".qlnet-a1B2c3d4E5f6.tmp", b"left");
    File::options().write(true).open(qlnet.path(".qlnet-a1B2c3d4E5f6.tmp")).unwrap().set_modified(old).unwrap();
    let held = File::create(qlnet.path(".qlnet-a1B2c3G7h8i9.tmp")).unwrap();
    held.set_modified(old).unwrap();
    held.lock().unwrap();
    let out = qlnet.path("w.safetensors");
    let convert = || qlnet.run(&["convert", "tests/fixtures/two-filters.pth.tar", out.to_str().unwrap()]);
    assert!(convert().status.success());
    assert_eq!(qlnet.files(), [".qlnet-a1B2c3G7h8i9.tmp", "w.safetensors"]);
    drop(held);
    assert!(convert().status.success());
    assert_eq!(qlnet.files(), ["w.safetensors"]);
}

/// After a power cut a file may have its length and zeros in the place of its last bytes.
#[test]
fn zeros_in_a_file_of_predictions_are_not_rows() {
    let qlnet = Qlnet::new();
    for name in ["p.csv", "p.jsonl"] {
        let (file, partial) = (qlnet.path(name), qlnet.path(&format!("{name}.partial")));
        let named = file.to_str().unwrap();
        json(&qlnet.eval(Path::new(HELD_OUT), &["--json", "--predictions", named]));
        let whole = fs::read(&file).unwrap();
        let third = whole.len() / 3;
        for zeros in [third..2 * third, 2 * third..whole.len(), 0..whole.len()] {
            let mut bytes = whole.clone();
            bytes[zeros].fill(0);
            fs::remove_file(&file).unwrap();
            fs::write(&partial, bytes).unwrap();
            json(&qlnet.eval(Path::new(HELD_OUT), &["--json", "--resume", named]));
            assert!(fs::read(&file).unwrap() == whole && !partial.exists());
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn help_that_cannot_be_printed_is_an_error() {
    for args in [&["--help"][..], &["--version"], &["eval", "-h"], &["models"], &["completions", "bash"]] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = Qlnet::new().command().args(args).stdout(full).output().unwrap();
        assert_error(&output, &["standard output", "No space left"]);
    }
}

#[test]
fn int8_is_prepared_each_time_where_it_cannot_be_kept_and_that_is_said() {
    let qlnet = Qlnet::new();
    let weights = fixture("two-filters.pth.tar");
    let args = ["classify", "samples/digits/3-45.png", "--weights", weights.to_str().unwrap(), "--json", "--dtype"];
    let mut command = qlnet.command();
    let unwritable = qlnet.file("file", b"").join("cache");
    let output = command.args(args).arg("int8").env("QLNET_CACHE", &unwritable).output().unwrap();
    assert!(output.status.success());
    let says = |output: &Output| {
        let note = format!("cannot be kept in {}", unwritable.display());
        stderr(output).lines().any(|line| line.starts_with("note: ") && line.contains(&note))
    };
    assert!(says(&output), "{}", stderr(&output));
    let kept = qlnet.run(&[&args[..], &["int8"]].concat());
    assert!(stdout(&kept) == stdout(&output) && !says(&kept));
    let output = qlnet.command().args(args).arg("f32").env("QLNET_CACHE", &unwritable).output().unwrap();
    assert!(output.status.success() && !says(&output), "what takes no time is not worth a word");
}

/// Packed weights are read as they are mapped; who cuts the file short takes them away.
#[test]
#[cfg(target_os = "linux")]
fn weights_that_are_cut_short_while_in_use_are_one_error() {
    let qlnet = Qlnet::new();
    let weights = fixture("two-filters.pth.tar");
    let args = ["classify", "-", "--weights", weights.to_str().unwrap(), "--json"];
    let image = fs::read("samples/digits/3-45.png").unwrap();
    let run = |cut: bool| {
        let mut command = qlnet.command();
        let mut child =
            command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        if cut {
            // It has them mapped before it reads the image.
            let maps = format!("/proc/{}/maps", child.id());
            while !fs::read_to_string(&maps).unwrap().contains(".packed") {
                assert!(child.try_wait().unwrap().is_none(), "nothing was mapped");
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            for entry in fs::read_dir(qlnet.path("cache")).unwrap().map(|entry| entry.unwrap().path()) {
                if entry.extension().is_some_and(|extension| extension == "packed") {
                    File::options().write(true).open(entry).unwrap().set_len(0).unwrap();
                }
            }
        }
        child.stdin.take().unwrap().write_all(&image).unwrap();
        child.wait_with_output().unwrap()
    };
    let expected = run(false);
    assert!(expected.status.success(), "{}", stderr(&expected));
    let cut = run(true);
    assert_one_error(&cut, "cut short while it was read", "classify");
    assert_eq!(stdout(&cut), "");
    let again = run(false);
    assert_eq!((stdout(&again), again.status.code()), (stdout(&expected), Some(0)));
}
