//! Training on the CPU: sixteen images at a time, over all cores.
//!
//! **The batch is the vector.** Sixteen images are interleaved value by value, so that activations are
//! `(feature, 16)`: each load is one run of memory, each weight is one broadcast, nothing is gathered. A step is
//!
//! ```text
//! for each group of sixteen images, shared over the threads:         (group.rs)
//!     images -> bytes (28, 28, 16)                                    pixels.rs
//!     conv, pool, sigmoid, twice, keeping who won each window         conv1.rs, conv2.rs
//!     fully connected layers, loss, and back to pool2's gradient      linear.rs, loss.rs
//!     back through the convolutions                                   conv2.rs, conv1.rs
//! for each block of rows of the weights, shared over the threads:
//!     gradient summed over all images in order, then Adam at once     linear.rs, adam.rs
//! with a mean: the parameters into it                                 adam.rs
//! ```
//!
//! **The same bits everywhere.** Every sum has one order: within an image by the loops of its kernel, then over the
//! images of a group, then over the groups. Multiply-adds are fused on every instruction set ([`simd`]). So neither the
//! number of threads nor the CPU changes a result. It differs from the reference's by rounding alone.
//!
//! Nothing is allocated in a step: groups and each thread's scratch are kept, and grow only with the batch.

// Not yet used outside their tests.
#[allow(dead_code)]
mod activation;
mod conv1;
mod conv2;
#[allow(dead_code)]
mod direct;
mod group;
mod linear;
mod loss;
mod peak;
mod pixels;
mod pool;
mod profile;
mod sigmoid;
pub mod simd;
mod update;
mod winograd;

pub use peak::peak_multiply_adds;
pub use profile::{Phase, Times};
pub use simd::Isa;

use crate::adam::Adam;
use crate::backend::{Backend, Batches, State, StepStats};
use crate::dataset::Split;
use crate::error::Error;
use crate::reference::StepSums;
use bytemuck::{Zeroable, zeroed_box};
use group::{Group, Images, Network, Prepared, Scratch, TOGETHER};
use lenet_core::network::{Logits, Pixels};
use profile::Clock;
use rayon::prelude::*;
use simd::LANES;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use update::update;

/// The backend.
pub struct Cpu<'a> {
    isa: Isa,
    train: &'a Split,
    state: State,
    adam: Adam,
    threads: Arc<rayon::ThreadPool>,
    prepared: Box<Prepared>,
    /// One a group of the largest batch so far.
    groups: Vec<Group>,
    /// One a thread.
    workers: Vec<Mutex<Worker>>,
}

struct Worker {
    scratch: Box<Scratch>,
    clock: Clock,
}

impl<'a> Cpu<'a> {
    /// Goes on from `state` with the images of `train`, on so many threads; 0 means one a core. The instruction set is
    /// the fastest that the CPU has, or the one named by the environment variable `LENET_ISA`.
    ///
    /// # Errors
    /// `Backend`: the system refuses the threads, or `LENET_ISA` names what the CPU does not have.
    pub fn new(train: &'a Split, state: State, adam: Adam, threads: usize) -> Result<Self, Error> {
        let isa = match std::env::var_os("LENET_ISA") {
            None => Isa::fastest(),
            Some(name) => name
                .to_string_lossy()
                .parse()
                .map_err(|problem| Error::Backend(format!("LENET_ISA: {problem}")))?,
        };
        Self::with_isa(train, state, adam, threads, isa)
    }

    /// As [`new`](Self::new), with the instructions of `isa`.
    ///
    /// # Errors
    /// `Backend`: the system refuses the threads.
    pub fn with_isa(
        train: &'a Split,
        state: State,
        adam: Adam,
        threads: usize,
        isa: Isa,
    ) -> Result<Self, Error> {
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .map_err(|error| Error::Backend(format!("cannot start {threads} threads: {error}")))?;
        let state = state.for_training(&adam);
        let prepared = Prepared::new(isa, &state.params);
        let workers = (0..threads.current_num_threads())
            .map(|_| {
                Mutex::new(Worker {
                    scratch: zeroed_box(),
                    clock: Clock::stopped(),
                })
            })
            .collect();
        Ok(Self {
            isa,
            train,
            state,
            adam,
            threads: Arc::new(threads),
            prepared,
            groups: Vec::new(),
            workers,
        })
    }

    /// The instruction set.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The number of threads.
    pub fn threads(&self) -> usize {
        self.threads.current_num_threads()
    }

    /// Trains as [`Backend::train`] and tells the time that the threads together spent in each phase.
    pub fn profile(&mut self, batches: &Batches) -> Result<Times, Error> {
        let set_clocks = |workers: &mut [Mutex<Worker>], clock: fn() -> Clock| {
            let clocks = workers.iter_mut().map(|worker| {
                let worker = worker.get_mut().unwrap_or_else(PoisonError::into_inner);
                std::mem::replace(&mut worker.clock, clock()).times
            });
            clocks
                .reduce(|a, b| std::array::from_fn(|i| a[i] + b[i]))
                .unwrap_or_default()
        };
        set_clocks(&mut self.workers, Clock::running);
        self.train(batches, &mut |_| ControlFlow::Continue(()))?;
        Ok(set_clocks(&mut self.workers, Clock::stopped))
    }

    /// One step, on a thread of the pool.
    fn step(&mut self, batches: &Batches, index: usize) -> StepStats {
        let start = index * batches.batch_size;
        let images = batches.batch_size.min(batches.images - start);
        let used = images.div_ceil(LANES);
        if self.groups.len() < used {
            self.groups.resize(used, Group::zeroed());
        }
        let Self {
            isa,
            train,
            state,
            adam,
            prepared,
            groups,
            workers,
            threads: _,
        } = self;
        let (isa, groups, scale) = (*isa, &mut groups[..used], 1.0 / images as f32);
        let network = Network {
            isa,
            params: &state.params,
            prepared,
        };
        // A few groups together do the fully connected layers faster, unless threads would then have nothing to do.
        let together = (used / workers.len()).clamp(1, TOGETHER);
        groups
            .par_chunks_mut(together)
            .enumerate()
            .with_max_len(1)
            .for_each(|(chunk, groups)| {
                let first = chunk * together * LANES;
                let len = (groups.len() * LANES).min(images - first);
                let mut indices = [0; TOGETHER * LANES];
                for (n, index) in indices[..len].iter_mut().enumerate() {
                    *index = batches.order.index(start + first + n);
                }
                let Worker { scratch, clock } = &mut *worker(workers);
                let images = Images {
                    train,
                    augment: batches.augment.as_ref(),
                    indices: &indices[..len],
                };
                network.gradient(&images, scale, groups, scratch, clock);
            });
        update(isa, adam, state, groups, prepared, workers);
        let mut sums = StepSums::default();
        for (g, group) in groups.iter().enumerate() {
            group.add_losses(images - g * LANES, &mut sums);
        }
        sums.stats()
    }
}

/// The worker of the thread of the pool that asks.
fn worker(workers: &[Mutex<Worker>]) -> MutexGuard<'_, Worker> {
    let thread = rayon::current_thread_index().unwrap_or(0);
    workers[thread]
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}

impl Backend for Cpu<'_> {
    fn describe(&self) -> String {
        format!("cpu ({}, {} threads)", self.isa.name(), self.threads())
    }

    fn train(
        &mut self,
        batches: &Batches,
        on_step: &mut (dyn FnMut(StepStats) -> ControlFlow<()> + Send),
    ) -> Result<(), Error> {
        // All steps in one visit to the pool: waking a thread for each would cost as much as a hundred images.
        let threads = self.threads.clone();
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
        let Self {
            threads,
            isa,
            workers,
            state,
            prepared,
            ..
        } = self;
        let mean = state.mean.as_deref().map(|mean| Prepared::new(*isa, mean));
        let network = Network {
            isa: *isa,
            params: state.result(),
            prepared: mean.as_ref().unwrap_or(prepared),
        };
        threads.install(|| {
            images
                .par_chunks(TOGETHER * LANES)
                .zip(out.par_chunks_mut(TOGETHER * LANES))
                .for_each(|(images, out)| {
                    network.logits(images, out, &mut worker(workers).scratch);
                });
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

    /// The tiles of AVX-512 differ from those of the others; that their bits do not is seen here on any CPU.
    #[test]
    fn tiles_do_not_change_a_bit() {
        const IMAGES: usize = 3 * 72;
        let pixels =
            (0..IMAGES * size_of::<Pixels>()).map(|i| (i as u32).wrapping_mul(2_654_435_761) >> 24);
        let data = Split::new(
            pixels.map(|pixel| pixel as u8).collect(),
            (0..IMAGES).map(|i| (i % 10) as u8).collect(),
        );
        let results = [Isa::portable_wide(), "portable".parse().unwrap()].map(|isa| {
            let state = State::new(initial_params(0));
            let mut cpu = Cpu::with_isa(&data, state, Adam::default(), 1, isa).unwrap();
            let batches = Batches::epoch(Order::Sequential, IMAGES, 72);
            cpu.train(&batches, &mut |_| ControlFlow::Continue(()))
                .unwrap();
            let mut logits = [Logits::default(); 37];
            cpu.logits(&data.images()[..37], &mut logits).unwrap();
            (cpu.state, logits)
        });
        let [(wide, wide_logits), (state, logits)] = results;
        assert_eq!(state.step, 3);
        assert!(wide.params.as_flat() == state.params.as_flat());
        assert_eq!(wide_logits, logits);
    }
}
