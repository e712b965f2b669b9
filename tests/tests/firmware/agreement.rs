//! Compares the logits and the classes that emulated boards compute with the host's.

use super::*;
use lenet_core::network::{CLASSES, Pixels};
use lenet_core::ops::argmax;
use lenet_core::weights::{encode, max_len};
use lenet_core::{Network, Numbers};
use lenet_test_support::generate::{Kind, METADATA, array};
use lenet_test_support::networks::{color, lenet_d2l, relu, tiny};
use rand_chacha::rand_core::Rng;
use trainer::dataset::generator;
use trainer::model::Model;
use trainer::quantize::{quantize, ranges};

/// Returns the number of images that `LENET_IMAGES` names, or else the given one.
fn number_of_images(images: usize) -> usize {
    std::env::var("LENET_IMAGES").map_or(images, |n| n.parse().expect("LENET_IMAGES is a number"))
}

/// Compares the logits of `evaluate` on a board with those of `forward` on the host. Returns the output of the run.
fn logits_are_the_hosts(board: &str, images: usize) -> String {
    let images = number_of_images(images);
    let (idx, out) = (
        scratch(&format!("{board}.idx")),
        scratch(&format!("{board}.logits")),
    );
    let bytes = test_images();
    fs::write(&idx, &bytes).unwrap();
    let _ = fs::remove_file(&out);
    let weights = weights_of(board);
    let args = [
        "evaluate",
        idx.to_str().unwrap(),
        out.to_str().unwrap(),
        &images.to_string(),
    ];
    let start = Instant::now();
    let time_out = TIME_OUT + Duration::from_secs(images as u64);
    let run = run_for(time_out, board, &args, Some(&weights), &[]);
    println!(
        "{board}: {images} images in {:.1} s",
        start.elapsed().as_secs_f32()
    );
    run.ends("ok", 0);

    let found = fs::read(&out).unwrap();
    assert_eq!(found.len(), images * CLASSES * 4, "{}", run.output);
    let model = Model::load(&weights).unwrap();
    let (pixels, _) = bytes[16..].as_chunks::<{ size_of::<Pixels>() }>();
    let pixels: Vec<Pixels> = pixels
        .iter()
        .take(images)
        .copied()
        .map(bytemuck::cast)
        .collect();
    let mut different = 0;
    for (i, (expected, found)) in model
        .logits(&pixels)
        .iter()
        .zip(found.chunks_exact(CLASSES * 4))
        .enumerate()
    {
        if bytemuck::bytes_of(expected) != found {
            let found: Vec<f32> = found
                .as_chunks()
                .0
                .iter()
                .map(|&b| f32::from_le_bytes(b))
                .collect();
            println!("image {i}: {board} {found:?}, host {expected:?}");
            different += 1;
        }
    }
    assert_eq!(
        different, 0,
        "logits of {different} of {images} images differ on {board}"
    );
    run.output
}

/// Returns random parameters with which the outputs of the layers have about the size of their inputs.
pub fn random_params<N: Network>() -> Box<N::Params> {
    let mut params: Box<N::Params> = array(Kind::Random, 7);
    let flat: &mut [f32] = bytemuck::must_cast_slice_mut(std::slice::from_mut(&mut *params));
    for tensor in N::TENSORS {
        let [_, inputs @ ..] = tensor.dims() else {
            unreachable!("a tensor has a dimension")
        };
        let bound = (3.0 / inputs.iter().product::<usize>() as f32).sqrt();
        for value in &mut flat[tensor.offset..][..tensor.len()] {
            *value *= bound;
        }
    }
    params
}

pub fn write_weights<N: Network>(path: &Path, params: &N::Params) {
    let mut file = vec![0; max_len::<N>()];
    let file = encode::<N>(params, &METADATA, &mut file).unwrap();
    fs::write(path, file).unwrap();
}

/// Returns test images if they have the network's size, otherwise noise with dark and bright halves.
fn images_of<N: Network>(count: usize) -> Vec<N::Pixels> {
    let shape = N::LAYERS[0].input;
    let mut images: Vec<N::Pixels> = vec![bytemuck::Zeroable::zeroed(); count];
    let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut images);
    if shape == [1, 28, 28] {
        bytes.copy_from_slice(&test_images()[16..][..count * 28 * 28]);
    } else {
        let (mut rng, half) = (generator(7, 0), shape.iter().product::<usize>() / 2);
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = (rng.next_u32() >> 24) as u8 >> (i / half % 2 * 3);
        }
    }
    images
}

/// Compares the logits of `evaluate` on a board with those of `forward` on the host, for a network that is not the default one.
fn logits_of_another_network_are_the_hosts<N: Network>(
    board: &str,
    params: &N::Params,
    images: usize,
) {
    let images = number_of_images(images);
    let kind = match N::NUMBERS {
        Numbers::F32 => "",
        Numbers::Int8 => "-int8",
    };
    let board = format!("{board}+{}{kind}", N::NAME);
    let path = |kind: &str| scratch(&format!("{board}.{kind}"));
    let (weights, idx, out) = (path("weights"), path("idx"), path("logits"));
    write_weights::<N>(&weights, params);

    let pixels = images_of::<N>(images);
    let shape = N::LAYERS[0].input;
    let dims = if shape[0] == 1 { &shape[1..] } else { &shape };
    let mut bytes = vec![0, 0, 8, 1 + dims.len() as u8];
    for &dim in [&[images], dims].concat().iter() {
        bytes.extend((dim as u32).to_be_bytes());
    }
    bytes.extend_from_slice(bytemuck::cast_slice(&pixels));
    fs::write(&idx, bytes).unwrap();
    let _ = fs::remove_file(&out);

    let args = ["evaluate", idx.to_str().unwrap(), out.to_str().unwrap()];
    let time_out = TIME_OUT + Duration::from_secs(images as u64);
    let start = Instant::now();
    let run = run_for(time_out, &board, &args, Some(&weights), &[]);
    println!(
        "{board}: {images} images in {:.1} s",
        start.elapsed().as_secs_f32()
    );
    run.ends("ok", 0);

    let found = fs::read(&out).unwrap();
    let mut image: Box<N::Image> = bytemuck::zeroed_box();
    let mut act: Box<N::Activations> = bytemuck::zeroed_box();
    assert_eq!(found.len(), images * size_of::<N::Logits>());
    let found = found.chunks_exact(size_of::<N::Logits>());
    for (i, (pixels, found)) in pixels.iter().zip(found).enumerate() {
        N::write_image(pixels, &mut image);
        let logits = N::forward(params, &image, &mut act);
        assert_eq!(bytemuck::bytes_of(logits), found, "{board}: image {i}");
    }
}

/// Compares the logits of a network with random parameters.
fn check<N: Network>(board: &str, images: usize) {
    logits_of_another_network_are_the_hosts::<N>(board, &random_params::<N>(), images);
}

#[test]
#[ignore = "needs qemu-system-arm and the firmware images: see ci.sh"]
fn shipped_networks_on_mps2_an386_agree_with_the_host() {
    check::<lenet_d2l::Net>("mps2-an386", 200);
    check::<relu::Net>("mps2-an386", 200);
    check::<color::Net>("mps2-an386", 200);
    check::<tiny::Net>("mps2-an386", 200);
}

#[test]
#[ignore = "needs qemu-system-arm and the firmware images: see ci.sh"]
fn shipped_networks_on_microbit_agree_with_the_host() {
    check::<relu::Net>("microbit", 10);
    check::<tiny::Net>("microbit", 10);
}

/// A network with padding, three channels and ReLU.
#[test]
#[ignore = "needs qemu-system-arm and the firmware images: see ci.sh"]
fn another_network_in_int8_agrees_with_the_host() {
    let params = random_params::<color::Net>();
    let ranges = ranges::<color::Net>(&params, &images_of::<color::Net>(100), 1.0);
    let params = quantize::<color::Net>(&params, &ranges).unwrap();
    for board in ["mps2-an386", "microbit"] {
        logits_of_another_network_are_the_hosts::<color::int8::Net>(board, &params, 200);
    }
}

/// Checks that `infer` predicts the same class as the host for each sample, and ends with `ok`.
fn infer_agrees_with_the_host(board: &str) {
    let weights = weights_of(board);
    let run = run(board, &["infer"], Some(&weights), &[]);
    run.ends("ok", 0);
    let model = Model::load(&weights).unwrap();
    let classes = model.metadata().classes;
    let samples = fs::read(root().join("data/samples.bin")).unwrap();
    for (class, pixels) in samples
        .as_chunks::<{ size_of::<Pixels>() }>()
        .0
        .iter()
        .enumerate()
    {
        let [logits] = model.logits(&[bytemuck::cast(*pixels)])[..] else {
            panic!("one image")
        };
        let best = argmax(&logits);
        let expected = format!("{}: {}, ", classes.get(class), classes.get(best));
        assert!(
            run.output.contains(&expected),
            "no line `{expected}` in\n{}",
            run.output
        );
    }
    assert!(
        run.output.contains(&format!("weights {:08x}", model.crc())),
        "{}",
        run.output
    );
}

/// Defines the tests of each board in a list, which is an array of boards with their numbers of images.
macro_rules! on_each_board {
    ($boards:ident, $($module:ident: $index:literal),*) => {$(
        mod $module {
            use super::*;

            #[test]
            #[ignore = "needs qemu-system-arm and the firmware images: see ci.sh"]
            fn infer() {
                infer_agrees_with_the_host($boards[$index].0);
            }

            #[test]
            #[ignore = "needs qemu-system-arm and the firmware images: see ci.sh"]
            fn evaluate() {
                let (board, images) = $boards[$index];
                logits_are_the_hosts(board, images);
            }
        }
    )*};
}

on_each_board!(EMULATED, an386: 0, an500: 1, an505: 2, netduinoplus2: 3, microbit: 4);

/// The same checks for the images of the int8 network.
mod int8 {
    use super::*;

    on_each_board!(INT8, an386: 0, an500: 1, an505: 2, netduinoplus2: 3, microbit: 4, stm32vldiscovery: 5);
}

/// A 32-bit RISC-V without a floating-point unit must give the same bits with the kernels for microcontrollers, which need little
/// stack.
#[test]
#[ignore = "needs qemu-system-riscv32 and the image of firmware/riscv: see ci.sh"]
fn riscv_gives_the_same_bits_as_the_host() {
    let output = logits_are_the_hosts(RISCV, 100);
    println!("{output}");
    let stack = output
        .lines()
        .find_map(|line| line.strip_prefix("self-test passed, forward takes "))
        .and_then(|line| line.strip_suffix(" bytes of stack"))
        .and_then(|bytes| bytes.parse::<u32>().ok());
    assert!(stack.expect("it says so") <= 1024, "{output}");
}
