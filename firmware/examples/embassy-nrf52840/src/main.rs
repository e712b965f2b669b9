//! Classifies a camera's frame at each press of a button, while a more urgent task keeps its schedule.
//!
//! A forward pass computes for some tens of milliseconds and never waits. In an async application it would block every other
//! task of its executor for that long. Therefore this example has two executors. One runs in thread mode, for long
//! computations. The other runs in an interrupt, and its tasks run when they are due, even during a forward pass.
//!
//! The example is for the nRF52840-DK (`cargo run --release` flashes it). It has not been tested on a board.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, Ordering};
use defmt::{info, unwrap};
use defmt_rtt as _;
use embassy_executor::{InterruptExecutor, Spawner};
use embassy_nrf::gpio::{Input, Level, Output, OutputDrive, Pull};
use embassy_nrf::interrupt;
use embassy_nrf::interrupt::{InterruptExt, Priority};
use embassy_time::{Duration, Instant, Ticker};
use lenet_core::image::{Frame, invert};
use lenet_core::network::{Net, Pixels};
use lenet_core::{Classifier, Scratch, include_weights};
use panic_probe as _;
use static_cell::ConstStaticCell;

/// The width of a frame; its height follows.
const WIDTH: usize = 80;
const HEIGHT: usize = 60;

/// The weights file, which stays in flash.
static WEIGHTS: &[u8] = include_weights!("../../../../data/lenet.weights");
/// The memory of the classifier, in RAM and not on the stack.
static SCRATCH: ConstStaticCell<Scratch<Net>> = ConstStaticCell::new(Scratch::new());

/// Runs the urgent tasks in the interrupt EGU1_SWI1, which no peripheral uses here.
static URGENT: InterruptExecutor = InterruptExecutor::new();
/// The maximum delay of the urgent task, in microseconds.
static LATE: AtomicU32 = AtomicU32::new(0);

#[interrupt]
unsafe fn EGU1_SWI1() {
    // SAFETY: `main` starts `URGENT` with this interrupt, and nothing else calls the handler.
    unsafe { URGENT.on_interrupt() }
}

#[embassy_executor::main]
async fn main(_spawner: Spawner) {
    let board = embassy_nrf::init(Default::default());
    let led = Output::new(board.P0_13, Level::High, OutputDrive::Standard);
    let mut button = Input::new(board.P0_11, Pull::Up);

    interrupt::EGU1_SWI1.set_priority(Priority::P6);
    let urgent = URGENT.start(interrupt::EGU1_SWI1);
    urgent.spawn(unwrap!(blink(led)));

    let mut classifier = match Classifier::<Net>::new(WEIGHTS, SCRATCH.take()) {
        Ok(classifier) => classifier,
        Err(error) => defmt::panic!("{}", error),
    };
    info!("press button 1");
    loop {
        button.wait_for_falling_edge().await;
        let frame = capture();
        let mut pixels: Pixels = [[[0; 28]; 28]; 1];
        if let Some(frame) = Frame::new(frame.as_flattened(), WIDTH, HEIGHT) {
            frame.shrink(&mut pixels[0]);
        }
        // The network was trained on bright objects on a black background, but this camera sees dark objects on white paper.
        invert(&mut pixels[0]);

        let start = Instant::now();
        let found = classifier.classify(&pixels);
        info!(
            "{}: {} %, {} us; the urgent task was late by {} us at most",
            found.name,
            (100.0 * found.confidence) as u32,
            start.elapsed().as_micros(),
            LATE.load(Ordering::Relaxed),
        );
    }
}

/// Toggles an LED every ten milliseconds, and records the maximum delay.
#[embassy_executor::task]
async fn blink(mut led: Output<'static>) {
    let period = Duration::from_millis(10);
    let mut ticker = Ticker::every(period);
    let mut due = Instant::now() + period;
    loop {
        ticker.next().await;
        led.toggle();
        let late = Instant::now().saturating_duration_since(due);
        LATE.fetch_max(late.as_micros() as u32, Ordering::Relaxed);
        due += period;
    }
}

/// Returns a frame in place of a camera: a dark square on white paper.
fn capture() -> [[u8; WIDTH]; HEIGHT] {
    let mut frame = [[230; WIDTH]; HEIGHT];
    for row in &mut frame[15..45] {
        row[25..55].fill(40);
    }
    frame
}
