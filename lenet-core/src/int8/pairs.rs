//! The convolution for cores with DSP instructions, where one instruction, [`smlad`], does two multiply-adds.
//!
//! [`smlad`] multiplies the 16-bit halves of two words. Therefore this module packs two bytes of the input into each word, and
//! two weights into the word by which it is multiplied. There are two ways to form the pairs:
//!
//! * If the number of channels is even, a pair is the same position in two channels.
//! * Otherwise a pair is the same column in two rows of the padded input, the upper of which has an even index. Of two rows of
//!   the output, the upper one multiplies these words by rows `(0,1)`, `(2,3)`, … of the kernel. The lower one multiplies the
//!   same words by rows `(-1,0)`, `(1,2)`, …, where a row that does not exist is 0.
//!
//! The words are on the stack: those of the input for a few rows of the output, including the padding, and those of the kernel
//! of one map. In both cases a row of the output is a sum over rows of words, which `row` computes four columns at a time.

use super::pool::{largest, mean};
use super::{EXCESS, Finish, Quantized};
use crate::layer::Pool;
use crate::plan::{Kind, Layer};
use lenet_asm::{pair_at, smlad};

/// The maximum number of words that a layer may put on the stack.
const MOST: usize = 600;
/// The number of columns of the output that are computed together.
const TILE: usize = 4;

/// The arrangement of a layer's words. All sizes and distances are counted in rows of words.
#[derive(Clone, Copy)]
struct Arrangement {
    /// The number of bands for which the words are prepared at once. A band is a pair of rows of the output.
    bands: usize,
    /// Whether channels are paired, rather than rows.
    channels: bool,
    /// The size of the input that all bands read.
    input: usize,
    /// The size of the kernel that one row of the output reads.
    kernel: usize,
    /// The number of kernels: 1, or 2 if the upper and the lower row of a band have different ones.
    kernels: usize,
    /// The distance from the input of a band to that of the next one.
    band: usize,
    /// The distance from the input of the upper row of a band to that of the lower row.
    lower: usize,
}

impl Arrangement {
    /// Returns the size of one row of the input or, if rows are paired, of one pair of rows.
    const fn group(self) -> usize {
        if self.channels { self.lower } else { self.band }
    }

    /// Returns the arrangement with as many bands, at most 4, as keep the number of words within [`MOST`].
    const fn of(layer: &Layer) -> Self {
        let mut bands = 4;
        while bands > 1 && Self::with(bands, layer).words(layer) > MOST {
            bands /= 2;
        }
        Self::with(bands, layer)
    }

    /// Returns the number of words on the stack.
    const fn words(self, layer: &Layer) -> usize {
        let [input, kernel, sums] = self.parts(layer);
        input + kernel + sums
    }

    /// Returns the numbers of words of the input, of the kernel, and of the sums of one band.
    const fn parts(self, layer: &Layer) -> [usize; 3] {
        [
            self.input * columns(layer),
            self.kernel * self.kernels * layer.kernel,
            2 * layer.pool.window() * layer.output[2],
        ]
    }

    const fn with(bands: usize, layer: &Layer) -> Self {
        let (channels, kernel) = (layer.input[0], layer.kernel);
        if channels.is_multiple_of(2) {
            let pairs = channels / 2;
            Self {
                bands,
                channels: true,
                input: (kernel - 1 + 2 * bands) * pairs,
                kernel: kernel * pairs,
                kernels: 1,
                band: 2 * pairs,
                lower: pairs,
            }
        } else {
            let pairs = (kernel + 2) / 2;
            Self {
                bands,
                channels: false,
                input: (pairs + bands - 1) * channels,
                kernel: pairs * channels,
                kernels: 2,
                band: channels,
                lower: 0,
            }
        }
    }
}

/// Returns the number of words that [`forward`] puts on the stack for a layer. Returns 0 if it does not compute the layer: for a
/// linear layer, for a pooling window of 3, and if there would be too many words.
pub const fn scratch(layer: &Layer) -> usize {
    let suits = match layer.kind {
        Kind::Conv2d => layer.pool.window() <= 2,
        Kind::Linear => false,
    };
    let words = Arrangement::of(layer).words(layer);
    if suits && words <= MOST { words } else { 0 }
}

/// Returns the number of words in a row of the input, including the padding.
const fn columns(layer: &Layer) -> usize {
    layer.input[2] + 2 * layer.padding
}

/// Computes the layer for windows of side `N`, which is 1 or 2: see [`conv2d::forward`](super::conv2d::forward).
#[inline(always)]
pub fn forward<
    Q: Quantized<Finish: Finish<Out = u8>>,
    const N: usize,
    const C: usize,
    const M: usize,
    const H: usize,
    const W: usize,
    const K: usize,
    const PH: usize,
    const PW: usize,
>(
    input: &[[[u8; W]; H]; C],
    weight: &[[[[u8; K]; K]; C]; M],
    bias: &[i32; M],
    finish: &[Q::Finish; M],
    out: &mut [[[u8; PW]; PH]; M],
) {
    // `conv2d::forward` chooses in a `match`, so this function is compiled for layers without scratch too, but never runs for them.
    const {
        assert!(
            size_of::<Q::Scratch>() == size_of::<u32>() * scratch(&Q::LAYER),
            "the scratch does not have the size of the words that are written there"
        );
    }
    let mut scratch: Q::Scratch = bytemuck::zeroed();
    let sizes = const { Arrangement::of(&Q::LAYER).parts(&Q::LAYER) };
    // Both splits succeed, because the assertion above has checked the length.
    let Some((inputs, rest)) = scratch.as_mut().split_at_mut_checked(sizes[0]) else {
        return;
    };
    let Some((kernel, sums)) = rest.split_at_mut_checked(sizes[1]) else {
        return;
    };
    let arrangement = const { Arrangement::of(&Q::LAYER) };
    let columns = const { columns(&Q::LAYER) };
    for y in (0..N * PH).step_by(const { 2 * Arrangement::of(&Q::LAYER).bands }) {
        fill::<Q, C, H, W>(input, y, inputs);
        let maps = weight.iter().zip(bias).zip(finish);
        for (out, ((weight, &bias), finish)) in out.iter_mut().zip(maps) {
            pair(weight, kernel);
            for band in 0..arrangement.bands {
                for (n, sums) in sums.chunks_exact_mut(N * PW).enumerate() {
                    let first = band * arrangement.band + n * arrangement.lower;
                    let inputs = inputs.get(first * columns..).unwrap_or_default();
                    let len = const { Arrangement::of(&Q::LAYER).kernel * K };
                    let start = if arrangement.kernels == 2 { n * len } else { 0 };
                    let kernel = kernel.get(start..start + len).unwrap_or_default();
                    row::<Q, N, W, K>(inputs, kernel, bias, sums);
                }
                let (upper, lower) = sums.split_at(N * PW);
                let y = y / N + 2 / N * band;
                if N == 2 {
                    let windows = upper
                        .as_chunks::<2>()
                        .0
                        .iter()
                        .zip(lower.as_chunks::<2>().0);
                    for (out, (upper, lower)) in out.get_mut(y).into_iter().flatten().zip(windows) {
                        let window = [upper, lower].map(|row| row.map(|sum| sum as i32));
                        *out = match const { Q::LAYER.pool } {
                            Pool::Average(_) => {
                                let sums = window.as_flattened().iter();
                                mean::<2>(sums.map(|&sum| u32::from(finish.finish::<Q>(sum))).sum())
                            }
                            _ => finish.finish::<Q>(largest(window)),
                        };
                    }
                } else {
                    for (out, sums) in out.iter_mut().skip(y).zip([upper, lower]) {
                        for (out, &sum) in out.iter_mut().zip(sums) {
                            *out = finish.finish::<Q>(sum as i32);
                        }
                    }
                }
            }
        }
    }
}

/// Writes the words of the input for the bands that start at row `y` of the output.
#[inline(always)]
fn fill<Q: Quantized, const C: usize, const H: usize, const W: usize>(
    input: &[[[u8; W]; H]; C],
    y: usize,
    words: &mut [u32],
) {
    let padding = const { Q::LAYER.padding };
    let arrangement = const { Arrangement::of(&Q::LAYER) };
    let border = const { Q::INPUT_ZERO as u32 | (Q::INPUT_ZERO as u32) << 16 };
    let rows = words.chunks_exact_mut(const { columns(&Q::LAYER) });
    for (row, words) in rows.enumerate() {
        let (n, m) = (row / arrangement.group(), row % arrangement.group());
        let [low, high] = if arrangement.channels {
            [(2 * m, y + n), (2 * m + 1, y + n)]
        } else {
            [(m, y + 2 * n), (m, y + 2 * n + 1)]
        };
        let bytes = |(c, y): (usize, usize)| {
            // Above the input the index wraps around to a large value, and below it is too large, so `get` returns `None`.
            let row = input
                .get(c)
                .and_then(|map| map.get(y.wrapping_sub(padding)));
            row.unwrap_or(const { &[Q::INPUT_ZERO; W] })
        };
        let (before, rest) = words.split_at_mut(padding);
        let (inner, after) = rest.split_at_mut(W);
        before.fill(border);
        after.fill(border);
        for (word, (&low, &high)) in inner.iter_mut().zip(bytes(low).iter().zip(bytes(high))) {
            *word = u32::from(low) | u32::from(high) << 16;
        }
    }
}

/// Writes the words of the kernel of one map.
#[inline(always)]
fn pair<const C: usize, const K: usize>(weight: &[[[u8; K]; K]; C], words: &mut [u32]) {
    let pack = |low: i32, high: i32| (low as u32 & 0xffff) | (high as u32) << 16;
    let at = |c: usize, i: usize, j: usize| match weight[c].get(i) {
        Some(row) => i32::from(row[j]) - EXCESS,
        None => 0,
    };
    if C.is_multiple_of(2) {
        for (i, words) in words.chunks_exact_mut(C / 2 * K).enumerate() {
            for (pair, words) in words.chunks_exact_mut(K).enumerate() {
                for (j, word) in words.iter_mut().enumerate() {
                    *word = pack(at(2 * pair, i, j), at(2 * pair + 1, i, j));
                }
            }
        }
        return;
    }
    let (upper, lower) = words.split_at_mut(words.len() / 2);
    let pairs = upper
        .chunks_exact_mut(C * K)
        .zip(lower.chunks_exact_mut(C * K));
    for (pair, (upper, lower)) in pairs.enumerate() {
        let rows = upper.chunks_exact_mut(K).zip(lower.chunks_exact_mut(K));
        for (c, (upper, lower)) in rows.enumerate() {
            for (j, (upper, lower)) in upper.iter_mut().zip(lower).enumerate() {
                *upper = pack(at(c, 2 * pair, j), at(c, 2 * pair + 1, j));
                *lower = pack(at(c, (2 * pair).wrapping_sub(1), j), at(c, 2 * pair, j));
            }
        }
    }
}

/// Computes the sums of one row of the output.
#[inline(always)]
fn row<Q: Quantized, const N: usize, const W: usize, const K: usize>(
    inputs: &[u32],
    kernel: &[u32],
    bias: i32,
    sums: &mut [u32],
) {
    let columns = const { columns(&Q::LAYER) };
    let (tiles, rest) = sums.as_chunks_mut::<TILE>();
    for (n, sums) in tiles.iter_mut().enumerate() {
        *sums = tile::<TILE, K>(inputs, columns, kernel, TILE * n, bias);
    }
    let start = TILE * tiles.len();
    for (n, sums) in rest.as_chunks_mut::<N>().0.iter_mut().enumerate() {
        *sums = tile::<N, K>(inputs, columns, kernel, start + N * n, bias);
    }
}

/// Returns the sums of `T` columns, starting at column `x`.
#[inline(always)]
fn tile<const T: usize, const K: usize>(
    inputs: &[u32],
    columns: usize,
    kernel: &[u32],
    x: usize,
    bias: i32,
) -> [u32; T] {
    let mut sums = [bias as u32; T];
    for (inputs, kernel) in inputs.chunks_exact(columns).zip(kernel.chunks_exact(K)) {
        if let Some(inputs) = inputs.get(x..x + T + K - 1) {
            sums = products::<T, K>(inputs, kernel, sums);
        }
    }
    sums
}

/// Adds the products of one row of words, for `T` columns. It loads two words at a time, when they are first needed.
// The columns of the kernel are unrolled in the source, because the compiler does not unroll such a loop.
#[inline(always)]
fn products<const T: usize, const K: usize>(
    inputs: &[u32],
    kernel: &[u32],
    mut sums: [u32; T],
) -> [u32; T] {
    let mut input = [0; TILE + 7];
    let mut weight = [0; 2];
    macro_rules! columns {
        ($($column:literal $even:literal),*) => {$(
            if $column < K {
                // This column of the kernel reads `T` inputs, starting at its own index.
                inputs!($column: 0, 2, 4, 6, 8);
                if $column == $even {
                    weight = pair_at::<$even>(kernel);
                }
                for (n, sum) in sums.iter_mut().enumerate() {
                    *sum = smlad(weight[$column - $even], input[n + $column], *sum);
                }
            }
        )*};
    }
    macro_rules! inputs {
        ($column:literal: $($at:literal),*) => {$(
            if $column == ($at + 1usize).saturating_sub(T) {
                [input[$at], input[$at + 1]] = pair_at::<$at>(inputs);
            }
        )*};
    }
    columns!(0 0, 1 0, 2 2, 3 2, 4 4, 5 4, 6 6);
    sums
}
