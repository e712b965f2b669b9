//! Checks, on every instruction set of this CPU, that the forward pass follows its definition and that the first of equal values
//! wins.

use super::super::pool::Trace;
use super::super::pool::tests::assert_window;
use super::super::simd::Isa;
use super::*;
use crate::dataset::generator;
use bytemuck::zeroed_box;
use lenet_core::layer::conv2d::Spec;
use lenet_core::layer::{Activation, Layered, Pool};
use rand_chacha::rand_core::Rng;
use std::marker::PhantomData;

#[derive(Clone, Copy)]
struct This;

impl Layered for This {
    const LAYER: Layer = Spec {
        maps: 16,
        kernel: K,
        padding: 0,
        pool: Pool::Max(2),
        activation: Activation::Sigmoid,
    }
    .layer("this", [6, 12, 12]);
}

type Input = [[[Lanes; 12]; 12]; 6];
type Output = [[[Lanes; 4]; 4]; 16];
type TraceOf = Trace<16, 8, 8, 4, 4>;
type ScratchOf = Scratch<16, 6, 2, 2, 12>;
type Weight = [[[[f32; K]; K]; 6]; 16];

/// Returns weights in -0.08..0.08, and biases.
fn params() -> (Box<Weight>, [f32; 16]) {
    let mut rng = generator(2, 0);
    let mut next = || (rng.next_u32() as f32 / u32::MAX as f32 - 0.5) * 0.16;
    let mut weight: Box<Weight> = zeroed_box();
    let taps = weight
        .as_flattened_mut()
        .as_flattened_mut()
        .as_flattened_mut();
    taps.fill_with(&mut next);
    (weight, std::array::from_fn(|_| next()))
}

/// Returns the outputs and the winners.
fn run(isa: Isa, input: &Input) -> (Box<Output>, Box<TraceOf>) {
    let (weight, bias) = params();
    let (mut kernels, mut scratch) = (zeroed_box(), zeroed_box::<ScratchOf>());
    transform_kernels(&weight, &mut kernels);
    let (mut out, mut trace) = (zeroed_box(), zeroed_box());
    isa.run(Forward::<_, true, _, _, _, _, _, _, _, _, _, _, _> {
        layer: PhantomData::<This>,
        input,
        kernels: &kernels,
        bias: &bias,
        out: &mut out,
        trace: &mut trace,
        scratch: &mut scratch,
    });
    (out, trace)
}

/// Returns noise in 0..1.
fn random_input() -> Box<Input> {
    let mut rng = generator(0, 0);
    let mut input: Box<Input> = zeroed_box();
    for lanes in input.as_flattened_mut().as_flattened_mut() {
        *lanes = std::array::from_fn(|_| rng.next_u32() as f32 / u32::MAX as f32);
    }
    input
}

#[test]
fn forward_is_its_definition() {
    let ((weight, bias), input) = (params(), random_input());
    for isa in Isa::available() {
        let (out, trace) = run(isa, &input);
        for m in 0..16 {
            for (at, (out, winner)) in (out[m].as_flattened().iter())
                .zip(trace.winner[m].as_flattened())
                .enumerate()
            {
                let lane = (at + m) % LANES;
                let value = |c: usize, y: usize, x: usize| f64::from(input[c][y][x][lane]);
                let found = (out[lane], winner[lane]);
                assert_window(&weight[m], bias[m], value, [at / 4, at % 4], found);
            }
        }
    }
}

/// On pictures that are flat, or change along one side only, the first of equal values wins.
#[test]
fn ties_stay_ties() {
    let pictures: [fn(usize, usize) -> f32; 3] = [
        |_, _| 0.377,
        |y, _| (y as f32 * 0.7).sin().abs(),
        |_, x| (x as f32 * 0.7).sin().abs(),
    ];
    let may_win: [&[u8]; 3] = [&[0], &[0, 2], &[0, 1]];
    for (picture, may_win) in pictures.into_iter().zip(may_win) {
        let mut input: Box<Input> = zeroed_box();
        for map in &mut *input {
            *map = std::array::from_fn(|y| std::array::from_fn(|x| [picture(y, x); LANES]));
        }
        for isa in Isa::available() {
            let (_, trace) = run(isa, &input);
            let winners = trace.winner.as_flattened().as_flattened().as_flattened();
            let mut winners = winners.iter();
            assert!(winners.all(|winner| may_win.contains(winner)), "{isa:?}");
        }
    }
}
