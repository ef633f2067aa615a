// The hardball: rows of c values whose norm exceeds sqrt(c) are multiplied by sqrt(c) / norm; others stay as they are,
// exactly. A warp (simdgroup) takes a row, lane by lane V values, twice: the second time they come from the cache.

#define WARP 32u

// The sum over a warp, which all of its lanes get.
DEVICE float sum_over_warp(float value) {
    UNROLL for (uint mask = WARP / 2; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
    return value;
}

template <uint V> DEVICE float square_norm(Floats<V> part) {
    float sum = 0;
    UNROLL for (uint i = 0; i < V; i++) sum += part.v[i] * part.v[i];
    return sum;
}

// What a row is multiplied by, given each lane's part of the square of its norm.
DEVICE float factor_of(float part, uint c) {
    const float square = sum_over_warp(part);
    return square > float(c) ? sqrt(float(c) / square) : 1.0f;
}

template <uint V> DEVICE Floats<V> scaled(Floats<V> values, float factor) {
    UNROLL for (uint i = 0; i < V; i++) values.v[i] *= factor;
    return values;
}

// x [p,c] -> y [p,c].
template <uint V>
DEVICE void hardball(GLOBAL const Element *x, GLOBAL Element *y, uint index, uint p, uint c) {
    const uint row = index / WARP, first = index % WARP * V;
    if (row >= p) return;
    float part = 0;
    for (uint i = first; i < c; i += WARP * V) part += square_norm<V>(load<V>(x + row * c + i));
    const float factor = factor_of(part, c);
    for (uint i = first; i < c; i += WARP * V) {
        store<V>(y + row * c + i, scaled<V>(load<V>(x + row * c + i), factor));
    }
}

#define HARDBALL(V)                                                                                          \
    KERNEL(hardball, _v, V)(INPUT(Element, x, 0), OUTPUT(Element, y, 1), SIZE(p, 2), SIZE(c, 3) THREAD) {    \
        hardball<V>(x, y, THREAD_INDEX, p, c);                                                               \
    }
HARDBALL(1)
HARDBALL(WIDEST)

// V channels of the sum as `residual` writes it.
template <uint V>
DEVICE Floats<V> rounded_sum(GLOBAL const Element *y0, GLOBAL const Element *bias, GLOBAL const Element *x, uint at,
                             uint channel) {
    const Pack<V> pack = rounded<V>(sum_with_skip<V>(y0, bias, x, at, channel));
    Floats<V> sum;
    UNROLL for (uint i = 0; i < V; i++) sum.v[i] = widen(pack.v[i]);
    return sum;
}

// y0 [p,c], bias [c], x [p,c] -> y [p,c]: what `hardball` makes of what `residual` makes of them, to the bit.
template <uint V>
DEVICE void residual_hardball(GLOBAL const Element *y0, GLOBAL const Element *bias, GLOBAL const Element *x,
                              GLOBAL Element *y, uint index, uint p, uint c) {
    const uint row = index / WARP, first = index % WARP * V;
    if (row >= p) return;
    float part = 0;
    for (uint i = first; i < c; i += WARP * V) part += square_norm<V>(rounded_sum<V>(y0, bias, x, row * c + i, i));
    const float factor = factor_of(part, c);
    for (uint i = first; i < c; i += WARP * V) {
        store<V>(y + row * c + i, scaled<V>(rounded_sum<V>(y0, bias, x, row * c + i, i), factor));
    }
}

#define RESIDUAL_HARDBALL(V)                                                                                 \
    KERNEL(residual_hardball, _v, V)(INPUT(Element, y0, 0), INPUT(Element, bias, 1), INPUT(Element, x, 2),   \
                                     OUTPUT(Element, y, 3), SIZE(p, 4), SIZE(c, 5) THREAD) {                 \
        residual_hardball<V>(y0, bias, x, y, THREAD_INDEX, p, c);                                            \
    }
RESIDUAL_HARDBALL(1)
RESIDUAL_HARDBALL(WIDEST)

// x [n,p,c] -> y [n,c]: the mean over p. A thread adds up V channels, eight pixels under way at a time.
template <uint V>
DEVICE void mean(GLOBAL const Element *x, GLOBAL Element *y, uint index, uint n, uint p, uint c) {
    const uint channel = index % (c / V) * V;
    const uint image = index / (c / V);
    if (image >= n) return;
    Floats<V> sum = zeros<V>();
    UNROLL_BY_8 for (uint pixel = 0; pixel < p; pixel++) {
        const Floats<V> value = load<V>(x + (image * p + pixel) * c + channel);
        UNROLL for (uint i = 0; i < V; i++) sum.v[i] += value.v[i];
    }
    store<V>(y + index * V, scaled<V>(sum, 1.0f / float(p)));
}

#define MEAN(V)                                                                                              \
    KERNEL(mean, _v, V)(INPUT(Element, x, 0), OUTPUT(Element, y, 1), SIZE(n, 2), SIZE(p, 3),                 \
                        SIZE(c, 4) THREAD) {                                                                 \
        mean<V>(x, y, THREAD_INDEX, n, p, c);                                                                \
    }
MEAN(1)
MEAN(WIDEST)
