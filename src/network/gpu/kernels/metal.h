// Metal's dialect of the kernels. One library has one element type, which QLNET_F32, QLNET_F16 or QLNET_BF16 names.
#include <metal_stdlib>
using namespace metal;

#if defined(QLNET_F32)
typedef float Element;
#define TYPE f32
#define WIDEST 4
#elif defined(QLNET_F16)
typedef half Element;
#define TYPE f16
#define WIDEST 8
#elif defined(QLNET_BF16) && defined(__HAVE_BFLOAT__)
typedef bfloat Element;
#define TYPE bf16
#define WIDEST 8
#elif defined(QLNET_BF16)
#error "this version of Metal has no bfloat"
#else
#error "QLNET_F32, QLNET_F16 or QLNET_BF16 must be defined"
#endif

#define DEVICE inline
#define GLOBAL device
#define UNROLL _Pragma("clang loop unroll(full)")
#define UNROLL_BY_8 _Pragma("clang loop unroll_count(8)")

// KERNEL(pool, _v, 4) is the kernel pool_f32_v4. Threadgroups have 256 threads, for which the compiler must find
// registers. The parameters are tensors, then sizes, then numbers; the last argument of each is the index of its
// buffer. THREAD ends the list.
#define PASTE(op, type, suffix, number) op##_##type##suffix##number
#define NAME(op, type, suffix, number) PASTE(op, type, suffix, number)
#define KERNEL(op, suffix, number) \
    [[kernel, max_total_threads_per_threadgroup(256)]] void NAME(op, TYPE, suffix, number)
#define INPUT(T, name, place) device const T *name [[buffer(place)]]
#define OUTPUT(T, name, place) device T *name [[buffer(place)]]
#define SIZE(name, place) constant uint &name [[buffer(place)]]
#define NUMBER(name, place) constant float &name [[buffer(place)]]
#define THREAD , uint thread_index [[thread_position_in_grid]]
#define THREAD_INDEX thread_index

DEVICE float widen(Element value) { return float(value); }

DEVICE Element narrow(float value) { return Element(value); }

// N neighbouring elements.
template <uint N> struct Pack {
    Element v[N];
};

// Four at a time where N is a multiple of 4: Metal's widest vectors.
template <uint N> DEVICE Pack<N> read_pack(device const Element *from) {
    Pack<N> values;
    if (N % 4 == 0) {
        UNROLL for (uint i = 0; i < N / 4; i++) {
            const vec<Element, 4> four = reinterpret_cast<device const vec<Element, 4> *>(from)[i];
            UNROLL for (uint j = 0; j < 4; j++) values.v[4 * i + j] = four[j];
        }
    } else {
        UNROLL for (uint i = 0; i < N; i++) values.v[i] = from[i];
    }
    return values;
}

template <uint N> DEVICE void write_pack(device Element *to, Pack<N> values) {
    if (N % 4 == 0) {
        UNROLL for (uint i = 0; i < N / 4; i++) {
            vec<Element, 4> four;
            UNROLL for (uint j = 0; j < 4; j++) four[j] = values.v[4 * i + j];
            reinterpret_cast<device vec<Element, 4> *>(to)[i] = four;
        }
    } else {
        UNROLL for (uint i = 0; i < N; i++) to[i] = values.v[i];
    }
}

// The value of the lane whose number differs in the bits of `mask`: within 32 lanes, however many more a simdgroup
// has.
DEVICE float shuffle_xor(float value, uint mask) { return simd_shuffle_xor(value, ushort(mask)); }
