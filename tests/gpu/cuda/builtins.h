// What nvcc knows by itself, as far as the kernels use it.
#pragma once
#include "host.h"

#define __global__
#define __device__
#define __forceinline__ inline
#define __restrict__
#define __launch_bounds__(threads)

struct Index {
    unsigned x;
};
static Index threadIdx, blockIdx;
static const Index blockDim = {256};

inline float __shfl_xor_sync(unsigned, float value, unsigned mask) { return host::warp().shuffle_xor(value, mask); }

using std::fmax;
using std::sqrt;
