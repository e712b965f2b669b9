//! Tests invalid options, data sets and weights files, and outputs that exist or cannot be written: each must be refused with the exact
//! message and exit code.

use crate::place::{FILES, Place, TRAIN, idx, images, labels, values};
use crc::{CRC_32_ISO_HDLC, Crc};
use lenet_core::plan::Description;
use lenet_core::weights::PARAMS_OFFSET;

#[test]
fn nothing_is_overwritten() {
    let place = Place::new();
    place.good(&format!("{TRAIN} --max-steps 1 --out run"));
    let file = "run/lenet.weights";
    let before = place.read(file);
    let listed = place.list("run");
    let taken = "already exists and is not overwritten; choose another name or remove it";
    // There is no message about a training if the training does not begin.
    assert_eq!(
        place.run(&format!("{TRAIN} --out run")),
        (1, String::new(), format!("error: run: {taken}\n"))
    );
    for command in [
        format!("export {file} --format safetensors --out {file}"),
        format!("import {file} --out {file}"),
        format!("evaluate {file} --data letters --logits {file}"),
    ] {
        place.refused(&command, 1, &format!("{file}: {taken}"));
    }
    assert!(place.read(file) == before);
    assert_eq!(place.list("run"), listed);
}

#[test]
fn an_output_that_cannot_be_written_is_named() {
    let place = Place::new();
    place.good(&format!("{TRAIN} --max-steps 1 --out run"));
    let err = place.failed("import run/lenet.weights --out no/such.weights", 1);
    assert!(
        err.starts_with("error: no/such.weights: cannot be written: No such file or directory"),
        "{err}"
    );
    place.refused(
        &format!("{TRAIN} --out run/lenet.weights/below"),
        1,
        "run/lenet.weights/below: cannot be created: Not a directory (os error 20)",
    );
}

#[test]
fn settings_out_of_range_are_refused_with_the_range() {
    let place = Place::new();
    let (lr, share) = (
        "must be above 0 and at most 1000",
        "must be above 0 and below 1",
    );
    for (arguments, sentence) in [
        (
            "--epochs 0",
            "invalid value '0' for '--epochs <N>': 0 is not in 1..=100000",
        ),
        (
            "--batch-size 0",
            "invalid value '0' for '--batch-size <N>': 0 is not in 1..=65536",
        ),
        ("--lr 0", &format!("invalid value '0' for '--lr <F>': {lr}")),
        (
            "--lr=-1",
            &format!("invalid value '-1' for '--lr <F>': {lr}"),
        ),
        (
            "--lr nan",
            &format!("invalid value 'nan' for '--lr <F>': {lr}"),
        ),
        (
            "--lr inf",
            &format!("invalid value 'inf' for '--lr <F>': {lr}"),
        ),
        (
            "--device tpu",
            "invalid value 'tpu' for '--device <DEVICE>'",
        ),
        (
            "--order random",
            "invalid value 'random' for '--order <ORDER>'",
        ),
        (
            "--weight-decay 2",
            "invalid value '2' for '--weight-decay <F>': must be 0 to 1",
        ),
        (
            "--weight-decay nan",
            "invalid value 'nan' for '--weight-decay <F>': must be 0 to 1",
        ),
        (
            "--val-split 0",
            &format!("invalid value '0' for '--val-split <F>': {share}"),
        ),
        (
            "--val-split 1",
            &format!("invalid value '1' for '--val-split <F>': {share}"),
        ),
        (
            "--val-split nan",
            &format!("invalid value 'nan' for '--val-split <F>': {share}"),
        ),
        (
            "--average 0",
            "invalid value '0' for '--average <N>': 0 is not in 1..=100000",
        ),
        (
            "--lr-schedule step",
            "invalid value 'step' for '--lr-schedule <LR_SCHEDULE>'",
        ),
        ("--patience -1", "unexpected argument '-1' found"),
        (
            "--quiet --log-format json",
            "the argument '--quiet' cannot be used with '--log-format <LOG_FORMAT>'",
        ),
        (
            "evaluate",
            "the following required arguments were not provided:",
        ),
    ] {
        place.unusable(arguments, sentence);
    }
    for option in ["max-steps", "patience"] {
        let err = place.failed(&format!("--{option} 0"), 2);
        let sentence = format!("error: invalid value '0' for '--{option} <N>': 0 is not in 1..");
        assert!(err.starts_with(&sentence), "{err}");
    }
    place.failed("frobnicate", 2);
    for (option, sentence) in [
        (
            "--patience 2",
            "--patience needs --val-split: the test images choose nothing",
        ),
        (
            "--val-split 0.001",
            "--val-split 0.001 leaves 96 images for training and 0 for validation",
        ),
    ] {
        place.refused(&format!("{TRAIN} {option}"), 2, sentence);
    }
}

#[test]
fn a_diverging_run_stops_at_once_and_writes_nothing() {
    let place = Place::new();
    // With parameters near overflow, the first loss is not finite.
    let mut params = trainer::init::initial_params(0);
    values(&mut params, "fc3_weight").fill(3e38);
    values(&mut params, "fc3_weight")[..84].fill(-3e38);
    place.write(
        "huge.safetensors",
        &trainer::safetensors::write_params(&params),
    );
    let err = place.failed(
        &format!("{TRAIN} --init huge.safetensors --out run --lr 2"),
        1,
    );
    assert!(
        err.starts_with("error: epoch 1, batch 1: loss is "),
        "{err}"
    );
    let end = ". Training diverged; try a smaller --lr (it is 2). Nothing was written\n";
    assert!(err.ends_with(end), "{err}");
}

#[test]
fn bad_data_is_refused_by_name() {
    let [train_images, train_labels, ..] = FILES;
    let mut shorter = images(96);
    shorter.truncate(12_345);
    let mut longer = images(96);
    longer.push(0);
    let mut label = labels(96);
    label[8 + 51] = 37;
    for (name, bytes, problem) in [
        (
            train_images,
            b"<!DOCTYPE html>".to_vec(),
            "neither gzip nor IDX (starts with \"<!DOCTYPE html>\", a web page; download the file itself)",
        ),
        (train_images, vec![], "empty; expected an IDX file"),
        (
            train_images,
            labels(96),
            "magic 0x00000801, a label file; expected 0x00000803, an image file",
        ),
        (
            train_labels,
            images(1),
            "magic 0x00000803, an image file; expected 0x00000801, a label file",
        ),
        (
            train_images,
            shorter,
            "promises 75280 bytes (96 records), has 12345",
        ),
        (
            train_images,
            longer,
            "promises 75280 bytes (96 records), has more",
        ),
        (
            train_images,
            idx(&[0x803, 1, 32, 32], [0; 1024]),
            "images of 32x32 pixels; this network takes 28x28",
        ),
        (
            train_images,
            idx(&[0x803, 0, 28, 28], []),
            "holds 0 records",
        ),
        (
            train_images,
            idx(&[0x803, u32::MAX, 28, 28], []),
            "promises 4294967295 records; at most 1048576 are read",
        ),
        (
            train_labels,
            label,
            "label 37 at index 51; this network has 10 classes, 0 to 9",
        ),
        (train_labels, labels(95), "95 labels for 96 images"),
    ] {
        let place = Place::new();
        place.write(&format!("letters/{name}"), &bytes);
        place.refused(
            &format!("{TRAIN} --out run"),
            1,
            &format!("letters/{name}: {problem}"),
        );
    }
}

#[test]
fn a_missing_or_incomplete_data_set_is_described() {
    let place = Place::new();
    place.refused(
        "--data nowhere",
        1,
        "nowhere: no such folder; name the one of the data set with --data DIR",
    );
    std::fs::remove_file(place.path("letters").join(FILES[3])).unwrap();
    place.refused(
        "--data letters",
        1,
        "letters: no t10k-labels-idx1-ubyte, gzipped or not. The folder has 3 files (t10k-images-idx3-ubyte, \
         train-images-idx3-ubyte, train-labels-idx1-ubyte). A data set is four IDX files: train-images-idx3-ubyte, \
         train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte (or the first two with --test-split)",
    );
}

#[test]
fn a_modified_fashion_mnist_needs_an_option() {
    let place = Place::new();
    std::fs::rename(place.path("letters"), place.path("fashion-mnist")).unwrap();
    let train = "--data fashion-mnist --batch-size 32 --max-steps 1 --out run";
    let err = place.failed(train, 1);
    let start =
        "error: fashion-mnist/train-images-idx3-ubyte: SHA-256 of the uncompressed file is ";
    assert!(err.starts_with(start), "{err}");
    assert!(
        err.ends_with("; copy it again, or pass --allow-modified\n"),
        "{err}"
    );
    place.good(&format!("{train} --allow-modified"));
}

#[test]
fn lenet_data_takes_precedence_over_the_repository() {
    let place = Place::new();
    let output = place
        .command("--batch-size 32 --max-steps 1 --out run")
        .env("LENET_DATA", "letters")
        .output()
        .unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(out.contains("data letters: 96 "), "{out}");
}

#[test]
fn bad_weights_are_refused_by_name() {
    let place = Place::new();
    place.good(&format!("{TRAIN} --max-steps 1 --out run"));
    let good = place.read("run/lenet.weights");
    let changed = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    let mut longer = good.clone();
    longer.push(0);
    // A file with this parameter and a correct checksum.
    let with = |value: f32| {
        let mut bytes = good.clone();
        bytes[PARAMS_OFFSET + 3 * 4..][..4].copy_from_slice(&value.to_le_bytes());
        let (covered, checksum) = bytes.split_last_chunk_mut().unwrap();
        *checksum = Crc::<u32>::new(&CRC_32_ISO_HDLC)
            .checksum(covered)
            .to_le_bytes();
        bytes
    };
    let not_finite = "conv1_weight[3] is NaN or infinite";
    let again = "; copy it again from where it came";
    for (bytes, problem) in [
        (vec![], format!("truncated: ends after 0 bytes{again}")),
        (b"{\"a\": 1}".to_vec(), "not a LeNet weights file (starts with 7b 22 61 22)".to_owned()),
        (
            b"PK\x03\x04 archive/data.pkl".to_vec(),
            "not a LeNet weights file (starts with 50 4b 03 04). It looks like a PyTorch pickle, which is not read \
             because it can run code; save it as safetensors: safetensors.torch.save_file(net.state_dict(), \
             \"net.safetensors\")"
                .to_owned(),
        ),
        (
            changed(4),
            "file format 3, this program reads 2; use the release of the program that wrote it, or train again"
                .to_owned(),
        ),
        (
            [&good[..8], &[0; 8], &good[16..20], b"other", &[0; 27], &good[52..]].concat(),
            "a file of the network `other`, this program is built for `lenet`; build it with LENET_NETWORK=other (or the path of its description)"
                .to_owned(),
        ),
        (good[..1000].to_vec(), format!("truncated: ends after 1000 bytes{again}")),
        (with(f32::NAN), not_finite.to_owned()),
        (with(f32::NEG_INFINITY), not_finite.to_owned()),
        (longer, format!("1 bytes follow the end of the file{again}")),
    ] {
        place.write("bad", &bytes);
        for command in [
            "evaluate bad --data letters",
            "summary bad",
            "import bad --out new",
            "export bad --format safetensors --out new",
            "--data letters --batch-size 32 --init bad --out new",
        ] {
            place.refused(command, 1, &format!("bad: {problem}"));
        }
    }
    place.write("bad", &changed(5000));
    let err = place.failed("summary bad", 1);
    assert!(err.starts_with("error: bad: damaged: checksum "), "{err}");
    assert!(err.ends_with(&format!("{again}\n")), "{err}");
    let (_, out, _) = place.run("summary bad");
    assert_eq!(out, "");
    place.refused(
        "summary none",
        1,
        "none: cannot be read: No such file or directory (os error 2)",
    );
}

#[test]
fn an_onnx_model_of_another_network_is_refused() {
    let place = Place::new();
    place.good(&format!("{TRAIN} --max-steps 1 --out run"));
    place.good("export run/lenet.weights --format onnx --out net.onnx");
    let good = place.read("net.onnx");
    // Replace the first sigmoid by another function whose name has the same length.
    let at = good.windows(7).position(|bytes| bytes == b"Sigmoid");
    let mut other = good.clone();
    other[at.unwrap()..][..7].copy_from_slice(b"Hardmax");
    place.write("other.onnx", &other);
    place.refused(
        "import other.onnx --out new.weights",
        1,
        &format!(
            "other.onnx: the graph does not fit this network: Hardmax \"conv1_sigmoid\": conv1 (conv2d 5x5, max pool 2, sigmoid) of \
             this network has no such operator. This network is {}",
            Description(&lenet_core::network::LAYERS)
        ),
    );
    place.write("cut.onnx", &good[..1000]);
    let err = place.failed("evaluate cut.onnx --data letters", 1);
    assert!(
        err.starts_with("error: cut.onnx: broken ONNX file: "),
        "{err}"
    );
}

#[test]
fn unknown_tensors_are_listed_with_the_expected_ones() {
    use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
    let place = Place::new();
    let mut params = trainer::init::initial_params(0);
    let good = trainer::safetensors::write_params(&params);
    let file = SafeTensors::deserialize(&good).unwrap();
    // Transpose fc.0, and give fc.4.bias another name.
    let tensors = file
        .tensors()
        .into_iter()
        .map(|(name, view)| match name.as_str() {
            "fc.0.weight" => (
                name,
                TensorView::new(Dtype::F32, vec![256, 120], view.data()).unwrap(),
            ),
            "fc.4.bias" => ("out.bias".to_owned(), view),
            _ => (name, view),
        });
    place.write("net.safetensors", &serialize(tensors, None).unwrap());
    place.refused(
        "import net.safetensors --out new.weights",
        1,
        "net.safetensors: the tensors do not fit this network:\
         \n  fc.0.weight: found F32 [256, 120], expected F32 [120, 256] (its transpose would fit)\
         \n  fc.4.bias: missing, expected F32 [10]\
         \n  out.bias: not a tensor of this network",
    );

    let integers = [0; 4 * 10];
    let tensors = file
        .tensors()
        .into_iter()
        .map(|(name, view)| match name.as_str() {
            "fc.4.bias" => (
                name,
                TensorView::new(Dtype::I32, vec![10], &integers).unwrap(),
            ),
            _ => (name, view),
        });
    place.write("integers.safetensors", &serialize(tensors, None).unwrap());
    place.refused(
        "import integers.safetensors --out new.weights",
        1,
        "integers.safetensors: the tensors do not fit this network:\
         \n  fc.4.bias: found I32 [10], expected F32 [10]",
    );

    for value in [f32::NAN, f32::INFINITY] {
        values(&mut params, "fc1_weight")[3] = value;
        place.write(
            "nan.safetensors",
            &trainer::safetensors::write_params(&params),
        );
        place.refused(
            "import nan.safetensors --out new.weights",
            1,
            "nan.safetensors: fc1_weight[3] is NaN or infinite",
        );
    }
    // A subnormal number is valid: it is exported and imported bit for bit, and passes the self-test.
    values(&mut params, "fc1_weight")[3] = -f32::from_bits(3);
    let subnormal = trainer::safetensors::write_params(&params);
    place.write("tiny.safetensors", &subnormal);
    place.good("import tiny.safetensors --out tiny.weights");
    place.good("export tiny.weights --format safetensors --out again.safetensors");
    assert!(place.read("again.safetensors") == subnormal);

    place.write("broken.safetensors", &good[..good.len() - 1]);
    let err = place.failed("import broken.safetensors --out new.weights", 1);
    assert!(
        err.starts_with("error: broken.safetensors: broken safetensors file: "),
        "{err}"
    );
}
