//! The section of the report that runs the network in the browser, and a page that consists of this section only.
//!
//! The page contains the weights file, the WebAssembly modules (`trainer/web`), some test images, and the scripts in `live/`,
//! and needs nothing else: a content security policy forbids every request.

use super::layers;
use super::page::LAYOUT;
use super::picture::STYLE;
use super::samples::Mistake;
use crate::dataset::Dataset;
use crate::model::Model;
use flate2::Compression;
use flate2::write::GzEncoder;
use lenet_core::Numbers;
use lenet_core::network::{
    CHANNELS, CLASSES, FINGERPRINT, HEIGHT, LAYERS, Logits, NAME, NUM_PARAMS, WIDTH,
};
use lenet_core::ops::argmax;
use lenet_core::plan::{Kind, ShapeText};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::json;
use std::io::Write;
use std::path::Path;

const SCRIPTS: [&str; 4] = [
    include_str!("live/data.js"),
    include_str!("live/engine.js"),
    include_str!("live/pictures.js"),
    include_str!("live/live.js"),
];
const LIVE: &str = include_str!("live/live.css");

/// The modules of the shipped networks, each in f32 and in int8.
const NETWORKS: [&[u8]; 10] = [
    include_bytes!("../../web/wasm/lenet.wasm"),
    include_bytes!("../../web/wasm/lenet-int8.wasm"),
    include_bytes!("../../web/wasm/lenet-d2l.wasm"),
    include_bytes!("../../web/wasm/lenet-d2l-int8.wasm"),
    include_bytes!("../../web/wasm/relu.wasm"),
    include_bytes!("../../web/wasm/relu-int8.wasm"),
    include_bytes!("../../web/wasm/color.wasm"),
    include_bytes!("../../web/wasm/color-int8.wasm"),
    include_bytes!("../../web/wasm/tiny.wasm"),
    include_bytes!("../../web/wasm/tiny-int8.wasm"),
];
/// The module that decodes picture files.
const PICTURES: &[u8] = include_bytes!("../../web/wasm/pictures.wasm");
/// The files to which `trainer/web/build.sh` writes the modules of a network that is not shipped.
const OWN: [&str; 2] = [
    concat!(env!("CARGO_MANIFEST_DIR"), "/web/wasm/own.wasm"),
    concat!(env!("CARGO_MANIFEST_DIR"), "/web/wasm/own-int8.wasm"),
];
/// The name of the WebAssembly section with the fingerprint of a module's network and its number format.
const SECTION: &[u8] = b"lenet-network";

/// The content security policy: the browser may run the scripts in the page, but may not fetch anything.
pub(super) const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline' 'wasm-unsafe-eval'; \
     style-src 'unsafe-inline'; img-src data:";

/// The number of test images to choose from.
const IMAGES: usize = 20;
/// The number of mistakes among them, if there are that many.
const WRONG: usize = 4;
/// The number of classes above which the results are shown in columns.
const FEW: usize = 16;

/// The test images to choose from, by their indices in the split.
pub(super) struct Choice<'a> {
    data: &'a Dataset,
    indices: Vec<usize>,
}

impl<'a> Choice<'a> {
    /// Chooses images that the network classifies correctly, from each class in turn, and then the most confident mistakes.
    pub(super) fn new(data: &'a Dataset, logits: &[Logits], mistakes: &[Mistake]) -> Self {
        let labels = data.test.labels();
        let wrong = mistakes.iter().take(WRONG).map(|mistake| mistake.index);
        let mut of_class = vec![Vec::new(); CLASSES];
        for (index, logits) in logits.iter().enumerate() {
            let class = usize::from(labels[index]);
            if argmax(logits) == class {
                of_class[class].push(index);
            }
        }
        let most = of_class.iter().map(Vec::len).max().unwrap_or(0);
        let in_turn = (0..most).flat_map(|n| of_class.iter().filter_map(move |class| class.get(n)));
        let right = IMAGES - wrong.len();
        let indices = in_turn.copied().take(right).chain(wrong).collect();
        Self { data, indices }
    }
}

/// Returns the module of this build's network for a number format, or a sentence that says how to build it.
fn network(numbers: Numbers) -> Result<Vec<u8>, String> {
    let is_this = |module: &[u8]| identity(module) == Some((FINGERPRINT, numbers as u8));
    if let Some(module) = NETWORKS.iter().find(|module| is_this(module)) {
        return Ok(module.to_vec());
    }
    let own = OWN.iter().find_map(|path| {
        let module = std::fs::read(Path::new(path)).ok()?;
        is_this(&module).then_some(module)
    });
    own.ok_or_else(|| {
        format!(
            "The network {NAME} does not run in this page, because there is no WebAssembly module of it yet: build one with \
             LENET_NETWORK=… trainer/web/build.sh, and make the page again."
        )
    })
}

/// Returns the fingerprint of the network that a module was built for, and its number format.
fn identity(module: &[u8]) -> Option<(u64, u8)> {
    let mut rest = module.strip_prefix(b"\0asm\x01\0\0\0")?;
    while let Some((&kind, after)) = rest.split_first() {
        rest = after;
        let len = leb128(&mut rest)?;
        let (mut section, after) = rest.split_at_checked(len)?;
        rest = after;
        if kind == 0 {
            let name = leb128(&mut section)?;
            let (name, content) = section.split_at_checked(name)?;
            if name == SECTION {
                let (fingerprint, numbers) = content.split_first_chunk()?;
                return Some((u64::from_le_bytes(*fingerprint), *numbers.first()?));
            }
        }
    }
    None
}

/// Decodes an unsigned LEB128 integer of up to 32 bits, and removes it from `bytes`.
fn leb128(bytes: &mut &[u8]) -> Option<usize> {
    let mut value = 0;
    for shift in (0..35).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// Returns the section that runs the network, with its style sheet and scripts. `models` are weights files of this network in
/// different number formats; the page starts with the first.
pub(super) fn section(models: &[&Model], choice: Option<&Choice<'_>>) -> Markup {
    let modules: Result<Vec<_>, _> = models
        .iter()
        .map(|model| network(model.numbers()))
        .collect();
    let modules = match modules {
        Ok(modules) => modules,
        Err(sentence) => {
            return html! { section { h2 { "The network" } p { (sentence) } } };
        }
    };
    let indices = choice.map_or(&[][..], |choice| &choice.indices);
    let images: Vec<u8> = choice.map_or(Vec::new(), |choice| {
        let images = choice.data.test.images();
        let chosen = indices.iter().map(|&index| &images[index]);
        chosen
            .flat_map(|image| bytemuck::bytes_of(image).to_vec())
            .collect()
    });
    let about = models[0].metadata().provenance;
    let stored = |id: &str, bytes: &[u8]| {
        html! { script type="text/plain" id=(id) { (PreEscaped(base85(&packed(bytes)))) } }
    };
    html! {
        style { (PreEscaped(LIVE)) }
        section.live #live aria-labelledby="live-title" {
            h2 #live-title { "Try the network" }
            p #live-off { "The network starts here where the browser runs JavaScript and WebAssembly." }
            div #live-on hidden {
                p.live-lead {
                    @if !images.is_empty() { "Choose a test image, draw on the picture, or drop or paste a picture of your own." }
                    @else { "Draw on the picture, or drop or paste a picture of your own." }
                    " Point at any value below it to see what it depends on."
                }
                div.live-strip #live-strip role="group" aria-label="Test images" {}
                div.live-top {
                    div {
                        canvas.live-picture #live-picture tabindex="0" role="application"
                            aria-label="The picture as the network gets it. Draw with the pointer, or move with the arrow keys and draw with the space bar." {}
                        (tools())
                    }
                    div {
                        @if models.len() > 1 { (kinds(models)) }
                        p.live-says { b #live-answer {} span #live-truth {} }
                        ol.live-bars.is-many[CLASSES > FEW] #live-bars tabindex="0" aria-label="Probability of each class, and the bits of its logit. The arrow keys move from class to class." {}
                        p.live-key { "Probability by softmax; ✓ is the label" span.live-wide { "; on the right, the bits of the logit" } "." }
                    }
                }
                p.live-status #live-status role="status" {}
                div.live-layers #live-layers { (layers_shown()) }
                div.live-claim {
                    p {
                        span.live-ok { "Self-test passed" }
                        ": the logits of the built-in pattern are those that the trainer computed, bit for bit. So are those of every "
                        "picture: here, in the trainer, and on a board."
                    }
                    p { "Parameters " code #live-hash {} " (SHA-256), " span #live-about {} "." }
                    p {
                        "Engine: lenet-core as WebAssembly, " span #live-numbers {} ", " span #live-size {} " bytes; " span #live-time {}
                        ". Drop another weights file of the network " b { (NAME) } " on the page to run that."
                    }
                }
            }
            div.live-card #live-card hidden {
                p { b #live-card-title {} span #live-card-value {} }
                div { canvas #live-card-picture {} span #live-card-sees {} }
                div { canvas #live-card-kernel {} span #live-card-reads {} }
            }
        }
        script type="application/json" id="live-plan" { (PreEscaped(plan(models, choice).to_string().replace('<', "\\u003c"))) }
        @for (model, module) in models.iter().zip(&modules) {
            (stored(&format!("live-network-{}", model.numbers()), module))
            (stored(&format!("live-weights-{}", model.numbers()), &planes(model.bytes())))
        }
        (stored("live-pictures", PICTURES))
        (stored("live-images", &images))
        script type="module" { (PreEscaped(script())) }
        noscript { p { "Without JavaScript the network, trained on " (about.dataset) ", does not run in this page." } }
    }
}

/// Returns the buttons that choose the number format.
fn kinds(models: &[&Model]) -> Markup {
    html! {
        fieldset.live-kinds #live-kinds {
            legend { "Numbers" }
            @for (index, model) in models.iter().enumerate() {
                label { input type="radio" name="live-kind" value=(model.numbers()) checked[index == 0]; (model.numbers()) }
            }
        }
    }
}

fn tools() -> Markup {
    html! {
        div.live-tools {
            button type="button" #live-clear { "Clear" }
            label { "Pen" select #live-pen { option value="0.7" { "thin" } option value="1.3" selected { "medium" } option value="2.4" { "thick" } } }
            @if CHANNELS == 3 { label { "Ink" input #live-ink type="color" value="#ffffff"; } }
            label { input #live-erase type="checkbox"; "erase" }
        }
        div.live-tools {
            button type="button" #live-open { "Open a file…" }
            input #live-file type="file" hidden accept="image/png,image/jpeg,image/bmp,.pnm,.pbm,.pgm,.ppm,.weights";
            label title="As trainer predict --resize" { input #live-resize type="checkbox" checked; "resize" }
            label title="As trainer predict --invert: dark on white becomes bright on black" { input #live-invert type="checkbox"; "invert" }
        }
    }
}

/// Returns an empty figure for the outputs of each layer except the last, whose outputs are shown as the result.
fn layers_shown() -> Markup {
    html! {
        @for (index, layer) in LAYERS[..LAYERS.len() - 1].iter().enumerate() {
            figure id={ "live-layer-" (index) } {
                figcaption {
                    span.live-range {}
                    b { (layer.name) }
                    (layer) " → " (ShapeText(layer.output).to_string().replace('x', "×"))
                }
                canvas tabindex="0" role="application"
                    aria-label={ "Outputs of " (layer.name) ", " (ShapeText(layer.output)) ". The arrow keys move from value to value." } {}
            }
        }
    }
}

/// Returns the description of the network and the images that the scripts need.
fn plan(models: &[&Model], choice: Option<&Choice<'_>>) -> serde_json::Value {
    let layers: Vec<_> = LAYERS
        .iter()
        .map(|layer| {
            let kind = match layer.kind {
                Kind::Conv2d => "conv2d",
                Kind::Linear => "linear",
            };
            json!({
                "name": layer.name,
                "kind": kind,
                "input": layer.input,
                "output": layer.output,
                "kernel": layer.kernel,
                "padding": layer.padding,
                "window": layer.pool.window(),
            })
        })
        .collect();
    let images: Vec<_> = choice.map_or(Vec::new(), |choice| {
        let labels = choice.data.test.labels();
        let image = |&index: &usize| json!({ "index": index, "label": labels[index] });
        choice.indices.iter().map(image).collect()
    });
    json!({
        "input": [CHANNELS, HEIGHT, WIDTH],
        "classes": CLASSES,
        "numbers": models.iter().map(|model| model.numbers().to_string()).collect::<Vec<_>>(),
        "layers": layers,
        "images": images,
        "labels": choice.map_or(Vec::new(), |choice| choice.data.classes.to_vec()),
    })
}

/// Joins the scripts into one: without the import and export statements, comments and indentation.
fn script() -> String {
    let mut script = String::new();
    for line in SCRIPTS.iter().flat_map(|script| script.lines()) {
        let line = line.trim();
        if !["", "import ", "//", "/*", "*"]
            .iter()
            .any(|left_out| match *left_out {
                "" => line.is_empty(),
                start => line.starts_with(start),
            })
        {
            script += line.strip_prefix("export ").unwrap_or(line);
            script.push('\n');
        }
    }
    script
}

/// Reorders bytes so that every fourth byte is adjacent. The exponents of floats are similar, so they compress better this way.
fn planes(bytes: &[u8]) -> Vec<u8> {
    (0..4)
        .flat_map(|plane| bytes.iter().skip(plane).step_by(4).copied())
        .collect()
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("into memory");
    encoder.finish().expect("into memory")
}

/// Encodes bytes in base 85: five digits for four bytes; for one to three bytes at the end, one digit more than bytes. None of the
/// digits has a meaning in HTML.
fn base85(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 85] =
        b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%()*+,-./:;=?@[]^_{|";
    let mut text = String::with_capacity(bytes.len().div_ceil(4) * 5);
    for chunk in bytes.chunks(4) {
        let mut four = [0; 4];
        four[..chunk.len()].copy_from_slice(chunk);
        let word = u32::from_be_bytes(four);
        for power in (0..5).rev().take(chunk.len() + 1) {
            text.push(char::from(DIGITS[(word / 85_u32.pow(power) % 85) as usize]));
        }
    }
    text
}

/// Returns a page that runs the network and contains little else.
pub(super) fn page(models: &[&Model], choice: Option<&Choice<'_>>) -> String {
    let about = models[0].metadata().provenance;
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (NAME) " on " (about.dataset) }
                style { (PreEscaped(STYLE)) (PreEscaped(LAYOUT)) }
            }
            body {
                header {
                    h1 { (NAME) " on " (about.dataset) }
                    p {
                        "A convolutional network of " (layers::grouped(NUM_PARAMS)) " parameters"
                        @if about.epochs > 0 { ", trained for " (about.epochs) " epochs" }
                        @if about.test_accuracy.is_finite() {
                            "; it classifies " (format!("{:.2}", about.test_accuracy * 100.0)) " % of the test images correctly"
                        }
                        ". It runs in this page and sends nothing."
                    }
                }
                (section(models, choice))
            }
        }
    }
    .into_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::networks::{color, lenet, lenet_d2l, relu, tiny};

    #[test]
    fn every_shipped_network_has_a_module_for_each_kind_of_numbers() {
        let shipped = [
            lenet::FINGERPRINT,
            lenet_d2l::FINGERPRINT,
            relu::FINGERPRINT,
            color::FINGERPRINT,
            tiny::FINGERPRINT,
        ];
        let kinds = [Numbers::F32, Numbers::Int8];
        let expected = shipped.map(|network| kinds.map(|numbers| (network, numbers as u8)));
        let found = NETWORKS.map(|module| identity(module).unwrap());
        assert_eq!(found, expected.as_flattened());
        if shipped.contains(&FINGERPRINT) {
            assert!(kinds.map(network).iter().all(Result::is_ok));
        }
        assert_eq!(identity(PICTURES), None);
        assert_eq!(identity(&NETWORKS[0][..100]), None);
    }

    #[test]
    fn base85_gives_the_known_digits() {
        assert_eq!(base85(&[]), "");
        assert_eq!(base85(&[0; 4]), "00000");
        assert_eq!(base85(&[255; 4]), "_NsC0");
        assert_eq!(base85(&[255]), "^^");
        assert_eq!(base85(b"12345678a").len(), 12);
    }

    #[test]
    fn the_script_has_no_line_that_needs_another_file() {
        let script = script();
        let needs_another = |line: &str| line.starts_with("import ") || line.starts_with("export ");
        assert!(!script.lines().any(needs_another));
        assert!(script.contains("class Engine {") && !script.contains("/**"));
    }
}
