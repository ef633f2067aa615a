//! The third step: the filters of a hidden channel are mixed.

use candle_core::{Device, Tensor};
use nalgebra::{Cholesky, DMatrix};

use super::calibration::Statistics;
use super::dense::{bias, eigen, even, is_finite, matrix, scaled_columns};
use crate::error::Result;
use crate::symmetry::element::Element;
use crate::symmetry::families::filter_mixing;
use crate::symmetry::structure::{BlockAt, blocks};
use crate::weights::Weights;
use crate::weights::config::Config;

/// The correlation of two pixels that lie side by side, in the model of what conv2 reads.
const CORRELATION: f64 = 0.7;
/// How far the larger filters are kept larger than their columns: the exponent of the eigenvalues is a quarter where
/// both are balanced.
const EXPONENT: f64 = 0.25 + 0.125;
/// Elements of a matrix that mixes are no larger.
const LARGEST: f64 = 1e12;

/// Mixes the filters of each hidden channel. With `C` for the covariance of what they make and `N` for the products
/// of the columns that read it, the matrix `M` makes both diagonal and balanced: `M C M^T = M^-T N M^-1`, but for
/// the exponent. A turn then gives every filter the same share, and signs make them lean to one side.
pub fn mixing(weights: &Weights, config: &Config, statistics: &Statistics) -> Result<Element> {
    let mut sum = Element::default();
    for block in blocks(config, None) {
        let f = block.config.filters;
        let thirds = statistics.hidden(&block).third;
        let covariances = covariances(weights, &block)?;
        let (mut mix, mut unmix) = (Vec::new(), Vec::new());
        for ((c, n), third) in covariances.into_iter().zip(columns(weights, &block)?).zip(thirds.chunks(f.pow(3))) {
            let identity = || (DMatrix::identity(f, f), DMatrix::identity(f, f));
            let (m, inverse) = balanced(c, n).map_or_else(identity, |pair| leaning(pair, third));
            mix.extend_from_slice(m.transpose().as_slice());
            unmix.extend_from_slice(inverse.transpose().as_slice());
        }
        let tensor = |values| Tensor::from_vec(values, (block.config.hidden_channels, f, f), &Device::Cpu);
        sum = sum.and(filter_mixing::by_matrix(&block, tensor(mix)?, tensor(unmix)?));
    }
    Ok(sum)
}

/// The covariance of what the filters of each channel make, `[f, f]`, by the weights alone: the two factors vary
/// independently, each by the norm of its row and bias, and pixels the less together the farther apart they are.
fn covariances(weights: &Weights, block: &BlockAt) -> Result<Vec<DMatrix<f64>>> {
    let (w, f) = (block.config.hidden_channels, block.config.filters);
    let (conv1, filters) = (matrix(weights, &block.conv("conv1"))?, matrix(weights, &block.conv("conv2"))?);
    let biases = bias(weights, &block.conv("conv1"))?;
    let squares: Vec<f64> = conv1.row_iter().zip(biases).map(|(row, bias)| row.norm_squared() + bias * bias).collect();
    let distance = |a: usize, b: usize| ((a / 3).abs_diff(b / 3) as f64).hypot((a % 3).abs_diff(b % 3) as f64);
    let pixels = DMatrix::from_fn(9, 9, |a, b| CORRELATION.powf(distance(a, b)));
    let covariance = |channel: usize| {
        let filters = filters.rows(channel * f, f);
        filters * &pixels * filters.transpose() * (squares[channel] * squares[w + channel])
    };
    Ok((0..w).map(covariance).collect())
}

/// The products of the columns of conv3 that read the filters of each channel, `[f, f]`.
fn columns(weights: &Weights, block: &BlockAt) -> Result<Vec<DMatrix<f64>>> {
    let (w, f) = (block.config.hidden_channels, block.config.filters);
    let conv3 = matrix(weights, &block.conv("conv3"))?;
    let products = |channel: usize| {
        let columns = conv3.columns(channel * f, f);
        columns.transpose() * columns
    };
    Ok((0..w).map(products).collect())
}

/// `M` and its inverse; `None` where a channel does nothing.
///
/// With `C = L L^T` and `L^T N L = U diag(l) U^T`, `diag(l^1/4) U^T L^-1` makes both matrices `diag(l^1/2)`.
fn balanced(c: DMatrix<f64>, n: DMatrix<f64>) -> Option<(DMatrix<f64>, DMatrix<f64>)> {
    let f = c.nrows();
    let widened = |mut matrix: DMatrix<f64>| {
        let ridge = 1e-9 * matrix.trace();
        (0..f).for_each(|i| matrix[(i, i)] += ridge);
        matrix
    };
    let l = Cholesky::new(widened(c))?.unpack();
    let (values, u) = eigen(l.transpose() * widened(n) * &l)?;
    if !values.iter().all(|value| *value > 0.0) {
        return None;
    }
    let turn = even(f);
    let mut inverse_l = DMatrix::identity(f, f);
    let solved = l.solve_lower_triangular_mut(&mut inverse_l);
    let m = scaled_columns(&turn, |i| values[i].powf(EXPONENT)) * u.transpose() * inverse_l;
    let inverse = l * scaled_columns(&u, |i| values[i].powf(-EXPONENT)) * turn.transpose();
    let usable = |m: &DMatrix<f64>| is_finite(m) && m.amax() < LARGEST;
    (solved && usable(&m) && usable(&inverse)).then_some((m, inverse))
}

/// The same with signs, such that no filter's third moment is negative: values of one sign need a smaller range.
fn leaning((mut m, mut inverse): (DMatrix<f64>, DMatrix<f64>), third: &[f64]) -> (DMatrix<f64>, DMatrix<f64>) {
    let f = m.nrows();
    for i in 0..f {
        let moment =
            (0..f.pow(3)).map(|abc| m[(i, abc / (f * f))] * m[(i, abc / f % f)] * m[(i, abc % f)] * third[abc]);
        if moment.sum::<f64>() < 0.0 {
            m.row_mut(i).neg_mut();
            inverse.column_mut(i).neg_mut();
        }
    }
    (m, inverse)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn positive(f: usize, seed: usize) -> DMatrix<f64> {
        let a = DMatrix::from_fn(f, f, |i, j| ((3 * i + 5 * j + seed * (i + 1)) % 7) as f64 - 2.6 + i as f64);
        &a * a.transpose() + DMatrix::identity(f, f) * 0.1
    }

    #[test]
    fn filters_and_columns_are_balanced_but_for_the_exponent() {
        for f in 1..5 {
            let (c, n) = (positive(f, 1), positive(f, 4));
            let (m, inverse) = balanced(c.clone(), n.clone()).unwrap();
            assert!((&m * &inverse - DMatrix::identity(f, f)).amax() < 1e-10, "{f}");
            let turn = even(f);
            let written = turn.transpose() * &m * c * m.transpose() * &turn;
            let read = turn.transpose() * inverse.transpose() * n * inverse * &turn;
            for i in 0..f {
                // l^(3/4) and l^(1/4).
                let ratio = written[(i, i)] / read[(i, i)].powi(3);
                assert!((ratio - 1.0).abs() < 1e-4, "{f} {ratio}");
                for j in (0..f).filter(|j| *j != i) {
                    assert!(written[(i, j)].abs() < 1e-7 * written.trace() && read[(i, j)].abs() < 1e-7 * read.trace());
                }
            }
        }
    }

    #[test]
    fn a_channel_that_does_nothing_is_not_mixed() {
        let zero = || DMatrix::zeros(2, 2);
        assert!(balanced(zero(), positive(2, 1)).is_none() && balanced(positive(2, 1), zero()).is_none());
        assert!(balanced(positive(2, 1) * f64::NAN, positive(2, 1)).is_none());
        // One of two filters is dead: the other is still balanced.
        let half = DMatrix::from_row_slice(2, 2, &[1.0, 0.0, 0.0, 0.0]);
        let (m, inverse) = balanced(half, positive(2, 1)).unwrap();
        assert!((m * inverse - DMatrix::identity(2, 2)).amax() < 1e-9);
    }

    #[test]
    fn filters_lean_to_one_side() {
        let identity = || (DMatrix::identity(1, 1), DMatrix::identity(1, 1));
        assert_eq!(leaning(identity(), &[-2.0]).0[(0, 0)], -1.0);
        assert_eq!(leaning(identity(), &[-2.0]).1[(0, 0)], -1.0);
        assert_eq!(leaning(identity(), &[0.0]), identity());
    }
}
