//! Selects the description of the network that the crate is built for.
//!
//! `LENET_NETWORK` is the name of a file in `networks/` without its extension, or the path of another file. A relative
//! path starts at the current directory (`PWD`) or, if there is no such file, at the workspace's root.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-env-changed=LENET_NETWORK");
    println!("cargo::rerun-if-changed=build.rs");
    if let Err(message) = run() {
        println!("cargo::error={message}");
    }
}

fn run() -> Result<(), String> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let networks = root.join("networks");
    let wanted = match env::var("LENET_NETWORK") {
        Ok(wanted) if !wanted.is_empty() => wanted,
        Ok(_) | Err(env::VarError::NotPresent) => "lenet".to_owned(),
        Err(env::VarError::NotUnicode(_)) => return Err("LENET_NETWORK is not valid UTF-8".into()),
    };
    let file = find(&networks, &wanted).ok_or_else(|| {
        let mut names: Vec<String> = fs::read_dir(&networks)
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path().file_stem()?.to_str()?.to_owned()))
            .collect();
        names.sort();
        format!(
            "LENET_NETWORK={wanted}: neither a network of {} ({}) nor a file that exists",
            networks.display(),
            names.join(", ")
        )
    })?;
    // `#[path]` accepts only a literal, so the build script writes one.
    let module = format!("#[path = {file:?}]\nmod description;\npub use description::*;\n");
    let to = out.join("network.rs");
    fs::write(&to, module).map_err(|error| format!("{}: {error}", to.display()))
}

/// Returns the absolute path of the description that `wanted` names. Tells cargo to run this script again if the file changes or the
/// name may lead to another one.
fn find(networks: &Path, wanted: &str) -> Option<PathBuf> {
    let shipped = networks.join(format!("{wanted}.rs"));
    if shipped.is_file() {
        println!("cargo::rerun-if-changed={}", shipped.display());
        return fs::canonicalize(shipped).ok();
    }
    // A network of this name may be added there.
    println!("cargo::rerun-if-changed={}", networks.display());
    if Path::new(wanted).is_relative() {
        println!("cargo::rerun-if-env-changed=PWD");
    }
    let from_here = env::var_os("PWD").map(|folder| PathBuf::from(folder).join(wanted));
    let from_root = networks.join("../..").join(wanted);
    from_here
        .into_iter()
        .chain([from_root])
        // If the first file does not exist, cargo runs this script each time, and so notices when the file appears.
        .inspect(|file| println!("cargo::rerun-if-changed={}", file.display()))
        .find(|file| file.is_file())
        .and_then(|file| fs::canonicalize(file).ok())
}
