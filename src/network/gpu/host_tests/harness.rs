//! The kernels as a program of this host.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Device, Tensor};

use super::super::launch::Launch;

/// The dialects that kernels are compiled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// CUDA C++.
    Cuda,
    /// The Metal Shading Language.
    Metal,
}

/// The folder of the kernels.
pub(super) fn kernels() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/network/gpu/kernels")
}

/// A C++ compiler, and the sanitizers that it has.
pub(super) struct Compiler {
    program: String,
    sanitizers: &'static [&'static str],
}

const SANITIZERS: &[&str] = &["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];

impl Compiler {
    /// The one that `CXX` names, or the first of those that are usual on Unix. Where there is none, or it lacks
    /// sanitizers, it says so past the test harness, which hides what tests print that pass.
    pub(super) fn find(scratch: &Path) -> Result<Option<Self>> {
        let named = std::env::var("CXX").ok();
        let names = named.as_deref().into_iter().chain(["c++", "g++", "clang++"]);
        let source = scratch.join("empty.cpp");
        std::fs::write(&source, "int main() {}\n")?;
        let works = |program: &str, flags: &[&str]| {
            let empty = scratch.join("empty");
            let built = Command::new(program).args(flags).arg(&source).arg("-o").arg(&empty).output();
            built.is_ok_and(|output| output.status.success())
                && Command::new(&empty).status().is_ok_and(|status| status.success())
        };
        let say = |text: &str| std::io::stderr().write_all(text.as_bytes());
        // On Windows what goes through a program's input and output is not what it reads and writes.
        for program in names.filter(|_| cfg!(unix)) {
            for sanitizers in [SANITIZERS, &[]] {
                if works(program, sanitizers) {
                    if sanitizers.is_empty() {
                        say(&format!("{program} has no sanitizers: steps outside of tensors may go unseen\n"))?;
                    }
                    return Ok(Some(Self { program: program.into(), sanitizers }));
                }
            }
        }
        say("skipped: no C++ compiler; set CXX to run this test\n")?;
        Ok(None)
    }

    /// Builds the kernels of a folder in a dialect and element type.
    pub(super) fn build(&self, dialect: Dialect, dtype: DType, kernels: &Path, program: &Path) -> Result<()> {
        let harness = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gpu");
        // Without optimisation: it takes a quarter of the time, and leaves every access in place.
        let mut command = Command::new(&self.program);
        command.args(["-std=c++17", "-O0", "-w"]).args(self.sanitizers);
        command.arg(format!("-DQLNET_{}", dtype.as_str().to_uppercase()));
        if dialect == Dialect::Metal {
            command.arg("-DMETAL");
        }
        for folder in [kernels, &harness, &harness.join("cuda"), &harness.join("metal")] {
            command.arg("-I").arg(folder);
        }
        let output = command.arg(harness.join("harness.cpp")).arg("-o").arg(program).output()?;
        successful(&output).with_context(|| format!("{} {dialect:?} {dtype:?}", self.program))
    }
}

fn successful(output: &Output) -> Result<()> {
    if !output.status.success() {
        bail!("{}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// A running program of kernels, see `tests/gpu/harness.cpp`.
pub(super) struct Harness {
    program: PathBuf,
    child: Child,
    messages: PathBuf,
    launched: HashSet<String>,
    pub(super) dtype: DType,
    /// What befalls every launch: nothing, unless a test wants it found.
    pub(super) mistake: fn(&mut Launch),
}

impl Harness {
    /// Starts a program that [`Compiler::build`] has made.
    pub(super) fn start(program: &Path, dtype: DType) -> Result<Self> {
        let messages = program.with_extension("messages");
        let child = Command::new(program)
            .env("ASAN_OPTIONS", "detect_leaks=0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&messages)?)
            .spawn()?;
        let program = program.to_path_buf();
        Ok(Self { program, child, messages, launched: HashSet::new(), dtype, mistake: |_| {} })
    }

    /// The channels that the widest vectors of the element type have.
    pub(super) fn widest(&self) -> usize {
        16 / self.dtype.size_in_bytes()
    }

    /// What a launch computes, after the harness's mistake. What a sanitizer finds is an error, as are other threads than
    /// the kernel has work for, or other arguments than it takes.
    pub(super) fn run(&mut self, mut launch: Launch) -> Result<Tensor> {
        (self.mistake)(&mut launch);
        let output = self.ask(&launch).with_context(|| {
            drop(self.child.stdin.take());
            let _ = self.child.wait();
            let messages = std::fs::read_to_string(&self.messages).unwrap_or_default();
            let first = messages.lines().find(|line| line.to_lowercase().contains("error"));
            format!("{} {:?}: {}", launch.kernel, launch.sizes, first.unwrap_or(messages.trim()))
        })?;
        self.launched.insert(launch.kernel);
        Ok(output)
    }

    fn ask(&mut self, launch: &Launch) -> Result<Tensor> {
        let mut output = vec![0; launch.shape.elem_count() * launch.dtype.size_in_bytes()];
        let list = |numbers: Vec<String>| format!("{} {}", numbers.len(), numbers.join(" "));
        let bytes = launch.inputs.iter().map(|input| (input.elem_count() * input.dtype().size_in_bytes()).to_string());
        let mut request = format!(
            "{} {} {} {} {} {}\n",
            launch.kernel,
            launch.threads,
            output.len(),
            list(bytes.collect()),
            list(launch.sizes.iter().map(u32::to_string).collect()),
            list(launch.numbers.iter().map(f32::to_string).collect()),
        )
        .into_bytes();
        for input in &launch.inputs {
            input.write_bytes(&mut request)?;
        }
        self.child.stdin.as_mut().context("no input")?.write_all(&request)?;
        self.child.stdout.as_mut().context("no output")?.read_exact(&mut output)?;
        Ok(Tensor::from_raw_buffer(&output, launch.dtype, launch.shape.dims(), &Device::Cpu)?)
    }

    /// The kernels that were not launched.
    pub(super) fn not_launched(&self) -> Result<Vec<String>> {
        let output = Command::new(&self.program).arg("kernels").output()?;
        successful(&output)?;
        let mut kernels: Vec<_> = String::from_utf8(output.stdout)?.lines().map(String::from).collect();
        ensure!(!kernels.is_empty(), "a program without kernels");
        kernels.retain(|kernel| !self.launched.contains(kernel));
        Ok(kernels)
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
