//! Checks that the CPU backend computes the same bytes with every instruction set of this machine and any number of threads, and
//! compares it with the reference backend, tensor by tensor and over ten steps, for batches of odd sizes.
//!
//! A hash pins the bytes, so that different machines are compared too. The portable version, AVX2 and AVX-512 have been run on
//! hardware, and NEON under qemu-aarch64, where CI runs it. The output names the instruction sets that were compared.

use lenet_core::network::{Logits, NAME, TENSORS};
use lenet_test_support::fixtures::FASHION_MNIST;
use lenet_test_support::tolerance::{GRADIENT, LOGITS, WEIGHTS};
use lenet_training::adam::{Adam, Schedule};
use lenet_training::backend::{Backend, Batches, State};
use lenet_training::cpu::{Cpu, Isa};
use lenet_training::dataset::{Augment, Order};
use lenet_training::init::initial_params;
use lenet_training::reference::Reference;
use std::ops::ControlFlow;
use std::sync::LazyLock;

fn start() -> State {
    State::new(initial_params(5))
}

fn train(backend: &mut dyn Backend, images: usize, batch_size: usize, steps: usize) {
    let order = Order::shuffled(7, 0, images);
    let mut batches = Batches::epoch(order, images, batch_size);
    batches.range.end = batches.range.end.min(steps);
    backend
        .train(&batches, &mut |_| ControlFlow::Continue(()))
        .unwrap();
}

/// Trains for a hundred steps, with batches of 96 and a last one of 40, with batches of 17, and with batches of 1.
fn hundred_steps(backend: &mut dyn Backend) -> State {
    train(backend, 40 * 96 + 40, 96, 41);
    train(backend, 1000, 17, 39);
    train(backend, 20, 1, 20);
    let state = backend.state().unwrap();
    assert_eq!(state.step, 100);
    state
}

/// Computes the 64-bit FNV-1a hash of the parameters, the moments and, if there is one, the mean.
fn hash(state: &State) -> u64 {
    let parts = [&state.params, &state.moment1, &state.moment2];
    let parts = parts.into_iter().chain(&state.mean);
    let values = parts.flat_map(|part| part.as_flat());
    let bytes = values.flat_map(|value| value.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The hashes for the default network, which are the same on all machines: without a mean, and with a mean over about the last 30
/// steps. If they change, a seed no longer gives the same weights as before.
const LENET: [u64; 2] = [0xc2444262edc5b420, 0x9897f48f41d72f2e];

/// The hashes for the network of this build. `networks.rs` pins the other networks.
static HASHES: LazyLock<[u64; 2]> = LazyLock::new(|| match NAME {
    "lenet" => LENET,
    _ => [None, Some(30)].map(|average| hash(&trained(Isa::fastest(), 1, average).1)),
});

/// Returns the backend's description, and its state after a hundred steps.
fn trained(isa: Isa, threads: usize, average: Option<u64>) -> (String, State) {
    let adam = Adam {
        average,
        ..Adam::default()
    };
    let mut cpu = Cpu::with_isa(&FASHION_MNIST.train, start(), adam, threads, isa).unwrap();
    let state = hundred_steps(&mut cpu);
    (cpu.describe(), state)
}

/// Checks both hashes with one training, because the mean does not change the rest of the state.
fn assert_hashes(isa: Isa, threads: usize) {
    let (name, mut state) = trained(isa, threads, Some(30));
    let found = hash(&state);
    assert_eq!(found, HASHES[1], "{name}: {found:#018x}");
    state.mean = None;
    let found = hash(&state);
    assert_eq!(found, HASHES[0], "{name}, without the mean: {found:#018x}");
}

#[test]
fn without_a_mean_the_bytes_are_the_same() {
    let (name, state) = trained(Isa::fastest(), 2, None);
    let found = hash(&state);
    assert_eq!(found, HASHES[0], "{name}: {found:#018x}");
}

#[test]
fn every_instruction_set_gives_the_same_bytes() {
    let compared: Vec<&str> = Isa::available().iter().map(|isa| isa.name()).collect();
    for isa in Isa::available() {
        assert_hashes(isa, 2);
    }
    println!("compared: {}", compared.join(", "));
    assert!(compared.contains(&"portable"));
    #[cfg(target_arch = "x86_64")]
    for (name, has) in [
        ("avx2", std::arch::is_x86_feature_detected!("avx2")),
        ("avx512", std::arch::is_x86_feature_detected!("avx512f")),
    ] {
        assert_eq!(compared.contains(&name), has, "{name}");
        if !has {
            println!("not run: this CPU has no {name}");
        }
    }
    #[cfg(target_arch = "aarch64")]
    assert!(compared.contains(&"neon"));
}

/// How threads share the work does not depend on the instruction set.
#[test]
fn any_number_of_threads_gives_the_same_bytes() {
    for threads in [1, 3, 7] {
        assert_hashes(Isa::fastest(), threads);
    }
}

/// In about one image in a thousand, the largest values of a pooling window are so close that rounding decides which one is the
/// maximum, and the gradient differs from that of the reference. None of these images has such a window.
#[test]
fn gradients_agree_with_the_reference_tensor_by_tensor() {
    // With a beta1 of 0, the first moment after a step from zero is the gradient.
    let adam = Adam {
        beta1: 0.0,
        ..Adam::default()
    };
    let data = &FASHION_MNIST.train;
    for isa in Isa::available() {
        for batch_size in [1, 15, 16, 17, 96] {
            let mut cpu = Cpu::with_isa(data, start(), adam, 2, isa).unwrap();
            let mut reference = Reference::new(data, start(), adam);
            train(&mut cpu, 200, batch_size, 1);
            train(&mut reference, 200, batch_size, 1);
            let [found, expected] =
                [cpu.state(), reference.state()].map(|state| state.unwrap().moment1);
            for tensor in &TENSORS {
                let range = tensor.offset..tensor.offset + tensor.len();
                let (found, expected) =
                    (&found.as_flat()[range.clone()], &expected.as_flat()[range]);
                let largest = expected.iter().fold(0.0f32, |a, b| a.max(b.abs()));
                for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
                    let error = f64::from((found - expected).abs());
                    assert!(
                        error <= GRADIENT * f64::from(largest),
                        "{isa:?}, batch {batch_size}, {}[{i}]: {found}, expected {expected}, largest {largest}",
                        tensor.name
                    );
                }
            }
        }
    }
}

#[test]
fn ten_steps_and_logits_agree_with_the_reference() {
    let data = &FASHION_MNIST.train;
    let mut reference = Reference::new(data, start(), Adam::default());
    train(&mut reference, 330, 33, 10);
    let expected = reference.state().unwrap();
    let images = &FASHION_MNIST.test.images()[..37];
    let mut expected_logits = [Logits::default(); 37];
    reference.logits(images, &mut expected_logits).unwrap();
    for isa in Isa::available() {
        let mut cpu = Cpu::with_isa(data, start(), Adam::default(), 2, isa).unwrap();
        train(&mut cpu, 330, 33, 10);
        let state = cpu.state().unwrap();
        for (found, expected) in state.params.as_flat().iter().zip(expected.params.as_flat()) {
            assert!(
                f64::from((found - expected).abs()) <= WEIGHTS,
                "{isa:?}: {found} {expected}"
            );
        }
        let mut logits = [Logits::default(); 37];
        cpu.logits(images, &mut logits).unwrap();
        for (found, expected) in logits
            .iter()
            .flatten()
            .zip(expected_logits.iter().flatten())
        {
            assert!(
                f64::from((found - expected).abs()) <= LOGITS,
                "{isa:?}: {found} {expected}"
            );
        }
    }
}

/// Trains with weight decay, a falling learning rate, augmentation and a mean. The bytes must be the same for every instruction
/// set and number of threads, the weights and the mean must match the reference, and the logits must be those of the mean.
#[test]
fn all_options_agree_with_the_reference_and_give_the_same_bytes() {
    let data = &FASHION_MNIST.train;
    let adam = Adam {
        weight_decay: 0.1,
        schedule: Schedule::Cosine { steps: 10 },
        average: Some(4),
        ..Adam::default()
    };
    let ten_steps = |backend: &mut dyn Backend| {
        let batches = Batches {
            augment: Some(Augment::new(5, 0)),
            ..Batches::epoch(Order::shuffled(5, 0, 330), 330, 33)
        };
        backend
            .train(&batches, &mut |_| ControlFlow::Continue(()))
            .unwrap();
        backend.state().unwrap()
    };
    let reference = ten_steps(&mut Reference::new(data, start(), adam));
    let images = &FASHION_MNIST.test.images()[..37];
    let mut hashes = Vec::new();
    for isa in Isa::available() {
        for threads in [1, 3] {
            let mut cpu = Cpu::with_isa(data, start(), adam, threads, isa).unwrap();
            let state = ten_steps(&mut cpu);
            hashes.push(hash(&state));
            for (found, expected) in [
                (&*state.params, &*reference.params),
                (state.result(), reference.result()),
            ] {
                for (found, expected) in found.as_flat().iter().zip(expected.as_flat()) {
                    assert!(
                        f64::from((found - expected).abs()) <= WEIGHTS,
                        "{isa:?}: {found} {expected}"
                    );
                }
            }
            let mean = State::new(state.mean.unwrap());
            let mut of_mean = Cpu::with_isa(data, mean, Adam::default(), threads, isa).unwrap();
            let mut logits = [[Logits::default(); 37]; 2];
            cpu.logits(images, &mut logits[0]).unwrap();
            of_mean.logits(images, &mut logits[1]).unwrap();
            assert_eq!(logits[0], logits[1], "{isa:?}");
        }
    }
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:x?}");
    // Each of the three options changes the result.
    let plain = {
        let adam = Adam {
            average: adam.average,
            ..Adam::default()
        };
        let mut cpu = Cpu::new(data, start(), adam, 1).unwrap();
        train(&mut cpu, 330, 33, 10);
        hash(&cpu.state().unwrap())
    };
    assert_ne!(plain, hashes[0]);
}

#[test]
fn an_instruction_set_can_be_selected_and_a_wrong_name_is_an_error() {
    assert!("portable".parse::<Isa>().is_ok());
    let problem = "sse9".parse::<Isa>().unwrap_err();
    assert!(
        problem.contains("sse9") && problem.contains("portable"),
        "{problem}"
    );
}
