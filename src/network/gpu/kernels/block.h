// What a block does besides its products, the gate and the depthwise convolution.

// V channels of y0 + bias + x, from element `at` on.
template <uint V>
DEVICE Floats<V> sum_with_skip(GLOBAL const Element *y0, GLOBAL const Element *bias, GLOBAL const Element *x, uint at,
                               uint channel) {
    Floats<V> sum = load<V>(y0 + at);
    const Floats<V> skip = load<V>(x + at), constant_part = load<V>(bias + channel);
    UNROLL for (uint i = 0; i < V; i++) sum.v[i] = sum.v[i] + constant_part.v[i] + skip.v[i];
    return sum;
}

// y0 [p,c], bias [c], x [p,c] -> y [p,c] = y0 + bias + x.
template <uint V>
DEVICE void residual(GLOBAL const Element *y0, GLOBAL const Element *bias, GLOBAL const Element *x, GLOBAL Element *y,
                     uint index, uint p, uint c) {
    const uint channel = index % (c / V) * V;
    if (index / (c / V) >= p) return;
    store<V>(y + index * V, sum_with_skip<V>(y0, bias, x, index * V, channel));
}

#define RESIDUAL(V)                                                                                          \
    KERNEL(residual, _v, V)(INPUT(Element, y0, 0), INPUT(Element, bias, 1), INPUT(Element, x, 2),            \
                            OUTPUT(Element, y, 3), SIZE(p, 4), SIZE(c, 5) THREAD) {                          \
        residual<V>(y0, bias, x, y, THREAD_INDEX, p, c);                                                     \
    }
RESIDUAL(1)
RESIDUAL(WIDEST)

// x [n,h,w,c] -> y [n,oh,ow,c]: every stride-th row and column.
template <uint V>
DEVICE void subsample(GLOBAL const Element *x, GLOBAL Element *y, uint index, uint n, uint h, uint w, uint c, uint oh,
                      uint ow, uint stride) {
    const uint channel = index % (c / V) * V;
    const uint pixel = index / (c / V);
    const uint ox = pixel % ow, oy = pixel / ow % oh, image = pixel / ow / oh;
    if (image >= n) return;
    write_pack<V>(y + index * V, read_pack<V>(x + ((image * h + oy * stride) * w + ox * stride) * c + channel));
}

#define SUBSAMPLE(V)                                                                                         \
    KERNEL(subsample, _v, V)(INPUT(Element, x, 0), OUTPUT(Element, y, 1), SIZE(n, 2), SIZE(h, 3),            \
                             SIZE(w, 4), SIZE(c, 5), SIZE(oh, 6), SIZE(ow, 7), SIZE(stride, 8) THREAD) {     \
        subsample<V>(x, y, THREAD_INDEX, n, h, w, c, oh, ow, stride);                                        \
    }
SUBSAMPLE(1)
SUBSAMPLE(WIDEST)
