//! From CIE L*a*b* under D50 to sRGB, as littleCMS does it for Pillow's `convert`: by a table of 33 steps along each
//! axis, between which it interpolates. An exact conversion would differ from that by 10 and more.

/// Nodes of the table along each axis.
const NODES: usize = 33;

/// RGB from 0 to 1 at the nodes. L* is the axis that changes slowest.
pub(super) struct Table(Vec<[f32; 3]>);

impl Table {
    /// Computes the nodes.
    pub(super) fn new() -> Self {
        let node = |index: usize| (index % NODES) as f32 / (NODES - 1) as f32;
        let colour = |index| {
            // The bytes 0 to 255 stand for L* from 0 to 100, and a* and b* from -128 to 127.
            let [lightness, a, b] = [index / NODES / NODES, index / NODES, index].map(node);
            to_rgb(100.0 * lightness, 255.0 * a - 128.0, 255.0 * b - 128.0)
        };
        Self((0..NODES.pow(3)).map(colour).collect())
    }

    /// Interpolates within a tetrahedron: from the node below along the axes in the order of their fractions
    /// (littleCMS, `TetrahedralInterp16`). TIFF has a* and b* as signed bytes.
    pub(super) fn rgb(&self, lightness: u8, a: u8, b: u8) -> [u8; 3] {
        // Along an axis whose nodes are `step` apart: the node below, and how far the colour lies above it.
        let place = |byte: u8, step: usize| {
            let place = f32::from(byte) * (NODES - 1) as f32 / 255.0;
            let below = place as usize;
            (below * step, (place - below as f32, step))
        };
        let places = [place(lightness, NODES * NODES), place(a ^ 0x80, NODES), place(b ^ 0x80, 1)];
        let mut node = places.iter().map(|(below, _)| below).sum::<usize>();
        let mut steps = places.map(|(_, step)| step);
        // The largest fraction first, and equal ones in the order of the axes. A sort of any length would take longer
        // than all the rest.
        for (one, other) in [(0, 1), (1, 2), (0, 1)] {
            if steps[one].0 < steps[other].0 {
                steps.swap(one, other);
            }
        }
        let mut colour = self.0[node];
        // At the upper end of an axis the fraction is 0, and there is no next node.
        for (fraction, step) in steps.into_iter().filter(|(fraction, _)| *fraction > 0.0) {
            let (from, to) = (self.0[node], self.0[node + step]);
            node += step;
            for channel in 0..3 {
                colour[channel] += (to[channel] - from[channel]) * fraction;
            }
        }
        colour.map(|value| (value * 255.0).round() as u8)
    }
}

fn to_rgb(lightness: f32, a: f32, b: f32) -> [f32; 3] {
    let y = (lightness + 16.0) / 116.0;
    let linear = |t: f32| if t > 6.0 / 29.0 { t.powi(3) } else { (t - 4.0 / 29.0) * 108.0 / 841.0 };
    let [x, y, z] = [linear(y + a / 500.0) * 0.9642, linear(y), linear(y - b / 200.0) * 0.8249];
    // From D50, by Bradford's adaptation, to the primaries of sRGB.
    [
        3.133_856 * x - 1.616_866_7 * y - 0.490_614_6 * z,
        -0.978_768_4 * x + 1.916_141_5 * y + 0.033_454 * z,
        0.071_945_3 * x - 0.228_991_4 * y + 1.405_242_7 * z,
    ]
    .map(|value: f32| {
        let value = value.clamp(0.0, 1.0);
        if value > 0.003_130_8 { 1.055 * value.powf(1.0 / 2.4) - 0.055 } else { 12.92 * value }
    })
}
