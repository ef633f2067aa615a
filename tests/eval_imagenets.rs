//! Sets of images that are scored in ways of their own: as ImageNet-A, ImageNet-V2 and ImageNet-C are.

#[path = "support/eval.rs"]
mod eval_support;
mod support;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use eval_support::{HELD_OUT, json, messages, rows};
use qlnet::Classifier;
use qlnet::eval::corruptions::CORRUPTIONS;
use qlnet::input::Options;
use serde_json::Value;
use support::fixture;
use support::program::{Qlnet, assert_error, records, stderr, stdout};

/// What the network says of a digit, by PyTorch.
fn is_recognised(path: &str, expected: &[HashMap<String, String>]) -> bool {
    expected.iter().any(|row| row["path"] == path && row["rank"] == "1")
}

/// As the authors of ImageNet-A and ImageNet-R do it: `output[:, indices]`, and then as if there were no others.
#[test]
fn images_are_scored_among_the_outputs_that_were_asked_for() {
    let qlnet = Qlnet::new();
    let few = [1u32, 3, 5, 8];
    let folders = qlnet.some_digits("few", &few);
    let file = |name: &str| qlnet.path(name).display().to_string();
    let (present, listed) = (file("present.csv"), file("listed.csv"));
    let output = qlnet.eval_sets(&[&folders], &["--json", "--restrict-to-present", "--predictions", &present]);
    assert_eq!(messages(&output), "");
    let result = json(&output);
    assert_eq!((&result["outputs"], &result["classes"]), (&Value::from(few.to_vec()), &10.into()));

    let classifier = Classifier::from_model("qlnet-digits").unwrap();
    let (mut right, mut loss) = (0, 0.0);
    let found = rows(Path::new(&present));
    for row in &found {
        let bytes = fs::read(folders.join(&row["path"])).unwrap();
        let crop = classifier.preprocess().crop_of(&bytes, "a.png".as_ref(), Options::default()).unwrap().pixels;
        let logits = classifier.logits(&qlnet::input::to_tensor(&[crop]).unwrap()).unwrap().to_vec2::<f32>().unwrap();
        let exp = |class: u32| f64::from(logits[0][class as usize]).exp();
        let sum: f64 = few.iter().map(|class| exp(*class)).sum();
        let mut order = few;
        order.sort_by(|a, b| exp(*b).total_cmp(&exp(*a)));
        let label: u32 = row["label"].parse().unwrap();
        let rank = 1 + order.iter().position(|class| *class == label).unwrap();
        for (place, class) in (1..).zip(order) {
            assert_eq!(row[&format!("top{place}")], class.to_string());
            assert!((row[&format!("p{place}")].parse::<f64>().unwrap() - exp(class) / sum).abs() < 1e-6);
        }
        assert!(row["top5"].is_empty() && row["p5"].is_empty());
        assert_eq!(row["rank"], rank.to_string());
        right += u32::from(rank == 1);
        loss += -(exp(label) / sum).ln();
    }
    assert!((result["loss"].as_f64().unwrap() - loss / found.len() as f64).abs() < 1e-6);
    assert_eq!(result["top1"], f64::from(right) / found.len() as f64);

    // By a list, and of a part that has not all classes: the same.
    let list = qlnet.file("valid.txt", b"8\n1\n3\n5\n");
    let list = ["--valid-labels", list.to_str().unwrap()];
    json(&qlnet.eval_sets(&[&folders], &[&["--json", "--predictions", &listed], &list[..]].concat()));
    assert!(fs::read(&listed).unwrap() == fs::read(&present).unwrap());
    let part = json(&qlnet.eval_sets(&[&folders], &["--json", "--restrict-to-present", "--limit", "5"]));
    assert_eq!(part["outputs"], result["outputs"]);
    let table = stdout(&qlnet.eval_sets(&[&folders], &["--restrict-to-present"]));
    assert!(table.contains("outputs            4 of 10: those of the classes that are there\n"), "{table}");

    restricted_and_other_predictions_are_not_mixed(&qlnet, &folders, &present, &listed);
    let short = qlnet.file("short.txt", b"1\n3\n5\n");
    let args = ["--valid-labels", short.to_str().unwrap()];
    assert_error(&qlnet.eval_sets(&[&folders], &args), &["few", "35 of 145 images", "8/", "class 8", "--valid-labels"]);
    let wrong = qlnet.file("wrong.txt", b"1\n10\n");
    let args = ["--valid-labels", wrong.to_str().unwrap()];
    assert_error(&qlnet.eval_sets(&[&folders], &args), &["wrong.txt, line 2: `10` is no class"]);
    // All classes are no restriction.
    let whole = json(&qlnet.eval_sets(&[Path::new(HELD_OUT)], &["--json", "--restrict-to-present"]));
    assert!(whole.get("outputs").is_none());
}

/// `present` are predictions among some of the outputs, `other` is a name.
fn restricted_and_other_predictions_are_not_mixed(qlnet: &Qlnet, folders: &Path, present: &str, other: &str) {
    let message = stderr(&qlnet.eval_sets(&[folders], &["--resume", present]));
    assert!(message.contains("is of other outputs (4 of 10, ") && message.contains("there, all here)"), "{message}");
    let again = json(&qlnet.eval_sets(&[folders], &["--json", "--restrict-to-present", "--resume", present]));
    let report = qlnet.path("r.html").display().to_string();
    let merged = json(&qlnet.run(&["eval", "--json", "--merge", present, "--report", &report]));
    assert_eq!((&merged["loss"], &merged["outputs"]), (&again["loss"], &again["outputs"]));
    assert!(fs::read_to_string(&report).unwrap().contains("4 of 10 were scored"));
    let half = |shard: &str, file: &str, args: &[&str]| {
        json(&qlnet.eval_sets(&[folders], &[&["--json", "--shard", shard, "--predictions", file], args].concat()));
    };
    let first = qlnet.path("first.csv").display().to_string();
    half("1/2", &first, &["--restrict-to-present"]);
    half("2/2", other, &[]);
    assert_error(&qlnet.run(&["eval", "--merge", &first, other]), &["other outputs"]);
    assert!(!fs::read_to_string(other).unwrap().contains("outputs"), "as earlier versions wrote it");
    // A row among all outputs does not pass for one among some: its third class is none of them.
    let mut lines: Vec<String> = fs::read_to_string(present).unwrap().lines().map(str::to_string).collect();
    let mut fields: Vec<&str> = lines[2].split(',').collect();
    fields[4] = "2";
    lines[2] = fields.join(",");
    let changed = qlnet.file("changed.csv", format!("{}\n", lines.join("\n")).as_bytes());
    let output = qlnet.run(&["eval", "--merge", changed.to_str().unwrap()]);
    assert_error(&output, &["line 3: damaged", "do not belong together"]);
}
/// Weights with a thousand outputs, of which the first ten are those of the digits.
fn thousand_outputs(qlnet: &Qlnet) -> String {
    let path = qlnet.path("thousand.safetensors");
    let mut weights = candle_core::safetensors::load("models/qlnet-digits.safetensors", &Device::Cpu).unwrap();
    let [weight, bias] = ["fc.weight", "fc.bias"].map(|name| weights[name].clone());
    let more = Tensor::zeros((990, weight.dims()[1]), weight.dtype(), &Device::Cpu).unwrap();
    weights.insert("fc.weight".into(), Tensor::cat(&[&weight, &more], 0).unwrap());
    let more = Tensor::zeros(990, bias.dtype(), &Device::Cpu).unwrap();
    weights.insert("fc.bias".into(), Tensor::cat(&[&bias, &more], 0).unwrap());
    candle_core::safetensors::save(&weights, &path).unwrap();
    path.display().to_string()
}

#[test]
fn folders_of_imagenet_v2_are_indices() {
    let qlnet = Qlnet::new();
    let weights = thousand_outputs(&qlnet);
    let (numbers, wnids) = (qlnet.unpacked("numbers"), qlnet.unpacked("wnids"));
    let labels = qlnet::weights::find("qlnet-50-v0").unwrap().labels();
    for (digit, label) in labels.iter().enumerate().take(10) {
        fs::rename(wnids.join(digit.to_string()), wnids.join(label.wnid.as_ref().unwrap())).unwrap();
    }
    let run = |data: &Path, args: &[&str]| {
        let data = data.to_str().unwrap();
        let common = ["eval", "--data", data, "--weights", &weights, "--resize", "64", "--crop", "64", "--json"];
        qlnet.run(&[&common[..], args].concat())
    };
    let output = run(&numbers, &[]);
    let message = messages(&output);
    assert!(message.contains("note: the folders are named by numbers, which are taken as the model's"), "{message}");
    assert!(message.contains("note: images of 10 classes, scored among the model's 1,000;"), "{message}");
    let (found, expected) = (json(&output), json(&run(&wnids, &[])));
    assert_eq!((&found["top1"], &found["loss"]), (&expected["top1"], &expected["loss"]));
    // Of a thousand outputs, ten are the digits' network.
    let restricted = json(&run(&numbers, &["--restrict-to-present"]));
    let alone = json(&qlnet.eval(Path::new(HELD_OUT), &["--json"]));
    assert_eq!((&restricted["top1"], &restricted["loss"]), (&alone["top1"], &alone["loss"]));
    fs::rename(numbers.join("9"), numbers.join("1000")).unwrap();
    assert_error(&run(&numbers, &[]), &["indices of the model's classes: `1000`"]);
    fs::rename(numbers.join("1000"), numbers.join("n01440764")).unwrap();
    assert_error(&run(&numbers, &[]), &["WordNet ids of the model's classes: `0`, `1`"]);
}
/// A folder like ImageNet-C, of five digits in each part, of which so many are in the wrong folder as `wrong` says.
fn corrupted(qlnet: &Qlnet, wrong: impl Fn(usize, usize) -> usize) -> PathBuf {
    let (source, folder) = (qlnet.unpacked("source"), qlnet.path("imagenet-c"));
    let expected = rows(&fixture("digits-held-out.csv"));
    let paths = expected.iter().map(|row| row["path"].as_str()).filter(|path| is_recognised(path, &expected));
    let paths: Vec<&str> = paths.step_by(70).collect();
    assert_eq!(paths.len(), 6);
    for (place, corruption) in CORRUPTIONS.iter().enumerate() {
        // The first three are a folder deeper.
        let group = if place < 3 { "noise" } else { "" };
        for severity in 1..=5 {
            for (image, path) in paths[..5].iter().enumerate() {
                let digit: usize = path[..1].parse().unwrap();
                let label = if image < wrong(place, severity) { (digit + 1) % 10 } else { digit };
                let part = folder.join(group).join(corruption.name).join(severity.to_string()).join(label.to_string());
                fs::create_dir_all(&part).unwrap();
                fs::hard_link(source.join(path), part.join(format!("{image}.png"))).unwrap();
            }
        }
    }
    folder
}

#[test]
fn imagenet_c_is_a_table_of_corruptions() {
    let qlnet = Qlnet::new();
    let wrong = |place: usize, severity: usize| (place + severity) % 6;
    let folder = corrupted(&qlnet, wrong);
    let file = qlnet.path("p.jsonl").display().to_string();
    let output = qlnet.eval_sets(&[&folder, Path::new(HELD_OUT)], &["--json", "--predictions", &file]);
    let message = messages(&output);
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(message.starts_with("note: imagenet-c-gaussian_noise-1: images of"), "{message}");
    let lines = records(&output);
    assert_eq!(lines.len(), 19 * 5 + 1 + 1);
    assert_eq!((&lines[6]["set"], &lines[6]["severity"]), (&"imagenet-c-shot_noise-2".into(), &2.into()));
    assert_eq!((&lines[6]["corruption"], &lines[95]["set"]), (&"shot_noise".into(), &"digits-held-out".into()));
    assert!(qlnet.path("p.imagenet-c-fog-3.jsonl").exists() && qlnet.path("p.digits-held-out.jsonl").exists());
    let table = &lines[96];
    assert_eq!(
        (&table["set"], &table["images"], &table["missing"]),
        (&"imagenet-c".into(), &475.into(), &Value::Array(vec![]))
    );
    let mut mean = 0.0;
    for (place, corruption) in CORRUPTIONS.iter().enumerate() {
        let row = &table["corruptions"][place];
        assert_eq!((&row["corruption"], &row["extra"]), (&corruption.name.into(), &corruption.extra.into()));
        let errors: Vec<f64> = (1..=5).map(|severity| wrong(place, severity) as f64 / 5.0).collect();
        for (severity, error) in errors.iter().enumerate() {
            assert!((row["errors"][severity].as_f64().unwrap() - error).abs() < 1e-12);
        }
        let ce = errors.iter().sum::<f64>() / 5.0 / corruption.alexnet;
        assert!((row["corruption_error"].as_f64().unwrap() - ce).abs() < 1e-12);
        mean += if corruption.extra { 0.0 } else { ce / 15.0 };
    }
    assert!((table["mean_corruption_error"].as_f64().unwrap() - mean).abs() < 1e-12);

    // For people: what is complete is not computed again; a severity that is not there leaves no mean.
    let text = stdout(&qlnet.eval_sets(&[&folder, Path::new(HELD_OUT)], &["--resume", &file]));
    assert!(text.contains(&format!("mCE                {:.2} %   mean of the 15", 100.0 * mean)), "{text}");
    assert!(text.contains("imagenet-c, 475 images\nerror, %") && !text.contains("images per second"), "{text}");
    assert!(text.contains("\nsaturate (extra)") && text.contains("\ndigits-held-out"), "{text}");
    fs::remove_dir_all(folder.join("fog")).unwrap();
    fs::remove_dir_all(folder.join("snow/4")).unwrap();
    let text = stdout(&qlnet.eval_sets(&[&folder], &[]));
    assert!(text.contains("mCE                -   not without snow 4, fog\n"), "{text}");
    fs::remove_dir_all(folder.join("snow/5")).unwrap();
    fs::create_dir(folder.join("snow/5")).unwrap();
    assert_error(&qlnet.eval_sets(&[&folder], &[]), &["snow", "5", "no class folders"]);
}

/// The images of ImageNet-C are crops already: its authors do not resize them.
#[test]
fn imagenet_c_is_not_resized() {
    let qlnet = Qlnet::new();
    let folder = corrupted(&qlnet, |_, _| 1).join("noise/shot_noise");
    // A network for images of 224 pixels.
    let run = |data: &Path, args: &[&str]| {
        let common =
            ["eval", "--data", data.to_str().unwrap(), "--weights", "models/qlnet-digits.safetensors", "--json"];
        qlnet.run(&[&common[..], args].concat())
    };
    let output = run(&folder, &[]);
    assert!(messages(&output).starts_with("note: shot_noise: the images of ImageNet-C are crops already"));
    let lines = records(&output);
    assert_eq!((&lines[0]["preprocess"]["resize"], &lines[0]["preprocess"]["crop"]), (&224.into(), &224.into()));
    assert_eq!(lines[0]["set"], "shot_noise-1");
    let lines = records(&run(&folder, &["--resize", "235"]));
    assert_eq!(lines[4]["preprocess"]["resize"], 235);
    let lines = records(&run(&folder, &["--preprocess", "notebook"]));
    assert_eq!(lines[4]["preprocess"]["resize"], 256);
    // One severity is a folder of class folders.
    let one = json(&run(&folder.join("2"), &[]));
    assert_eq!((&one["preprocess"]["resize"], one.get("set")), (&235.into(), None));
}
