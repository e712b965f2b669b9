//! Gradient of the sigmoid.

/// `grad[i] *= out[i] * (1 - out[i])`: turns the gradient by the sigmoid's output into that by its input.
///
/// # Shapes
/// * `out`: `(N)`, the sigmoid's output
/// * `grad`: `(N)`; overwritten
pub fn sigmoid_grad<const N: usize>(out: &[f32; N], grad: &mut [f32; N]) {
    for (grad, &out) in grad.iter_mut().zip(out) {
        *grad *= out * (1.0 - out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_a_quarter_in_the_middle_and_nothing_at_the_ends() {
        let mut grad = [2.0; 3];
        sigmoid_grad(&[0.0, 0.5, 1.0], &mut grad);
        assert_eq!(grad, [0.0, 0.5, 0.0]);
    }
}
