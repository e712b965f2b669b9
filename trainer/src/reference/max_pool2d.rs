//! Gradient of max-pooling; the forward pass is `lenet_core::ops::max_pool2d`.

/// Hands each window's gradient to its largest element; of equal ones to the first in row order, as PyTorch does.
///
/// # Shapes
/// * `input`: `(C, H, W)`, what was pooled
/// * `grad_out`: `(C, OH, OW)` with `OH = H / 2`, `OW = W / 2`
/// * `grad_input`: `(C, H, W)`; overwritten
pub fn max_pool2d_grad<
    const C: usize,
    const H: usize,
    const W: usize,
    const OH: usize,
    const OW: usize,
>(
    input: &[[[f32; W]; H]; C],
    grad_out: &[[[f32; OW]; OH]; C],
    grad_input: &mut [[[f32; W]; H]; C],
) {
    const { assert!(2 * OH == H && 2 * OW == W, "grad_out must be (H/2, W/2)") }
    *grad_input = [[[0.0; W]; H]; C];
    for ((input, grad_out), grad_input) in input.iter().zip(grad_out).zip(grad_input) {
        for (y, grad_row) in grad_out.iter().enumerate() {
            for (x, &grad) in grad_row.iter().enumerate() {
                let (mut y_max, mut x_max) = (2 * y, 2 * x);
                for (i, j) in [(0, 1), (1, 0), (1, 1)] {
                    if input[2 * y + i][2 * x + j] > input[y_max][x_max] {
                        (y_max, x_max) = (2 * y + i, 2 * x + j);
                    }
                }
                grad_input[y_max][x_max] = grad;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_give_the_gradient_to_the_first() {
        let input = [[[1.0, 1.0, 0.0, 3.0], [1.0, 1.0, 3.0, 2.0]]];
        let mut grad_input = [[[9.0; 4]; 2]];
        max_pool2d_grad(&input, &[[[5.0, 7.0]]], &mut grad_input);
        assert_eq!(grad_input, [[[5.0, 0.0, 0.0, 7.0], [0.0; 4]]]);
    }
}
