//! The fully connected layer over sixteen images, forward and back.
//!
//! Forward and the gradient by the input are products with one vector of images for each feature: the same kernel, with
//! the weight as it lies or turned. The gradient by the weights is summed over images instead, so there the vector is
//! sixteen inputs of one image: the inputs are kept a second time, turned into panels.

use super::simd::{Isa, Kernel, LANES, Lanes, Simd, sum_lanes};
use crate::adam::{self, Coefficients};

/// Sixteen features of each of sixteen images, `(image, feature)`.
pub(super) type Panel = [Lanes; LANES];

/// Turns features into panels, sixteen at a time.
pub(super) struct Panels<'a> {
    /// `(IN, LANES)`, at least; what does not fill a panel is followed by anything finite.
    pub input: &'a [Lanes],
    /// `(IN / 16, image, feature)`, rounded up; overwritten.
    pub out: &'a mut [Panel],
}

impl Kernel for Panels<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (input, out) in self.input.as_chunks::<LANES>().0.iter().zip(self.out) {
            s.transpose(input.each_ref(), out.each_mut());
        }
    }
}

/// `out[o] = bias[o] + Σ input[i] · weight[o][i]`, summed upward in `i`, fused; for `G` groups of images at once, so that
/// each weight is loaded once for all of them.
pub(super) struct Linear<'a, const G: usize, const IN: usize, const OUT: usize> {
    /// `(OUT, IN)`
    pub weight: &'a [[f32; IN]; OUT],
    /// `(OUT)`
    pub bias: &'a [f32; OUT],
    /// Of each group the input, `(IN, LANES)`, and the output, `(OUT, LANES)`, which is overwritten.
    pub groups: [(&'a [Lanes; IN], &'a mut [Lanes; OUT]); G],
}

impl<const G: usize, const IN: usize, const OUT: usize> Linear<'_, G, IN, OUT> {
    #[inline(always)]
    fn tiled<S: Simd, const T: usize>(mut self, s: S) {
        let weights = self.weight.as_chunks::<T>().0.iter();
        for (tile, (weight, bias)) in weights.zip(self.bias.as_chunks::<T>().0).enumerate() {
            if S::WIDE {
                outputs(s, weight, bias, &mut self.groups, tile);
            } else {
                for group in &mut self.groups {
                    outputs(s, weight, bias, std::array::from_mut(group), tile);
                }
            }
        }
    }
}

/// A tile of `T` outputs of some groups.
#[inline(always)]
fn outputs<S: Simd, const T: usize, const G: usize, const IN: usize, const OUT: usize>(
    s: S,
    weight: &[[f32; IN]; T],
    bias: &[f32; T],
    groups: &mut [(&[Lanes; IN], &mut [Lanes; OUT]); G],
    tile: usize,
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
        let out = &mut groups[g].1.as_chunks_mut::<T>().0[tile];
        for t in 0..T {
            s.store(sums[g][t], &mut out[t]);
        }
    }
}

impl<const G: usize, const IN: usize, const OUT: usize> Kernel for Linear<'_, G, IN, OUT> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        const {
            assert!(
                OUT.is_multiple_of(12) || OUT.is_multiple_of(10) || OUT.is_multiple_of(8),
                "outputs of a layer must be a multiple of 12, 10 or 8"
            );
        }
        match (S::WIDE, OUT.is_multiple_of(12), OUT.is_multiple_of(10)) {
            (true, true, _) => self.tiled::<S, 12>(s),
            (true, _, true) => self.tiled::<S, 10>(s),
            (true, ..) => self.tiled::<S, 8>(s),
            (false, true, _) => self.tiled::<S, 6>(s),
            (false, _, true) => self.tiled::<S, 5>(s),
            (false, ..) => self.tiled::<S, 4>(s),
        }
    }
}

/// Turns a weight from `(OUT, IN)` to `(IN, OUT)`, so that [`Linear`] takes the gradient by the layer's output back to that
/// by its input.
///
/// Read as it lies, a tile of inputs would have a short run of weights in each row, and rows of 1024 bytes all fall into
/// the same few places of a cache.
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
        const { assert!(IN >= LANES) }
        if OUT < LANES {
            for (i, turned) in self.turned.iter_mut().enumerate() {
                *turned = std::array::from_fn(|o| self.weight[o][i]);
            }
            return;
        }
        // Blocks of sixteen by sixteen; the last of a row or column overlaps the one before.
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

/// What a layer of the whole batch keeps until its weights are updated, for one group of images.
#[derive(Clone, Copy, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub(super) struct Kept<const PANELS: usize, const OUT: usize> {
    /// The layer's input.
    pub panels: [Panel; PANELS],
    /// `(OUT, LANES)`, the gradient by its output; zero where there is no image.
    pub grad_out: [Lanes; OUT],
}

/// Some rows of a layer's weight, or their biases, and Adam's moments of them.
pub(super) struct Slots<'a, T> {
    pub params: &'a mut [T],
    pub moment1: &'a mut [T],
    pub moment2: &'a mut [T],
}

/// The gradient by some rows of the weight and bias, and Adam's update of them at once.
///
/// # Numerics
/// Summed over the images in order; fused. Biases: lane by lane over the groups, then the lanes by halves.
pub(super) struct Update<'a, G, F, const IN: usize, const PANELS: usize, const OUT: usize> {
    /// The batch's groups, in order.
    pub groups: &'a [G],
    /// The layer's part of a group.
    pub kept: F,
    /// The index of the first row.
    pub first: usize,
    pub adam: &'a Coefficients,
    pub weight: Slots<'a, [f32; IN]>,
    pub bias: Slots<'a, f32>,
}

/// Rows that are updated together.
pub(super) const UPDATE_ROWS: usize = 12;

impl<G, F, const IN: usize, const PANELS: usize, const OUT: usize> Update<'_, G, F, IN, PANELS, OUT>
where
    F: Fn(&G) -> &Kept<PANELS, OUT>,
{
    #[inline(always)]
    fn tiled<S: Simd, const T: usize, const P: usize>(self, s: S) {
        const {
            assert!(
                PANELS.is_multiple_of(P) && PANELS == IN.div_ceil(LANES) && PANELS * LANES <= 256
            )
        }
        let Self {
            groups,
            kept,
            first,
            adam,
            weight,
            bias,
        } = self;
        let rows = bias.params.len();
        assert!(rows <= UPDATE_ROWS && rows.is_multiple_of(T));
        let mut grads = [[[0.0; LANES]; PANELS]; UPDATE_ROWS];
        // `grads` is indexed by row first.
        #[allow(clippy::needless_range_loop)]
        for panel in (0..PANELS).step_by(P) {
            for tile in (0..rows).step_by(T) {
                let mut sums = [[s.splat(0.0); T]; P];
                for group in groups {
                    let kept = kept(group);
                    let grad_out: &[Lanes; T] =
                        kept.grad_out[first + tile..].first_chunk().expect("T rows");
                    let panels: &[Panel; P] = kept.panels[panel..].first_chunk().expect("P panels");
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
                        s.store(sums[p][t], &mut grads[tile + t][panel + p]);
                    }
                }
            }
        }
        let rows = weight
            .params
            .iter_mut()
            .zip(weight.moment1)
            .zip(weight.moment2);
        for (((params, moment1), moment2), grads) in rows.zip(&grads) {
            adam::update(adam, params, &grads.as_flattened()[..IN], moment1, moment2);
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

impl<G, F, const IN: usize, const PANELS: usize, const OUT: usize> Kernel
    for Update<'_, G, F, IN, PANELS, OUT>
where
    F: Fn(&G) -> &Kept<PANELS, OUT>,
{
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let rows = self.bias.params.len();
        match (S::WIDE, rows.is_multiple_of(6)) {
            (true, true) => self.tiled::<S, 12, 2>(s),
            (true, false) => self.tiled::<S, 10, 2>(s),
            (false, true) => self.tiled::<S, 6, 1>(s),
            (false, false) => self.tiled::<S, 5, 1>(s),
        }
    }
}
