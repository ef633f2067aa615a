// What the stem does besides its product: pixels to the network's input, the windows of its convolution side by side
// (so that the convolution is one product of matrices), and what follows that.

// Bytes [n] of red, green and blue in turn to (value / 255 - mean) / std, by the operations of the CPU.
KERNEL(pixels, , )(INPUT(unsigned char, x, 0), OUTPUT(Element, y, 1), SIZE(count, 2), NUMBER(mean0, 3),
                   NUMBER(mean1, 4), NUMBER(mean2, 5), NUMBER(std0, 6), NUMBER(std1, 7), NUMBER(std2, 8) THREAD) {
    const uint i = THREAD_INDEX;
    if (i >= count) return;
    const uint channel = i % 3;
    const float mean = channel == 0 ? mean0 : channel == 1 ? mean1 : mean2;
    const float deviation = channel == 0 ? std0 : channel == 1 ? std1 : std2;
    y[i] = narrow((float(x[i]) / 255.0f - mean) / deviation);
}

// x [n,h,w,3] -> y [n * oh * ow, 152]: the window of 7x7 pixels under every output of a convolution with stride 2 and
// padding 3, in the order row, column, channel, and zeros that make rows a multiple of 16 bytes. A thread writes 8
// values. The 21 values of a window's row are neighbours in x too.
KERNEL(windows, , )(INPUT(Element, x, 0), OUTPUT(Element, y, 1), SIZE(n, 2), SIZE(h, 3), SIZE(w, 4), SIZE(oh, 5),
                    SIZE(ow, 6) THREAD) {
    const uint SIDE = 7, ROW = 3 * SIDE, WINDOW = 152, EACH = 8;
    const uint part = THREAD_INDEX % (WINDOW / EACH) * EACH;
    const uint pixel = THREAD_INDEX / (WINDOW / EACH);
    const uint ox = pixel % ow, oy = pixel / ow % oh, image = pixel / ow / oh;
    if (image >= n) return;
    uint ky = part / ROW, along = part % ROW;
    Pack<EACH> values;
    UNROLL for (uint i = 0; i < EACH; i++) {
        // Above and left of the image these wrap round and are too large, as below and right of it.
        const uint iy = 2 * oy + ky - 3, column = 6 * ox + along - 9;
        const bool inside = ky < SIDE && iy < h && column < 3 * w;
        values.v[i] = inside ? x[(image * h + iy) * 3 * w + column] : narrow(0);
        along++;
        if (along == ROW) along = 0, ky++;
    }
    write_pack<EACH>(y + pixel * WINDOW + part, values);
}

// x [n,h,w,c], bias [c] -> y [n,oh,ow,c]: relu(x + bias), and its maximum over 3x3 pixels, stride 2, padding 1. The
// sum of the largest is the largest sum. Taps outside are moved to the nearest pixel inside, which is in the window
// anyway.
template <uint V>
DEVICE void pool(GLOBAL const Element *x, GLOBAL const Element *bias, GLOBAL Element *y, uint index, uint n, uint h,
                 uint w, uint c, uint oh, uint ow) {
    const uint channel = index % (c / V) * V;
    const uint pixel = index / (c / V);
    const uint ox = pixel % ow, oy = pixel / ow % oh, image = pixel / ow / oh;
    if (image >= n) return;
    const uint rows[3] = {oy > 0 ? 2 * oy - 1 : 0, 2 * oy, 2 * oy + 1 < h ? 2 * oy + 1 : h - 1};
    const uint columns[3] = {ox > 0 ? 2 * ox - 1 : 0, 2 * ox, 2 * ox + 1 < w ? 2 * ox + 1 : w - 1};
    Pack<V> taps[9];
    UNROLL for (uint tap = 0; tap < 9; tap++) {
        taps[tap] = read_pack<V>(x + ((image * h + rows[tap / 3]) * w + columns[tap % 3]) * c + channel);
    }
    Floats<V> out = load<V>(bias + channel);
    UNROLL for (uint i = 0; i < V; i++) {
        float largest = widen(taps[0].v[i]);
        UNROLL for (uint tap = 1; tap < 9; tap++) largest = fmax(largest, widen(taps[tap].v[i]));
        out.v[i] = fmax(largest + out.v[i], 0.0f);
    }
    store<V>(y + pixel * c + channel, out);
}

#define POOL(V)                                                                                              \
    KERNEL(pool, _v, V)(INPUT(Element, x, 0), INPUT(Element, bias, 1), OUTPUT(Element, y, 2), SIZE(n, 3),    \
                        SIZE(h, 4), SIZE(w, 5), SIZE(c, 6), SIZE(oh, 7), SIZE(ow, 8) THREAD) {               \
        pool<V>(x, bias, y, THREAD_INDEX, n, h, w, c, oh, ow);                                               \
    }
POOL(1)
POOL(WIDEST)
