//! Weights prepared for int8: the same network, less of an error, the same wherever in the group they were.

mod support;

use std::fs;
use std::io::Read;
use std::path::Path;

use candle_core::{D, DType, Device, Tensor};
use proptest::prelude::*;
use qlnet::input::{Options, to_tensor};
use qlnet::network::Precision;
use qlnet::symmetry::{FAMILIES, Side, Subject, distance, draw, find, noise, prepare_for_int8};
use qlnet::weights::{Checkpoint, Config, Weights};
use serde_json::Value;
use support::networks::{configs_from, seeded};
use support::program::{DIGITS, Qlnet, assert_error, stderr, stdout};
use support::reference_dir;

/// Moved by an element of every family that keeps the architecture.
fn moved(weights: &Weights, seed: u64) -> Weights {
    let mut moved = weights.to_dtype(DType::F64).unwrap();
    for family in FAMILIES.into_iter().filter(|family| family.keeps_architecture()) {
        let element = draw(family, &moved, None, None, seed).unwrap();
        element.apply(&mut moved, Side::Both).unwrap();
    }
    moved
}

fn subject(weights: &Weights, images: &Tensor) -> Subject {
    Subject::new(weights, images, Precision::F32, &Device::Cpu).unwrap()
}

/// The error of the logits in int8: root mean square, relative to theirs.
fn error(subject: &Subject, weights: &Weights) -> f64 {
    subject.relative_error_in(weights, Precision::Int8).unwrap()
}

/// Weights without much: a row or a column of some convolutions is zero, or all of one.
fn with_holes(weights: &Weights, holes: &[(usize, usize, usize)]) -> Weights {
    let convs = weights.config().convs();
    let mut weights = weights.clone();
    for &(conv, kind, place) in holes {
        let conv = &convs[conv % convs.len()];
        for part in ["weight", "bias"] {
            let name = format!("{}.{part}", conv.name);
            let tensor = weights.tensors()[&name].clone();
            let (rows, row) = (tensor.dim(0).unwrap(), tensor.elem_count() / tensor.dim(0).unwrap());
            let mut values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            for (i, value) in values.iter_mut().enumerate() {
                let hit = match kind % 3 {
                    0 => i / row == place % rows,
                    1 => part == "weight" && i % row == place % row,
                    _ => part == "weight",
                };
                *value *= f32::from(!hit);
            }
            weights.replace(&name, Tensor::from_vec(values, tensor.shape(), &Device::Cpu).unwrap()).unwrap();
        }
    }
    weights
}

proptest! {
    #![proptest_config(seeded(64))]

    /// Networks of any width from one on, with dead channels, some with explicit skips.
    #[test]
    fn prepared_weights_are_the_same_network(
        config in configs_from(1),
        seed in any::<u64>(),
        holes in prop::collection::vec((any::<usize>(), any::<usize>(), any::<usize>()), 0..4),
        explicit in any::<bool>(),
    ) {
        let weights = with_holes(&Weights::random(&config, seed).unwrap(), &holes);
        let mut weights = weights.to_dtype(DType::F64).unwrap();
        if explicit {
            for family in find(&["general-linear"]).unwrap() {
                draw(family, &weights, None, None, seed).unwrap().apply(&mut weights, Side::Both).unwrap();
            }
        }
        let images = noise(2, 37, 5).unwrap().narrow(3, 0, 29).unwrap();
        let subject = Subject::new(&weights, &images, Precision::F64, &Device::Cpu).unwrap();
        let prepared = prepare_for_int8(&weights).unwrap();
        let change = subject.compare(&prepared).unwrap().logit_change;
        prop_assert!(change < 1e-10, "{change:e}");
        prop_assert!(subject.relative_error_in(&prepared, Precision::Int8).unwrap().is_finite());
        prop_assert_eq!(distance(&prepared, &prepare_for_int8(&weights).unwrap()).unwrap(), 0.0);
    }
}

/// 360 images and no labels.
fn held_out() -> Tensor {
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples/digits-held-out.tar");
    let preprocess = qlnet::weights::find("qlnet-digits").unwrap().preprocess();
    let mut archive = tar::Archive::new(fs::File::open(archive).unwrap());
    let mut crops = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().into_owned();
        if entry.header().entry_type().is_file() {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            crops.push(preprocess.crop_of(&bytes, &path, Options::default()).unwrap().pixels);
        }
    }
    assert_eq!(crops.len(), 360);
    to_tensor(&crops).unwrap()
}

/// By all families: the prepared weights are the same to rounding, but for what rounding to eight bits does not
/// depend on, and so is the error of their logits.
#[test]
fn no_move_along_the_group_makes_a_difference() {
    let digits = Weights::from_model("qlnet-digits").unwrap();
    let subject = subject(&digits, &held_out());
    let prepared = prepare_for_int8(&digits).unwrap();
    let expected = error(&subject, &prepared);
    assert!(expected < 8e-3, "{expected}");
    for seed in 1..=3 {
        let moved = moved(&digits, seed);
        let again = prepare_for_int8(&moved).unwrap();
        let (before, after) = (error(&subject, &moved), error(&subject, &again));
        println!("seed {seed}: {before:.5} -> {after:.5}, unmoved {expected:.5}");
        assert!((0.9..1.1).contains(&(after / expected)), "{seed}: {after} for {expected}");
        assert!(after < 0.8 * before, "{seed}: {after} of {before}");
        assert!(subject.compare(&again).unwrap().logit_change <= subject.tolerance(), "{seed}");
        for name in ["stem.weight", "layer2.0.skip.weight", "layer4.0.skip.weight", "fc.weight"] {
            let [found, expected] = [&again, &prepared].map(|weights| &weights.tensors()[name]);
            let difference = support::relative_difference(found, expected);
            assert!(difference < 1e-5, "{seed} {name} {difference:e}");
        }
    }
}

#[test]
fn digits_in_int8_are_named_as_in_float32() {
    let digits = Weights::from_model("qlnet-digits").unwrap();
    let images = held_out();
    let classes = |weights: &Weights, precision| {
        let net = qlnet::internals::QLNet::from_weights(weights, precision, &Device::Cpu).unwrap();
        net.forward(&images).unwrap().argmax(D::Minus1).unwrap().to_vec1::<u32>().unwrap()
    };
    let exact = classes(&digits, Precision::F32);
    for weights in [&digits, &moved(&digits, 1), &moved(&digits, 2)] {
        let found = classes(&prepare_for_int8(weights).unwrap(), Precision::Int8);
        let different = found.iter().zip(&exact).filter(|(found, exact)| found != exact).count();
        assert!(different <= 1, "{different} of 360 differ");
    }
}

#[test]
fn a_full_size_network_errs_less() {
    let Some(reference) = reference_dir() else { return };
    let file = reference.join("qlnet-50-v0.digits.pth.tar");
    let weights = Weights::from_checkpoint(&Checkpoint::open(&file).unwrap()).unwrap();
    let mut crops: Vec<_> = fs::read_dir(reference.join("crops")).unwrap().map(|entry| entry.unwrap().path()).collect();
    crops.sort();
    let crops: Vec<_> = crops.iter().map(|crop| image::open(crop).unwrap().into_rgb8()).collect();
    assert_eq!(crops.len(), 17);
    let subject = subject(&weights, &to_tensor(&crops).unwrap());
    let given = error(&subject, &weights);
    let prepared = prepare_for_int8(&weights).unwrap();
    let found = error(&subject, &prepared);
    println!("{given:.5} -> {found:.5}");
    assert!(found <= 5e-3 && found <= 0.8 * given, "{found} of {given}");
    assert!(subject.compare(&prepared).unwrap().logit_change <= subject.tolerance());
    let moved = moved(&weights, 1);
    let (before, after) = (error(&subject, &moved), error(&subject, &prepare_for_int8(&moved).unwrap()));
    println!("moved: {before:.5} -> {after:.5}");
    assert!((0.9..1.1).contains(&(after / found)) && before > 2.0 * after, "{before} {after} {found}");
}

#[test]
fn the_command_shows_every_step_and_saves() {
    let qlnet = Qlnet::new();
    let file = qlnet.home.path().join("prepared.safetensors");
    let args = ["symmetry", "--quantise", "--seed", "3", DIGITS[0], DIGITS[1]];
    let output = qlnet.run(&[&args[..], &["--json", "--save", file.to_str().unwrap()]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let result: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let rows = result["rows"].as_array().unwrap();
    assert!(result["passed"] == true && rows.len() == 13, "{result}");
    for row in rows {
        let number = |field: &str| row[field].as_f64();
        assert!((1e-3..3e-2).contains(&number("error").unwrap()) && number("logit_change").unwrap() < 1e-5, "{row}");
        assert!(row["weights"] == "as given" || number("control_logit_change").unwrap() > 1e-3, "{row}");
    }
    let moved = result["moved"].as_array().unwrap();
    assert_eq!(moved.iter().map(|moved| moved["seed"].as_u64().unwrap()).collect::<Vec<_>>(), [3, 4, 5]);
    let saved = Weights::from_checkpoint(&Checkpoint::open(&file).unwrap()).unwrap();
    let expected = prepare_for_int8(&Weights::from_model("qlnet-digits").unwrap()).unwrap();
    assert!(distance(&saved.to_dtype(DType::F64).unwrap(), &expected).unwrap() < 1e-6);

    let table = stdout(&qlnet.run(&args));
    for line in ["as given", "stage rotation", "all but centring", "seed 5"] {
        assert!(table.lines().any(|found| found.starts_with(line) && found.contains(" % ")), "{line}: {table}");
    }
    let untrained = qlnet.run(&["symmetry", "--quantise", "--untrained", DIGITS[0], DIGITS[1]]);
    assert_eq!(untrained.status.code(), Some(0), "{}", stderr(&untrained));
    assert_eq!(qlnet.run(&[&args[..], &["--balance"]].concat()).status.code(), Some(2));
    assert_error(&qlnet.run(&[&args[..], &["--dtype", "int8"]].concat()), &["f32 or f64"]);
}

/// The steps arrive where they are already.
#[test]
fn what_is_prepared_stays() {
    let weights = Weights::random(&Config::qlnet_digits(), 3).unwrap();
    let once = prepare_for_int8(&weights).unwrap();
    let twice = prepare_for_int8(&once).unwrap();
    for name in ["layer2.0.skip.weight", "layer3.0.skip.weight", "stem.weight"] {
        let difference = support::relative_difference(&twice.tensors()[name], &once.tensors()[name]);
        assert!(difference < 1e-5, "{name} {difference:e}");
    }
}
