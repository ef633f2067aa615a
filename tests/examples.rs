//! The examples, run as their first lines say.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use support::program::{Qlnet, stderr, stdout};

/// An example, which `cargo test` builds beside the tests, with the caches of `qlnet`.
fn example(qlnet: &Qlnet, name: &str, args: &[&Path]) -> Output {
    let tests = std::env::current_exe().unwrap();
    let profile = tests.ancestors().nth(2).unwrap();
    let program: PathBuf = profile.join("examples").join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    // `cargo test --test examples` alone does not build them.
    assert!(program.exists(), "run `cargo build --release --examples` first: there is no {}", program.display());
    let output = qlnet.with_caches(Command::new(program)).args(args).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{name}: {}", stderr(&output));
    output
}

#[test]
fn classify_names_the_digit() {
    let qlnet = Qlnet::new();
    let text = qlnet.file("text.png", b"this is text");
    let output = example(&qlnet, "classify", &["samples/digits/3-45.png".as_ref(), &text]);
    let output = stdout(&output);
    let lines: Vec<&str> = output.lines().collect();
    assert!(lines[0].starts_with("samples/digits/3-45.png: 3 (95."), "{output}");
    assert!(lines[1].contains("text.png: no picture, not an image of a known format"), "{output}");
}

#[test]
fn features_are_written_for_numpy() {
    let qlnet = Qlnet::new();
    let file = qlnet.home.path().join("features.npy");
    example(&qlnet, "features", &["samples/digits".as_ref(), &file]);
    let features = candle_core::Tensor::read_npy(&file).unwrap();
    assert_eq!(features.dims(), [10, 48]);
    // The hardball keeps them within the ball of radius sqrt(48), and their mean too.
    let norms = features.sqr().unwrap().sum(1).unwrap().sqrt().unwrap().to_vec1::<f32>().unwrap();
    assert!(norms.iter().all(|norm| *norm > 0.1 && *norm <= 48f32.sqrt() + 1e-4), "{norms:?}");
}

#[test]
fn moved_weights_keep_the_logits() {
    let qlnet = Qlnet::new();
    let file = qlnet.home.path().join("moved.safetensors");
    let output = stdout(&example(&qlnet, "move_weights", &[&file]));
    let change: f64 = output.trim_end().rsplit(' ').next().unwrap().parse().unwrap();
    assert!(change < 1e-4, "{output}");
    let args = ["classify", "samples/digits/3-45.png", "-k", "1", "--weights", file.to_str().unwrap()];
    let output = qlnet.run(&[&args[..], &["--model", "qlnet-digits"]].concat());
    assert!(stdout(&output).trim_end().ends_with(" 3"), "{}{}", stdout(&output), stderr(&output));
    assert!(std::fs::read(&file).unwrap() != std::fs::read("models/qlnet-digits.safetensors").unwrap());
}
