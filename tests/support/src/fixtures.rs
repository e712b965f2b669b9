//! Reads PyTorch's results from `data/fixtures`, whose README describes each file, and the images of Fashion-MNIST.

use flate2::read::GzDecoder;
use lenet_core::network::Params;
use lenet_training::dataset::Split;
use safetensors::{Dtype, SafeTensors};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// Returns the repository's `data` folder.
pub fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data")
}

/// The images of Fashion-MNIST with their labels.
pub struct FashionMnist {
    /// 60,000 images.
    pub train: Split,
    /// 10,000 images.
    pub test: Split,
}

/// Fashion-MNIST, read once.
///
/// # Panics
/// If the network of this build does not take grey images of 28×28 pixels, or has fewer than ten classes.
pub static FASHION_MNIST: LazyLock<FashionMnist> = LazyLock::new(|| {
    // The headers are skipped here. The trainer's reader checks them, but this crate does not depend on the trainer, so that the
    // tests of the kernels compile in less time.
    let split = |name: &str, count: usize| {
        let images = unzipped(&format!("{name}-images-idx3-ubyte")).split_off(16);
        let labels = unzipped(&format!("{name}-labels-idx1-ubyte")).split_off(8);
        assert_eq!(labels.len(), count, "{name}");
        Split::new(images, labels)
    };
    FashionMnist {
        train: split("train", 60_000),
        test: split("t10k", 10_000),
    }
});

/// Returns the unzipped content of a file of Fashion-MNIST, with its header. Unlike [`FASHION_MNIST`], this does not depend on the
/// network of this build.
pub fn unzipped(name: &str) -> Vec<u8> {
    let path = data().join("fashion-mnist").join(format!("{name}.gz"));
    let mut bytes = Vec::new();
    File::open(&path)
        .and_then(|file| GzDecoder::new(file).read_to_end(&mut bytes))
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    bytes
}

/// A file of PyTorch's results.
pub struct Fixture(Vec<u8>);

impl Fixture {
    /// Reads the file with this name, without `.safetensors`.
    pub fn open(name: &str) -> Self {
        let path = data().join("fixtures").join(format!("{name}.safetensors"));
        Self(std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    }

    /// Returns the elements of a tensor in f64; a tensor in f32 is converted.
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

    /// Returns the ten tensors of parameters in the order of `Params`. Their names are PyTorch's, preceded by `prefix`.
    pub fn parameters(&self, prefix: &str) -> Vec<f64> {
        ["conv.0", "conv.3", "fc.0", "fc.2", "fc.4"]
            .iter()
            .flat_map(|layer| ["weight", "bias"].map(|kind| format!("{prefix}{layer}.{kind}")))
            .flat_map(|name| self.tensor(&name))
            .collect()
    }

    /// Returns the weights in the file as parameters. The names and the total size are checked, but not the shapes.
    pub fn params(&self) -> Box<Params> {
        let values: Vec<f32> = self.parameters("").iter().map(|&x| x as f32).collect();
        let mut params: Box<Params> = bytemuck::zeroed_box();
        params.as_flat_mut().copy_from_slice(&values);
        params
    }
}
