//! Measures the cost of each layer, in cycles if the core counts them, or in QEMU with `-icount shift=N` in exact instructions.
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
        // With `-icount shift=N`, an instruction takes `2^shift` ns.
        let Some(shift) = number_after("icount") else {
            return Ok(());
        };
        let mut ticks = measure(params, image, act, &|| clock.ticks());
        // The count is the same for every image and all weights; a test compares these lines. The clock wraps around once in
        // several runs, which adds the instructions of its interrupt handler. The smaller of two counts does not include them.
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

/// Returns the number that follows the word `name` on the command line.
fn number_after(name: &str) -> Option<u32> {
    let args = semihost::args().ok()?;
    let mut words = args.filter_map(Result::ok).skip_while(|&word| word != name);
    words.nth(1)?.parse().ok()
}

/// Returns the number of instructions in `ticks` of a clock of `mhz`, if an instruction takes `2^shift` ns. A tick can begin at
/// any moment of an instruction, so the number is rounded to the nearest integer.
fn instructions(ticks: u32, mhz: u32, shift: u32) -> u32 {
    let ns = u64::from(ticks) * 1000 / u64::from(mhz);
    ((ns + (1 << shift) / 2) >> shift) as u32
}
