//! Nordic nRF52833 and nRF52840, with `embassy-nrf`: clock, debug port, and a UART that receives by DMA while the core computes.

use crate::wire::Wire;
use core::future::Future;
use core::pin::pin;
use core::task::{Context, Poll, Waker};
use cortex_m::singleton;
use embassy_nrf::buffered_uarte::{BufferedUarte, InterruptHandler};
use embassy_nrf::config::{Config, HfclkSource};
use embassy_nrf::gpio::{AnyPin, Pin, Port};
use embassy_nrf::pac::gpio::vals::Pull;
use embassy_nrf::{Peri, Peripherals, bind_interrupts, pac, peripherals, uarte};

bind_interrupts!(struct Interrupts {
    UARTE0 => InterruptHandler<peripherals::UARTE0>;
});

/// The frequency of the core, whether the crystal or the internal oscillator clocks it.
pub const MHZ: u32 = 64;

/// Starts the chip: keeps the debug port open, clocks the UART from the crystal, and enables the instruction cache.
pub fn start() -> Peripherals {
    let mut config = Config::default();
    config.hfclk_source = HfclkSource::ExternalXtal;
    let peripherals = embassy_nrf::init(config);
    // Flash has wait states, and the HAL does not enable its cache.
    pac::NVMC.icachecnf().write(|w| w.set_cacheen(true));
    peripherals
}

/// The UART. Its interrupt moves bytes between the DMA's memory and two ring buffers.
pub struct Uart(BufferedUarte<'static>);

impl Uart {
    /// Sets up the UART. Call this function once.
    pub fn new(
        uarte: Peri<'static, peripherals::UARTE0>,
        timer: Peri<'static, peripherals::TIMER0>,
        (channel0, channel1, group): (
            Peri<'static, peripherals::PPI_CH0>,
            Peri<'static, peripherals::PPI_CH1>,
            Peri<'static, peripherals::PPI_GROUP0>,
        ),
        txd: Peri<'static, AnyPin>,
        rxd: Peri<'static, AnyPin>,
    ) -> Self {
        let received = singleton!(: [u8; 1024] = [0; 1024]).expect("called once");
        let to_send = singleton!(: [u8; 256] = [0; 256]).expect("called once");
        let (port, pin) = match rxd.port() {
            Port::Port0 => (pac::P0, rxd.pin()),
            Port::Port1 => (pac::P1, rxd.pin()),
        };
        let uart = BufferedUarte::new(
            uarte,
            timer,
            channel0,
            channel1,
            group,
            rxd,
            txd,
            Interrupts,
            uarte::Config::default(), // 115,200 bits per second, 8N1
            received,
            to_send,
        );
        // The HAL enables no pull-up resistor, so the input would float if nothing is connected.
        port.pin_cnf(pin.into())
            .modify(|w| w.set_pull(Pull::Pullup));
        Self(uart)
    }
}

impl Wire for Uart {
    fn read(&mut self) -> Option<u8> {
        let byte = {
            let received = pin!(self.0.fill_buf());
            // This polls only once; the next call polls again. After an overrun the frame's checksum does not match.
            match received.poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Ok(&[byte, ..])) => byte,
                _ => return None,
            }
        };
        self.0.consume(1);
        Some(byte)
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        self.0.try_write(bytes).unwrap_or(0)
    }
}
