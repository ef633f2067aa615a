//! `cargo bench --bench forward`: the whole network by batch, each kind of block, and each operation
//! beside its plain version. The network has the dimensions of qlnet-50-v0 and made-up weights.

use std::hint::black_box;

use candle_core::{DType, Device, Tensor};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use qlnet::internals::QLNet;
use qlnet::internals::ops::{self, Depthwise, FusedBlock};
use qlnet::internals::{IMAGES, Products, normal, project, stream};
use qlnet::network::Precision;
use qlnet::weights::Config;
use qlnet::weights::Weights;

fn noise(shape: &[usize], scale: f64) -> Tensor {
    (normal(shape, &mut stream(1, IMAGES)).unwrap() * scale).unwrap()
}

fn network(c: &mut Criterion) {
    let weights = Weights::random(&Config::qlnet_50_v0(), 1).unwrap();
    let net = QLNet::from_weights(&weights, Precision::F32, &Device::Cpu).unwrap();
    let plain = QLNet::new_plain(weights.config(), weights.var_builder(DType::F32, &Device::Cpu)).unwrap();
    let mut group = c.benchmark_group("forward 224x224");
    group.sample_size(10);
    for batch in [1, 8, 32] {
        let images = noise(&[batch, 3, 224, 224], 1.0);
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_with_input(BenchmarkId::new("fused", batch), &images, |b, x| b.iter(|| net.forward(x).unwrap()));
        group.bench_with_input(BenchmarkId::new("plain", batch), &images, |b, x| b.iter(|| plain.forward(x).unwrap()));
    }
}

fn blocks(c: &mut Criterion) {
    let config = Config::qlnet_50_v0();
    let weights = Weights::random(&config, 1).unwrap();
    let mut group = c.benchmark_group("block");
    let mut side = 56;
    for (i, blocks) in config.layers.iter().enumerate() {
        for (j, block) in blocks.iter().enumerate() {
            let x = noise(&[2, side, side, block.in_channels], 1.0);
            side /= block.stride;
            // The first of a layer and the second: the others are as the second.
            if j > 1 {
                continue;
            }
            let pair = |part: &str| {
                let name = |kind: &str| format!("layer{}.{j}.{part}.{kind}", i + 1);
                (&weights.tensors()[&name("weight")], &weights.tensors()[&name("bias")])
            };
            let skip = block.skip.is_convolution().then(|| pair("skip"));
            let fused =
                FusedBlock::new(block, Products::Float32, pair("conv1"), pair("conv2"), pair("conv3"), skip).unwrap();
            group.throughput(Throughput::Elements(2));
            group.bench_function(format!("layer{}.{j}", i + 1), |b| b.iter(|| fused.forward(black_box(&x)).unwrap()));
        }
    }
}

fn operations(c: &mut Criterion) {
    let mut group = c.benchmark_group("operation");
    let image = noise(&[1, 3, 224, 224], 1.0);
    let (weight, bias) = (noise(&[64, 3, 7, 7], 0.1), noise(&[64], 0.1));
    group.bench_function("stem", |b| b.iter(|| ops::stem(&image, &weight, &bias).unwrap()));
    group.bench_function("stem, plain", |b| b.iter(|| ops::stem_plain(&image, &weight, &bias).unwrap()));

    let x = noise(&[1, 28, 28, 512], 1.0);
    let conv = Depthwise::new(&noise(&[1024, 1, 3, 3], 0.3), &noise(&[1024], 0.1), 2, 1).unwrap();
    group.bench_function("depthwise 28x28x512, two filters", |b| b.iter(|| ops::depthwise(&x, &conv).unwrap()));
    group.bench_function("depthwise 28x28x512, two filters, plain", |b| {
        b.iter(|| ops::depthwise_plain(&x, &conv).unwrap());
    });

    let x = noise(&[784, 128], 1.2);
    let pixels: Vec<f32> = x.flatten_all().unwrap().to_vec1().unwrap();
    let mut scratch = pixels.clone();
    group.bench_function("hardball 28x28x128", |b| {
        b.iter(|| {
            scratch.copy_from_slice(&pixels);
            project(&mut scratch, 128);
        });
    });
    group.bench_function("hardball 28x28x128, plain", |b| b.iter(|| ops::hardball(&x).unwrap()));
}

criterion_group!(benches, network, blocks, operations);
criterion_main!(benches);
