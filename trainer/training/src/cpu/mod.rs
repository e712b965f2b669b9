//! Training on the CPU, 16 images at a time, on all cores.
//!
//! **Vectors run over the batch.** The values of 16 images are interleaved, so activations have the shape `(C, H, W, 16)` or
//! `(feature, 16)`: each load is contiguous, each weight is broadcast, and nothing is gathered. A step is
//!
//! ```text
//! for each one or two groups of 16 images, shared among the threads:       (engine.rs)
//!     interleave the images                                                pixels.rs
//!     each layer's forward pass, from the first to the last                layer/
//!     the loss                                                             loss.rs
//!     each layer's backward pass, from the last to the first               layer/
//! for each layer (each block of rows in a linear one), shared among the threads:
//!     sum the gradient over all images in order, then apply Adam           layer/, adam.rs
//! if there is a mean of the parameters: update it                          adam.rs
//! ```
//!
//! No layer is named here: [`passes!`](crate::passes) makes the list of layers from the description of a network.
//!
//! **The same bits everywhere.** Every sum has a fixed order: within an image that of the kernel's loops, then over the images
//! of a group, then over the groups. Multiply-adds are fused on every instruction set ([`simd`]). So neither the number of
//! threads nor the CPU changes a result. It differs from that of the reference backend only by rounding.
//!
//! The memory of groups and threads is reused from step to step, and grows only if the batch does.

mod activation;
mod direct;
mod engine;
#[doc(hidden)]
pub mod layer;
mod linear;
mod loss;
mod peak;
mod pixels;
mod pool;
mod profile;
mod rows;
mod sigmoid;
pub mod simd;
mod tiles;
mod winograd;

pub use engine::{Engine, Images, Slots, Weights};
pub use peak::peak_multiply_adds;
pub use pixels::{Store, Stored, View};
pub use profile::{Phase, phases};
pub use simd::Isa;

use crate::adam::Adam;
use crate::backend::Error;
use crate::backend::{Backend, Batches, State, StepStats};
use crate::dataset::Split;
use layer::Chain;
use lenet_core::network::{Logits, Net, Pixels};
use std::ops::ControlFlow;
use std::time::Duration;

/// The number of groups that pass through the layers together, so that a linear layer loads each weight once for both.
const TOGETHER: usize = 2;

/// A network that this backend can train: [`passes!`](crate::passes) implements this trait for a [`lenet_core::Network`].
pub trait Network: lenet_core::Network {
    /// A group of images.
    type Stored: Store<Self::Pixels> + View<<Self::Layers as Chain>::Input>;
    /// The layers, each with the algorithm that computes it.
    type Layers: Chain;
}

/// Implements [`Network`] for a description, beside the items that [`network!`](lenet_core::network!) makes from it.
#[macro_export]
macro_rules! passes {
    (
        name: $name:literal,
        input: $input:expr,
        $( $layer:ident: $kind:ident { $($spec:tt)* } ),* $(,)?
    ) => {
        impl $crate::cpu::Network for Net {
            type Stored = $crate::cpu::Stored<CHANNELS, HEIGHT, WIDTH>;
            type Layers = $crate::passes!(@ true, [$($layer $kind)*]);
        }
    };
    // The rest of the layers; the first of them may be the network's first.
    (@ $is_first:literal, []) => { $crate::cpu::layer::End<CLASSES> };
    (@ $is_first:literal, [$layer:ident $kind:ident $($rest:ident)*]) => {
        (
            <$crate::cpu::layer::$kind::Pick<
                { $crate::cpu::layer::$kind::choose(&$layer::LAYER, $is_first) },
            > as $crate::cpu::layer::$kind::Choice<
                $layer::This,
                { $crate::cpu::layer::$kind::sizes(&$layer::LAYER, $is_first)[0] },
                { $crate::cpu::layer::$kind::sizes(&$layer::LAYER, $is_first)[1] },
                { $crate::cpu::layer::$kind::sizes(&$layer::LAYER, $is_first)[2] },
                { $crate::cpu::layer::$kind::sizes(&$layer::LAYER, $is_first)[3] },
                { $crate::cpu::layer::$kind::sizes(&$layer::LAYER, $is_first)[4] },
                { $crate::cpu::layer::$kind::sizes(&$layer::LAYER, $is_first)[5] },
                { $crate::cpu::layer::$kind::sizes(&$layer::LAYER, $is_first)[6] },
                { $crate::cpu::layer::$kind::sizes(&$layer::LAYER, $is_first)[7] },
                { $crate::cpu::layer::$kind::sizes(&$layer::LAYER, $is_first)[8] },
                { $crate::cpu::layer::$kind::sizes(&$layer::LAYER, $is_first)[9] },
                { $crate::cpu::layer::$kind::sizes(&$layer::LAYER, $is_first)[10] },
                { $crate::cpu::layer::$kind::sizes(&$layer::LAYER, $is_first)[11] },
                { $crate::cpu::layer::$kind::sizes(&$layer::LAYER, $is_first)[12] },
            >>::Pass,
            $crate::passes!(@ false, [$($rest)*]),
        )
    };
}

mod selected {
    use lenet_core::network::*;
    lenet_core::description!(crate::passes);
}

/// The CPU backend, for the network that this build is for.
pub struct Cpu<'a> {
    train: &'a Split,
    state: State,
    adam: Adam,
    weights: Weights<Net>,
    engine: Engine<Net>,
}

impl<'a> Cpu<'a> {
    /// Continues from `state` with the images of `train`, on `threads` threads; 0 means one per core. The instruction set is
    /// the fastest that the CPU has, or the one that the environment variable `LENET_ISA` names.
    ///
    /// # Errors
    /// `Backend`: the system cannot start the threads, or the CPU lacks the instruction set that `LENET_ISA` names.
    pub fn new(train: &'a Split, state: State, adam: Adam, threads: usize) -> Result<Self, Error> {
        let isa = std::env::var_os("LENET_ISA").filter(|isa| !isa.is_empty());
        let isa = match isa {
            None => Isa::fastest(),
            Some(name) => name
                .to_string_lossy()
                .parse()
                .map_err(|problem| Error::Backend(format!("LENET_ISA: {problem}")))?,
        };
        Self::with_isa(train, state, adam, threads, isa)
    }

    /// Does the same as [`new`](Self::new), with the instruction set `isa`.
    ///
    /// # Errors
    /// `Backend`: the system cannot start the threads.
    pub fn with_isa(
        train: &'a Split,
        state: State,
        adam: Adam,
        threads: usize,
        isa: Isa,
    ) -> Result<Self, Error> {
        let engine = Engine::new(isa, threads)?;
        let state = state.for_training(&adam);
        let weights = Weights::new(isa, &*state.params);
        Ok(Self {
            train,
            state,
            adam,
            weights,
            engine,
        })
    }

    /// Returns the instruction set.
    pub fn isa(&self) -> Isa {
        self.engine.isa()
    }

    /// Returns the number of threads.
    pub fn threads(&self) -> usize {
        self.engine.threads().current_num_threads()
    }

    /// Trains like [`Backend::train`] and returns the time spent in each of the [`phases`], summed over the threads.
    pub fn profile(&mut self, batches: &Batches) -> Result<Vec<Duration>, Error> {
        self.engine.set_clocks(true);
        self.train(batches, &mut |_| ControlFlow::Continue(()))?;
        Ok(self.engine.set_clocks(false))
    }

    /// Runs one step. The caller is a thread of the pool.
    fn step(&mut self, batches: &Batches, index: usize) -> StepStats {
        let start = index * batches.batch_size;
        let images = Images {
            stored: self.train.images(),
            labels: self.train.labels(),
            count: batches.batch_size.min(batches.images - start),
            index: &|n| batches.order.index(start + n),
            change: match &batches.augment {
                None => None,
                Some(augment) => Some(&|index, pixels: &Pixels| augment.apply(index, pixels)),
            },
        };
        let State {
            params,
            moment1,
            moment2,
            step,
            mean,
        } = &mut self.state;
        *step += 1;
        let adam = self.adam.coefficients(*step);
        let slots = Slots {
            params: params.as_flat_mut(),
            moment1: moment1.as_flat_mut(),
            moment2: moment2.as_flat_mut(),
            mean: mean.as_mut().map(|mean| &mut mean.as_flat_mut()[..]),
        };
        self.engine.step(&images, &mut self.weights, &adam, slots)
    }
}

impl Backend for Cpu<'_> {
    fn describe(&self) -> String {
        format!("cpu ({}, {} threads)", self.isa().name(), self.threads())
    }

    fn train(
        &mut self,
        batches: &Batches,
        on_step: &mut (dyn FnMut(StepStats) -> ControlFlow<()> + Send),
    ) -> Result<(), Error> {
        // The pool runs all steps in one call: to wake a thread for each step would cost as much as a hundred images.
        let threads = self.engine.threads();
        threads.install(|| {
            for index in batches.range.clone() {
                let stats = self.step(batches, index);
                if on_step(stats).is_break() {
                    break;
                }
            }
        });
        Ok(())
    }

    fn logits(&mut self, images: &[Pixels], out: &mut [Logits]) -> Result<(), Error> {
        let mean = self.state.mean.as_deref();
        let mean = mean.map(|mean| Weights::new(self.isa(), mean));
        let weights = mean.as_ref().unwrap_or(&self.weights);
        self.engine
            .logits(self.state.result(), weights, images, out, |out, logits| {
                for (out, logit) in out.iter_mut().zip(logits) {
                    *out = logit;
                }
            });
        Ok(())
    }

    fn state(&self) -> Result<State, Error> {
        Ok(self.state.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Order;
    use crate::init::initial_params;
    use lenet_core::network::CLASSES;

    /// AVX-512 uses tiles of another size than AVX2, as does the portable version in this test. So every CPU with AVX2 shows that
    /// the bits are the same.
    #[test]
    fn tiles_do_not_change_a_bit() {
        const IMAGES: usize = 3 * 72;
        let pixels =
            (0..IMAGES * size_of::<Pixels>()).map(|i| (i as u32).wrapping_mul(2_654_435_761) >> 24);
        let data = Split::new(
            pixels.map(|pixel| pixel as u8).collect(),
            (0..IMAGES).map(|i| (i % CLASSES) as u8).collect(),
        );
        let mut first: Option<(State, Vec<Logits>)> = None;
        for isa in Isa::available() {
            let state = State::new(initial_params(0));
            let mut cpu = Cpu::with_isa(&data, state, Adam::default(), 1, isa).unwrap();
            let batches = Batches::epoch(Order::Sequential, IMAGES, 72);
            cpu.train(&batches, &mut |_| ControlFlow::Continue(()))
                .unwrap();
            let mut logits = vec![[0.0; CLASSES]; 37];
            cpu.logits(&data.images()[..37], &mut logits).unwrap();
            assert_eq!(cpu.state.step, 3);
            let (state, first_logits) =
                first.get_or_insert_with(|| (cpu.state.clone(), logits.clone()));
            assert!(
                state.params.as_flat() == cpu.state.params.as_flat(),
                "{isa:?}"
            );
            assert_eq!(*first_logits, logits, "{isa:?}");
        }
    }
}
