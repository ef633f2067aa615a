//! Tests of products, in every format that the CPU at hand computes in, against plain Rust.

use super::matmul::{accumulate, accumulate_windows, gate};
use super::operand::{Format, Operand, Products, Rows, to_bfloat};
use super::panels::{Panels, gate_column};
use super::panic_of;
use super::vector::lanes;
use crate::random::tests::{test_stream, uniform};
use rand::rngs::ChaCha8Rng;

/// `[m, k] x [k, n]` in float64, `a` with a stride.
pub(super) fn product(m: usize, k: usize, n: usize, a: &[f32], stride: usize, b: &[f32]) -> Vec<f64> {
    let mut c = vec![0.0; m * n];
    for i in 0..m {
        for j in 0..n {
            c[i * n + j] = (0..k).map(|l| f64::from(a[i * stride + l]) * f64::from(b[l * n + j])).sum();
        }
    }
    c
}

#[test]
fn accumulate_adds_the_product() {
    let rng = &mut test_stream(1);
    for (m, k, n) in [(1, 1, 1), (5, 7, 3), (13, 64, 32), (49, 300, 80), (25, 513, 33), (12, 16, 64)] {
        let stride = k + 3;
        let (a, b) = (uniform(m * stride, -1.0..1.0, rng), uniform(k * n, -1.0..1.0, rng));
        let panels = Panels::new(Format::Float, k, n, |i, j| b[i * n + j]);
        let c_stride = n + 2;
        let before = uniform(m * c_stride, -1.0..1.0, rng);
        let mut c = before.clone();
        accumulate(m, Rows::floats(&a, stride), &panels, &mut c, c_stride);
        let expected = product(m, k, n, &a, stride, &b);
        for i in 0..m {
            for j in 0..c_stride {
                let wanted = f64::from(before[i * c_stride + j]) + if j < n { expected[i * n + j] } else { 0.0 };
                let difference = (f64::from(c[i * c_stride + j]) - wanted).abs();
                assert!(difference < 2e-5, "{m}x{k}x{n} at {i},{j}: {difference}");
            }
        }
    }
}

#[test]
fn gate_multiplies_two_products() {
    let rng = &mut test_stream(1);
    for (m, k, w) in [(1, 1, 16), (7, 20, 48), (30, 64, 5), (49, 130, 64)] {
        let (a, b, bias) =
            (uniform(m * k, -1.0..1.0, rng), uniform(k * 2 * w, -1.0..1.0, rng), uniform(2 * w, -1.0..1.0, rng));
        let padded = w.div_ceil(lanes()) * lanes();
        let pick = |values: &dyn Fn(usize) -> f32, j: usize| {
            let (factor, column) = gate_column(j);
            if column < w { values(factor * w + column) } else { 0.0 }
        };
        let panels = Panels::for_gate(Format::Float, k, 2 * padded, |i, j| pick(&|column| b[i * 2 * w + column], j));
        let packed_bias: Vec<f32> = (0..2 * padded).map(|j| pick(&|column| bias[column], j)).collect();
        let mut c = vec![f32::NAN; m * padded];
        gate(m, Rows::floats(&a, k), &panels, &packed_bias, &mut c, padded);
        let sums = product(m, k, 2 * w, &a, k, &b);
        for i in 0..m {
            for j in 0..padded {
                let factor = |f: usize| sums[i * 2 * w + f * w + j] + f64::from(bias[f * w + j]);
                let wanted = if j < w { factor(0) * factor(1) } else { 0.0 };
                let difference = (f64::from(c[i * padded + j]) - wanted).abs();
                assert!(difference < 2e-4, "{m}x{k}x{w} at {i},{j}: {difference}");
            }
        }
    }
}

/// The formats that the CPU at hand computes in, but for float32.
pub(super) fn formats() -> Vec<Format> {
    let formats = [Products::Bfloat16, Products::Int8].map(Products::format);
    formats.into_iter().filter(|format| *format != Format::Float).collect()
}

/// Whole numbers from -127 to 127 that rounding leaves as they are, as weights and pixels: every column and every
/// row has the largest, and every row the smallest.
pub(super) fn whole_numbers(m: usize, k: usize, n: usize, rng: &mut ChaCha8Rng) -> (Vec<f32>, Vec<f32>) {
    let mut draw = |len: usize| -> Vec<f32> { uniform(len, -127.0..127.0, rng).iter().map(|v| v.round()).collect() };
    let (mut a, mut b) = (draw(m * k), draw(k * n));
    a.chunks_exact_mut(k).for_each(|row| (row[0], row[k - 1]) = (-127.0, 128.0));
    b[..n].fill(127.0);
    (a, b)
}

/// What is rounded without a loss has exact products, in whatever order they are added up: bit for bit those of
/// plain Rust. The sums stay below 2^24.
#[test]
fn rounded_products_are_exact_for_whole_numbers() {
    let rng = &mut test_stream(2);
    for format in formats() {
        for (m, k, n) in [(1, 2, 1), (5, 7, 3), (13, 64, 32), (33, 300, 80), (16, 515, 33), (47, 1023, 17)] {
            let (a, b) = whole_numbers(m, k, n, rng);
            let expected = product(m, k, n, &a, k, &b);
            let mut operand = Operand::default();
            operand.round(format, 0, m, &a, k, k);
            let rows = operand.rows(format, k);
            let mut c = vec![1.0; m * n];
            accumulate(m, rows, &Panels::new(format, k, n, |i, j| b[i * n + j]), &mut c, n);
            for (found, expected) in c.iter().zip(&expected) {
                assert_eq!(f64::from(*found), expected + 1.0, "{format:?} {m}x{k}x{n}");
            }

            let padded = n.next_multiple_of(lanes());
            let panels = Panels::for_gate(format, k, 2 * padded, |i, j| match gate_column(j) {
                (0, column) if column < n => b[i * n + column],
                // The second factor is the first row of the pixels.
                (1, column) if column < n && i == 0 => 127.0,
                _ => 0.0,
            });
            let mut c = vec![f32::NAN; m * padded];
            gate(m, rows, &panels, &vec![0.0; 2 * padded], &mut c, padded);
            for (i, row) in c.chunks_exact(padded).enumerate() {
                for (j, found) in row[..n].iter().enumerate() {
                    let wanted = expected[i * n + j] as f32 * (f64::from(a[i * k]) * 127.0) as f32;
                    assert_eq!(*found, wanted, "{format:?} {m}x{k}x{n}");
                }
            }
        }
    }
}

/// Any numbers: near what plain Rust makes of the same rounded values.
#[test]
fn rounded_products_are_those_of_rounded_values() {
    let rng = &mut test_stream(3);
    for format in formats() {
        for (m, k, n) in [(1, 3, 5), (20, 130, 40), (49, 2048, 33)] {
            let (a, b) = (uniform(m * k, -1.0..3.0, rng), uniform(k * n, -1.0..1.0, rng));
            let nearest = |value: f32| f32::from_bits(u32::from(to_bfloat(value)) << 16);
            let (mut ra, mut rb) = (a.clone(), b.clone());
            if format == Format::Bfloat {
                ra.iter_mut().chain(&mut rb).for_each(|value| *value = nearest(*value));
            } else {
                for row in ra.chunks_exact_mut(k) {
                    let (least, most) = row.iter().fold((row[0], row[0]), |(l, m), v| (l.min(*v), m.max(*v)));
                    let step = (most - least) / 255.0;
                    let inverse = 1.0 / step;
                    for v in row {
                        *v = ((*v - least) * inverse).round_ties_even() * step + least;
                    }
                }
                for j in 0..n {
                    let step = (0..k).fold(0f32, |largest, i| largest.max(b[i * n + j].abs())) / 127.0;
                    (0..k).for_each(|i| rb[i * n + j] = (b[i * n + j] / step).round_ties_even() * step);
                }
            }
            let expected = product(m, k, n, &ra, k, &rb);
            let largest = expected.iter().fold(0f64, |largest, v| largest.max(v.abs()));
            let mut operand = Operand::default();
            operand.round(format, 0, m, &a, k, k);
            let mut c = vec![0.0; m * n];
            let panels = Panels::new(format, k, n, |i, j| b[i * n + j]);
            accumulate(m, operand.rows(format, k), &panels, &mut c, n);
            for (found, expected) in c.iter().zip(&expected) {
                let difference = (f64::from(*found) - expected).abs() / largest;
                assert!(difference < 2e-6, "{format:?} {m}x{k}x{n}: {difference:e}");
            }
        }
    }
}

/// Calls a product of `[4, 8]` and `[8, n]` with one value less than it takes of one operand, in a buffer
/// whose end would show what was written past it.
#[test]
fn short_operands_are_refused() {
    let n = 2 * lanes();
    let panels = Panels::new(Format::Float, 8, n, |_, _| 1.0);
    let offsets: Vec<usize> = (0..8).collect();
    let (a, bias) = (vec![1.0; 4 * 8], vec![1.0; n]);
    let rows = |len| Rows::floats(&a[..len], 8);
    let check = |words: &str, call: &dyn Fn(&mut [f32])| {
        let mut c = vec![7.0; 4 * n + 64];
        assert_eq!(panic_of(|| call(&mut c)), words);
        assert!(c.iter().all(|value| *value == 7.0), "{words}: something was written");
    };
    let (few, small) = ("too few pixels to multiply", "too little room for a product");
    check(few, &|c| accumulate(4, rows(31), &panels, c, n));
    check(small, &|c| accumulate(4, rows(32), &panels, &mut c[..4 * n - 1], n));
    check(few, &|c| gate(4, rows(31), &panels, &bias, c, n));
    check(small, &|c| gate(4, rows(32), &panels, &bias, &mut c[..3 * n + lanes() - 1], n));
    check("too few biases", &|c| gate(4, rows(32), &panels, &bias[1..], c, n));
    check(few, &|c| accumulate_windows(4, &a[..13], &offsets, &panels, c, n));
    check(small, &|c| accumulate_windows(4, &a[..14], &offsets, &panels, &mut c[..4 * n - 1], n));
    let words = "another number of offsets than of weights";
    check(words, &|c| accumulate_windows(4, &a, &offsets[1..], &panels, c, n));
    // The stride wraps the end of the last row around to a small number.
    let far = Rows::floats(&a, usize::MAX / 3 + 1);
    check("a matrix larger than the memory", &|c| accumulate(4, far, &panels, c, n));
}
