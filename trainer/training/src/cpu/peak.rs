//! The peak performance of the CPU: the rate of independent fused multiply-adds.

use super::simd::{Isa, Kernel, LANES, Lanes, Simd};
use crate::backend::Error;
use crate::threads;
use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// Measures how many multiply-adds per second `threads` threads reach together with the instructions of `isa`, from registers
/// alone. The result is the best of several trials of a few milliseconds each.
///
/// # Errors
/// `Backend`: the system cannot start the threads.
pub fn peak_multiply_adds(isa: Isa, threads: usize) -> Result<f64, Error> {
    const TRIALS: usize = 10;
    let barrier = Barrier::new(threads);
    let trials = || -> [f64; TRIALS] {
        std::array::from_fn(|_| {
            barrier.wait();
            rate(isa)
        })
    };
    let rates: Vec<[f64; TRIALS]> = threads::pool(threads)?.broadcast(|_| trials());
    Ok((0..TRIALS)
        .map(|trial| rates.iter().map(|rates| rates[trial]).sum())
        .fold(0.0, f64::max))
}

/// Measures the rate of one thread.
fn rate(isa: Isa) -> f64 {
    let start = Instant::now();
    let mut done = 0;
    while start.elapsed() < Duration::from_millis(5) {
        done += isa.run(Chains { rounds: 10_000 });
    }
    done as f64 / start.elapsed().as_secs_f64()
}

/// Independent chains of multiply-adds, enough to hide the latency, and few enough to fit the registers.
struct Chains {
    rounds: u64,
}

impl Chains {
    #[inline(always)]
    fn run<S: Simd, const N: usize>(self, s: S) -> u64 {
        // The compiler does not know these values, so it cannot merge chains. They stay near 1.
        let mut chains: [_; N] =
            std::array::from_fn(|n| s.splat(black_box(1.0 + n as f32 / 100.0)));
        let (factor, term) = (s.splat(black_box(0.5)), s.splat(black_box(0.5)));
        for _ in 0..self.rounds {
            for chain in &mut chains {
                *chain = s.mul_add(*chain, factor, term);
            }
        }
        for chain in chains {
            let mut lanes = Lanes::default();
            s.store(chain, &mut lanes);
            black_box(lanes);
        }
        self.rounds * (N * LANES) as u64
    }
}

impl Kernel for Chains {
    /// The number of multiply-adds.
    type Output = u64;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> u64 {
        match S::WIDE {
            true => self.run::<S, 12>(s),
            false => self.run::<S, 6>(s),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_counts_what_it_does() {
        for isa in Isa::available() {
            let chains = isa.run(Chains { rounds: 3 }) / 3 / 16;
            assert!([6, 12].contains(&chains), "{isa:?}: {chains}");
            assert!(peak_multiply_adds(isa, 2).unwrap() > 0.0);
        }
    }
}
