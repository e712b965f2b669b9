//! A weights file and the memory it needs, ready to classify.

use crate::Network;
use crate::ops::{argmax, probability};
use crate::self_test::{self, SelfTestError};
use crate::weights::{Weights, WeightsError, view};
use core::fmt;

/// The memory that classifying takes, for a static: an image and the outputs of all layers.
pub struct Scratch<N: Network> {
    pub(crate) image: N::Image,
    pub(crate) act: N::Activations,
}

impl<N: Network> Scratch<N> {
    /// Returns the memory, all zero.
    pub const fn new() -> Self {
        Self {
            image: bytemuck::zeroed(),
            act: bytemuck::zeroed(),
        }
    }

    /// Returns the part for the outputs of the layers, such as for a self-test.
    pub fn activations(&mut self) -> &mut N::Activations {
        &mut self.act
    }
}

impl<N: Network> Default for Scratch<N> {
    fn default() -> Self {
        Self::new()
    }
}

/// What a [`Classifier`] found in an image.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Classification<'a> {
    /// The class with the largest logit.
    pub class: usize,
    /// Its name, as the weights file has it; `""` if the file has none.
    pub name: &'a str,
    /// Its probability by softmax, in 0..=1.
    pub confidence: f32,
    /// The logits of all classes.
    pub logits: &'a [f32],
}

/// The error when a weights file cannot be used on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum LoadError {
    /// The bytes are not a usable weights file of the network.
    Weights(WeightsError),
    /// This machine computes other logits than the one that wrote the file.
    SelfTest(SelfTestError),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Weights(error) => write!(f, "weights: {error}"),
            Self::SelfTest(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for LoadError {}

/// A checked weights file with the memory for its network: classifies images one by one.
///
/// ```
/// use lenet_core::network::{Net, Pixels};
/// use lenet_core::{Classifier, Scratch, include_weights};
///
/// let file = include_weights!("../../data/lenet.weights");
/// let mut scratch = Scratch::new();
/// let mut classifier = Classifier::<Net>::new(file, &mut scratch)?;
///
/// let pixels: Pixels = [[[0; 28]; 28]; 1]; // from a camera: see `image::shrink`
/// let found = classifier.classify(&pixels);
/// println!("{}: {} ({:.0} %)", found.class, found.name, 100.0 * found.confidence);
/// # assert_eq!(found.logits.len(), 10);
/// # assert!(!found.name.is_empty());
/// # Ok::<(), lenet_core::LoadError>(())
/// ```
///
/// On a microcontroller the file stays in flash, and the memory belongs into a static, since it is several kilobytes:
/// `static_cell::StaticCell` or `cortex_m::singleton!` hand out such a static once.
///
/// # Cost
/// Nothing is copied but the image, from `u8` to `f32`. A call computes for as long as one forward pass takes and never waits;
/// it can be interrupted at any point. `firmware/RESULTS.md` in the repository has instruction counts: with the default network
/// half a million on a Cortex-M4F, some 58 million on a Cortex-M0, which has no floating-point unit.
pub struct Classifier<'a, N: Network> {
    weights: Weights<'a, N>,
    scratch: &'a mut Scratch<N>,
}

impl<'a, N: Network> Classifier<'a, N> {
    /// Checks a weights file, then the machine: it must compute the logits of the file's self-test bit for bit.
    ///
    /// # Errors
    /// * `Weights`: the bytes are damaged, are a file of another network, or do not start on a multiple of four bytes
    /// * `SelfTest`: this machine computes other bits than the one that wrote the file
    pub fn new(file: &'a [u8], scratch: &'a mut Scratch<N>) -> Result<Self, LoadError> {
        let weights = view(file).map_err(LoadError::Weights)?;
        self_test::check::<N>(weights.params, &weights.self_test, &mut scratch.act)
            .map_err(LoadError::SelfTest)?;
        Ok(Self { weights, scratch })
    }

    /// Classifies an image of stored pixels, which the network sees as `pixel / 255`.
    pub fn classify(&mut self, pixels: &N::Pixels) -> Classification<'_> {
        N::write_image(pixels, &mut self.scratch.image);
        let Scratch { image, act } = &mut *self.scratch;
        let logits = N::forward(self.weights.params, image, act).as_ref();
        let class = argmax(logits);
        Classification {
            class,
            name: self.weights.metadata.classes.get(class),
            confidence: probability(logits, class),
            logits,
        }
    }

    /// Returns the weights file: class names, provenance, parameters.
    pub fn weights(&self) -> &Weights<'a, N> {
        &self.weights
    }
}

/// Includes a weights file in the program, at an address that is a multiple of four, and returns it as a `&'static [u8]`.
///
/// [`view`](crate::weights::view) reads the parameters in place and needs that alignment, which `include_bytes!` gives or not
/// as it happens. A relative path starts at the source file, as with `include_bytes!`.
#[macro_export]
macro_rules! include_weights {
    ($path:expr $(,)?) => {{
        #[repr(C, align(4))]
        struct Aligned<T: ?Sized>(T);
        static FILE: &Aligned<[u8]> = &Aligned(*include_bytes!($path));
        &FILE.0
    }};
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::grey;
    use crate::network::{Activations, Net, forward};

    static FILE: &[u8] = include_weights!("../../data/lenet.weights");

    #[test]
    fn an_image_gets_the_logits_of_the_forward_pass() {
        let mut scratch = Scratch::new();
        let mut classifier = Classifier::<Net>::new(FILE, &mut scratch).unwrap();
        let pixels = self_test::pixels();
        let mut act = Activations::new();
        let params = classifier.weights().params;
        let expected = forward(params, &grey(&pixels), &mut act);
        let found = classifier.classify(&pixels);
        assert_eq!(found.logits, expected);
        assert_eq!(found.class, argmax(expected));
        assert_eq!(
            found.name,
            view::<Net>(FILE).unwrap().metadata.classes.get(found.class)
        );
        assert_eq!(found.confidence, probability(expected, found.class));
    }

    #[test]
    fn a_damaged_file_is_refused() {
        let mut words = [0u32; 178 * 256];
        let copy: &mut [u8] = bytemuck::cast_slice_mut(&mut words);
        let copy = &mut copy[..FILE.len()];
        copy.copy_from_slice(FILE);
        copy[5_000] ^= 1;
        let mut scratch = Scratch::<Net>::new();
        let error = Classifier::new(copy, &mut scratch).err().unwrap();
        assert!(
            matches!(error, LoadError::Weights(WeightsError::Checksum { .. })),
            "{error}"
        );
    }

    #[test]
    fn an_included_file_is_aligned() {
        assert_eq!(FILE.as_ptr().addr() % 4, 0);
        assert_eq!(include_weights!("image.rs").as_ptr().addr() % 4, 0);
    }
}
