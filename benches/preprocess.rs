//! `cargo bench --bench preprocess`

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use image::{Rgb, RgbImage};
use qlnet::input::Interpolation;
use qlnet::input::{Preprocess, to_tensor};

fn preprocess(c: &mut Criterion) {
    let photograph = RgbImage::from_fn(500, 375, |x, y| {
        Rgb([(x * y / 3) as u8, (x + 2 * y) as u8, (x.wrapping_mul(2654435761) >> 24) as u8])
    });
    let timm = Preprocess::timm(224, 0.95, Interpolation::Bicubic);
    let crop = timm.apply(&photograph).unwrap();
    c.bench_function("resize and crop 500x375, bicubic", |b| b.iter(|| timm.apply(black_box(&photograph)).unwrap()));
    let notebook = Preprocess::notebook(224);
    c.bench_function("resize and crop 500x375, bilinear", |b| {
        b.iter(|| notebook.apply(black_box(&photograph)).unwrap())
    });
    c.bench_function("normalise 224x224", |b| b.iter(|| to_tensor(black_box(std::slice::from_ref(&crop))).unwrap()));
}

criterion_group!(benches, preprocess);
criterion_main!(benches);
