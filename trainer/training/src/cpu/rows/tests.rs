//! Checks, on every instruction set of this CPU, that the forward pass follows its definition and that the first of equal values
//! wins.

use super::super::pool::tests::assert_window;
use super::super::simd::Isa;
use super::*;
use crate::dataset::generator;
use bytemuck::zeroed_box;
use lenet_core::layer::Activation;
use lenet_core::layer::conv2d::Spec;
use rand_chacha::rand_core::Rng;

#[derive(Clone, Copy)]
struct This;

impl Layered for This {
    const LAYER: Layer = Spec {
        maps: 6,
        kernel: K,
        padding: 0,
        pool: Pool::Max(2),
        activation: Activation::Sigmoid,
    }
    .layer("this", [1, 28, 28]);
}

type Image = [[[u8; LANES]; 28]; 28];
type Output = [[[Lanes; 12]; 12]; 6];
type TraceOf = Trace<6, 24, 24, 12, 12>;
type Weight = [[[[f32; K]; K]; 1]; 6];

/// Returns weights in -0.2..0.2, and biases.
fn params() -> (Weight, [f32; 6]) {
    let mut rng = generator(2, 0);
    let mut next = || (rng.next_u32() as f32 / u32::MAX as f32 - 0.5) * 0.4;
    let weight =
        std::array::from_fn(|_| [[[0.0; K]; K]].map(|map| map.map(|row| row.map(|_: f32| next()))));
    (weight, std::array::from_fn(|_| next()))
}

/// Returns the outputs and the winners.
fn run(isa: Isa, image: &Image) -> (Box<Output>, Box<TraceOf>) {
    let (weight, bias) = params();
    let (mut kernels, mut scratch) = (zeroed_box(), zeroed_box::<ForwardScratch<6, 28>>());
    transform_kernels(&weight, &mut kernels);
    let (mut out, mut trace) = (zeroed_box(), zeroed_box());
    isa.run(Forward::<_, true, _, _, _, _, _, _, _, _> {
        layer: PhantomData::<This>,
        image,
        kernels: &kernels,
        bias: &bias,
        out: &mut out,
        trace: &mut trace,
        scratch: &mut scratch,
    });
    (out, trace)
}

#[test]
fn forward_is_its_definition() {
    let (weight, bias) = params();
    let mut rng = generator(0, 0);
    let mut image: Image = [[[0; LANES]; 28]; 28];
    for pixel in image.as_flattened_mut().as_flattened_mut() {
        *pixel = rng.next_u32() as u8;
    }
    for isa in Isa::available() {
        let (out, trace) = run(isa, &image);
        for y in 0..12 {
            for x in 0..12 {
                for m in 0..6 {
                    let lane = (y + x + m) % LANES;
                    let pixel =
                        |_, y: usize, x: usize| f64::from(image[y][x][lane]) / f64::from(WHITE);
                    let found = (out[m][y][x][lane], trace.winner[m][y][x][lane]);
                    assert_window(&weight[m], bias[m], pixel, [y, x], found);
                }
            }
        }
    }
}

/// On pictures that are flat, or change along one side only, the first of equal values wins.
#[test]
fn ties_stay_ties() {
    let pictures: [fn(usize, usize) -> u8; 3] = [
        |_, _| 96,
        |y, _| ((y as f32 * 0.7).sin().abs() * 255.0) as u8,
        |_, x| ((x as f32 * 0.7).sin().abs() * 255.0) as u8,
    ];
    let may_win: [&[u8]; 3] = [&[0], &[0, 2], &[0, 1]];
    for (picture, may_win) in pictures.into_iter().zip(may_win) {
        let image: Image = std::array::from_fn(|y| std::array::from_fn(|x| [picture(y, x); LANES]));
        for isa in Isa::available() {
            let (_, trace) = run(isa, &image);
            let winners = trace.winner.as_flattened().as_flattened().as_flattened();
            let mut winners = winners.iter();
            assert!(winners.all(|winner| may_win.contains(winner)), "{isa:?}");
        }
    }
}
