//! Softmax cross-entropy: the loss and its gradient.

use lenet_core::ops::argmax;

/// The loss of one image and its gradient with respect to the logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CrossEntropy<const CLASSES: usize> {
    /// `-log softmax(logits)[label]`, at least 0.
    pub loss: f32,
    /// Whether the largest logit (of equal ones the first) is that of the label.
    pub correct: bool,
    /// The gradient of the loss with respect to the logits: `softmax(logits) - onehot(label)`.
    pub grad_logits: [f32; CLASSES],
}

/// Computes the cross-entropy of one image's logits and its label, like `torch.nn.CrossEntropyLoss`.
///
/// # Numerics
/// f32. The largest logit is subtracted first, so nothing overflows. `exp` and `log` are libm's.
pub fn cross_entropy<const CLASSES: usize>(
    logits: &[f32; CLASSES],
    label: u8,
) -> CrossEntropy<CLASSES> {
    let label = usize::from(label);
    let class = argmax(logits);
    let exps = logits.map(|logit| libm::expf(logit - logits[class]));
    let sum: f32 = exps.iter().sum();
    let mut grad_logits = exps.map(|exp| exp / sum);
    grad_logits[label] -= 1.0;
    CrossEntropy {
        loss: libm::logf(sum) - (logits[label] - logits[class]),
        correct: class == label,
        grad_logits,
    }
}

/// Returns the sum of the losses of images, and the number of hits: each element of `hits` is 1 for a hit, otherwise 0.
pub fn sums(losses: &[f32], hits: &[u8]) -> (f64, u32) {
    (
        losses.iter().copied().map(f64::from).sum(),
        hits.iter().copied().map(u32::from).sum(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_logits_have_a_loss_of_ln_10() {
        let result = cross_entropy(&[3.0; 10], 9);
        assert!((result.loss - std::f32::consts::LN_10).abs() < 1e-6);
        assert!(!result.correct);
        assert!(
            (result.grad_logits[9] + 0.9).abs() < 1e-6
                && (result.grad_logits[0] - 0.1).abs() < 1e-6
        );
    }

    #[test]
    fn huge_logits_do_not_overflow() {
        let mut logits = [-1e30; 10];
        logits[4] = 1e30;
        let result = cross_entropy(&logits, 4);
        assert_eq!((result.loss, result.correct), (0.0, true));
        assert_eq!(cross_entropy(&logits, 5).loss, 2e30);
    }

    #[test]
    fn the_gradient_sums_to_zero() {
        let logits = std::array::from_fn::<f32, 10, _>(|i| (i as f32 * 0.7).sin() * 3.0);
        let sum: f32 = cross_entropy(&logits, 2).grad_logits.iter().sum();
        assert!(sum.abs() < 1e-6);
    }
}
