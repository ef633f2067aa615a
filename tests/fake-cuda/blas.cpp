// A libcublas.so with the matrix products that candle calls, on the host, in tiles and on all processors.
#include <cublas_v2.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstring>
#include <vector>

#include "machine.h"

extern "C" bool fake_cuda_gemm(const void *a, size_t a_bytes, const void *b, size_t b_bytes, void *c, size_t c_bytes);

namespace {

float widened(float x) { return x; }
double widened(double x) { return x; }
float widened(__half x) { return __half2float(x); }
float widened(__nv_bfloat16 x) { return __bfloat162float(x); }
void narrow(float &to, float x) { to = x; }
void narrow(double &to, double x) { to = x; }
void narrow(__half &to, float x) { to = __float2half(x); }
void narrow(__nv_bfloat16 &to, float x) { to = __float2bfloat16(x); }

// To TF32: ten bits of fraction, to the nearest.
float rounded_to_tf32(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits = (bits + 0xfff + (bits >> 13 & 1)) & ~0x1fffu;
    memcpy(&x, &bits, sizeof x);
    return x;
}
double rounded_to_tf32(double x) { return x; }

// C = alpha A B + beta C for a batch, in cuBLAS's terms: columns are contiguous, `transposed` ones are rows.
template <class T, class Sum> struct Product {
    bool transposed_a, transposed_b, tf32;
    int m, n, k;
    Sum alpha, beta;
    const T *a, *b;
    T *c;
    long lda, ldb, ldc;
    long long stride_a, stride_b, stride_c;
    int batch;

    static const int ROWS = 64, COLUMNS = 4, CHUNK = 64;
    int row_panels() const { return (m + ROWS - 1) / ROWS; }
    int column_chunks() const { return (n + CHUNK - 1) / CHUNK; }

    Sum read(const T *from, bool transposed, long ld, int row, int column) const {
        const Sum value = widened(transposed ? from[row * ld + column] : from[column * ld + row]);
        return tf32 ? rounded_to_tf32(value) : value;
    }

    // A tile of 64 rows and up to 64 columns of one product.
    void tile(size_t number) const {
        const int panel = number % row_panels(), chunk = number / row_panels() % column_chunks();
        const size_t index = number / row_panels() / column_chunks();
        const T *a = this->a + index * stride_a, *b = this->b + index * stride_b;
        T *c = this->c + index * stride_c;
        const int first_row = panel * ROWS, rows = std::min(ROWS, m - first_row);
        std::vector<Sum> packed(size_t(k) * ROWS), column(size_t(k) * COLUMNS);
        for (int p = 0; p < k; p++)
            for (int i = 0; i < rows; i++) packed[size_t(p) * ROWS + i] = read(a, transposed_a, lda, first_row + i, p);
        for (int j = chunk * CHUNK; j < std::min(n, (chunk + 1) * CHUNK); j += COLUMNS) {
            const int columns = std::min(COLUMNS, n - j);
            for (int p = 0; p < k; p++)
                for (int q = 0; q < columns; q++) column[size_t(p) * COLUMNS + q] = read(b, transposed_b, ldb, p, j + q);
            Sum sums[COLUMNS][ROWS] = {};
            for (int p = 0; p < k; p++)
                for (int q = 0; q < COLUMNS; q++)
                    for (int i = 0; i < ROWS; i++) sums[q][i] += packed[size_t(p) * ROWS + i] * column[size_t(p) * COLUMNS + q];
            for (int q = 0; q < columns; q++)
                for (int i = 0; i < rows; i++) {
                    T &to = c[(j + q) * ldc + first_row + i];
                    narrow(to, alpha * sums[q][i] + (beta == 0 ? Sum(0) : beta * widened(to)));
                }
        }
    }

    // Bytes from the first to the last element that is read of a matrix of all products.
    size_t bytes(long ld, long long stride, int rows, int columns) const {
        return ((batch - 1) * stride + (columns - 1) * ld + rows) * sizeof(T);
    }

    cublasStatus_t run() const {
        if (m <= 0 || n <= 0 || batch <= 0) return CUBLAS_STATUS_SUCCESS;
        const size_t a_bytes = bytes(lda, stride_a, transposed_a ? k : m, transposed_a ? m : k);
        const size_t b_bytes = bytes(ldb, stride_b, transposed_b ? n : k, transposed_b ? k : n);
        if (!fake_cuda_gemm(a, a_bytes, b, b_bytes, c, bytes(ldc, stride_c, m, n))) return CUBLAS_STATUS_EXECUTION_FAILED;
        machine::in_parallel(size_t(row_panels()) * column_chunks() * batch,
                             [](size_t number, void *self) { static_cast<Product *>(self)->tile(number); },
                             const_cast<Product *>(this));
        return CUBLAS_STATUS_SUCCESS;
    }
};

}  // namespace

extern "C" {

cublasStatus_t cublasCreate_v2(cublasHandle_t *handle) { return *handle = cublasHandle_t(1), CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasDestroy_v2(cublasHandle_t) { return CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasSetStream_v2(cublasHandle_t, cudaStream_t) { return CUBLAS_STATUS_SUCCESS; }

cublasStatus_t cublasDgemmStridedBatched(cublasHandle_t, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k,
                                         const double *alpha, const double *a, int lda, long long stride_a, const double *b,
                                         int ldb, long long stride_b, const double *beta, double *c, int ldc,
                                         long long stride_c, int batch) {
    return Product<double, double>{ta != 0, tb != 0, false, m, n, k, *alpha, *beta, a, b, c, lda, ldb, ldc,
                                   stride_a, stride_b, stride_c, batch}.run();
}

cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k,
                                          const void *alpha, const void *a, cudaDataType type, int lda, long long stride_a,
                                          const void *b, cudaDataType type_b, int ldb, long long stride_b, const void *beta,
                                          void *c, cudaDataType type_c, int ldc, long long stride_c, int batch,
                                          cublasComputeType_t compute, cublasGemmAlgo_t) {
    if (type != type_b || type != type_c) return CUBLAS_STATUS_NOT_SUPPORTED;
    // Alpha and beta are in the type of the sums.
    const bool tf32 = compute == CUBLAS_COMPUTE_32F_FAST_TF32;
    if (!tf32 && compute != CUBLAS_COMPUTE_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
    const float x = *static_cast<const float *>(alpha), y = *static_cast<const float *>(beta);
    auto run = [&](auto element) {
        using T = decltype(element);
        return Product<T, float>{ta != 0, tb != 0, tf32, m, n, k, x, y, static_cast<const T *>(a),
                                 static_cast<const T *>(b), static_cast<T *>(c), lda, ldb, ldc,
                                 stride_a, stride_b, stride_c, batch}.run();
    };
    switch (type) {
        case CUDA_R_32F: return run(float());
        case CUDA_R_16F: return run(__half());
        case CUDA_R_16BF: return run(__nv_bfloat16());
        default: return CUBLAS_STATUS_NOT_SUPPORTED;
    }
}

}  // extern "C"
