//! The distribution's packages: what is missing, and installing it.

use anyhow::{Context, Result, bail};

use crate::command::{command, find, is_root, output, run};

/// LLVM's major version: no older than the one inside rustc, and one that bpf-linker knows.
pub(crate) const LLVM: u32 = 22;

/// A package, and the file or program that shows that it is there when dpkg is not.
struct Package {
    name: &'static str,
    shown_by: &'static str,
    why: &'static str,
}

const fn package(name: &'static str, shown_by: &'static str, why: &'static str) -> Package {
    Package { name, shown_by, why }
}

/// Names as Debian 12 and Ubuntu have them.
const PACKAGES: &[Package] = &[
    package("build-essential", "cc", "links Rust programs"),
    package("make", "make", "builds the OpenSSL of the health checks"),
    // `perl` itself may be the small one of perl-base, which lacks modules that OpenSSL's Configure uses.
    package("perl", "corelist", "configures the OpenSSL of the health checks"),
    package("llvm-22-dev", "/usr/lib/llvm-22/bin/llvm-config", "bpf-linker is built on it"),
    package("llvm-22", "/usr/lib/llvm-22/bin/llvm-strip", "strips the eBPF object"),
    package("zlib1g-dev", "/usr/include/zlib.h", "LLVM needs it to link"),
    package("libzstd-dev", "/usr/include/zstd.h", "LLVM needs it to link"),
    package("iproute2", "ip", "network namespaces"),
    package("ethtool", "ethtool", "offloads in the tests"),
    package("procps", "sysctl", "forwarding in the tests' namespaces"),
    package("util-linux", "nsenter", "programs in namespaces"),
    package("nftables", "nft", "comparison and preflight tests"),
    package("bpftool", "bpftool", "shows the maps"),
    package("nginx-light", "nginx", "real web servers in the pods"),
    package("curl", "curl", "a real client"),
    package("iperf3", "iperf3", "bulk traffic"),
    package("wrk", "wrk", "load for the bench"),
    package("haproxy", "haproxy", "comparison in the bench"),
    package("tmux", "tmux", "tests of the terminal view"),
    package("qemu-system-x86", "qemu-system-x86_64", "boots another kernel in the tests"),
    package("busybox-static", "busybox", "the other kernel's first programs"),
];

/// Installs what is missing; not root, or no apt: an error that says what to install.
pub(crate) fn install() -> Result<()> {
    let missing: Vec<&Package> = PACKAGES.iter().filter(|package| !is_installed(package)).collect();
    if missing.is_empty() {
        println!("  have  {} packages", PACKAGES.len());
        return Ok(());
    }
    for package in &missing {
        println!("  need  {:<16} {}", package.name, package.why);
    }
    let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
    if find("apt-get").is_none() {
        bail!(
            "this machine has no apt-get; install what these Debian packages are called here: {}",
            names.join(" ")
        );
    }
    if !is_root() {
        bail!(
            "run as root:\n  apt-get update && apt-get install --no-install-recommends {}",
            names.join(" ")
        );
    }
    install_with_apt(&names)?;
    println!("  done  installed {}", names.join(" "));
    Ok(())
}

fn install_with_apt(names: &[&str]) -> Result<()> {
    if names.iter().any(|name| !has_candidate(name)) {
        println!("  ....  apt-get update");
        run(&mut apt(&["update", "-qq"]))?;
    }
    if let Some(name) = names.iter().find(|name| !has_candidate(name)) {
        bail!("{}", absent(name));
    }
    println!("  ....  apt-get install {}", names.join(" "));
    let mut install = apt(&["install", "-qq", "-y", "--no-install-recommends"]);
    install.args(names);
    // A list from before a security update names files that are gone: fetch it anew, once.
    run(&mut install).or_else(|_| {
        run(&mut apt(&["update", "-qq"]))?;
        run(&mut install)
    })
}

/// nginx, haproxy and iperf3 must not be started as services of this machine by their installation.
fn apt(arguments: &[&str]) -> std::process::Command {
    let mut apt = command("apt-get", arguments);
    apt.env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
    apt
}

fn absent(name: &str) -> String {
    if name.starts_with("llvm-") {
        return format!(
            "LLVM {LLVM} is not in this distribution's package lists. Add the LLVM project's own apt repository \
             (its script: llvm.sh {LLVM}), then: apt-get install llvm-{LLVM}-dev llvm-{LLVM}"
        );
    }
    format!("no package {name} in this distribution's lists; install that program by hand")
}

fn has_candidate(name: &str) -> bool {
    let policy = output(&mut command("apt-cache", ["policy", name])).unwrap_or_default();
    policy.lines().any(|line| line.contains("Candidate:") && !line.contains("(none)"))
}

fn is_installed(package: &Package) -> bool {
    if package.shown_by.starts_with('/') {
        return std::path::Path::new(package.shown_by).exists();
    }
    find(package.shown_by).is_some()
}

/// Installs one package that is not always needed; `Ok(false)` where that is not possible.
pub(crate) fn install_extra(names: &[&str]) -> Result<bool> {
    if !is_root() || find("apt-get").is_none() {
        return Ok(false);
    }
    install_with_apt(names).with_context(|| format!("cannot install {}", names.join(" ")))?;
    Ok(true)
}
