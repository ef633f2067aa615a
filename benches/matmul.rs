//! `cargo bench --bench matmul`: products in the shapes of the network's layers, on one thread,
//! beside those of the `gemm` crate.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use qlnet::internals::{Format, Panels, Rows, accumulate, gate};
use std::hint::black_box;

fn matmul(c: &mut Criterion) {
    for (name, m, k, n, gated) in [
        ("layer1 conv1", 224, 64, 512, true),
        ("layer1 conv3", 224, 512, 64, false),
        ("layer2 conv1", 112, 128, 1024, true),
        ("layer2 conv3", 112, 1024, 128, false),
        ("layer3 conv1", 98, 256, 1024, true),
        ("layer3 conv3", 98, 1024, 256, false),
        ("layer4 conv1", 49, 512, 2048, true),
        ("layer4 conv3", 49, 2048, 512, false),
    ] {
        let stride = if gated { k } else { k + 16 };
        let a: Vec<f32> = (0..m * stride).map(|i| (i % 7) as f32).collect();
        let b: Vec<f32> = (0..k * n).map(|i| (i % 5) as f32).collect();
        let panels = Panels::new(Format::Float, k, n, |i, j| b[i * n + j]);
        let bias = vec![1.0; n];
        let mut out = vec![0.0; m * n];
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Elements((2 * m * k * n) as u64));
        group.bench_function("ours", |bench| {
            bench.iter(|| {
                let rows = Rows::floats(black_box(&a), stride);
                if gated {
                    gate(m, rows, &panels, &bias, &mut out, n / 2 + 16);
                } else {
                    accumulate(m, rows, &panels, &mut out, n);
                }
            });
        });
        group.bench_function("gemm", |bench| {
            // SAFETY: the matrices are as large as the sizes and strides say.
            bench.iter(|| unsafe {
                gemm::gemm(
                    m,
                    n,
                    k,
                    out.as_mut_ptr(),
                    1,
                    n as isize,
                    !gated,
                    black_box(&a).as_ptr(),
                    1,
                    stride as isize,
                    b.as_ptr(),
                    1,
                    n as isize,
                    1f32,
                    1f32,
                    false,
                    false,
                    false,
                    gemm::Parallelism::None,
                )
            });
        });
    }
}

criterion_group!(benches, matmul);
criterion_main!(benches);
