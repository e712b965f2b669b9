//! The convolution with its pooling and activation, fused into one kernel.
//!
//! Maximum pooling takes the largest sum, because the conversion to a byte is monotone. Average pooling takes the mean of the
//! bytes, after the activation.
//!
//! The kernel computes one window of the pooled output after another. The sums of the inputs, which all maps need, are computed
//! once per window. Then it adds up the products of each map, one row of the window at a time, in registers. Only windows that
//! touch the padding check each index.

use super::pool::{largest, mean};
use super::{EXCESS, Finish, LEAST_HEADROOM, Quantized, headroom, pairs};
use crate::layer::Pool;
use crate::plan::Layer;
use lenet_asm::{DSP, pin, pin_slice};

/// Computes the layer: convolution, pooling and activation.
///
/// # Shapes
/// * `input`: `(C, H, W)`
/// * `weight`: `(M, C, K, K)`, each weight plus 128
/// * `bias`, `finish`: `(M)`
/// * `out`: `(M, PH, PW)`, where `N` is the side of the pooling window, `P` the padding, `PH = (H + 2·P - K + 1) / N` and
///   `PW = (W + 2·P - K + 1) / N`; overwritten
///
/// # Numerics
/// The sums are exact. See [`Finish`] and [`mean`] for the rounding.
///
/// # Cost
/// The multiply-adds of the convolution, plus those of one more map for the sums of the inputs.
#[cfg_attr(not(target_os = "none"), inline(always))]
pub fn forward<
    Q: Quantized<Finish: Finish<Out = u8>>,
    const C: usize,
    const M: usize,
    const H: usize,
    const W: usize,
    const K: usize,
    const PH: usize,
    const PW: usize,
>(
    _: Q,
    input: &[[[u8; W]; H]; C],
    weight: &[[[[u8; K]; K]; C]; M],
    bias: &[i32; M],
    finish: &[Q::Finish; M],
    out: &mut [[[u8; PW]; PH]; M],
) {
    const {
        assert!(headroom(&Q::LAYER) >= LEAST_HEADROOM);
        let Layer {
            input,
            kernel,
            output,
            ..
        } = Q::LAYER;
        assert!(input[0] == C && input[1] == H && input[2] == W && kernel == K);
        assert!(output[0] == M && output[1] == PH && output[2] == PW);
    }
    let (window, paired) = const { (Q::LAYER.pool.window(), DSP && size_of::<Q::Scratch>() > 0) };
    match (window, paired) {
        (1, true) => {
            pairs::forward::<Q, 1, C, M, H, W, K, PH, PW>(input, weight, bias, finish, out)
        }
        (2, true) => {
            pairs::forward::<Q, 2, C, M, H, W, K, PH, PW>(input, weight, bias, finish, out)
        }
        (1, _) => windows::<Q, 1, C, M, H, W, K, PH, PW>(input, weight, bias, finish, out),
        (2, _) => windows::<Q, 2, C, M, H, W, K, PH, PW>(input, weight, bias, finish, out),
        _ => windows::<Q, 3, C, M, H, W, K, PH, PW>(input, weight, bias, finish, out),
    }
}

/// The most inputs that a row of a window can read: a window of 3 with a kernel of 7.
const WIDEST: usize = 3 + 7 - 1;

/// Computes all windows of side `N`.
#[inline(always)]
fn windows<
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
    let padding = const { Q::LAYER.padding };
    for y in 0..PH {
        for x in 0..PW {
            // The first row and column of the input that the window reads. In the padding they wrap around to large values.
            let (from_y, from_x) = ((N * y).wrapping_sub(padding), (N * x).wrapping_sub(padding));
            let inside = from_y < const { (H + 2).saturating_sub(N + K) }
                && from_x < const { (W + 2).saturating_sub(N + K) };
            let at = (y, x);
            if padding == 0 {
                let row = |c: usize, i: usize| {
                    let row = pin_slice(&input[c][from_y + i][from_x..from_x + N + K - 1]);
                    move |j: usize| row[j]
                };
                window::<Q, N, C, M, K, PH, PW, _>(row, weight, bias, finish, at, out);
            } else if inside {
                // The compiler cannot always show that these rows exist, and an index would then leave a panic in the program.
                let row = |c: usize, i: usize| {
                    let row = input[c].get(from_y + i);
                    let row = row.and_then(|row| row.get(from_x..from_x + N + K - 1));
                    let row = row.unwrap_or(&const { [Q::INPUT_ZERO; WIDEST] }[..N + K - 1]);
                    let row = pin_slice(row);
                    move |j: usize| row[j]
                };
                window::<Q, N, C, M, K, PH, PW, _>(row, weight, bias, finish, at, out);
            } else {
                let row = |c: usize, i: usize| {
                    let row = input[c].get(from_y.wrapping_add(i));
                    move |j: usize| {
                        let value = row.and_then(|row| row.get(from_x.wrapping_add(j)));
                        value.copied().unwrap_or(const { Q::INPUT_ZERO })
                    }
                };
                window::<Q, N, C, M, K, PH, PW, _>(row, weight, bias, finish, at, out);
            }
        }
    }
}

/// Computes one window of every map. `input` takes a channel and a row of what the window reads, and returns a function of the column.
#[inline(always)]
fn window<
    Q: Quantized<Finish: Finish<Out = u8>>,
    const N: usize,
    const C: usize,
    const M: usize,
    const K: usize,
    const PH: usize,
    const PW: usize,
    R: Fn(usize) -> u8,
>(
    input: impl Fn(usize, usize) -> R,
    weight: &[[[[u8; K]; K]; C]; M],
    bias: &[i32; M],
    finish: &[Q::Finish; M],
    (y, x): (usize, usize),
    out: &mut [[[u8; PW]; PH]; M],
) {
    let excess: [[u32; N]; N] = core::array::from_fn(|dy| {
        products::<N, C, K, _, _>(|c, i| input(c, dy + i), |_, _| |_| 1)
            .map(|ones| ones.wrapping_mul(EXCESS as u32))
    });
    let maps = weight.iter().zip(bias).zip(finish);
    for (out, ((weight, bias), finish)) in out.iter_mut().zip(maps) {
        let sums: [[i32; N]; N] = core::array::from_fn(|dy| {
            let weight = |c: usize, i: usize| {
                let row = pin_slice(&weight[c][i]);
                move |j: usize| row[j]
            };
            let row = products::<N, C, K, _, _>(|c, i| input(c, dy + i), weight);
            core::array::from_fn(|dx| {
                (row[dx] as i32)
                    .wrapping_sub(excess[dy][dx] as i32)
                    .wrapping_add(*bias)
            })
        });
        out[y][x] = match const { Q::LAYER.pool } {
            Pool::Whole | Pool::Max(_) => finish.finish::<Q>(largest(sums)),
            Pool::Average(_) => {
                let bytes = sums.as_flattened().iter();
                mean::<N>(bytes.map(|&sum| u32::from(finish.finish::<Q>(sum))).sum())
            }
        };
    }
}

/// Returns the sums of products of `N` neighbouring outputs in a row.
///
/// The order is pinned, so that a loaded weight is used for all outputs before the next one is loaded.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
fn products<
    const N: usize,
    const C: usize,
    const K: usize,
    R: Fn(usize) -> u8,
    S: Fn(usize) -> u8,
>(
    input: impl Fn(usize, usize) -> R,
    weight: impl Fn(usize, usize) -> S,
) -> [u32; N] {
    let mut sums = [0u32; N];
    for c in 0..C {
        for i in 0..K {
            let (input, weight) = (input(c, i), weight(c, i));
            for j in 0..K {
                let weight = u32::from(weight(j));
                for n in 0..N {
                    let product = weight * u32::from(input(n + j));
                    sums[n] = pin(sums[n].wrapping_add(product));
                }
            }
        }
    }
    sums
}
