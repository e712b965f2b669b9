//! Selects the board, checks that its memories are large enough, and writes the linker script.
//!
//! The enabled feature names the board. Cargo also needs the `config.toml` in the board's folder
//! (`cargo build --no-default-features --features NAME --config boards/NAME/config.toml`). The image has the kernels for the
//! number format of the weights file. For a board whose runner is QEMU it has no weights, because QEMU loads them at the start.

use lenet_core::weights::numbers;
use std::path::{Path, PathBuf};
use std::{env, fs};

include!("room.rs");

fn main() {
    if let Err(message) = run() {
        println!("cargo::error={message}");
    }
}

fn run() -> Result<(), String> {
    println!("cargo::rustc-check-cfg=cfg(emulated, armv6m, int8)");
    println!("cargo::rerun-if-env-changed=LENET_WEIGHTS");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return Err("the firmware is for bare metal: run cargo inside the folder firmware/".into());
    }

    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let name = selected(&root.join("boards"))?;
    let board = root.join("boards").join(&name);
    let config = read(&board.join("config.toml"))?;
    let memory = read(&board.join("memory.x"))?;
    let emulated = config.contains("qemu.sh");
    let weights = weights_file(&root)?;
    if weights.numbers == Numbers::Int8 {
        println!("cargo::rustc-cfg=int8");
    }
    let extra = if emulated { 0 } else { REAL_BYTES };
    if let Some((region, needed, given)) = too_small(&memory, weights.numbers, extra)? {
        let hint = match weights.numbers {
            Numbers::F32 if too_small(&memory, Numbers::Int8, extra)?.is_none() => {
                "; in int8 the network fits: name a file that `trainer quantize` made by LENET_WEIGHTS=FILE"
            }
            _ => "",
        };
        return Err(format!(
            "{name} is too small for {} in {}: {region} needs {needed} bytes, boards/{name}/memory.x gives {given}{hint}",
            network::NAME,
            weights.numbers
        ));
    }

    let target = env::var("TARGET").expect("cargo sets it");
    if !config.contains(&format!("target = \"{target}\"")) {
        return Err(format!(
            "{name} is not a {target}: build it with --config boards/{name}/config.toml"
        ));
    }
    if target.starts_with("thumbv6m") {
        println!("cargo::rustc-cfg=armv6m");
    }
    let weights_section = if emulated {
        println!("cargo::rustc-cfg=emulated");
        ""
    } else {
        let (Weights { path, len, .. }, most) = (&weights, room(weights.numbers).weights);
        if *len > most {
            return Err(format!(
                "{} has {len} bytes, the board has {most} for weights",
                path.display()
            ));
        }
        println!("cargo::rustc-env=LENET_WEIGHTS_FILE={}", path.display());
        "SECTIONS { .weights ORIGIN(WEIGHTS) : { KEEP(*(.weights)); } > WEIGHTS } INSERT AFTER .uninit;\n"
    };

    println!("cargo::rustc-env=LENET_BOARD={name}");
    // `#[path]` accepts only a literal, so the build script writes one.
    let module = format!(
        "#[path = {:?}]\nmod selected;\npub use selected::Board as Selected;\n",
        board.join("board.rs")
    );
    write(&out.join("board.rs"), &module)?;
    // The stack has its own region below the statics, so that a stack overflow leaves RAM and faults.
    let symbols = "__weights = ORIGIN(WEIGHTS);\n\
        _stack_end = ORIGIN(STACK);\n\
        _stack_start = ORIGIN(STACK) + LENGTH(STACK);\n";
    write(
        &out.join("memory.x"),
        &format!("{memory}\n{symbols}{weights_section}"),
    )?;
    println!("cargo::rustc-link-search={}", out.display());
    println!("cargo::rustc-link-arg-bins=-Tlink.x");
    if !emulated {
        println!("cargo::rustc-link-arg-bins=-Tdefmt.x");
    }
    Ok(())
}

/// Returns the first region of a `memory.x` that is too small for a number format, the bytes that it needs, and those that it has.
fn too_small(
    memory: &str,
    numbers: Numbers,
    extra: u64,
) -> Result<Option<(&str, u64, u64)>, String> {
    let room = room(numbers);
    for (region, needed) in [
        ("FLASH", room.code),
        ("WEIGHTS", room.weights),
        ("RAM", room.statics + extra),
        ("STACK", room.stack),
    ] {
        let given = length(memory, region)
            .ok_or_else(|| format!("memory.x gives no region {region} with LENGTH = nK"))?;
        if given < needed {
            return Ok(Some((region, needed, given)));
        }
    }
    Ok(None)
}

/// The weights file that the image is built for.
struct Weights {
    path: PathBuf,
    len: u64,
    numbers: Numbers,
}

/// Finds the weights file and reads its number format, which selects the kernels even of an image that contains no weights.
fn weights_file(root: &Path) -> Result<Weights, String> {
    let path =
        env::var_os("LENET_WEIGHTS").map_or(root.join("../data/lenet.weights"), PathBuf::from);
    let path = fs::canonicalize(&path).map_err(|error| {
        format!(
            "no weights at {}: {error}; train some (cargo run -p trainer) and set LENET_WEIGHTS=FILE",
            path.display()
        )
    })?;
    println!("cargo::rerun-if-changed={}", path.display());
    if path.to_str().is_none_or(|path| path.contains('\n')) {
        return Err(format!(
            "LENET_WEIGHTS: cargo cannot pass on the path {}; copy the file to one of plain text",
            path.display()
        ));
    }
    let bytes = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(Weights {
        len: bytes.len() as u64,
        // If the file is damaged, the program reports that when it reads the file.
        numbers: numbers(&bytes).unwrap_or(Numbers::F32),
        path,
    })
}

/// Returns the name of the board whose feature is enabled. Exactly one must be.
fn selected(boards: &Path) -> Result<String, String> {
    println!("cargo::rerun-if-changed={}", boards.display());
    let folders = fs::read_dir(boards).map_err(|error| format!("{}: {error}", boards.display()))?;
    let mut names: Vec<String> = folders
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| {
            let feature = name.to_uppercase().replace('-', "_");
            env::var_os(format!("CARGO_FEATURE_{feature}")).is_some()
        })
        .collect();
    names.sort();
    match &names[..] {
        [name] => Ok(name.clone()),
        _ => Err(format!(
            "one board is built at a time, but the features name {} ({}): use \
             --no-default-features --features NAME, where NAME is a folder of firmware/boards",
            names.len(),
            names.join(", ")
        )),
    }
}

fn read(path: &Path) -> Result<String, String> {
    println!("cargo::rerun-if-changed={}", path.display());
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}
