//! PyTorch's numbers under `data/fixtures`, whose README says what each file holds, and the real images.

use lenet_core::network::Params;
use safetensors::{Dtype, SafeTensors};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use trainer::dataset::Dataset;

/// The repository's `data` folder.
pub fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../data")
}

/// Fashion-MNIST, read once.
pub static FASHION_MNIST: LazyLock<Dataset> =
    LazyLock::new(|| Dataset::load(&data().join("fashion-mnist"), false).expect("is committed"));

/// A file of fixtures, by its name without `.safetensors`.
pub struct Fixture(Vec<u8>);

impl Fixture {
    /// Reads the file.
    pub fn open(name: &str) -> Self {
        let path = data().join("fixtures").join(format!("{name}.safetensors"));
        Self(std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    }

    /// The elements of a tensor of f64, or of f32 widened.
    pub fn tensor(&self, name: &str) -> Vec<f64> {
        let file = SafeTensors::deserialize(&self.0).expect("PyTorch wrote it");
        let tensor = file.tensor(name).expect(name);
        let bytes = tensor.data();
        match tensor.dtype() {
            Dtype::F64 => bytes
                .as_chunks()
                .0
                .iter()
                .map(|&b| f64::from_le_bytes(b))
                .collect(),
            Dtype::F32 => bytes
                .as_chunks()
                .0
                .iter()
                .map(|&b| f32::from_le_bytes(b).into())
                .collect(),
            other => panic!("{name} is {other:?}"),
        }
    }

    /// The ten tensors under PyTorch's names, each behind `prefix`, as one run in the order of `Params`.
    pub fn parameters(&self, prefix: &str) -> Vec<f64> {
        ["conv.0", "conv.3", "fc.0", "fc.2", "fc.4"]
            .iter()
            .flat_map(|layer| ["weight", "bias"].map(|kind| format!("{prefix}{layer}.{kind}")))
            .flat_map(|name| self.tensor(&name))
            .collect()
    }

    /// The weights of a file, as parameters.
    pub fn params(&self) -> Box<Params> {
        trainer::safetensors::read_params(&self.0)
            .expect("PyTorch's names and shapes")
            .0
    }
}
