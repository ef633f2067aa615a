//! The fourth step: streams behind the stem's are turned.

use nalgebra::{DMatrix, DVector};
use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;
use rand_distr::{Distribution, StandardNormal};

use super::calibration::Statistics;
use super::dense::{complement, eigen, even, is_finite, matrix, orthonormalised, polished, scaled_columns, to_tensor};
use crate::error::Result;
use crate::random;
use crate::symmetry::element::{Element, Side};
use crate::symmetry::families::stage_rotation;
use crate::symmetry::matrices;
use crate::symmetry::structure::{Stream, streams};
use crate::weights::Weights;
use crate::weights::config::Config;

/// How often the rows are made flatter.
const ROUNDS: usize = 10;
/// No element of a row is wanted larger than so many times the root mean square of the row.
const CREST: f64 = 1.4;
/// Directions that a skip makes smaller than its largest by more than the root of this count as none.
const NEGLIGIBLE: f64 = 1e-9;

/// Turns every stream but the stem's, one after the other: which rows of a skip are flat depends on how the stream
/// that it reads is turned.
pub fn rotations(weights: &Weights, config: &Config, statistics: &Statistics) -> Result<Element> {
    let mut weights = weights.clone();
    streams(config, None).iter().try_fold(Element::default(), |sum, stream| {
        let element = rotation(&weights, stream, statistics)?;
        element.apply(&mut weights, Side::Both)?;
        Ok(sum.and(element))
    })
}

/// Turns a stream such that the rows of the skip that begins it are flat: their largest element, by which they are
/// rounded, is little larger than the others.
///
/// The skip is `U R` with orthonormal columns `U`, and is to be `V R`. That says where the directions go that the
/// skip writes; the others are ordered by what reads and writes them, and go to the rest of a basis.
fn rotation(weights: &Weights, stream: &Stream, statistics: &Statistics) -> Result<Element> {
    let Some(first) = &stream.first else { return Ok(Element::default()) };
    let rng = &mut random::stream(0, random::PREPARATION);
    let Some((u, vectors, values)) = polar(matrix(weights, &first.conv("skip"))?) else {
        return Ok(Element::default());
    };
    let Some(v) = flat(&vectors, &values, u.nrows(), rng)? else { return Ok(Element::default()) };
    let mut q = &v * u.transpose();
    if u.ncols() < u.nrows() {
        let seeds = normal(u.nrows(), u.nrows() - u.ncols(), rng);
        let mean = DVector::from_vec(statistics.mean(first));
        let Some(rest) = ordered(weights, stream, &complement(&u, &seeds), &mean)? else {
            return Ok(Element::default());
        };
        q += complement(&v, &seeds) * rest.transpose();
    }
    match polished(q) {
        Some(q) => stage_rotation::element(stream, &to_tensor(&q)?),
        None => Ok(Element::default()),
    }
}

/// A skip `[o, c]` of rank `r` as `U diag(values) E^T`: `U` `[o, r]` and `E` `[c, r]` have orthonormal columns. `None`
/// if it is zero.
fn polar(skip: DMatrix<f64>) -> Option<(DMatrix<f64>, DMatrix<f64>, Vec<f64>)> {
    let (squares, vectors) = eigen(skip.transpose() * &skip)?;
    let rank = squares.iter().take(skip.nrows()).take_while(|square| **square > NEGLIGIBLE * squares[0]).count();
    if rank == 0 || squares[0] <= 0.0 {
        return None;
    }
    let values: Vec<f64> = squares.iter().take(rank).map(|square| square.sqrt()).collect();
    let vectors = vectors.columns(0, rank).into_owned();
    let u = scaled_columns(&(skip * &vectors), |i| values[i].recip());
    is_finite(&u).then_some((u, vectors, values))
}

/// `V` `[o, r]` with orthonormal columns, such that the rows of `V diag(values) E^T` are flat. It begins with columns
/// of Hadamard's matrix, or drawn ones where `o` is no power of two.
fn flat(vectors: &DMatrix<f64>, values: &[f64], o: usize, rng: &mut ChaCha8Rng) -> Result<Option<DMatrix<f64>>> {
    let transposed = scaled_columns(vectors, |i| values[i]);
    let r = transposed.transpose();
    let Some(mut v) = orthonormalised(&(seeded(o, vectors.nrows(), rng)? * vectors)) else { return Ok(None) };
    for _ in 0..ROUNDS {
        let mut rows = &v * &r;
        for mut row in rows.row_iter_mut() {
            let largest = CREST * (row.norm_squared() / row.len() as f64).sqrt();
            row.iter_mut().for_each(|value| *value = value.min(largest).max(-largest));
        }
        match orthonormalised(&(rows * &transposed)) {
            Some(flatter) => v = flatter,
            None => break,
        }
    }
    Ok(Some(v))
}

/// `[o, c]`, part of an orthogonal matrix.
fn seeded(o: usize, c: usize, rng: &mut ChaCha8Rng) -> Result<DMatrix<f64>> {
    if !o.is_power_of_two() || c > o {
        let n = o.max(c);
        let values = matrices::haar(n, rng)?.flatten_all()?.to_vec1::<f64>()?;
        return Ok(DMatrix::from_row_slice(n, n, &values).view((0, 0), (o, c)).into_owned());
    }
    let mut columns: Vec<usize> = (0..o).collect();
    columns.shuffle(rng);
    let signs = matrices::signs(o, rng)?.to_vec1::<f64>()?;
    let even = even(o);
    Ok(DMatrix::from_fn(o, c, |i, j| signs[i] * even[(i, columns[j])]))
}

fn normal(rows: usize, columns: usize, rng: &mut ChaCha8Rng) -> DMatrix<f64> {
    DMatrix::from_iterator(rows, columns, StandardNormal.sample_iter(rng).take(rows * columns))
}

/// The space of an orthonormal basis `[o, k]` in a basis that the weights alone determine: the principal directions
/// of what reads the stream and what the blocks write to it, with signs by which `mean` leans to them.
fn ordered(
    weights: &Weights,
    stream: &Stream,
    basis: &DMatrix<f64>,
    mean: &DVector<f64>,
) -> Result<Option<DMatrix<f64>>> {
    let mut gram = DMatrix::zeros(basis.ncols(), basis.ncols());
    let mut add = |seen: DMatrix<f64>, whole: f64| {
        let product = seen.transpose() * &seen / whole;
        if is_finite(&product) {
            gram += product;
        }
    };
    for conv in stream.readers() {
        let mut reader = matrix(weights, &conv)?;
        if conv.ends_with("conv1") {
            // Each row is rounded by itself.
            reader.row_iter_mut().for_each(|mut row| _ = row.try_normalize_mut(0.0));
        }
        let whole = reader.norm_squared();
        add(reader * basis, whole);
    }
    for conv in stream.writers().into_iter().filter(|conv| conv.ends_with("conv3")) {
        let writer = matrix(weights, &conv)?;
        let whole = writer.norm_squared();
        add(writer.transpose() * basis, whole);
    }
    let Some((_, vectors)) = eigen(gram) else { return Ok(None) };
    let vectors = basis * vectors;
    let leaning = mean.transpose() * &vectors;
    Ok(Some(scaled_columns(&vectors, |i| if leaning[i] < 0.0 { -1.0 } else { 1.0 })))
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::*;

    /// By how much the largest element of a row exceeds the others, on average.
    fn crest(rows: &DMatrix<f64>) -> f64 {
        let of = |row: Vec<f64>| row.iter().fold(0f64, |a, b| a.max(b.abs())) / (DVector::from_vec(row.clone()).norm());
        let columns = (rows.ncols() as f64).sqrt();
        rows.row_iter().map(|row| columns * of(row.iter().copied().collect())).sum::<f64>() / rows.nrows() as f64
    }

    #[test]
    fn the_rows_of_skips_become_flat() {
        // Also where widths are no powers of two, and where a stream is narrower than what it reads.
        for widths in [[16, 32, 64], [12, 24, 17]] {
            let config = Config::new(16, &widths.map(|width| (width, 2)), 0, 2, 3);
            let mut weights = Weights::random(&config, 1).unwrap().to_dtype(DType::F64).unwrap();
            let skips: Vec<String> =
                streams(&config, None).iter().filter_map(|stream| Some(stream.first?.conv("skip"))).collect();
            let crests = |weights: &Weights| -> Vec<f64> {
                skips.iter().map(|conv| crest(&matrix(weights, conv).unwrap())).collect()
            };
            let before = crests(&weights);
            let statistics = Statistics::new(&weights).unwrap();
            rotations(&weights, &config, &statistics).unwrap().apply(&mut weights, Side::Both).unwrap();
            let after = crests(&weights);
            assert!(before.iter().zip(&after).all(|(before, after)| *after < 0.85 * before), "{before:?} {after:?}");
        }
    }

    #[test]
    fn a_skip_of_less_than_full_rank_has_as_many_directions() {
        let skip = DMatrix::from_fn(5, 4, |i, j| (i as f64 - 1.3) * (j as f64 + 0.7) + if i == j { 0.0 } else { 1.0 });
        let flat = DMatrix::from_fn(5, 4, |i, j| (i as f64 + 1.0) * (j as f64 - 1.2));
        for (skip, rank) in [(skip.clone(), 4), (skip.transpose(), 4), (flat.clone(), 1), (flat.transpose(), 1)] {
            let (u, vectors, values) = polar(skip.clone()).unwrap();
            assert_eq!(values.len(), rank);
            let made = scaled_columns(&u, |i| values[i]) * vectors.transpose();
            assert!((made - &skip).amax() < 1e-9 * skip.amax());
        }
        assert!(polar(DMatrix::zeros(3, 2)).is_none());
    }
}
