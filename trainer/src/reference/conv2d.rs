//! Gradients of the convolution; the forward pass is `lenet_core::ops::conv2d`.

/// Adds the gradients by weight and bias:
/// `grad_weight[o][c][i][j] += Σ grad_out[o][y][x] · input[c][y+i][x+j]`, `grad_bias[o] += Σ grad_out[o][y][x]`.
///
/// # Shapes
/// * `input`: `(C_IN, H, W)`
/// * `grad_out`: `(C_OUT, OH, OW)` with `OH = H - K + 1`, `OW = W - K + 1`
/// * `grad_weight`: `(C_OUT, C_IN, K, K)`, `grad_bias`: `(C_OUT)`; added to
///
/// # Numerics
/// Each image's sum is formed apart, then added: f32, over `y`, then `x`.
pub fn conv2d_grad_params<
    const C_IN: usize,
    const C_OUT: usize,
    const H: usize,
    const W: usize,
    const K: usize,
    const OH: usize,
    const OW: usize,
>(
    input: &[[[f32; W]; H]; C_IN],
    grad_out: &[[[f32; OW]; OH]; C_OUT],
    grad_weight: &mut [[[[f32; K]; K]; C_IN]; C_OUT],
    grad_bias: &mut [f32; C_OUT],
) {
    const {
        assert!(
            OH + K == H + 1 && OW + K == W + 1,
            "grad_out must be (H-K+1, W-K+1)"
        )
    }
    for ((grad_out, grad_weight), grad_bias) in grad_out.iter().zip(grad_weight).zip(grad_bias) {
        *grad_bias += grad_out.iter().flatten().sum::<f32>();
        for (input, grad_weight) in input.iter().zip(grad_weight) {
            let mut sums = [[0.0; K]; K];
            for (y, grad_row) in grad_out.iter().enumerate() {
                for (x, &grad) in grad_row.iter().enumerate() {
                    for (i, sum_row) in sums.iter_mut().enumerate() {
                        for (j, sum) in sum_row.iter_mut().enumerate() {
                            *sum += grad * input[y + i][x + j];
                        }
                    }
                }
            }
            for (grad_weight, sum) in grad_weight
                .as_flattened_mut()
                .iter_mut()
                .zip(sums.as_flattened())
            {
                *grad_weight += sum;
            }
        }
    }
}

/// The gradient by the input: `grad_input[c][y+i][x+j] = Σ grad_out[o][y][x] · weight[o][c][i][j]`.
///
/// # Shapes
/// * `weight`: `(C_OUT, C_IN, K, K)`
/// * `grad_out`: `(C_OUT, OH, OW)` with `OH = H - K + 1`, `OW = W - K + 1`
/// * `grad_input`: `(C_IN, H, W)`; overwritten
pub fn conv2d_grad_input<
    const C_IN: usize,
    const C_OUT: usize,
    const H: usize,
    const W: usize,
    const K: usize,
    const OH: usize,
    const OW: usize,
>(
    weight: &[[[[f32; K]; K]; C_IN]; C_OUT],
    grad_out: &[[[f32; OW]; OH]; C_OUT],
    grad_input: &mut [[[f32; W]; H]; C_IN],
) {
    const {
        assert!(
            OH + K == H + 1 && OW + K == W + 1,
            "grad_out must be (H-K+1, W-K+1)"
        )
    }
    *grad_input = [[[0.0; W]; H]; C_IN];
    for (grad_out, weight) in grad_out.iter().zip(weight) {
        for (weight, grad_input) in weight.iter().zip(grad_input.iter_mut()) {
            for (y, grad_row) in grad_out.iter().enumerate() {
                for (x, &grad) in grad_row.iter().enumerate() {
                    for (i, weight_row) in weight.iter().enumerate() {
                        for (j, &weight) in weight_row.iter().enumerate() {
                            grad_input[y + i][x + j] += grad * weight;
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INPUT: [[[f32; 3]; 2]; 1] = [[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]];
    const GRAD_OUT: [[[f32; 2]; 1]; 2] = [[[1.0, 10.0]], [[100.0, 0.0]]];

    #[test]
    fn gradients_by_weight_and_bias_by_hand() {
        let (mut grad_weight, mut grad_bias) = ([[[[0.5; 2]; 2]]; 2], [0.5; 2]);
        conv2d_grad_params(&INPUT, &GRAD_OUT, &mut grad_weight, &mut grad_bias);
        assert_eq!(
            grad_weight,
            [
                [[[21.5, 32.5], [54.5, 65.5]]],
                [[[100.5, 200.5], [400.5, 500.5]]]
            ]
        );
        assert_eq!(grad_bias, [11.5, 100.5]);
    }

    #[test]
    fn gradient_by_input_by_hand() {
        let weight = [[[[1.0, 2.0], [3.0, 4.0]]], [[[5.0, 6.0], [7.0, 8.0]]]];
        let mut grad_input = [[[9.0; 3]; 2]];
        conv2d_grad_input(&weight, &GRAD_OUT, &mut grad_input);
        assert_eq!(grad_input, [[[501.0, 612.0, 20.0], [703.0, 834.0, 40.0]]]);
    }
}
