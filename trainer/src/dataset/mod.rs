//! The data set on the host: where it is found, how its files are read, what is odd
//! about it, in which order its images are visited.

mod augment;
pub mod check;
mod folder;
mod idx;
#[cfg(feature = "program")]
mod image;
mod order;
mod source;

#[cfg(feature = "program")]
pub use self::image::read_image;
pub use augment::Augment;
pub use idx::{read_images, read_labels};
pub use order::{Order, Permutation, ROUNDS, generator};
pub use source::{Dataset, FASHION_MNIST_CLASSES, ImageOptions, ReadOptions, find, hex, open};

use lenet_core::network::{CHANNELS, CLASSES, HEIGHT, Pixels, WIDTH};
use ndarray::{Array1, Array4};

/// In this build every image file is an error.
#[cfg(not(feature = "program"))]
pub fn read_image(_bytes: &[u8], _options: ImageOptions) -> Result<Pixels, String> {
    Err("this build reads no PNG and JPEG files; build it with the feature `program`".to_owned())
}

/// Longest name of a class in bytes: short enough for a board's display and for the file.
const MAX_CLASS_NAME: usize = 32;

/// Whether a class may be called so: on terminals, pictures and boards a name is a short line.
fn is_class_name(name: &str) -> bool {
    name.len() <= MAX_CLASS_NAME && !name.contains(char::is_control)
}

/// Images with their labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// `(N, CHANNELS, HEIGHT, WIDTH)`, grey values in 0..=255, in standard layout.
    images: Array4<u8>,
    /// `(N)`, classes in `0..CLASSES`.
    labels: Array1<u8>,
}

impl Split {
    /// Images, `(N, CHANNELS, HEIGHT, WIDTH)`, with their labels, `(N)`.
    ///
    /// # Panics
    /// If there are more of one than of the other, or a label is no class: what is read from files has been checked.
    pub fn new(images: Vec<u8>, labels: Vec<u8>) -> Self {
        assert!(
            labels.iter().all(|&label| usize::from(label) < CLASSES),
            "labels are classes"
        );
        let images = Array4::from_shape_vec((labels.len(), CHANNELS, HEIGHT, WIDTH), images)
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

    /// The images, `(N, CHANNELS, HEIGHT, WIDTH)`.
    pub fn images(&self) -> &[Pixels] {
        bytemuck::cast_slice(self.images.as_slice().expect("made in standard layout"))
    }

    /// The labels, `(N)`.
    pub fn labels(&self) -> &[u8] {
        self.labels.as_slice().expect("made in standard layout")
    }

    /// Whether an accuracy on these images is within noise, three standard deviations, of what always naming the largest
    /// class gives.
    pub fn is_chance(&self, accuracy: f64) -> bool {
        let mut counts = [0_u32; CLASSES];
        for &label in self.labels() {
            counts[usize::from(label)] += 1;
        }
        let largest = counts.into_iter().max().expect("there are classes");
        let images = self.len() as f64;
        let chance = f64::from(largest) / images;
        accuracy <= chance + 3.0 * (chance * (1.0 - chance) / images).sqrt()
    }

    /// Splits a share off for validation, drawn by the seed; both parts keep the order of the file.
    pub fn split(&self, share: f64, seed: u64) -> (Self, Self) {
        let len = self.len();
        let order = Order::shuffled(seed, u32::MAX, len);
        let mut held_out = vec![false; len];
        for position in 0..(len as f64 * share).round() as usize {
            held_out[order.index(position)] = true;
        }
        let part = |wanted: bool| {
            let indices = || (0..len).filter(|&index| held_out[index] == wanted);
            let images = indices().flat_map(|index| bytemuck::bytes_of(&self.images()[index]));
            let labels = indices().map(|index| self.labels()[index]);
            Self::new(images.copied().collect(), labels.collect())
        };
        (part(false), part(true))
    }

    /// The first `len` images.
    pub fn truncated(&self, len: usize) -> Self {
        Self::new(
            bytemuck::cast_slice(&self.images()[..len]).to_vec(),
            self.labels()[..len].to_vec(),
        )
    }
}

/// Returns the size of the network's images in words, such as `28x28`, or `3x32x32` for colour.
pub fn network_size() -> String {
    match CHANNELS {
        1 => format!("{HEIGHT}x{WIDTH}"),
        _ => format!("{CHANNELS}x{HEIGHT}x{WIDTH}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_is_the_share_of_the_largest_class_and_its_noise() {
        // Three in four are of class 7; a standard deviation is 0.0217.
        let labels = (0..400).map(|i| if i % 4 == 0 { 2 } else { 7 }).collect();
        let split = Split::new(vec![0; 400 * size_of::<Pixels>()], labels);
        assert_eq!(
            [0.25, 0.75, 0.81, 0.82, 1.0].map(|accuracy| split.is_chance(accuracy)),
            [true, true, true, false, false]
        );
    }

    #[test]
    fn a_split_shares_the_images_out_by_the_seed() {
        let images: Vec<u8> = (0..100).flat_map(|i| [i; size_of::<Pixels>()]).collect();
        let all = Split::new(images, (0..100).map(|i| i % 10).collect());
        let first =
            |split: &Split| -> Vec<u8> { split.images().iter().map(|i| i[0][0][0]).collect() };
        let (train, val) = all.split(0.1, 1);
        assert_eq!((train.len(), val.len()), (90, 10));
        let mut together = [first(&train), first(&val)].concat();
        assert!(first(&train).is_sorted() && first(&val).is_sorted());
        together.sort_unstable();
        assert!(together.into_iter().eq(0..100));
        assert!(
            first(&val)
                .iter()
                .map(|i| i % 10)
                .eq(val.labels().iter().copied())
        );
        assert_eq!(all.split(0.1, 1), (train, val.clone()));
        assert_ne!(all.split(0.1, 2).1, val);
    }
}
