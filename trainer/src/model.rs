//! A weights file of either kind of numbers, for the commands that take both.

use crate::error::Error;
use crate::evaluate::{core_logits, int8_logits};
use crate::forward::{forward, forward_int8};
use crate::quantize::real_outputs;
use crate::weights_file::{WeightsFile, import};
use lenet_core::image::grey;
use lenet_core::network::{Activations, LAYERS, Logits, Net, Pixels, int8};
use lenet_core::weights::{Metadata, numbers};
use lenet_core::{Network, Numbers};
use std::path::Path;

/// A weights file in memory that has passed every check.
#[derive(Clone)]
pub enum Model {
    /// In f32.
    F32(WeightsFile),
    /// In 8-bit integers.
    Int8(WeightsFile<int8::Net>),
}

/// Evaluates an expression for the file of either kind.
macro_rules! either {
    ($model:expr, $file:ident => $value:expr) => {
        match $model {
            Model::F32($file) => $value,
            Model::Int8($file) => $value,
        }
    };
}

impl Model {
    /// Reads a file and runs its self-test: a weights file of either kind, or what
    /// [`WeightsFile::load`] reads in its place.
    ///
    /// # Errors
    /// Those of [`WeightsFile::load`].
    pub fn load(path: &Path) -> Result<Self, Error> {
        let bytes = std::fs::read(path).map_err(Error::io("cannot be read", path))?;
        match import(&bytes) {
            Some(Ok(file)) => Ok(Self::F32(file)),
            Some(Err(problem)) => Err(Error::Foreign {
                path: path.to_owned(),
                problem,
            }),
            None if numbers(&bytes) == Some(Numbers::Int8) => {
                WeightsFile::checked(&bytes, path).map(Self::Int8)
            }
            None => WeightsFile::checked(&bytes, path).map(Self::F32),
        }
    }

    /// The kind of its numbers.
    pub fn numbers(&self) -> Numbers {
        match self {
            Self::F32(_) => Net::NUMBERS,
            Self::Int8(_) => int8::Net::NUMBERS,
        }
    }

    /// The file byte for byte.
    pub fn bytes(&self) -> &[u8] {
        either!(self, file => file.bytes())
    }

    /// Returns what a user may want to know of how another program's file was read, in sentences.
    pub fn notes(&self) -> &[String] {
        either!(self, file => file.notes())
    }

    /// Class names and provenance.
    pub fn metadata(&self) -> Metadata<'_> {
        either!(self, file => file.weights().metadata)
    }

    /// The file's checksum.
    pub fn crc(&self) -> u32 {
        either!(self, file => file.weights().crc)
    }

    /// The network's name as the writer knew it.
    pub fn name(&self) -> &str {
        either!(self, file => file.weights().name())
    }

    /// The network in words.
    pub fn description(&self) -> &str {
        either!(self, file => file.weights().description())
    }

    /// The logits of the built-in test pattern.
    pub fn self_test(&self) -> Logits {
        either!(self, file => file.weights().self_test)
    }

    /// Computes the logits of images by the code that a board runs.
    pub fn logits(&self, images: &[Pixels]) -> Vec<Logits> {
        match self {
            Self::F32(file) => core_logits(file.weights().params, images),
            Self::Int8(file) => int8_logits(file.weights().params, images),
        }
    }

    /// Computes the outputs of all layers as a board has them: f32, or for the hidden layers of an int8 network the integers
    /// that the bytes are.
    pub fn layers(&self, pixels: &Pixels) -> Vec<Vec<f32>> {
        let indices = 0..LAYERS.len();
        match self {
            Self::F32(file) => {
                let mut act = Activations::new();
                forward(file.weights().params, &grey(pixels), &mut act);
                act.layers().map(<[f32]>::to_vec).into()
            }
            Self::Int8(file) => {
                let mut act = int8::Activations::new();
                forward_int8(file.weights().params, pixels, &mut act);
                let outputs =
                    |layer| int8::Net::outputs(&act, layer).expect("a layer of the network");
                indices
                    .map(|layer| outputs(layer).iter().collect())
                    .collect()
            }
        }
    }

    /// Computes the outputs of all layers as numbers that both kinds can be compared by: the activations that the bytes of
    /// an int8 network stand for.
    pub fn real_layers(&self, pixels: &Pixels) -> Vec<Vec<f32>> {
        match self {
            Self::F32(_) => self.layers(pixels),
            Self::Int8(file) => {
                let params = file.weights().params;
                let mut act = int8::Activations::new();
                forward_int8(params, pixels, &mut act);
                let layers = 0..LAYERS.len();
                layers
                    .map(|layer| real_outputs::<Net>(params, &act, layer).collect())
                    .collect()
            }
        }
    }
}
