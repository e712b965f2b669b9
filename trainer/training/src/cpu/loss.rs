//! Softmax cross-entropy of 16 images: the loss and its gradient.

use super::sigmoid::exp_neg;
use super::simd::{Kernel, LANES, Lanes, Simd};

/// Computes the gradient of the loss with respect to the logits, and the loss of each image.
pub(super) struct CrossEntropy<'a, const CLASSES: usize> {
    /// `(CLASSES, LANES)`
    pub logits: &'a [Lanes; CLASSES],
    /// The classes of the images, of which there are at most 16.
    pub labels: &'a [u8],
    /// The factor by which the gradient is multiplied.
    pub scale: f32,
    /// `(CLASSES, LANES)`; overwritten, with zeros in lanes without an image.
    pub grad_logits: &'a mut [Lanes; CLASSES],
}

impl<const CLASSES: usize> Kernel for CrossEntropy<'_, CLASSES> {
    /// The loss of each image.
    type Output = Lanes;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Lanes {
        let Self {
            logits,
            labels,
            scale,
            grad_logits,
        } = self;
        let mut largest = s.splat(f32::NEG_INFINITY);
        for logit in logits {
            let logit = s.load(logit);
            largest = s.max(logit, largest);
        }
        let mut sum = s.splat(0.0);
        for (logit, grad) in logits.iter().zip(grad_logits.iter_mut()) {
            let exp = exp_neg(s, s.sub(largest, s.load(logit)));
            s.store(exp, grad);
            sum = s.add(sum, exp);
        }
        for grad in grad_logits.iter_mut() {
            s.store(s.div(s.load(grad), sum), grad);
        }
        let (mut sums, mut largests, mut scales, mut losses) =
            ([0.0; LANES], [0.0; LANES], [0.0; LANES], [0.0; LANES]);
        s.store(sum, &mut sums);
        s.store(largest, &mut largests);
        for (n, &label) in labels.iter().enumerate() {
            let label = usize::from(label);
            grad_logits[label][n] -= 1.0;
            scales[n] = scale;
            // One logarithm per image: libm's gives the same bits on every CPU, and its time is negligible.
            losses[n] = libm::logf(sums[n]) - (logits[label][n] - largests[n]);
        }
        for grad in grad_logits {
            s.store(s.mul(s.load(grad), s.load(&scales)), grad);
        }
        losses
    }
}

#[cfg(test)]
mod tests {
    use super::super::simd::Isa;
    use super::*;
    use crate::loss::cross_entropy;

    const CLASSES: usize = 10;

    /// Compares the loss and its gradient with the definition in f64.
    fn check<const CLASSES: usize>() {
        let logits: [Lanes; CLASSES] = std::array::from_fn(|c| {
            std::array::from_fn(|n| ((c * 16 + n) as f32).sin() * n as f32)
        });
        let labels: [u8; LANES] = std::array::from_fn(|n| (n * 5 % CLASSES) as u8);
        let mut before = None;
        for isa in Isa::available() {
            let mut grads = [[f32::NAN; LANES]; CLASSES];
            let losses = isa.run(CrossEntropy {
                logits: &logits,
                labels: &labels,
                scale: 0.5,
                grad_logits: &mut grads,
            });
            for (n, &label) in labels.iter().enumerate() {
                let logits = logits.map(|lanes| f64::from(lanes[n]));
                let sum: f64 = logits.iter().map(|logit| logit.exp()).sum();
                let loss = sum.ln() - logits[usize::from(label)];
                let error = f64::from(losses[n]) - loss;
                assert!(error.abs() < 4e-6, "{isa:?} {CLASSES}: {error:e}");
                for (c, (logit, grad)) in logits.iter().zip(&grads).enumerate() {
                    let one = f64::from(u8::from(c == usize::from(label)));
                    let error = f64::from(grad[n]) - 0.5 * (logit.exp() / sum - one);
                    assert!(error.abs() < 4e-7, "{isa:?} {CLASSES}: {c} {error:e}");
                }
            }
            let all = (losses, grads);
            assert!(*before.get_or_insert(all) == all, "{isa:?} {CLASSES}");
        }
    }

    #[test]
    fn any_number_of_classes() {
        check::<2>();
        check::<3>();
        check::<26>();
        check::<43>();
        check::<64>();
    }

    #[test]
    fn agrees_with_the_scalar_loss() {
        let logits: [Lanes; CLASSES] = std::array::from_fn(|c| {
            std::array::from_fn(|n| ((c * 16 + n) as f32).sin() * n as f32)
        });
        let labels = [0, 9, 3, 3, 5, 1, 2];
        for isa in Isa::available() {
            let mut grads = [[f32::NAN; LANES]; CLASSES];
            let losses = isa.run(CrossEntropy {
                logits: &logits,
                labels: &labels,
                scale: 0.25,
                grad_logits: &mut grads,
            });
            for (n, &label) in labels.iter().enumerate() {
                let expected = cross_entropy(&logits.map(|lanes| lanes[n]), label);
                assert!(
                    (losses[n] - expected.loss).abs() < 2e-6,
                    "{isa:?}: {} {}",
                    losses[n],
                    expected.loss
                );
                for (grad, expected) in grads.iter().zip(expected.grad_logits) {
                    assert!(
                        (grad[n] - 0.25 * expected).abs() < 1e-7,
                        "{isa:?}: {} {expected}",
                        grad[n]
                    );
                }
            }
            assert!(grads.iter().all(|lanes| lanes[7..] == [0.0; 9]), "{isa:?}");
        }
    }

    #[test]
    fn huge_logits_do_not_overflow_and_nan_shows() {
        for isa in Isa::available() {
            let mut logits = [[-1e30; LANES]; CLASSES];
            logits[4] = [1e30; LANES];
            logits[7][1] = f32::NAN;
            let mut grad_logits = [[0.0; LANES]; CLASSES];
            let losses = isa.run(CrossEntropy {
                logits: &logits,
                labels: &[5, 4],
                scale: 1.0,
                grad_logits: &mut grad_logits,
            });
            assert_eq!(losses[0], 2e30, "{isa:?}");
            assert!(losses[1].is_nan(), "{isa:?}");
        }
    }
}
