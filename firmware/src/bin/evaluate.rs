//! Classifies every image of an IDX file on the host and writes all logits to a file there, through semihosting.
//!
//! Command line: `evaluate IMAGES LOGITS [COUNT]`. If COUNT is given, only the first COUNT images are classified.

#![no_std]
#![no_main]

use cortex_m_rt::entry;
use firmware::bulk::classify_file;
use firmware::clock::Clock;
use firmware::model::{Activations, Image, Net};
use firmware::{BOARD, Failure, VERSION, info, semihost, weights};

#[entry]
fn main() -> ! {
    static mut ACT: Activations = Activations::new();
    static mut IMAGE: Image = bytemuck::zeroed();
    let machine = firmware::start();
    firmware::finish(run(machine.clock, ACT, IMAGE))
}

fn run(clock: Clock, act: &mut Activations, image: &mut Image) -> Result<(), Failure> {
    info!("evaluate {} on {}, {} MHz", VERSION, BOARD, clock.mhz());
    let params = weights::verify(act)?.params;

    let args = semihost::args()?;
    let mut words = args.skip(1);
    let (Some(Ok(from)), Some(Ok(to))) = (words.next(), words.next()) else {
        return Err(Failure::Host("usage: evaluate IMAGES LOGITS [COUNT]"));
    };
    let limit = match words.next() {
        None => u32::MAX,
        Some(word) => word
            .ok()
            .and_then(|word| word.parse().ok())
            .ok_or(Failure::Host("COUNT is not a number"))?,
    };
    let start = clock.now();
    let count =
        classify_file::<Net>((from, to), limit, params, image, act).map_err(Failure::Host)?;
    info!("{} images in {} ms", count, clock.ms_since(start));
    Ok(())
}
