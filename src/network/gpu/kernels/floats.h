// Elements as the float32 that everything is computed in. What a kernel computes is rounded once, where it is written.

template <uint N> struct Floats {
    float v[N];
};

// From an address that is a multiple of N elements.
template <uint N> DEVICE Floats<N> load(GLOBAL const Element *from) {
    const Pack<N> pack = read_pack<N>(from);
    Floats<N> wide;
    UNROLL for (uint i = 0; i < N; i++) wide.v[i] = widen(pack.v[i]);
    return wide;
}

template <uint N> DEVICE Floats<N> zeros() {
    Floats<N> none;
    UNROLL for (uint i = 0; i < N; i++) none.v[i] = 0;
    return none;
}

template <uint N> DEVICE Pack<N> rounded(Floats<N> wide) {
    Pack<N> pack;
    UNROLL for (uint i = 0; i < N; i++) pack.v[i] = narrow(wide.v[i]);
    return pack;
}

template <uint N> DEVICE void store(GLOBAL Element *to, Floats<N> wide) { write_pack<N>(to, rounded<N>(wide)); }
