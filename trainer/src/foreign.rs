//! Hints, for messages, on files that hold another program's weights in a format that this program does not read.

use std::io::Cursor;
use zip::ZipArchive;

/// Kinds of files: the offset and the bytes that identify each, and what to say.
const KINDS: &[(usize, &[u8], &str)] = &[
    (
        0,
        b"\x89HDF\r\n\x1a\n",
        "It looks like an HDF5 file, as Keras writes them (.h5). Export the model as ONNX: \
         keras.models.load_model(\"net.h5\").export(\"net.onnx\", format=\"onnx\")",
    ),
    (
        4,
        b"TFL3",
        "It looks like a TensorFlow Lite model. Convert it to ONNX: python -m tf2onnx.convert --tflite net.tflite --output \
         net.onnx. A quantized model computes another function and is refused",
    ),
    (
        0,
        b"\x08\x01\x12",
        "It looks like a TensorFlow SavedModel. Convert its folder to ONNX: python -m tf2onnx.convert --saved-model FOLDER \
         --output net.onnx",
    ),
    (
        0,
        b"\x93NUMPY",
        "It is one NumPy array. Save all tensors with their names: numpy.savez(\"net.npz\", **{name: tensor.numpy() for name, \
         tensor in net.state_dict().items()})",
    ),
    (
        0,
        b"GGUF",
        "It looks like a GGUF file, which is for language models",
    ),
    (
        0,
        b"version https://git-lfs",
        "It is a Git LFS pointer, not the file itself: fetch that with git lfs pull",
    ),
    (0, b"<!DOCTYPE", WEB_PAGE),
    (0, b"<!doctype", WEB_PAGE),
    (0, b"<html", WEB_PAGE),
    (
        0,
        b"\x1f\x8b",
        "It is compressed with gzip: unpack it with gunzip",
    ),
];

const WEB_PAGE: &str = "It is a web page: download the file itself";

const KERAS: &str = "It looks like a Keras model. Export it as ONNX: \
     keras.models.load_model(\"net.keras\").export(\"net.onnx\", format=\"onnx\")";

const TORCHSCRIPT: &str = "It looks like a TorchScript archive, which is not read because it can run code; save it as \
     safetensors: safetensors.torch.save_file(torch.jit.load(\"net.pt\").state_dict(), \"net.safetensors\")";

const EXPORTED: &str = "It looks like a program that torch.export saved (.pt2), which is not read; save it as safetensors: \
     safetensors.torch.save_file(torch.export.load(\"net.pt2\").state_dict, \"net.safetensors\")";

const ARCHIVE: &str =
    "It is a ZIP archive with other files than weights: unpack it, and name the file that has them";

/// Returns what the file looks like and what to do, if the format is known.
pub(crate) fn hint(bytes: &[u8]) -> Option<&'static str> {
    if bytes.starts_with(b"PK\x03\x04") {
        let archive = ZipArchive::new(Cursor::new(bytes)).ok()?;
        let any = |end: &str| {
            archive
                .file_names()
                .flatten()
                .any(|name| name.ends_with(end))
        };
        return match () {
            () if any("constants.pkl") => Some(TORCHSCRIPT),
            // This is the pickle that the caller handles.
            () if any("data.pkl") => None,
            () if any(".weights.h5") => Some(KERAS),
            () if any("archive_format") => Some(EXPORTED),
            () => Some(ARCHIVE),
        };
    }
    let kind = KINDS
        .iter()
        .find(|(at, start, _)| bytes.get(*at..).is_some_and(|rest| rest.starts_with(start)))?;
    Some(kind.2)
}
