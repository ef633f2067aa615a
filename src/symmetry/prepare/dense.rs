//! Dense linear algebra in float64 for the steps. What has no answer is `None`, never no number.

use candle_core::{Device, Tensor};
use nalgebra::{DMatrix, DVector, SymmetricEigen};

use crate::error::Result;
use crate::symmetry::element::tensor;
use crate::weights::Weights;

/// A weight as the matrix of its outputs and inputs, `[o, c]`.
pub fn matrix(weights: &Weights, conv: &str) -> Result<DMatrix<f64>> {
    let rows = tensor(weights, conv, "weight")?.flatten_from(1)?;
    let (outputs, inputs) = rows.dims2()?;
    Ok(DMatrix::from_row_slice(outputs, inputs, &rows.flatten_all()?.to_vec1::<f64>()?))
}

/// A bias `[o]`.
pub fn bias(weights: &Weights, conv: &str) -> Result<Vec<f64>> {
    Ok(tensor(weights, conv, "bias")?.to_vec1()?)
}

/// `[r, c]` as a tensor `[1, r, c]`.
pub fn to_tensor(matrix: &DMatrix<f64>) -> Result<Tensor> {
    let (rows, columns) = matrix.shape();
    // nalgebra stores column by column.
    Ok(Tensor::from_slice(matrix.transpose().as_slice(), (1, rows, columns), &Device::Cpu)?)
}

/// Eigenvalues of a symmetric matrix, the largest first, and its eigenvectors as columns.
pub fn eigen(matrix: DMatrix<f64>) -> Option<(DVector<f64>, DMatrix<f64>)> {
    if !is_finite(&matrix) {
        return None;
    }
    // Enough rounds for any matrix: a few for each eigenvalue are the rule.
    let rounds = 100 * matrix.nrows().max(10);
    let found = SymmetricEigen::try_new(matrix, f64::EPSILON, rounds)?;
    let mut order: Vec<usize> = (0..found.eigenvalues.len()).collect();
    order.sort_by(|i, j| found.eigenvalues[*j].total_cmp(&found.eigenvalues[*i]));
    let values = DVector::from_iterator(order.len(), order.iter().map(|i| found.eigenvalues[*i]));
    Some((values, found.eigenvectors.select_columns(&order)))
}

/// `M (M^T M)^(-1/2)`: the matrix `[r, c]` with orthonormal columns that is nearest to `M`. `None` if the columns
/// of `M` are nearly dependent.
pub fn orthonormalised(matrix: &DMatrix<f64>) -> Option<DMatrix<f64>> {
    let (values, vectors) = eigen(matrix.transpose() * matrix)?;
    // Beyond that, what float64 leaves of the smallest eigenvalue is its rounding.
    if values.is_empty() || values[values.len() - 1] <= 1e-13 * values[0] {
        return None;
    }
    let scaled = scaled_columns(&vectors, |i| values[i].powf(-0.5));
    Some(matrix * (scaled * vectors.transpose()))
}

/// The columns times factors.
pub fn scaled_columns(matrix: &DMatrix<f64>, factor: impl Fn(usize) -> f64) -> DMatrix<f64> {
    let mut scaled = matrix.clone();
    scaled.column_iter_mut().enumerate().for_each(|(i, mut column)| column *= factor(i));
    scaled
}

/// The columns that complete orthonormal ones `[n, r]` to a basis: `[n, n - r]`, made of those of `seeds`
/// `[n, n - r]` by Gram and Schmidt's method.
pub fn complement(columns: &DMatrix<f64>, seeds: &DMatrix<f64>) -> DMatrix<f64> {
    let (n, r) = columns.shape();
    let mut both = DMatrix::zeros(n, n);
    both.columns_mut(0, r).copy_from(columns);
    both.columns_mut(r, n - r).copy_from(seeds);
    let (q, triangle) = both.qr().unpack();
    // With a positive diagonal in R the factorisation is unique.
    let sign = |i: usize| if triangle[(r + i, r + i)] < 0.0 { -1.0 } else { 1.0 };
    scaled_columns(&q.columns(r, n - r).into_owned(), sign)
}

/// The orthogonal matrix near one that is nearly orthogonal, by Newton's method.
pub fn polished(mut q: DMatrix<f64>) -> Option<DMatrix<f64>> {
    let n = q.nrows();
    for _ in 0..6 {
        let error = DMatrix::identity(n, n) - q.transpose() * &q;
        if !is_finite(&error) || error.amax() > 0.5 {
            return None;
        }
        if error.amax() < 1e-14 * (n as f64).sqrt() {
            return Some(q);
        }
        q += &q * error * 0.5;
    }
    None
}

/// An orthogonal matrix whose elements are of one size, or nearly: Hadamard's, where `n` is a power of two, and
/// that of the discrete cosine transform elsewhere.
pub fn even(n: usize) -> DMatrix<f64> {
    if n.is_power_of_two() {
        let scale = (n as f64).sqrt().recip();
        return DMatrix::from_fn(n, n, |i, j| if (i & j).count_ones() % 2 == 0 { scale } else { -scale });
    }
    DMatrix::from_fn(n, n, |i, j| {
        let scale = (if i == 0 { 1.0 } else { 2.0 } / n as f64).sqrt();
        scale * (std::f64::consts::PI * (j as f64 + 0.5) * i as f64 / n as f64).cos()
    })
}

/// Whether every element is.
pub fn is_finite(matrix: &DMatrix<f64>) -> bool {
    matrix.iter().all(|value| value.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(rows: usize, columns: usize) -> DMatrix<f64> {
        DMatrix::from_fn(rows, columns, |i, j| (1.3 * i as f64 + 2.1 * j as f64 + 0.7 * (i * j) as f64 + 0.4).sin())
    }

    fn off_identity(q: &DMatrix<f64>) -> f64 {
        (q.transpose() * q - DMatrix::identity(q.ncols(), q.ncols())).amax()
    }

    #[test]
    fn bases_are_orthonormal() {
        for n in 1..10 {
            assert!(off_identity(&even(n)) < 1e-14, "{n}");
        }
        for (rows, columns) in [(7, 3), (5, 5), (1, 1)] {
            let q = orthonormalised(&sample(rows, columns)).unwrap();
            assert!(off_identity(&q) < 1e-12);
            let rest = complement(&q, &sample(rows, rows - columns).map(|v| v + 0.1 * v * v));
            assert!(off_identity(&rest) < 1e-12 && (rows == columns || (q.transpose() * rest).amax() < 1e-12));
        }
        let near = even(6) + sample(6, 6) * 1e-3;
        assert!(off_identity(&polished(near).unwrap()) < 1e-13);
    }

    #[test]
    fn what_has_no_answer_is_none() {
        assert!(orthonormalised(&DMatrix::zeros(3, 2)).is_none());
        assert!(orthonormalised(&DMatrix::from_element(3, 2, 1.0)).is_none());
        assert!(eigen(DMatrix::from_element(2, 2, f64::NAN)).is_none());
        assert!(polished(DMatrix::zeros(2, 2)).is_none() && polished(DMatrix::from_element(2, 2, 1e300)).is_none());
    }

    #[test]
    fn eigenvalues_come_largest_first() {
        let (values, vectors) = eigen(DMatrix::from_diagonal(&DVector::from_vec(vec![1.0, 5.0, -2.0]))).unwrap();
        assert_eq!(values.as_slice(), [5.0, 1.0, -2.0]);
        assert_eq!(vectors[(1, 0)].abs(), 1.0);
    }
}
