//! Cost of each layer: cycles where the core counts them; in QEMU under `-icount shift=N`, exact instructions.
//!
//! Command line in QEMU: `bench icount N`.

#![no_std]
#![no_main]

use cortex_m_rt::entry;
use firmware::bench::{measure, measure_forward};
use firmware::model::Activations;
use firmware::{BOARD, Failure, Machine, VERSION, info, samples, semihost, weights};
use lenet_core::network::LAYERS;

#[entry]
fn main() -> ! {
    static mut ACT: Activations = Activations::new();
    let machine = firmware::start();
    firmware::finish(run(machine, ACT))
}

fn run(Machine { clock, cycles, .. }: Machine, act: &mut Activations) -> Result<(), Failure> {
    info!("bench {} on {}, {} MHz", VERSION, BOARD, clock.mhz());
    let params = weights::verify(act)?.params;
    let image = &samples::IMAGES[samples::COUNT - 1];
    let (cost, unit) = if let Some(cycles) = cycles.start(clock) {
        (measure(params, image, act, &|| cycles.now()), "cycles")
    } else {
        info!("no cycle counter here");
        // An instruction takes `2^shift` ns.
        let Some(shift) = number_after("icount") else {
            return Ok(());
        };
        let mut ticks = measure(params, image, act, &|| clock.ticks());
        // The count is the same for every image and all weights, which these lines let a test compare. The clock wraps once in
        // several runs, and its interrupt handler's instructions would count too: the smaller of two runs is without them.
        for (index, image) in samples::IMAGES.iter().enumerate() {
            let [a, b] = [(); 2].map(|()| measure_forward(params, image, act, &|| clock.ticks()));
            let count = instructions(a.min(b), clock.mhz(), shift);
            ticks.forward = ticks.forward.min(a).min(b);
            info!("image {} {} instructions", index, count);
        }
        (
            ticks.map(|ticks| instructions(ticks, clock.mhz(), shift)),
            "instructions",
        )
    };
    if !cost.same_bits {
        return Err(Failure::Host(
            "the layers one by one give other bits than forward",
        ));
    }
    for (layer, count) in LAYERS.iter().zip(cost.layers) {
        info!("{} {} {}", layer.name, count, unit);
    }
    info!("forward {} {}", cost.forward, unit);
    Ok(())
}

/// The number after a word of the command line.
fn number_after(name: &str) -> Option<u32> {
    let args = semihost::args().ok()?;
    let mut words = args.filter_map(Result::ok).skip_while(|&word| word != name);
    words.nth(1)?.parse().ok()
}

/// Returns the instructions in `ticks` of a clock of `mhz`, when one takes `2^shift` ns. A tick begins at any moment of an
/// instruction, so the count is rounded to the nearest.
fn instructions(ticks: u32, mhz: u32, shift: u32) -> u32 {
    let ns = u64::from(ticks) * 1000 / u64::from(mhz);
    ((ns + (1 << shift) / 2) >> shift) as u32
}
