//! Gradients of the fully connected layer; the forward pass is `lenet_core::ops::linear`.

/// Adds the gradients by weight and bias: `grad_weight[o][i] += grad_out[o] · input[i]`, `grad_bias[o] += grad_out[o]`.
///
/// # Shapes
/// * `input`: `(IN)`
/// * `grad_out`: `(OUT)`
/// * `grad_weight`: `(OUT, IN)`, `grad_bias`: `(OUT)`; added to
pub fn linear_grad_params<const IN: usize, const OUT: usize>(
    input: &[f32; IN],
    grad_out: &[f32; OUT],
    grad_weight: &mut [[f32; IN]; OUT],
    grad_bias: &mut [f32; OUT],
) {
    for ((&grad, grad_row), grad_bias) in grad_out.iter().zip(grad_weight).zip(grad_bias) {
        *grad_bias += grad;
        for (grad_weight, &input) in grad_row.iter_mut().zip(input) {
            *grad_weight += grad * input;
        }
    }
}

/// The gradient by the input: `grad_input[i] = Σ grad_out[o] · weight[o][i]`, summed upward in `o`.
///
/// # Shapes
/// * `weight`: `(OUT, IN)`
/// * `grad_out`: `(OUT)`
/// * `grad_input`: `(IN)`; overwritten
pub fn linear_grad_input<const IN: usize, const OUT: usize>(
    weight: &[[f32; IN]; OUT],
    grad_out: &[f32; OUT],
    grad_input: &mut [f32; IN],
) {
    grad_input.fill(0.0);
    for (&grad, row) in grad_out.iter().zip(weight) {
        for (grad_input, &weight) in grad_input.iter_mut().zip(row) {
            *grad_input += grad * weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let (mut grad_weight, mut grad_bias) = ([[1.0; 3]; 2], [0.0; 2]);
        linear_grad_params(
            &[1.0, 2.0, 3.0],
            &[10.0, -1.0],
            &mut grad_weight,
            &mut grad_bias,
        );
        assert_eq!(grad_weight, [[11.0, 21.0, 31.0], [0.0, -1.0, -2.0]]);
        assert_eq!(grad_bias, [10.0, -1.0]);

        let mut grad_input = [9.0; 3];
        linear_grad_input(
            &[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]],
            &[10.0, -1.0],
            &mut grad_input,
        );
        assert_eq!(grad_input, [6.0, 15.0, 24.0]);
    }
}
