//! Runs the program as a user does.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The program with caches of its own, so that nothing of the machine's is seen or changed.
pub struct Qlnet {
    pub home: tempfile::TempDir,
}

impl Qlnet {
    pub fn new() -> Self {
        Self { home: tempfile::tempdir().unwrap() }
    }

    pub fn command(&self) -> Command {
        self.with_caches(Command::new(env!("CARGO_BIN_EXE_qlnet")))
    }

    /// Another program, which finds the same caches.
    pub fn with_caches(&self, mut command: Command) -> Command {
        command
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("HOME", self.home.path())
            .env("QLNET_CACHE", self.home.path().join("cache"))
            // A port on which nobody listens: no test goes out by mistake.
            .env("HF_ENDPOINT", "http://127.0.0.1:9")
            .env_remove("HF_HOME")
            .env_remove("HF_HUB_CACHE")
            .env_remove("HUGGINGFACE_HUB_CACHE")
            .env_remove("XDG_CACHE_HOME")
            .env("NO_PROXY", "127.0.0.1,localhost")
            .env_remove("HF_HUB_OFFLINE")
            .env_remove("HF_TOKEN")
            // As a terminal of today has it, and nobody asks for colours.
            .env("LC_ALL", "C.UTF-8")
            .env("TERM", "xterm-256color")
            .env_remove("NO_COLOR")
            .env_remove("CLICOLOR")
            .env_remove("CLICOLOR_FORCE");
        if cfg!(windows) {
            // The home directory is not asked of `HOME` there.
            command.env("HF_HOME", self.home.path().join(".cache/huggingface"));
        }
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.command().args(args).output().unwrap()
    }

    /// A file in the home directory.
    pub fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.home.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The lines of standard output, each a JSON value.
pub fn records(output: &Output) -> Vec<serde_json::Value> {
    stdout(output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Asserts that a run failed with one line on stderr that holds all of `parts`, and with no panic.
pub fn assert_error(output: &Output, parts: &[&str]) {
    let message = stderr(output);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert_eq!(message.trim_end().lines().count(), 1, "{message}");
    assert!(message.starts_with("error: "), "{message}");
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
    assert!(stdout(output).is_empty());
}

/// What the system says of a file that is not there.
pub fn not_found(path: impl AsRef<Path>) -> String {
    std::fs::metadata(path).unwrap_err().to_string()
}

pub const DIGITS: [&str; 2] = ["--model", "qlnet-digits"];
