//! Two-dimensional convolution as plain loops, which define what the kernel of a layer must compute.

/// Computes a two-dimensional convolution with stride 1 (a cross-correlation: the kernel is not flipped).
///
/// `out[o][y][x] = bias[o] + Σ input[c][y+i-P][x+j-P] · weight[o][c][i][j]` over `c`, `i`, `j`, where the input is bordered
/// with `P` rows and columns of zeros on each side. The padding `P` follows from the sizes.
///
/// # Shapes
/// * `input`: `(C_IN, H, W)`, any finite values; pixels are in 0..=1
/// * `weight`: `(C_OUT, C_IN, K, K)`
/// * `bias`: `(C_OUT)`
/// * `out`: `(C_OUT, OH, OW)` with `OH = H + 2·P - K + 1`, `OW = W + 2·P - K + 1`; overwritten. Other sizes do not compile.
///
/// # Numerics
/// Computes in f32. The sum starts from the bias and adds its terms in the order `c`, `i`, `j`, without fused multiply-add and
/// including the products with the padding's zeros, so host and board agree to the last bit. The error against exact arithmetic
/// is at most `γ·(|bias| + Σ|input·weight|)`, with `γ ≈ (C_IN·K² + 1)·2⁻²⁴`. NaN and infinity propagate.
///
/// # Cost
/// `C_OUT·OH·OW·C_IN·K²` multiply-adds; no scratch memory.
///
/// # Source
/// LeCun, Bottou, Bengio, Haffner: Gradient-based learning applied to document recognition, 1998, section II;
/// the same definition as `torch.nn.Conv2d`.
pub fn conv2d<
    const C_IN: usize,
    const C_OUT: usize,
    const H: usize,
    const W: usize,
    const K: usize,
    const OH: usize,
    const OW: usize,
>(
    input: &[[[f32; W]; H]; C_IN],
    weight: &[[[[f32; K]; K]; C_IN]; C_OUT],
    bias: &[f32; C_OUT],
    out: &mut [[[f32; OW]; OH]; C_OUT],
) {
    let padding = const { padding(H, W, K, OH, OW) };
    for ((out, weight), &bias) in out.iter_mut().zip(weight).zip(bias) {
        for (y, out_row) in out.iter_mut().enumerate() {
            for (x, out) in out_row.iter_mut().enumerate() {
                let mut sum = bias;
                for (input, weight) in input.iter().zip(weight) {
                    for (i, weight_row) in weight.iter().enumerate() {
                        for (j, &weight) in weight_row.iter().enumerate() {
                            // Above and left of the input the index wraps around to a large value, so `get` returns `None`.
                            let row = input.get((y + i).wrapping_sub(padding));
                            let value = row.and_then(|row| row.get((x + j).wrapping_sub(padding)));
                            sum += value.copied().unwrap_or(0.0) * weight;
                        }
                    }
                }
                *out = sum;
            }
        }
    }
}

/// Returns the padding of a convolution of these sizes, or stops the build with an error if there is none.
pub(crate) const fn padding(h: usize, w: usize, k: usize, oh: usize, ow: usize) -> usize {
    assert!(
        oh + k > h && ow + k > w && oh + k - h == ow + k - w && (oh + k - h) % 2 == 1,
        "out must be (H + 2P - K + 1, W + 2P - K + 1)"
    );
    (oh + k - h) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_a_border_of_zeros() {
        let input = [[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]];
        let weight = [[[[1.0, 10.0, 0.0], [0.0, 100.0, 0.0], [0.0, 0.0, 1000.0]]]];
        let mut out = [[[0.0; 3]; 2]];
        conv2d(&input, &weight, &[0.5], &mut out);
        assert_eq!(out, [[[5100.5, 6200.5, 300.5], [410.5, 521.5, 632.5]]]);
    }

    #[test]
    fn identity_kernel_copies_the_input() {
        let input = [[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]];
        let mut out = [[[0.0; 3]; 2]];
        conv2d(&input, &[[[[1.0]]]], &[0.0], &mut out);
        assert_eq!(out, input);
    }

    #[test]
    fn the_kernel_is_not_flipped_and_axes_are_not_swapped() {
        let input = [[
            [1.0, 2.0, 3.0, 4.0],
            [5.0, 6.0, 7.0, 8.0],
            [9.0, 10.0, 11.0, 12.0],
        ]];
        let mut out = [[[0.0; 3]; 2]];
        conv2d(
            &input,
            &[[[[1.0, 10.0], [100.0, 1000.0]]]],
            &[0.5],
            &mut out,
        );
        assert_eq!(
            out,
            [[[6521.5, 7632.5, 8743.5], [10965.5, 12076.5, 13187.5]]]
        );
    }

    #[test]
    fn channels_add_and_outputs_are_apart() {
        let input = [[[1.0]], [[10.0]]];
        let weight = [[[[1.0]], [[2.0]]], [[[3.0]], [[4.0]]], [[[5.0]], [[6.0]]]];
        let mut out = [[[0.0]]; 3];
        conv2d(&input, &weight, &[0.0, 100.0, 0.0], &mut out);
        assert_eq!(out, [[[21.0]], [[143.0]], [[65.0]]]);
    }
}
