//! The network against PyTorch: every step of small ones, and the logits of a full-size one.

mod support;

use candle_core::{DType, Device, Tensor};
use qlnet::input::Preprocess;
use qlnet::internals::QLNet;
use qlnet::internals::{IMAGES, normal, stream};
use qlnet::network::{Classifier, DeviceChoice, Precision};
use qlnet::weights::Checkpoint;
use qlnet::weights::Config;
use qlnet::weights::Weights;
use support::{fixture, nchw, reference_dir, relative_difference, tensors};

const FIXTURES: [(&str, &str); 5] = [
    ("two-filters", "two-filters.pth.tar"),
    ("one-filter", "one-filter.safetensors"),
    ("shared-kernels", "shared-kernels.pth"),
    ("channels-last-half", "channels-last-half.pth"),
    ("bfloat16", "bfloat16.safetensors"),
];

fn weights(file: &str) -> Weights {
    Weights::from_checkpoint(&Checkpoint::open(&fixture(file)).unwrap()).unwrap()
}

/// Noise of a seed, which the harness shows if the test fails.
fn noise(shape: impl Into<candle_core::Shape>, seed: u64) -> Tensor {
    println!("noise of seed {seed}");
    normal(shape, &mut stream(seed, IMAGES)).unwrap()
}

#[test]
fn every_step_equals_pytorch() {
    for (name, file) in FIXTURES {
        let expected = tensors(&fixture(&format!("{name}.expected.safetensors")));
        for (dtype, fused, tolerance) in
            [(DType::F32, true, 2e-6), (DType::F32, false, 2e-6), (DType::F64, false, 1e-6)]
        {
            let weights = weights(file);
            let net = if fused {
                QLNet::from_weights(&weights, Precision::F32, &Device::Cpu).unwrap()
            } else {
                QLNet::new_plain(weights.config(), weights.var_builder(dtype, &Device::Cpu)).unwrap()
            };
            let input = expected["input"].to_dtype(dtype).unwrap();
            let mut seen = vec!["input".to_string()];
            let logits = net
                .forward_observed(&input, &mut |step, x| {
                    let difference = relative_difference(&nchw(x), &expected[step]);
                    assert!(difference < tolerance, "{name} {dtype:?} {step}: {difference:e}");
                    seen.push(step.to_string());
                })
                .unwrap();
            let difference = relative_difference(&logits, &expected["logits"]);
            assert!(difference < tolerance, "{name} {dtype:?} logits: {difference:e}");
            seen.push("logits".into());
            seen.sort();
            let mut steps: Vec<_> = expected.keys().cloned().collect();
            steps.sort();
            assert_eq!(seen, steps);
        }
    }
}

#[test]
fn half_precision_stays_near() {
    let weights = Weights::from_model("qlnet-digits").unwrap();
    let input = noise((2, 3, 64, 64), 1);
    let exact = QLNet::from_weights(&weights, Precision::F32, &Device::Cpu).unwrap().forward(&input).unwrap();
    for (precision, dtype, tolerance) in
        [(Precision::F16, DType::F16, 1e-2), (Precision::Bf16, DType::F32, 1e-2), (Precision::Int8, DType::F32, 2e-2)]
    {
        let net = QLNet::from_weights(&weights, precision, &Device::Cpu).unwrap();
        let logits = net.forward(&input.to_dtype(dtype).unwrap()).unwrap();
        let difference = relative_difference(&logits, &exact);
        println!("{precision}: {difference:e}");
        assert!(difference < tolerance, "{precision}: {difference:e}");
        assert!(difference > 1e-6, "{precision}: nothing was rounded");
    }
}

/// To the last bit: an evaluation must not depend on how it is cut into batches.
#[test]
fn a_batch_is_its_images_one_by_one() {
    for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
        batch_of(precision);
    }
}

fn batch_of(precision: Precision) {
    let net =
        QLNet::from_weights(&Weights::random(&Config::qlnet_50_v0(), 1).unwrap(), precision, &Device::Cpu).unwrap();
    let images = noise((19, 3, 64, 64), 1);
    let steps = |images: &Tensor| {
        let mut steps = Vec::new();
        let logits = net.forward_observed(images, &mut |step, x| steps.push((step.to_string(), x.clone()))).unwrap();
        steps.push(("logits".into(), logits));
        steps
    };
    let bits = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let alone: Vec<_> = (0..19).map(|i| steps(&images.narrow(0, i, 1).unwrap())).collect();
    for n in [2, 3, 5, 8, 19] {
        for (index, (step, together)) in steps(&images.narrow(0, 0, n).unwrap()).iter().enumerate() {
            for (i, alone) in alone.iter().take(n).enumerate() {
                let same = bits(&together.narrow(0, i, 1).unwrap()) == bits(&alone[index].1);
                assert!(same, "{precision}, {step}, image {i} of {n}");
            }
        }
    }
}

#[test]
fn features_are_the_pooled_values_that_the_logits_are_made_of() {
    let config = Config::qlnet_50_v0();
    let weights = Weights::random(&config, 1).unwrap();
    // More images than run together.
    let images = noise((3, 3, 512, 512), 1);
    for (precision, dtype) in [(Precision::F32, DType::F32), (Precision::F64, DType::F64)] {
        let net = QLNet::from_weights(&weights, precision, &Device::Cpu).unwrap();
        let images = images.to_dtype(dtype).unwrap();
        let features = net.features(&images).unwrap();
        assert_eq!(features.dims(), [3, config.num_features()]);
        let mut last = None;
        let logits = net.forward_observed(&images, &mut |_, x| last = Some(x.clone())).unwrap();
        let pooled = last.unwrap().mean((1, 2)).unwrap();
        assert!(relative_difference(&features, &pooled) < 1e-6);
        let [weight, bias] = ["fc.weight", "fc.bias"].map(|name| weights.tensors()[name].to_dtype(dtype).unwrap());
        let expected = features.matmul(&weight.t().unwrap()).unwrap().broadcast_add(&bias).unwrap();
        assert!(relative_difference(&logits, &expected) < 1e-5);
        assert!(relative_difference(&net.forward(&images).unwrap(), &logits) < 1e-12);
    }
}

/// On pictures: logits in fewer bits are near those of PyTorch in float32, and where its first class leads by more than
/// that, it is the same.
#[test]
fn fewer_bits_of_a_full_size_network_stay_near_pytorch() {
    let Some(dir) = reference_dir() else { return };
    let checkpoint = Checkpoint::open(&dir.join("qlnet-50-v0.digits.pth.tar")).unwrap();
    let weights = Weights::from_checkpoint(&checkpoint).unwrap();
    let expected: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(dir.join("expected.json")).unwrap()).unwrap();
    let images = expected["images"].as_array().unwrap();
    let crops: Vec<_> =
        images.iter().map(|i| image::open(dir.join(i["crop"].as_str().unwrap())).unwrap().into_rgb8()).collect();
    let expected: Vec<Vec<f32>> =
        images.iter().map(|image| serde_json::from_value(image["logits"].clone()).unwrap()).collect();
    let largest = expected.iter().flatten().fold(0f32, |largest, logit| largest.max(logit.abs()));
    let input = qlnet::input::to_tensor(&crops).unwrap();
    for (precision, tolerance) in [(Precision::Bf16, 1e-2), (Precision::Int8, 2e-2)] {
        let net = QLNet::from_weights(&weights, precision, &Device::Cpu).unwrap();
        let logits = net.forward(&input).unwrap().to_vec2::<f32>().unwrap();
        for (found, expected) in logits.iter().zip(&expected) {
            let off = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
            assert!(off < tolerance * largest, "{precision}: off by {off} of {largest}");
            let order = |logits: &[f32]| {
                let mut order: Vec<usize> = (0..logits.len()).collect();
                order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
                order
            };
            let first = order(expected);
            if expected[first[0]] - expected[first[1]] > 2.0 * off {
                assert_eq!(order(found)[0], first[0], "{precision}");
            }
        }
    }
}

#[test]
fn full_size_network_equals_pytorch() {
    let Some(dir) = reference_dir() else { return };
    let checkpoint = Checkpoint::open(&dir.join("qlnet-50-v0.digits.pth.tar")).unwrap();
    let net =
        QLNet::from_weights(&Weights::from_checkpoint(&checkpoint).unwrap(), Precision::F32, &Device::Cpu).unwrap();
    let expected: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(dir.join("expected.json")).unwrap()).unwrap();
    let numbers = |value: &serde_json::Value| -> Vec<f32> { serde_json::from_value(value.clone()).unwrap() };
    let mut compared = 0;
    for image in expected["images"].as_array().unwrap() {
        let crop = image::open(dir.join(image["crop"].as_str().unwrap())).unwrap().into_rgb8();
        let input = qlnet::input::to_tensor(&[crop]).unwrap();
        let mut blocks = 0;
        let logits = net
            .forward_observed(&input, &mut |step, x| {
                let listed = image["blocks"].as_array().into_iter().flatten();
                for expected in listed.filter(|block| block["name"] == step) {
                    let values = x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                    let n = values.len() as f64;
                    let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
                    let rms = (values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / n).sqrt();
                    let max = values.iter().fold(0f64, |m, v| m.max(f64::from(v.abs())));
                    for (name, found) in [("mean", mean), ("rms", rms), ("absmax", max)] {
                        let wanted = expected[name].as_f64().unwrap();
                        assert!((found - wanted).abs() < 1e-4 * max, "{step} {name}: {found} for {wanted}");
                    }
                    blocks += 1;
                }
            })
            .unwrap();
        assert!(image.get("blocks").is_none() || blocks >= 16, "{blocks}");
        let expected = Tensor::new(numbers(&image["logits"]), &Device::Cpu).unwrap().unsqueeze(0).unwrap();
        let difference = relative_difference(&logits, &expected);
        assert!(difference < 1e-4, "{}: {difference:e}", image["image"]);
        compared += 1;
    }
    assert_eq!(compared, 17);
}

/// A network of full width, so that blocks take several strips and their rings of rows wrap around.
#[test]
fn fused_blocks_equal_plain_ones_at_full_width() {
    let mut one_filter = Config::qlnet_50_v0();
    for block in one_filter.layers.iter_mut().flatten() {
        block.filters = 1;
    }
    for (config, images) in [(Config::qlnet_50_v0(), 1), (Config::qlnet_50_v0(), 3), (one_filter, 2)] {
        let weights = Weights::random(&config, 1).unwrap();
        let fused = QLNet::from_weights(&weights, Precision::F32, &Device::Cpu).unwrap();
        let plain = QLNet::new_plain(&config, weights.var_builder(DType::F32, &Device::Cpu)).unwrap();
        for (height, width) in [(224, 224), (97, 130), (225, 33)] {
            let x = noise((images, 3, height, width), 1);
            let mut expected = Vec::new();
            plain.forward_observed(&x, &mut |step, x| expected.push((step.to_string(), x.clone()))).unwrap();
            let mut expected = expected.into_iter();
            fused
                .forward_observed(&x, &mut |step, x| {
                    let (name, wanted) = expected.next().unwrap();
                    assert_eq!(name, step);
                    let difference = relative_difference(x, &wanted);
                    assert!(difference < 1e-4, "{images} of {height}x{width}, {step}: {difference:e}");
                })
                .unwrap();
            assert!(expected.next().is_none());
        }
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let config = Config::qlnet_50_v0();
    let weights = Weights::random(&config, 1).unwrap();
    let net = QLNet::from_weights(&weights, Precision::F32, &Device::Cpu).unwrap();
    let plain = QLNet::new_plain(&config, weights.var_builder(DType::F32, &Device::Cpu)).unwrap();
    for images in [1, 5] {
        let x = noise((images, 3, 96, 65), 1);
        let logits = [1, 3, 16, 64].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| net.forward(&x)).unwrap().to_vec2::<f32>().unwrap()
        });
        assert!(logits.iter().all(|other| *other == logits[0]), "{images} images");
        let difference = relative_difference(&net.forward(&x).unwrap(), &plain.forward(&x).unwrap());
        assert!(difference < 1e-4, "{images} images: {difference:e}");
    }
}

/// What threads that share a network get is what one gets alone. `QLNET_TEST_DEVICE` names another device than the CPU,
/// which opens twice as one.
#[test]
fn threads_share_a_device() {
    let name = std::env::var("QLNET_TEST_DEVICE").unwrap_or("cpu".into());
    let open = || name.parse::<DeviceChoice>().unwrap().open().unwrap();
    let classifier = |device| {
        Classifier::new(&weights("two-filters.pth.tar"), Vec::new(), Preprocess::notebook(64), device, Precision::F32)
            .unwrap()
    };
    let images: Vec<_> = (0..4).map(|seed| noise((3, 3, 64, 64), seed)).collect();
    let cpu = classifier(Device::Cpu);
    let shared = classifier(open());
    let check = |classifier: &Classifier, images: &Tensor| {
        let difference = relative_difference(&classifier.logits(images).unwrap(), &cpu.logits(images).unwrap());
        assert!(difference < 1e-5, "{difference:e}");
    };
    std::thread::scope(|scope| {
        for images in &images {
            scope.spawn(|| (0..3).for_each(|_| check(&shared, images)));
        }
        // One with a network of its own, made in its own thread.
        scope.spawn(|| check(&classifier(open()), &images[0]));
    });
}
