//! `qlnet features` and `qlnet convert` as a user runs them.

mod support;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use candle_core::Tensor;
use qlnet::input::{Options, to_tensor};
use qlnet::{Classifier, Weights};
use serde_json::Value;
use support::program::{DIGITS, Qlnet, assert_error, not_found, records, stderr, stdout};
use support::{CHECKPOINTS, fixture, reference_dir, tensors};

/// A folder for results, and the program.
struct Setting {
    qlnet: Qlnet,
    out: tempfile::TempDir,
}

impl Setting {
    fn new() -> Self {
        Self { qlnet: Qlnet::new(), out: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.out.path().join(name)
    }

    /// Writes the features of images of digits.
    fn features(&self, name: &str, args: &[&str]) -> Output {
        let out = self.path(name);
        self.qlnet.run(&[&["features", "--out", out.to_str().unwrap()], &DIGITS[..], args].concat())
    }

    /// Converts a checkpoint.
    fn convert(&self, input: &str, name: &str, args: &[&str]) -> Output {
        let out = self.path(name);
        self.qlnet.run(&[&["convert", input, out.to_str().unwrap()], args].concat())
    }

    /// The names of all files of the folder, hidden ones too.
    fn files(&self) -> Vec<String> {
        let files = fs::read_dir(self.out.path()).unwrap();
        let mut names: Vec<_> = files.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// The shape and the values of a file of NumPy, read as its documentation says.
fn npy(path: &Path) -> (Vec<usize>, Vec<f32>) {
    let bytes = fs::read(path).unwrap();
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\0");
    let length = u16::from_le_bytes([bytes[8], bytes[9]]) as usize;
    assert_eq!((10 + length) % 64, 0);
    let header = std::str::from_utf8(&bytes[10..10 + length]).unwrap();
    let rest = header.strip_prefix("{'descr': '<f4', 'fortran_order': False, 'shape': (").unwrap();
    let (shape, end) = rest.split_once(')').unwrap();
    assert!(end.trim_end() == ", }" && end.ends_with('\n'), "{header:?}");
    let shape: Vec<usize> = shape.split(',').filter_map(|size| size.trim().parse().ok()).collect();
    let values = bytes[10 + length..].as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    (shape, values)
}

/// The images of a file of NumPy.
fn images(path: &Path) -> Vec<Value> {
    let lines = fs::read_to_string(path.with_extension("paths.jsonl")).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn digits() -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir("samples/digits").unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// The input of the built-in model.
fn pixels(classifier: &Classifier, paths: &[PathBuf]) -> Tensor {
    let crop = |path: &PathBuf| {
        classifier.preprocess().crop_of(&fs::read(path).unwrap(), path, Options::default()).unwrap().pixels
    };
    to_tensor(&paths.iter().map(crop).collect::<Vec<_>>()).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn every_form_holds_what_the_library_computes() {
    let setting = Setting::new();
    let classifier = Classifier::from_model("qlnet-digits").unwrap();
    let paths = digits();
    let expected = values(&classifier.features(&pixels(&classifier, &paths)).unwrap());
    let names: Vec<_> = paths.iter().map(|path| path.to_str().unwrap()).collect();
    // As the files of any batch size.
    for batch in ["1", "3", "64"] {
        for form in ["npy", "safetensors", "csv"] {
            let output = setting.features(&format!("f.{form}"), &["samples/digits", "--batch-size", batch]);
            assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
            assert!(stdout(&output).is_empty() && stderr(&output).contains("10 of 10 images, 48 numbers each"));
        }
        let (shape, found) = npy(&setting.path("f.npy"));
        assert_eq!(shape, [10, 48]);
        assert!(found == expected);
        assert!(images(&setting.path("f.npy")).iter().map(|line| line["image"].as_str().unwrap()).eq(names.clone()));

        let found = &tensors(&setting.path("f.safetensors"))["features"];
        assert_eq!(found.dims(), [10, 48]);
        assert!(values(found) == expected);
        let bytes = fs::read(setting.path("f.safetensors")).unwrap();
        let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        let metadata = metadata.metadata().clone().unwrap();
        assert_eq!(serde_json::from_str::<Vec<String>>(&metadata["paths"]).unwrap(), names);
        assert_eq!(metadata["weights_sha256"].len(), 64);
        let made = ["model", "layer", "preprocessing", "dtype", "device"].map(|key| metadata[key].as_str());
        assert_eq!(made, ["qlnet-digits", "act", "resize 64 bicubic, crop 64, turned upright", "f32", "cpu"]);

        let mut table = csv::Reader::from_path(setting.path("f.csv")).unwrap();
        let header = table.headers().unwrap().clone();
        assert_eq!((&header[0], &header[1], &header[48], header.len()), ("image", "f0", "f47", 49));
        let rows: Vec<csv::StringRecord> = table.records().map(Result::unwrap).collect();
        assert!(rows.iter().map(|row| &row[0]).eq(names.clone()));
        assert!(rows.iter().flat_map(|row| row.iter().skip(1)).map(|v| v.parse::<f32>().unwrap()).eq(expected.clone()));
    }
    assert_eq!(setting.files(), ["f.csv", "f.npy", "f.paths.jsonl", "f.safetensors"]);
}

#[test]
fn any_layer_is_written_pooled_or_not() {
    let setting = Setting::new();
    let classifier = Classifier::from_model("qlnet-digits").unwrap();
    let pixels = pixels(&classifier, &digits());
    for layer in classifier.layers() {
        assert!(setting.features("p.npy", &["samples/digits", "--layer", &layer]).status.success());
        assert!(setting.features("m.npy", &["samples/digits", "--layer", &layer, "--unpooled"]).status.success());
        let (pooled, map) =
            (classifier.pooled(&pixels, &layer).unwrap(), classifier.activations(&pixels, &layer).unwrap());
        assert!(npy(&setting.path("p.npy")) == (pooled.dims().to_vec(), values(&pooled)), "{layer}");
        assert!(npy(&setting.path("m.npy")) == (map.dims().to_vec(), values(&map)), "{layer}");
    }
    assert!(setting.features("m.csv", &["samples/digits", "--layer", "layer4", "--unpooled"]).status.success());
    let text = fs::read_to_string(setting.path("m.csv")).unwrap();
    assert!(text.starts_with("image,f0_0_0,f0_0_1,f0_1_0,f0_1_1,f1_0_0,"), "{}", &text[..80]);
    let error = setting.features("x.npy", &["samples/digits", "--layer", "layer9"]);
    assert_error(&error, &["no layer `layer9`", "it has stem, layer1.0, layer1, ", "layer4, act"]);
    assert!(!setting.path("x.npy").exists());
}

#[test]
fn images_without_a_row_are_told_and_left_out() {
    let setting = Setting::new();
    let bad = setting.qlnet.file("bad.png", b"this is text");
    let args = ["samples/digits/3-45.png", bad.to_str().unwrap(), "nowhere.png", "samples/digits/1-21.png"];
    for form in ["npy", "safetensors", "csv"] {
        let output = setting.features(&format!("f.{form}"), &args);
        assert_eq!(output.status.code(), Some(1));
        let message = stderr(&output);
        assert!(message.contains("bad.png") && message.contains("nowhere.png"), "{message}");
        assert!(message.contains("2 of 3 images"), "{message}");
    }
    assert_eq!(npy(&setting.path("f.npy")).0, [2, 48]);
    let rows: Vec<_> = images(&setting.path("f.npy"));
    assert_eq!((&rows[0]["image"], &rows[1]["image"], rows.len()), (&args[0].into(), &args[3].into(), 2));
    assert_eq!(tensors(&setting.path("f.safetensors"))["features"].dims(), [2, 48]);
    // Products of this network's activations leave float16's range.
    let weights = fixture("two-filters.pth.tar");
    let args =
        ["features", "samples/digits/1-21.png", "--dtype", "f16", "--weights", weights.to_str().unwrap(), "--out"];
    let output = setting.qlnet.run(&[&args[..], &[setting.path("f16.npy").to_str().unwrap()]].concat());
    let message = stderr(&output);
    assert!(output.status.code() == Some(1) && message.contains("overflows in f16"), "{message}");
    assert!(message.contains("f16.npy is not written: there is no row"), "{message}");
    assert_eq!(setting.files(), ["f.csv", "f.npy", "f.paths.jsonl", "f.safetensors"]);
}

#[test]
#[cfg(target_os = "linux")]
fn any_name_of_an_image_is_written() {
    use base64::prelude::{BASE64_STANDARD, Engine};
    use std::os::unix::ffi::OsStrExt;
    let setting = Setting::new();
    let digit = fs::read("samples/digits/3-45.png").unwrap();
    let names = [&b"new\nline, \"quoted\".png"[..], b"\xe9.png"].map(std::ffi::OsStr::from_bytes);
    let paths = names.map(|name| setting.qlnet.home.path().join(name));
    paths.iter().for_each(|path| fs::write(path, &digit).unwrap());
    for form in ["npy", "safetensors", "csv"] {
        let mut command = setting.qlnet.command();
        command.arg("features").args(&paths).args(DIGITS).arg("--out").arg(setting.path(&format!("f.{form}")));
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert_eq!(stderr(&output).contains("its name is not UTF-8"), form == "csv", "{}", stderr(&output));
    }
    let check = |plain: &Value, bytes: &Value| {
        assert_eq!(plain, paths[0].to_str().unwrap());
        let bytes = BASE64_STANDARD.decode(bytes["image_base64"].as_str().unwrap()).unwrap();
        assert_eq!(bytes, paths[1].as_os_str().as_bytes());
    };
    let rows = images(&setting.path("f.npy"));
    check(&rows[0]["image"], &rows[1]);
    let bytes = fs::read(setting.path("f.safetensors")).unwrap();
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let rows: Vec<Value> = serde_json::from_str(&metadata.metadata().as_ref().unwrap()["paths"]).unwrap();
    check(&rows[0], &rows[1]);
    let mut table = csv::Reader::from_path(setting.path("f.csv")).unwrap();
    assert_eq!(&table.records().next().unwrap().unwrap()[0], paths[0].to_str().unwrap());
}

#[test]
fn files_that_cannot_be_written_are_refused_before_the_work() {
    let setting = Setting::new();
    let image = "samples/digits/3-45.png";
    assert_error(&setting.features("f.txt", &[image]), &["f.txt", "ends in .npy, .safetensors or .csv"]);
    let missing = not_found(setting.path("missing/f.npy"));
    assert_error(&setting.features("missing/f.npy", &[image]), &["missing", &missing]);
    fs::create_dir(setting.path("f.paths.jsonl")).unwrap();
    assert_error(&setting.features("f.npy", &[image]), &["f.paths.jsonl", "it is a directory"]);
    let weights = setting.path("w.safetensors");
    fs::copy("models/qlnet-digits.safetensors", &weights).unwrap();
    let output = setting.features("w.safetensors", &[image, "--weights", weights.to_str().unwrap()]);
    assert_error(&output, &["would be written over"]);
    assert!(fs::read(&weights).unwrap() == fs::read("models/qlnet-digits.safetensors").unwrap());
    assert_error(&setting.features("g.npy", &[image, "--dtype", "int8"]), &["turns the channels", "--dtype bf16"]);
    assert_eq!(setting.features("f.npy", &[]).status.code(), Some(2));
    assert_error(&setting.features("g.npy", &["nowhere.png"]), &["nowhere.png"]);
    assert_eq!(setting.files(), ["f.paths.jsonl", "w.safetensors"]);
}

/// A limit on the size of files stands in for a full disk.
#[cfg(unix)]
#[test]
fn a_full_disk_leaves_what_was_there() {
    let setting = Setting::new();
    for form in ["npy", "safetensors", "csv"] {
        let out = setting.path(&format!("f.{form}"));
        fs::write(&out, "earlier").unwrap();
        let script = "ulimit -f 2; exec \"$0\" \"$@\"";
        let mut command = setting.qlnet.with_caches(std::process::Command::new("sh"));
        command.args(["-c", script, env!("CARGO_BIN_EXE_qlnet"), "features", "samples/digits"]).args(DIGITS);
        let output = command.args(["--layer", "stem", "--unpooled", "--out"]).arg(&out).output().unwrap();
        assert_error(&output, &["cannot write", out.to_str().unwrap()]);
        assert_eq!(fs::read(&out).unwrap(), b"earlier");
    }
    assert_eq!(setting.files(), ["f.csv", "f.npy", "f.safetensors"]);
}

#[cfg(unix)]
#[test]
fn a_run_that_is_stopped_leaves_what_was_there() {
    use std::process::{Command, Stdio};
    let setting = Setting::new();
    let list = setting.qlnet.file("list.txt", "samples/digits/3-45.png\n".repeat(500_000).as_bytes());
    for (signal, code) in [("INT", Some(130)), ("TERM", Some(130)), ("KILL", None)] {
        let out = setting.path("f.npy");
        fs::write(&out, "earlier").unwrap();
        let mut command = setting.qlnet.command();
        command.args(["features", "--threads", "1", "--image-list"]).arg(&list).args(DIGITS).arg("--out").arg(&out);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let start = std::time::Instant::now();
        let rows = || {
            let lengths = fs::read_dir(setting.out.path()).unwrap().map(|entry| entry.unwrap().metadata());
            lengths.map(|metadata| metadata.map_or(0, |metadata| metadata.len())).max().unwrap()
        };
        while rows() < 10_000 {
            assert!(start.elapsed().as_secs() < 60, "no rows");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        Command::new("kill").args([format!("-{signal}"), child.id().to_string()]).status().unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), code, "{}", stderr(&output));
        assert_eq!(fs::read(&out).unwrap(), b"earlier");
        assert!(!setting.path("f.paths.jsonl").exists());
        if code.is_some() {
            let message = stderr(&output);
            assert!(message.contains("f.npy is not written, after ") && message.contains("of 500,000"), "{message}");
            assert_eq!(setting.files(), ["f.npy"]);
        }
    }
}

/// The predictions of a checkpoint for two images.
fn predictions(setting: &Setting, weights: &Path) -> Vec<Value> {
    let images = ["samples/digits/1-21.png", "samples/digits/8-28.png"];
    let args = ["classify", "--json", "-k", "99", "--weights", weights.to_str().unwrap()];
    let output = setting.qlnet.run(&[&args[..], &images].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    records(&output).into_iter().map(|mut record| record["predictions"].take()).collect()
}

/// The logits of each image by class.
fn logits(predictions: &[Value]) -> Vec<HashMap<u64, f64>> {
    let of = |p: &Value| (p["index"].as_u64().unwrap(), p["logit"].as_f64().unwrap());
    predictions.iter().map(|image| image.as_array().unwrap().iter().map(of).collect()).collect()
}

#[test]
fn a_converted_checkpoint_gives_the_same_answers() {
    let setting = Setting::new();
    for name in CHECKPOINTS {
        let input = fixture(name);
        let expected = predictions(&setting, &input);
        let convert = |input: &Path, args: &[&str]| {
            let output = setting.convert(input.to_str().unwrap(), "c.safetensors", args);
            assert_eq!(output.status.code(), Some(0), "{name} {args:?}: {}", stderr(&output));
            assert!(stdout(&output).is_empty());
            (predictions(&setting, &setting.path("c.safetensors")), stderr(&output))
        };
        assert_eq!(convert(&input, &["--folded", "--dtype", "f32"]).0, expected, "{name}");
        let folded = setting.path("folded.safetensors");
        fs::rename(setting.path("c.safetensors"), &folded).unwrap();
        assert!(fs::read(&folded).unwrap() == Weights::from_file(&input).unwrap().to_safetensors().unwrap());
        assert_eq!(convert(&folded, &[]).0, expected, "{name}");
        assert_eq!(convert(&input, &["--dtype", "f32"]).0, expected, "{name}");
        let (found, message) = convert(&input, &[]);
        assert_eq!(found, expected, "{name}");
        assert!(message.contains("c.safetensors: ") && message.contains("named as in PyTorch"), "{message}");
        // What is in bfloat16 or float16 already is not changed by it.
        let (found, _) = convert(&input, &["--dtype", "bf16"]);
        for (found, expected) in logits(&found).iter().zip(logits(&expected)) {
            let largest = expected.values().fold(0f64, |largest, logit| largest.max(logit.abs()));
            assert!(expected.iter().all(|(index, logit)| (found[index] - logit).abs() < 0.05 * largest), "{name}");
        }
    }
    assert_eq!(setting.files(), ["c.safetensors", "folded.safetensors"]);
}

#[test]
fn what_cannot_be_converted_is_refused() {
    let setting = Setting::new();
    let digits = "models/qlnet-digits.safetensors";
    assert_error(&setting.convert(digits, "out.pth", &[]), &["out.pth", "ends in .safetensors"]);
    assert_error(
        &setting.convert("no-such-file", "out.safetensors", &[]),
        &["no-such-file", &not_found("no-such-file")],
    );
    let resnet = fixture("resnet.pth");
    assert_error(&setting.convert(resnet.to_str().unwrap(), "out.safetensors", &[]), &["resnet.pth", "not a QLNet"]);
    let own = setting.path("own.safetensors");
    fs::copy(digits, &own).unwrap();
    let output = setting.convert(own.to_str().unwrap(), "own.safetensors", &["--folded"]);
    assert_error(&output, &["would be written over"]);
    assert!(fs::read(&own).unwrap() == fs::read(digits).unwrap());
    // GL(n) makes skips that PyTorch's class does not have.
    let moved = setting.path("moved.safetensors");
    let args = ["symmetry", DIGITS[0], DIGITS[1], "--family", "general-linear", "--save", moved.to_str().unwrap()];
    assert!(setting.qlnet.run(&args).status.success());
    let output = setting.convert(moved.to_str().unwrap(), "out.safetensors", &[]);
    assert_error(&output, &["moved.safetensors: explicit skips", "--folded"]);
    assert!(setting.convert(moved.to_str().unwrap(), "folded.safetensors", &["--folded"]).status.success());
    assert_eq!(setting.files(), ["folded.safetensors", "moved.safetensors", "own.safetensors"]);
}

#[test]
fn a_model_is_converted_by_its_name() {
    let setting = Setting::new();
    let output = setting.convert("qlnet-digits", "d.safetensors", &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let (found, expected) =
        (tensors(&setting.path("d.safetensors")), tensors("models/qlnet-digits.safetensors".as_ref()));
    assert_eq!(found.len(), expected.len());
    for (name, tensor) in found {
        assert_eq!((tensor.dims(), tensor.dtype()), (expected[&name].dims(), expected[&name].dtype()), "{name}");
    }
}

/// The optimizer's state is half of the file.
#[test]
fn a_training_state_of_full_size_halves() {
    let Some(dir) = reference_dir() else { return };
    let setting = Setting::new();
    let input = dir.join("qlnet-50-v0.digits.pth.tar");
    let output = setting.convert(input.to_str().unwrap(), "c.safetensors", &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains("314 tensors in f32"), "{}", stderr(&output));
    let size = |path: &Path| fs::metadata(path).unwrap().len() as f64;
    assert!((size(&input) / size(&setting.path("c.safetensors")) - 2.0).abs() < 0.02);
    assert_eq!(predictions(&setting, &setting.path("c.safetensors")), predictions(&setting, &input));
}
