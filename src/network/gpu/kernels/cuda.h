// CUDA's dialect of the kernels. One module has one element type, which QLNET_F32, QLNET_F16 or QLNET_BF16 names.

#if defined(QLNET_F32)
typedef float Element;
#define TYPE f32
#define WIDEST 4
#elif defined(QLNET_F16)
#include <cuda_fp16.h>
typedef __half Element;
#define TYPE f16
#define WIDEST 8
#elif defined(QLNET_BF16)
#include <cuda_bf16.h>
typedef __nv_bfloat16 Element;
#define TYPE bf16
#define WIDEST 8
#else
#error "QLNET_F32, QLNET_F16 or QLNET_BF16 must be defined"
#endif

typedef unsigned int uint;

#define DEVICE __device__ __forceinline__
#define GLOBAL
#define UNROLL _Pragma("unroll")
#define UNROLL_BY_8 _Pragma("unroll 8")

// KERNEL(pool, _v, 4) is the kernel pool_f32_v4. Blocks have 256 threads, for which the compiler must find registers.
// The parameters are tensors, then sizes, then numbers; the last argument of each is its place among them. THREAD ends
// the list.
#define PASTE(op, type, suffix, number) op##_##type##suffix##number
#define NAME(op, type, suffix, number) PASTE(op, type, suffix, number)
#define KERNEL(op, suffix, number) \
    extern "C" __global__ void __launch_bounds__(256) NAME(op, TYPE, suffix, number)
#define INPUT(T, name, place) const T *__restrict__ name
#define OUTPUT(T, name, place) T *__restrict__ name
#define SIZE(name, place) uint name
#define NUMBER(name, place) float name
#define THREAD
#define THREAD_INDEX (blockIdx.x * blockDim.x + threadIdx.x)

DEVICE float widen(Element value) {
#if defined(QLNET_F32)
    return value;
#elif defined(QLNET_F16)
    return __half2float(value);
#else
    return __bfloat162float(value);
#endif
}

// To the nearest, ties to even.
DEVICE Element narrow(float value) {
#if defined(QLNET_F32)
    return value;
#elif defined(QLNET_F16)
    return __float2half_rn(value);
#else
    return __float2bfloat16_rn(value);
#endif
}

// N neighbouring elements: aligned, so that the compiler moves them in accesses of up to 16 bytes.
template <uint N> struct alignas(sizeof(Element) * N < 16 ? sizeof(Element) * N : 16) Pack {
    Element v[N];
};

template <uint N> DEVICE Pack<N> read_pack(const Element *from) { return *reinterpret_cast<const Pack<N> *>(from); }

template <uint N> DEVICE void write_pack(Element *to, Pack<N> values) { *reinterpret_cast<Pack<N> *>(to) = values; }

// The value of the lane of the same warp whose number differs in the bits of `mask`.
DEVICE float shuffle_xor(float value, uint mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }
