//! The convolution with its pooling: chooses the algorithm, and calls it.
//!
//! | algorithm | convolutions | multiplications, of the definition's |
//! |---|---|---|
//! | `rows` | kernels of 5, in a first layer with one channel, with pooling windows of 2 or none | 8 of 20 |
//! | `tiles` | kernels of 5, with pooling windows of 2 or none | 64 of 400 |
//! | `direct` | all | all |

use super::super::direct::{self, grad_sums_len, sums_len, winner_len};
use super::super::pixels::Stored;
use super::super::simd::{Isa, Kernel, LANES, Lanes, Simd};
use super::super::winograd::{K as WINOGRAD_K, OUTPUTS};
use super::super::{pool, rows, tiles};
use super::{Backward, Batch, Forward, Pass, SIZES, Slots};
use crate::adam::{self, Coefficients};
use bytemuck::{Pod, Zeroable};
use lenet_core::layer::Layered;
use lenet_core::plan::Layer;
use std::marker::PhantomData;

/// The algorithm with a given number.
pub struct Pick<const ALGORITHM: usize>;

const DIRECT: usize = 0;
const ROWS: usize = 1;
const TILES: usize = 2;

/// Returns the number of the fastest algorithm that can compute a layer.
pub const fn choose(layer: &Layer, is_first: bool) -> usize {
    if is_first && rows::can_do(layer) {
        ROWS
    } else if tiles::can_do(layer) {
        TILES
    } else {
        DIRECT
    }
}

/// Returns the sizes that the type of a layer's algorithm is generic over.
pub const fn sizes(layer: &Layer, is_first: bool) -> [usize; SIZES] {
    sizes_for(choose(layer, is_first), layer)
}

/// Returns the same as [`sizes`], for a given algorithm.
const fn sizes_for(algorithm: usize, layer: &Layer) -> [usize; SIZES] {
    let [c, h, w] = layer.input;
    let [m, ph, pw] = layer.output;
    let [_, ch, cw] = layer.convolved();
    let (k, padding, pool) = (layer.kernel, layer.padding, layer.pool);
    let (hp, wp) = (h + 2 * padding, w + 2 * padding);
    match algorithm {
        ROWS => [m, h, w, hp, ch, cw, ph, pw, 0, 0, 0, 0, 0],
        TILES => {
            let (th, tw) = (ch.div_ceil(OUTPUTS), cw.div_ceil(OUTPUTS));
            let wt = tw * OUTPUTS + WINOGRAD_K - 1;
            let (mb, cb) = (m.div_ceil(tiles::OUT), c.div_ceil(tiles::IN));
            [m, c, h, w, ch, cw, ph, pw, th, tw, wt, mb, cb]
        }
        _ => {
            let sums = sums_len(pool, m, ch, cw);
            let winners = winner_len(pool, m, ph, pw);
            let grad_sums = grad_sums_len(m, ch, w, k);
            [m, c, k, h, w, hp, wp, ph, pw, sums, winners, grad_sums, 0]
        }
    }
}

/// The [`Pass`] for a layer `L` of given [`sizes`].
pub trait Choice<
    L,
    const S0: usize,
    const S1: usize,
    const S2: usize,
    const S3: usize,
    const S4: usize,
    const S5: usize,
    const S6: usize,
    const S7: usize,
    const S8: usize,
    const S9: usize,
    const S10: usize,
    const S11: usize,
    const S12: usize,
>
{
    /// The [`Pass`].
    type Pass: Pass;
}

/// The gradients of the parameters, summed over some images.
trait Sums<W, B>: Zeroable {
    /// Returns all values as slices, to which those of another group are added.
    fn parts(&self) -> [&[f32]; 2];
    /// Returns the same as [`parts`](Self::parts), mutably.
    fn parts_mut(&mut self) -> [&mut [f32]; 2];
    /// Computes the weight gradient.
    fn weight<L: Layered>(&self, weight: &mut W);
    /// Returns the bias gradient.
    fn bias(&self) -> B;
}

/// The weight in the layout of the kernels, and memory for the update.
#[derive(Clone, Copy, Zeroable)]
#[repr(C, align(64))]
pub struct Prepared<K, S, W> {
    kernels: K,
    sums: S,
    grad: W,
}

/// Adds up the sums of all groups in order, and updates the parameters.
fn update<L: Layered, P: Pass, T, S: Sums<P::Weight, P::Bias>>(
    batch: &Batch<'_, T>,
    kept: impl Fn(&T) -> &S,
    [p, m, v]: &mut [Slots<'_, P>; 3],
    sums: &mut S,
    grad: &mut P::Weight,
) {
    for part in sums.parts_mut() {
        part.fill(0.0);
    }
    for group in batch.groups {
        batch.isa.run(AddSums {
            other: kept(group).parts(),
            out: sums.parts_mut(),
        });
    }
    sums.weight::<L>(grad);
    update_tensor(batch.adam, [&mut *p.weight, m.weight, v.weight], grad);
    update_tensor(batch.adam, [&mut *p.bias, m.bias, v.bias], &sums.bias());
}

/// Adds the sums of another group.
struct AddSums<'a> {
    other: [&'a [f32]; 2],
    out: [&'a mut [f32]; 2],
}

impl Kernel for AddSums<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (other, out) in self.other.into_iter().zip(self.out) {
            let (others, last_other) = other.as_chunks();
            let (outs, last_out) = out.as_chunks_mut();
            for (other, out) in others.iter().zip(outs) {
                s.store(s.add(s.load(out), s.load(other)), out);
            }
            for (other, out) in last_other.iter().zip(last_out) {
                *out += other;
            }
        }
    }
}

/// Applies Adam to one tensor, given its parameters and its first and second moments.
fn update_tensor<T: Pod>(adam: &Coefficients, [params, moment1, moment2]: [&mut T; 3], grad: &T) {
    adam::update(
        adam,
        bytemuck::cast_slice_mut(std::slice::from_mut(params)),
        bytemuck::cast_slice(std::slice::from_ref(grad)),
        bytemuck::cast_slice_mut(std::slice::from_mut(moment1)),
        bytemuck::cast_slice_mut(std::slice::from_mut(moment2)),
    );
}

impl<
    L: Layered + 'static,
    const M: usize,
    const C: usize,
    const K: usize,
    const H: usize,
    const W: usize,
    const HP: usize,
    const WP: usize,
    const PH: usize,
    const PW: usize,
    const SUMS: usize,
    const WINNERS: usize,
    const GRAD_SUMS: usize,
    const S12: usize,
> Choice<L, M, C, K, H, W, HP, WP, PH, PW, SUMS, WINNERS, GRAD_SUMS, S12> for Pick<DIRECT>
{
    type Pass = Direct<L, M, C, K, H, W, HP, WP, PH, PW, SUMS, WINNERS, GRAD_SUMS>;
}

/// Direct convolution: `direct`.
pub struct Direct<
    L,
    const M: usize,
    const C: usize,
    const K: usize,
    const H: usize,
    const W: usize,
    const HP: usize,
    const WP: usize,
    const PH: usize,
    const PW: usize,
    const SUMS: usize,
    const WINNERS: usize,
    const GRAD_SUMS: usize,
>(PhantomData<L>);

/// The data that the forward pass of [`Direct`] keeps for the backward pass.
#[derive(Clone, Copy, Zeroable)]
#[repr(C, align(64))]
pub struct DirectTrace<
    const C: usize,
    const HP: usize,
    const WP: usize,
    const SUMS: usize,
    const WINNERS: usize,
> {
    /// The input with its border of zeros, if it needs one.
    padded: [[[Lanes; WP]; HP]; C],
    sums: [Lanes; SUMS],
    winner: [[u8; LANES]; WINNERS],
}

impl<const M: usize, const C: usize, const K: usize> Sums<[[[[f32; K]; K]; C]; M], [f32; M]>
    for direct::Sums<C, M, K>
{
    fn parts(&self) -> [&[f32]; 2] {
        let weight = self.weight.as_flattened().as_flattened().as_flattened();
        [weight, self.bias.as_flattened()]
    }

    fn parts_mut(&mut self) -> [&mut [f32]; 2] {
        let weight = self.weight.as_flattened_mut().as_flattened_mut();
        [weight.as_flattened_mut(), self.bias.as_flattened_mut()]
    }

    fn weight<L: Layered>(&self, weight: &mut [[[[f32; K]; K]; C]; M]) {
        weight.clone_from(&self.weight);
    }

    fn bias(&self) -> [f32; M] {
        self.bias()
    }
}

impl<
    L: Layered + 'static,
    const M: usize,
    const C: usize,
    const K: usize,
    const H: usize,
    const W: usize,
    const HP: usize,
    const WP: usize,
    const PH: usize,
    const PW: usize,
    const SUMS: usize,
    const WINNERS: usize,
    const GRAD_SUMS: usize,
> Pass for Direct<L, M, C, K, H, W, HP, WP, PH, PW, SUMS, WINNERS, GRAD_SUMS>
{
    type Weight = [[[[f32; K]; K]; C]; M];
    type Bias = [f32; M];
    type Input = [[[Lanes; W]; H]; C];
    type Output = [[[Lanes; PW]; PH]; M];
    type GradInput = [[[Lanes; W]; H]; C];
    type Prepared = Prepared<(), direct::Sums<C, M, K>, Self::Weight>;
    type Trace = DirectTrace<C, HP, WP, SUMS, WINNERS>;
    type Kept = direct::Sums<C, M, K>;
    /// The gradient of the sums.
    type Scratch = [Lanes; GRAD_SUMS];

    fn prepare(_: Isa, _: &Self::Weight, _: &mut Self::Prepared) {}

    fn forward<const G: usize, const TRAIN: bool>(pass: Forward<'_, Self, G>) {
        let groups = pass.input.into_iter().zip(pass.out).zip(pass.trace);
        for ((input, out), trace) in groups {
            let DirectTrace {
                padded,
                sums,
                winner,
            } = trace;
            let input = match bytemuck::try_cast_ref(input) {
                Ok(input) if const { L::LAYER.padding == 0 } => input,
                _ => {
                    pass.isa.run(direct::Pad { input, out: padded });
                    &*padded
                }
            };
            pass.isa
                .run(direct::Forward::<_, TRAIN, _, _, _, _, _, _, _> {
                    layer: PhantomData::<L>,
                    input,
                    weight: pass.params.weight,
                    bias: pass.params.bias,
                    out,
                    winner,
                    sums,
                });
        }
    }

    fn backward<const G: usize>(pass: Backward<'_, Self, G>) {
        let mut grad_inputs = pass.grad_input.into_iter().flatten();
        let groups = pass.input.into_iter().zip(pass.out).zip(pass.trace);
        for (((input, out), trace), (grad, kept)) in
            groups.zip(pass.grad_out.into_iter().zip(pass.kept))
        {
            let input = match bytemuck::try_cast_ref(input) {
                Ok(input) if const { L::LAYER.padding == 0 } => input,
                _ => &trace.padded,
            };
            pass.isa.run(direct::Backward {
                layer: PhantomData::<L>,
                input,
                out,
                winner: &trace.winner,
                sums: &trace.sums,
                grad,
                grad_sums: pass.scratch,
                grad_params: kept,
            });
            if let Some(grad_input) = grad_inputs.next() {
                pass.isa.run(direct::GradInput {
                    layer: PhantomData::<L>,
                    weight: pass.params.weight,
                    grad_sums: pass.scratch,
                    grad_input,
                });
            }
        }
    }

    fn update<T: Sync>(
        batch: &Batch<'_, T>,
        kept: impl Fn(&T) -> &Self::Kept + Copy + Sync,
        mut slots: [Slots<'_, Self>; 3],
        prepared: &mut Self::Prepared,
    ) {
        let Prepared { sums, grad, .. } = prepared;
        batch.timed(|| update::<L, _, _, _>(batch, kept, &mut slots, sums, grad));
    }
}

impl<
    L: Layered + 'static,
    const M: usize,
    const H: usize,
    const W: usize,
    const HP: usize,
    const CH: usize,
    const CW: usize,
    const PH: usize,
    const PW: usize,
    const S8: usize,
    const S9: usize,
    const S10: usize,
    const S11: usize,
    const S12: usize,
> Choice<L, M, H, W, HP, CH, CW, PH, PW, S8, S9, S10, S11, S12> for Pick<ROWS>
{
    type Pass = Rows<L, M, H, W, HP, CH, CW, PH, PW>;
}

/// Winograd's algorithm along rows: `rows`.
pub struct Rows<
    L,
    const M: usize,
    const H: usize,
    const W: usize,
    const HP: usize,
    const CH: usize,
    const CW: usize,
    const PH: usize,
    const PW: usize,
>(PhantomData<L>);

/// The intermediate results of the passes of [`Rows`].
#[derive(Clone, Copy, Zeroable)]
#[repr(C)]
pub struct RowsScratch<
    const M: usize,
    const H: usize,
    const HP: usize,
    const PH: usize,
    const PW: usize,
> {
    forward: rows::ForwardScratch<M, HP>,
    backward: rows::BackwardScratch<M, H, HP, PH, PW>,
}

impl<const M: usize> Sums<[[[[f32; WINOGRAD_K]; WINOGRAD_K]; 1]; M], [f32; M]> for rows::Sums<M> {
    fn parts(&self) -> [&[f32]; 2] {
        self.parts()
    }

    fn parts_mut(&mut self) -> [&mut [f32]; 2] {
        self.parts_mut()
    }

    fn weight<L: Layered>(&self, weight: &mut [[[[f32; WINOGRAD_K]; WINOGRAD_K]; 1]; M]) {
        self.weight::<L>(weight);
    }

    fn bias(&self) -> [f32; M] {
        self.bias()
    }
}

impl<
    L: Layered + 'static,
    const M: usize,
    const H: usize,
    const W: usize,
    const HP: usize,
    const CH: usize,
    const CW: usize,
    const PH: usize,
    const PW: usize,
> Pass for Rows<L, M, H, W, HP, CH, CW, PH, PW>
{
    type Weight = [[[[f32; WINOGRAD_K]; WINOGRAD_K]; 1]; M];
    type Bias = [f32; M];
    type Input = Stored<1, H, W>;
    type Output = [[[Lanes; PW]; PH]; M];
    type GradInput = [[[Lanes; W]; H]; 1];
    type Prepared = Prepared<rows::Kernels<M>, rows::Sums<M>, Self::Weight>;
    type Trace = pool::Trace<M, CH, CW, PH, PW>;
    type Kept = rows::Sums<M>;
    type Scratch = RowsScratch<M, H, HP, PH, PW>;

    const STORED: bool = true;

    fn prepare(_: Isa, weight: &Self::Weight, prepared: &mut Self::Prepared) {
        rows::transform_kernels(weight, &mut prepared.kernels);
    }

    fn forward<const G: usize, const TRAIN: bool>(pass: Forward<'_, Self, G>) {
        let groups = pass.input.into_iter().zip(pass.out).zip(pass.trace);
        for ((input, out), trace) in groups {
            pass.isa
                .run(rows::Forward::<_, TRAIN, _, _, _, _, _, _, _, _> {
                    layer: PhantomData::<L>,
                    image: &input.bytes[0],
                    kernels: &pass.params.prepared.kernels,
                    bias: pass.params.bias,
                    out,
                    trace,
                    scratch: &mut pass.scratch.forward,
                });
        }
    }

    fn backward<const G: usize>(pass: Backward<'_, Self, G>) {
        let groups = pass.input.into_iter().zip(pass.out).zip(pass.trace);
        for (((input, out), trace), (grad, kept)) in
            groups.zip(pass.grad_out.into_iter().zip(pass.kept))
        {
            let scratch = &mut pass.scratch.backward;
            rows::backward(
                pass.isa,
                PhantomData::<L>,
                input,
                out,
                trace,
                grad,
                kept,
                scratch,
            );
        }
    }

    fn update<T: Sync>(
        batch: &Batch<'_, T>,
        kept: impl Fn(&T) -> &Self::Kept + Copy + Sync,
        mut slots: [Slots<'_, Self>; 3],
        prepared: &mut Self::Prepared,
    ) {
        batch.timed(|| {
            let Prepared {
                kernels,
                sums,
                grad,
            } = prepared;
            update::<L, _, _, _>(batch, kept, &mut slots, sums, grad);
            rows::transform_kernels(slots[0].weight, kernels);
        });
    }
}

impl<
    L: Layered + 'static,
    const M: usize,
    const C: usize,
    const H: usize,
    const W: usize,
    const CH: usize,
    const CW: usize,
    const PH: usize,
    const PW: usize,
    const TH: usize,
    const TW: usize,
    const WT: usize,
    const MB: usize,
    const CB: usize,
> Choice<L, M, C, H, W, CH, CW, PH, PW, TH, TW, WT, MB, CB> for Pick<TILES>
{
    type Pass = Tiles<L, M, C, H, W, CH, CW, PH, PW, TH, TW, WT, MB, CB>;
}

/// Winograd's algorithm along both sides: `tiles`.
pub struct Tiles<
    L,
    const M: usize,
    const C: usize,
    const H: usize,
    const W: usize,
    const CH: usize,
    const CW: usize,
    const PH: usize,
    const PW: usize,
    const TH: usize,
    const TW: usize,
    const WT: usize,
    const MB: usize,
    const CB: usize,
>(PhantomData<L>);

impl<const M: usize, const C: usize, const MB: usize, const CB: usize>
    Sums<[[[[f32; WINOGRAD_K]; WINOGRAD_K]; C]; M], [f32; M]> for tiles::Sums<M, MB, CB>
{
    fn parts(&self) -> [&[f32]; 2] {
        self.parts()
    }

    fn parts_mut(&mut self) -> [&mut [f32]; 2] {
        self.parts_mut()
    }

    fn weight<L: Layered>(&self, weight: &mut [[[[f32; WINOGRAD_K]; WINOGRAD_K]; C]; M]) {
        self.weight(weight);
    }

    fn bias(&self) -> [f32; M] {
        self.bias()
    }
}

impl<
    L: Layered + 'static,
    const M: usize,
    const C: usize,
    const H: usize,
    const W: usize,
    const CH: usize,
    const CW: usize,
    const PH: usize,
    const PW: usize,
    const TH: usize,
    const TW: usize,
    const WT: usize,
    const MB: usize,
    const CB: usize,
> Pass for Tiles<L, M, C, H, W, CH, CW, PH, PW, TH, TW, WT, MB, CB>
{
    type Weight = [[[[f32; WINOGRAD_K]; WINOGRAD_K]; C]; M];
    type Bias = [f32; M];
    type Input = [[[Lanes; W]; H]; C];
    type Output = [[[Lanes; PW]; PH]; M];
    type GradInput = [[[Lanes; W]; H]; C];
    type Prepared = Prepared<tiles::Kernels<M, C>, tiles::Sums<M, MB, CB>, Self::Weight>;
    type Trace = pool::Trace<M, CH, CW, PH, PW>;
    type Kept = tiles::Sums<M, MB, CB>;
    type Scratch = tiles::Scratch<M, C, TH, TW, WT>;

    fn prepare(_: Isa, weight: &Self::Weight, prepared: &mut Self::Prepared) {
        tiles::transform_kernels(weight, &mut prepared.kernels);
    }

    fn forward<const G: usize, const TRAIN: bool>(pass: Forward<'_, Self, G>) {
        let groups = pass.input.into_iter().zip(pass.out).zip(pass.trace);
        for ((input, out), trace) in groups {
            pass.isa.run(
                tiles::Forward::<_, TRAIN, _, _, _, _, _, _, _, _, _, _, _> {
                    layer: PhantomData::<L>,
                    input,
                    kernels: &pass.params.prepared.kernels,
                    bias: pass.params.bias,
                    out,
                    trace,
                    scratch: pass.scratch,
                },
            );
        }
    }

    fn backward<const G: usize>(pass: Backward<'_, Self, G>) {
        let mut grad_inputs = pass.grad_input.into_iter().flatten();
        let groups = pass.input.into_iter().zip(pass.out).zip(pass.trace);
        for (((input, out), trace), (grad, kept)) in
            groups.zip(pass.grad_out.into_iter().zip(pass.kept))
        {
            tiles::backward(
                pass.isa,
                PhantomData::<L>,
                input,
                &pass.params.prepared.kernels,
                out,
                trace,
                grad,
                kept,
                grad_inputs.next(),
                pass.scratch,
            );
        }
    }

    fn update<T: Sync>(
        batch: &Batch<'_, T>,
        kept: impl Fn(&T) -> &Self::Kept + Copy + Sync,
        mut slots: [Slots<'_, Self>; 3],
        prepared: &mut Self::Prepared,
    ) {
        batch.timed(|| {
            let Prepared {
                kernels,
                sums,
                grad,
            } = prepared;
            update::<L, _, _, _>(batch, kept, &mut slots, sums, grad);
            tiles::transform_kernels(slots[0].weight, kernels);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::direct::tests::reference;
    use super::super::super::pixels::{Store, View, WHITE};
    use super::super::super::profile::Clock;
    use super::super::Parameters;
    use super::*;
    use crate::adam::Adam;
    use bytemuck::zeroed_box;
    use lenet_core::layer::conv2d::Spec;
    use lenet_core::layer::{Activation, Activation::*, Pool, Pool::*};
    use std::sync::Mutex;

    /// Fills `values` with noise in -1..1, times `scale`.
    fn noise(values: &mut [f32], scale: f32, seed: u32) {
        let mut state = seed;
        values.fill_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 8) as f32 / (1 << 23) as f32 - 1.0) * scale
        });
    }

    fn flat<T: Pod>(value: &T) -> &[f32] {
        bytemuck::cast_slice(std::slice::from_ref(value))
    }

    fn flat_mut<T: Pod>(value: &mut T) -> &mut [f32] {
        bytemuck::cast_slice_mut(std::slice::from_mut(value))
    }

    /// The number of images in the second of two groups.
    const LAST: usize = 9;

    type Bytes<const C: usize, const H: usize, const W: usize> = [[[u8; W]; H]; C];

    /// Returns the images of both groups.
    fn images<const C: usize, const H: usize, const W: usize>() -> [Vec<Bytes<C, H, W>>; 2] {
        let mut state = 7_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        [LANES, LAST].map(|count| {
            let mut images = vec![[[[0; W]; H]; C]; count];
            let rows = images.as_flattened_mut().as_flattened_mut();
            rows.as_flattened_mut().fill_with(&mut next);
            images
        })
    }

    /// Fills a weight and a bias.
    fn fill_params(weight: &mut [f32], bias: &mut [f32]) {
        let taps = weight.len() / bias.len();
        noise(weight, 2.0 / (taps as f32).sqrt(), 1);
        noise(bias, 0.3, 2);
    }

    /// Fills the gradient of the output of a group. It is 0 for missing images.
    fn fill_grad(grad: &mut [f32], group: usize) {
        noise(grad, 1.0, 3 + group as u32);
        if group == 1 {
            for lanes in grad.chunks_mut(LANES) {
                lanes[LAST..].fill(0.0);
            }
        }
    }

    /// Runs a layer on both groups of images. Returns the output and the gradients of the input, weight and bias.
    fn run<P: Pass, const C: usize, const H: usize, const W: usize>(isa: Isa) -> [Vec<f32>; 4]
    where
        Stored<C, H, W>: View<P::Input>,
    {
        let mut stored: [Box<Stored<C, H, W>>; 2] = [zeroed_box(), zeroed_box()];
        for (stored, images) in stored.iter_mut().zip(images()) {
            stored.set(isa, images.len(), true, |i| images[i]);
        }
        let input = stored.each_ref().map(|stored| stored.view());
        let mut weight: Box<P::Weight> = zeroed_box();
        let mut bias: Box<P::Bias> = zeroed_box();
        fill_params(flat_mut(&mut *weight), flat_mut(&mut *bias));
        let mut prepared: Box<P::Prepared> = zeroed_box();
        P::prepare(isa, &weight, &mut prepared);
        let params = Parameters {
            weight: &*weight,
            bias: &*bias,
            prepared: &*prepared,
        };
        let mut out: [Box<P::Output>; 2] = [zeroed_box(), zeroed_box()];
        let mut trace: [Box<P::Trace>; 2] = [zeroed_box(), zeroed_box()];
        let mut scratch: Box<P::Scratch> = zeroed_box();
        P::forward::<2, true>(Forward {
            isa,
            params,
            input,
            out: out.each_mut().map(|out| &mut **out),
            trace: trace.each_mut().map(|trace| &mut **trace),
            scratch: &mut scratch,
        });
        let mut grad_out: [Box<P::Output>; 2] = [zeroed_box(), zeroed_box()];
        for (g, grad) in grad_out.iter_mut().enumerate() {
            fill_grad(flat_mut(&mut **grad), g);
        }
        let mut grad_input: [Box<P::GradInput>; 2] = [zeroed_box(), zeroed_box()];
        let mut kept: [Box<P::Kept>; 2] = [zeroed_box(), zeroed_box()];
        P::backward(Backward {
            isa,
            params,
            input,
            out: out.each_ref().map(|out| &**out),
            trace: trace.each_ref().map(|trace| &**trace),
            grad_out: grad_out.each_mut().map(|grad| &mut **grad),
            kept: kept.each_mut().map(|kept| &mut **kept),
            grad_input: Some(grad_input.each_mut().map(|grad| &mut **grad)),
            scratch: &mut scratch,
        });
        // With beta1 = 0, the first moment after the first step is the gradient.
        let adam = Adam {
            beta1: 0.0,
            ..Adam::default()
        };
        let (mut grad_weight, mut grad_bias): (Box<P::Weight>, Box<P::Bias>) =
            (zeroed_box(), zeroed_box());
        let (mut moment2_weight, mut moment2_bias): (Box<P::Weight>, Box<P::Bias>) =
            (zeroed_box(), zeroed_box());
        let slots = [
            Slots {
                weight: &mut *weight,
                bias: &mut *bias,
            },
            Slots {
                weight: &mut *grad_weight,
                bias: &mut *grad_bias,
            },
            Slots {
                weight: &mut *moment2_weight,
                bias: &mut *moment2_bias,
            },
        ];
        let batch = Batch {
            isa,
            adam: &adam.coefficients(1),
            groups: &kept,
            clocks: &[Mutex::new(Clock::new(1, false))],
            phase: 0,
        };
        P::update(&batch, |kept| &**kept, slots, &mut prepared);
        let both = |groups: [&[f32]; 2]| groups.concat();
        [
            both(out.each_ref().map(|out| flat(&**out))),
            both(grad_input.each_ref().map(|grad| flat(&**grad))),
            flat(&*grad_weight).to_vec(),
            flat(&*grad_bias).to_vec(),
        ]
    }

    /// Returns what [`run`] returns, computed in f64 by the definition.
    fn expected<const C: usize, const H: usize, const W: usize>(layer: &Layer) -> [Vec<f64>; 4] {
        let [m, ph, pw] = layer.output;
        let (outputs, inputs) = (m * ph * pw, C * H * W);
        let mut weight = vec![0.0; m * C * layer.kernel.pow(2)];
        let mut bias = vec![0.0; m];
        fill_params(&mut weight, &mut bias);
        let in_f64 = |values: &[f32]| values.iter().map(|&x| x.into()).collect::<Vec<f64>>();
        let (weight, bias) = (in_f64(&weight), in_f64(&bias));
        let mut out = vec![0.0; 2 * outputs * LANES];
        let mut grad_input = vec![0.0; 2 * inputs * LANES];
        let (mut grad_weight, mut grad_bias) = (vec![0.0; weight.len()], vec![0.0; m]);
        for (g, images) in images::<C, H, W>().into_iter().enumerate() {
            let mut grad = vec![0.0; outputs * LANES];
            fill_grad(&mut grad, g);
            for lane in 0..LANES {
                // A lane without an image repeats the last image.
                let image = &images[lane.min(images.len() - 1)];
                let input: Vec<f64> = (image.as_flattened().as_flattened().iter())
                    .map(|&byte| f64::from(byte) / f64::from(WHITE))
                    .collect();
                let grad: Vec<f64> = (grad.iter().skip(lane).step_by(LANES))
                    .map(|&x| x.into())
                    .collect();
                let sizes = [C, H, W, m, layer.kernel];
                let image = reference(layer, sizes, &input, &weight, &bias, &grad);
                for (at, value) in image.out.into_iter().enumerate() {
                    out[(g * outputs + at) * LANES + lane] = value;
                }
                for (at, value) in image.input.into_iter().enumerate() {
                    grad_input[(g * inputs + at) * LANES + lane] = value;
                }
                for (sums, image) in [
                    (&mut grad_weight, image.weight),
                    (&mut grad_bias, image.bias),
                ] {
                    sums.iter_mut().zip(image).for_each(|(sum, x)| *sum += x);
                }
            }
        }
        [out, grad_input, grad_weight, grad_bias]
    }

    /// Compares an algorithm with the definition, and the instruction sets with each other. An algorithm
    /// that reads stored pixels computes no input gradient, so none is compared.
    fn check<P: Pass, const C: usize, const H: usize, const W: usize>(layer: &Layer)
    where
        Stored<C, H, W>: View<P::Input>,
    {
        let name = layer.name;
        let expected = expected::<C, H, W>(layer);
        let mut first: Option<[Vec<f32>; 4]> = None;
        for isa in Isa::available() {
            let found = run::<P, C, H, W>(isa);
            let parts = ["output", "input", "weight", "bias"];
            for ((part, found), expected) in parts.into_iter().zip(&found).zip(&expected) {
                if part == "input" && P::STORED {
                    continue;
                }
                assert_eq!(found.len(), expected.len(), "{name}, {part}");
                let largest = expected.iter().fold(0.0f64, |max, x| max.max(x.abs()));
                for (i, (&found, expected)) in found.iter().zip(expected).enumerate() {
                    let error = (f64::from(found) - expected).abs();
                    assert!(
                        error <= 1e-5 * largest,
                        "{name}, {isa:?}, {part} {i}: {found}, expected {expected}, largest {largest}"
                    );
                }
            }
            let first = first.get_or_insert_with(|| found.clone());
            assert!(*first == found, "{name}, {isa:?}: other bits");
        }
    }

    macro_rules! algorithm {
        ($algorithm:ident) => {
            <Pick<$algorithm> as Choice<
                This,
                { sizes_for($algorithm, &This::LAYER)[0] },
                { sizes_for($algorithm, &This::LAYER)[1] },
                { sizes_for($algorithm, &This::LAYER)[2] },
                { sizes_for($algorithm, &This::LAYER)[3] },
                { sizes_for($algorithm, &This::LAYER)[4] },
                { sizes_for($algorithm, &This::LAYER)[5] },
                { sizes_for($algorithm, &This::LAYER)[6] },
                { sizes_for($algorithm, &This::LAYER)[7] },
                { sizes_for($algorithm, &This::LAYER)[8] },
                { sizes_for($algorithm, &This::LAYER)[9] },
                { sizes_for($algorithm, &This::LAYER)[10] },
                { sizes_for($algorithm, &This::LAYER)[11] },
                { sizes_for($algorithm, &This::LAYER)[12] },
            >>::Pass
        };
    }

    macro_rules! shapes {
        ($($name:ident: $algorithm:ident, [$c:literal, $h:literal, $w:literal], $spec:expr;)*) => { $(
            #[test]
            fn $name() {
                #[derive(Clone, Copy)]
                struct This;
                impl Layered for This {
                    const LAYER: Layer = $spec.layer(stringify!($name), [$c, $h, $w]);
                }
                check::<algorithm!($algorithm), $c, $h, $w>(&This::LAYER);
            }
        )* };
    }

    const fn spec(maps: usize, padding: usize, pool: Pool, activation: Activation) -> Spec {
        Spec {
            maps,
            kernel: WINOGRAD_K,
            padding,
            pool,
            activation,
        }
    }

    shapes! {
        direct_padded_maximum: DIRECT, [2, 10, 12], spec(3, 1, Max(2), Tanh);
        rows_padded_average: ROWS, [1, 28, 28], spec(6, 2, Average(2), Sigmoid);
        rows_whole: ROWS, [1, 14, 11], spec(5, 1, Whole, Tanh);
        rows_wide_maximum: ROWS, [1, 18, 30], spec(3, 0, Max(2), Relu);
        rows_sparse_odd: ROWS, [1, 10, 18], spec(5, 0, Max(2), Identity);
        tiles_average: TILES, [6, 14, 14], spec(16, 0, Average(2), Sigmoid);
        tiles_padded_whole: TILES, [3, 9, 12], spec(5, 2, Whole, Relu);
        tiles_padded_maximum: TILES, [2, 16, 20], spec(6, 1, Max(2), Tanh);
    }
}
