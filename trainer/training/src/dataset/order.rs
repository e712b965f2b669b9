//! The order in which an epoch visits the images. Each position is computed on its own.
//!
//! A shuffle is a permutation. A Feistel network permutes the smallest power of four that holds the images, and is applied
//! again while the result is not an image (Black and Rogaway: Ciphers with arbitrary finite domains, 2002). It needs no table,
//! so a GPU computes the same order from the same six keys as the CPU.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// The number of rounds of the Feistel network.
pub const ROUNDS: usize = 6;

/// The order of one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The order of the file.
    Sequential,
    /// A permutation of `0..len`.
    Shuffled(Permutation),
}

impl Order {
    /// Returns whether this is an order of `len` images.
    pub fn is_of(&self, len: usize) -> bool {
        match self {
            Self::Sequential => true,
            Self::Shuffled(permutation) => permutation.len() == len,
        }
    }

    /// Returns the shuffle of an epoch: different for each `epoch`, the same for the same `seed`.
    pub fn shuffled(seed: u64, epoch: u32, len: usize) -> Self {
        let len = u32::try_from(len).expect("a data set has fewer than 2^32 images");
        let mut rng = generator(seed, 1 + u64::from(epoch));
        let keys = std::array::from_fn(|_| rng.next_u32());
        // Half of the number of bits in `len - 1`, rounded up; at least one.
        let half_bits = (32 - len.saturating_sub(1).leading_zeros())
            .div_ceil(2)
            .max(1);
        Self::Shuffled(Permutation {
            len,
            half_bits,
            keys,
        })
    }

    /// Returns the index of the image at `position` of the epoch.
    pub fn index(&self, position: usize) -> usize {
        match self {
            Self::Sequential => position,
            Self::Shuffled(permutation) => permutation.index(position as u32) as usize,
        }
    }
}

/// A permutation of `0..len` from six keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permutation {
    /// The number of elements.
    len: u32,
    /// The number of bits in each half of the network.
    half_bits: u32,
    /// One key per round.
    keys: [u32; ROUNDS],
}

impl Permutation {
    /// Returns the number of elements.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Returns the number of elements, the bits in each half of the network, and one key per round: what a GPU needs.
    pub fn words(&self) -> [u32; 2 + ROUNDS] {
        let mut words = [self.len; 2 + ROUNDS];
        words[1] = self.half_bits;
        words[2..].copy_from_slice(&self.keys);
        words
    }

    /// Returns the element at `position`, which must be less than `len`.
    pub fn index(&self, position: u32) -> u32 {
        debug_assert!(position < self.len);
        let mask = (1 << self.half_bits) - 1;
        let mut x = position;
        loop {
            let (mut left, mut right) = (x >> self.half_bits, x & mask);
            for key in self.keys {
                (left, right) = (right, left ^ (mix(right ^ key) & mask));
            }
            x = (left << self.half_bits) | right;
            if x < self.len {
                return x;
            }
        }
    }
}

/// Mixes 32 bits by a bijection in which every bit of the input affects every bit of the output: murmur3's finaliser.
pub(super) fn mix(mut x: u32) -> u32 {
    x = (x ^ (x >> 16)).wrapping_mul(0x85eb_ca6b);
    x = (x ^ (x >> 13)).wrapping_mul(0xc2b2_ae35);
    x ^ (x >> 16)
}

/// Returns the project's random generator: ChaCha8, with the seed as key. Stream 0 is for the initial parameters, stream `1 +
/// e` for the order of epoch `e`, 2³² for the validation split, and `2³³ + e` for [`Augment`](super::Augment).
pub fn generator(seed: u64, stream: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    let mut rng = ChaCha8Rng::from_seed(key);
    rng.set_stream(stream);
    rng
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(seed: u64, epoch: u32, len: usize) -> Vec<usize> {
        let order = Order::shuffled(seed, epoch, len);
        (0..len).map(|position| order.index(position)).collect()
    }

    #[test]
    fn every_image_is_visited_once() {
        for len in [1, 2, 3, 4, 5, 16, 17, 255, 257, 60_000, 65_536, 65_537] {
            let mut seen = epoch(3, 0, len);
            seen.sort_unstable();
            assert!(seen.into_iter().eq(0..len), "{len}");
        }
    }

    #[test]
    fn epochs_and_seeds_differ_and_repeat() {
        assert_ne!(epoch(1, 0, 1000), epoch(1, 1, 1000));
        assert_ne!(epoch(1, 0, 1000), epoch(2, 0, 1000));
        assert_eq!(epoch(1, 1, 1000), epoch(1, 1, 1000));
    }

    #[test]
    fn the_order_is_pinned() {
        // Trained weights depend on this: the same seed must give the same weights in every version.
        assert_eq!(epoch(0, 0, 60_000)[..4], [22850, 33781, 46391, 10709]);
    }

    /// A shuffle shows no trace of the original order: positions and images correlate no more than noise.
    #[test]
    fn the_order_looks_random() {
        for e in 0..20 {
            let order = epoch(0, e, 60_000);
            let centre = 29_999.5;
            let sum: f64 = order
                .iter()
                .enumerate()
                .map(|(i, &x)| (i as f64 - centre) * (x as f64 - centre))
                .sum();
            let correlation = sum / (60_000.0 * (60_000.0f64 * 60_000.0 - 1.0) / 12.0);
            // The standard deviation is 1/sqrt(60,000) = 0.0041. Five of them are allowed.
            assert!(correlation.abs() < 0.0205, "epoch {e}: {correlation}");
            let neighbours = order
                .windows(2)
                .filter(|pair| pair[1] == pair[0] + 1)
                .count();
            assert!(
                neighbours < 10,
                "epoch {e}: {neighbours} images follow their neighbour; about 1 expected"
            );
        }
    }
}
