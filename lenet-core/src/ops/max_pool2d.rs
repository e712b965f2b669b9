//! Max-pooling, as plain loops.

/// Max-pooling over 2×2 windows, stride 2.
///
/// `out[c][y][x]` is the largest of `input[c][2y..2y+2][2x..2x+2]`; of equal values the first in row order, as in
/// PyTorch (it matters to the gradient, and to the sign of a zero).
///
/// # Shapes
/// * `input`: `(C, H, W)`
/// * `out`: `(C, OH, OW)` with `OH = H / 2`, `OW = W / 2`, both exact; overwritten. Other sizes do not compile.
///
/// # Numerics
/// Selects, never rounds. A NaN is taken only where it comes first in its window.
///
/// # Source
/// Same definition as `torch.nn.MaxPool2d(2)`, but for NaN.
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
    const { assert!(2 * OH == H && 2 * OW == W, "out must be (H/2, W/2)") }
    for (input, out) in input.iter().zip(out) {
        for (y, out_row) in out.iter_mut().enumerate() {
            for (x, out) in out_row.iter_mut().enumerate() {
                let [top, bottom] = [&input[2 * y], &input[2 * y + 1]];
                *out = first_max([top[2 * x], top[2 * x + 1], bottom[2 * x], bottom[2 * x + 1]]);
            }
        }
    }
}

/// The largest of a window in row order; of equal values the first.
#[inline(always)]
pub(super) fn first_max([mut largest, rest @ ..]: [f32; 4]) -> f32 {
    for value in rest {
        if value > largest {
            largest = value;
        }
    }
    largest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_window_gives_its_largest() {
        let input = [
            [[1.0, 2.0, 5.0, 0.0], [3.0, -4.0, 0.0, -6.0]],
            [[-1.0, -2.0, 7.0, 8.0], [-3.0, -4.0, 9.0, 6.0]],
        ];
        let mut out = [[[0.0; 2]; 1]; 2];
        max_pool2d(&input, &mut out);
        assert_eq!(out, [[[3.0, 5.0]], [[-1.0, 9.0]]]);
    }

    #[test]
    fn ties_take_the_first() {
        assert!(first_max([-0.0, 0.0, 0.0, -0.0]).is_sign_negative());
        assert!(first_max([-1.0, 0.0, -0.0, -2.0]).is_sign_positive());
    }
}
