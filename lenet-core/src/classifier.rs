//! The classifier: a weights file together with the memory that its network needs.

use crate::Network;
use crate::ops::{argmax, probability};
use crate::self_test::{self, SelfTestError};
use crate::weights::{Weights, WeightsError, view};
use core::fmt;

/// The memory that a [`Classifier`] needs: an image and the outputs of all layers. Place it in a static.
pub struct Scratch<N: Network> {
    pub(crate) image: N::Image,
    pub(crate) act: N::Activations,
}

impl<N: Network> Scratch<N> {
    /// Returns zeroed memory.
    pub const fn new() -> Self {
        Self {
            image: bytemuck::zeroed(),
            act: bytemuck::zeroed(),
        }
    }

    /// Returns the part for the outputs of the layers, which a self-test needs.
    pub fn activations(&mut self) -> &mut N::Activations {
        &mut self.act
    }
}

impl<N: Network> Default for Scratch<N> {
    fn default() -> Self {
        Self::new()
    }
}

/// The result of classifying an image with a [`Classifier`].
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Classification<'a> {
    /// The class with the largest logit.
    pub class: usize,
    /// The name of the class in the weights file, or `""` if the file has none.
    pub name: &'a str,
    /// The softmax probability of the class, in 0..=1.
    pub confidence: f32,
    /// The logits of all classes.
    pub logits: &'a [f32],
}

/// The error returned when a weights file cannot be used on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum LoadError {
    /// The bytes are not a usable weights file of the network.
    Weights(WeightsError),
    /// This machine's logits differ from those of the machine that wrote the file.
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

/// Classifies images one by one, with a checked weights file and the memory for its network.
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
/// On a microcontroller the file stays in flash. The memory takes several kilobytes, so place it in a static, for example with
/// `static_cell::StaticCell` or `cortex_m::singleton!`.
///
/// # Cost
/// A call converts the image from `u8` to the network's input, runs one forward pass and copies nothing else. It never waits
/// and can be interrupted at any point. `firmware/RESULTS.md` in the repository has the instruction counts of each layer on
/// several cores.
pub struct Classifier<'a, N: Network> {
    weights: Weights<'a, N>,
    scratch: &'a mut Scratch<N>,
}

impl<'a, N: Network> Classifier<'a, N> {
    /// Checks a weights file and runs its self-test: this machine must compute the expected logits bit for bit.
    ///
    /// # Errors
    /// * `Weights`: the bytes are damaged, belong to another network, or do not start at a multiple of four bytes
    /// * `SelfTest`: this machine's logits differ from those of the machine that wrote the file
    pub fn new(file: &'a [u8], scratch: &'a mut Scratch<N>) -> Result<Self, LoadError> {
        let weights = view(file).map_err(LoadError::Weights)?;
        self_test::check::<N>(weights.params, &weights.self_test, &mut scratch.act)
            .map_err(LoadError::SelfTest)?;
        Ok(Self { weights, scratch })
    }

    /// Classifies an image. An f32 network gets each pixel as `pixel / 255`; an int8 network gets the pixels as they are.
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

    /// Returns the contents of the weights file: class names, provenance and parameters.
    pub fn weights(&self) -> &Weights<'a, N> {
        &self.weights
    }
}

/// Includes a weights file in the program, at an address that is a multiple of four, and returns it as a `&'static [u8]`.
///
/// [`view`](crate::weights::view) reads the parameters in place and needs that alignment, which `include_bytes!` does not
/// guarantee. A relative path starts at the source file, as with `include_bytes!`.
#[macro_export]
macro_rules! include_weights {
    ($path:expr $(,)?) => {{
        #[repr(C, align(4))]
        struct Aligned<T: ?Sized>(T);
        static FILE: &Aligned<[u8]> = &Aligned(*include_bytes!($path));
        &FILE.0
    }};
}

/// The network of the file that the tests use. The crate may be built for the same one or for another.
#[cfg(test)]
#[allow(clippy::duplicate_mod)]
#[path = "../networks/lenet.rs"]
mod lenet;

#[cfg(test)]
mod tests {
    use super::lenet::{Activations, Net, forward};
    use super::*;
    use crate::image::grey;

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
