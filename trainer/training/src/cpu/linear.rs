//! The fully connected layer over 16 images: forward pass, backward pass and update.
//!
//! The forward pass and the input gradient are products with one vector of images for each feature. They share a kernel, which
//! reads the weight as stored or transposed. The weight gradient is a sum over images instead, so its vectors hold 16 inputs of
//! one image: the layer keeps a second, transposed copy of its inputs, in panels.

use super::simd::{Isa, Kernel, LANES, Lanes, Simd, sum_lanes};
use crate::adam::{self, Coefficients};

/// A block of 16 features of each of 16 images, `(image, feature)`.
pub type Panel = [Lanes; LANES];

/// Transposes features into panels, 16 at a time.
pub(super) struct Panels<'a> {
    /// `(IN, LANES)`; the last panel is padded with zeros.
    pub input: &'a [Lanes],
    /// `(IN / 16, image, feature)`, rounded up; overwritten.
    pub out: &'a mut [Panel],
}

impl Kernel for Panels<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (whole, rest) = self.input.as_chunks::<LANES>();
        let (out, last) = self.out.split_at_mut(whole.len());
        for (input, out) in whole.iter().zip(out) {
            s.transpose(input.each_ref(), out.each_mut());
        }
        if let [out] = last {
            let mut input = [[0.0; LANES]; LANES];
            for (input, from) in input.iter_mut().zip(rest) {
                s.store(s.load(from), input);
            }
            s.transpose(input.each_ref(), out.each_mut());
        }
    }
}

/// Computes `out[o] = bias[o] + Σ input[i] · weight[o][i]`, summed in ascending order of `i`, fused, for `G` groups of images
/// at once, so that each weight is loaded once for all of them.
pub(super) struct Linear<'a, const G: usize, const IN: usize, const OUT: usize> {
    /// `(OUT, IN)`
    pub weight: &'a [[f32; IN]; OUT],
    /// `(OUT)`
    pub bias: &'a [f32; OUT],
    /// The input of each group, `(IN, LANES)`, and its output, `(OUT, LANES)`, which is overwritten.
    pub groups: [(&'a [Lanes; IN], &'a mut [Lanes; OUT]); G],
}

/// Returns the number of outputs, up to `most`, that are computed together. It divides `outputs` if possible. Otherwise the
/// last tile overlaps the one before, and the size is the one that repeats the least work; of equally good ones the largest.
/// The size does not change any sum.
const fn tile(outputs: usize, most: usize) -> usize {
    if outputs <= most {
        return outputs;
    }
    // Smaller tiles could not hide the latency of the multiply-adds.
    let (mut best, mut size) = (most, most);
    while 2 * size >= most {
        if outputs.div_ceil(size) * size < outputs.div_ceil(best) * best {
            best = size;
        }
        size -= 1;
    }
    best
}

/// Runs `$call` with the constant `$size` set to the value of a constant expression in 1..=12.
macro_rules! with_tile {
    ($size:ident = $value:expr => $call:expr) => {
        with_tile!(@ $size $value, $call, 1 2 3 4 5 6 7 8 9 10 11 12)
    };
    (@ $size:ident $value:expr, $call:expr, $($n:literal)*) => {
        // For a given layer, the compiler removes all arms but one.
        match const { $value } {
            $($n => {
                const $size: usize = $n;
                $call
            })*
            _ => unreachable!("a tile has 1 to 12 outputs"),
        }
    };
}

impl<const G: usize, const IN: usize, const OUT: usize> Linear<'_, G, IN, OUT> {
    #[inline(always)]
    fn tiled<S: Simd, const T: usize>(mut self, s: S) {
        for first in (0..OUT).step_by(T).map(|first| first.min(OUT - T)) {
            let weight = self.weight[first..].first_chunk().expect("a tile");
            let bias = self.bias[first..].first_chunk().expect("a tile");
            if S::WIDE {
                outputs::<_, T, _, _, _>(s, weight, bias, &mut self.groups, first);
            } else {
                for group in &mut self.groups {
                    outputs::<_, T, _, _, _>(s, weight, bias, std::array::from_mut(group), first);
                }
            }
        }
    }
}

/// Computes a tile of `T` outputs of some groups.
#[inline(always)]
fn outputs<S: Simd, const T: usize, const G: usize, const IN: usize, const OUT: usize>(
    s: S,
    weight: &[[f32; IN]; T],
    bias: &[f32; T],
    groups: &mut [(&[Lanes; IN], &mut [Lanes; OUT]); G],
    first: usize,
) {
    let mut sums = [[s.splat(0.0); T]; G];
    for sums in &mut sums {
        for t in 0..T {
            sums[t] = s.splat(bias[t]);
        }
    }
    for i in 0..IN {
        let mut input = [s.splat(0.0); G];
        for g in 0..G {
            input[g] = s.load(&groups[g].0[i]);
        }
        for t in 0..T {
            let weight = s.splat(weight[t][i]);
            for g in 0..G {
                sums[g][t] = s.mul_add(input[g], weight, sums[g][t]);
            }
        }
    }
    for g in 0..G {
        let out: &mut [_; T] = groups[g].1[first..].first_chunk_mut().expect("a tile");
        for t in 0..T {
            s.store(sums[g][t], &mut out[t]);
        }
    }
}

impl<const G: usize, const IN: usize, const OUT: usize> Kernel for Linear<'_, G, IN, OUT> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        const { assert!(IN > 0 && OUT > 0) }
        if S::WIDE {
            with_tile!(T = tile(OUT, 12) => self.tiled::<S, T>(s));
        } else {
            with_tile!(T = tile(OUT, 6) => self.tiled::<S, T>(s));
        }
    }
}

/// Transposes a weight from `(OUT, IN)` to `(IN, OUT)`, so that [`Linear`] can compute a layer's input gradient from its output
/// gradient.
///
/// Without this, a tile of inputs would read a short run of weights in each row, and rows of 1024 bytes share a few sets of the
/// cache.
pub(super) fn turn<const IN: usize, const OUT: usize>(
    isa: Isa,
    weight: &[[f32; IN]; OUT],
    turned: &mut [[f32; OUT]; IN],
) {
    isa.run(TurnWeight { weight, turned });
}

struct TurnWeight<'a, const IN: usize, const OUT: usize> {
    weight: &'a [[f32; IN]; OUT],
    turned: &'a mut [[f32; OUT]; IN],
}

impl<const IN: usize, const OUT: usize> Kernel for TurnWeight<'_, IN, OUT> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        if IN < LANES || OUT < LANES {
            for (i, turned) in self.turned.iter_mut().enumerate() {
                *turned = std::array::from_fn(|o| self.weight[o][i]);
            }
            return;
        }
        // Blocks of 16 by 16; the last of a row or column overlaps the one before.
        for o in (0..OUT).step_by(LANES).map(|o| o.min(OUT - LANES)) {
            for i in (0..IN).step_by(LANES).map(|i| i.min(IN - LANES)) {
                let weight: &[[f32; IN]; LANES] = self.weight[o..].first_chunk().expect("a block");
                let turned: &mut [[f32; OUT]; LANES] =
                    self.turned[i..].first_chunk_mut().expect("a block");
                s.transpose(
                    weight
                        .each_ref()
                        .map(|row| row[i..].first_chunk().expect("a block")),
                    turned
                        .each_mut()
                        .map(|row| row[o..].first_chunk_mut().expect("a block")),
                );
            }
        }
    }
}

/// The data that a layer keeps of one group of images until its weights are updated.
#[derive(Clone, Copy, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub struct Kept<const PANELS: usize, const OUT: usize> {
    /// The layer's input, transposed.
    pub panels: [Panel; PANELS],
    /// The gradient of the layer's output, `(OUT, LANES)`; zero in lanes without an image.
    pub grad_out: [Lanes; OUT],
}

/// Some rows of a layer's weight, or their biases, and Adam's moments of them.
pub(super) struct Slots<'a, T> {
    pub params: &'a mut [T],
    pub moment1: &'a mut [T],
    pub moment2: &'a mut [T],
}

/// Computes the gradient of some rows of the weight and bias, and applies Adam to them.
///
/// # Numerics
/// The sums run over the images in order, fused. For a bias, each lane is summed over the groups, then the lanes are added
/// pairwise by halves.
pub(super) struct Update<'a, G, F, const IN: usize, const PANELS: usize, const OUT: usize> {
    /// The batch's groups, in order.
    pub groups: &'a [G],
    /// Returns the layer's part of a group.
    pub kept: F,
    /// The index of the first row.
    pub first: usize,
    pub adam: &'a Coefficients,
    pub weight: Slots<'a, [f32; IN]>,
    pub bias: Slots<'a, f32>,
}

/// The number of rows that are updated together; the last block of a layer may have fewer.
pub(super) const UPDATE_ROWS: usize = 12;

/// The number of panels whose gradients are kept at a time.
const AT_ONCE: usize = 16;

impl<G, F, const IN: usize, const PANELS: usize, const OUT: usize> Update<'_, G, F, IN, PANELS, OUT>
where
    F: Fn(&G) -> &Kept<PANELS, OUT>,
{
    /// Runs in tiles of `T` rows and `P` panels, and keeps the gradients of `A` panels at a time.
    #[inline(always)]
    fn tiled<S: Simd, const T: usize, const P: usize, const A: usize>(self, s: S) {
        const { assert!(PANELS == IN.div_ceil(LANES)) }
        let Self {
            groups,
            kept,
            first,
            adam,
            weight,
            bias,
        } = self;
        let rows = bias.params.len();
        assert!((T..=UPDATE_ROWS).contains(&rows));
        let mut grads = [[[0.0; LANES]; A]; UPDATE_ROWS];
        for start in (0..PANELS).step_by(A) {
            let end = PANELS.min(start + A);
            // A tile has `P` panels, so the last one may begin among those before it.
            let base = start.min(end - P);
            for panel in (start..end).step_by(P).map(|panel| panel.min(end - P)) {
                for tile in (0..rows).step_by(T).map(|tile| tile.min(rows - T)) {
                    let mut sums = [[s.splat(0.0); T]; P];
                    for group in groups {
                        let kept = kept(group);
                        let grad_out: &[Lanes; T] =
                            kept.grad_out[first + tile..].first_chunk().expect("T rows");
                        let panels: &[Panel; P] =
                            kept.panels[panel..].first_chunk().expect("P panels");
                        for n in 0..LANES {
                            let mut inputs = [s.splat(0.0); P];
                            for p in 0..P {
                                inputs[p] = s.load(&panels[p][n]);
                            }
                            for t in 0..T {
                                let grad = s.splat(grad_out[t][n]);
                                for p in 0..P {
                                    sums[p][t] = s.mul_add(inputs[p], grad, sums[p][t]);
                                }
                            }
                        }
                    }
                    for p in 0..P {
                        for t in 0..T {
                            s.store(sums[p][t], &mut grads[tile + t][panel - base + p]);
                        }
                    }
                }
            }
            let inputs = start * LANES..IN.min(end * LANES);
            let skipped = (start - base) * LANES;
            for (row, grads) in grads[..rows].iter().enumerate() {
                adam::update(
                    adam,
                    &mut weight.params[row][inputs.clone()],
                    &grads.as_flattened()[skipped..][..inputs.len()],
                    &mut weight.moment1[row][inputs.clone()],
                    &mut weight.moment2[row][inputs.clone()],
                );
            }
        }
        let mut grads = [0.0; UPDATE_ROWS];
        let rows = bias.params.len();
        for (row, grad) in grads[..rows].iter_mut().enumerate() {
            let mut sum = s.splat(0.0);
            for group in groups {
                sum = s.add(sum, s.load(&kept(group).grad_out[first + row]));
            }
            let mut lanes = [0.0; LANES];
            s.store(sum, &mut lanes);
            *grad = sum_lanes(lanes);
        }
        adam::update(
            adam,
            bias.params,
            &grads[..rows],
            bias.moment1,
            bias.moment2,
        );
    }
}

impl<G, F, const IN: usize, const PANELS: usize, const OUT: usize> Update<'_, G, F, IN, PANELS, OUT>
where
    F: Fn(&G) -> &Kept<PANELS, OUT>,
{
    /// Runs in tiles of `T` rows.
    #[inline(always)]
    fn rows<S: Simd, const T: usize>(self, s: S) {
        if const { S::WIDE && PANELS > 1 } {
            self.panels::<S, T, 2>(s);
        } else {
            self.panels::<S, T, 1>(s);
        }
    }

    /// Runs in tiles of `T` rows and `P` panels.
    #[inline(always)]
    fn panels<S: Simd, const T: usize, const P: usize>(self, s: S) {
        if const { PANELS <= AT_ONCE } {
            self.tiled::<S, T, P, PANELS>(s);
        } else {
            self.tiled::<S, T, P, AT_ONCE>(s);
        }
    }
}

impl<G, F, const IN: usize, const PANELS: usize, const OUT: usize> Kernel
    for Update<'_, G, F, IN, PANELS, OUT>
where
    F: Fn(&G) -> &Kept<PANELS, OUT>,
{
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        const { assert!(IN > 0 && OUT > 0) }
        let rows = self.bias.params.len();
        if const { OUT >= UPDATE_ROWS } && rows == UPDATE_ROWS {
            if S::WIDE {
                self.rows::<S, UPDATE_ROWS>(s);
            } else {
                self.rows::<S, { UPDATE_ROWS / 2 }>(s);
            }
            return;
        }
        assert!(rows == OUT % UPDATE_ROWS, "the last rows of the layer");
        if const { !OUT.is_multiple_of(UPDATE_ROWS) } {
            if S::WIDE {
                with_tile!(T = tile(OUT % UPDATE_ROWS, 12) => self.rows::<S, T>(s));
            } else {
                with_tile!(T = tile(OUT % UPDATE_ROWS, 6) => self.rows::<S, T>(s));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adam::Adam;
    use bytemuck::{zeroed_box, zeroed_vec};

    fn noise(values: &mut [f32], seed: u32) {
        let mut state = seed;
        values.fill_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        });
    }

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|value| value.to_bits()).collect()
    }

    /// Returns the group, which has no other part than the layer's.
    fn itself<const PANELS: usize, const OUT: usize>(
        group: &Kept<PANELS, OUT>,
    ) -> &Kept<PANELS, OUT> {
        group
    }

    /// Compares a layer's forward pass, backward pass and update with plain sums in f64.
    fn check<const IN: usize, const OUT: usize, const PANELS: usize>() {
        const GROUPS: usize = 2;
        let name = format!("{IN} to {OUT}");
        let mut weight: Box<[[f32; IN]; OUT]> = zeroed_box();
        let mut bias = [0.0; OUT];
        let mut inputs: [Box<[Lanes; IN]>; GROUPS] = std::array::from_fn(|_| zeroed_box());
        let mut grads_out: [Box<[Lanes; OUT]>; GROUPS] = std::array::from_fn(|_| zeroed_box());
        noise(weight.as_flattened_mut(), 1);
        noise(&mut bias, 2);
        for (seed, input) in (3..).zip(&mut inputs) {
            noise(input.as_flattened_mut(), seed);
        }
        for (seed, grad) in (5..).zip(&mut grads_out) {
            noise(grad.as_flattened_mut(), seed);
        }
        // Wide enough for the sums of either pass.
        let tolerance = 1e-6 * ((IN + OUT) as f64).sqrt().max(4.0);

        let mut before: Option<Vec<Vec<u32>>> = None;
        for isa in Isa::available() {
            let mut outs: [Box<[Lanes; OUT]>; GROUPS] = std::array::from_fn(|_| zeroed_box());
            let [first, second] = outs.each_mut();
            isa.run(Linear {
                weight: &weight,
                bias: &bias,
                groups: [(&*inputs[0], &mut **first), (&*inputs[1], &mut **second)],
            });
            let mut alone: Box<[Lanes; OUT]> = zeroed_box();
            isa.run(Linear {
                weight: &weight,
                bias: &bias,
                groups: [(&*inputs[1], &mut *alone)],
            });
            assert!(alone == outs[1], "{name} {isa:?}: a group alone");
            let mut turned: Box<[[f32; OUT]; IN]> = zeroed_box();
            turn(isa, &weight, &mut turned);
            let mut grad_input: Box<[Lanes; IN]> = zeroed_box();
            isa.run(Linear {
                weight: &turned,
                bias: &[0.0; IN],
                groups: [(&*grads_out[0], &mut *grad_input)],
            });
            let mut groups: Vec<Kept<PANELS, OUT>> = zeroed_vec(GROUPS);
            for ((kept, input), grad_out) in groups.iter_mut().zip(&inputs).zip(&grads_out) {
                kept.panels.as_flattened_mut().fill([f32::NAN; LANES]);
                isa.run(Panels {
                    input: &input[..],
                    out: &mut kept.panels,
                });
                kept.grad_out = **grad_out;
            }
            // With these coefficients, the update subtracts the gradient, and the first moment is a fixed share of it.
            let adam = Adam::default().coefficients(1);
            let mut params = weight.clone();
            let mut bias_params = bias;
            let mut moments: [Box<[[f32; IN]; OUT]>; 2] = std::array::from_fn(|_| zeroed_box());
            let mut bias_moments = [[0.0; OUT]; 2];
            for first in (0..OUT).step_by(UPDATE_ROWS) {
                let rows = first..OUT.min(first + UPDATE_ROWS);
                let [moment1, moment2] = &mut moments;
                let [bias_moment1, bias_moment2] = &mut bias_moments;
                isa.run(Update::<_, _, IN, PANELS, OUT> {
                    groups: &groups[..],
                    kept: itself::<PANELS, OUT>,
                    first,
                    adam: &adam,
                    weight: Slots {
                        params: &mut params[rows.clone()],
                        moment1: &mut moment1[rows.clone()],
                        moment2: &mut moment2[rows.clone()],
                    },
                    bias: Slots {
                        params: &mut bias_params[rows.clone()],
                        moment1: &mut bias_moment1[rows.clone()],
                        moment2: &mut bias_moment2[rows],
                    },
                });
            }
            let [outs0, outs1] = &outs;
            let all = [
                outs0.as_flattened(),
                outs1.as_flattened(),
                grad_input.as_flattened(),
                params.as_flattened(),
                moments[0].as_flattened(),
                moments[1].as_flattened(),
                &bias_params,
                bias_moments.as_flattened(),
            ]
            .map(bits)
            .to_vec();
            if let Some(before) = &before {
                assert!(*before == all, "{name}: {isa:?} has other bits");
                continue;
            }
            before = Some(all);

            for (input, out) in inputs.iter().zip(&outs) {
                for o in 0..OUT {
                    for n in 0..LANES {
                        let terms =
                            (0..IN).map(|i| f64::from(input[i][n]) * f64::from(weight[o][i]));
                        let error =
                            f64::from(out[o][n]) - (f64::from(bias[o]) + terms.sum::<f64>());
                        assert!(error.abs() < tolerance, "{name}: output {o}: {error:e}");
                    }
                }
            }
            for i in 0..IN {
                for n in 0..LANES {
                    let terms =
                        (0..OUT).map(|o| f64::from(grads_out[0][o][n]) * f64::from(weight[o][i]));
                    let error = f64::from(grad_input[i][n]) - terms.sum::<f64>();
                    assert!(error.abs() < tolerance, "{name}: by input {i}: {error:e}");
                }
                for o in 0..OUT {
                    let mut grad = 0.0;
                    for (input, grad_out) in inputs.iter().zip(&grads_out) {
                        for n in 0..LANES {
                            grad += f64::from(input[i][n]) * f64::from(grad_out[o][n]);
                        }
                    }
                    let error = f64::from(moments[0][o][i]) - f64::from(adam.keep1) * grad;
                    assert!(error.abs() < 1e-6, "{name}: by weight {o} {i}: {error:e}");
                    let moved = f64::from(params[o][i] - weight[o][i]);
                    assert!(
                        (moved + 1e-3 * grad.signum()).abs() < 1e-6 || grad.abs() < 1e-4,
                        "{name}: weight {o} {i} moved by {moved:e}"
                    );
                }
            }
            for o in 0..OUT {
                let grads = grads_out.iter().map(|grad| grad[o]);
                let grad: f64 = grads.flatten().map(f64::from).sum();
                let error = f64::from(bias_moments[0][o]) - f64::from(adam.keep1) * grad;
                assert!(error.abs() < 1e-6, "{name}: by bias {o}: {error:e}");
            }
        }
    }

    #[test]
    fn layers_of_every_size_match_their_definition() {
        check::<1, 12, 1>();
        check::<3, 1, 1>();
        check::<17, 26, 2>();
        check::<84, 10, 6>();
        check::<100, 64, 7>();
        check::<257, 7, 17>();
        check::<400, 43, 25>();
    }
}
