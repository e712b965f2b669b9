//! The gradients of the fully connected layer with its activation. The forward pass is `lenet_core::layer::linear`.

use lenet_core::layer::Layered;

/// Adds the weight and bias gradients, and computes the input gradient.
///
/// With `grad = grad_out[o] · activation'(out[o])`: `grad_weight[o][i] += grad · input[i]`, `grad_bias[o] += grad`,
/// `grad_input[i] = Σ grad · weight[o][i]`, summed in ascending order of `o`.
///
/// # Shapes
/// * `input`, `grad_input`: `(IN)`; `grad_input` is overwritten
/// * `weight`, `grad_weight`: `(OUT, IN)`; `grad_weight` is added to
/// * `grad_bias`: `(OUT)`; it is added to
/// * `out`: `(OUT)`, the output of the forward pass
/// * `grad_out`: `(OUT)`
#[allow(clippy::too_many_arguments)]
pub fn backward<L: Layered, const IN: usize, const OUT: usize>(
    _: L,
    input: &[f32; IN],
    weight: &[[f32; IN]; OUT],
    _bias: &[f32; OUT],
    out: &[f32; OUT],
    grad_out: &[f32; OUT],
    grad_weight: &mut [[f32; IN]; OUT],
    grad_bias: &mut [f32; OUT],
    grad_input: &mut [f32; IN],
) {
    grad_input.fill(0.0);
    for o in 0..OUT {
        let grad = grad_out[o] * L::LAYER.activation.derivative(out[o]);
        grad_bias[o] += grad;
        for i in 0..IN {
            grad_weight[o][i] += grad * input[i];
            grad_input[i] += grad * weight[o][i];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lenet_core::layer::linear::Spec;
    use lenet_core::plan::Layer;

    #[test]
    fn gradients_worked_out_on_paper() {
        #[derive(Clone, Copy)]
        struct Plain;
        impl Layered for Plain {
            const LAYER: Layer = Spec {
                outputs: 2,
                ..Spec::DEFAULT
            }
            .layer("fc", [3, 1, 1]);
        }
        let (mut grad_weight, mut grad_bias) = ([[1.0; 3]; 2], [0.0; 2]);
        let mut grad_input = [9.0; 3];
        backward(
            Plain,
            &[1.0, 2.0, 3.0],
            &[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]],
            &[0.0; 2],
            &[0.0; 2],
            &[10.0, -1.0],
            &mut grad_weight,
            &mut grad_bias,
            &mut grad_input,
        );
        assert_eq!(grad_weight, [[11.0, 21.0, 31.0], [0.0, -1.0, -2.0]]);
        assert_eq!(grad_bias, [10.0, -1.0]);
        assert_eq!(grad_input, [6.0, 15.0, 24.0]);
    }
}
