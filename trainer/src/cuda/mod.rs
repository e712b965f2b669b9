//! Trains on one or more NVIDIA GPUs.
//!
//! The repository contains compiled kernels for each network of lenet-core, so training one of these needs NVIDIA's driver but
//! not the CUDA toolkit. The kernels of any other network are compiled at run time by NVRTC, NVIDIA's CUDA compiler in the form
//! of a library.
//!
//! | file | contents |
//! |---|---|
//! | step.cu | the kernels, in CUDA C++, for any network |
//! | `layout.rs` | derives the constants that step.cu needs from the description of a network |
//! | ptx/ | the kernels of each network of lenet-core, compiled by NVRTC (tests/tests/cuda/ptx.rs) |
//! | `ptx.rs` | selects the kernels in ptx/ or compiles them |
//! | `nvrtc.rs` | compiles the kernels of a network that has none in ptx/ |
//! | `kernels.rs` | buffers, copies, and one safe function per kernel |
//! | `replica.rs` | the data of one device, and its part of a step |
//! | `nccl.rs` | adds up the gradients of several devices |
//! | `driver.rs` | looks for a driver and a device, and says what to do if one is missing |
//! | `remedy.rs` | says what to do about an error of the driver |
//! | `bench.rs` | measures the speed |
//! | `engine.rs` | the training loop: one CUDA graph per epoch, or several |
//! | `mod.rs` | the backend |
//!
//! The data and the parameters stay on the device, which also computes the order of an epoch and the augmentation of its images
//! from a few random keys. A step launches two kernels, and a third if the trainer keeps a mean of the parameters. The launches
//! of all steps are captured once as a CUDA graph, which is launched again for each epoch. The host waits for the device once
//! per graph, to read the losses. An epoch of more than [`STEPS`] steps is split into several graphs, and training can stop
//! after each of them. All sums are computed in a fixed order, so two runs give the same bits.
//!
//! With several devices, each holds a copy of the parameters and processes an equal share of the batch. The second kernel of a
//! step then writes the gradients, NCCL adds them up across the devices, and a third kernel updates the parameters. All devices
//! get the same result, so each can keep its own mean of the parameters. Training on several devices has not been tested on
//! hardware.

mod bench;
mod driver;
mod engine;
mod kernels;
mod layout;
mod nccl;
mod nvrtc;
mod ptx;
mod remedy;
mod replica;

pub use bench::{Report, measure};
pub use driver::{Driver, probe};
pub use engine::{Engine, Flat, Images, STEPS};
pub use kernels::{coefficient_words, epoch_words};
pub use layout::{Layout, SHARED_BYTES, THREADS};
pub use nccl::Nccl;
pub use ptx::{Kernels, SHIPPED, shipped};

use crate::adam::Adam;
use crate::backend::{Backend, Batches, Error, State, StepStats};
use crate::dataset::Split;
use bytemuck::zeroed_box;
use lenet_core::network::{Logits, Net, Params, Pixels};
use std::ops::ControlFlow;

/// The backend that trains lenet-core's network on NVIDIA GPUs.
pub struct Cuda(Engine);

impl Cuda {
    /// Creates a backend that continues from `state` with the images of `train`, on the first `devices` devices (at least one).
    ///
    /// # Errors
    /// Those of [`Engine::new`].
    pub fn new(train: &Split, state: &State, adam: Adam, devices: usize) -> Result<Self, Error> {
        let images = Images {
            pixels: bytemuck::cast_slice(train.images()),
            labels: train.labels(),
        };
        let flat = |params: &Params| params.as_flat().to_vec();
        let state = Flat {
            params: flat(&state.params),
            moment1: flat(&state.moment1),
            moment2: flat(&state.moment2),
            mean: state.mean.as_deref().map(flat),
            step: state.step,
        };
        Engine::new(Kernels::of::<Net>, images, state, adam, devices).map(Self)
    }

    /// Calls [`Engine::limit_graphs`].
    pub fn limit_graphs(&mut self, steps: usize) {
        self.0.limit_graphs(steps);
    }

    /// Calls [`Engine::last_epoch_ms`].
    ///
    /// # Errors
    /// Those of [`Engine::last_epoch_ms`].
    pub fn last_epoch_ms(&self) -> Result<f32, Error> {
        self.0.last_epoch_ms()
    }
}

impl Backend for Cuda {
    fn describe(&self) -> String {
        self.0.describe().to_owned()
    }

    fn train(
        &mut self,
        batches: &Batches,
        on_step: &mut (dyn FnMut(StepStats) -> ControlFlow<()> + Send),
    ) -> Result<(), Error> {
        self.0.train(batches, on_step)
    }

    fn logits(&mut self, images: &[Pixels], out: &mut [Logits]) -> Result<(), Error> {
        let pixels = bytemuck::cast_slice(images);
        self.0.logits(pixels, out.as_flattened_mut())
    }

    fn state(&self) -> Result<State, Error> {
        let Flat {
            params,
            moment1,
            moment2,
            mean,
            step,
        } = self.0.state()?;
        let boxed = |flat: Vec<f32>| {
            let mut params: Box<Params> = zeroed_box();
            params.as_flat_mut().copy_from_slice(&flat);
            params
        };
        Ok(State {
            params: boxed(params),
            moment1: boxed(moment1),
            moment2: boxed(moment2),
            step,
            mean: mean.map(boxed),
        })
    }
}
