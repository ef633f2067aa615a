//! Tests that kernels touch nothing but their operands: every number of rows and columns around the widths of vectors and
//! register tiles, between rows of other strides, with slices that begin wherever they do, and whose first or last value
//! lies beside a forbidden page. Values are whole numbers whose sums are exact, so results are those of plain loops.

pub(super) mod guarded;
mod rows;
mod whole;

use std::process::Command;

use rand::rngs::ChaCha8Rng;

use self::guarded::{EDGES, Edge, Guarded};
use super::extent;
use super::matmul::{accumulate, accumulate_part, accumulate_windows, gate, gate_part};
use super::operand::{Format, Operand, Rows, Scale};
use super::panels::{Panels, gate_column};
use super::products::{formats, product, whole_numbers};
use super::vector::lanes;
use crate::random::tests::{test_stream, uniform};
use crate::simd::{available, level};

/// These tests at the other levels that the CPU has. A process has one, so each gets a process.
#[test]
fn every_level_stays_inside() {
    for other in available().into_iter().filter(|other| *other != level().name()) {
        let mut tests = Command::new(std::env::current_exe().unwrap());
        tests.args(["network::cpu::edges::", "--skip", "every_level"]).env("QLNET_SIMD", other);
        let output = match tests.output() {
            // An emulator runs this program, and the system cannot.
            Err(error) if error.raw_os_error() == Some(libc::ENOEXEC) => return,
            output => output.unwrap(),
        };
        let said = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !said.contains(" 0 passed"), "{other}: {}\n{said}{errors}", output.status);
    }
}

/// So many whole numbers from -8 to 8.
fn small(count: usize, rng: &mut ChaCha8Rng) -> Vec<f32> {
    uniform(count, -8.0..8.0, rng).into_iter().map(f32::round).collect()
}

/// Pixels at an edge, with no more around them than a product asks for.
struct Pixels {
    groups: Guarded<u32>,
    scales: Guarded<Scale>,
    stride: usize,
    format: Format,
}

impl Pixels {
    /// `m` pixels of `k` values, `more` groups further apart than they must be.
    fn new(format: Format, m: usize, k: usize, values: &[f32], more: usize, edge: Edge) -> Self {
        let mut operand = Operand::default();
        operand.take(format, 0, m, values, k, k);
        let from = operand.rows(format, k);
        let (groups, rows) =
            (format.padded_groups(k), if format == Format::Float { m } else { m.next_multiple_of(16) });
        let stride = groups + more;
        let mut spread = vec![0; extent(rows, stride, groups)];
        for (to, from) in spread.chunks_mut(stride).zip(from.groups.chunks(from.stride)) {
            to[..groups].copy_from_slice(&from[..groups]);
        }
        let scales = if format.is_scaled() { &from.scales[..m] } else { &[] };
        Self { groups: Guarded::new(&spread, edge), scales: Guarded::new(scales, edge), stride, format }
    }

    fn rows(&self) -> Rows<'_> {
        Rows { groups: &self.groups, stride: self.stride, scales: &self.scales, format: self.format }
    }
}

/// Rows, values and columns of products: each of them around the sizes that kernels are made for.
fn sizes() -> Vec<[usize; 3]> {
    let width = 2 * lanes();
    let rows = (1..=37).map(|m| [m, 1 + m % 5, width - 1 + m % 3]);
    let columns = (1..=3 * width + 1).map(|n| [1 + n % 13, 1 + n % 7, n]);
    let values = (1..=65).chain([255, 256, 257, 513, 1025]).map(|k| [1 + k % 14, k, 1 + k % (width + 2)]);
    rows.chain(columns).chain(values).collect()
}

/// All formats of this CPU.
fn all_formats() -> Vec<Format> {
    [Format::Float].into_iter().chain(formats()).collect()
}

#[test]
fn sums_stay_inside() {
    let rng = &mut test_stream(1);
    for (i, [m, k, n]) in sizes().into_iter().enumerate() {
        let (a, b) = whole_numbers(m, k, n, rng);
        let expected = product(m, k, n, &a, k, &b);
        let stride = n + [0, 1, 5][i % 3];
        for (format, edge) in all_formats().into_iter().flat_map(|format| EDGES.map(|edge| (format, edge))) {
            let pixels = Pixels::new(format, m, k, &a, [0, 1, 3, 16][i % 4], edge);
            let panels = Panels::new(format, k, n, |i, j| b[i * n + j]).guarded(edge);
            let check = |c: &[f32], first: usize, columns: usize| {
                for (at, found) in c.iter().enumerate() {
                    let (row, column) = (at / stride, at % stride);
                    let sum = if column < columns { expected[row * n + first + column] } else { 0.0 };
                    assert_eq!(f64::from(*found), 1.0 + sum, "{format:?} {m}x{k}x{n} at {row},{column} {edge:?}");
                }
            };
            let mut c = Guarded::new(&vec![1.0; extent(m, stride, n)], edge);
            accumulate(m, pixels.rows(), &panels, &mut c, stride);
            check(&c, 0, n);
            for part in [0..1, 1..panels.count()] {
                let columns = panels.columns_of(&part);
                if columns.is_empty() {
                    continue;
                }
                let mut c = Guarded::new(&vec![1.0; extent(m, stride, columns.len())], edge);
                // SAFETY: the operands are those of `accumulate`, and `c` has the columns of these panels.
                unsafe { accumulate_part(m, pixels.rows(), &panels, part, c.as_mut_ptr(), stride) };
                check(&c, columns.start, columns.len());
            }
        }
    }
}

#[test]
fn gates_stay_inside() {
    let rng = &mut test_stream(2);
    for (i, [m, k, n]) in sizes().into_iter().enumerate() {
        let (a, b) = whole_numbers(m, k, n, rng);
        let (sums, padded) = (product(m, k, n, &a, k, &b), n.next_multiple_of(lanes()));
        let bias = small(2 * padded, rng);
        let stride = padded + [0, 1, 5][i % 3];
        // The second factor is the first value of the pixel.
        let element = |i: usize, j: usize| match gate_column(j) {
            (0, column) if column < n => b[i * n + column],
            (1, column) if column < n && i == 0 => 127.0,
            _ => 0.0,
        };
        let places: Vec<_> = (0..2 * padded).map(gate_column).collect();
        let place = |half, column| places.iter().position(|place| *place == (half, column)).unwrap();
        let factors: Vec<_> = (0..padded).map(|j| (bias[place(0, j)], bias[place(1, j)])).collect();
        let wanted = |row: usize, column: usize| {
            let (first, second) = factors[column];
            let (x, y) = if column < n { (sums[row * n + column] as f32, a[row * k] * 127.0) } else { (0.0, 0.0) };
            (x + first) * (y + second)
        };
        for (format, edge) in all_formats().into_iter().flat_map(|format| EDGES.map(|edge| (format, edge))) {
            let pixels = Pixels::new(format, m, k, &a, [0, 1, 3, 16][i % 4], edge);
            let panels = Panels::for_gate(format, k, 2 * padded, element).guarded(edge);
            let bias = Guarded::new(&bias, edge);
            let check = |c: &[f32], first: usize, columns: usize| {
                for (at, found) in c.iter().enumerate() {
                    let (row, column) = (at / stride, at % stride);
                    let wanted = if column < columns { wanted(row, first + column) } else { 7.0 };
                    assert_eq!(*found, wanted, "{format:?} {m}x{k}x{n} at {row},{column} {edge:?}");
                }
            };
            let mut c = Guarded::new(&vec![7.0; extent(m, stride, padded)], edge);
            gate(m, pixels.rows(), &panels, &bias, &mut c, stride);
            check(&c, 0, padded);
            for part in [0..1, 1..panels.count()].into_iter().filter(|part| !part.is_empty()) {
                let (first, columns) = (part.start * lanes(), part.len() * lanes());
                let mut c = Guarded::new(&vec![7.0; extent(m, stride, columns)], edge);
                // SAFETY: the operands are those of `gate`, and `c` has a vector for each of these panels.
                unsafe { gate_part(m, pixels.rows(), &panels, part, bias.as_ptr(), c.as_mut_ptr(), stride) };
                check(&c, first, columns);
            }
        }
    }
}

#[test]
fn windows_stay_inside() {
    let rng = &mut test_stream(3);
    for [m, k, n] in sizes().into_iter().filter(|[_, k, _]| *k < 256) {
        let offsets: Vec<usize> = (0..k).map(|i| i * 7 % (k + 4)).collect();
        let a = small(2 * (m - 1) + offsets.iter().max().unwrap() + 1, rng);
        let b = small(k * n, rng);
        let windows: Vec<f32> = (0..m).flat_map(|i| offsets.iter().map(move |at| 2 * i + at)).map(|at| a[at]).collect();
        let expected = product(m, k, n, &windows, k, &b);
        for edge in EDGES {
            let panels = Panels::new(Format::Float, k, n, |i, j| b[i * n + j]).guarded(edge);
            let mut c = Guarded::new(&vec![1.0; extent(m, n + 1, n)], edge);
            accumulate_windows(m, &Guarded::new(&a, edge), &Guarded::new(&offsets, edge), &panels, &mut c, n + 1);
            for (at, found) in c.iter().enumerate() {
                let (row, column) = (at / (n + 1), at % (n + 1));
                let sum = if column < n { expected[row * n + column] } else { 0.0 };
                assert_eq!(f64::from(*found), 1.0 + sum, "{m}x{k}x{n} at {row},{column} {edge:?}");
            }
        }
    }
}
