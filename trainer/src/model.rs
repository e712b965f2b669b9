//! A weights file in f32 or int8, for the commands that accept both.

use crate::error::Error;
use crate::evaluate::{core_logits, int8_logits};
use crate::forward::{forward_int8, layers};
use crate::quantize::selected::real_layers;
use crate::weights_file::{WeightsFile, import};
use lenet_core::network::{LAYERS, Logits, Net, Pixels, int8};
use lenet_core::weights::{Metadata, numbers};
use lenet_core::{Network, Numbers};
use rayon::prelude::*;
use std::path::Path;

/// A weights file in memory that has passed every check.
#[derive(Clone)]
pub enum Model {
    /// In f32.
    F32(WeightsFile),
    /// In 8-bit integers.
    Int8(WeightsFile<int8::Net>),
}

/// Evaluates an expression for the file, whether it is in f32 or int8.
macro_rules! either {
    ($model:expr, $file:ident => $value:expr) => {
        match $model {
            Model::F32($file) => $value,
            Model::Int8($file) => $value,
        }
    };
}

impl Model {
    /// Reads a weights file in f32 or int8, or a file of another program that [`WeightsFile::load`] accepts, and runs its
    /// self-test.
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

    /// Returns the number format.
    pub fn numbers(&self) -> Numbers {
        match self {
            Self::F32(_) => Net::NUMBERS,
            Self::Int8(_) => int8::Net::NUMBERS,
        }
    }

    /// Returns the bytes of the file.
    pub fn bytes(&self) -> &[u8] {
        either!(self, file => file.bytes())
    }

    /// Returns notes for the user on how another program's file was read, in sentences.
    pub fn notes(&self) -> &[String] {
        either!(self, file => file.notes())
    }

    /// Returns the class names and the provenance.
    pub fn metadata(&self) -> Metadata<'_> {
        either!(self, file => file.weights().metadata)
    }

    /// Returns the checksum of the file.
    pub fn crc(&self) -> u32 {
        either!(self, file => file.weights().crc)
    }

    /// Returns the network's name that is stored in the file.
    pub fn name(&self) -> &str {
        either!(self, file => file.weights().name())
    }

    /// Returns the description of the layers that is stored in the file.
    pub fn description(&self) -> &str {
        either!(self, file => file.weights().description())
    }

    /// Returns the logits of the self-test's built-in pattern.
    pub fn self_test(&self) -> Logits {
        either!(self, file => file.weights().self_test)
    }

    /// Computes the logits of images with the code that a board runs.
    pub fn logits(&self, images: &[Pixels]) -> Vec<Logits> {
        match self {
            Self::F32(file) => core_logits(file.weights().params, images),
            Self::Int8(file) => int8_logits(file.weights().params, images),
        }
    }

    /// Computes the outputs of all layers as a board reports them. For the hidden layers of an int8 network, these are the output
    /// bytes as integers.
    pub fn layers(&self, pixels: &Pixels) -> Vec<Vec<f32>> {
        match self {
            Self::F32(file) => layers(file.weights().params, pixels),
            Self::Int8(file) => {
                let mut act = int8::Activations::new();
                forward_int8(file.weights().params, pixels, &mut act);
                let outputs =
                    |layer| int8::Net::outputs(&act, layer).expect("a layer of the network");
                (0..LAYERS.len())
                    .map(|layer| outputs(layer).iter().collect())
                    .collect()
            }
        }
    }

    /// Computes the outputs of all layers for each image as real numbers, so that f32 and int8 networks can be compared. For an
    /// int8 network, these are the values that the output bytes stand for. The threads share the images.
    pub fn real_layers(&self, images: &[Pixels]) -> Vec<Vec<Vec<f32>>> {
        match self {
            Self::F32(file) => {
                let params = file.weights().params;
                let images = images.par_iter();
                images.map(|pixels| layers(params, pixels)).collect()
            }
            Self::Int8(file) => {
                let params = file.weights().params;
                let images = images.par_iter();
                images.map(|pixels| real_layers(params, pixels)).collect()
            }
        }
    }
}
