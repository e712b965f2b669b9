//! The data set on the host: where it is found, how its files are read, what is odd
//! about it, in which order its images are visited.

pub mod check;
mod folder;
mod idx;
mod image;
mod order;
mod source;

pub use self::image::{ImageOptions, read_image};
pub use idx::{read_images, read_labels};
pub use order::{Order, Permutation, ROUNDS, generator};
pub use source::{Dataset, FASHION_MNIST_CLASSES, ReadOptions, find, hex, open};

use lenet_core::arch::{CLASSES, Pixels, SIDE};
use ndarray::{Array1, Array3};

/// Longest name of a class in bytes: short enough for a board's display and for the file.
const MAX_CLASS_NAME: usize = 32;

/// Images with their labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// `(N, SIDE, SIDE)`, grey values in 0..=255, in standard layout.
    images: Array3<u8>,
    /// `(N)`, classes in `0..CLASSES`.
    labels: Array1<u8>,
}

impl Split {
    /// Images, `(N, SIDE, SIDE)`, with their labels, `(N)`.
    ///
    /// # Panics
    /// If there are more of one than of the other, or a label is no class: what is read from files has been checked.
    pub fn new(images: Vec<u8>, labels: Vec<u8>) -> Self {
        assert!(
            labels.iter().all(|&label| usize::from(label) < CLASSES),
            "labels are classes"
        );
        let images = Array3::from_shape_vec((labels.len(), SIDE, SIDE), images)
            .expect("each label has an image");
        Self {
            images,
            labels: labels.into(),
        }
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The images, `(N, SIDE, SIDE)`.
    pub fn images(&self) -> &[Pixels] {
        bytemuck::cast_slice(self.images.as_slice().expect("made in standard layout"))
    }

    /// The labels, `(N)`.
    pub fn labels(&self) -> &[u8] {
        self.labels.as_slice().expect("made in standard layout")
    }

    /// The first `len` images.
    pub fn truncated(&self, len: usize) -> Self {
        Self::new(
            self.images()[..len].as_flattened().as_flattened().to_vec(),
            self.labels()[..len].to_vec(),
        )
    }
}
