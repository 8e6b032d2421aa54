//! Puts the eBPF object into the agent; a clone that has not built it yet still compiles, with an empty one.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-env-changed=NLB_EBPF_OBJECT");
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let object = match env::var_os("NLB_EBPF_OBJECT") {
        Some(path) => PathBuf::from(path),
        None => here.join("../target/bpf/nlb.o"),
    };
    println!("cargo::rerun-if-changed={}", object.display());
    let copy = Path::new(&env::var_os("OUT_DIR").expect("cargo sets it")).join("nlb.o");
    let bytes = fs::read(&object).unwrap_or_default();
    fs::write(&copy, bytes).expect("OUT_DIR is writable");
}
