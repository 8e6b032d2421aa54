//! The agent's side of the kernel's border against a real kernel: loading, pins, attachments, maps, the sweep.
//! Needs root; each test has a network namespace and a pin path of its own.

mod links;
mod maps;
mod pins;
mod replacement;
mod sweep;

use anyhow::{Context, ensure};
use nix::sched::{CloneFlags, unshare};
use nlb_agent::bpf::detach::detach;
use nlb_agent::bpf::pins::Sizes;
use nlb_agent::bpf::reply::ReplyHook;
use nlb_agent::bpf::{DataPath, OpenError, Options, netlink};
use nlb_agent::host::interfaces::XdpMode as RunningMode;
use nlb_agent::host::kernel::{Kernel, Release};
use nlb_common::address::Address;
use nlb_common::layout::{Slot, TCP};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A pin path that is gone again when the test ends, however it does.
struct Place {
    pins: PathBuf,
}

impl Drop for Place {
    fn drop(&mut self) {
        let _nothing_left = detach(&self.pins);
    }
}

impl Place {
    fn options(&self) -> Options {
        let sizes = Sizes { flows: 4096, half_flows: 1024, listeners: 64, slots: 64 };
        Options { sizes, ..Options::new(&self.pins) }
    }

    /// Another pin path, for another agent.
    fn neighbour(&self) -> Self {
        let mut name = self.pins.clone().into_os_string();
        name.push("-b");
        Self { pins: name.into() }
    }

    fn open(&self) -> Result<DataPath, OpenError> {
        DataPath::open(&self.options())
    }
}

/// Runs a test in a network namespace of its own that has a veth pair, `uplink` and `far`.
fn in_namespace(test: impl FnOnce(&Place) -> anyhow::Result<()> + Send + 'static) {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let pins = PathBuf::from(format!("/sys/fs/bpf/nlb-test-{}-{number}", std::process::id()));
    let run = move || -> anyhow::Result<()> {
        unshare(CloneFlags::CLONE_NEWNET).context("a network namespace: run this as root")?;
        ip("link add uplink type veth peer name far")?;
        ip("link set uplink up")?;
        ip("link set far up")?;
        let place = Place { pins };
        test(&place)
    };
    thread::spawn(run).join().expect("the test's own panic").unwrap();
}

fn command(program: &str, arguments: &str) -> anyhow::Result<String> {
    let output = Command::new(program).args(arguments.split_whitespace()).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{program} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(text)
}

fn ip(arguments: &str) -> anyhow::Result<String> {
    command("ip", arguments)
}

fn tc(arguments: &str) -> anyhow::Result<String> {
    command("tc", arguments)
}

fn index(interface: &str) -> u32 {
    nix::net::if_::if_nametoindex(interface).unwrap()
}

fn running(interface: &str) -> Option<(RunningMode, u32)> {
    netlink::xdp(index(interface)).unwrap().map(|xdp| (xdp.mode, xdp.program))
}

/// Where `nlb_reply` belongs on a device that it shares with nobody. By the release alone: what the agent tries is under test.
fn own_hook() -> ReplyHook {
    let release = Kernel::read().unwrap().release.expect("a release of two numbers");
    let with_tcx = Release { major: 6, minor: 6 };
    if release >= with_tcx { ReplyHook::Tcx } else { ReplyHook::Clsact }
}

fn priorities(interface: &str) -> Vec<u16> {
    netlink::egress_filters(index(interface)).unwrap().iter().map(|filter| filter.priority).collect()
}

fn vip() -> Address {
    Ipv4Addr::new(192, 0, 2, 10).into()
}

fn slot(last: u8, generation: u32) -> Slot {
    Slot {
        target: Ipv4Addr::new(10, 1, 0, last).into(),
        vip: vip(),
        target_port: 5001,
        vip_port: 80,
        protocol: TCP,
        listener: 2,
        generation,
        idle: 350 * 250,
        ..Slot::default()
    }
}
