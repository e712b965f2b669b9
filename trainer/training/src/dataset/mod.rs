//! Images with labels in memory, the order in which an epoch visits them, and their augmentation.

mod augment;
mod order;

pub use augment::{Augment, MAX_SHIFT};
pub use order::{Order, Permutation, ROUNDS, generator};

use lenet_core::network::{CLASSES, Pixels};
use std::collections::HashSet;

/// The number of values in an image; each of them is a byte.
const SIZE: usize = size_of::<Pixels>();

/// Images with their labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// The pixel values of the images, one image after another.
    images: Vec<u8>,
    /// `(N)`, classes in `0..CLASSES`.
    labels: Vec<u8>,
}

impl Split {
    /// Creates a split from images, whose values follow each other, and their labels, `(N)`.
    ///
    /// # Panics
    /// If the numbers of images and labels differ, or a label is not a class. Readers of files check this first.
    pub fn new(images: Vec<u8>, labels: Vec<u8>) -> Self {
        assert!(
            labels.iter().all(|&label| usize::from(label) < CLASSES),
            "labels are classes"
        );
        assert_eq!(images.len(), labels.len() * SIZE, "each label has an image");
        Self { images, labels }
    }

    /// Returns the number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Returns whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Returns the images, `(N)`.
    pub fn images(&self) -> &[Pixels] {
        bytemuck::cast_slice(&self.images)
    }

    /// Returns the labels, `(N)`.
    pub fn labels(&self) -> &[u8] {
        &self.labels
    }

    /// Returns the indices of the images that `other` has, too.
    pub fn shared_with(&self, other: &Self) -> Vec<usize> {
        let others: HashSet<&Pixels> = other.images().iter().collect();
        let images = self.images().iter().enumerate();
        let shared = images.filter(|(_, image)| others.contains(image));
        shared.map(|(index, _)| index).collect()
    }

    /// Replaces each label by another number.
    pub fn relabel(&mut self, number: impl Fn(u8) -> u8) {
        for label in &mut self.labels {
            *label = number(*label);
        }
    }

    /// Returns whether an accuracy on these images is within noise (three standard deviations) of always naming the largest
    /// class. Returns `false` if there is only one class, because then no accuracy could be better.
    pub fn is_chance(&self, accuracy: f64) -> bool {
        let (chance, images) = (self.chance(), self.len() as f64);
        chance < 1.0 && accuracy <= chance + 3.0 * (chance * (1.0 - chance) / images).sqrt()
    }

    /// Returns the accuracy of always naming the largest class.
    pub fn chance(&self) -> f64 {
        let mut counts = [0_u32; CLASSES];
        for &label in self.labels() {
            counts[usize::from(label)] += 1;
        }
        let largest = counts.into_iter().max().expect("there are classes");
        f64::from(largest) / self.len() as f64
    }

    /// Draws a share of the images, determined by the seed. Returns for each image whether it is drawn.
    pub fn share(&self, share: f64, seed: u64) -> Vec<bool> {
        let len = self.len();
        let order = Order::shuffled(seed, u32::MAX, len);
        let mut drawn = vec![false; len];
        for position in 0..(len as f64 * share).round() as usize {
            drawn[order.index(position)] = true;
        }
        drawn
    }

    /// Draws a share of each class, at least one of two images and never all; always the same ones.
    pub fn share_of_each_class(&self, share: f64) -> Vec<bool> {
        let mut drawn = vec![false; self.len()];
        for class in 0..CLASSES {
            let is_of_class = |&index: &usize| usize::from(self.labels[index]) == class;
            let of_class: Vec<usize> = (0..self.len()).filter(is_of_class).collect();
            let len = of_class.len();
            let count = ((len as f64 * share).round() as usize)
                .max(1)
                .min(len.saturating_sub(1));
            let order = Order::shuffled(0, class as u32, len);
            for position in 0..count {
                drawn[of_class[order.index(position)]] = true;
            }
        }
        drawn
    }

    /// Removes the images for which `taken` is true, and returns them. Both parts keep their order. The others are moved in
    /// place, because there may be as many as memory can hold.
    ///
    /// # Panics
    /// If `taken` does not have one element per image.
    pub fn take(&mut self, taken: &[bool]) -> Self {
        assert_eq!(taken.len(), self.len(), "one for each image");
        let size = SIZE;
        let mut part = Self {
            images: Vec::new(),
            labels: Vec::new(),
        };
        let mut kept = 0;
        for (index, &taken) in taken.iter().enumerate() {
            let image = index * size..(index + 1) * size;
            match taken {
                true => {
                    part.images.extend_from_slice(&self.images[image]);
                    part.labels.push(self.labels[index]);
                }
                false => {
                    self.images.copy_within(image, kept * size);
                    self.labels[kept] = self.labels[index];
                    kept += 1;
                }
            }
        }
        self.images.truncate(kept * size);
        self.images.shrink_to_fit();
        self.labels.truncate(kept);
        part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_is_the_share_of_the_largest_class_and_its_noise() {
        // Three in four are of the last class; the standard deviation is 0.0217.
        let last = (CLASSES - 1) as u8;
        let labels = (0..400).map(|i| if i % 4 == 0 { 0 } else { last });
        let split = Split::new(vec![0; 400 * SIZE], labels.collect());
        assert_eq!(
            [0.25, 0.75, 0.81, 0.82, 1.0].map(|accuracy| split.is_chance(accuracy)),
            [true, true, true, false, false]
        );
    }

    #[test]
    fn no_accuracy_on_a_single_class_is_chance() {
        let split = Split::new(vec![0; 3 * SIZE], vec![1; 3]);
        assert_eq!(split.chance(), 1.0);
        assert!(!split.is_chance(1.0) && !split.is_chance(0.5));
    }

    /// Returns images whose values are all their index, with labels.
    fn counting(labels: Vec<u8>) -> Split {
        let images = (0..labels.len() as u8).flat_map(|i| vec![i; SIZE]);
        Split::new(images.collect(), labels)
    }

    fn first(split: &Split) -> Vec<u8> {
        let images = split.images.chunks(SIZE);
        images.map(|image| image[0]).collect()
    }

    #[test]
    fn a_share_is_drawn_by_the_seed_and_taken_out() {
        let label = |i: u8| i % CLASSES as u8;
        let all = counting((0..100).map(label).collect());
        let mut train = all.clone();
        let val = train.take(&all.share(0.1, 1));
        assert_eq!((train.len(), val.len()), (90, 10));
        let mut together = [first(&train), first(&val)].concat();
        assert!(first(&train).is_sorted() && first(&val).is_sorted());
        together.sort_unstable();
        assert!(together.into_iter().eq(0..100));
        for part in [&train, &val] {
            let labels = first(part).into_iter().map(label);
            assert!(labels.eq(part.labels().iter().copied()));
        }
        assert_eq!(all.share(0.1, 1), all.share(0.1, 1));
        assert_ne!(all.share(0.1, 1), all.share(0.1, 2));
    }

    #[test]
    fn a_share_of_each_class_is_set_aside_and_always_the_same() {
        // The numbers of images that stay and that are set aside, for as many of three classes as the network has.
        let classes = (0..CLASSES as u8).zip([[15, 5], [1, 0], [1, 1]]);
        let labels = classes
            .clone()
            .flat_map(|(class, counts)| vec![class; counts.iter().sum()]);
        let mut train = counting(labels.collect());
        let drawn = train.share_of_each_class(0.25);
        assert_eq!(drawn, train.share_of_each_class(0.25));
        let test = train.take(&drawn);
        let count = |split: &Split, class| split.labels().iter().filter(|&&l| l == class).count();
        for (class, expected) in classes {
            assert_eq!([&train, &test].map(|split| count(split, class)), expected);
        }
        // Fixed values, because a run can only continue with the images that it started with.
        assert_eq!(first(&test)[..5], [1, 4, 9, 15, 18]);
    }
}
