//! Tests `trainer device` with a board that runs in this process, over reliable and unreliable wires, and with boards in QEMU.

use clap::Parser;
use lenet_core::Numbers;
use lenet_core::link::{
    Bench, Info, MAX_FRAME, Memory, Meter, Receiver, Request, Responder, Scratch, Unit,
};
use lenet_core::network::{
    Activations, CHANNELS, FINGERPRINT, HEIGHT, LAYERS, NAME, Params, TENSORS, WIDTH,
};
use lenet_core::self_test;
use lenet_core::weights::{ClassNames, Metadata};
use lenet_test_support::generate::METADATA;
use lenet_test_support::link::{INFO, Stopped};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;
use trainer::commands::{Cli, run};
use trainer::dataset::{Dataset, FASHION_MNIST_CLASSES, find};
use trainer::device::{Client, DeviceError, Machine, Qemu, Wire, differing};
use trainer::error::Error;
use trainer::evaluate::core_logits;
use trainer::init::initial_params;
use trainer::weights_file::WeightsFile;

// The commands evaluate Fashion-MNIST, and the firmware images are those of the default network.
const _: () = assert!(
    matches!(NAME.as_bytes(), b"lenet"),
    "these tests are for the default network: unset LENET_NETWORK"
);

/// The time-out for every wait, longer than a busy machine needs.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Returns a weights file with the initial parameters of a seed.
fn weights(seed: u64) -> WeightsFile {
    // The class names must be those of the data set, because the commands match classes by name.
    let metadata = Metadata {
        classes: ClassNames::new(&FASHION_MNIST_CLASSES),
        ..METADATA
    };
    WeightsFile::encode(&initial_params(seed), &metadata).expect("they fit")
}

fn saved(folder: &Path, seed: u64) -> PathBuf {
    let path = folder.join(format!("{seed}.weights"));
    weights(seed).save(&path).expect("the folder is writable");
    path
}

/// A clock that advances by the same time with each reading, and a benchmark in which all layers cost the same.
struct Steady(u32);

impl Meter for Steady {
    fn ticks(&mut self) -> u32 {
        self.0 += 1000;
        self.0
    }

    fn bench(&mut self, _: &Params, _: &mut Activations) -> Bench {
        Bench {
            unit: Unit::Ticks,
            layers: [200; LAYERS.len()],
            total: 200 * LAYERS.len() as u32,
        }
    }

    fn memory(&mut self) -> Option<Memory> {
        Some(Memory {
            statics: 10_000,
            stack: 700,
        })
    }
}

/// Returns the initial parameters of seed 1 with a wrong bit in the bias of output 17 of `fc2`. The bias is found by its name,
/// because a field that another network lacks would be a second error of the compiler, besides the sentence above.
fn with_a_wrong_bit() -> Box<Params> {
    let mut params = initial_params(1);
    let tensor = TENSORS.iter().find(|tensor| tensor.name == "fc2_bias");
    let tensor = tensor.expect("the default network has it");
    let bias = &mut params.as_flat_mut()[tensor.offset + 17];
    *bias = f32::from_bits(bias.to_bits() ^ 1 << 22);
    params
}

/// Starts a board in this process that accepts one TCP connection, and returns its address. The board claims to have the
/// parameters of `file`, but computes with `params`.
fn board_at_tcp(file: WeightsFile, params: Box<Params>) -> String {
    named_board_at_tcp("loop", file, params)
}

fn named_board_at_tcp(name: &'static str, file: WeightsFile, params: Box<Params>) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("it is bound").to_string();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("somebody connects");
        let (weights, mut scratch) = (file.weights(), Scratch::new());
        let info = Info::new(&weights, name, "0", 1_000_000);
        let mut board = Responder::new(info, &*params, &mut scratch, Steady(0));
        let (mut receiver, mut out) = (Receiver::new(), [0; MAX_FRAME]);
        let mut bytes = [0; 1024];
        while let Ok(count @ 1..) = stream.read(&mut bytes) {
            for &byte in &bytes[..count] {
                if let Some(received) = receiver.push::<Request>(byte) {
                    let answer = board.answer(received, &mut out);
                    if stream.write_all(answer).is_err() {
                        return;
                    }
                }
            }
        }
    });
    address
}

fn trainer(arguments: &[&str]) -> Result<(), Error> {
    let words = ["trainer", "device"].iter().chain(arguments);
    run(Cli::try_parse_from(words).expect("a sound command line"))
}

#[test]
fn every_command_agrees_with_a_board_that_computes_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = saved(folder.path(), 1);
    let path = path.to_str().unwrap();
    for command in ["info", "evaluate", "bench", "compare"] {
        let address = board_at_tcp(weights(1), initial_params(1));
        let mut arguments = vec![command, "--tcp", &address, "--weights", path];
        if matches!(command, "evaluate" | "compare") {
            arguments.extend(["--images", "20"]);
        }
        trainer(&arguments).unwrap_or_else(|error| panic!("{command}: {error}"));
    }
}

#[test]
fn a_certificate_is_written_and_checked() {
    let folder = tempfile::tempdir().unwrap();
    let path = saved(folder.path(), 1);
    let weights = ["--weights", path.to_str().unwrap()];
    let address = board_at_tcp(self::weights(1), initial_params(1));
    // The folder and the one above it do not exist yet.
    let out = folder.path().join("new/certificates");
    let out = out.to_str().unwrap();
    let certify = ["certify", "--tcp", &address, "--images", "20", "--out", out];
    trainer(&[&certify[..], &weights].concat()).unwrap();
    let files = |extension: &str| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(out).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths
            .filter(|path| path.extension().is_some_and(|end| end == extension))
            .collect()
    };
    let ([json], [page]) = (&files("json")[..], &files("md")[..]) else {
        panic!("two files")
    };
    let check = || {
        trainer(
            &[
                &["certify", "--check", json.to_str().unwrap()],
                &weights[..],
            ]
            .concat(),
        )
    };
    check().unwrap();

    // An existing certificate is not overwritten.
    let address = board_at_tcp(self::weights(1), initial_params(1));
    let again = ["certify", "--tcp", &address, "--images", "20", "--out", out];
    let error = trainer(&[&again[..], &weights].concat()).unwrap_err();
    assert!(error.to_string().contains("already exists"), "{error}");

    let written = [json, page].map(|path| std::fs::read_to_string(path).unwrap());
    let rejected = |path: &Path, from: &str, to: &str, problem: &str| {
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.contains(from), "{from} in {text}");
        std::fs::write(path, text.replacen(from, to, 1)).unwrap();
        let error = check().unwrap_err().to_string();
        assert!(error.contains(problem), "{problem}: {error}");
        std::fs::write(json, &written[0]).unwrap();
        std::fs::write(page, &written[1]).unwrap();
    };
    rejected(
        page,
        "loop",
        "another",
        "does not say what the certificate says",
    );
    rejected(
        json,
        "\"loop\"",
        "\"other\"",
        "the file is not named other-",
    );
    rejected(json, "\"correct\": ", "\"correct\": 1", "are");
    rejected(json, "\"note\"", "\"remark\"", "unknown field `remark`");
    let hash = |text: &str| {
        let (_, rest) = text.split_once("\"host_logits_sha256\": \"").unwrap();
        rest[..64].to_owned()
    };
    let (found, other) = (hash(&written[0]), "0".repeat(64));
    std::fs::write(json, written[0].replace(&found, &other)).unwrap();
    std::fs::write(page, written[1].replace(&found, &other)).unwrap();
    let error = check().unwrap_err();
    assert_eq!(error.exit_code(), 3.into());
    let error = error.to_string();
    assert!(
        error.contains("the host's logits are not those that this machine computes"),
        "{error}"
    );
}

/// The folder of the certificate is ready before the checks, and the name that the board reports does not lead out of it.
#[test]
fn a_certificate_has_the_name_of_its_board_and_stays_in_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = saved(folder.path(), 1);
    let certify = |name: &'static str, out: &Path| {
        let address = named_board_at_tcp(name, weights(1), initial_params(1));
        let mut words = vec!["certify", "--tcp", &address, "--images", "3"];
        words.extend(["--weights", path.to_str().unwrap()]);
        words.extend(["--out", out.to_str().unwrap()]);
        trainer(&words)
    };
    let names = |folder: &Path| {
        let entries = std::fs::read_dir(folder).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    };
    let before = names(folder.path());
    let out = folder.path().join("new/certificates");
    for name in [
        "../x", "/tmp/x", "a/b", "..", ".x", "", "a\\b", "a b", "ä", "A", "a_b",
    ] {
        let error = certify(name, &out).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "the board's name is {name:?}, and the files of its certificate are named after it: expected lower-case letters, \
                 digits and `-`; change the name in the firmware, and flash it again"
            )
        );
        assert_eq!(names(folder.path()), before, "{name}");
    }
    let file = certify("loop", &path).unwrap_err();
    assert!(matches!(file, Error::Exists { .. }), "{file}");
    certify("loop-2", &out).unwrap();
    let [json, page] = &names(&out)[..] else {
        panic!("two files")
    };
    assert!(json.starts_with("loop-2-") && json.ends_with(".json"));
    // Either file is enough to refuse, and nothing is written then.
    for (removed, left) in [(json, page), (page, json)] {
        let text = std::fs::read(out.join(removed)).unwrap();
        std::fs::remove_file(out.join(removed)).unwrap();
        let error = certify("loop-2", &out).unwrap_err();
        let there = out.join(left);
        assert!(
            matches!(&error, Error::Exists { path } if *path == there),
            "{error}"
        );
        assert_eq!(names(&out), [left.as_str()]);
        std::fs::write(out.join(removed), text).unwrap();
    }
}

#[test]
fn a_certificate_with_different_logits_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = saved(folder.path(), 1);
    let address = board_at_tcp(weights(1), with_a_wrong_bit());
    let error = trainer(&[
        "certify",
        "--tcp",
        &address,
        "--images",
        "3",
        "--out",
        folder.path().to_str().unwrap(),
        "--weights",
        path.to_str().unwrap(),
    ])
    .unwrap_err();
    assert_eq!(error.exit_code(), 3.into());
    let error = error.to_string();
    assert!(
        error.contains("3 of 3 images have different logits"),
        "{error}"
    );
    assert!(error.contains("the self-test's logits differ"), "{error}");
}

#[test]
fn different_weights_are_an_error_with_both_hashes() {
    let folder = tempfile::tempdir().unwrap();
    let path = saved(folder.path(), 1);
    for command in ["info", "evaluate", "bench", "compare"] {
        let address = board_at_tcp(weights(2), initial_params(2));
        let arguments = [
            command,
            "--tcp",
            &address,
            "--weights",
            path.to_str().unwrap(),
        ];
        let error = trainer(&arguments).unwrap_err();
        assert!(
            matches!(error, Error::Device(DeviceError::Weights { .. })),
            "{error}"
        );
        assert_eq!(error.exit_code(), 3.into());
        for seed in [1, 2] {
            let file = weights(seed);
            let hash = file.weights().metadata.provenance.params_sha256;
            assert!(
                error.to_string().contains(&trainer::dataset::hex(&hash)),
                "{error}"
            );
        }
    }
}

#[test]
fn a_board_of_another_network_is_named() {
    let params: &Params = Box::leak(initial_params(1));
    for (network, expected) in [
        (
            "other",
            format!(
                "the board runs the network `other`, this program is built for `{NAME}`; build the trainer with \
                 LENET_NETWORK=other (or the path of its description), or flash firmware for `{NAME}`"
            ),
        ),
        (
            NAME,
            format!(
                "the layers of the board's network `{NAME}` are not those of this program's, although the name is the same: the \
                 description has changed since; build the firmware again, and flash it"
            ),
        ),
    ] {
        let mut wire = Direct::new(params);
        let info = Info {
            fingerprint: !FINGERPRINT,
            network,
            ..IDENTITY
        };
        wire.board = Responder::new(info, params, Box::leak(Box::new(Scratch::new())), Stopped);
        let error = Client::connect(wire, "direct", TIMEOUT).err().unwrap();
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn one_wrong_bit_is_found_in_its_layer() {
    let folder = tempfile::tempdir().unwrap();
    let path = saved(folder.path(), 1);
    let params = with_a_wrong_bit();
    let ask = |command: &str, params: Box<Params>| {
        let address = board_at_tcp(weights(1), params);
        let mut words = vec![command, "--tcp", &address, "--images", "3"];
        words.extend(["--weights", path.to_str().unwrap()]);
        trainer(&words).unwrap_err().to_string()
    };
    let error = ask("compare", params.clone());
    let found = "first difference: image 0, layer fc2, element 17, host ";
    assert!(error.starts_with(found), "{error}");
    assert!(error.ends_with(" ulp"), "{error}");
    let error = ask("evaluate", params);
    assert!(
        error.starts_with("3 of 3 images have different logits"),
        "{error}"
    );
}

/// A wire to a board in this process. The board replies at once, so if there is nothing to receive, nothing will come.
struct Direct {
    board: Responder<'static, Stopped>,
    receiver: Receiver,
    answers: VecDeque<u8>,
}

/// The identity of a board that runs this build's network.
const IDENTITY: Info = Info {
    fingerprint: FINGERPRINT,
    network: NAME,
    ..INFO
};

impl Direct {
    fn new(params: &'static Params) -> Self {
        Self {
            board: Responder::new(
                IDENTITY,
                params,
                Box::leak(Box::new(Scratch::new())),
                Stopped,
            ),
            receiver: Receiver::new(),
            answers: VecDeque::new(),
        }
    }
}

impl Wire for Direct {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        for &byte in bytes {
            if let Some(received) = self.receiver.push(byte) {
                self.answers
                    .extend(self.board.answer(received, &mut [0; MAX_FRAME]));
            }
        }
        Ok(())
    }

    fn receive(&mut self, buffer: &mut [u8], _: Duration) -> io::Result<usize> {
        self.answers.read(buffer)
    }
}

/// A wire that damages, truncates or duplicates one of every ten frames, in either direction.
struct Noisy<W> {
    wire: W,
    random: u64,
    frames: u64,
    /// The position of the next victim among the ten frames.
    victim: u64,
    /// The number of damaged, truncated and duplicated frames.
    done: [u32; 3],
    /// The bytes of an incomplete frame.
    coming: Vec<u8>,
    to_host: VecDeque<u8>,
}

impl<W: Wire> Noisy<W> {
    fn new(wire: W, seed: u64) -> Self {
        Self {
            wire,
            random: seed,
            frames: 0,
            victim: 0,
            done: [0; 3],
            coming: Vec::new(),
            to_host: VecDeque::new(),
        }
    }

    /// Returns a random number below `bound` (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
    fn below(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % bound
    }

    /// Returns what arrives of a frame.
    fn pass(&mut self, mut frame: Vec<u8>) -> Vec<u8> {
        if self.frames.is_multiple_of(10) {
            self.victim = self.below(10);
        }
        let hit = self.frames % 10 == self.victim;
        self.frames += 1;
        if hit {
            let kind = self.below(3) as usize;
            self.done[kind] += 1;
            let at = self.below(frame.len() as u64) as usize;
            match kind {
                0 => frame[at] ^= 1 + self.below(255) as u8,
                1 => frame.truncate(at),
                _ => frame.extend_from_within(..),
            }
        }
        frame
    }
}

impl<W: Wire> Wire for Noisy<W> {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let frame = self.pass(bytes.to_vec());
        self.wire.send(&frame)
    }

    fn receive(&mut self, buffer: &mut [u8], patience: Duration) -> io::Result<usize> {
        while self.to_host.is_empty() {
            let mut bytes = [0; 512];
            let count = self.wire.receive(&mut bytes, patience)?;
            if count == 0 {
                return Ok(0);
            }
            for &byte in &bytes[..count] {
                self.coming.push(byte);
                // A frame is between zeros.
                if byte == 0 && self.coming.len() > 1 {
                    let frame = std::mem::take(&mut self.coming);
                    let frame = self.pass(frame);
                    self.to_host.extend(frame);
                }
            }
        }
        self.to_host.read(buffer)
    }
}

/// Lets the board classify the first `count` test images over an unreliable wire, and compares every logit.
fn classify_over_an_unreliable_wire(wire: impl Wire, params: &Params, count: usize) {
    let data = Dataset::load(&find(None).unwrap(), false).unwrap();
    let images = &data.test.images()[..count];
    let mut wire = Noisy::new(wire, 2026);
    // The client takes the wire by value, but its counters are needed afterwards.
    let mut client = Client::connect(Borrowed(&mut wire), "noisy", TIMEOUT).unwrap();
    let logits: Vec<_> = images
        .iter()
        .enumerate()
        .map(|(index, pixels)| {
            let at = format!("image {index}");
            client
                .classify(pixels, &at)
                .unwrap_or_else(|error| panic!("{error}"))
                .logits
        })
        .collect();
    let traffic = client.traffic();
    drop(client);
    assert_eq!(differing(&core_logits(params, images), &logits), [0; 0]);
    assert_eq!(traffic.asked, count as u32);
    let [damaged, cut, doubled] = wire.done;
    println!(
        "{} frames: {damaged} damaged, {cut} cut, {doubled} doubled; {traffic:?}",
        wire.frames
    );
    assert!(u64::from(damaged + cut + doubled) >= wire.frames / 10);
    let least = count as u32 / 50;
    assert!(damaged >= least && cut >= least && doubled >= least);
    assert!(traffic.retried > 0 && traffic.stale > 0);
}

struct Borrowed<'a, W>(&'a mut W);

impl<W: Wire> Wire for Borrowed<'_, W> {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.send(bytes)
    }

    fn receive(&mut self, buffer: &mut [u8], patience: Duration) -> io::Result<usize> {
        self.0.receive(buffer, patience)
    }
}

#[test]
fn every_image_gets_a_reply_over_an_unreliable_wire() {
    let params: &Params = Box::leak(initial_params(1));
    classify_over_an_unreliable_wire(Direct::new(params), params, 500);
}

#[test]
fn a_failing_link_is_reported_with_its_image() {
    /// A wire that carries nothing after a number of frames.
    struct Failing(Direct, u32);

    impl Wire for Failing {
        fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
            self.1 = self.1.saturating_sub(1);
            if self.1 > 0 {
                self.0.send(bytes)
            } else {
                Ok(())
            }
        }

        fn receive(&mut self, buffer: &mut [u8], patience: Duration) -> io::Result<usize> {
            self.0.receive(buffer, patience)
        }
    }

    let wire = Failing(Direct::new(Box::leak(initial_params(1))), 6);
    let mut client = Client::connect(wire, "failing", TIMEOUT).unwrap();
    let pixels = [[[7; WIDTH]; HEIGHT]; CHANNELS];
    let mut ask = |index| client.classify(&pixels, &format!("image {index}"));
    assert!((0..3).all(|index| ask(index).is_ok()));
    let error = ask(3).unwrap_err().to_string();
    assert_eq!(error, "link lost at image 3: no complete reply in 4 tries");
}

#[test]
fn every_layer_can_be_read_from_the_board() {
    let params: &Params = Box::leak(initial_params(3));
    let mut client = Client::connect(Direct::new(params), "direct", TIMEOUT).unwrap();
    let pixels = self_test::pixels();
    let image = client.classify(&pixels, "image 0").unwrap().image;
    let mut act = lenet_core::network::Activations::new();
    lenet_core::network::forward(params, &lenet_core::image::grey(&pixels), &mut act);
    for (layer, values) in act.layers().into_iter().enumerate() {
        let name = LAYERS[layer].name;
        let bits = |values: &[f32]| {
            values
                .iter()
                .map(|value| value.to_bits())
                .collect::<Vec<_>>()
        };
        let arrived = client.layer(image, layer, Numbers::F32, name).unwrap();
        assert_eq!(bits(&arrived), bits(values), "{name}");
    }
    assert!(matches!(
        client.layer(image + 100, 0, Numbers::F32, "another"),
        Err(DeviceError::Refused { .. })
    ));
}

fn evaluate_in_qemu(machine: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = saved(folder.path(), 1);
    let path = path.to_str().unwrap();
    let board = ["--qemu", machine, "--weights", path];
    trainer(&[&["evaluate", "--link", "--images", "50"][..], &board].concat()).unwrap();
    trainer(&[&["evaluate", "--images", "20"][..], &board].concat()).unwrap();
    trainer(&[&["compare", "--images", "2"][..], &board].concat()).unwrap();
    trainer(&[&["info"][..], &board].concat()).unwrap();
    trainer(&[&["bench", "--json"][..], &board].concat()).unwrap();
}

#[test]
#[ignore = "needs qemu-system-arm and the firmware images: see ci.sh"]
fn device_commands_on_an386() {
    evaluate_in_qemu("mps2-an386");
}

#[test]
#[ignore = "needs qemu-system-arm and the firmware images: see ci.sh"]
fn device_commands_on_netduinoplus2() {
    evaluate_in_qemu("netduinoplus2");
}

/// Writes the certificate of an emulated board, which is a rehearsal for a real one.
#[test]
#[ignore = "needs qemu-system-arm and the firmware images: see ci.sh"]
fn a_certificate_is_rehearsed_in_qemu() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    trainer(&[
        "certify",
        "--qemu",
        "mps2-an386",
        "--images",
        "50",
        "--out",
        out,
    ])
    .unwrap();
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "json") {
            trainer(&["certify", "--check", path.to_str().unwrap()]).unwrap();
        }
    }
}

#[test]
#[ignore = "needs qemu-system-arm and the firmware images: see ci.sh"]
fn every_image_gets_a_reply_over_an_unreliable_wire_to_qemu() {
    let file = weights(1);
    let machine = Machine::named("mps2-an386").unwrap();
    let image = machine
        .image("serve", None, Numbers::F32, Path::new("lenet.weights"))
        .unwrap();
    let (_qemu, wire) = Qemu::serve(machine, &image, file.bytes(), TIMEOUT).unwrap();
    classify_over_an_unreliable_wire(wire, file.weights().params, 100);
}
