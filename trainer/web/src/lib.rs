//! The network as a WebAssembly module, with which a web page checks a weights file and classifies pictures.
//!
//! The module imports nothing. Its memory holds one weights file, one picture and the outputs of all layers, which the page reads
//! and writes there. For another file, the page creates another instance. The arithmetic is that of [`lenet_core`], so the outputs
//! equal those of the trainer and of a board bit for bit.
//!
//! | export | purpose |
//! |---|---|
//! | `file(len)` | returns the address for a weights file of this length, or 0 if there is no memory for it; call it once |
//! | `load()` | checks the file as a board does at power-on: every check of the format, then the self-test |
//! | `text(what, index)` | returns a text, as its address (upper half) and length (lower half): an error message, or metadata of the file |
//! | `parameters()` | returns the address and the length of the parameters in the file, in the same way |
//! | `crc()` | returns the checksum of the file |
//! | `weight(layer, index)` | returns a weight; in int8 it is an integer |
//! | `pixels()` | returns the address of the picture, one byte per channel, row and column |
//! | `forward()` | classifies the picture |
//! | `outputs(layer)`, `numbers(layer)` | return the address of a layer's outputs, and their number format |
//! | `step(layer)`, `zero(layer)` | return the value of one step of an output byte, and the byte that stands for 0 (only in int8) |
//! | `probabilities()` | returns the address of the softmax of the logits, in f32 |
//!
//! The custom section `lenet-network` contains the fingerprint of the network and its number format, by which the trainer
//! distinguishes the modules. The feature `int8` builds the module for the network in 8-bit integers.

#![cfg_attr(target_arch = "wasm32", no_std)]
#![cfg(target_arch = "wasm32")]

use core::cell::UnsafeCell;
use core::fmt::{Display, Write};
use core::slice;
#[cfg(feature = "int8")]
use lenet_core::int8::{self, EXCESS, Int8};
#[cfg(not(feature = "int8"))]
use lenet_core::network::Net;
#[cfg(feature = "int8")]
use lenet_core::network::int8::Net;
use lenet_core::network::{Logits, Pixels};
use lenet_core::ops::softmax;
use lenet_core::plan::{Layer, Tensor};
use lenet_core::self_test;
use lenet_core::weights::{self, Weights};
use lenet_core::{Network, Numbers, Outputs};

#[used]
#[unsafe(link_section = "lenet-network")]
static NETWORK: [u8; 9] = {
    let [a, b, c, d, e, f, g, h] = Net::FINGERPRINT.to_le_bytes();
    [a, b, c, d, e, f, g, h, Net::NUMBERS as u8]
};

type Params = <Net as Network>::Params;
type Activations = <Net as Network>::Activations;
type Image = <Net as Network>::Image;

/// The number of bytes in a page of the module's memory.
const PAGE: usize = 65_536;

/// The results of [`load`].
const LOADED: u32 = 0;
const REFUSED: u32 = 1;
const SELF_TEST_FAILED: u32 = 2;

/// The network with a forward pass that is not inlined, so that the module contains it only once and not again in the self-test.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Once;

impl Network for Once {
    const NAME: &'static str = Net::NAME;
    const NUMBERS: Numbers = Net::NUMBERS;
    const LAYERS: &'static [Layer] = Net::LAYERS;
    const TENSORS: &'static [Tensor] = Net::TENSORS;
    const FINGERPRINT: u64 = Net::FINGERPRINT;
    const TEST_IMAGE: &'static Image = Net::TEST_IMAGE;
    type Params = Params;
    type Activations = Activations;
    type Image = Image;
    type Pixels = Pixels;
    type Logits = Logits;

    #[inline(never)]
    fn forward<'a>(params: &Params, image: &Image, act: &'a mut Activations) -> &'a Logits {
        Net::forward(params, image, act)
    }

    fn write_image(pixels: &Pixels, image: &mut Image) {
        Net::write_image(pixels, image)
    }

    fn outputs(act: &Activations, layer: usize) -> Option<Outputs<'_>> {
        Net::outputs(act, layer)
    }

    fn unusable(params: &Params) -> Option<(&'static str, usize)> {
        Net::unusable(params)
    }
}

/// Everything that the module stores between calls.
struct State {
    /// The address and the length of the weights file.
    file: Option<(*const u8, usize)>,
    /// The weights file after it has passed every check.
    weights: Option<Weights<'static, Net>>,
    pixels: Pixels,
    image: Image,
    act: Activations,
    probabilities: Logits,
    message: Message,
}

/// An error message. There is enough space for the longest one, which contains the names of two networks.
struct Message {
    bytes: [u8; 512],
    len: usize,
}

impl Write for Message {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let free = self.bytes.iter_mut().skip(self.len);
        for (to, from) in free.zip(text.bytes()) {
            *to = from;
            self.len += 1;
        }
        Ok(())
    }
}

/// The state of the module, for one thread.
struct Place(UnsafeCell<State>);

// SAFETY: a module without shared memory has only one thread.
unsafe impl Sync for Place {}

static STATE: Place = Place(UnsafeCell::new(State {
    file: None,
    weights: None,
    pixels: bytemuck::zeroed(),
    image: bytemuck::zeroed(),
    act: bytemuck::zeroed(),
    probabilities: bytemuck::zeroed(),
    message: Message {
        bytes: [0; 512],
        len: 0,
    },
}));

/// Calls `f` with the state.
fn with<T>(f: impl FnOnce(&'static mut State) -> T) -> T {
    // SAFETY: only exports call this function, once each. They call no other exports, and the host calls one export at a time.
    // So this is the only reference while it is in use. Exports return addresses, not references.
    f(unsafe { &mut *STATE.0.get() })
}

/// Returns the address of a value. The page reads or writes there between calls, when no reference is in use.
fn address<T: ?Sized>(of: &T) -> usize {
    core::ptr::from_ref(of).addr()
}

/// Returns the address for a weights file of this length, or 0 if there is no memory for it or the module already has a file.
#[unsafe(no_mangle)]
extern "C" fn file(len: usize) -> usize {
    with(|state| {
        if state.file.is_some() {
            return 0;
        }
        let end = core::arch::wasm32::memory_grow::<0>(len.div_ceil(PAGE));
        if end == usize::MAX {
            return 0;
        }
        let start: *const u8 = core::ptr::with_exposed_provenance(end * PAGE);
        state.file = Some((start, len));
        start.addr()
    })
}

/// Checks the file and runs the self-test, as a board does at power-on. Unless it returns [`LOADED`], text 0 is the error message.
#[unsafe(no_mangle)]
extern "C" fn load() -> u32 {
    with(|state| {
        let refused = |message: &mut Message, reason: &dyn Display| {
            message.len = 0;
            // Writing to a message never fails.
            let _ = write!(message, "{reason}");
        };
        let file = match state.file {
            // SAFETY: `file` added this memory to the module, zeroed, and nothing else of the module uses it. The page wrote the
            // bytes before this call and does not write them after it.
            Some((start, len)) => unsafe { slice::from_raw_parts(start, len) },
            None => &[],
        };
        let weights = match weights::view::<Net>(file) {
            Ok(weights) => weights,
            Err(error) => {
                refused(&mut state.message, &error);
                return REFUSED;
            }
        };
        let checked = self_test::check::<Once>(weights.params, &weights.self_test, &mut state.act);
        if let Err(error) = checked {
            refused(&mut state.message, &error);
            return SELF_TEST_FAILED;
        }
        state.weights = Some(weights);
        LOADED
    })
}

/// Returns the address of a text in the upper half and its length in the lower half. `what` selects the text: 0 is the error
/// message, 1 the network's name, 2 its description, 3 the name of class `index`, 4 the data set, 5 the SHA-256 of the parameters
/// (32 bytes), 6 the recipe. A text that does not exist is empty.
#[unsafe(no_mangle)]
extern "C" fn text(what: u32, index: usize) -> u64 {
    with(|state| {
        let message = state.message.bytes.get(..state.message.len);
        let text = match (what, &state.weights) {
            (0, _) => message.unwrap_or_default(),
            (1, Some(weights)) => weights.name().as_bytes(),
            (2, Some(weights)) => weights.description().as_bytes(),
            (3, Some(weights)) => weights.metadata.classes.get(index).as_bytes(),
            (4, Some(weights)) => weights.metadata.provenance.dataset.as_bytes(),
            (5, Some(weights)) => &weights.metadata.provenance.params_sha256,
            (6, Some(weights)) => weights.metadata.provenance.recipe.as_bytes(),
            _ => &[],
        };
        (address(text) as u64) << 32 | text.len() as u64
    })
}

/// Returns the address of the parameters in the upper half and their length in bytes in the lower half, or 0 if no file is loaded.
#[unsafe(no_mangle)]
extern "C" fn parameters() -> u64 {
    with(|state| {
        state.weights.map_or(0, |weights| {
            (address(weights.params) as u64) << 32 | size_of::<Params>() as u64
        })
    })
}

/// Returns the weight of this index in a layer, where one output follows another, or NaN if there is none. In int8 it is an integer.
#[unsafe(no_mangle)]
extern "C" fn weight(layer: usize, index: usize) -> f32 {
    with(|state| {
        let weights = state.weights?;
        #[cfg(not(feature = "int8"))]
        let weight = {
            let first = Net::TENSORS.get(2 * layer)?.offset;
            bytemuck::cast_slice(core::slice::from_ref(weights.params))
                .get(first + index)
                .copied()?
        };
        #[cfg(feature = "int8")]
        let weight = {
            let stored = Net::layer(weights.params, layer)?.weight.get(index)?;
            (i32::from(*stored) - EXCESS) as f32
        };
        Some(weight)
    })
    .unwrap_or(f32::NAN)
}

/// Returns the checksum of the file, or 0 if no file is loaded.
#[unsafe(no_mangle)]
extern "C" fn crc() -> u32 {
    with(|state| state.weights.map_or(0, |weights| weights.crc))
}

/// Returns the address of the picture.
#[unsafe(no_mangle)]
extern "C" fn pixels() -> usize {
    with(|state| address(&state.pixels))
}

/// Classifies the picture. Does nothing if no file is loaded.
#[unsafe(no_mangle)]
extern "C" fn forward() {
    with(|state| {
        if let Some(weights) = state.weights {
            Net::write_image(&state.pixels, &mut state.image);
            let logits = Once::forward(weights.params, &state.image, &mut state.act);
            softmax(logits, &mut state.probabilities);
        }
    });
}

/// Returns the address of the outputs of a layer, or 0 if there is no such layer.
#[unsafe(no_mangle)]
extern "C" fn outputs(layer: usize) -> usize {
    with(|state| {
        let outputs = Net::outputs(&state.act, layer);
        let bytes = outputs.and_then(|outputs| outputs.page(0, outputs.len()));
        bytes.map_or(0, address)
    })
}

/// Returns the number format of a layer's outputs: 0 is f32, 1 is bytes. The logits are always f32.
#[unsafe(no_mangle)]
extern "C" fn numbers(layer: usize) -> u32 {
    if layer + 1 < Net::LAYERS.len() {
        Net::NUMBERS as u32
    } else {
        Numbers::F32 as u32
    }
}

/// Returns the value of one step of a layer's output bytes, or 0 if there is no such layer. Valid only for bytes.
#[cfg(feature = "int8")]
#[unsafe(no_mangle)]
extern "C" fn step(layer: usize) -> f32 {
    with(|state| {
        let params = Net::layer(state.weights?.params, layer)?;
        Some(params.step)
    })
    .unwrap_or(0.0)
}

/// Returns the zero point of a layer's outputs: the byte that stands for 0. Valid only for bytes.
#[cfg(feature = "int8")]
#[unsafe(no_mangle)]
extern "C" fn zero(layer: usize) -> u32 {
    let layer = Net::LAYERS.get(layer);
    layer.map_or(0, |layer| u32::from(int8::zero(layer.activation)))
}

/// Returns the address of the probabilities.
#[unsafe(no_mangle)]
extern "C" fn probabilities() -> usize {
    with(|state| address(&state.probabilities))
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Nothing here panics. If it did, the page would notice the trap.
    core::arch::wasm32::unreachable()
}
