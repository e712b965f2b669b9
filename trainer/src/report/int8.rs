//! The section of the page about the int8 version of the network.

use super::layers::grouped;
use super::{Run, confusion};
use crate::evaluate::{Confusion, int8_logits};
use crate::quantize::Difference;
use crate::quantize::selected::compare;
use crate::weights_file::WeightsFile;
use lenet_core::network::{LAYERS, int8};
use maud::{Markup, html};

/// An int8 weights file that was quantized from the run's weights, and its results on the test images.
pub struct Quantized<'a> {
    pub(super) file: &'a WeightsFile<int8::Net>,
    confusion: Confusion,
    difference: Difference,
}

impl<'a> Quantized<'a> {
    /// Runs both networks on the test images.
    pub fn new(
        f32: &WeightsFile,
        file: &'a WeightsFile<int8::Net>,
        test: &crate::dataset::Split,
    ) -> Self {
        let params = file.weights().params;
        let logits = int8_logits(params, test.images());
        Self {
            file,
            confusion: Confusion::new(&logits, test.labels()),
            difference: compare(f32.weights().params, params, test.images()),
        }
    }
}

/// Returns the section, which compares the f32 and the int8 network.
pub(super) fn section(run: &Run<'_>, quantized: &Quantized<'_>) -> Markup {
    let Difference {
        signal_to_noise,
        same_class,
        largest_change,
    } = &quantized.difference;
    let row = |name: &str, f32: String, int8: String| {
        html! { tr { td { (name) } td.number { (f32) } td.number { (int8) } } }
    };
    let both =
        |value: &dyn Fn(&Confusion) -> String| [&run.confusion, &quantized.confusion].map(value);
    let [accuracy, accuracy_int8] = both(&|all| format!("{:.2} %", all.accuracy() * 100.0));
    let [correct, correct_int8] = both(&|all| grouped(all.correct() as usize));
    let bytes = [run.weights.bytes(), quantized.file.bytes()].map(|bytes| grouped(bytes.len()));
    let [bytes, bytes_int8] = bytes;
    html! {
        section {
            h2 { "8-bit integers" }
            p {
                "The same network after " code { "trainer quantize" } ": " (grouped(*same_class)) " of "
                (grouped(run.confusion.total() as usize)) " test images keep their class, and the largest change of a logit is "
                (format!("{largest_change:.3}")) ". You can choose these weights where the network runs on this page. Everything else is about the f32 weights; "
                "quantization trains nothing, so it has no curves of its own."
            }
            div.pair {
                div {
                    div.scroll {
                        table {
                            thead { tr { th { "" } th.number { "f32" } th.number { "int8" } } }
                            tbody {
                                (row("test accuracy", accuracy, accuracy_int8))
                                (row("test images right", correct, correct_int8))
                                (row("weights file, bytes", bytes, bytes_int8))
                            }
                        }
                    }
                    div.scroll {
                        table {
                            thead { tr { th { "layer" } th.number { "signal to noise, dB" } } }
                            tbody {
                                @for (layer, db) in LAYERS.iter().zip(signal_to_noise) {
                                    tr { td { (layer.name) } td.number { (format!("{db:.1}")) } }
                                }
                            }
                        }
                    }
                }
                figure {
                    (confusion::confusion(&quantized.confusion, &run.data.classes).inline())
                    figcaption {
                        "Test images in int8. Signal to noise: power of a layer's outputs in f32 over that of their errors in int8, "
                        "with the errors of the layers before it; 6 dB are one bit."
                    }
                }
            }
        }
    }
}
