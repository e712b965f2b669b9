//! The linear layer.

use super::super::activation::{Activate, ActivateGrad};
use super::super::linear::{self, Kept, Panels, UPDATE_ROWS, Update, turn};
use super::super::simd::{Isa, LANES, Lanes};
use super::{Backward, Batch, Forward, Pass, SIZES, Slots};
use lenet_core::layer::Layered;
use lenet_core::plan::Layer;
use rayon::prelude::*;
use std::marker::PhantomData;

/// The algorithm with a given number.
pub struct Pick<const ALGORITHM: usize>;

/// Returns the number of the algorithm for a layer, which is the only one.
pub const fn choose(_: &Layer, _is_first: bool) -> usize {
    0
}

/// Returns the sizes that the layer's type is generic over.
pub const fn sizes(layer: &Layer, _is_first: bool) -> [usize; SIZES] {
    let mut sizes = [0; SIZES];
    sizes[0] = layer.input_len();
    sizes[1] = layer.output_len();
    sizes[2] = layer.input_len().div_ceil(LANES);
    sizes
}

/// The [`Pass`] for a layer `L` of given [`sizes`].
pub trait Choice<
    L,
    const S0: usize,
    const S1: usize,
    const S2: usize,
    const S3: usize,
    const S4: usize,
    const S5: usize,
    const S6: usize,
    const S7: usize,
    const S8: usize,
    const S9: usize,
    const S10: usize,
    const S11: usize,
    const S12: usize,
>
{
    /// The [`Pass`].
    type Pass: Pass;
}

impl<
    L: Layered + 'static,
    const IN: usize,
    const OUT: usize,
    const PANELS: usize,
    const S3: usize,
    const S4: usize,
    const S5: usize,
    const S6: usize,
    const S7: usize,
    const S8: usize,
    const S9: usize,
    const S10: usize,
    const S11: usize,
    const S12: usize,
> Choice<L, IN, OUT, PANELS, S3, S4, S5, S6, S7, S8, S9, S10, S11, S12> for Pick<0>
{
    type Pass = Linear<L, IN, OUT, PANELS>;
}

/// A linear layer with its activation, and with `IN` inputs, which fill `PANELS` panels.
pub struct Linear<L, const IN: usize, const OUT: usize, const PANELS: usize>(PhantomData<L>);

impl<L: Layered + 'static, const IN: usize, const OUT: usize, const PANELS: usize> Pass
    for Linear<L, IN, OUT, PANELS>
{
    type Weight = [[f32; IN]; OUT];
    type Bias = [f32; OUT];
    type Input = [Lanes; IN];
    type Output = [Lanes; OUT];
    type GradInput = [Lanes; IN];
    /// The weight transposed, for the backward pass.
    type Prepared = [[f32; OUT]; IN];
    type Trace = ();
    type Kept = Kept<PANELS, OUT>;
    type Scratch = ();

    fn prepare(isa: Isa, weight: &Self::Weight, prepared: &mut Self::Prepared) {
        turn(isa, weight, prepared);
    }

    fn forward<const G: usize, const TRAIN: bool>(pass: Forward<'_, Self, G>) {
        let Forward {
            isa,
            params,
            input,
            mut out,
            ..
        } = pass;
        let mut inputs = input.into_iter();
        isa.run(linear::Linear {
            weight: params.weight,
            bias: params.bias,
            groups: out
                .each_mut()
                .map(|out| (inputs.next().expect("as many"), &mut **out)),
        });
        for out in out {
            isa.run(Activate {
                activation: const { L::LAYER.activation },
                values: out,
            });
        }
    }

    fn backward<const G: usize>(pass: Backward<'_, Self, G>) {
        let Backward {
            isa,
            params,
            input,
            out,
            grad_out,
            mut kept,
            grad_input,
            ..
        } = pass;
        for (((input, out), grad), kept) in input.into_iter().zip(out).zip(grad_out).zip(&mut kept)
        {
            isa.run(ActivateGrad {
                activation: const { L::LAYER.activation },
                out,
                grad,
                to: &mut kept.grad_out,
            });
            isa.run(Panels {
                input,
                out: &mut kept.panels,
            });
        }
        if let Some(grad_input) = grad_input {
            let mut kept = kept.into_iter();
            isa.run(linear::Linear {
                weight: params.prepared,
                bias: &[0.0; IN],
                groups: grad_input
                    .map(|grad_input| (&kept.next().expect("as many").grad_out, grad_input)),
            });
        }
    }

    fn update<T: Sync>(
        batch: &Batch<'_, T>,
        kept: impl Fn(&T) -> &Self::Kept + Copy + Sync,
        [p, m, v]: [Slots<'_, Self>; 3],
        prepared: &mut Self::Prepared,
    ) {
        // Each block of rows is updated while its gradient is in the cache.
        let [params, moment1, moment2] =
            [&mut *p.weight, m.weight, v.weight].map(|rows| rows.par_chunks_mut(UPDATE_ROWS));
        let weight = params.zip(moment1).zip(moment2);
        let [params, moment1, moment2] =
            [p.bias, m.bias, v.bias].map(|rows| rows.par_chunks_mut(UPDATE_ROWS));
        let bias = params.zip(moment1).zip(moment2);
        weight
            .zip(bias)
            .enumerate()
            .with_max_len(1)
            .for_each(|(block, (weight, bias))| {
                let ((params, moment1), moment2) = weight;
                let weight = linear::Slots {
                    params,
                    moment1,
                    moment2,
                };
                let ((params, moment1), moment2) = bias;
                let bias = linear::Slots {
                    params,
                    moment1,
                    moment2,
                };
                batch.timed(|| {
                    batch.isa.run(Update {
                        groups: batch.groups,
                        kept,
                        first: block * UPDATE_ROWS,
                        adam: batch.adam,
                        weight,
                        bias,
                    });
                });
            });
        batch.timed(|| turn(batch.isa, p.weight, prepared));
    }
}
