// CUDA's float16, as far as the kernels use it.
#pragma once
#include "host.h"

struct __half {
    uint16_t bits;
};
inline float __half2float(__half value) { return host::from_half(value.bits); }
inline __half __float2half_rn(float value) { return {host::to_half(value)}; }
