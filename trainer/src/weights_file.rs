//! Weights files on the host: reads them with every check, and writes them atomically. [`lenet_core::weights`] defines the format.

use crate::error::Error;
use crate::normalize::Normalization;
use crate::{foreign, npz, onnx, output, safetensors};
use lenet_core::Network;
use lenet_core::network::{CLASSES, Net, Params};
use lenet_core::self_test;
use lenet_core::weights::{self, ClassNames, EncodeError, Metadata, Provenance, WeightsError};
use sha2::{Digest, Sha256};
use std::marker::PhantomData;
use std::path::Path;

/// A weights file of the network that this build is for.
pub type Weights<'a> = weights::Weights<'a, Net>;

/// Returns the names of all classes; `""` for those without a name.
pub fn class_names<'a>(classes: &ClassNames<'a>) -> [&'a str; CLASSES] {
    std::array::from_fn(|class| classes.get(class))
}

/// A weights file of the network `N` in memory that has passed every check. [`Model`](crate::model::Model) accepts f32 and int8.
#[derive(Clone)]
pub struct WeightsFile<N: Network = Net> {
    /// The bytes, as words so that the parameters are aligned.
    words: Vec<u32>,
    len: usize,
    notes: Vec<String>,
    network: PhantomData<N>,
}

impl WeightsFile {
    /// Creates a weights file in memory. It computes `metadata.provenance.params_sha256` itself.
    ///
    /// # Errors
    /// See [`EncodeError`].
    pub fn encode(params: &Params, metadata: &Metadata<'_>) -> Result<Self, EncodeError> {
        Self::encoded(params, metadata)
    }

    /// Reads a file and runs its self-test. Also reads a safetensors file or a NumPy archive with this network's tensors, and an
    /// ONNX model of this network. The metadata of such a file states only that it was imported.
    ///
    /// # Errors
    /// * `Io`: the file cannot be read
    /// * `Weights`: it is not a weights file, is damaged, or belongs to another network
    /// * `Foreign`: it is a file of another program whose format is not supported or that does not fit this network
    /// * `SelfTest`: this build computes other logits than the one that wrote the file
    pub fn load(path: &Path) -> Result<Self, Error> {
        let bytes = std::fs::read(path).map_err(Error::io("cannot be read", path))?;
        if let Some(imported) = import(&bytes) {
            return imported.map_err(|problem| Error::Foreign {
                path: path.to_owned(),
                problem,
            });
        }
        Self::checked(&bytes, path)
    }

    /// Converts parameters that were trained on normalized images to a file for plain images.
    ///
    /// # Errors
    /// A sentence: the normalization cannot be folded into the first layer.
    pub fn behind(&self, normalization: &Normalization) -> Result<Self, String> {
        let weights = self.weights();
        let mut params = Box::new(*weights.params);
        normalization.fold_into(&mut params)?;
        let recipe = format!(
            "{}, behind {}",
            weights.metadata.provenance.recipe,
            normalization.text()
        );
        let mut metadata = weights.metadata;
        metadata.provenance.recipe = &recipe;
        let file = Self::encode(&params, &metadata).map_err(|error| error.to_string())?;
        Ok(Self {
            notes: self.notes.clone(),
            ..file
        })
    }
}

impl<N: Network> WeightsFile<N> {
    /// Does the same as [`encode`](WeightsFile::encode), for any network.
    ///
    /// # Errors
    /// See [`EncodeError`].
    pub fn encoded(params: &N::Params, metadata: &Metadata<'_>) -> Result<Self, EncodeError> {
        let provenance = Provenance {
            params_sha256: Sha256::digest(bytemuck::bytes_of(params)).into(),
            ..metadata.provenance
        };
        let metadata = Metadata {
            provenance,
            ..*metadata
        };
        let mut words = vec![0u32; weights::max_len::<N>() / 4];
        let len =
            weights::encode::<N>(params, &metadata, bytemuck::cast_slice_mut(&mut words))?.len();
        Ok(Self {
            words,
            len,
            notes: Vec::new(),
            network: PhantomData,
        })
    }

    /// Checks the bytes of a weights file and runs its self-test. `path` is for messages.
    ///
    /// # Errors
    /// * `Weights`: it is not a weights file, is damaged, or belongs to another network
    /// * `Foreign`: it is a file of another program whose format is recognised
    /// * `SelfTest`: this build computes other logits than the one that wrote the file
    pub fn checked(bytes: &[u8], path: &Path) -> Result<Self, Error> {
        let mut words = vec![0u32; bytes.len().div_ceil(4)];
        bytemuck::cast_slice_mut(&mut words)[..bytes.len()].copy_from_slice(bytes);
        let file = Self {
            words,
            len: bytes.len(),
            notes: Vec::new(),
            network: PhantomData,
        };
        let path_of = || path.to_owned();
        let weights = match (weights::view::<N>(file.bytes()), foreign::hint(bytes)) {
            (Ok(weights), _) => weights,
            (Err(source @ WeightsError::Magic { .. }), Some(hint)) => {
                let problem = format!("{source}. {hint}");
                return Err(Error::Foreign {
                    path: path_of(),
                    problem,
                });
            }
            (Err(source), _) => {
                return Err(Error::Weights {
                    path: path_of(),
                    source,
                });
            }
        };
        let mut act = bytemuck::zeroed_box();
        self_test::check::<N>(weights.params, &weights.self_test, &mut act).map_err(|source| {
            Error::SelfTest {
                path: path.to_owned(),
                source,
            }
        })?;
        Ok(file)
    }

    /// Writes the file to a path that must not exist yet.
    ///
    /// # Errors
    /// Those of [`output::write_new`].
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        output::write_new(path, self.bytes())
    }

    /// Returns the content of the file.
    pub fn weights(&self) -> weights::Weights<'_, N> {
        weights::view::<N>(self.bytes()).expect("checked when it was made")
    }

    /// Returns notes for the user on how another program's file was read, in sentences.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Returns whether the parameters come from another program's file. If so, the metadata names neither a data set nor classes.
    pub fn is_imported(&self) -> bool {
        let recipe = self.weights().metadata.provenance.recipe;
        recipe.starts_with(IMPORTED.provenance.recipe)
    }

    /// Returns the bytes of the file.
    pub fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.len]
    }
}

/// Converts another program's file to a weights file. Returns `None` if the bytes do not look like a supported format.
pub(crate) fn import(bytes: &[u8]) -> Option<Result<WeightsFile, String>> {
    let (read, recipe) = if safetensors::looks_like(bytes) {
        (safetensors::read_params(bytes), "imported from safetensors")
    } else if onnx::looks_like(bytes) {
        (onnx::read_params(bytes), "imported from ONNX")
    } else if npz::looks_like(bytes) {
        (npz::read_params(bytes), "imported from NumPy")
    } else {
        return None;
    };
    let mut metadata = IMPORTED;
    metadata.provenance.recipe = recipe;
    Some(read.and_then(|(params, notes)| {
        let file = WeightsFile::encode(&params, &metadata).map_err(|error| error.to_string())?;
        Ok(WeightsFile { notes, ..file })
    }))
}

/// The names of classes for which only the labels are known.
const DIGITS: &[&str] = &[
    "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16",
    "17", "18", "19", "20", "21", "22", "23", "24", "25", "26", "27", "28", "29", "30", "31", "32",
    "33", "34", "35", "36", "37", "38", "39", "40", "41", "42", "43", "44", "45", "46", "47", "48",
    "49", "50", "51", "52", "53", "54", "55", "56", "57", "58", "59", "60", "61", "62", "63",
];

/// The metadata of parameters that another program trained.
pub(crate) const IMPORTED: Metadata = Metadata {
    classes: ClassNames::new(DIGITS.split_at(CLASSES).0),
    provenance: Provenance {
        dataset: "unknown",
        dataset_sha256: [0; 32],
        params_sha256: [0; 32],
        seed: 0,
        epochs: 0,
        batch_size: 0,
        learning_rate: 0.0,
        test_accuracy: f32::NAN,
        recipe: "imported",
    },
};

/// Returns the SHA-256 of the parameters as little-endian f32, which identifies a model.
pub fn params_sha256(params: &Params) -> [u8; 32] {
    Sha256::digest(bytemuck::bytes_of(params)).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init::initial_params;

    #[test]
    fn a_saved_file_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lenet.weights");
        let params = initial_params(1);
        WeightsFile::encode(&params, &IMPORTED)
            .unwrap()
            .save(&path)
            .unwrap();
        let file = WeightsFile::load(&path).unwrap();
        assert_eq!(file.weights().params, &*params);
        assert_eq!(
            file.weights().metadata.provenance.params_sha256,
            params_sha256(&params)
        );
    }

    #[test]
    fn a_pickle_is_refused_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("net.pt");
        std::fs::write(&path, b"PK\x03\x04 and so on").unwrap();
        let error = WeightsFile::load(&path).err().unwrap().to_string();
        assert!(
            error.contains("starts with 50 4b 03 04") && error.contains("save it as safetensors"),
            "{error}"
        );
    }
}
