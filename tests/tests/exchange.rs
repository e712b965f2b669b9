//! What goes out to other programs holds the same parameters. Runtimes of ONNX: `onnx_runtimes.py` beside this folder.

use lenet_core::network::TENSORS;
use lenet_tests::fixtures::data;
use std::process::Command;
use trainer::weights_file::WeightsFile;
use trainer::{c_header, onnx};

fn trained() -> WeightsFile {
    WeightsFile::load(&data().join("lenet.weights")).expect("is committed")
}

/// Compiles a program that writes every array of the header, in C and in C++, and compares its output with the bytes.
#[test]
fn a_compiler_reads_the_same_bits_from_the_header() {
    let file = trained();
    let weights = file.weights();
    let folder = tempfile::tempdir().unwrap();
    let write = |name, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("lenet_weights.h", &c_header::write(&weights));
    let mut program =
        "#include <stdio.h>\n#include \"lenet_weights.h\"\n#include \"lenet_weights.h\"\n"
            .to_owned();
    program += "int main(void) {\n";
    for name in TENSORS
        .map(|tensor| tensor.name)
        .into_iter()
        .chain(["self_test_logits"])
    {
        program += &format!("fwrite(lenet_{name}, sizeof lenet_{name}, 1, stdout);\n");
    }
    program += "for (int i = 0; i < 10; i++) puts(lenet_classes[i]);\nputs(LENET_PARAMS_SHA256);\nreturn 0;\n}\n";
    write("main.c", &program);

    let mut expected: Vec<u8> = bytemuck::bytes_of(weights.params).to_vec();
    expected.extend(weights.self_test.iter().flat_map(|bits| bits.to_le_bytes()));
    for class in weights.metadata.classes.iter() {
        expected.extend(format!("{class}\n").into_bytes());
    }
    let sha256 = weights.metadata.provenance.params_sha256;
    expected.extend(format!("{}\n", trainer::dataset::hex(&sha256)).into_bytes());

    for language in [["c", "c99"], ["c++", "c++11"]] {
        let compiler = Command::new("cc")
            .current_dir(folder.path())
            .args(["-x", language[0], &format!("-std={}", language[1])])
            .args([
                "-Wall",
                "-Wextra",
                "-Wpedantic",
                "-Werror",
                "main.c",
                "-o",
                "main",
            ])
            .output()
            .expect("cc, which Rust links with");
        let errors = String::from_utf8_lossy(&compiler.stderr);
        assert!(compiler.status.success(), "{language:?}: {errors}");
        let output = Command::new(folder.path().join("main")).output().unwrap();
        assert!(output.stdout == expected, "{language:?}: other bytes");
    }
}

#[test]
fn a_trained_file_survives_onnx_bit_for_bit() {
    let file = trained();
    let weights = file.weights();
    let (params, _) = onnx::read_params(&onnx::write(&weights)).unwrap();
    assert!(params.as_flat().map(f32::to_bits) == weights.params.as_flat().map(f32::to_bits));
}
