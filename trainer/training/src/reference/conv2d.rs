//! The gradients of the convolution with its pooling and activation. The forward pass is `lenet_core::layer::conv2d`.

use lenet_core::layer::{Layered, Pool};

/// Adds the weight and bias gradients, and computes the input gradient.
///
/// # Shapes
/// * `input`, `grad_input`: `(C, H, W)`; `grad_input` is overwritten
/// * `weight`, `grad_weight`: `(M, C, K, K)`; `grad_weight` is added to
/// * `bias`, `grad_bias`: `(M)`; `grad_bias` is added to
/// * `out`: `(M, PH, PW)`, the output of the forward pass
/// * `grad_out`: `(M, PH, PW)`
///
/// # Numerics
/// f32. The forward pass does not store the convolution's outputs, so this function computes them again to find the winner of
/// each window. The gradient of a window goes to its largest element, of equal ones to the first in row order, as in PyTorch.
/// With average pooling, each element gets its share. An image's weight gradient is summed over `y`, then `x`, then added to
/// `grad_weight`. The input gradient is summed over the maps, then over the outputs in row order.
#[allow(clippy::too_many_arguments)]
pub fn backward<
    L: Layered,
    const C: usize,
    const M: usize,
    const H: usize,
    const W: usize,
    const K: usize,
    const PH: usize,
    const PW: usize,
>(
    _: L,
    input: &[[[f32; W]; H]; C],
    weight: &[[[[f32; K]; K]; C]; M],
    bias: &[f32; M],
    out: &[[[f32; PW]; PH]; M],
    grad_out: &[[[f32; PW]; PH]; M],
    grad_weight: &mut [[[[f32; K]; K]; C]; M],
    grad_bias: &mut [f32; M],
    grad_input: &mut [[[f32; W]; H]; C],
) {
    let (padding, pool, activation) = (L::LAYER.padding, L::LAYER.pool, L::LAYER.activation);
    let n = pool.window();
    *grad_input = [[[0.0; W]; H]; C];
    let mut grad_conv = vec![vec![0.0; n * PW]; n * PH];
    for m in 0..M {
        for (py, px) in (0..PH * PW).map(|p| (p / PW, p % PW)) {
            let grad = grad_out[m][py][px];
            let window = (0..n * n).map(|q| (n * py + q / n, n * px + q % n));
            let conv = window.map(|(y, x)| {
                let sum = convolved(input, &weight[m], bias[m], padding, y, x);
                (y, x, sum)
            });
            if let Pool::Average(_) = pool {
                let share = grad / (n * n) as f32;
                for (y, x, sum) in conv {
                    grad_conv[y][x] = share * activation.derivative(activation.of(sum));
                }
            } else {
                let mut largest = (n * py, n * px, f32::NEG_INFINITY);
                for (y, x, sum) in conv {
                    grad_conv[y][x] = 0.0;
                    if sum > largest.2 {
                        largest = (y, x, sum);
                    }
                }
                grad_conv[largest.0][largest.1] = grad * activation.derivative(out[m][py][px]);
            }
        }

        grad_bias[m] += grad_conv.iter().flatten().sum::<f32>();
        for c in 0..C {
            let mut sums = [[0.0; K]; K];
            for (y, grad_row) in grad_conv.iter().enumerate() {
                for (x, &grad) in grad_row.iter().enumerate() {
                    for (i, j) in taps::<H, W, K>(padding, y, x) {
                        let (y, x) = (y + i - padding, x + j - padding);
                        sums[i][j] += grad * input[c][y][x];
                        grad_input[c][y][x] += grad * weight[m][c][i][j];
                    }
                }
            }
            let grad_weight = grad_weight[m][c].as_flattened_mut().iter_mut();
            grad_weight
                .zip(sums.as_flattened())
                .for_each(|(grad, sum)| *grad += sum);
        }
    }
}

/// Returns an output of the convolution, with the same bits as `lenet_core::ops::conv2d`.
fn convolved<const C: usize, const H: usize, const W: usize, const K: usize>(
    input: &[[[f32; W]; H]; C],
    weight: &[[[f32; K]; K]; C],
    bias: f32,
    padding: usize,
    y: usize,
    x: usize,
) -> f32 {
    let mut sum = bias;
    for (input, weight) in input.iter().zip(weight) {
        for (i, j) in taps::<H, W, K>(padding, y, x) {
            sum += input[y + i - padding][x + j - padding] * weight[i][j];
        }
    }
    sum
}

/// Returns the taps of the kernel that meet the input, not the padding, for an output of the convolution.
fn taps<const H: usize, const W: usize, const K: usize>(
    padding: usize,
    y: usize,
    x: usize,
) -> impl Iterator<Item = (usize, usize)> {
    (0..K * K)
        .map(|tap| (tap / K, tap % K))
        .filter(move |&(i, j)| {
            (padding..H + padding).contains(&(y + i)) && (padding..W + padding).contains(&(x + j))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use lenet_core::layer::Activation;
    use lenet_core::layer::conv2d::Spec;
    use lenet_core::plan::Layer;

    #[test]
    fn gradients_of_a_plain_convolution_worked_out_on_paper() {
        #[derive(Clone, Copy)]
        struct Plain;
        impl Layered for Plain {
            const LAYER: Layer = Spec {
                maps: 2,
                kernel: 2,
                ..Spec::DEFAULT
            }
            .layer("conv", [1, 2, 3]);
        }
        let input = [[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]];
        let grad_out = [[[1.0, 10.0]], [[100.0, 0.0]]];
        let weight = [[[[1.0, 2.0], [3.0, 4.0]]], [[[5.0, 6.0], [7.0, 8.0]]]];
        let (mut grad_weight, mut grad_bias) = ([[[[0.5; 2]; 2]]; 2], [0.5; 2]);
        let mut grad_input = [[[9.0; 3]; 2]];
        backward(
            Plain,
            &input,
            &weight,
            &[0.0; 2],
            &[[[0.0; 2]]; 2],
            &grad_out,
            &mut grad_weight,
            &mut grad_bias,
            &mut grad_input,
        );
        assert_eq!(
            grad_weight,
            [
                [[[21.5, 32.5], [54.5, 65.5]]],
                [[[100.5, 200.5], [400.5, 500.5]]]
            ]
        );
        assert_eq!(grad_bias, [11.5, 100.5]);
        assert_eq!(grad_input, [[[501.0, 612.0, 20.0], [703.0, 834.0, 40.0]]]);
    }

    #[test]
    fn ties_give_the_gradient_to_the_first() {
        #[derive(Clone, Copy)]
        struct Pooled;
        impl Layered for Pooled {
            const LAYER: Layer = Spec {
                maps: 1,
                kernel: 1,
                pool: Pool::Max(2),
                activation: Activation::Identity,
                ..Spec::DEFAULT
            }
            .layer("conv", [1, 2, 4]);
        }
        let input = [[[1.0, 1.0, 0.0, 3.0], [1.0, 1.0, 3.0, 2.0]]];
        let mut grad_input = [[[9.0; 4]; 2]];
        backward(
            Pooled,
            &input,
            &[[[[1.0]]]],
            &[0.0],
            &[[[1.0, 3.0]]],
            &[[[5.0, 7.0]]],
            &mut [[[[0.0]]]],
            &mut [0.0],
            &mut grad_input,
        );
        assert_eq!(grad_input, [[[5.0, 0.0, 0.0, 7.0], [0.0; 4]]]);
    }
}
