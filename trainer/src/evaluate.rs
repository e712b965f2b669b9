//! Accuracy and confusion matrix from logits.

use lenet_core::ops::argmax;
use ndarray::Array2;

pub use crate::forward::{core_logits, int8_logits};

/// The confusion matrix, `(CLASSES, CLASSES)`: counts of images, with labels as rows and predicted classes as columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confusion(pub Array2<u32>);

impl Confusion {
    /// Compares the largest logits with the labels.
    pub fn new<const N: usize>(logits: &[[f32; N]], labels: &[u8]) -> Self {
        let mut counts = vec![0; N * N];
        for (logits, &label) in logits.iter().zip(labels) {
            counts[usize::from(label) * N + argmax(logits)] += 1;
        }
        Self(Array2::from_shape_vec((N, N), counts).expect("N rows of N"))
    }

    /// Returns the number of images classified correctly.
    pub fn correct(&self) -> u32 {
        self.0.diag().sum()
    }

    /// Returns the number of all images.
    pub fn total(&self) -> u32 {
        self.0.sum()
    }

    /// Returns the share of images classified correctly.
    pub fn accuracy(&self) -> f64 {
        f64::from(self.correct()) / f64::from(self.total())
    }

    /// Returns the share of the images labelled `class` that are classified as such; NaN if there are none.
    pub fn recall(&self, class: usize) -> f64 {
        f64::from(self.0[[class, class]]) / f64::from(self.0.row(class).sum())
    }

    /// Returns the share of the images classified as `class` that are labelled so; NaN if there are none.
    pub fn precision(&self, class: usize) -> f64 {
        f64::from(self.0[[class, class]]) / f64::from(self.0.column(class).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_labels_and_columns_predictions() {
        let mut logits = [[0.0; 10]; 4];
        for (logits, class) in logits.iter_mut().zip([3, 3, 3, 7]) {
            logits[class] = 1.0;
        }
        let confusion = Confusion::new(&logits, &[3, 3, 5, 7]);
        assert_eq!(
            (confusion.correct(), confusion.total(), confusion.accuracy()),
            (3, 4, 0.75)
        );
        assert_eq!(
            (
                confusion.0[[5, 3]],
                confusion.recall(5),
                confusion.recall(3)
            ),
            (1, 0.0, 1.0)
        );
        assert_eq!(
            (confusion.precision(3), confusion.precision(7)),
            (2.0 / 3.0, 1.0)
        );
        assert!(confusion.recall(0).is_nan());
    }
}
