//! What the tests of `qlnet eval` share.
#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use qlnet::eval::dataset::Listing;
use serde_json::Value;

use crate::support::program::{DIGITS, Qlnet, stderr, stdout};

/// The held-out digits, as a tar archive with a folder per class.
pub const HELD_OUT: &str = "samples/digits-held-out.tar";

/// The archive, from wherever a test runs.
pub fn held_out() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(HELD_OUT)
}

impl Qlnet {
    /// Evaluates qlnet-digits.
    pub fn eval(&self, data: &Path, args: &[&str]) -> Output {
        let data = data.to_str().unwrap();
        self.run(&[&["eval", "--imagenet-val", data, DIGITS[0], DIGITS[1]], args].concat())
    }

    /// Evaluates qlnet-digits on several sets.
    pub fn eval_sets(&self, sets: &[&Path], args: &[&str]) -> Output {
        let named = sets.iter().flat_map(|set| ["--imagenet-val", set.to_str().unwrap()]);
        let common = ["eval", DIGITS[0], DIGITS[1]];
        self.run(&common.into_iter().chain(named).chain(args.iter().copied()).collect::<Vec<_>>())
    }

    /// The held-out digits of some classes, as a folder per class.
    pub fn some_digits(&self, name: &str, classes: &[u32]) -> PathBuf {
        let folders = self.unpacked(name);
        for digit in (0..10).filter(|digit| !classes.contains(digit)) {
            fs::remove_dir_all(folders.join(digit.to_string())).unwrap();
        }
        folders
    }

    /// The held-out digits as a folder per class.
    pub fn unpacked(&self, name: &str) -> PathBuf {
        let dir = self.home.path().join(name);
        tar::Archive::new(fs::File::open(held_out()).unwrap()).unpack(&dir).unwrap();
        dir
    }

    /// The first `count` of them in one folder, and their labels.
    pub fn flat(&self, name: &str, count: usize) -> (PathBuf, Vec<u32>) {
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

    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Names of what is in the home directory.
    pub fn files(&self) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(self.home.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Runs the program in a shell after `prelude`, which may set limits.
    #[cfg(unix)]
    pub fn run_after(&self, prelude: &str, args: &[&str]) -> Output {
        let mut command = self.with_caches(std::process::Command::new("sh"));
        command.args(["-c", &format!("{prelude}; exec \"$0\" \"$@\"")]).arg(env!("CARGO_BIN_EXE_qlnet")).args(args);
        command.output().unwrap()
    }
}

pub fn json(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    serde_json::from_str(&stdout(output)).unwrap()
}

/// Standard error without the lines that say how far a run is, which come only where it takes long.
pub fn messages(output: &Output) -> String {
    stderr(output).lines().filter(|line| !line.starts_with("progress:")).map(|line| format!("{line}\n")).collect()
}

/// The rows of a CSV file, by column.
pub fn rows(path: &Path) -> Vec<HashMap<String, String>> {
    csv::Reader::from_path(path).unwrap().deserialize().map(Result::unwrap).collect()
}
