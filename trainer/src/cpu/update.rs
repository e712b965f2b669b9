//! The second half of a step: gradients by the parameters over the whole batch, and Adam.
//!
//! The fully connected layers are shared out by blocks of rows, each of which sums its gradient over all images and is
//! updated while it is in the cache. The convolutions' sums are one small piece of work beside them.

use super::group::{Group, Prepared};
use super::linear::{Kept, Slots, UPDATE_ROWS, Update, turn};
use super::profile::Phase;
use super::simd::{Isa, Kernel, Lanes, Simd};
use super::{Worker, conv1, conv2, worker};
use crate::adam::{self, Adam, Coefficients};
use crate::backend::State;
use bytemuck::Pod;
use rayon::prelude::*;
use std::sync::Mutex;

/// One step of Adam on all parameters, from the groups of the batch.
pub(super) fn update(
    isa: Isa,
    adam: &Adam,
    state: &mut State,
    groups: &[Group],
    prepared: &mut Prepared,
    workers: &[Mutex<Worker>],
) {
    let State {
        params,
        moment1,
        moment2,
        step,
        mean,
    } = state;
    *step += 1;
    let adam = &adam.coefficients(*step);
    let batch = Batch {
        isa,
        adam,
        groups,
        workers,
    };
    let (p, m, v) = (&mut **params, &mut **moment1, &mut **moment2);
    let fc1 = || {
        let weight = [&mut p.fc1.weight, &mut m.fc1.weight, &mut v.fc1.weight];
        let bias = [&mut p.fc1.bias, &mut m.fc1.bias, &mut v.fc1.bias];
        batch.update_layer(|group| &group.fc1, weight, bias);
        batch.turn(&p.fc1.weight, &mut prepared.fc1);
    };
    let fc2 = || {
        let weight = [&mut p.fc2.weight, &mut m.fc2.weight, &mut v.fc2.weight];
        let bias = [&mut p.fc2.bias, &mut m.fc2.bias, &mut v.fc2.bias];
        batch.update_layer(|group| &group.fc2, weight, bias);
        batch.turn(&p.fc2.weight, &mut prepared.fc2);
    };
    let fc3 = || {
        let weight = [&mut p.fc3.weight, &mut m.fc3.weight, &mut v.fc3.weight];
        let bias = [&mut p.fc3.bias, &mut m.fc3.bias, &mut v.fc3.bias];
        batch.update_layer(|group| &group.fc3, weight, bias);
        batch.turn(&p.fc3.weight, &mut prepared.fc3);
    };
    let convolutions = || {
        let mut worker = worker(workers);
        worker.clock.start();
        let sums = batch.sum(|group| &group.conv1);
        update_flat(
            adam,
            [
                &mut p.conv1.weight,
                &mut m.conv1.weight,
                &mut v.conv1.weight,
            ],
            &sums.weight(),
        );
        update_flat(
            adam,
            [&mut p.conv1.bias, &mut m.conv1.bias, &mut v.conv1.bias],
            &sums.bias(),
        );
        conv1::set_kernels(&p.conv1.weight, &mut prepared.conv1);
        let sums = batch.sum(|group| &group.conv2);
        update_flat(
            adam,
            [
                &mut p.conv2.weight,
                &mut m.conv2.weight,
                &mut v.conv2.weight,
            ],
            &sums.weight(),
        );
        update_flat(
            adam,
            [&mut p.conv2.bias, &mut m.conv2.bias, &mut v.conv2.bias],
            &sums.bias(),
        );
        conv2::set_kernels(&p.conv2.weight, &mut prepared.conv2);
        worker.clock.lap(Phase::Update);
    };
    rayon::join(fc1, || rayon::join(fc2, || rayon::join(fc3, convolutions)));
    if let Some(mean) = mean {
        let mut worker = worker(workers);
        worker.clock.start();
        adam::average(adam, params.as_flat(), mean.as_flat_mut());
        worker.clock.lap(Phase::Update);
    }
}

/// What every update of a layer needs.
#[derive(Clone, Copy)]
struct Batch<'a> {
    isa: Isa,
    adam: &'a Coefficients,
    groups: &'a [Group],
    workers: &'a [Mutex<Worker>],
}

impl Batch<'_> {
    /// Adds up a convolution's sums over the groups, in their order.
    fn sum<T: Pod>(&self, of: impl Fn(&Group) -> &T) -> T {
        let mut sums = T::zeroed();
        for group in self.groups {
            self.isa.run(AddSums {
                other: of(group),
                out: &mut sums,
            });
        }
        sums
    }

    /// Turns the weight of a fully connected layer.
    fn turn<const IN: usize, const OUT: usize>(
        &self,
        weight: &[[f32; IN]; OUT],
        turned: &mut [[f32; OUT]; IN],
    ) {
        let mut worker = worker(self.workers);
        worker.clock.start();
        turn(self.isa, weight, turned);
        worker.clock.lap(Phase::Update);
    }

    /// Shares a fully connected layer out by rows. Parameters, first and second moments.
    fn update_layer<const IN: usize, const PANELS: usize, const OUT: usize>(
        &self,
        kept: impl Fn(&Group) -> &Kept<PANELS, OUT> + Copy + Sync,
        weight: [&mut [[f32; IN]; OUT]; 3],
        bias: [&mut [f32; OUT]; 3],
    ) {
        let [params, moment1, moment2] = weight.map(|rows| rows.par_chunks_mut(UPDATE_ROWS));
        let weight = params.zip(moment1).zip(moment2);
        let [params, moment1, moment2] = bias.map(|rows| rows.par_chunks_mut(UPDATE_ROWS));
        let bias = params.zip(moment1).zip(moment2);
        weight
            .zip(bias)
            .enumerate()
            .with_max_len(1)
            .for_each(|(block, (weight, bias))| {
                let mut worker = worker(self.workers);
                worker.clock.start();
                let ((params, moment1), moment2) = weight;
                let weight = Slots {
                    params,
                    moment1,
                    moment2,
                };
                let ((params, moment1), moment2) = bias;
                let bias = Slots {
                    params,
                    moment1,
                    moment2,
                };
                self.isa.run(Update {
                    groups: self.groups,
                    kept,
                    first: block * UPDATE_ROWS,
                    adam: self.adam,
                    weight,
                    bias,
                });
                worker.clock.lap(Phase::Update);
            });
    }
}

/// Adds another group's sums, which are whole vectors.
struct AddSums<'a, T> {
    other: &'a T,
    out: &'a mut T,
}

impl<T: Pod> Kernel for AddSums<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let other: &[Lanes] = bytemuck::cast_slice(std::slice::from_ref(self.other));
        let out: &mut [Lanes] = bytemuck::cast_slice_mut(std::slice::from_mut(self.out));
        for (other, out) in other.iter().zip(out) {
            s.store(s.add(s.load(out), s.load(other)), out);
        }
    }
}

/// Adam on one tensor. Parameters, first and second moments.
fn update_flat<T: Pod>(adam: &Coefficients, [params, moment1, moment2]: [&mut T; 3], grad: &T) {
    adam::update(
        adam,
        bytemuck::cast_slice_mut(std::slice::from_mut(params)),
        bytemuck::cast_slice(std::slice::from_ref(grad)),
        bytemuck::cast_slice_mut(std::slice::from_mut(moment1)),
        bytemuck::cast_slice_mut(std::slice::from_mut(moment2)),
    );
}
