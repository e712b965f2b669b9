//! Convolution, max-pool and sigmoid of sixteen images in one, by [`winograd`]'s algorithm.
//!
//! Four outputs side by side are the upper or the lower halves of two of the pool's windows. Four columns are done from
//! top to bottom before the next, and of them two rows of outputs at a time, so that what is stored on the way stays in
//! the fastest cache.

use super::sigmoid::sigmoid;
use super::simd::{Kernel, LANES, Lanes, Lanewise, Simd, by_parts, part, part_mut};
use super::winograd::{self, Kernels, OUTPUTS, POINTS};
use bytemuck::Zeroable;
use lenet_core::arch::{K, POOL};

/// How an input of sixteen images is stored.
pub(super) trait Stored {
    /// A part of its lanes.
    fn load<const N: usize, S: Lanewise<N>>(&self, s: S, n: usize) -> S::V;
}

impl Stored for Lanes {
    #[inline(always)]
    fn load<const N: usize, S: Lanewise<N>>(&self, s: S, n: usize) -> S::V {
        s.load(part(self, n))
    }
}

impl Stored for [u8; LANES] {
    #[inline(always)]
    fn load<const N: usize, S: Lanewise<N>>(&self, s: S, n: usize) -> S::V {
        s.load_bytes(part(self, n))
    }
}

/// What a forward pass keeps on its way.
#[derive(Clone, Copy, Zeroable)]
#[repr(C, align(64))]
pub(super) struct Scratch<const IN: usize, const OUT: usize, const SIDE: usize> {
    /// Of the columns that four outputs read, the values at each point. The way back has use for the room.
    pub values: [[[Lanes; IN]; SIDE]; POINTS],
    /// Of the upper and the lower row of two windows, the sums at each point.
    sums: [[[Lanes; OUT]; POINTS]; POOL],
    /// The outputs.
    outputs: [[[Lanes; OUTPUTS]; OUT]; POOL],
}

/// The forward pass: `IN` channels of `SIDE` a side to `OUT` of `POOLED` a side. With `WINNER` it tells who won each
/// window, as the way back needs. Where there are registers enough, `TILE` channels are summed at a time.
///
/// # Numerics
/// Each sum takes its terms by channel and row of the kernel, fused. Of equal values in a window the first in row order
/// wins.
pub(super) struct ConvPoolSigmoid<
    'a,
    I,
    const WINNER: bool,
    const TILE: usize,
    const IN: usize,
    const OUT: usize,
    const SIDE: usize,
    const POOLED: usize,
> {
    /// `(SIDE, SIDE, IN, LANES)`
    pub input: &'a [[[I; IN]; SIDE]; SIDE],
    /// Made by [`winograd::kernels`].
    pub kernels: &'a Kernels<IN, OUT>,
    /// `(OUT)`
    pub bias: &'a [f32; OUT],
    /// Overwritten.
    pub out: &'a mut [Lanes],
    /// Which position of its window won, 0 to 3 in row order; laid out as `out`; overwritten with `WINNER`, else left.
    pub winner: &'a mut [[u8; LANES]],
    /// How far it is in `out` from one channel to the next, one row and one column.
    pub strides: [usize; 3],
    /// Overwritten.
    pub scratch: &'a mut Scratch<IN, OUT, SIDE>,
}

impl<
    I: Stored,
    const WINNER: bool,
    const TILE: usize,
    const IN: usize,
    const OUT: usize,
    const SIDE: usize,
    const POOLED: usize,
> Kernel for ConvPoolSigmoid<'_, I, WINNER, TILE, IN, OUT, SIDE, POOLED>
{
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        const {
            assert!(POOL * POOLED + K - 1 == SIDE);
            assert!((POOL * POOLED).is_multiple_of(OUTPUTS));
        }
        let Scratch {
            values,
            sums,
            outputs,
        } = self.scratch;
        let [channel, row, column] = self.strides;
        for first in (0..POOL * POOLED).step_by(OUTPUTS) {
            for (y, inputs) in self.input.iter().enumerate() {
                let inputs: &[[I; IN]; POINTS] = inputs[first..].first_chunk().expect("inside");
                for c in 0..IN {
                    let inputs = inputs.each_ref().map(|input| &input[c]);
                    let mut values = values.each_mut().map(|values| &mut values[y][c]);
                    by_parts!(s, evaluate(inputs, &mut values));
                }
            }
            let at = |o, y, x| o * channel + y * row + (first / POOL + x) * column;
            for y in 0..POOLED {
                for (p, (kernels, values)) in self.kernels.iter().zip(&*values).enumerate() {
                    let rows = values[POOL * y..].first_chunk().expect("inside");
                    let sums = sums.each_mut().map(|sums| &mut sums[p]);
                    if S::WIDE {
                        multiply::<S, TILE, IN, OUT>(s, kernels, rows, sums);
                    } else {
                        multiply::<S, 2, IN, OUT>(s, kernels, rows, sums);
                    }
                }
                for (sums, outputs) in sums.iter().zip(&mut *outputs) {
                    for (o, outputs) in outputs.iter_mut().enumerate() {
                        let sums = sums.each_ref().map(|sums| &sums[o]);
                        by_parts!(s, interpolate(sums, self.bias[o], outputs));
                    }
                }
                let [upper, lower] = &*outputs;
                for o in 0..OUT {
                    for x in 0..OUTPUTS / POOL {
                        let [upper, lower] = [upper, lower].map(|row| &row[o].as_chunks().0[x]);
                        let at = at(o, y, x);
                        let (out, winner) = (&mut self.out[at], &mut self.winner[at]);
                        pool::<S, WINNER>(s, [upper, lower], out, winner);
                    }
                }
            }
            // Apart, as each is a long chain of operations, of which as many as possible must run side by side.
            for y in 0..POOLED {
                for x in 0..OUTPUTS / POOL {
                    for o in 0..OUT {
                        let out = &mut self.out[at(o, y, x)];
                        s.store(sigmoid(s, s.load(out)), out);
                    }
                }
            }
        }
    }
}

/// The values at each point of inputs in a row: part `n` of their lanes.
#[inline(always)]
fn evaluate<const N: usize, S: Lanewise<N>, I: Stored>(
    s: S,
    n: usize,
    inputs: [&I; POINTS],
    values: &mut [&mut Lanes; POINTS],
) {
    let mut input = [s.splat(0.0); POINTS];
    for (input, stored) in input.iter_mut().zip(inputs) {
        *input = stored.load(s, n);
    }
    for (value, to) in winograd::values(s, input).into_iter().zip(values) {
        s.store(value, part_mut(to, n));
    }
}

/// The sums over channels and rows at one point, of two rows of outputs, in tiles of `T` channels.
#[inline(always)]
fn multiply<S: Simd, const T: usize, const IN: usize, const OUT: usize>(
    s: S,
    kernels: &[[[f32; K]; IN]; OUT],
    rows: &[[Lanes; IN]; K + POOL - 1],
    [upper, lower]: [&mut [Lanes; OUT]; POOL],
) {
    const { assert!(OUT.is_multiple_of(T)) }
    let sums = upper.as_chunks_mut::<T>().0.iter_mut();
    let sums = sums.zip(lower.as_chunks_mut::<T>().0);
    for (kernels, (upper, lower)) in kernels.as_chunks::<T>().0.iter().zip(sums) {
        let mut acc = [[s.splat(0.0); POOL]; T];
        for c in 0..IN {
            // What the lower row reads, the upper row reads next.
            let mut value = s.load(&rows[0][c]);
            for i in 0..K {
                let next = s.load(&rows[i + 1][c]);
                for t in 0..T {
                    let kernel = s.splat(kernels[t][c][i]);
                    acc[t][0] = s.mul_add(value, kernel, acc[t][0]);
                    acc[t][1] = s.mul_add(next, kernel, acc[t][1]);
                }
                value = next;
            }
        }
        for t in 0..T {
            s.store(acc[t][0], &mut upper[t]);
            s.store(acc[t][1], &mut lower[t]);
        }
    }
}

/// Outputs of one row from their sums at each point: part `n` of their lanes.
#[inline(always)]
fn interpolate<const N: usize, S: Lanewise<N>>(
    s: S,
    n: usize,
    sums: [&Lanes; POINTS],
    bias: f32,
    outputs: &mut [Lanes; OUTPUTS],
) {
    let mut at = [s.splat(0.0); POINTS];
    for (at, sums) in at.iter_mut().zip(sums) {
        *at = s.load(part(sums, n));
    }
    let values = winograd::outputs(s, at, s.splat(bias));
    for (value, output) in values.into_iter().zip(outputs) {
        s.store(value, part_mut(output, n));
    }
}

/// The largest value of a window, and who that is.
#[inline(always)]
fn pool<S: Simd, const WINNER: bool>(
    s: S,
    [[a, b], [c, d]]: [&[Lanes; POOL]; POOL],
    out: &mut Lanes,
    winner: &mut [u8; LANES],
) {
    let [a, b, c, d] = [s.load(a), s.load(b), s.load(c), s.load(d)];
    let [upper, lower] = [s.max(b, a), s.max(d, c)];
    s.store(s.max(lower, upper), out);
    if WINNER {
        let [zero, one] = [s.splat(0.0), s.splat(1.0)];
        let in_upper = s.select_gt(b, a, one, zero);
        let in_lower = s.add(s.splat(2.0), s.select_gt(d, c, one, zero));
        s.store_bytes(s.select_gt(lower, upper, in_lower, in_upper), winner);
    }
}

#[cfg(test)]
mod tests {
    use super::super::pixels::WHITE;
    use super::super::simd::Isa;
    use super::*;
    use crate::dataset::generator;
    use crate::init::initial_params;
    use bytemuck::zeroed_box;
    use lenet_core::arch::{C1, C2, POOL1_SIDE, POOL2_SIDE, SIDE};
    use rand_chacha::rand_core::Rng;

    type Input<I, const IN: usize, const SIDE: usize> = [[[I; IN]; SIDE]; SIDE];

    /// A layer with what its input is multiplied by.
    struct Layer<const IN: usize, const OUT: usize> {
        weight: [[[[f32; K]; K]; IN]; OUT],
        bias: [f32; OUT],
        scale: f64,
    }

    fn conv1() -> Layer<1, C1> {
        let params = initial_params(0);
        Layer {
            weight: params.conv1_weight,
            bias: params.conv1_bias,
            scale: 1.0 / f64::from(WHITE),
        }
    }

    fn conv2() -> Layer<C1, C2> {
        let params = initial_params(0);
        Layer {
            weight: params.conv2_weight,
            bias: params.conv2_bias,
            scale: 1.0,
        }
    }

    impl<const IN: usize, const OUT: usize> Layer<IN, OUT> {
        /// Outputs and winners, `(OUT, POOLED, POOLED)`.
        fn run<I: Stored, const SIDE: usize, const POOLED: usize>(
            &self,
            isa: Isa,
            input: &Input<I, IN, SIDE>,
        ) -> (Vec<Lanes>, Vec<[u8; LANES]>) {
            let (mut kernels, mut scratch) = (zeroed_box(), zeroed_box());
            winograd::kernels(&self.weight, self.scale, &mut kernels);
            let len = OUT * POOLED * POOLED;
            let (mut out, mut winner) = (vec![[0.0; LANES]; len], vec![[9; LANES]; len]);
            isa.run(ConvPoolSigmoid::<_, true, 2, IN, OUT, SIDE, POOLED> {
                input,
                kernels: &kernels,
                bias: &self.bias,
                out: &mut out,
                winner: &mut winner,
                strides: [POOLED * POOLED, POOLED, 1],
                scratch: &mut scratch,
            });
            (out, winner)
        }

        /// The four values of a window by the definition, in f64; `at` gives a lane of an input.
        fn window<I, const SIDE: usize>(
            &self,
            input: &Input<I, IN, SIDE>,
            at: impl Fn(&I) -> f64,
            [o, y, x]: [usize; 3],
        ) -> [f64; 4] {
            std::array::from_fn(|position| {
                let (top, left) = (2 * y + position / 2, 2 * x + position % 2);
                let mut sum = 0.0;
                for (c, kernel) in self.weight[o].iter().enumerate() {
                    for (i, row) in kernel.iter().enumerate() {
                        for (j, &weight) in row.iter().enumerate() {
                            sum += f64::from(weight) * at(&input[top + i][left + j][c]);
                        }
                    }
                }
                sum * self.scale + f64::from(self.bias[o])
            })
        }

        /// On every version: each output, and that who won was the largest, or as good as.
        fn is_its_definition<I: Stored, const SIDE: usize, const POOLED: usize>(
            &self,
            input: &Input<I, IN, SIDE>,
            at: impl Fn(&I, usize) -> f64,
        ) {
            for isa in Isa::available() {
                let (out, winner) = self.run::<_, SIDE, POOLED>(isa, input);
                for (n, (out, winner)) in out.iter().zip(winner).enumerate() {
                    let place = [n / (POOLED * POOLED), n / POOLED % POOLED, n % POOLED];
                    let lane = n % LANES;
                    let values = self.window(input, |input| at(input, lane), place);
                    let largest = values.into_iter().fold(f64::NEG_INFINITY, f64::max);
                    let error = f64::from(out[lane]) - 1.0 / (1.0 + (-largest).exp());
                    assert!(error.abs() < 4e-7, "{isa:?}, {place:?}, {lane}: {error:e}");
                    let chosen = values[usize::from(winner[lane])];
                    assert!(largest - chosen < 2e-6, "{isa:?}, {place:?}: {values:?}");
                }
            }
        }
    }

    #[test]
    fn conv1_is_its_definition() {
        let mut rng = generator(0, 0);
        let mut input: Input<[u8; LANES], 1, SIDE> = [[[[0; LANES]; 1]; SIDE]; SIDE];
        for pixel in input
            .as_flattened_mut()
            .as_flattened_mut()
            .as_flattened_mut()
        {
            *pixel = rng.next_u32() as u8;
        }
        conv1()
            .is_its_definition::<_, SIDE, POOL1_SIDE>(&input, |input, lane| f64::from(input[lane]));
    }

    #[test]
    fn conv2_is_its_definition() {
        let mut rng = generator(0, 0);
        let mut input: Input<Lanes, C1, POOL1_SIDE> =
            [[[[0.0; LANES]; C1]; POOL1_SIDE]; POOL1_SIDE];
        for value in input
            .as_flattened_mut()
            .as_flattened_mut()
            .as_flattened_mut()
        {
            *value = rng.next_u32() as f32 / u32::MAX as f32;
        }
        conv2().is_its_definition::<_, POOL1_SIDE, POOL2_SIDE>(&input, |input, lane| {
            f64::from(input[lane])
        });
    }

    /// On flat pictures, and those that change along one side only, the first of equal values wins.
    #[test]
    fn ties_stay_ties() {
        let pictures: [fn(usize, usize) -> f32; 3] = [
            |_, _| 0.377,
            |y, _| (y as f32 * 0.7).sin().abs(),
            |_, x| (x as f32 * 0.7).sin().abs(),
        ];
        let may_win: [&[u8]; 3] = [&[0], &[0, 2], &[0, 1]];
        for (picture, may_win) in pictures.into_iter().zip(may_win) {
            let input: Input<Lanes, C1, POOL1_SIDE> =
                std::array::from_fn(|y| std::array::from_fn(|x| [[picture(y, x); LANES]; C1]));
            let pixels: Input<[u8; LANES], 1, SIDE> = std::array::from_fn(|y| {
                std::array::from_fn(|x| [[(picture(y, x) * 255.0) as u8; LANES]])
            });
            for isa in Isa::available() {
                let (_, winner1) = conv1().run::<_, SIDE, POOL1_SIDE>(isa, &pixels);
                let (_, winner2) = conv2().run::<_, POOL1_SIDE, POOL2_SIDE>(isa, &input);
                let mut winners = winner1.as_flattened().iter().chain(winner2.as_flattened());
                assert!(winners.all(|winner| may_win.contains(winner)), "{isa:?}");
            }
        }
    }
}
