//! Checks that exported files contain the same parameters. `onnx_runtimes.py` in the parent folder runs exported models in ONNX
//! runtimes.

use lenet_core::network::TENSORS;
use lenet_test_support::fixtures::{Fixture, data};
use std::path::Path;
use std::process::Command;
use trainer::model::Model;
use trainer::weights_file::WeightsFile;
use trainer::{c_header, onnx};

fn trained() -> WeightsFile {
    WeightsFile::load(&data().join("lenet.weights")).expect("is committed")
}

/// Reads a file that PyTorch wrote, with its names, shapes and header.
#[test]
fn a_file_of_pytorch_is_read() {
    let file = std::fs::read(data().join("fixtures/initial.safetensors")).unwrap();
    let (params, notes) = trainer::safetensors::read_params(&file).unwrap();
    assert!(params == Fixture::open("initial").params());
    assert_eq!(notes, [""; 0]);
}

/// Compiles `main.c` in a folder as C and as C++, without warnings, and returns the output of each program.
fn outputs(folder: &Path, options: &[&str]) -> [Vec<u8>; 2] {
    [["c", "c99"], ["c++", "c++11"]].map(|[language, standard]| {
        let compiler = Command::new("cc")
            .current_dir(folder)
            .args(["-x", language, &format!("-std={standard}")])
            .args(["-Wall", "-Wextra", "-Wpedantic", "-Werror"])
            .args(options)
            .args(["main.c", "-o", "main"])
            .output()
            .expect("cc, which Rust links with");
        let errors = String::from_utf8_lossy(&compiler.stderr);
        assert!(compiler.status.success(), "{language}: {errors}");
        Command::new(folder.join("main")).output().unwrap().stdout
    })
}

/// Compiles a program that writes every array of the header, in C and in C++, and compares its output with the parameters.
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

    for output in outputs(folder.path(), &[]) {
        assert!(output == expected, "other bytes");
    }
}

#[test]
fn a_trained_file_survives_onnx_bit_for_bit() {
    let file = trained();
    let weights = file.weights();
    let (params, _) = onnx::read_params(&onnx::write(&weights)).unwrap();
    assert!(params.as_flat().map(f32::to_bits) == weights.params.as_flat().map(f32::to_bits));
}

/// Compiles a C program that follows the comment in an int8 header, and compares its logits of the self-test bit for bit.
#[test]
fn the_comment_of_an_int8_header_describes_the_arithmetic() {
    let Ok(Model::Int8(file)) = Model::load(&data().join("lenet-int8.weights")) else {
        panic!("it is committed");
    };
    let folder = tempfile::tempdir().unwrap();
    let header = c_header::write_int8(&file.weights());
    std::fs::write(folder.path().join("lenet_weights.h"), header).unwrap();
    std::fs::write(folder.path().join("main.c"), INT8_IN_C).unwrap();
    let options = ["-Wno-parentheses", "-Wno-unused-variable", "-O1"];
    for output in outputs(folder.path(), &options) {
        assert_eq!(String::from_utf8_lossy(&output), "10 logits are equal\n");
    }
}

/// The forward pass of the default network in C, written as briefly as possible.
const INT8_IN_C: &str = r#"
#include <stdio.h>
#include <string.h>
#include "lenet_weights.h"
static uint8_t image[28][28], pool1[6][12][12], pool2[16][4][4], hidden1[120], hidden2[84];
static float logits[10];
static int32_t min(int32_t a, int32_t b) { return a < b ? a : b; }
static int32_t max(int32_t a, int32_t b) { return a > b ? a : b; }
static uint8_t byte(int32_t sum, int32_t limit, int32_t factor) {
    uint32_t x = (uint32_t)(max(-limit, min(sum, limit)) * factor);
    return lenet_sigmoid[x + (1u << 31) + (1u << 21) >> 22];
}
static void conv(int channels, int maps, int side, const uint8_t *in, const int8_t *weight, const int32_t *bias,
                 const int32_t *limit, const int32_t *factor, uint8_t *out) {
    int half = (side - 4) / 2;
    for (int m = 0; m < maps; m++)
        for (int y = 0; y < half; y++)
            for (int x = 0; x < half; x++) {
                int32_t largest = INT32_MIN;
                for (int w = 0; w < 4; w++) {
                    int32_t sum = bias[m];
                    for (int c = 0; c < channels; c++)
                        for (int i = 0; i < 5; i++)
                            for (int j = 0; j < 5; j++)
                                sum += in[(c * side + 2 * y + w / 2 + i) * side + 2 * x + w % 2 + j] *
                                       weight[((m * channels + c) * 5 + i) * 5 + j];
                    largest = max(largest, sum);
                }
                out[(m * half + y) * half + x] = byte(largest, limit[m], factor[m]);
            }
}
static int32_t dot(int n, const uint8_t *in, const int8_t *weight, int32_t sum) {
    for (int i = 0; i < n; i++) sum += in[i] * weight[i];
    return sum;
}
int main(void) {
    for (int y = 0; y < 28; y++)
        for (int x = 0; x < 28; x++) image[y][x] = (uint8_t)(37 * y + 101 * x + 3 * y * x);
    conv(1, 6, 28, &image[0][0], &lenet_conv1_weight[0][0][0][0], lenet_conv1_bias, lenet_conv1_limit, lenet_conv1_factor,
         &pool1[0][0][0]);
    conv(6, 16, 12, &pool1[0][0][0], &lenet_conv2_weight[0][0][0][0], lenet_conv2_bias, lenet_conv2_limit,
         lenet_conv2_factor, &pool2[0][0][0]);
    for (int o = 0; o < 120; o++)
        hidden1[o] = byte(dot(256, &pool2[0][0][0], lenet_fc1_weight[o], lenet_fc1_bias[o]), lenet_fc1_limit[o],
                          lenet_fc1_factor[o]);
    for (int o = 0; o < 84; o++)
        hidden2[o] = byte(dot(120, hidden1, lenet_fc2_weight[o], lenet_fc2_bias[o]), lenet_fc2_limit[o], lenet_fc2_factor[o]);
    for (int o = 0; o < 10; o++) logits[o] = (float)dot(84, hidden2, lenet_fc3_weight[o], lenet_fc3_bias[o]) * lenet_fc3_scale[o];
    if (memcmp(logits, lenet_self_test_logits, sizeof logits)) return 1;
    printf("10 logits are equal\n");
    return 0;
}
"#;
