//! Compares both passes with their definition in f64, for several shapes and on every instruction set of this CPU, and checks that
//! the first of equal values wins.

use super::super::simd::{Isa, LANES};
use super::*;
use bytemuck::zeroed_box;
use lenet_core::layer::conv2d::Spec;
use lenet_core::layer::{Activation, Layered};
use lenet_core::plan::Layer;
use std::marker::PhantomData;

/// A generator of noise in -1..1.
struct Noise(u32);

impl Noise {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 8) as f32 / (1 << 23) as f32 - 1.0
    }

    fn fill(&mut self, values: &mut [f32], scale: f32) {
        values.fill_with(|| self.next() * scale);
    }
}

/// One image, its output and its gradients, computed in f64 by the definition. All arrays are flat.
pub struct Reference {
    pub out: Vec<f64>,
    pub weight: Vec<f64>,
    pub bias: Vec<f64>,
    pub input: Vec<f64>,
}

fn activate_f64(activation: Activation, x: f64) -> (f64, f64) {
    match activation {
        Activation::Identity => (x, 1.0),
        Activation::Sigmoid => {
            let y = 1.0 / (1.0 + (-x).exp());
            (y, y * (1.0 - y))
        }
        Activation::Tanh => (x.tanh(), 1.0 - x.tanh() * x.tanh()),
        Activation::Relu => (x.max(0.0), f64::from(u8::from(x > 0.0))),
    }
}

/// Computes a [`Reference`]. The sizes are the input's channels, height and width, the maps and the kernel's side.
pub fn reference(
    layer: &Layer,
    [c_, h, w, m_, k]: [usize; 5],
    input: &[f64],
    weight: &[f64],
    bias: &[f64],
    grad: &[f64],
) -> Reference {
    let (p, window) = (layer.padding, layer.pool.window());
    let (oh, ow) = (h + 2 * p + 1 - k, w + 2 * p + 1 - k);
    let (ph, pw) = (oh / window, ow / window);
    let mut result = Reference {
        out: vec![0.0; m_ * ph * pw],
        weight: vec![0.0; weight.len()],
        bias: vec![0.0; m_],
        input: vec![0.0; input.len()],
    };
    // Returns the weight and the input of each term of a sum.
    let terms = |m: usize, y: usize, x: usize| {
        let mut terms = Vec::new();
        for c in 0..c_ {
            for (i, j) in (0..k * k).map(|t| (t / k, t % k)) {
                let (y, x) = (y + i, x + j);
                if (p..h + p).contains(&y) && (p..w + p).contains(&x) {
                    let weight = ((m * c_ + c) * k + i) * k + j;
                    terms.push((weight, (c * h + y - p) * w + x - p));
                }
            }
        }
        terms
    };
    for m in 0..m_ {
        for at in 0..ph * pw {
            let positions: Vec<_> = (0..window * window)
                .map(|q| {
                    let y = at / pw * window + q / window;
                    let x = at % pw * window + q % window;
                    let terms = terms(m, y, x);
                    let sum = terms.iter().map(|&(w, i)| weight[w] * input[i]);
                    (bias[m] + sum.sum::<f64>(), terms)
                })
                .collect();
            let grad = grad[m * ph * pw + at];
            let passed: Vec<_> = match layer.pool {
                Pool::Average(_) => {
                    let share = 1.0 / positions.len() as f64;
                    positions.iter().map(|position| (position, share)).collect()
                }
                _ => {
                    let first = positions
                        .iter()
                        .reduce(|a, b| if b.0 > a.0 { b } else { a });
                    vec![(first.unwrap(), 1.0)]
                }
            };
            for ((sum, terms), share) in passed {
                let (out, derivative) = activate_f64(layer.activation, *sum);
                result.out[m * ph * pw + at] += share * out;
                let by_sum = grad * share * derivative;
                result.bias[m] += by_sum;
                for &(w, i) in terms {
                    result.weight[w] += by_sum * input[i];
                    result.input[i] += by_sum * weight[w];
                }
            }
        }
    }
    result
}

fn assert_close(found: f32, expected: f64, tolerance: f64, what: impl Fn() -> String) {
    let error = (f64::from(found) - expected).abs();
    assert!(
        error <= tolerance * (1.0 + expected.abs()),
        "{}: {found} {expected}",
        what()
    );
}

#[rustfmt::skip]
fn check<
    L: Layered, const C: usize, const H: usize, const W: usize, const HP: usize, const WP: usize, const M: usize,
    const K: usize, const PH: usize, const PW: usize,
>(layer: PhantomData<L>, name: &str) {
    let Layer { padding, pool, .. } = L::LAYER;
    assert_eq!((HP, WP), (H + 2 * padding, W + 2 * padding), "{name}");
    let mut noise = Noise(1);
    let mut input: Box<[[[Lanes; W]; H]; C]> = zeroed_box();
    let mut weight: Box<[[[[f32; K]; K]; C]; M]> = zeroed_box();
    let mut bias = [0.0; M];
    let mut grad: Box<[[[Lanes; PW]; PH]; M]> = zeroed_box();
    noise.fill(input.as_flattened_mut().as_flattened_mut().as_flattened_mut(), 1.0);
    let scale = 2.0 / ((C * K * K) as f32).sqrt();
    noise.fill(weight.as_flattened_mut().as_flattened_mut().as_flattened_mut(), scale);
    noise.fill(&mut bias, 0.3);
    noise.fill(grad.as_flattened_mut().as_flattened_mut().as_flattened_mut(), 1.0);

    let (oh, ow) = (HP + 1 - K, WP + 1 - K);
    let mut before: Option<Vec<Vec<u32>>> = None;
    for isa in Isa::available() {
        let mut padded: Box<[[[Lanes; WP]; HP]; C]> = zeroed_box();
        padded.as_flattened_mut().as_flattened_mut().fill([f32::NAN; LANES]);
        isa.run(Pad { input: &input, out: &mut padded });
        let mut out: Box<[[[Lanes; PW]; PH]; M]> = zeroed_box();
        let mut winner = vec![[9; LANES]; winner_len(pool, M, PH, PW)];
        let mut sums = vec![[f32::NAN; LANES]; sums_len(pool, M, oh, ow)];
        isa.run(Forward::<_, true, C, HP, WP, M, K, PH, PW> {
            layer, input: &padded, weight: &weight, bias: &bias, out: &mut out, winner: &mut winner, sums: &mut sums,
        });
        let mut grad_sums = vec![[f32::NAN; LANES]; grad_sums_len(M, oh, W, K)];
        let mut params: Box<Sums<C, M, K>> = zeroed_box();
        params.weight.as_flattened_mut().as_flattened_mut().as_flattened_mut().fill(f32::NAN);
        isa.run(Backward {
            layer, input: &padded, out: &out, winner: &winner, sums: &sums, grad: &grad, grad_sums: &mut grad_sums,
            grad_params: &mut params,
        });
        let mut grad_input: Box<[[[Lanes; W]; H]; C]> = zeroed_box();
        grad_input.as_flattened_mut().as_flattened_mut().fill([f32::NAN; LANES]);
        isa.run(GradInput { layer, weight: &weight, grad_sums: &grad_sums, grad_input: &mut grad_input });

        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        let all = vec![
            bits(out.as_flattened().as_flattened().as_flattened()),
            winner.as_flattened().iter().map(|&winner| winner.into()).collect(),
            bits(params.weight.as_flattened().as_flattened().as_flattened()),
            bits(params.bias.as_flattened()),
            bits(grad_input.as_flattened().as_flattened().as_flattened()),
        ];
        if let Some(before) = &before {
            assert!(*before == all, "{name}: {isa:?} has other bits");
            continue;
        }

        let mut expected = [vec![0.0; M * C * K * K], vec![0.0; M]];
        for n in 0..LANES {
            fn lane(lanes: &[Lanes], n: usize) -> Vec<f64> {
                lanes.iter().map(|lanes| lanes[n].into()).collect()
            }
            let image = reference(
                &L::LAYER, [C, H, W, M, K],
                &lane(input.as_flattened().as_flattened(), n),
                &weight.as_flattened().as_flattened().as_flattened().iter().map(|&x| x.into()).collect::<Vec<_>>(),
                &bias.map(f64::from), &lane(grad.as_flattened().as_flattened(), n),
            );
            let out = out.as_flattened().as_flattened();
            for (at, (found, expected)) in out.iter().zip(&image.out).enumerate() {
                assert_close(found[n], *expected, 1e-6, || format!("{name} {isa:?}: output {at}, image {n}"));
            }
            let grad_input = grad_input.as_flattened().as_flattened();
            for (at, (found, expected)) in grad_input.iter().zip(&image.input).enumerate() {
                assert_close(found[n], *expected, 2e-6, || format!("{name} {isa:?}: by input {at}, image {n}"));
            }
            for (sums, images) in expected.iter_mut().zip([image.weight, image.bias]) {
                sums.iter_mut().zip(images).for_each(|(sum, image)| *sum += image);
            }
        }
        let tolerance = 1e-6 * ((oh * ow * LANES) as f64).sqrt();
        let found = params.weight.as_flattened().as_flattened().as_flattened();
        for (at, (&found, expected)) in found.iter().zip(&expected[0]).enumerate() {
            assert_close(found, *expected, tolerance, || format!("{name} {isa:?}: by weight {at}"));
        }
        for (at, (found, expected)) in params.bias().into_iter().zip(&expected[1]).enumerate() {
            assert_close(found, *expected, tolerance, || format!("{name} {isa:?}: by bias {at}"));
        }
        before = Some(all);
    }
}

macro_rules! shapes {
    ($( $name:ident: $c:literal x $h:literal x $w:literal => $m:literal maps, kernel $k:literal, padding $p:literal, $pool:expr, $activation:ident; )*) => { $(
        #[test]
        fn $name() {
            #[derive(Clone, Copy)]
            struct This;
            impl Layered for This {
                const LAYER: Layer = Spec {
                    maps: $m, kernel: $k, padding: $p, pool: $pool, activation: Activation::$activation,
                }
                .layer(stringify!($name), [$c, $h, $w]);
            }
            const N: usize = This::LAYER.pool.window();
            check::<This, $c, $h, $w, { $h + 2 * $p }, { $w + 2 * $p }, $m, $k,
                { ($h + 2 * $p + 1 - $k) / N }, { ($w + 2 * $p + 1 - $k) / N }>(PhantomData::<This>, stringify!($name));
        }
    )* };
}

// Other kernels, windows and paddings are in the networks of tests/tests/networks.rs.
shapes! {
    kernel_2_pooled: 3 x 11 x 17 => 5 maps, kernel 2, padding 1, Pool::Max(3), Identity;
    kernel_3_narrow: 5 x 3 x 3 => 3 maps, kernel 3, padding 0, Pool::Whole, Sigmoid;
    kernel_3_average: 6 x 10 x 16 => 13 maps, kernel 3, padding 1, Pool::Average(2), Tanh;
    kernel_4_unpadded: 4 x 9 x 6 => 2 maps, kernel 4, padding 0, Pool::Average(3), Identity;
    kernel_7_unpadded: 2 x 15 x 9 => 17 maps, kernel 7, padding 0, Pool::Max(3), Sigmoid;
    kernel_as_large_as_the_input: 7 x 7 x 7 => 10 maps, kernel 7, padding 0, Pool::Whole, Sigmoid;
    kernel_larger_than_the_input: 1 x 2 x 3 => 2 maps, kernel 3, padding 1, Pool::Whole, Relu;
    one_by_one: 1 x 1 x 1 => 1 maps, kernel 1, padding 0, Pool::Whole, Identity;
}

#[derive(Clone, Copy)]
struct LargestOfNine;

impl Layered for LargestOfNine {
    const LAYER: Layer = Spec {
        maps: 2,
        kernel: 3,
        padding: 0,
        pool: Pool::Max(3),
        activation: Activation::Relu,
    }
    .layer("flat", [1, 8, 11]);
}

/// Returns the outputs and winners of two maps, for the same picture in all images.
fn largest_of_nine<const TRAIN: bool>(
    isa: Isa,
    picture: fn(usize, usize) -> f32,
) -> ([[[Lanes; 3]; 2]; 2], [[u8; LANES]; 12]) {
    let input = [std::array::from_fn(|y| {
        std::array::from_fn(|x| [picture(y, x); LANES])
    })];
    let (mut out, mut winner) = ([[[[0.0; LANES]; 3]; 2]; 2], [[9; LANES]; 12]);
    isa.run(Forward::<_, TRAIN, 1, 8, 11, 2, 3, 2, 3> {
        layer: PhantomData::<LargestOfNine>,
        input: &input,
        weight: &[[[[0.1; 3]; 3]; 1], [[[-0.7; 3]; 3]; 1]],
        bias: &[0.2, 0.1],
        out: &mut out,
        winner: &mut winner,
        sums: &mut [[0.0; LANES]; sums_len(Pool::Max(3), 2, 6, 9)],
    });
    (out, winner)
}

/// On pictures that are flat, or change along one side only, the first of equal values wins. Inference gives the same
/// outputs as training.
#[test]
fn the_first_of_equal_values_wins() {
    let pictures: [fn(usize, usize) -> f32; 3] = [
        |_, _| 0.377,
        |y, _| (y as f32 * 0.7).sin().abs(),
        |_, x| (x as f32 * 0.7).sin().abs(),
    ];
    let may_win: [&[u8]; 3] = [&[0], &[0, 3, 6], &[0, 1, 2]];
    for (picture, may_win) in pictures.into_iter().zip(may_win) {
        for isa in Isa::available() {
            let (out, winner) = largest_of_nine::<true>(isa, picture);
            let mut winners = winner.as_flattened().iter();
            assert!(winners.all(|winner| may_win.contains(winner)), "{isa:?}");
            assert_eq!(largest_of_nine::<false>(isa, picture).0, out, "{isa:?}");
        }
    }
}

#[test]
fn tiles_are_as_large_as_they_can_be() {
    for n in 1..=64 {
        for most in 1..=8 {
            let tile = tile(n, most);
            assert!((1..=most.min(n)).contains(&tile), "{n} {most}: {tile}");
        }
    }
    assert_eq!(
        [
            tile(6, 6),
            tile(16, 6),
            tile(10, 6),
            tile(28, 4),
            tile(7, 6)
        ],
        [6, 4, 5, 4, 4]
    );
}
