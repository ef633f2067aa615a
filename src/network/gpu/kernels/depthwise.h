// The gate and the depthwise 3x3 convolution of what it makes, padding 1: x [n,h,w,2c], weight [9,filters,c],
// biases [2c + filters * c], the gate's first -> y [n,oh,ow,filters * c], where filter k of channel i makes channel
// k * c + i.
//
// A thread computes F filters of V channels of 4 neighbouring outputs, so that each pixel of a row is read once for all
// taps, outputs and filters. The pixels of a row are all under way before the first is needed. Other threads make the same
// products of halves, which takes less time than writing them and reading them back.
template <uint V> DEVICE Floats<V> gated(Floats<V> a, Floats<V> b, Floats<V> bias_a, Floats<V> bias_b) {
    UNROLL for (uint i = 0; i < V; i++) a.v[i] = (a.v[i] + bias_a.v[i]) * (b.v[i] + bias_b.v[i]);
    return a;
}

template <uint F, uint S, uint V>
DEVICE void depthwise(GLOBAL const Element *x, GLOBAL const Element *weight, GLOBAL const Element *biases,
                      GLOBAL Element *y, uint index, uint n, uint h, uint w, uint c, uint oh, uint ow,
                      uint filters) {
    const uint SPAN = 4, COLUMNS = (SPAN - 1) * S + 3;
    const uint spans = (ow + SPAN - 1) / SPAN;
    const uint channel = index % (c / V) * V;
    uint rest = index / (c / V);
    uint filter = 0;
    if (filters > F) {
        filter = rest % (filters / F) * F;
        rest /= filters / F;
    }
    const uint ox = rest % spans * SPAN, oy = rest / spans % oh, image = rest / spans / oh;
    if (image >= n) return;

    // Steps from pixel to pixel and from tap to tap, signed: to the left of the first pixel they go back.
    const int half = int(c), pixel = 2 * half, output = int(filters * c);
    weight += filter * c + channel;
    y += ((image * oh + oy) * ow + ox) * filters * c + filter * c + channel;

    // Whether all columns are inside.
    const bool whole = ox > 0 && ox * S + COLUMNS - 1 <= w;

    const Floats<V> bias_a = load<V>(biases + channel), bias_b = load<V>(biases + c + channel);
    GLOBAL const Element *bias = biases + 2 * c;
    float sum[SPAN][F][V];
    UNROLL for (uint k = 0; k < F; k++) {
        const Floats<V> first = load<V>(bias + filter * c + channel + int(k) * half);
        UNROLL for (uint s = 0; s < SPAN; s++) {
            UNROLL for (uint i = 0; i < V; i++) sum[s][k][i] = first.v[i];
        }
    }

    UNROLL for (uint ky = 0; ky < 3; ky++) {
        // Row and columns before the first wrap round and are too large, as those behind the last.
        const uint iy = oy * S + ky - 1;
        if (iy >= h) continue;
        GLOBAL const Element *row = x + ((image * h + iy) * w + ox * S) * 2 * c + channel;
        Floats<V> pixels[COLUMNS], others[COLUMNS];
        if (whole) {
            UNROLL for (uint column = 0; column < COLUMNS; column++) {
                pixels[column] = load<V>(row + (int(column) - 1) * pixel);
                others[column] = load<V>(row + (int(column) - 1) * pixel + half);
            }
            UNROLL for (uint column = 0; column < COLUMNS; column++) {
                pixels[column] = gated<V>(pixels[column], others[column], bias_a, bias_b);
            }
        } else {
            UNROLL for (uint column = 0; column < COLUMNS; column++) {
                const bool inside = ox * S + column - 1 < w;
                GLOBAL const Element *at = row + (int(column) - 1) * pixel;
                pixels[column] = inside ? gated<V>(load<V>(at), load<V>(at + half), bias_a, bias_b) : zeros<V>();
            }
        }
        UNROLL for (uint kx = 0; kx < 3; kx++) {
            UNROLL for (uint k = 0; k < F; k++) {
                const Floats<V> tap = load<V>(weight + int(3 * ky + kx) * output + int(k) * half);
                UNROLL for (uint s = 0; s < SPAN; s++) {
                    UNROLL for (uint i = 0; i < V; i++) sum[s][k][i] += pixels[s * S + kx].v[i] * tap.v[i];
                }
            }
        }
    }

    UNROLL for (uint s = 0; s < SPAN; s++) {
        if (ox + s < ow) {
            UNROLL for (uint k = 0; k < F; k++) {
                Floats<V> out;
                UNROLL for (uint i = 0; i < V; i++) out.v[i] = sum[s][k][i];
                store<V>(y + int(s) * output + int(k) * half, out);
            }
        }
    }
}

#define DEPTHWISE(F, S, V)                                                                                   \
    KERNEL(depthwise, _f##F##_s##S##_v, V)(INPUT(Element, x, 0), INPUT(Element, weight, 1),                  \
                                           INPUT(Element, biases, 2), OUTPUT(Element, y, 3), SIZE(n, 4),     \
                                           SIZE(h, 5), SIZE(w, 6), SIZE(c, 7), SIZE(oh, 8), SIZE(ow, 9),     \
                                           SIZE(filters, 10) THREAD) {                                       \
        depthwise<F, S, V>(x, weight, biases, y, THREAD_INDEX, n, h, w, c, oh, ow, filters);                 \
    }
DEPTHWISE(1, 1, 1)
DEPTHWISE(1, 1, 4)
DEPTHWISE(1, 2, 1)
DEPTHWISE(1, 2, 4)
DEPTHWISE(2, 1, 1)
DEPTHWISE(2, 1, 4)
DEPTHWISE(2, 2, 1)
DEPTHWISE(2, 2, 4)
