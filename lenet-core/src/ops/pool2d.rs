//! Maximum and average pooling as plain loops, which define what the kernel of a layer must compute.

/// Computes maximum pooling over windows of side `N = H / OH`, with the same stride.
///
/// `out[c][y][x]` is the largest of `input[c][N·y..N·(y+1)][N·x..N·(x+1)]`. Of equal values it is the first in row order, as in
/// PyTorch, which matters to the gradient and to the sign of a zero.
///
/// # Shapes
/// * `input`: `(C, H, W)`
/// * `out`: `(C, OH, OW)` with `OH = H / N`, `OW = W / N`, both exact; overwritten. Other sizes do not compile.
///
/// # Numerics
/// Does not round. The result is NaN only where a NaN comes first in its window.
///
/// # Source
/// The same definition as `torch.nn.MaxPool2d(N)`, except for NaN.
pub fn max_pool2d<
    const C: usize,
    const H: usize,
    const W: usize,
    const OH: usize,
    const OW: usize,
>(
    input: &[[[f32; W]; H]; C],
    out: &mut [[[f32; OW]; OH]; C],
) {
    let n = const { window(H, W, OH, OW) };
    for_each_window(input, out, n, |window| {
        window.reduce(larger).unwrap_or_default()
    });
}

/// Computes average pooling over windows of side `N = H / OH`, with the same stride.
///
/// `out[c][y][x]` is the mean of `input[c][N·y..N·(y+1)][N·x..N·(x+1)]`.
///
/// # Shapes
/// As for [`max_pool2d`].
///
/// # Numerics
/// Computes in f32. The values are added in row order, starting from the first, and the sum is divided by `N²`. NaN and
/// infinity propagate.
///
/// # Source
/// The same definition as `torch.nn.AvgPool2d(N)`.
pub fn average_pool2d<
    const C: usize,
    const H: usize,
    const W: usize,
    const OH: usize,
    const OW: usize,
>(
    input: &[[[f32; W]; H]; C],
    out: &mut [[[f32; OW]; OH]; C],
) {
    let n = const { window(H, W, OH, OW) };
    for_each_window(input, out, n, |window| {
        window.reduce(|sum, x| sum + x).unwrap_or_default() / (n * n) as f32
    });
}

/// Returns the side of the windows for these sizes, or stops the build with an error if they do not fit.
const fn window(h: usize, w: usize, oh: usize, ow: usize) -> usize {
    assert!(
        h.is_multiple_of(oh) && w.is_multiple_of(ow) && h / oh == w / ow,
        "out must be (H / N, W / N)"
    );
    h / oh
}

fn for_each_window<
    const C: usize,
    const H: usize,
    const W: usize,
    const OH: usize,
    const OW: usize,
>(
    input: &[[[f32; W]; H]; C],
    out: &mut [[[f32; OW]; OH]; C],
    n: usize,
    pool: impl Fn(&mut dyn Iterator<Item = f32>) -> f32,
) {
    for (input, out) in input.iter().zip(out) {
        for (rows, out) in input.chunks_exact(n).zip(out) {
            for (x, out) in out.iter_mut().enumerate() {
                let columns = rows.iter().flat_map(|row| row.iter().skip(n * x).take(n));
                *out = pool(&mut columns.copied());
            }
        }
    }
}

/// Returns the larger of two values. Returns `a` if they are equal or if either is NaN.
#[inline(always)]
pub(crate) fn larger(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

/// Returns the largest value of a window, and of equal values the first in row order.
#[inline(always)]
pub(crate) fn first_max<const N: usize>(window: [[f32; N]; N]) -> f32 {
    let mut largest = window[0][0];
    for value in window.as_flattened().iter().skip(1) {
        largest = larger(largest, *value);
    }
    largest
}

#[cfg(test)]
mod tests {
    use super::*;

    const INPUT: [[[f32; 4]; 2]; 2] = [
        [[1.0, 2.0, 5.0, 0.0], [3.0, -4.0, 0.0, -6.0]],
        [[-1.0, -2.0, 7.0, 8.0], [-3.0, -4.0, 9.0, 6.0]],
    ];

    #[test]
    fn each_window_gives_its_largest() {
        let mut out = [[[0.0; 2]; 1]; 2];
        max_pool2d(&INPUT, &mut out);
        assert_eq!(out, [[[3.0, 5.0]], [[-1.0, 9.0]]]);
    }

    #[test]
    fn each_window_gives_its_mean() {
        let mut out = [[[0.0; 2]; 1]; 2];
        average_pool2d(&INPUT, &mut out);
        assert_eq!(out, [[[0.5, -0.25]], [[-2.5, 7.5]]]);
    }

    #[test]
    fn windows_may_be_three_wide() {
        let input = [[
            [1.0, 2.0, 3.0, 0.0, 0.0, 0.0],
            [4.0, 5.0, 6.0, 0.0, -1.0, 0.0],
            [7.0, 8.0, 9.0, 0.0, 0.0, 10.0],
        ]];
        let mut out = [[[0.0; 2]; 1]];
        max_pool2d(&input, &mut out);
        assert_eq!(out, [[[9.0, 10.0]]]);
        average_pool2d(&input, &mut out);
        assert_eq!(out, [[[5.0, 1.0]]]);
    }

    #[test]
    fn ties_take_the_first() {
        assert!(first_max([[-0.0, 0.0], [0.0, -0.0]]).is_sign_negative());
        assert!(first_max([[-1.0, 0.0], [-0.0, -2.0]]).is_sign_positive());
        let mut out = [[[1.0]]];
        max_pool2d(&[[[-0.0, 0.0], [0.0, -0.0]]], &mut out);
        assert!(out[0][0][0].is_sign_negative());
    }
}
