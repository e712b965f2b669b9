//! Tests the import of weights from other programs: how they are found and converted, which notes are printed, and which files are
//! rejected.

use crate::place::{LEARNT, Place};
use bytemuck::cast_slice;
use half::{bf16, f16};
use lenet_core::network::Params;
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use std::io::Write;
use trainer::weights_file::WeightsFile;
use zip::write::{SimpleFileOptions, ZipWriter};

/// A tensor of a `state_dict`: its name, its dimensions and its elements.
type Named = (String, Vec<usize>, Vec<f32>);

fn state_dict(params: &Params) -> Vec<Named> {
    let file = trainer::safetensors::write_params(params);
    let file = SafeTensors::deserialize(&file).unwrap();
    let tensors = file.tensors().into_iter().map(|(name, view)| {
        let values: Vec<f32> = bytemuck::pod_collect_to_vec(view.data());
        (name, view.shape().to_vec(), values)
    });
    tensors.collect()
}

fn safetensors(tensors: &[Named], dtype: Dtype, write: impl Fn(f32) -> Vec<u8>) -> Vec<u8> {
    let bytes = tensors.iter().map(|(name, dims, values)| {
        let bytes: Vec<u8> = values.iter().flat_map(|&value| write(value)).collect();
        (name, dims, bytes)
    });
    let bytes: Vec<_> = bytes.collect();
    let views = bytes
        .iter()
        .map(|(name, dims, bytes)| (name, TensorView::new(dtype, dims.to_vec(), bytes).unwrap()));
    serialize(views, None).unwrap()
}

fn plain(tensors: &[Named]) -> Vec<u8> {
    safetensors(tensors, Dtype::F32, |value| value.to_le_bytes().to_vec())
}

/// Returns a place with a trained network, and the network's parameters.
fn trained() -> (Place, Box<Params>) {
    let place = Place::new();
    place.good(&format!("{LEARNT} --out run"));
    let file = WeightsFile::load(&place.path("run/lenet.weights")).unwrap();
    let params = Box::new(*file.weights().params);
    (place, params)
}

fn imported(place: &Place, name: &str) -> Box<Params> {
    Box::new(
        *WeightsFile::load(&place.path(name))
            .unwrap()
            .weights()
            .params,
    )
}

#[test]
fn other_precisions_are_widened_or_rounded() {
    let place = Place::new();
    let params = trainer::init::initial_params(0);
    let tensors = state_dict(&params);
    type Form = (
        &'static str,
        Dtype,
        fn(f32) -> Vec<u8>,
        fn(f32) -> f32,
        &'static str,
    );
    let forms: [Form; 3] = [
        (
            "f16",
            Dtype::F16,
            |v| f16::from_f32(v).to_le_bytes().to_vec(),
            |v| f16::from_f32(v).to_f32(),
            "F16 is widened to F32, which changes no value",
        ),
        (
            "bf16",
            Dtype::BF16,
            |v| bf16::from_f32(v).to_le_bytes().to_vec(),
            |v| bf16::from_f32(v).to_f32(),
            "BF16 is widened to F32, which changes no value",
        ),
        (
            "f64",
            Dtype::F64,
            |v| f64::from(v).to_le_bytes().to_vec(),
            |v| v,
            "F64 is rounded to F32, which the network computes in",
        ),
    ];
    for (name, dtype, write, value, note) in forms {
        let file = format!("{name}.safetensors");
        place.write(&file, &safetensors(&tensors, dtype, write));
        let (code, _, err) = place.run(&format!("import {file} --out {name}.weights"));
        assert_eq!((code, err), (0, format!("note: {file}: {note}\n")));
        let found = imported(&place, &format!("{name}.weights"));
        assert_eq!(*found.as_flat(), params.as_flat().map(value), "{name}");
    }
}

#[test]
fn other_names_are_matched_and_the_mapping_is_printed() {
    let place = Place::new();
    let params = trainer::init::initial_params(0);
    let mut tensors = state_dict(&params);
    for (name, _, _) in &mut tensors {
        let layer = ["conv.0", "conv.3", "fc.0", "fc.2", "fc.4"]
            .iter()
            .position(|l| name.starts_with(l));
        let part = name.rsplit('.').next().unwrap();
        // The names of a single nn.Sequential in a wrapper.
        *name = format!("module.{}.{part}", [0, 3, 7, 9, 11][layer.unwrap()]);
    }
    tensors.push(("module.epoch".to_owned(), vec![1], vec![5.0]));
    place.write("net.safetensors", &plain(&tensors));
    let (code, _, err) = place.run("import net.safetensors --out net.weights");
    let expected = "note: net.safetensors: the tensors have other names, and are matched by shape and order:\
        \n  module.0.weight is conv1_weight\
        \n  module.0.bias is conv1_bias\
        \n  module.3.weight is conv2_weight\
        \n  module.3.bias is conv2_bias\
        \n  module.7.weight is fc1_weight\
        \n  module.7.bias is fc1_bias\
        \n  module.9.weight is fc2_weight\
        \n  module.9.bias is fc2_bias\
        \n  module.11.weight is fc3_weight\
        \n  module.11.bias is fc3_bias\
        \nnote: net.safetensors: ignored, because this network does not have them: module.epoch\n";
    assert_eq!((code, err.as_str()), (0, expected));
    assert_eq!(imported(&place, "net.weights"), params);
}

/// Simulates a network that was trained on normalized images, by changing the first layer of a trained network.
#[test]
fn a_normalization_is_folded_and_an_accuracy_near_chance_gives_a_warning() {
    let (place, params) = trained();
    let (mean, std) = (0.4_f32, 0.3_f32);
    let mut behind = params.clone();
    let (weight, bias) = (&mut behind.conv1.weight, &mut behind.conv1.bias);
    for (weights, bias) in weight.iter_mut().zip(bias) {
        let weights = weights.as_flattened_mut().as_flattened_mut();
        *bias += weights.iter().sum::<f32>() * mean;
        weights.iter_mut().for_each(|weight| *weight *= std);
    }
    place.write(
        "net.safetensors",
        &trainer::safetensors::write_params(&behind),
    );
    let folded =
        place.run("import net.safetensors --out net.weights --mean 0.4 --std 0.3 --data letters");
    assert_eq!(folded.0, 0);
    assert!(
        folded.1.contains("\ntest acc 1.0000 (30 of 30)\n"),
        "{folded:?}"
    );
    let note = "note: net.safetensors: (x - 0.4) / 0.3 is folded into conv1: the weights are for plain images in 0..1\n";
    assert!(
        folded.2.starts_with(note) && !folded.2.contains("near chance"),
        "{folded:?}"
    );
    let about = place.good("summary net.weights");
    assert!(
        about.contains("imported from safetensors, behind (x - 0.4) / 0.3"),
        "{about}"
    );
    let found = imported(&place, "net.weights");
    for (found, expected) in found.as_flat().iter().zip(params.as_flat()) {
        assert!(
            (found - expected).abs() <= 1e-5 * expected.abs().max(1.0),
            "{found} {expected}"
        );
    }

    // Random weights have an accuracy near chance, like weights that were trained on differently scaled images.
    let random = trainer::init::initial_params(1);
    place.write(
        "random.safetensors",
        &trainer::safetensors::write_params(&random),
    );
    for command in [
        "import random.safetensors --out random.weights --data letters",
        "evaluate random.safetensors --data letters",
        "evaluate random.weights --data letters",
    ] {
        let output = place.command(command).output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{command}: {err}");
        assert!(
            err.contains(" is near chance (0.1000) for weights from another program. ")
                && err.contains("trainer import --mean M --std S"),
            "{command}: {err}"
        );
    }
    // There is no warning about weights of the trainer, however bad they are.
    place.good("--data letters --batch-size 32 --max-steps 1 --out own");
    let own = place
        .command("evaluate own/lenet.weights --data letters")
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(own.stderr).unwrap(), "");
}

#[test]
fn numbers_that_are_no_normalization_are_refused() {
    let place = Place::new();
    let import = "import net.safetensors --out new.weights";
    let range = "as images are 0..1 here; divide the statistics of bytes by 255";
    place.unusable(
        &format!("{import} --mean 72.9 --std 90"),
        &format!("invalid value '72.9' for '--mean <M>': must be from 0 to 1, {range}"),
    );
    place.unusable(
        &format!("{import} --mean 0.5 --std 0"),
        &format!("invalid value '0' for '--std <S>': must be above 0, and at most 1, {range}"),
    );
    place.unusable(
        &format!("{import} --mean nan --std 0.5"),
        &format!("invalid value 'nan' for '--mean <M>': must be from 0 to 1, {range}"),
    );
    place.unusable(
        &format!("{import} --mean 0.5"),
        "the following required arguments were not provided:",
    );
    let params = trainer::init::initial_params(1);
    place.write(
        "net.safetensors",
        &trainer::safetensors::write_params(&params),
    );
    place.refused(
        &format!("{import} --mean 0.5,0.5,0.5 --std 0.5"),
        1,
        "net.safetensors: --mean has 3 values, but the images have 1 channel; give one value for each channel, or one for all",
    );
    place.refused(
        &format!("{import} --data nowhere"),
        1,
        "nowhere: no such folder; name the one of the data set with --data DIR",
    );
}

fn archive(files: &[&str]) -> Vec<u8> {
    let mut archive = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for file in files {
        archive
            .start_file(*file, SimpleFileOptions::default())
            .unwrap();
        archive.write_all(b"what it holds").unwrap();
    }
    archive.finish().unwrap().into_inner()
}

#[test]
fn unsupported_files_of_other_programs_are_named_with_the_remedy() {
    let place = Place::new();
    let magic = "not a LeNet weights file (starts with ";
    for (name, bytes, start, hint) in [
        (
            "net.keras",
            archive(&["metadata.json", "config.json", "model.weights.h5"]),
            "50 4b 03 04",
            "It looks like a Keras model. Export it as ONNX: ",
        ),
        (
            "net.pt",
            archive(&["net/data.pkl", "net/data/0"]),
            "50 4b 03 04",
            "It looks like a PyTorch pickle, which is not read because it can run code; ",
        ),
        (
            "script.pt",
            archive(&["net/data.pkl", "net/constants.pkl", "net/code/net.py"]),
            "50 4b 03 04",
            "It looks like a TorchScript archive, ",
        ),
        (
            "net.pt2",
            archive(&["net/archive_format", "net/models/model.json"]),
            "50 4b 03 04",
            "It looks like a program that torch.export saved (.pt2), ",
        ),
        (
            "net.zip",
            archive(&["lenet.weights"]),
            "50 4b 03 04",
            "It is a ZIP archive with other files than weights: unpack it, ",
        ),
        (
            "old.pt",
            b"\x80\x02\x8a\x0al\xfc".to_vec(),
            "80 02 8a 0a",
            "It looks like a PyTorch pickle, which is not read because it can run code; ",
        ),
        (
            "net.h5",
            b"\x89HDF\r\n\x1a\n and so on".to_vec(),
            "89 48 44 46",
            "It looks like an HDF5 file, as Keras writes them (.h5). Export the model as ONNX: ",
        ),
        (
            "net.tflite",
            b"\x1c\0\0\0TFL3 and so on".to_vec(),
            "1c 00 00 00",
            "It looks like a TensorFlow Lite model. Convert it to ONNX: ",
        ),
        (
            "saved_model.pb",
            b"\x08\x01\x12\x80 and so on".to_vec(),
            "08 01 12 80",
            "It looks like a TensorFlow SavedModel. ",
        ),
        (
            "conv1.npy",
            b"\x93NUMPY\x01\0 and so on".to_vec(),
            "93 4e 55 4d",
            "It is one NumPy array. Save all tensors with their names: ",
        ),
        (
            "net.weights.gz",
            b"\x1f\x8b\x08\0 and so on".to_vec(),
            "1f 8b 08 00",
            "It is compressed with gzip: unpack it with gunzip",
        ),
        (
            "page.weights",
            b"<!DOCTYPE html>".to_vec(),
            "3c 21 44 4f",
            "It is a web page: download the file itself",
        ),
        (
            "pointer.weights",
            b"version https://git-lfs.github.com/spec/v1".to_vec(),
            "76 65 72 73",
            "It is a Git LFS pointer, not the file itself: fetch that with git lfs pull",
        ),
    ] {
        place.write(name, &bytes);
        let err = place.failed(&format!("import {name} --out new.weights"), 1);
        let expected = format!("error: {name}: {magic}{start}). {hint}");
        assert!(err.starts_with(&expected), "{err}");
    }
}

#[test]
fn a_numpy_archive_is_read() {
    let place = Place::new();
    let params = trainer::init::initial_params(4);
    let mut archive = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, dims, values) in state_dict(&params) {
        archive
            .start_file(format!("{name}.npy"), SimpleFileOptions::default())
            .unwrap();
        let dims: String = dims.iter().map(|dim| format!("{dim},")).collect();
        let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({dims}), }}\n");
        let len = (header.len() as u16).to_le_bytes();
        archive
            .write_all(
                &[
                    b"\x93NUMPY\x01\x00",
                    &len[..],
                    header.as_bytes(),
                    cast_slice(&values),
                ]
                .concat(),
            )
            .unwrap();
    }
    place.write("net.npz", &archive.finish().unwrap().into_inner());
    place.good("import net.npz --out net.weights");
    assert_eq!(imported(&place, "net.weights"), params);
    let about = place.good("summary net.npz");
    assert!(about.contains("imported from NumPy"), "{about}");
}
