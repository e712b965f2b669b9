//! Training on an NVIDIA GPU, or several. The kernels are compiled ahead for the networks of lenet-core, so that running needs a
//! driver and no toolkit; for another network NVRTC compiles them when they are needed.
//!
//! | file | what |
//! |---|---|
//! | step.cu | the kernels, in CUDA C, for any network |
//! | `layout.rs` | a network as the kernels see it: the constants before step.cu, from the description |
//! | ptx/ | what NVRTC makes of both for each network of lenet-core (tests/tests/cuda/ptx.rs) |
//! | `ptx.rs` | which of them a program has |
//! | `nvrtc.rs` | the compiler, for a network that has none |
//! | `kernels.rs` | buffers, and one safe function a kernel |
//! | `replica.rs` | what one device holds, and its part of a step |
//! | `nccl.rs` | the sum of several devices' gradients |
//! | `driver.rs` | whether there is a driver and a device, and what to do if not |
//! | `remedy.rs` | what to do about an error of the driver |
//! | `bench.rs` | how fast it is |
//! | `engine.rs` | training: one graph an epoch, or several |
//! | `mod.rs` | the backend |
//!
//! Data and parameters stay on the device. The order of an epoch is computed there, from its keys, and so is how its images
//! are changed; an epoch is two kernels a step, and one more for a mean of the parameters, captured once as a graph that is
//! launched again for each epoch, and one synchronisation at its end, when the losses come back. An epoch of more than
//! [`STEPS`] steps is several such parts, and may end after each. Everything adds in a fixed order: two runs give the same
//! bits.
//!
//! Several devices hold the same parameters and share each batch in equal runs of images. A step's second kernel then
//! leaves the gradients, NCCL adds them up, within the graph, and a third kernel updates the parameters, with the same
//! result on all; so each keeps a mean of its own. This has not run on hardware.

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
use crate::backend::{Backend, Batches, State, StepStats};
use crate::dataset::Split;
use crate::error::Error;
use bytemuck::zeroed_box;
use lenet_core::network::{Logits, Net, Params, Pixels};
use std::ops::ControlFlow;

/// The backend.
pub struct Cuda(Engine);

impl Cuda {
    /// Goes on from `state` with the images of `train`, on the first `devices` devices, at least one.
    ///
    /// # Errors
    /// As [`Engine::new`].
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

    /// As [`Engine::limit_graphs`].
    pub fn limit_graphs(&mut self, steps: usize) {
        self.0.limit_graphs(steps);
    }

    /// As [`Engine::last_epoch_ms`].
    ///
    /// # Errors
    /// As there.
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
