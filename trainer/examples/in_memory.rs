//! Trains from a program of your own: images in memory, a call for each step and epoch, and a weights file at the end.
//!
//! ```sh
//! cargo run --release -p trainer --example in_memory -- stripes.weights
//! ```
//!
//! The images are stripes, and the class is their direction.

use lenet_core::network::{CHANNELS, CLASSES, HEIGHT, WIDTH};
use lenet_core::weights::{ClassNames, Metadata, Provenance};
use std::error::Error;
use std::f64::consts::{PI, TAU};
use std::ops::{ControlFlow, Range};
use std::path::PathBuf;
use trainer::adam::Adam;
use trainer::backend::State;
use trainer::cpu::Cpu;
use trainer::dataset::{Dataset, Split};
use trainer::init::initial_params;
use trainer::train::{Event, Plan, Progress, train};
use trainer::weights_file::WeightsFile;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).map(PathBuf::from);
    let path = path.ok_or("name the weights file to write")?;

    let classes = std::array::from_fn(|class| format!("{} degrees", 180 * class / CLASSES));
    let data = Dataset::new("stripes", classes, stripes(0..2000), stripes(2000..2500));

    let plan = Plan {
        epochs: 10,
        batch_size: 50,
        seed: 0,
        shuffle: true,
        max_steps: None,
        augment: false,
        patience: None,
    };
    let adam = Adam {
        lr: 0.003,
        ..Adam::default()
    };
    let threads = 0; // one for each core
    let state = State::new(initial_params(plan.seed));
    let mut backend = Cpu::new(&data.train, state, adam, threads)?;

    let mut result = None;
    let mut progress = Progress::default();
    let _ = train(&mut backend, &data, &plan, &mut progress, &mut |event| {
        match event {
            Event::Step { loss, partial, .. } if partial.steps % 20 == 0 => {
                println!("  loss {loss:.4}")
            }
            // Return `Break` to stop early.
            Event::Step { .. } => {}
            Event::Epoch {
                progress, params, ..
            } => {
                let epoch = progress.epochs.last().expect("one is done");
                println!(
                    "epoch {}: test accuracy {:.3}",
                    epoch.epoch, epoch.held_out_acc
                );
                result = Some((*params, *epoch));
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    let (params, last) = result.expect("there is an epoch");

    let names = data.classes.each_ref().map(String::as_str);
    let metadata = Metadata {
        classes: ClassNames::new(&names),
        provenance: Provenance {
            dataset: &data.name,
            dataset_sha256: data.sha256,
            params_sha256: [0; 32], // filled in by `encode`
            seed: plan.seed,
            epochs: last.epoch,
            batch_size: 50,
            learning_rate: adam.lr as f32,
            test_accuracy: last.held_out_acc as f32,
            recipe: "adam, shuffled, 2000 images",
        },
    };
    WeightsFile::encode(&params, &metadata)?.save(&path)?;
    println!("wrote {}", path.display());
    Ok(())
}

/// Returns images of stripes, with a direction of each class in turn, and other widths and places in each image.
fn stripes(numbers: Range<u32>) -> Split {
    let mut images = Vec::new();
    let mut labels = Vec::new();
    for number in numbers {
        let class = number as usize % CLASSES;
        let angle = PI * class as f64 / CLASSES as f64;
        // Digits of multiples of irrational numbers are evenly distributed.
        let period = 5.0 + 4.0 * (f64::from(number) * 2_f64.sqrt()).fract();
        let shift = (f64::from(number) * 3_f64.sqrt()).fract();
        let pixel = |x: usize, y: usize| {
            let across = x as f64 * angle.cos() + y as f64 * angle.sin();
            (127.5 + 127.5 * (TAU * (across / period + shift)).sin()) as u8
        };
        for _ in 0..CHANNELS {
            images.extend((0..HEIGHT).flat_map(|y| (0..WIDTH).map(move |x| pixel(x, y))));
        }
        labels.push(class as u8);
    }
    Split::new(images, labels)
}
