// CUDA's dialect for a host compiler: what candle's kernels and ours need of it, in front of their sources. The types
// __half, __nv_bfloat16 and __nv_fp8_e4m3 are those of CUDA's own headers, in their versions for the host.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <utility>

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include "machine.h"

// One block runs at a time wherever threads meet, and only there is memory shared.
#undef __shared__
#define __shared__ static
#undef __global__
#define __global__
#undef __launch_bounds__
#define __launch_bounds__(...)
#define __CUDA_ARCH__ 900

#define threadIdx (machine::here.thread)
#define blockIdx (machine::here.block)
#define blockDim (machine::here.block_size)
#define gridDim (machine::here.grid_size)

inline void __syncthreads() { machine::meet(); }
inline void __syncwarp(unsigned = 0) { machine::meet(); }

// Every thread puts its value down, all meet, each takes another's, and all meet again.
template <class T> T exchanged(T value, unsigned other) {
    static_assert(sizeof value <= sizeof *machine::lanes);
    memcpy(&machine::lanes[machine::here.number], &value, sizeof value);
    machine::meet();
    memcpy(&value, &machine::lanes[other], sizeof value);
    machine::meet();
    return value;
}
template <class T> T __shfl_xor_sync(unsigned, T value, int mask, int = 32) {
    return exchanged(value, machine::here.number ^ mask);
}
template <class T> T __shfl_down_sync(unsigned, T value, int distance, int = 32) {
    const unsigned self = machine::here.number;
    return exchanged(value, self % 32 + distance < 32 ? self + distance : self);
}

// candle's kernels add, and take the least and largest, of what several threads write: one thread runs at a time there.
template <class T, class V> T atomicAdd(T *at, V value) { T old = *at; *at = T(old + T(value)); return old; }
template <class T, class V> T atomicMin(T *at, V value) { T old = *at; if (T(value) < old) *at = T(value); return old; }
template <class T, class V> T atomicMax(T *at, V value) { T old = *at; if (T(value) > old) *at = T(value); return old; }
template <class T, class V, class W> T atomicCAS(T *at, V expected, W value) {
    T old = *at;
    if (old == T(expected)) *at = T(value);
    return old;
}

template <class To, class From> To bits(From value) { To to; memcpy(&to, &value, sizeof to); return to; }
inline unsigned __float_as_uint(float x) { return bits<unsigned>(x); }
inline int __float_as_int(float x) { return bits<int>(x); }
inline float __uint_as_float(unsigned x) { return bits<float>(x); }
inline float __int_as_float(int x) { return bits<float>(x); }
inline long long __double_as_longlong(double x) { return bits<long long>(x); }
inline double __longlong_as_double(long long x) { return bits<double>(x); }
inline float __fdiv_rn(float a, float b) { return a / b; }

#define HALVES(name, function) \
    inline __half name(__half x) { return __float2half(function(__half2float(x))); } \
    inline __nv_bfloat16 name(__nv_bfloat16 x) { return __float2bfloat16(function(__bfloat162float(x))); }
HALVES(hexp, expf)
HALVES(hlog, logf)
HALVES(hsin, sinf)
HALVES(hcos, cosf)
HALVES(hsqrt, sqrtf)
HALVES(hceil, ceilf)
HALVES(hfloor, floorf)

using std::isinf;
using std::isnan;
using std::signbit;
template <class A, class B> std::common_type_t<A, B> min(A a, B b) {
    using C = std::common_type_t<A, B>;
    return C(a) < C(b) ? C(a) : C(b);
}
template <class A, class B> std::common_type_t<A, B> max(A a, B b) {
    using C = std::common_type_t<A, B>;
    return C(a) > C(b) ? C(a) : C(b);
}
inline float normcdff(float x) { return 0.5f * erfcf(-x * float(M_SQRT1_2)); }
inline double normcdf(double x) { return 0.5 * erfc(-x * M_SQRT1_2); }
inline float rsqrtf(float x) { return 1 / sqrtf(x); }
inline double rsqrt(double x) { return 1 / sqrt(x); }
inline float __expf(float x) { return expf(x); }

// A kernel by its name: how to run one of its threads, or all of a block whose threads do not meet.
template <auto kernel> struct Registered;
template <class... A, void (*kernel)(A...)> struct Registered<kernel> {
    template <size_t... i> static void call(void **arguments, unsigned first, unsigned last, std::index_sequence<i...>) {
        for (unsigned number = first; number < last; number++) {
            machine::place(number);
            kernel(*static_cast<std::remove_cv_t<A> *>(arguments[i])...);
        }
    }
    static void run(void **arguments, unsigned first, unsigned last) {
        call(arguments, first, last, std::index_sequence_for<A...>());
    }
    // CUDA's rule: what a pointer points to is memory of the device, or nothing.
    template <size_t... i> static bool may_run(void **arguments, std::index_sequence<i...>) {
        return ((!std::is_pointer_v<A> || machine::is_allocated(*static_cast<void **>(arguments[i]))) && ...);
    }
    static bool check(void **arguments) { return may_run(arguments, std::index_sequence_for<A...>()); }
    explicit Registered(const char *name) { machine::add_kernel({name, run, check}); }
};
#define REGISTER(name) static Registered<&name> registered_##name(#name);
