//! The report page: a single file that needs no other files and no Internet connection. It contains text, inline SVG, and images
//! as data URIs.

use super::int8;
use super::layers::{self, grouped};
use super::live;
use super::picture::interleaved;
use super::picture::{Picture, STYLE};
use super::{Run, per_cent, shown_classes};
use crate::dataset::hex;
use crate::model::Model;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};
use lenet_core::network::{CHANNELS, HEIGHT, NUM_PARAMS, Pixels, WIDTH};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use std::iter;

/// The page's layout, and colours for dark screens.
pub(super) const LAYOUT: &str = include_str!("page.css");

pub(super) fn page(
    run: &Run<'_>,
    curves: &Picture,
    confusion: &Picture,
    filters: &Picture,
) -> String {
    let weights = run.weights.weights();
    let about = weights.metadata.provenance;
    let (correct, total) = (run.confusion.correct(), run.confusion.total());
    let seconds: f64 = run
        .metrics
        .column("seconds")
        .unwrap_or_default()
        .iter()
        .sum();
    let figure = |name: &str, value: String, unit: &str| {
        html! { div { dt { (name) } dd { (value) small { (unit) } } } }
    };
    let f32 = Model::F32(run.weights.clone());
    let int8 = run.quantized.as_ref();
    let int8 = int8.map(|quantized| Model::Int8(quantized.file.clone()));
    let models: Vec<_> = iter::once(&f32).chain(&int8).collect();
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(live::POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "LeNet: " (run.name) }
                style { (PreEscaped(STYLE)) (PreEscaped(LAYOUT)) }
            }
            body {
                header {
                    h1 { "LeNet on " (run.data.name) }
                    p { (run.name) }
                }
                dl.figures {
                    (figure("test accuracy", format!("{:.2}", run.confusion.accuracy() * 100.0), " %"))
                    (figure("test images right", grouped(correct as usize), &format!(" of {}", grouped(total as usize))))
                    (figure("epochs", about.epochs.to_string(), ""))
                    (figure("training time", format!("{seconds:.1}"), " s"))
                    (figure("parameters", grouped(NUM_PARAMS), ""))
                }
                (live::section(&models, Some(&run.choice)))
                section.pair {
                    figure {
                        h2 { "Training" }
                        (curves.inline())
                        figcaption {
                            "Loss: mean over the epoch's batches. Train acc: counted during the epoch, before each step's "
                            "update. Test acc: after the epoch."
                        }
                    }
                    figure {
                        h2 { "Confusion matrix" }
                        (confusion.inline())
                        figcaption { "Test images. Strength of colour: square root of the share of the row." }
                    }
                }
                section {
                    h2 { "Classes" }
                    (class_table(run))
                }
                section {
                    h2 { "Most confident mistakes" }
                    (mistakes(run))
                }
                section {
                    h2 { "Kernels" }
                    figure.wide {
                        (filters.inline())
                        figcaption {
                            "Red adds, blue subtracts; the strongest colour is the largest weight of the layer."
                        }
                    }
                }
                section {
                    h2 { "Layers" }
                    (layer_table())
                }
                @if let Some(quantized) = &run.quantized {
                    (int8::section(run, quantized))
                }
                section {
                    h2 { "Settings" }
                    div.scroll { table { tbody { (settings("", &run.settings)) } } }
                }
                section {
                    h2 { "Files" }
                    div.scroll {
                        table.files {
                            thead { tr { th { "file" } th.number { "bytes" } th { "SHA-256" } } }
                            tbody {
                                @for (name, bytes, sha256) in &run.files {
                                    tr { td { (name) } td.number { (grouped(*bytes)) } td.hash { (sha256) } }
                                }
                                tr {
                                    td { "the parameters alone" }
                                    td.number { (grouped(size_of_val(weights.params))) }
                                    td.hash { (hex(&about.params_sha256)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
    .into_string()
}

/// Returns a table with each class's recall and precision, and the class with which it is most often confused.
fn class_table(run: &Run<'_>) -> Markup {
    let classes = &run.data.classes;
    let counts = &run.confusion.0;
    let share = |share: f64| match share.is_nan() {
        true => "–".to_owned(),
        false => format!("{share:.3}"),
    };
    html! {
        div.scroll {
            table {
                thead {
                    tr {
                        th { "class" }
                        th.number { "images" }
                        th.number { "recall" }
                        th.number { "precision" }
                        th { "most often confused with" }
                    }
                }
                tbody {
                    @for class in shown_classes(&run.confusion, classes) {
                        @let rival = (0..classes.len())
                            .rev()
                            .filter(|&other| other != class)
                            .max_by_key(|&other| counts[[class, other]])
                            .expect("ten classes");
                        tr {
                            td { (classes[class]) }
                            td.number { (grouped(counts.row(class).sum() as usize)) }
                            td.number { (share(run.confusion.recall(class))) }
                            td.number { (share(run.confusion.precision(class))) }
                            td {
                                @match counts[[class, rival]] {
                                    0 => "–",
                                    count => { (classes[rival]) " (" (count) ")" }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn mistakes(run: &Run<'_>) -> Markup {
    let classes = &run.data.classes;
    html! {
        @if run.mistakes.is_empty() {
            p { "None: every test image is classified correctly." }
        }
        div.mistakes {
            @for mistake in &run.mistakes {
                figure {
                    img src=(data_uri(&run.data.test.images()[mistake.index])) width=(WIDTH) height=(HEIGHT)
                        alt={ "test image " (mistake.index) };
                    figcaption {
                        b { (classes[mistake.label]) }
                        br;
                        span.alarm { "predicted: " (classes[mistake.predicted]) }
                        br;
                        small { (per_cent(mistake.confidence.into())) " %" br; "index " (mistake.index) }
                    }
                }
            }
        }
    }
}

fn layer_table() -> Markup {
    let row = |cells: [&str; 6]| {
        html! {
            @for (column, cell) in cells.into_iter().enumerate() {
                td.number[column >= 2] { (cell) }
            }
        }
    };
    html! {
        div.scroll {
            table {
                thead {
                    tr {
                        @for (column, name) in layers::HEADER.into_iter().enumerate() {
                            th.number[column >= 2] { (name) }
                        }
                    }
                }
                tbody {
                    @for cells in layers::rows() {
                        tr { (row(cells.each_ref().map(String::as_str))) }
                    }
                }
            }
        }
    }
}

/// Returns one row per setting. The names of settings in a table are preceded by the name of the table and a point.
fn settings(prefix: &str, table: &toml::Table) -> Markup {
    html! {
        @for (key, value) in table {
            @match value {
                toml::Value::Table(table) => (settings(&format!("{prefix}{key}."), table)),
                toml::Value::String(text) => tr { td { (prefix) (key) } td.value { (text) } },
                value => tr { td { (prefix) (key) } td.value { (value) } },
            }
        }
    }
}

/// Returns an image as a data URI in PNG format.
fn data_uri(pixels: &Pixels) -> String {
    let mut png = Vec::new();
    let (colour, values) = match CHANNELS {
        1 => (ExtendedColorType::L8, bytemuck::bytes_of(pixels).to_vec()),
        _ => (
            ExtendedColorType::Rgb8,
            interleaved(pixels).as_flattened().as_flattened().to_vec(),
        ),
    };
    PngEncoder::new_with_quality(&mut png, CompressionType::Best, FilterType::Adaptive)
        .write_image(&values, WIDTH as u32, HEIGHT as u32, colour)
        .expect("into memory");
    format!("data:image/png;base64,{}", STANDARD.encode(png))
}
