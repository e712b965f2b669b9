//! Compares the CPU backend with the reference backend for every network, tensor by tensor for one batch, and checks that each
//! instruction set of this machine and any number of threads give the same bytes.

use lenet_test_support::for_each_network;
use lenet_test_support::generate::{Kind, array};
use lenet_test_support::networks::{Case, lenet, selected};
use lenet_test_support::tolerance::{GRADIENT, LOGITS, LOSS};
use rand_chacha::rand_core::Rng;
use trainer::adam::Adam;
use trainer::cpu::{Engine, Images, Isa, Slots, Weights, phases};
use trainer::dataset::generator;

/// The number of images: two full groups of sixteen, and a part of a third.
const IMAGES: usize = 37;

/// The parameters, both moments and the logits after a step.
struct Outcome {
    loss: f32,
    params: Vec<f32>,
    moment1: Vec<f32>,
    moment2: Vec<f32>,
    logits: Vec<f32>,
}

fn flat<T: bytemuck::Pod>(value: &T) -> &[f32] {
    bytemuck::cast_slice(std::slice::from_ref(value))
}

fn flat_mut<T: bytemuck::Pod>(value: &mut T) -> &mut [f32] {
    bytemuck::cast_slice_mut(std::slice::from_mut(value))
}

fn params<N: Case>() -> Box<N::Params> {
    let mut params = array::<N::Params>(Kind::Random, 1);
    flat_mut(&mut *params).iter_mut().for_each(|p| *p *= 0.2);
    params
}

fn images<N: Case>() -> (Vec<N::Pixels>, Vec<u8>) {
    let classes = N::LAYERS[N::LAYERS.len() - 1].output[0];
    let mut rng = generator(7, 0);
    let images = (0..IMAGES).map(|_| {
        let mut pixels: N::Pixels = bytemuck::Zeroable::zeroed();
        bytemuck::bytes_of_mut(&mut pixels).fill_with(|| (rng.next_u32() >> 24) as u8);
        pixels
    });
    (
        images.collect(),
        (0..IMAGES).map(|i| (i * 5 % classes) as u8).collect(),
    )
}

/// Runs one step, always from the same state, and computes the logits of all images with the new parameters.
fn step<N: Case>(isa: Isa, threads: usize) -> Outcome {
    let (pixels, labels) = images::<N>();
    let mut params = params::<N>();
    let count = flat(&*params).len();
    let (mut moment1, mut moment2) = (vec![0.0; count], vec![0.0; count]);
    let mut engine = Engine::<N>::new(isa, threads).unwrap();
    let mut weights = Weights::<N>::new(isa, &params);
    // With a beta1 of 0, the first moment after a step from zero is the gradient.
    let adam = Adam {
        beta1: 0.0,
        ..Adam::default()
    };
    let stats = engine.threads().install(|| {
        engine.step(
            &Images {
                stored: &pixels,
                labels: &labels,
                count: IMAGES,
                index: &|n| n,
                change: None,
            },
            &mut weights,
            &adam.coefficients(1),
            Slots {
                params: flat_mut(&mut *params),
                moment1: &mut moment1,
                moment2: &mut moment2,
                mean: None,
            },
        )
    });
    let mut logits: Vec<Vec<f32>> = vec![Vec::new(); IMAGES];
    engine.logits(&params, &weights, &pixels, &mut logits, |out, values| {
        out.extend(values);
    });
    Outcome {
        loss: stats.loss,
        params: flat(&*params).to_vec(),
        moment1,
        moment2,
        logits: logits.concat(),
    }
}

fn image<N: Case>(pixels: &N::Pixels) -> Box<N::Image> {
    let mut image: Box<N::Image> = bytemuck::zeroed_box();
    let values = flat_mut(&mut *image).iter_mut();
    values
        .zip(bytemuck::bytes_of(pixels))
        .for_each(|(value, &pixel)| *value = f32::from(pixel) / 255.0);
    image
}

fn cpu_is_the_reference<N: Case>() {
    let (pixels, labels) = images::<N>();
    let start = params::<N>();
    let mut grads: Box<N::Params> = bytemuck::zeroed_box();
    let mut loss = 0.0;
    for (pixels, &label) in pixels.iter().zip(&labels) {
        let scale = 1.0 / IMAGES as f32;
        loss += N::gradient(&start, &image::<N>(pixels), label, scale, &mut grads) / IMAGES as f32;
    }
    let found = step::<N>(Isa::fastest(), 2);
    assert!(
        f64::from((found.loss - loss).abs()) <= LOSS,
        "{}: loss",
        N::NAME
    );
    let grads = flat(&*grads);
    for tensor in N::TENSORS {
        let range = tensor.offset..tensor.offset + tensor.len();
        let expected = &grads[range.clone()];
        let largest = expected.iter().fold(0.0f32, |a, b| a.max(b.abs()));
        for (i, (found, expected)) in found.moment1[range].iter().zip(expected).enumerate() {
            let error = f64::from((found - expected).abs());
            assert!(
                error <= GRADIENT * f64::from(largest) + 1e-9,
                "{}, {}[{i}]: {found}, expected {expected}, largest {largest}",
                N::NAME,
                tensor.name
            );
        }
    }

    let params: Box<N::Params> = {
        let mut params: Box<N::Params> = bytemuck::zeroed_box();
        flat_mut(&mut *params).copy_from_slice(&found.params);
        params
    };
    let mut act: Box<N::Activations> = bytemuck::zeroed_box();
    let classes = found.logits.len() / IMAGES;
    for (pixels, found) in pixels.iter().zip(found.logits.chunks(classes)) {
        let expected = N::forward(&params, &image::<N>(pixels), &mut act);
        for (found, expected) in found.iter().zip(expected.as_ref()) {
            let error = f64::from((found - expected).abs());
            assert!(
                error <= LOGITS,
                "{}: logit {found}, expected {expected}",
                N::NAME
            );
        }
    }
}

/// The 64-bit FNV-1a hash of each network's gradient and logits, which is the same on all machines. If it changes, a seed no
/// longer gives the same weights as before.
const HASHES: &[(&str, u64)] = &[
    ("regression", 0x8039d08800f6812a),
    ("narrow", 0xac074127380de084),
    ("pointwise", 0xa390ccb6743c1e3c),
    ("wide", 0x34f955ffa4977eb5),
    ("thirds", 0xaaa7df6cac01d292),
    ("one-map", 0xdea20349f5dbfead),
    ("maps", 0x3611a719f86a86c8),
    ("square", 0x9e2541700933e32e),
    ("deep", 0x0c2b53123df52a6b),
    ("pixel", 0x4f3d158ecf11ebc0),
    ("row", 0x45a71648bb6a1cba),
    ("named", 0x44f2c02e82991a8a),
    ("lenet", 0xca641cbb4ba62419),
    ("lenet-d2l", 0x355a0fe5b4eaa3d8),
    ("relu", 0x2a20f436e502a579),
    ("color", 0x0ab53e40e8f12463),
    ("tiny", 0x06d74238e7e9d0c3),
];

fn hash(outcome: &Outcome) -> u64 {
    let values = outcome.moment1.iter().chain(&outcome.logits);
    let bytes = values.flat_map(|value| value.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn cpu_gives_the_same_bytes<N: Case>() {
    let expected = step::<N>(Isa::fastest(), 1);
    let found = hash(&expected);
    match HASHES.iter().find(|(name, _)| *name == N::NAME) {
        Some((name, pinned)) => assert_eq!(found, *pinned, "{name}: {found:#018x}"),
        // Only the network that `LENET_NETWORK` names may have no hash.
        None => assert!(
            N::NAME == selected::NAME && N::NAME != "lenet",
            "HASHES has no entry; add (\"{}\", {found:#018x})",
            N::NAME
        ),
    }
    let bits = |values: &[f32]| -> Vec<u32> { values.iter().map(|v| v.to_bits()).collect() };
    for isa in Isa::available() {
        for threads in [1, 3] {
            let found = step::<N>(isa, threads);
            for (name, found, expected) in [
                ("gradient", &found.moment1, &expected.moment1),
                ("second moment", &found.moment2, &expected.moment2),
                ("parameters", &found.params, &expected.params),
                ("logits", &found.logits, &expected.logits),
            ] {
                let what = format!("{}, {isa:?}, {threads} threads: {name}", N::NAME);
                assert!(bits(found) == bits(expected), "{what}");
            }
        }
    }
}

#[test]
fn the_cpu_agrees_with_the_reference_for_every_network() {
    for_each_network!(cpu_is_the_reference);
}

#[test]
fn the_cpu_gives_the_same_bytes_everywhere_for_every_network() {
    for_each_network!(cpu_gives_the_same_bytes);
}

/// Counts multiply-adds by the definition: all of the forward pass; in the backward pass only those for the winners of
/// max-pooling, and none for the gradient of the images.
#[test]
fn a_training_step_of_lenet_needs_463_320_multiply_adds_an_image() {
    let phases = phases(&lenet::LAYERS);
    let sum: usize = phases.iter().map(|phase| phase.multiply_adds).sum();
    assert_eq!(sum, 463_320);
    let names: Vec<&str> = phases.iter().map(|phase| phase.name.as_str()).collect();
    assert_eq!(names[..3], ["data", "conv1 forward", "conv2 forward"]);
    assert_eq!(names[10..12], ["conv2 backward", "conv1 backward"]);
}
