//! Tests `quantize`, and every command with an int8 file: what it does, or the message with which it rejects the file.

use crate::place::{LEARNT, Place, TRAIN};
use std::path::Path;
use trainer::model::Model;

/// Returns a place with trained f32 weights and their int8 version, and the output of `quantize`.
fn quantized() -> (Place, String) {
    let place = Place::new();
    place.good(&format!("{LEARNT} --out run"));
    let out = place.good("quantize run/lenet.weights --data letters --out int8.weights");
    (place, out)
}

const TAKEN: &str = "already exists and is not overwritten; choose another name or remove it";

#[test]
fn quantize_prints_the_loss_and_records_the_origin() {
    let (place, out) = quantized();
    let bytes = place.read("int8.weights").len();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], format!("wrote int8.weights ({bytes} bytes)"));
    for layer in ["conv1", "conv2", "fc1", "fc2", "fc3"] {
        let line = lines.iter().find(|line| line.trim().starts_with(layer));
        let db: f64 = line
            .unwrap()
            .split(' ')
            .next_back()
            .unwrap()
            .parse()
            .unwrap();
        assert!(db > 25.0, "{out}");
    }
    for part in [
        " of 30) in f32",
        " of 30) in int8",
        " of 30 images keep their class; the largest change of a logit is ",
        " bytes in f32, ",
    ] {
        assert!(out.contains(part), "{part} in {out}");
    }
    let accuracy = |numbers: &str| {
        let end = format!(" of 30) in {numbers}");
        let line = lines.iter().find(|line| line.ends_with(&end)).unwrap();
        line[..line.find(" in ").unwrap()].to_owned()
    };
    assert_eq!(
        place.good("evaluate int8.weights --data letters"),
        format!("{}\n", accuracy("int8"))
    );
    assert_eq!(
        place.good("evaluate run/lenet.weights --data letters"),
        format!("{}\n", accuracy("f32"))
    );

    let f32 = Model::load(&place.path("run/lenet.weights")).unwrap();
    let hash = trainer::dataset::hex(&f32.metadata().provenance.params_sha256);
    let summary = place.good("summary int8.weights");
    assert!(summary.contains("numbers        int8\n"), "{summary}");
    // The range of a sigmoid is fixed, so no images were used to calibrate it.
    assert!(
        summary.contains(&format!("; quantized from {hash}\n")),
        "{summary}"
    );

    // The same input gives the same file, also if it is written to a pipe, to which nothing else is printed.
    let again = place
        .command("quantize run/lenet.weights --data letters --out -")
        .output()
        .unwrap();
    assert!(again.status.success() && again.stderr.is_empty());
    assert!(again.stdout == place.read("int8.weights"));
}

#[test]
fn quantize_refuses_by_name_and_writes_nothing() {
    let (place, _) = quantized();
    let int8 = place.read("int8.weights");
    let good = place.read("run/lenet.weights");
    let again = "copy it again from where it came";
    place.write("cut", &good[..1000]);
    place.write("text", b"{\"a\": 1}");
    let foreign = [
        &good[..8],
        &[0; 8],
        &good[16..20],
        b"other",
        &[0; 27],
        &good[52..],
    ]
    .concat();
    place.write("foreign", &foreign);
    let quantize = |weights: &str| format!("quantize {weights} --data letters --out new");
    for (weights, problem) in [
        (
            "int8.weights",
            "an int8 network, and this command takes f32: name the weights that it was quantized from".to_owned(),
        ),
        ("cut", format!("truncated: ends after 1000 bytes; {again}")),
        ("text", "not a LeNet weights file (starts with 7b 22 61 22)".to_owned()),
        (
            "foreign",
            "a file of the network `other`, this program is built for `lenet`; build it with LENET_NETWORK=other (or the path of its description)".to_owned(),
        ),
        ("none", "cannot be read: No such file or directory (os error 2)".to_owned()),
    ] {
        place.refused(&quantize(weights), 1, &format!("{weights}: {problem}"));
    }
    place.refused(
        "quantize run/lenet.weights --data nowhere --out new",
        1,
        "nowhere: no such folder; name the one of the data set with --data DIR",
    );
    let onto = "quantize run/lenet.weights --data letters --out int8.weights";
    place.refused(onto, 1, &format!("int8.weights: {TAKEN}"));
    assert!(place.read("int8.weights") == int8);
    let err = place.failed(&quantize("run/lenet.weights").replace("new", "no/new"), 1);
    assert!(
        err.starts_with("error: no/new: cannot be written: "),
        "{err}"
    );
    for (options, sentence) in [
        (
            "--calibrate 0",
            "invalid value '0' for '--calibrate <N>': 0 is not in 1..=4294967295",
        ),
        (
            "--range 0",
            "invalid value '0' for '--range <F>': must be above 0 and at most 1",
        ),
        (
            "--range 1.5",
            "invalid value '1.5' for '--range <F>': must be above 0 and at most 1",
        ),
    ] {
        place.unusable(
            &format!("{} {options}", quantize("run/lenet.weights")),
            sentence,
        );
    }
}

#[test]
fn damaged_int8_files_are_refused_by_every_command() {
    let (place, _) = quantized();
    let good = place.read("int8.weights");
    let mut flipped = good.clone();
    flipped[5000] ^= 1;
    let again = "; copy it again from where it came";
    for (bytes, problem) in [
        (
            good[..1000].to_vec(),
            format!("truncated: ends after 1000 bytes{again}"),
        ),
        (
            [&good[..], &[0]].concat(),
            format!("1 bytes follow the end of the file{again}"),
        ),
        (flipped, "damaged: checksum ".to_owned()),
    ] {
        place.write("bad", &bytes);
        for command in [
            "evaluate bad --data letters",
            "predict bad --data letters --index 1",
            "summary bad",
            "compare bad int8.weights --data letters",
            "export bad --format onnx --out new",
            "export bad --format c --out new",
            "import bad --out new",
            "quantize bad --data letters --out new",
            "report run --int8 bad",
        ] {
            let err = place.failed(command, 1);
            assert!(
                err.starts_with(&format!("error: bad: {problem}")),
                "{command}: {err}"
            );
        }
    }
}

#[test]
fn evaluate_and_predict_run_the_integers() {
    let (place, _) = quantized();
    let evaluate = "evaluate int8.weights --data letters";
    let table = place.good(&format!(
        "{evaluate} --confusion --logits logits.safetensors"
    ));
    assert!(table.starts_with(" true \\ predicted"), "{table}");
    for device in ["cpu", "reference"] {
        place.refused(
            &format!("{evaluate} --device {device}"),
            2,
            "int8.weights is an int8 network, which only --device core computes",
        );
    }
    // The logits must be those of the library, bit for bit.
    let bytes = place.read("logits.safetensors");
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let found: Vec<f32> = bytemuck::pod_collect_to_vec(file.tensor("logits").unwrap().data());
    let images: Vec<_> = place.read("letters/t10k-images-idx3-ubyte")[16..]
        .as_chunks::<784>()
        .0
        .iter()
        .map(|&pixels| bytemuck::cast(pixels))
        .collect();
    let logits = Model::load(&place.path("int8.weights"))
        .unwrap()
        .logits(&images);
    assert!(found == logits.as_flattened());

    let predicted = place.good("predict int8.weights --data letters --index 7");
    let exact = place.good("predict run/lenet.weights --data letters --index 7");
    let class = |text: &str| text.trim_end().rsplit(' ').next().unwrap().to_owned();
    assert_eq!(class(&predicted), class(&exact));
}

#[test]
fn compare_takes_both_kinds() {
    let (place, _) = quantized();
    let out = place.good("compare int8.weights int8.weights --data letters");
    assert!(out.ends_with("equal bit for bit\n"), "{out}");
    let out = place
        .good("compare run/lenet.weights int8.weights --data letters --per-layer --tolerance 2");
    assert!(
        out.contains(" conv1 ") && out.ends_with("within 2\n"),
        "{out}"
    );
    place.good("evaluate int8.weights --data letters --logits logits.safetensors");
    let out = place.good("compare int8.weights logits.safetensors --data letters");
    assert!(out.ends_with("equal bit for bit\n"), "{out}");
    let err = place.failed("compare run/lenet.weights int8.weights --data letters", 3);
    assert!(
        err.starts_with("error: run/lenet.weights and int8.weights differ: logits by up to "),
        "{err}"
    );
}

#[test]
fn export_writes_onnx_and_c_and_refuses_a_state_dict() {
    let (place, _) = quantized();
    place.good("export int8.weights --format onnx --out net.onnx");
    let onnx = place.read("net.onnx");
    let has = |word: &str| onnx.windows(word.len()).any(|part| part == word.as_bytes());
    for word in [
        "QuantizeLinear",
        "DequantizeLinear",
        "conv1_weight_scale",
        "quantized from ",
    ] {
        assert!(has(word), "{word}");
    }
    place.good("export int8.weights --format c --out net.h");
    let header = place.text("net.h");
    for part in [
        "static const int8_t lenet_conv1_weight[6][1][5][5] = ",
        "static const int32_t lenet_fc1_limit[120] = ",
        "static const float lenet_fc3_scale[10] = ",
        "static const uint8_t lenet_sigmoid[1024] = ",
        " *     Sigmoid: ",
    ] {
        assert!(header.contains(part), "{part}");
    }
    assert!(!header.contains("lenet_tanh") && !header.contains("Relu"));
    place.refused(
        "export int8.weights --format safetensors --out new",
        2,
        "int8.weights is an int8 network; safetensors is for the f32 network that it was quantized from, as a state_dict has \
         floats. For int8 there are --format onnx and --format c",
    );
    place.refused(
        "export int8.weights --format onnx --out net.h",
        1,
        &format!("net.h: {TAKEN}"),
    );
    // An exported int8 network cannot be imported, because imported parameters are f32.
    let err = place.failed("summary net.onnx", 1);
    assert!(
        err.starts_with("error: net.onnx: the graph does not fit this network: DequantizeLinear "),
        "{err}"
    );
}

#[test]
fn commands_for_f32_only_reject_int8() {
    let (place, _) = quantized();
    let problem = "int8.weights: an int8 network, and this command takes f32: name the weights that it was quantized from";
    for command in [
        "import int8.weights --out new".to_owned(),
        format!("{TRAIN} --init int8.weights --out new"),
    ] {
        place.refused(&command, 1, problem);
    }
}

#[test]
fn report_has_a_section_on_the_integers() {
    let (place, printed) = quantized();
    let without = place.text("run/report.html");
    assert!(!without.contains("8-bit integers"));
    place.good("report run --data letters --int8 int8.weights");
    let with = place.text("run/report.html");
    assert_eq!(
        with.matches("<svg").count(),
        without.matches("<svg").count() + 1
    );
    // The report must contain the numbers that `quantize` printed.
    let mut decibels = printed
        .lines()
        .filter_map(|line| line.trim().strip_prefix("fc2"));
    let decibels = decibels
        .next_back()
        .unwrap()
        .split(' ')
        .next_back()
        .unwrap();
    let kept = printed.split(" of 30 images keep").next().unwrap();
    let kept = kept.lines().next_back().unwrap();
    for part in [
        "<h2>8-bit integers</h2>",
        &format!("<td>fc2</td><td class=\"number\">{decibels}</td>"),
        &format!(": {kept} of 30 test images keep their class"),
        "quantization trains nothing",
    ] {
        assert!(with.contains(part), "{part}");
    }
    place.good("report run --data letters");
    assert!(place.text("run/report.html") == without);

    place.refused(
        "report int8.weights",
        2,
        "int8.weights is a file: a report is of a run, so name the run's folder. For int8 weights add --int8 FILE; for other \
         weights there are trainer evaluate and trainer summary",
    );
    place.refused(
        "report run --data letters --int8 run/lenet.weights",
        1,
        "run/lenet.weights: an f32 network, and --int8 takes the file that trainer quantize made of the f32 weights",
    );
    place.good(&format!("{TRAIN} --max-steps 1 --out other"));
    let err = place.failed("report other --data letters --int8 int8.weights", 1);
    assert!(
        err.starts_with("error: int8.weights: not quantized from the f32 weights, whose parameters have the SHA-256 "),
        "{err}"
    );
    // The folder of a run with int8 weights instead of the f32 weights.
    std::fs::copy(
        place.path("int8.weights"),
        place.path("other/lenet.weights"),
    )
    .unwrap();
    place.refused(
        "report other --data letters",
        1,
        "other/lenet.weights: an int8 network, and this command takes f32: name the weights that it was quantized from",
    );
}

#[test]
fn a_page_contains_the_network_in_f32_or_int8_or_both() {
    let (place, _) = quantized();
    let has = |page: &str| {
        ["f32", "int8"].map(|kind| {
            let parts = ["network", "weights"].map(|part| format!("id=\"live-{part}-{kind}\""));
            let found = parts.map(|part| place.text(page).contains(&part));
            assert_eq!(found[0], found[1], "{page}: {kind}");
            found[0]
        })
    };
    place.good("page run/lenet.weights --data letters --out f32.html");
    assert_eq!(has("f32.html"), [true, false]);
    place.good("page int8.weights --data letters --out int8.html");
    assert_eq!(has("int8.html"), [false, true]);
    place.good("page run/lenet.weights --int8 int8.weights --data letters --out both.html");
    assert_eq!(has("both.html"), [true, true]);
    assert!(place.text("both.html").contains("name=\"live-kind\""));
    assert!(!place.text("f32.html").contains("name=\"live-kind\""));
    place.good("report run --data letters --int8 int8.weights");
    assert_eq!(has("run/report.html"), [true, true]);

    place.refused(
        "page int8.weights --int8 int8.weights --data letters --out none.html",
        1,
        "int8.weights: an int8 network, and --int8 adds one to f32 weights: name the weights that it was quantized from",
    );
    place.refused(
        "page run/lenet.weights --int8 run/lenet.weights --data letters --out none.html",
        1,
        "run/lenet.weights: an f32 network, and --int8 takes the file that trainer quantize made of the f32 weights",
    );
    assert!(!place.path("none.html").exists());
}

/// The path of a firmware image must depend on the number format of the weights.
#[test]
fn device_uses_the_image_for_the_number_format() {
    let (place, _) = quantized();
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    place.refused(
        "device bench --qemu microbit --elf none --weights int8.weights",
        1,
        &format!(
            "none: no such image. Build it: LENET_WEIGHTS={} {} microbit",
            place.path("int8.weights").display(),
            repository.join("firmware/build-all.sh").display()
        ),
    );
}
