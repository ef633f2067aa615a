//! What all commands have in common, as a user meets it: checkpoints, options, help. And `qlnet bench`.

mod support;

use std::io::Write;
use std::path::PathBuf;

use serde_json::Value;
use support::program::{DIGITS, Qlnet, assert_error, not_found, records, stderr, stdout};
use support::{CHECKPOINTS, fixture};

#[test]
fn tf32_is_of_float32_on_cuda() {
    let qlnet = Qlnet::new();
    let digits = ["classify", "samples/digits/1-21.png", "--model", "qlnet-digits"];
    let run = |more: &[&str]| qlnet.run(&[&digits[..], &["--device", "cpu"], more].concat());
    for more in [&["--tf32"][..], &["--dtype", "tf32"], &["--tf32", "--dtype", "f32"]] {
        assert_error(
            &run(more),
            &["cpu does not compute in tf32 (TF32 is computed on CUDA only); leave out --tf32, or say --dtype f32"],
        );
    }
    assert_error(&run(&["--tf32", "--dtype", "f16"]), &["--tf32 is for float32, not for --dtype f16"]);
}

#[test]
fn every_form_of_checkpoint_is_taken() {
    let qlnet = Qlnet::new();
    for name in CHECKPOINTS {
        let path = fixture(name);
        let args = ["classify", "samples/digits/1-21.png", "--json", "-k", "7", "--weights", path.to_str().unwrap()];
        let first = qlnet.run(&args);
        assert_eq!(first.status.code(), Some(0), "{name}: {}", stderr(&first));
        let record = &records(&first)[0];
        assert_eq!(record["predictions"].as_array().unwrap().len(), 7);
        assert!(record["predictions"][0]["label"].as_str().unwrap().starts_with("class "));
        assert_eq!(record["model"], path.to_str().unwrap());
        // Again, from the folded copy.
        assert_eq!(stdout(&qlnet.run(&args)), stdout(&first));
    }
    let files = || std::fs::read_dir(qlnet.home.path().join("cache")).unwrap().map(|entry| entry.unwrap().path());
    let count = |kind: &str| files().filter(|path| path.extension().is_some_and(|found| found == kind)).count();
    assert_eq!((count("safetensors"), count("packed")), (5, 5));
    // Hashes of files that were changed a moment ago are not kept, so their number depends on the checkout.
    assert!(count("hash") <= 10);
    assert_eq!(files().count(), 10 + count("hash"), "nothing temporary is left");
}

#[test]
fn runs_that_fill_the_cache_together_do_not_mind_each_other() {
    let qlnet = Qlnet::new();
    let path = fixture("two-filters.pth.tar");
    let args = ["classify", "samples/digits/1-21.png", "--weights", path.to_str().unwrap()];
    let start = || qlnet.command().args(args).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let runs: Vec<_> = (0..8).map(|_| start()).collect();
    let outputs: Vec<_> = runs.into_iter().map(|run| run.wait_with_output().unwrap()).collect();
    for output in &outputs {
        assert!(output.status.success());
        assert_eq!(stdout(output), stdout(&outputs[0]));
    }
    assert_eq!(stdout(&qlnet.run(&args)), stdout(&outputs[0]));
    let files = std::fs::read_dir(qlnet.home.path().join("cache")).unwrap();
    let names: Vec<_> = files.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.iter().all(|name| !name.ends_with(".tmp")), "{names:?}");
}

#[test]
fn bad_checkpoints_are_explained() {
    let qlnet = Qlnet::new();
    let whole = std::fs::read(fixture("two-filters.pth.tar")).unwrap();
    let mut corrupted = whole.clone();
    // In the elements of some tensor: the zip's directory at the end is whole.
    corrupted[whole.len() / 2] ^= 0x40;
    let safetensors = std::fs::read(fixture("one-filter.safetensors")).unwrap();
    let mut lying = safetensors.clone();
    lying[..8].copy_from_slice(&(1u64 << 40).to_le_bytes());
    let empty_zip = b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let nowhere = not_found("nowhere");
    let nowhere = ["cannot open", &nowhere];
    let cases: Vec<(PathBuf, &[&str])> = vec![
        (qlnet.home.path().join("nowhere.pth"), &nowhere),
        (qlnet.home.path().to_path_buf(), &["directory"]),
        (qlnet.file("empty.pth", b""), &["empty"]),
        (qlnet.file("cut.pth.tar", &whole[..whole.len() / 2]), &["damaged or incomplete"]),
        (qlnet.file("corrupted.pth.tar", &corrupted), &["damaged"]),
        (qlnet.file("lying.safetensors", &lying), &["damaged safetensors file", "header"]),
        (qlnet.file("cut.safetensors", &safetensors[..safetensors.len() / 2]), &["damaged safetensors file"]),
        (qlnet.file("zip.pth", empty_zip), &["neither a zip that torch.save writes"]),
        (qlnet.file("other.zip", &zip(&[("readme.txt", b"hello")])), &["without data.pkl"]),
        (
            qlnet.file("evil.pth", &zip(&[("evil/data.pkl", b"\x80\x02cos\nsystem\nX\x07\x00\x00\x00touch x\x85R.")])),
            &["`os.system`", "never executed"],
        ),
        (qlnet.file("cut-pickle.pth", &zip(&[("a/data.pkl", b"\x80\x02}")])), &["ends too early"]),
        (qlnet.file("text.pth", b"hello"), &["not a checkpoint"]),
        (fixture("legacy.pth"), &["before version 1.6", "re-save"]),
        (
            fixture("resnet.pth"),
            &["not a QLNet checkpoint", "`layer1.0.conv1.conv.weight` is missing", "[2w, 4, 1, 1]"],
        ),
    ];
    for (path, parts) in cases {
        let path = path.to_str().unwrap();
        let output = qlnet.run(&["classify", "samples/digits/1-21.png", "--weights", path]);
        assert_error(&output, &[&[path], parts].concat());
    }
    assert!(!qlnet.home.path().join("cache").exists(), "nothing of a bad checkpoint is kept");
}

/// A zip of stored entries.
fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, content) in entries {
        writer.start_file(*name, options).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

#[test]
fn wrong_options_are_explained() {
    let qlnet = Qlnet::new();
    let image = "samples/digits/1-21.png";
    if !cfg!(feature = "cuda") {
        assert_error(
            &qlnet.run(&["classify", image, "--device", "cuda", DIGITS[0], DIGITS[1]]),
            &["no CUDA support", "--features cuda"],
        );
    }
    for args in [
        &["classify"][..],
        &["classify", image, "--device", "gpu"],
        &["classify", image, "--top-k", "0"],
        &["classify", image, "--threads", "none"],
        &["classify", image, "--model", "qlnet-50-v1"],
        &["symmetry", "--family", "rotation"],
        &["bench", "--batch-size", "1,x"],
        &["guess"],
    ] {
        let output = qlnet.run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr(&output).starts_with("error: ") || stderr(&output).contains("Usage"), "{}", stderr(&output));
    }
}

#[test]
fn a_misspelt_name_is_corrected() {
    let qlnet = Qlnet::new();
    let error = |args: &[&str]| stderr(&qlnet.run(args));
    let message = error(&["classify", "samples/digits/1-21.png", "--model", "qlnet-50-v1"]);
    assert!(
        message.contains("'qlnet-50-v1'") && message.contains("a similar value exists: 'qlnet-50-v0'"),
        "{message}"
    );
    assert!(message.contains("qlnet-digits"), "all names are listed: {message}");
    let message = error(&["symmetry", "--family", "stage-rotations", DIGITS[0], DIGITS[1]]);
    assert!(message.contains("a similar value exists: 'stage-rotation'"), "{message}");
}

#[test]
fn the_examples_of_the_help_work_as_they_stand() {
    let help = stderr(&Qlnet::new().run(&[]));
    let examples: Vec<_> = help.lines().filter(|line| line.starts_with("  qlnet ")).collect();
    assert_eq!(examples.len(), 4, "{help}");
    let elsewhere = tempfile::tempdir().unwrap();
    for example in &examples[..3] {
        let command = example.trim_start().split("   ").next().unwrap();
        let output = Qlnet::new().command().current_dir(&elsewhere).args(command.split(' ').skip(1)).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{command}: {}", stderr(&output));
        assert!(!output.stdout.is_empty());
    }
}

#[test]
fn bench_speaks_json() {
    let args =
        ["bench", "--batch-size", "1,3", "--duration", "0", "--repetitions", "2", "--json", DIGITS[0], DIGITS[1]];
    let output = Qlnet::new().run(&args);
    let timings: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let timings = timings.as_array().unwrap();
    assert_eq!(timings.len(), 2);
    for (timing, batch_size) in timings.iter().zip([1, 3]) {
        assert_eq!(timing["batch_size"], batch_size);
        let (ms, rate) = (timing["ms_per_image"].as_f64().unwrap(), timing["images_per_second"].as_f64().unwrap());
        assert!(ms > 0.0 && (ms * rate - 1000.0).abs() < 1e-6);
    }
}

#[test]
fn bench_times_every_step() {
    let args = ["bench", "--layers", "--batch-size", "2", "--duration", "0", "--json", DIGITS[0], DIGITS[1]];
    let output = Qlnet::new().run(&args);
    let batches: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let steps: Vec<_> = batches[0]["steps"].as_array().unwrap().iter().map(|s| s["step"].as_str().unwrap()).collect();
    let expected = ["stem", "layer1.0", "layer2.0", "layer2.1", "layer3.0", "layer3.1", "layer4.0", "act", "head"];
    assert_eq!(steps, expected);
}
