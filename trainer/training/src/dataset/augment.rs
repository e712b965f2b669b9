//! Data augmentation: each epoch shifts each image a little and mirrors half of them. Each image is computed on its own.
//!
//! An image is shifted by up to two pixels in each direction, with zeros from the edge, and mirrored left to right half of the
//! time. The choice depends on the seed, the epoch and the image's index, so neither the order of images nor the number of
//! threads matters.

use super::order::{generator, mix};
use lenet_core::network::{CHANNELS, HEIGHT, Pixels, WIDTH};
use rand_chacha::rand_core::Rng;

/// The largest shift in pixels.
pub const MAX_SHIFT: usize = 2;
/// The number of shifts in one direction.
const SHIFTS: u32 = 2 * MAX_SHIFT as u32 + 1;

/// The changes to the images of one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Augment {
    keys: [u32; 2],
}

impl Augment {
    /// Returns the changes of an epoch: different for each `epoch`, the same for the same `seed`.
    pub fn new(seed: u64, epoch: u32) -> Self {
        // Streams from 2^33 on. Those below are for the initial parameters, the orders, and the validation split.
        let mut rng = generator(seed, (2 << 32) + u64::from(epoch));
        Self {
            keys: [rng.next_u32(), rng.next_u32()],
        }
    }

    /// Returns the two keys of the hash that decides how each image is changed: what a GPU needs.
    pub fn keys(&self) -> [u32; 2] {
        self.keys
    }

    /// Returns `out[c][y][x] = pixels[c][y - down][x - right]`, zero outside the image; mirrored: column `WIDTH - 1 - (x -
    /// right)`.
    pub fn apply(&self, index: usize, pixels: &Pixels) -> Pixels {
        let hash = mix(mix(index as u32 ^ self.keys[0]) ^ self.keys[1]);
        // One of 2 * 5 * 5, with probabilities that are equal to within 50 / 2^32.
        let choice = ((u64::from(hash) * u64::from(2 * SHIFTS * SHIFTS)) >> 32) as u32;
        let shift = |choice: u32| (choice % SHIFTS) as usize;
        let (down, right) = (shift(choice / 2), shift(choice / 2 / SHIFTS));
        moved(pixels, down, right, choice % 2 == 1)
    }
}

/// Shifts and mirrors an image. Shifts count from `-MAX_SHIFT`.
fn moved(pixels: &Pixels, down: usize, right: usize, mirrored: bool) -> Pixels {
    // For one direction: where the part that stays visible goes, where it comes from, and how long it is.
    let span = |shift: usize, side: usize| {
        let (to, from) = (
            shift.saturating_sub(MAX_SHIFT),
            MAX_SHIFT.saturating_sub(shift),
        );
        (to, from, side.saturating_sub(to + from))
    };
    let ((to_y, from_y, height), (to_x, from_x, width)) = (span(down, HEIGHT), span(right, WIDTH));
    let mut out = [[[0; WIDTH]; HEIGHT]; CHANNELS];
    for (out, pixels) in out.iter_mut().zip(pixels) {
        let rows = pixels.iter().skip(from_y).take(height);
        for (out, row) in out.iter_mut().skip(to_y).zip(rows) {
            let mut row = *row;
            if mirrored {
                row.reverse();
            }
            let row = row.iter().skip(from_x).take(width);
            out.iter_mut()
                .skip(to_x)
                .zip(row)
                .for_each(|(out, pixel)| *out = *pixel);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn image() -> Pixels {
        std::array::from_fn(|c| {
            std::array::from_fn(|y| std::array::from_fn(|x| 1 + ((c + y * WIDTH + x) % 255) as u8))
        })
    }

    #[test]
    fn an_image_moves_and_is_mirrored() {
        let image = image();
        assert_eq!(moved(&image, MAX_SHIFT, MAX_SHIFT, false), image);
        let [right_one_down_two, ..] = moved(&image, MAX_SHIFT + 2, MAX_SHIFT + 1, false);
        assert_eq!(right_one_down_two[..2], [[0; WIDTH]; 2]);
        assert_eq!(right_one_down_two[2][0], 0);
        assert_eq!(right_one_down_two[2][1..], image[0][0][..WIDTH - 1]);
        let [left_two_mirrored, ..] = moved(&image, MAX_SHIFT, 0, true);
        let mut row = image[0][5];
        row.reverse();
        assert_eq!(left_two_mirrored[5][..WIDTH - 2], row[2..]);
        assert_eq!(left_two_mirrored[5][WIDTH - 2..], [0; 2]);
    }

    /// Each of the fifty choices is about equally frequent; other epochs and seeds make other choices.
    #[test]
    fn every_way_occurs_and_depends_on_seed_epoch_and_image() {
        let image = image();
        let all = |seed, epoch| -> Vec<Pixels> {
            let augment = Augment::new(seed, epoch);
            (0..50_000).map(|i| augment.apply(i, &image)).collect()
        };
        let first = all(1, 0);
        let mut counts = BTreeMap::new();
        for pixels in &first {
            *counts.entry(pixels).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 50);
        // 1000 expected, with a standard deviation of 31. Five of them are allowed.
        assert!(
            counts.values().all(|n| (845..=1155).contains(n)),
            "{:?}",
            counts.values()
        );
        assert!(first == all(1, 0));
        for other in [all(1, 1), all(2, 0)] {
            let same = first.iter().zip(&other).filter(|(a, b)| a == b).count();
            assert!((845..=1155).contains(&same), "{same} of 50,000 the same");
        }
    }

    #[test]
    fn the_changes_are_pinned() {
        // Trained weights depend on this: the same seed must give the same weights in every version.
        let image = image();
        let augment = Augment::new(0, 0);
        for (i, (down, right, mirrored)) in
            [(4, 2, false), (2, 1, true), (0, 4, false), (3, 2, false)]
                .into_iter()
                .enumerate()
        {
            let expected = moved(&image, down, right, mirrored);
            assert!(augment.apply(i, &image) == expected, "{i}");
        }
    }
}
