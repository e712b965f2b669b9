//! Generates inputs of several kinds, each of which reveals mistakes that the others miss, and the metadata of a test's weights
//! file.

use bytemuck::Pod;
use lenet_core::weights::{ClassNames, Metadata, Provenance};
use lenet_training::dataset::generator;
use rand_chacha::rand_core::Rng;

/// The metadata of a fictitious training. No field has a default value.
pub const METADATA: Metadata = Metadata {
    classes: ClassNames::new(&["a", "ankle boot"]),
    provenance: Provenance {
        dataset: "letters",
        dataset_sha256: [1; 32],
        params_sha256: [2; 32],
        seed: 300,
        epochs: 5,
        batch_size: 256,
        learning_rate: 0.001,
        test_accuracy: 0.75,
        recipe: "adam",
    },
};

/// The content of an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Zeros, so that only the biases have an effect.
    Zeros,
    /// A single one among zeros, which reveals swapped axes and shifted indices.
    OneHot,
    /// Halves and zeros, so that sums are exact and most pooling windows have several equal maxima.
    Ties,
    /// Zeros of both signs, the smallest floats, and magnitudes whose sums cancel or almost overflow.
    Extremes,
    /// Evenly spaced values from -1 to 1.
    Spaced,
    /// Uniform in -1..1.
    Random,
}

/// All kinds.
pub const KINDS: [Kind; 6] = [
    Kind::Zeros,
    Kind::OneHot,
    Kind::Ties,
    Kind::Extremes,
    Kind::Spaced,
    Kind::Random,
];

/// The values of [`Kind::Extremes`]. Products of two of them, and sums of several hundred such products, are finite.
const EXTREMES: [f32; 10] = [
    0.0,
    -0.0,
    f32::MIN_POSITIVE,
    -f32::MIN_POSITIVE,
    1e-45,
    1.0,
    1.0 + f32::EPSILON,
    -16_777_216.0,
    1e17,
    -1e17,
];

/// Returns a nested array of f32 with values of the given kind, which depend on `seed`.
pub fn array<A: Pod>(kind: Kind, seed: u64) -> Box<A> {
    let mut array: Box<A> = bytemuck::zeroed_box();
    let values: &mut [f32] = bytemuck::cast_slice_mut(std::slice::from_mut(&mut *array));
    let len = values.len();
    let mut rng = generator(seed, 0);
    match kind {
        Kind::Zeros => {}
        Kind::OneHot => values[rng.next_u32() as usize % len] = 1.0,
        Kind::Ties => values.fill_with(|| (rng.next_u32() >> 31) as f32 / 2.0),
        Kind::Extremes => {
            values.fill_with(|| EXTREMES[rng.next_u32() as usize % EXTREMES.len()]);
        }
        Kind::Spaced => {
            for (i, value) in values.iter_mut().enumerate() {
                *value = (2 * i) as f32 / len as f32 - 1.0;
            }
        }
        Kind::Random => values.fill_with(|| uniform(&mut rng)),
    }
    array
}

/// Returns a number that is uniformly distributed in -1..1, in steps of 2^-23.
fn uniform(rng: &mut impl Rng) -> f32 {
    (rng.next_u32() >> 8) as f32 / (1 << 23) as f32 - 1.0
}
