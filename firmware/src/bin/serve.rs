//! Replies to the requests of a host over the link, forever.
//!
//! `lenet-core/LINK.md` specifies the protocol. The program logs nothing after the start, so that no log can delay a reply.

#![no_std]
#![no_main]

use cortex_m_rt::entry;
use firmware::bench::measure;
use firmware::clock::{Clock, Cycles};
use firmware::link::{WIRES, send};
use firmware::model::{Activations, Net, Params};
use firmware::{BOARD, Failure, Machine, VERSION, info, ram, weights};
use lenet_core::Network as _;
use lenet_core::link::{
    Bench, FrameBuffer, Info, MAX_FRAME, Memory, Meter, Receiver, Responder, Scratch, Unit,
};

#[entry]
fn main() -> ! {
    static mut SCRATCH: Scratch<Net> = Scratch::new();
    static mut RECEIVERS: [Receiver; WIRES] = [const { Receiver::new() }; WIRES];
    static mut OUT: FrameBuffer = [0; MAX_FRAME];
    firmware::finish(run(firmware::start(), SCRATCH, RECEIVERS, OUT))
}

fn run(
    Machine {
        clock,
        cycles,
        mut link,
    }: Machine,
    scratch: &mut Scratch<Net>,
    receivers: &mut [Receiver; WIRES],
    out: &mut FrameBuffer,
) -> Result<(), Failure> {
    let weights = weights::verify(scratch.activations())?;
    let who = Info::new(&weights, BOARD, VERSION, clock.mhz() * 1_000_000);
    let time = Time {
        clock,
        cycles: cycles.start(clock),
    };
    let mut responder = Responder::new(who, weights.params, scratch, time);
    info!("serve {} on {}, {} MHz", VERSION, BOARD, clock.mhz());
    let mut wires = link.wires();
    loop {
        for (wire, receiver) in wires.iter_mut().zip(&mut *receivers) {
            if let Some(byte) = wire.read()
                && let Some(received) = receiver.push(byte)
            {
                send(*wire, responder.answer(received, out), clock);
            }
        }
    }
}

struct Time {
    clock: Clock,
    cycles: Option<Cycles>,
}

impl Meter<Net> for Time {
    fn ticks(&mut self) -> u32 {
        self.clock.ticks()
    }

    fn bench(&mut self, params: &Params, act: &mut Activations) -> Bench {
        let (unit, cost) = match self.cycles {
            Some(cycles) => (
                Unit::Cycles,
                measure(params, Net::TEST_IMAGE, act, &|| cycles.now()),
            ),
            None => (
                Unit::Ticks,
                measure(params, Net::TEST_IMAGE, act, &|| self.clock.ticks()),
            ),
        };
        Bench {
            unit,
            layers: cost.layers,
            total: cost.forward,
        }
    }

    fn memory(&mut self) -> Option<Memory> {
        let ram::Used { statics, stack } = ram::used();
        Some(Memory {
            statics: statics as u32,
            stack: stack as u32,
        })
    }
}
