// CUDA's bfloat16, as far as the kernels use it.
#pragma once
#include "host.h"

struct __nv_bfloat16 {
    uint16_t bits;
};
inline float __bfloat162float(__nv_bfloat16 value) { return host::from_bfloat(value.bits); }
inline __nv_bfloat16 __float2bfloat16_rn(float value) { return {host::to_bfloat(value)}; }
