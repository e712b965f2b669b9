//! Tests `trainer device` if no board replies: there is no board, it is silent, or QEMU is missing, fails, is killed or hangs. Also
//! tests what the commands print about a board that replies. `tests/tests/device.rs` has the other tests with such boards.

use crate::classes::{LEARN, NAMES, REVERSED, other};
use crate::place::{Place, outcome};
use lenet_core::link::{
    Bench, Info, MAX_FRAME, Meter, Receiver, Request, Responder, Scratch, Unit,
};
use lenet_core::network::{Activations, FINGERPRINT, LAYERS, Params};
use lenet_core::weights::VERSION;
use serialport::{SerialPort, TTYPort};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use trainer::weights_file::WeightsFile;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The images must be built in the folder in which `device --qemu` looks for them, even if the environment names another one. The
/// settings of the board cannot ensure this, because the environment takes precedence over them.
#[test]
fn the_firmware_is_built_in_the_folder_that_is_searched() {
    let place = Place::new();
    std::fs::create_dir(place.path("bin")).unwrap();
    place.program("bin/cargo", "pwd; for word; do echo \"$word\"; done");
    let mut build = Command::new(root().join("firmware/build-all.sh"));
    let path = format!("{}:/usr/bin:/bin", place.path("bin").display());
    build.arg("mps2-an386").env("PATH", path);
    let output = build.env("CARGO_TARGET_DIR", "elsewhere").output().unwrap();
    let (code, out, err) = outcome(output);
    assert_eq!((code, err.as_str()), (0, ""));
    let lines: Vec<&str> = out.lines().collect();
    let at = lines.iter().position(|line| *line == "--target-dir");
    // The working directory is printed after the name of the board.
    let folder = Path::new(lines[1]).join(lines[at.unwrap() + 1]);
    let wanted = root().join("target/firmware/mps2-an386");
    assert_eq!(
        folder,
        root().join("firmware/../target/firmware/mps2-an386")
    );
    let machine = trainer::device::Machine::named("mps2-an386").unwrap();
    let missing = machine
        .image(
            "no-such-program",
            None,
            lenet_core::Numbers::F32,
            Path::new("lenet.weights"),
        )
        .unwrap_err();
    assert!(
        missing.to_string().starts_with(wanted.to_str().unwrap()),
        "{missing}"
    );
}

/// A plain `cargo build` in the folder of the firmware must use the settings of a release, or it does not link.
#[test]
fn a_plain_build_of_the_firmware_has_the_settings_of_a_release() {
    let config = std::fs::read_to_string(root().join("firmware/.cargo/config.toml")).unwrap();
    let config: toml::Table = config.parse().unwrap();
    let profile = |name: &str| config["profile"][name].as_table().unwrap().clone();
    let (mut dev, mut release) = (profile("dev"), profile("release"));
    // Settings of cargo's own release profile that the workspace's development profile lacks.
    release["package"].as_table_mut().unwrap().insert(
        "*".to_owned(),
        toml::toml! { opt-level = 3
        debug = true }
        .into(),
    );
    for (key, value) in toml::toml! {
        opt-level = 3
        debug-assertions = false
        overflow-checks = false
        incremental = false
    } {
        release.insert(key, value);
    }
    let packages = dev.remove("package").unwrap();
    assert_eq!(packages, release.remove("package").unwrap());
    assert_eq!(dev, release);
}

#[test]
fn missing_things_are_named_with_the_remedy() {
    let place = Place::new();
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = closed.local_addr().unwrap();
    drop(closed);
    let build = |board| {
        let script = root().join("firmware/build-all.sh");
        format!(
            "none: no such image. Build it: {} {board}",
            script.display()
        )
    };
    for (arguments, sentence) in [
        (
            format!("info --tcp {address}"),
            format!("{address}: Connection refused (os error 111)"),
        ),
        (
            "info --port letters/train-labels-idx1-ubyte".to_owned(),
            "letters/train-labels-idx1-ubyte: Not a typewriter; it is not a serial port".to_owned(),
        ),
        (
            "info --port none".to_owned(),
            "none: No such file or directory; is the board plugged in?".to_owned(),
        ),
        ("info --qemu --elf none".to_owned(), build("mps2-an386")),
        (
            "evaluate --data letters --ignore-class-names --qemu microbit --elf none".to_owned(),
            build("microbit"),
        ),
        (
            "bench --qemu mps2-an505 --elf none".to_owned(),
            build("mps2-an505"),
        ),
    ] {
        place.refused(&format!("device {arguments}"), 1, &sentence);
    }
    let (_board, port) = TTYPort::pair().unwrap();
    let taken = port.name().unwrap();
    drop(port);
    let _open = serialport::new(&taken, 115_200).open().unwrap();
    let err = place.failed(&format!("device info --port {taken}"), 1);
    assert!(err.starts_with(&format!("error: {taken}: ")), "{err}");
    let hint = "; another program has it open, such as a terminal or ModemManager\n";
    assert!(err.ends_with(hint), "{err}");
    place.unusable(
        "device info --qemu arduino",
        "invalid value 'arduino' for '--qemu [<MACHINE>]': the firmware knows mps2-an386, mps2-an500, mps2-an505, \
         netduinoplus2, microbit, stm32vldiscovery",
    );
    place.unusable(
        "device info --port none --elf none",
        "the argument '--port <PATH>' cannot be used with '--elf <FILE>'",
    );
    place.unusable(
        "device certify --qemu --elf elf --out certificates",
        "invalid value 'elf' for '--elf <FILE>': certify runs two programs, `serve` and `bench`: omit --elf; certify uses the \
         programs that firmware/build-all.sh built",
    );
    assert!(!place.good("device certify --help").contains("--elf"));
    place.unusable(
        "device certify --check certificate.json --json",
        "the argument '--check <FILE>...' cannot be used with '--json'",
    );
    place.unusable(
        "device info --port none --timeout 0",
        "invalid value '0' for '--timeout <SECONDS>': 0 is not in 1..=3600",
    );
    place.unusable(
        "device info",
        "the following required arguments were not provided:",
    );
    place.refused(
        "device evaluate --data letters --ignore-class-names --qemu --images 31",
        2,
        "--images 31: the data set has 30 test images",
    );
}

/// The test provides an emulator that prints a line and ends, which every command must report.
#[test]
fn an_emulator_that_is_missing_fails_or_dies_is_an_error() {
    let place = Place::new();
    place.write("elf", b"");
    std::fs::create_dir(place.path("bin")).unwrap();
    let missing = "qemu-system-arm not found (Debian: apt install qemu-system-arm)";
    for (script, sentence) in [
        (None, missing.to_owned()),
        (
            Some("echo unsupported machine type >&2; exit 1"),
            "mps2-an386: failed with exit code 1; its last line: unsupported machine type"
                .to_owned(),
        ),
        (
            Some("echo hello"),
            "mps2-an386: ended without `ok`; its last line: hello".to_owned(),
        ),
        (
            Some("kill -KILL $$"),
            "mps2-an386: QEMU died: signal: 9 (SIGKILL); its last line: nothing".to_owned(),
        ),
    ] {
        if let Some(script) = script {
            place.program("bin/qemu-system-arm", script);
        }
        for question in [
            "info",
            "bench",
            "evaluate --data letters --ignore-class-names --images 1",
        ] {
            let mut command = place.command(&format!("device {question} --qemu --elf elf"));
            let output = command.env("PATH", place.path("bin")).output().unwrap();
            let err = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(1), "{question}: {err}");
            assert_eq!(err, format!("error: {sentence}\n"), "{question}");
        }
    }
}

/// The test provides an emulator that stops itself before it does anything.
#[test]
fn an_emulator_that_hangs_is_killed_after_the_time_out() {
    let place = Place::new();
    place.write("elf", b"");
    std::fs::create_dir(place.path("bin")).unwrap();
    place.program("bin/qemu-system-arm", "echo $$ >${0%/*}/pid; kill -STOP $$");
    for (question, missing) in [
        ("info", "serial port"),
        ("bench", "result"),
        (
            "evaluate --data letters --ignore-class-names --images 1",
            "result",
        ),
    ] {
        let mut command = place.command(&format!("device {question} --qemu --elf elf --timeout 1"));
        let output = command.env("PATH", place.path("bin")).output().unwrap();
        let (code, out, err) = outcome(output);
        assert_eq!(
            err,
            format!(
                "error: mps2-an386: no {missing} in 1 s: it hangs, or needs longer (--timeout); its last line: nothing\n"
            )
        );
        assert_eq!((code, out.as_str()), (1, ""), "{question}");
        // Signal 0 only checks whether the process exists.
        let pid = place.text("bin/pid");
        let kill = Command::new("kill").args(["-0", pid.trim()]).output();
        assert!(!kill.unwrap().status.success(), "{question}: {pid}");
    }
}

/// Accepts one connection and replies like a board with this weights file.
fn answer(listener: &TcpListener, file: &WeightsFile) {
    /// A clock that advances by the same time with each reading. All layers cost the same.
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
    }
    let (mut stream, _) = listener.accept().unwrap();
    let (weights, mut scratch) = (file.weights(), Scratch::new());
    let info = Info::new(&weights, "loop", "0", 1_000_000);
    let mut board = Responder::new(info, weights.params, &mut scratch, Steady(0));
    let (mut receiver, mut out) = (Receiver::new(), [0; MAX_FRAME]);
    let mut bytes = [0; 1024];
    while let Ok(count @ 1..) = stream.read(&mut bytes) {
        for &byte in &bytes[..count] {
            if let Some(received) = receiver.push::<Request>(byte) {
                stream.write_all(board.answer(received, &mut out)).unwrap();
            }
        }
    }
}

#[test]
fn info_prints_what_a_board_reports() {
    let place = Place::new();
    place.good("--data letters --batch-size 32 --max-steps 1 --out run");
    let file = WeightsFile::load(&place.path("run/lenet.weights")).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let out = std::thread::scope(|scope| {
        scope.spawn(|| answer(&listener, &file));
        place.good(&format!("device info --tcp {address}"))
    });
    let weights = file.weights();
    assert_eq!(
        out,
        format!(
            "loop, firmware 0, 1 MHz\nweights file {:08x}, format {VERSION}, network fingerprint {FINGERPRINT:016x}\nparameters {}\n",
            weights.crc,
            trainer::dataset::hex(&weights.metadata.provenance.params_sha256)
        )
    );
}

/// Files with the same parameters may differ in their metadata, so the class names on the board may be other ones.
#[test]
fn other_metadata_for_the_same_parameters_gives_a_warning() {
    let place = Place::new();
    let data = "--data letters --batch-size 32 --max-steps 1";
    place.good(&format!("{data} --out numbers"));
    place.write("letters/classes.txt", b"a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n");
    place.good(&format!("{data} --out names"));
    for (on_board, says) in [
        ("names", String::new()),
        (
            "numbers",
            "warning: the board's weights file has the parameters of names/lenet.weights, but describes them otherwise: the \
             names of its classes may be other ones\n"
                .to_owned(),
        ),
    ] {
        let file = WeightsFile::load(&place.path(on_board).join("lenet.weights")).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (code, out, err) = std::thread::scope(|scope| {
            scope.spawn(|| answer(&listener, &file));
            place.run(&format!(
                "device evaluate --tcp {address} --data letters --weights names/lenet.weights --images 3"
            ))
        });
        assert_eq!((code, err.as_str()), (0, says.as_str()), "{out}");
        assert!(out.contains("3 of 3 logit vectors equal bit for bit"), "{out}");
    }
}

/// Without the weights or the data set, a certificate is checked for consistency only. But files that the user names must be there.
#[test]
fn a_certificate_is_checked_with_or_without_its_weights() {
    let place = Place::new();
    place.good("--data letters --batch-size 32 --max-steps 1 --out run");
    let file = WeightsFile::load(&place.path("run/lenet.weights")).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let named = "--data letters --weights run/lenet.weights";
    let (code, _, err) = std::thread::scope(|scope| {
        scope.spawn(|| answer(&listener, &file));
        place.run(&format!(
            "device certify --tcp {address} {named} --images 3 --out certificates"
        ))
    });
    assert_eq!((code, err.as_str()), (0, ""));
    let names = place.list("certificates");
    let [json, page] = [0, 1].map(|index| format!("certificates/{}", names[index]));
    let check = format!("device certify --check {json}");
    let again = "; the logits were computed again\n";
    let out = place.good(&format!("{check} {named}"));
    assert!(out.ends_with(again), "{out}");

    // The default files are broken, and so are not those of the certificate.
    std::fs::create_dir_all(place.path("data/fashion-mnist")).unwrap();
    place.write("data/lenet.weights", b"no weights");
    for name in place.list("letters") {
        place.write(&format!("data/fashion-mnist/{name}"), b"no images");
    }
    for files in ["", "--data letters", "--weights run/lenet.weights"] {
        let out = place.good(&format!("{check} {files}"));
        let not_again = "; the logits were not computed again, as these weights or this data set are not here\n";
        assert!(out.ends_with(not_again), "{files}: {out}");
    }
    for (files, problem) in [
        ("--weights none", "none: cannot be read: No such file"),
        ("--weights data/lenet.weights", "data/lenet.weights: "),
        (
            "--weights run/lenet.weights --data none",
            "none: no such folder",
        ),
    ] {
        let err = place.failed(&format!("{check} {files}"), 1);
        assert!(err.starts_with(&format!("error: {problem}")), "{err}");
    }

    // A difference is an error of its own exit code, a certificate without a sound page is not.
    let hash = |text: &str| {
        let (_, rest) = text.split_once("\"host_logits_sha256\": \"").unwrap();
        rest[..64].to_owned()
    };
    let (found, other) = (hash(&place.text(&json)), "0".repeat(64));
    for path in [&json, &page] {
        place.write(path, place.text(path).replace(&found, &other).as_bytes());
    }
    place.refused(
        &format!("{check} {named}"),
        3,
        &format!("{json}: the host's logits are not those that this machine computes"),
    );
    place.write(&page, b"another page");
    place.refused(
        &check,
        1,
        &format!("{json}: {page} does not say what the certificate says"),
    );
}

/// The labels of the data must be those of the weights' outputs, for a certificate as for an evaluation.
#[test]
fn a_certificate_counts_correct_images_by_the_names_of_their_classes() {
    let place = Place::new();
    other(&place, "named", &NAMES, |label| label);
    other(&place, "moved", &REVERSED, |label| 9 - label);
    place.good(&format!("{LEARN} --data named --out run"));
    let file = WeightsFile::load(&place.path("run/lenet.weights")).unwrap();
    let options = "--weights run/lenet.weights --images 30";
    let moved = "note: run/lenet.weights has its classes in another order than moved: they are matched by their names\n";
    let correct = |data: &str, options: &str, says: &str, out: &str| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let certify =
            format!("device certify --tcp {address} --data {data} {options} --out {out} --json");
        let (code, json, err) = std::thread::scope(|scope| {
            scope.spawn(|| answer(&listener, &file));
            place.run(&certify)
        });
        assert_eq!((code, err.as_str()), (0, says), "{data}");
        let certificate: serde_json::Value = serde_json::from_str(&json).unwrap();
        let images = &certificate["images"];
        (
            images["correct"].as_u64().unwrap(),
            images["test_sha256"].clone(),
        )
    };
    let (expected, _) = correct("named", options, "", "named-out");
    assert!(expected > 27, "{expected}");
    let (by_name, hash) = correct("moved", options, moved, "moved-out");
    assert_eq!(by_name, expected);
    // The hash is that of the data set, however its classes are matched.
    let by_number = format!("{options} --ignore-class-names");
    let counted = correct("moved", &by_number, "", "wrong-out");
    assert_eq!(counted, (0, hash));

    // The check counts again, in the same way.
    for (data, options, out, says) in [
        ("named", "", "named-out", ""),
        ("moved", "", "moved-out", moved),
        ("moved", "--ignore-class-names", "wrong-out", ""),
    ] {
        let names = place.list(out);
        let json = names.iter().find(|name| name.ends_with(".json")).unwrap();
        let check = format!(
            "device certify --check {out}/{json} --weights run/lenet.weights --data {data} {options}"
        );
        let (code, sound, err) = place.run(&check);
        assert_eq!((code, err.as_str()), (0, says), "{sound}");
        let again = "; the logits were computed again\n";
        assert!(sound.ends_with(again), "{sound}");
    }
}

/// A serial port from which bytes arrive that contain no reply.
#[test]
fn bytes_without_a_reply_are_distinguished_from_silence() {
    let place = Place::new();
    type Other = fn(&mut TTYPort);
    let chatter: Other = |port| {
        let _ = port.write_all(b"boot: hello\r\n\0\xff");
        std::thread::sleep(Duration::from_millis(20));
    };
    let echo: Other = |port| {
        let mut bytes = [0; 256];
        if let Ok(count) = port.read(&mut bytes) {
            let _ = port.write_all(&bytes[..count]);
        }
    };
    for (act, begins, hint) in [
        (
            chatter,
            r"boot: hello\r\n\x00\xffb",
            "Does the board run `serve`, and does --baud say its rate?",
        ),
        (
            echo,
            r"\x00",
            "They are this program's own requests: the port echoes them, because its two lines are connected, or because another \
             program passes them back",
        ),
    ] {
        let (mut board, port) = TTYPort::pair().unwrap();
        let wire = port.name().unwrap();
        let ended = AtomicBool::new(false);
        let err = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    act(&mut board);
                }
            });
            let err = place.failed(&format!("device info --port {wire} --timeout 2"), 1);
            ended.store(true, Ordering::Relaxed);
            err
        });
        let rest = err.strip_prefix(&format!("error: {wire}: ")).unwrap();
        let (bytes, rest) = rest
            .split_once(" bytes received in 2 s, but no reply: ")
            .unwrap();
        assert!(bytes.replace(',', "").parse::<u32>().unwrap() > 16, "{err}");
        assert!(
            rest.starts_with(&format!("they begin with \"{begins}")),
            "{err}"
        );
        assert!(rest.ends_with(&format!("\". {hint}\n")), "{err}");
    }
    place.unusable(
        "device info --port none --baud 0",
        "invalid value '0' for '--baud <N>': 0 is not in 50..=50000000",
    );
}

/// The connection exists, but nobody reads from it.
#[test]
fn a_silent_wire_is_abandoned_after_the_time_out() {
    let place = Place::new();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (_board, port) = TTYPort::pair().unwrap();
    let port = port.name().unwrap();
    for (option, wire) in [("--tcp", address), ("--port", port)] {
        for question in ["info", "bench"] {
            place.refused(
                &format!("device {question} {option} {wire} --timeout 1"),
                1,
                &format!(
                    "{wire}: no answer in 1 s. Does the board run `serve`, and does nobody else use the wire? \
                     If it is slow, give it longer with --timeout"
                ),
            );
        }
    }
}

/// Whatever ends the program, even a signal that it cannot catch, the emulator must be killed and its folder removed.
#[test]
fn an_emulator_does_not_outlive_the_program() {
    use std::os::unix::process::ExitStatusExt;
    let place = Place::new();
    place.write("elf", b"");
    std::fs::create_dir(place.path("bin")).unwrap();
    std::fs::create_dir(place.path("tmp")).unwrap();
    place.program(
        "bin/qemu-system-arm",
        "echo $$ >${0%/*}/new; /bin/mv ${0%/*}/new ${0%/*}/pid; exec /bin/sleep 600",
    );
    for (name, number) in [
        ("KILL", 9),
        ("INT", 2),
        ("TERM", 15),
        ("HUP", 1),
        ("QUIT", 3),
    ] {
        for question in [
            "info",
            "bench",
            "evaluate --data letters --ignore-class-names --images 1",
        ] {
            let ask = format!("device {question} --qemu --elf elf");
            let mut child = place
                .with_signals(&["--default-signal"], &ask)
                .env(
                    "PATH",
                    format!("{}:/usr/bin:/bin", place.path("bin").display()),
                )
                .env("TMPDIR", place.path("tmp"))
                .spawn()
                .unwrap();
            let pid = place.path("bin/pid");
            wait_until("the emulator runs", || pid.exists());
            let emulator = place.text("bin/pid").trim().to_owned();
            let id = child.id().to_string();
            let kill = Command::new("kill").args(["-s", name, &id]).status();
            assert!(kill.unwrap().success());
            assert_eq!(child.wait().unwrap().signal(), Some(number), "{question}");
            wait_until("the emulator and its folder are gone", || {
                // A killed process may be a zombie for a while.
                let state = std::fs::read_to_string(format!("/proc/{emulator}/stat"));
                let runs = state.is_ok_and(|state| !state.contains(") Z "));
                !runs && place.list("tmp").is_empty()
            });
            std::fs::remove_file(pid).unwrap();
        }
    }
}

/// Waits until the condition holds, at most much longer than a busy machine needs.
fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(120), "not so: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
