// What both dialects need on a host: the half types, and lanes that hand values to each other.
#pragma once
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

namespace host {

template <typename To, typename From> To bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "bits of another size");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}

// Float16 to float32, exactly.
inline float from_half(uint16_t half) {
    const uint32_t sign = (half & 0x8000u) << 16, exponent = half >> 10 & 31, fraction = half & 1023;
    if (exponent == 0) return (sign ? -1.0f : 1.0f) * std::ldexp(float(fraction), -24);
    const uint32_t wide = exponent == 31 ? 255 : exponent + 112;
    return bits<float>(sign | wide << 23 | fraction << 13);
}

// Float32 to float16: to the nearest, ties to even.
inline uint16_t to_half(float value) {
    const uint32_t all = bits<uint32_t>(value), sign = all >> 16 & 0x8000, size = all & 0x7fffffff;
    if (size > 0x7f800000) return uint16_t(sign | 0x7e00);
    if (size >= 0x47800000) return uint16_t(sign | 0x7c00);
    // The sum with 0.5, whose last bit is worth 2^-24 as that of a subnormal, rounds to such bits.
    if (size < 0x38800000) return uint16_t(sign | (bits<uint32_t>(bits<float>(size) + 0.5f) - bits<uint32_t>(0.5f)));
    return uint16_t(sign | (size + 0xfff + (size >> 13 & 1) - 0x38000000) >> 13);
}

inline float from_bfloat(uint16_t value) { return bits<float>(uint32_t(value) << 16); }

// Float32 to bfloat16: to the nearest, ties to even.
inline uint16_t to_bfloat(float value) {
    const uint32_t all = bits<uint32_t>(value);
    return std::isnan(value) ? uint16_t(0x7fff) : uint16_t((all + 0x7fff + (all >> 16 & 1)) >> 16);
}

// The lanes of a warp run one after another, so that a lane cannot know what those after it will give. The whole warp
// therefore runs again until all know everything: what was given at a shuffle is right once the values of all earlier
// ones are. Until then lanes compute with wrong values, and write results that later runs replace.
class Warp {
public:
    static const unsigned LANES = 32;

    float shuffle_xor(float value, unsigned mask) {
        if (mask == 0 || mask >= LANES) fail("a shuffle with a lane outside of its warp");
        const size_t here = made++;
        if (here == now.size()) now.emplace_back();
        now[here][lane] = value;
        return here < before.size() ? before[here][lane ^ mask] : value;
    }

    template <typename Run> void run(Run run_lane) {
        before.clear();
        for (size_t round = 0;; round++) {
            now.clear();
            for (lane = 0; lane < LANES; lane++) {
                made = 0;
                run_lane(lane);
                if (made != now.size()) fail("lanes of a warp that make different numbers of shuffles");
            }
            if (round >= now.size()) return;
            before = now;
        }
    }

private:
    [[noreturn]] static void fail(const char *what) {
        fprintf(stderr, "%s\n", what);
        abort();
    }

    unsigned lane = 0;
    size_t made = 0;
    std::vector<std::array<float, LANES>> now, before;
};

inline Warp &warp() {
    static Warp warp;
    return warp;
}

}  // namespace host
