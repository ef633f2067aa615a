//! The symmetry: by property tests on small networks, on a full-size one, and as a user sees it.

mod support;

use std::fs;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use proptest::prelude::*;
use qlnet::network::Precision;
use qlnet::symmetry::balance;
use qlnet::symmetry::{Element, FAMILIES, Family, Side, draw};
use qlnet::symmetry::{FAR, Subject, distance, noise};
use qlnet::symmetry::{audit, small};
use qlnet::weights::Checkpoint;
use qlnet::weights::Weights;
use qlnet::weights::{Config, Skip};
use serde_json::Value;
use support::networks::{configs, seeded};
use support::program::{DIGITS, Qlnet, assert_error, stderr, stdout};
use support::{fixture, reference_dir};

fn subject(weights: &Weights, precision: Precision) -> Subject {
    let images = noise(2, 37, 5).unwrap().narrow(3, 0, 29).unwrap();
    Subject::new(weights, &images, precision, &Device::Cpu).unwrap()
}

fn apply(weights: &Weights, element: &Element) -> Weights {
    let mut moved = weights.clone();
    element.apply(&mut moved, Side::Both).unwrap();
    moved
}

proptest! {
    #![proptest_config(seeded(48))]

    /// Elements of any families, anywhere in their groups or on a path, one after the other.
    #[test]
    fn any_composition_leaves_the_logits_and_can_be_undone(
        config in configs(),
        seed in any::<u64>(),
        chosen in prop::collection::vec((0..FAMILIES.len(), prop::option::of(0.0..1.5f64)), 1..5),
    ) {
        let weights = Weights::random(&config, seed).unwrap().to_dtype(DType::F64).unwrap();
        let subject = subject(&weights, Precision::F64);
        let mut moved = weights.clone();
        let mut elements = Vec::new();
        for (step, (family, scale)) in chosen.into_iter().enumerate() {
            // Of the network as it is by now, which may have explicit skips.
            let element = draw(FAMILIES[family], &moved, None, scale, seed.wrapping_add(step as u64)).unwrap();
            moved = apply(&moved, &element);
            elements.push(element);
        }
        let change = subject.compare(&moved).unwrap().logit_change;
        prop_assert!(change < 1e-10, "{change:e}");
        for element in elements.into_iter().rev() {
            moved = apply(&moved, &element.inverse().unwrap());
        }
        let left = distance(&weights, &moved).unwrap();
        prop_assert!(left < 1e-9, "{left:e}");
    }
}

/// Every family, on the fixtures of every kind: with one, two and three filters a channel, shared kernels,
/// a first layer that begins with a projection.
#[test]
fn every_family_passes_and_every_control_fails() {
    for file in ["two-filters.pth.tar", "one-filter.safetensors", "shared-kernels.pth", "bfloat16.safetensors"] {
        let weights = Weights::from_checkpoint(&Checkpoint::open(&fixture(file)).unwrap()).unwrap();
        let subject = subject(&weights, Precision::F64);
        for family in FAMILIES {
            let outcome = subject.check(family, None, None, 7).unwrap().unwrap();
            assert!(outcome.passed && outcome.control_logit_change > 1e-3, "{file} {outcome:?}");
        }
    }
}

#[test]
fn a_full_size_network_keeps_its_logits() {
    let Some(reference) = reference_dir() else { return };
    let file = reference.join("qlnet-50-v0.digits.pth.tar");
    let weights = Weights::from_checkpoint(&Checkpoint::open(&file).unwrap()).unwrap();
    let images = noise(1, 224, 1).unwrap();
    for (precision, most) in [(Precision::F32, 2e-5), (Precision::F64, 1e-10)] {
        let subject = Subject::new(&weights, &images, precision, &Device::Cpu).unwrap();
        let (mut dimensions, mut elements) = (0, Vec::new());
        for family in FAMILIES {
            let element = draw(family, subject.weights(), None, None, 3).unwrap();
            let own = family.dimensions(weights.config(), None);
            let outcome = subject.outcome(family.name(), family.group(), own, std::slice::from_ref(&element)).unwrap();
            assert!(outcome.passed && outcome.change.logit_change <= most, "{precision} {outcome:?}");
            assert!(outcome.control_logit_change >= 1e-2, "{precision} {outcome:?}");
            if family.keeps_architecture() {
                dimensions += own;
                elements.push(element);
            }
        }
        assert_eq!(dimensions, 240_448);
        assert!(subject.outcome("all", "", dimensions, &elements).unwrap().passed);
    }
}

/// The check itself: it fails for what is no symmetry.
#[test]
fn half_an_element_does_not_pass() {
    let weights = Weights::random(&Config::qlnet_digits(), 1).unwrap();
    let subject = subject(&weights, Precision::F32);
    for family in FAMILIES {
        let element = draw(family, subject.weights(), None, None, 1).unwrap();
        let mut half = subject.weights().clone();
        element.apply(&mut half, Side::Writing).unwrap();
        let change = subject.compare(&half).unwrap().logit_change;
        assert!(change > FAR * subject.tolerance(), "{} {change:e}", family.name());
    }
}

#[test]
fn a_layer_keeps_to_itself() {
    let config = Config::qlnet_50_v0();
    let all: usize = FAMILIES.iter().map(|family| family.dimensions(&config, None)).sum();
    let by_layer: usize =
        FAMILIES.iter().flat_map(|family| (1..=4).map(|layer| family.dimensions(&config, Some(layer)))).sum();
    assert_eq!(all, by_layer);
    let weights = Weights::random(&Config::qlnet_digits(), 1).unwrap().to_dtype(DType::F64).unwrap();
    for family in FAMILIES {
        let moved = apply(&weights, &draw(family, &weights, Some(3), None, 1).unwrap());
        for (name, tensor) in weights.tensors() {
            // What layer 4 and the head read of layer 3 changes too.
            let near = name.starts_with("layer3") || name.starts_with("layer4.0");
            assert!(near || moved.tensors()[name].id() == tensor.id(), "{} {name}", family.name());
        }
    }
}

#[test]
fn the_list_of_families_is_complete_and_none_can_be_left_out() {
    let weights = Weights::random(&small(), 4).unwrap();
    let all = audit(&weights, &FAMILIES, 4).unwrap();
    assert!(all.passed && all.null_space == 210, "{all:?}");
    assert!(all.last_nonzero > 1e6 * all.first_zero, "{all:?}");
    let without: Vec<&dyn Family> = FAMILIES.into_iter().filter(|family| family.name() != "skip-bias-shift").collect();
    let without = audit(&weights, &without, 4).unwrap();
    assert!(!without.passed && without.expected == 201 && without.null_space == 210, "{without:?}");
    // One filter a channel: GL(1) in place of GL(2).
    let mut config = small();
    config.layers.iter_mut().flatten().for_each(|block| block.filters = 1);
    let one = audit(&Weights::random(&config, 4).unwrap(), &FAMILIES, 4).unwrap();
    assert!(one.passed && one.null_space < 210, "{one:?}");
}

/// Where no pixel stays inside the ball that a stream begins with, what makes the stream has a scale to spare.
#[test]
fn a_ball_that_no_pixel_is_inside_adds_a_dimension() {
    let mut weights = Weights::random(&small(), 4).unwrap();
    for part in ["conv3.weight", "conv3.bias", "skip.weight", "skip.bias"] {
        let name = format!("layer2.0.{part}");
        let tensor = weights.tensors()[&name].affine(1e4, if part == "skip.bias" { 1e4 } else { 0.0 }).unwrap();
        weights.replace(&name, tensor).unwrap();
    }
    let audit = audit(&weights, &FAMILIES, 4).unwrap();
    assert!(audit.passed && audit.scales == 1 && audit.null_space == 211, "{audit:?}");
}

#[test]
fn balanced_weights_are_even_and_the_same_network() {
    let weights = Weights::from_checkpoint(&Checkpoint::open(&fixture("two-filters.pth.tar")).unwrap()).unwrap();
    let weights = weights.to_dtype(DType::F64).unwrap();
    let subject = subject(&weights, Precision::F64);
    let balanced = balance(&weights).unwrap();
    assert!(subject.compare(&balanced).unwrap().logit_change < 1e-12);
    assert!(distance(&weights, &balanced).unwrap() > 0.1);
    assert!(distance(&balanced, &balance(&balanced).unwrap()).unwrap() < 1e-12);
    let rows = |part: &str| -> Vec<f64> {
        let weight = balanced.tensors()[&format!("layer2.0.{part}.weight")].flatten_from(1).unwrap();
        let bias = &balanced.tensors()[&format!("layer2.0.{part}.bias")];
        let squares = (weight.sqr().unwrap().sum(1).unwrap() + bias.sqr().unwrap()).unwrap();
        squares.sqrt().unwrap().to_vec1().unwrap()
    };
    let factors = rows("conv1");
    let (first, second) = factors.split_at(factors.len() / 2);
    first.iter().zip(second).for_each(|(a, b)| assert!((a / b - 1.0).abs() < 1e-9, "{a} {b}"));
}

fn json(output: &std::process::Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    serde_json::from_str(&stdout(output)).unwrap()
}

#[test]
fn the_command_shows_every_family() {
    let qlnet = Qlnet::new();
    let args = ["symmetry", "--seed", "3", DIGITS[0], DIGITS[1]];
    let output = qlnet.run(&args);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let table = stdout(&output);
    for family in FAMILIES {
        let row = table.lines().find(|line| line.starts_with(family.name())).unwrap();
        assert!(row.ends_with("same output"), "{row}");
    }
    assert!(table.lines().any(|line| line.starts_with("all together") && line.contains("5,676")), "{table}");
    assert_eq!(stdout(&qlnet.run(&args)), table, "the same seed gives the same numbers");

    for dtype in ["f32", "f64"] {
        let result = json(&qlnet.run(&[&args[..], &["--json", "--dtype", dtype]].concat()));
        assert_eq!(result["passed"], true);
        let families = result["families"].as_array().unwrap();
        assert_eq!(families.len(), FAMILIES.len());
        for family in families {
            let number = |field: &str| family[field].as_f64().unwrap();
            let most = if dtype == "f64" { 1e-10 } else { 2e-5 };
            assert!(number("logit_change") <= most && number("control_logit_change") > 1e-2, "{family}");
            assert!(number("weight_change") > 0.1 && family["passed"] == true, "{family}");
        }
    }
    let some = ["--json", "--family", "stage-rotation,product-scale", "--layer", "2", "--scale", "0.5"];
    let result = json(&qlnet.run(&[&args[..], &some].concat()));
    let dimensions: Vec<_> = result["families"].as_array().unwrap().iter().map(|f| f["dimensions"].clone()).collect();
    assert_eq!(dimensions, [24 * 23 / 2, 64 + 96]);
    assert_eq!(result["all"]["dimensions"], 24 * 23 / 2 + 64 + 96);
    let untrained = json(&qlnet.run(&[
        "symmetry",
        "--untrained",
        "--json",
        "--image",
        "samples/digits/0-78.png",
        DIGITS[0],
        DIGITS[1],
    ]));
    // In whatever order they are named: general-linear comes last, and each comes once.
    let mixed = ["--json", "--family", "general-linear", "stage-rotation", "stream-shift", "stage-rotation"];
    let mixed = json(&qlnet.run(&[&args[..], &mixed].concat()));
    assert_eq!(mixed["all"]["dimensions"], 1900 + 72 + 1856);
    assert_eq!((&untrained["passed"], &untrained["images"]), (&Value::from(true), &Value::from(1)));

    let unknown = qlnet.run(&[&args[..], &["--family", "rotation"]].concat());
    assert!(unknown.status.code() == Some(2) && stderr(&unknown).contains("stage-rotation"), "{}", stderr(&unknown));
    assert_error(&qlnet.run(&[&args[..], &["--layer", "9"]].concat()), &["layers 1 to 4"]);
    assert_error(
        &qlnet.run(&[&args[..], &["--family", "stage-rotation", "--layer", "1"]].concat()),
        &["moves nothing"],
    );
    assert_error(&qlnet.run(&[&args[..], &["--dtype", "f16"]].concat()), &["f32 or f64"]);
    assert_error(&qlnet.run(&[&args[..], &["--image", "nowhere.png"]].concat()), &["nowhere.png"]);
}

/// A step so short that the control does not go far is no proof of anything.
#[test]
fn a_check_that_shows_nothing_fails() {
    let output = Qlnet::new().run(&["symmetry", "--scale", "0", "--family", "product-scale", DIGITS[0], DIGITS[1]]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("CONTROL TOO WEAK"), "{}", stdout(&output));
    assert!(stderr(&output).starts_with("error: "));
}

#[test]
fn a_path_is_printed_drawn_and_written() {
    let qlnet = Qlnet::new();
    let [svg, png, csv] =
        ["p.svg", "p.png", "p.csv"].map(|name| qlnet.home.path().join(name).to_str().unwrap().to_string());
    let args = ["symmetry", "--path", "6", "--csv", &csv, DIGITS[0], DIGITS[1]];
    let result = json(&qlnet.run(&[&args[..], &["--json", "--plot", &svg]].concat()));
    let path = result["path"].as_array().unwrap();
    assert_eq!(path.len(), 7);
    let column = |name: &str| -> Vec<f64> { path.iter().map(|step| step[name].as_f64().unwrap()).collect() };
    assert!(column("t").is_sorted() && column("weight_change").is_sorted());
    assert!(column("logit_change").iter().all(|change| *change <= result["tolerance"].as_f64().unwrap()));
    assert!(column("control_logit_change")[1..].iter().all(|change| *change > 1e-2));
    assert_eq!(fs::read_to_string(&csv).unwrap().lines().count(), 8);
    let text = fs::read_to_string(&svg).unwrap();
    assert!(text.starts_with("<svg") && text.contains("weights: distance from the start"));

    let table = stdout(&qlnet.run(&[&args[..], &["--plot", &png]].concat()));
    assert_eq!(table.lines().filter(|line| line.starts_with("  ")).count(), 8, "{table}");
    let picture = image::open(&png).unwrap().into_rgb8();
    let blue = picture.pixels().filter(|p| p.0 == [31, 90, 190]).count();
    assert!(blue > 500, "the curve is drawn: {blue}");

    let error = |more: &[&str]| qlnet.run(&[&args[..5], more, &DIGITS[..]].concat());
    assert_error(&error(&["--plot", "p.pdf"]), &["p.pdf", ".svg or .png"]);
    assert_error(&error(&["--family", "factor-swap"]), &["discrete"]);
    assert_error(&error(&["--family", "stage-rotation", "--layer", "1"]), &["moves nothing"]);
    let short = error(&["--scale", "1e-9"]);
    assert_eq!(short.status.code(), Some(1));
    assert!(stderr(&short).contains("control"), "{}", stderr(&short));
    assert_error(&error(&["--scale", "0", "--plot", &png]), &["goes nowhere"]);
}

#[test]
fn the_audit_agrees_and_notices_what_is_missing() {
    let qlnet = Qlnet::new();
    let names: Vec<_> = FAMILIES.iter().map(|family| family.name()).filter(|name| *name != "stream-shift").collect();
    let output = qlnet.run(&["symmetry", "--audit", "--json", "--family", &names.join(",")]);
    assert_eq!(output.status.code(), Some(1));
    let result: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(
        (&result["passed"], &result["null_space"], &result["expected"]),
        (&false.into(), &210.into(), &196.into())
    );
    assert_error(&qlnet.run(&["symmetry", "--audit", DIGITS[0], DIGITS[1]]), &["63298 parameters", "at most 4000"]);
}

#[test]
fn moved_weights_are_saved_and_give_the_same_predictions() {
    let qlnet = Qlnet::new();
    let [folded, state, linear] = ["folded", "state", "linear"]
        .map(|name| qlnet.home.path().join(format!("{name}.safetensors")).to_str().unwrap().to_string());
    json(&qlnet.run(&["symmetry", "--json", "--save", &folded, "--save-state-dict", &state, DIGITS[0], DIGITS[1]]));
    json(&qlnet.run(&["symmetry", "--json", "--family", "general-linear", "--save", &linear, DIGITS[0], DIGITS[1]]));
    let probabilities = |args: &[&str]| -> Vec<f64> {
        let output = qlnet.run(&[&["classify", "samples/digits", "--json", "--model", "qlnet-digits"], args].concat());
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let lines: Vec<Value> = stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        lines.iter().map(|line| line["predictions"][0]["probability"].as_f64().unwrap()).collect()
    };
    let original = probabilities(&[]);
    for file in [&folded, &state, &linear] {
        for (found, expected) in probabilities(&["--weights", file]).iter().zip(&original) {
            assert!((found - expected).abs() < 1e-5, "{file}: {found} {expected}");
        }
        assert!(json(&qlnet.run(&["symmetry", "--json", "--weights", file, DIGITS[0], DIGITS[1]]))["passed"] == true);
    }
    let open = |file: &str| Checkpoint::open(Path::new(file)).unwrap();
    let (found, expected) = (open(&state), open("models/qlnet-digits.safetensors"));
    for (name, tensor) in expected.tensors() {
        assert_eq!(found.tensors()[name].dims(), tensor.dims(), "{name}");
    }
    let config = Weights::from_checkpoint(&open(&linear)).unwrap().config().clone();
    assert!(config.layers.iter().flatten().any(|block| block.skip == Skip::Linear));
    let moved: Tensor = open(&folded).tensors()["layer2.1.conv3.weight"].clone();
    let original = Weights::from_checkpoint(&expected).unwrap().tensors()["layer2.1.conv3.weight"].clone();
    assert!((moved - original).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap() > 0.1);

    let refused = qlnet.home.path().join("refused.safetensors");
    let args = ["symmetry", "--family", "general-linear", "--save-state-dict", refused.to_str().unwrap()];
    assert_error(&qlnet.run(&[&args[..], &DIGITS].concat()), &["explicit", "--save"]);
    assert!(!refused.exists());
    assert_error(&qlnet.run(&["symmetry", "--save", "w.pth", DIGITS[0], DIGITS[1]]), &["w.pth", ".safetensors"]);
}

#[test]
fn balancing_reports_half_precision() {
    let result = json(&Qlnet::new().run(&["symmetry", "--balance", "--json", DIGITS[0], DIGITS[1]]));
    assert_eq!(result["passed"], true);
    for half in result["half_precision"].as_array().unwrap() {
        assert!(half["given"].as_f64().unwrap() > 1e-5 && half["balanced"].as_f64().unwrap() < 1e-1, "{half}");
    }
}
