// candle's kernels for quantised models, which this program never runs: without them it is smaller, and needs no
// libcudart, which their fatbins would register themselves with before `main`.
//
// Linked into our own programs only (`src/main.rs`), before candle-kernels' libmoe.a, from which the linker then takes
// nothing. Crates that depend on the library have candle's own. These are all functions of candle-kernels' ffi.rs; were
// one missing, libmoe.a would come in again, and `scripts/build-cuda.sh` would find libcudart among what is needed.

#include <stdio.h>
#include <stdlib.h>

#define MISSING(name) \
    void name(void) { \
        fputs("qlnet: " #name " is left out of this program: it runs no quantised models\n", stderr); \
        abort(); \
    }

#define KINDS(S, suffix) \
    S(q4_0##suffix) S(q4_1##suffix) S(q5_0##suffix) S(q5_1##suffix) S(q8_0##suffix) \
    S(q2_k##suffix) S(q3_k##suffix) S(q4_k##suffix) S(q5_k##suffix) S(q6_k##suffix)
#define VECTOR(kind) MISSING(launch_mmvq_gguf_##kind)
#define MATRIX(kind) MISSING(launch_mmq_gguf_##kind)

KINDS(VECTOR, _bf16_plain)
KINDS(VECTOR, _f32_plain)
KINDS(VECTOR, _f16_plain)
KINDS(MATRIX, )
VECTOR(quantize_q8_1_bf16)
VECTOR(quantize_q8_1_f16)
VECTOR(quantize_q8_1_f32)
MISSING(launch_mmq_quantize_q8_1_D4)
MISSING(launch_mmq_quantize_q8_1_DS4)
MISSING(launch_mmq_quantize_q8_1_D2S6)
MISSING(moe_gemm_wmma)
MISSING(moe_gemm_gguf)
MISSING(moe_gemm_gguf_prefill)
