//! A certificate: a record of what a board did, which others can check later.
//!
//! `trainer device certify` writes one as JSON, and a Markdown page with the same content. `firmware/silicon` contains the
//! certificates of real boards.

use super::Traffic;
use crate::dataset::hex;
use crate::error::Error;
use lenet_core::network::{CLASSES, LAYERS, Logits, NAME};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::path::Path;

/// The version of the format that this program writes and reads.
pub const FORMAT: u32 = 1;
/// The smallest number of images in the certificate of a real board.
pub const LEAST_IMAGES: usize = 1000;

/// How the board was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Medium {
    /// A serial port.
    Serial,
    /// A debug probe.
    Probe,
    /// A TCP connection, which may lead to an emulator.
    Tcp,
    /// QEMU.
    Qemu,
}

impl Medium {
    /// Returns whether only a real board can be reached in this way.
    pub fn is_silicon(self) -> bool {
        matches!(self, Self::Serial | Self::Probe)
    }
}

/// A record of what a board did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// [`FORMAT`].
    pub format: u32,
    /// The day, as `YYYY-MM-DD`.
    pub date: String,
    /// The board's name, which is its folder in `firmware/boards`.
    pub board: String,
    /// How it was reached.
    pub medium: Medium,
    /// The owner's remarks, such as the chip's revision.
    pub note: String,
    /// The frequency of its clock.
    pub clock_hz: u32,
    /// The versions of all parts.
    pub versions: Versions,
    /// The weights on the board.
    pub weights: WeightsUsed,
    /// The machine that compared the results.
    pub host: Host,
    /// The power-on self-test.
    pub self_test: SelfTest,
    /// The images that both board and host classified.
    pub images: Images,
    /// The time of one forward pass by the board's clock, in microseconds.
    pub time_us: Time,
    /// The cost of each layer.
    pub cost: Cost,
    /// The memory that the board's program used; `null` if it does not measure this.
    pub memory: Option<MemoryUsed>,
    /// Statistics of the wire.
    pub link: Traffic,
}

/// The versions of all parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Versions {
    /// The board's firmware.
    pub firmware: String,
    /// This program.
    pub trainer: String,
    /// The messages between board and host.
    pub link: u8,
    /// The format of the weights file.
    pub weights_file: u8,
    /// The network's name.
    pub network: String,
}

/// The hashes of the weights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightsUsed {
    /// The checksum of the file.
    pub crc32: String,
    /// The hash of the parameters.
    pub params_sha256: String,
    /// The fingerprint of the network.
    pub fingerprint: String,
}

/// The machine that compared the results.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Its operating system.
    pub os: String,
    /// Its architecture.
    pub arch: String,
}

/// The self-test's logits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SelfTest {
    /// The bits of the logits that the board computed.
    pub logits: Vec<String>,
    /// Whether they equal those in the weights file.
    pub equal: bool,
}

/// The images that both board and host classified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Images {
    /// The data set's name.
    pub dataset: String,
    /// The hash of its test images and labels.
    pub test_sha256: String,
    /// The number of images, the first ones of the test set.
    pub count: usize,
    /// How many of them the board classified correctly.
    pub correct: usize,
    /// The indices of the images with a logit that differs by a bit.
    pub differing: Vec<usize>,
    /// The hash of the board's logits.
    pub board_logits_sha256: String,
    /// The hash of the host's logits.
    pub host_logits_sha256: String,
}

/// Times of one forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Time {
    /// The shortest time.
    pub least: f64,
    /// The average time.
    pub mean: f64,
    /// The longest time.
    pub most: f64,
}

/// The cost of each layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// What is counted.
    pub unit: Unit,
    /// The layers, in order.
    pub layers: Vec<LayerCost>,
    /// The whole forward pass.
    pub forward: u32,
}

/// The cost of one layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerCost {
    /// The layer's name.
    pub name: String,
    /// The count.
    pub count: u32,
}

/// What a cost counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Cycles of the core.
    Cycles,
    /// Ticks of the board's clock.
    Ticks,
    /// Instructions, as QEMU counts them.
    Instructions,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Cycles => "cycles",
            Self::Ticks => "ticks of the clock",
            Self::Instructions => "instructions",
        }
    }
}

/// The memory that a program used, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryUsed {
    /// Statics.
    pub statics: u32,
    /// The largest size of the stack.
    pub stack: u32,
}

/// Returns the hash of logits, as little-endian f32, one image after another.
pub fn logits_sha256(logits: &[Logits]) -> String {
    let mut hash = Sha256::new();
    for logit in logits.as_flattened() {
        hash.update(logit.to_le_bytes());
    }
    hex(&hash.finalize())
}

/// Returns the bits of logits in hexadecimal.
pub fn bits(logits: &Logits) -> Vec<String> {
    logits
        .iter()
        .map(|logit| format!("{:08x}", logit.to_bits()))
        .collect()
}

/// Returns the name of the files of a board's certificate, without their extensions.
pub fn name(board: &str, date: &str) -> String {
    format!("{board}-{date}")
}

/// Returns whether a certificate can have this name of a board.
pub fn is_board_name(board: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !board.is_empty() && board.chars().all(is_plain)
}

impl Certificate {
    /// Reads a certificate from a JSON file.
    ///
    /// # Errors
    /// * `Io`: the file cannot be read
    /// * `Foreign`: the file is not a certificate
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(Error::io("cannot be read", path))?;
        serde_json::from_str(&text).map_err(|error| Error::Foreign {
            path: path.to_owned(),
            problem: format!("not a certificate of `trainer device certify`: {error}"),
        })
    }

    /// Returns the content of the JSON file.
    pub fn json(&self) -> String {
        let json =
            serde_json::to_string_pretty(self).expect("numbers and strings have a JSON form");
        json + "\n"
    }

    /// Returns the name of the files, without their extensions.
    pub fn name(&self) -> String {
        name(&self.board, &self.date)
    }

    /// Returns what is contradictory or missing; nothing if the certificate is sound.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut expect = |holds: bool, problem: String| {
            if !holds {
                problems.push(problem);
            }
        };
        let silicon = self.medium.is_silicon();
        expect(
            self.format == FORMAT,
            format!("format {}, this program reads {FORMAT}", self.format),
        );
        expect(
            self.date.parse::<jiff::civil::Date>().is_ok() && self.date.len() == 10,
            format!("the date is `{}`, not YYYY-MM-DD", self.date),
        );
        expect(
            is_board_name(&self.board),
            format!("`{}` is no name of a board", self.board),
        );
        expect(
            self.versions.network == NAME,
            format!(
                "the network is `{}`, this program is built for `{NAME}`",
                self.versions.network
            ),
        );
        expect(self.clock_hz > 0, "the clock does not advance".to_owned());
        for (what, value, len) in [
            ("weights.crc32", &self.weights.crc32, 8),
            ("weights.params_sha256", &self.weights.params_sha256, 64),
            ("weights.fingerprint", &self.weights.fingerprint, 16),
            ("images.test_sha256", &self.images.test_sha256, 64),
            (
                "images.board_logits_sha256",
                &self.images.board_logits_sha256,
                64,
            ),
            (
                "images.host_logits_sha256",
                &self.images.host_logits_sha256,
                64,
            ),
        ] {
            expect(
                is_hex(value, len),
                format!("{what} is `{value}`, not {len} hexadecimal digits"),
            );
        }
        expect(
            self.self_test.logits.len() == CLASSES
                && self.self_test.logits.iter().all(|bits| is_hex(bits, 8)),
            format!("the self-test does not have {CLASSES} logits of 8 hexadecimal digits"),
        );
        expect(
            self.self_test.equal,
            "the self-test's logits differ from those in the weights file".to_owned(),
        );
        let Images {
            count,
            correct,
            differing,
            ..
        } = &self.images;
        expect(
            differing.is_empty(),
            format!(
                "{} of {count} images have different logits on the host",
                differing.len()
            ),
        );
        expect(
            (self.images.board_logits_sha256 == self.images.host_logits_sha256)
                == differing.is_empty(),
            "the hashes of the logits contradict the list of differing images".to_owned(),
        );
        expect(
            correct <= count,
            format!("{correct} of {count} images are correct"),
        );
        let least = if silicon { LEAST_IMAGES } else { 1 };
        expect(
            *count >= least,
            format!("{count} images, at least {least} are needed"),
        );
        expect(
            self.link.asked as usize >= *count,
            format!("{} requests for {count} images", self.link.asked),
        );
        let Time { least, mean, most } = self.time_us;
        expect(
            0.0 < least && least <= mean && mean <= most,
            format!("times of {least}, {mean} and {most} us are not in order"),
        );
        let names = self.cost.layers.iter().map(|layer| layer.name.as_str());
        expect(
            names.eq(LAYERS.iter().map(|layer| layer.name)),
            "the costs are not those of the network's layers".to_owned(),
        );
        let sum: u64 = self
            .cost
            .layers
            .iter()
            .map(|layer| u64::from(layer.count))
            .sum();
        let forward = u64::from(self.cost.forward);
        expect(
            forward > 0 && sum * 2 > forward && sum < forward * 2,
            format!("the layers cost {sum}, the whole forward pass {forward}"),
        );
        let counted = self.cost.unit != Unit::Instructions;
        expect(
            counted || !silicon,
            "a real board does not count instructions".to_owned(),
        );
        if counted && silicon {
            let us = forward as f64 / f64::from(self.clock_hz) * 1e6;
            expect(
                us > mean * 0.75 && us < mean * 1.25,
                format!(
                    "{forward} {} are {us:.0} us, an image took {mean:.0} us",
                    self.cost.unit.name()
                ),
            );
        }
        expect(
            self.memory
                .is_none_or(|memory| memory.statics > 0 && memory.stack > 0),
            "the program used no memory".to_owned(),
        );
        expect(
            self.memory.is_some() || !silicon,
            "the memory used is missing: the board's firmware is too old".to_owned(),
        );
        problems
    }

    /// Returns the Markdown page with the same content.
    pub fn page(&self) -> String {
        let mut page = String::new();
        // Writing to a string does not fail.
        self.write_page(&mut page).expect("a string takes all");
        page
    }

    fn write_page(&self, page: &mut String) -> std::fmt::Result {
        let Images {
            dataset,
            count,
            correct,
            differing,
            ..
        } = &self.images;
        let through = match self.medium {
            Medium::Serial => "a serial port",
            Medium::Probe => "a debug probe",
            Medium::Tcp => "a TCP connection",
            Medium::Qemu => "QEMU",
        };
        let kind = match self.medium.is_silicon() {
            true => "ran on silicon",
            false => "was rehearsed without silicon",
        };
        writeln!(page, "# `{}` on {}\n", self.board, self.date)?;
        writeln!(
            page,
            "The board {kind}, reached through {through}. {} of {count} images have the host's logits bit for bit, and the \
             self-test {}.\n",
            count - differing.len().min(*count),
            if self.self_test.equal {
                "passed"
            } else {
                "failed"
            }
        )?;
        if !self.note.is_empty() {
            writeln!(page, "{}\n", self.note)?;
        }
        writeln!(page, "| | |\n|---|---|")?;
        let Time { least, mean, most } = self.time_us;
        let mut row = |name: &str, value: String| writeln!(page, "| {name} | {value} |");
        row("clock", format!("{} MHz", f64::from(self.clock_hz) / 1e6))?;
        row(
            "accuracy",
            format!("{correct} of {count} images of {dataset}"),
        )?;
        row(
            "one forward pass",
            format!("{mean:.1} us ({least:.1} to {most:.1})"),
        )?;
        if let Some(MemoryUsed { statics, stack }) = self.memory {
            row(
                "memory",
                format!("{statics} bytes of statics, {stack} bytes of stack"),
            )?;
        }
        let versions = &self.versions;
        row(
            "versions",
            format!(
                "firmware {}, trainer {}, link {}, weights file {}",
                versions.firmware, versions.trainer, versions.link, versions.weights_file
            ),
        )?;
        row(
            "network",
            format!(
                "{}, fingerprint {}",
                versions.network, self.weights.fingerprint
            ),
        )?;
        row(
            "weights",
            format!(
                "file {}, parameters {}",
                self.weights.crc32, self.weights.params_sha256
            ),
        )?;
        row("logits", self.images.board_logits_sha256.clone())?;
        row("host", format!("{} {}", self.host.os, self.host.arch))?;
        row(
            "link",
            format!(
                "{} requests, {} repeated",
                self.link.asked, self.link.retried
            ),
        )?;
        writeln!(page, "\n| layer | {} |\n|---|---|", self.cost.unit.name())?;
        for LayerCost { name, count } in &self.cost.layers {
            writeln!(page, "| {name} | {count} |")?;
        }
        writeln!(page, "| `forward` | {} |", self.cost.forward)
    }
}

fn is_hex(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound() -> Certificate {
        let hash = "0123456789abcdef".repeat(4);
        Certificate {
            format: FORMAT,
            date: "2026-11-29".to_owned(),
            board: "pico".to_owned(),
            medium: Medium::Serial,
            note: "RP2040 B2".to_owned(),
            clock_hz: 125_000_000,
            versions: Versions {
                firmware: "0.1.0".to_owned(),
                trainer: "0.1.0".to_owned(),
                link: 2,
                weights_file: 2,
                network: NAME.to_owned(),
            },
            weights: WeightsUsed {
                crc32: "01234567".to_owned(),
                params_sha256: hash.clone(),
                fingerprint: "0123456789abcdef".to_owned(),
            },
            host: Host {
                os: "linux".to_owned(),
                arch: "x86_64".to_owned(),
            },
            self_test: SelfTest {
                logits: vec!["3f800000".to_owned(); CLASSES],
                equal: true,
            },
            images: Images {
                dataset: "fashion-mnist".to_owned(),
                test_sha256: hash.clone(),
                count: 1000,
                correct: 903,
                differing: Vec::new(),
                board_logits_sha256: hash.clone(),
                host_logits_sha256: hash,
            },
            time_us: Time {
                least: 700_000.0,
                mean: 720_000.0,
                most: 760_000.5,
            },
            cost: Cost {
                unit: Unit::Cycles,
                layers: LAYERS
                    .iter()
                    .map(|layer| LayerCost {
                        name: layer.name.to_owned(),
                        count: 90_000_000 / LAYERS.len() as u32,
                    })
                    .collect(),
                forward: 90_000_000,
            },
            memory: Some(MemoryUsed {
                statics: 17_240,
                stack: 1_000,
            }),
            link: Traffic {
                asked: 1003,
                ..Traffic::default()
            },
        }
    }

    #[test]
    fn a_sound_certificate_has_no_problem_and_reads_back() {
        let certificate = sound();
        assert_eq!(certificate.problems(), [""; 0]);
        let read: Certificate = serde_json::from_str(&certificate.json()).unwrap();
        assert_eq!(read, certificate);
        assert!(certificate.page().contains("ran on silicon"));
    }

    #[test]
    fn each_contradiction_is_named() {
        type Damage = fn(&mut Certificate);
        let cases: [(&str, Damage); 18] = [
            ("format 2", |c| c.format = 2),
            ("the date is `29.11.2026`", |c| c.date = "29.11.2026".into()),
            ("no name of a board", |c| c.board = "../pico".into()),
            ("the network is `other`", |c| {
                c.versions.network = "other".into()
            }),
            ("the clock does not advance", |c| c.clock_hz = 0),
            ("weights.crc32", |c| c.weights.crc32.push('0')),
            ("images.board_logits_sha256", |c| {
                c.images.board_logits_sha256.clear()
            }),
            ("the self-test does not have", |c| {
                c.self_test.logits.pop();
            }),
            ("the self-test's logits differ", |c| {
                c.self_test.equal = false
            }),
            ("1 of 1000 images have different logits", |c| {
                c.images.differing.push(7)
            }),
            ("1001 of 1000 images are correct", |c| {
                c.images.correct = 1001
            }),
            ("999 images, at least 1000", |c| c.images.count = 999),
            ("999 requests for 1000 images", |c| c.link.asked = 999),
            ("are not in order", |c| c.time_us.least = 800_000.0),
            ("not those of the network's layers", |c| {
                match LAYERS.len() {
                    1 => c.cost.layers.clear(),
                    _ => c.cost.layers.swap(0, 1),
                }
            }),
            ("the whole forward pass 1000000000", |c| {
                c.cost.forward = 1_000_000_000
            }),
            ("does not count instructions", |c| {
                c.cost.unit = Unit::Instructions
            }),
            ("the memory used is missing", |c| c.memory = None),
        ];
        for (expected, damage) in cases {
            let mut certificate = sound();
            damage(&mut certificate);
            let problems = certificate.problems();
            assert!(
                problems.iter().any(|problem| problem.contains(expected)),
                "{expected}: {problems:?}"
            );
        }
    }

    #[test]
    fn a_certificate_of_an_emulator_needs_fewer_images() {
        let mut certificate = sound();
        certificate.medium = Medium::Qemu;
        certificate.cost.unit = Unit::Instructions;
        certificate.images.count = 20;
        certificate.images.correct = 17;
        assert_eq!(certificate.problems(), [""; 0]);
        assert!(certificate.page().contains("was rehearsed without silicon"));
    }
}
