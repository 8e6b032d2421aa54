//! A ring that is swapped a thousand times a second under traffic: every new flow goes where the old or the new ring says.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use aya::programs::{TestRun, TestRunOptions, Xdp};
use aya_obj::programs::XdpAttachType;
use nix::sched::{CloneFlags, unshare};
use nlb_agent::bpf::detach::detach;
use nlb_agent::bpf::pins::{RING_WORDS, Sizes};
use nlb_agent::bpf::{DataPath, Options, PinnedMaps, sys};
use nlb_agent::capacity::Limits;
use nlb_agent::control::{Change, Control, Planned};
use nlb_agent::model::{Forwarding, Placed, TargetKey};
use nlb_agent::reconcile;
use nlb_agent::slots::Epoch;
use nlb_common::address::Address;
use nlb_common::hash::Tuple;
use nlb_common::layout::{ListenerKey, TCP};
use nlb_common::reasons::Reason;

const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const PORT: u16 = 80;
/// How often the ring is swapped.
const SWAPS: u32 = 5_000;
/// From one swap to the next: 1 100 a second, so that a machine that pauses can make up for it.
const PACE: Duration = Duration::from_nanos(1_000_000_000 / 1_100);
/// New flows for each swap: as many as leave the swapper a CPU to itself.
const FLOWS_PER_SWAP: u32 = 16;
/// New flows, one SYN each.
const FLOWS: u32 = SWAPS * FLOWS_PER_SWAP;
/// `XDP_PASS`: into the host's routing.
const PASS: u32 = 2;

/// Maps and programs under a pin path that is gone again at the end.
struct Place {
    pins: PathBuf,
}

impl Drop for Place {
    fn drop(&mut self) {
        let _nothing_left = detach(&self.pins);
    }
}

/// The control plane's end of the maps, with the grace periods that the agent waits for.
struct Plane {
    data_path: DataPath,
    control: Control,
    elapsed: Epoch,
    waiting: bool,
    asked: Sender<Epoch>,
    graces: Receiver<Epoch>,
}

impl Plane {
    fn open(place: &Place) -> Result<Plane> {
        let sizes = Sizes { flows: 1024, half_flows: 1 << 17, listeners: 16, slots: 256 };
        let data_path = DataPath::open(&Options { sizes, ..Options::new(&place.pins) })?;
        let limits = Limits {
            listeners: sizes.listeners,
            vips: sizes.listeners,
            slots: sizes.slots,
            ring_words: RING_WORDS,
            hz: data_path.maps.config.hz,
        };
        let (asked, questions) = channel::<Epoch>();
        let (answer, graces) = channel();
        std::thread::spawn(move || {
            while let Ok(epoch) = questions.recv() {
                if sys::grace_period().is_err() || answer.send(epoch).is_err() {
                    return;
                }
            }
        });
        let control = Control::new(limits);
        Ok(Plane { data_path, control, elapsed: Epoch::default(), waiting: false, asked, graces })
    }

    fn put(&mut self, forwarding: &Forwarding) -> Result<()> {
        while let Ok(epoch) = self.graces.try_recv() {
            self.elapsed = epoch;
            self.waiting = false;
            let planned = self.control.change(Change::default(), self.elapsed);
            self.run(&planned)?;
        }
        let change = Change { put: vec![forwarding.clone()], ..Change::default() };
        let planned = self.control.change(change, self.elapsed);
        ensure!(planned.shortfalls.is_empty(), "{:?}", planned.shortfalls);
        self.run(&planned)
    }

    fn run(&mut self, planned: &Planned) -> Result<()> {
        for step in &planned.steps {
            reconcile::run(&mut self.data_path.maps, step)?;
        }
        // One grace period at a time covers everything before it.
        if planned.waiting && !self.waiting {
            self.waiting = true;
            self.asked.send(planned.epoch)?;
        }
        Ok(())
    }

    fn listener(&self) -> Result<u32> {
        Ok(self.control.listener(&key()).context("the listener stands")?.0)
    }
}

fn key() -> ListenerKey {
    ListenerKey { vip: VIP.into(), port: PORT, protocol: TCP, zero: 0 }
}

/// Five registered targets; those with these last digits, and their shares.
fn forwarding(targets: &[(u8, u32)]) -> Forwarding {
    let placed = |&(last, share): &(u8, u32)| Placed {
        key: TargetKey { ip: IpAddr::V4(Ipv4Addr::new(10, 1, 0, last)), port: 5001, uid: None },
        incarnation: 0,
        share,
    };
    Forwarding {
        listener: key(),
        node_vip: false,
        idle_timeout: Duration::from_secs(350),
        registered: 5,
        targets: targets.iter().map(placed).collect(),
    }
}

/// The client of a flow; no two are alike.
fn client(number: u32) -> (Ipv4Addr, u16) {
    let (block, port) = (number / 10_000, number % 10_000);
    (Ipv4Addr::from_bits(0xc633_6400 + block), 20_000 + port as u16)
}

fn tuple((ip, port): (Ipv4Addr, u16)) -> Tuple {
    Tuple {
        source: Address::from(ip).words(),
        destination: Address::from(VIP).words(),
        source_port: port,
        destination_port: PORT,
        protocol: TCP,
        ipv4: true,
    }
}

fn syn((ip, port): (Ipv4Addr, u16)) -> Result<Vec<u8>> {
    let mut frame = Vec::new();
    let headers = etherparse::PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(ip.octets(), VIP.octets(), 64);
    headers.tcp(port, PORT, 1, 1024).syn().write(&mut frame, &[])?;
    Ok(frame)
}

/// Where this forwarding's ring sends each flow, read at rest.
fn expected(plane: &mut Plane, maps: &PinnedMaps, wanted: &Forwarding) -> Result<Vec<IpAddr>> {
    plane.put(wanted)?;
    let listener = plane.listener()?;
    let pick = |number| {
        let slot = maps.pick(listener, &tuple(client(number))).context("no pick")?;
        Ok(maps.slot(slot).context("no such slot")?.target.ip())
    };
    (0..FLOWS).map(pick).collect()
}

/// How many swaps have begun and ended so far.
#[derive(Default)]
struct Swaps {
    begun: AtomicU32,
    ended: AtomicU32,
}

/// Where a flow went, and which rings may have been asked: from the last that was surely in use to the last that may be.
struct Pick {
    to: IpAddr,
    rings: RangeInclusive<u32>,
}

/// Sends one SYN of each flow through the loaded program, so many for each swap while it is made.
fn traffic(pins: &std::path::Path, swaps: &Swaps) -> Result<Vec<Pick>> {
    let program = Xdp::from_pin(pins.join("prog_xdp"), XdpAttachType::Interface)?;
    let mut out = vec![0; 128];
    let mut went = Vec::new();
    for number in 0..FLOWS {
        while number / FLOWS_PER_SWAP >= swaps.begun.load(Ordering::SeqCst) {
            std::thread::sleep(PACE / 50);
        }
        let frame = syn(client(number))?;
        let options =
            TestRunOptions { data_in: Some(&frame), data_out: Some(&mut out), ..TestRunOptions::new() };
        let before = swaps.ended.load(Ordering::SeqCst);
        let run = program.test_run(options)?;
        let after = swaps.begun.load(Ordering::SeqCst);
        ensure!(run.return_value == PASS, "flow {number} met verdict {}", run.return_value);
        let to: [u8; 4] = out[30..34].try_into()?;
        ensure!(u16::from_be_bytes([out[36], out[37]]) == 5001, "flow {number} was not rewritten");
        went.push(Pick { to: Ipv4Addr::from(to).into(), rings: before..=after });
    }
    Ok(went)
}

/// Swaps through the sets in turn, each when its time has come; returns when each had been made.
fn swap(plane: &mut Plane, sets: &[Forwarding], swaps: &Swaps) -> Result<Vec<Duration>> {
    let began = Instant::now();
    let made = (1..=SWAPS).map(|number| {
        std::thread::sleep((PACE * (number - 1)).saturating_sub(began.elapsed()));
        swaps.begun.store(number, Ordering::SeqCst);
        plane.put(&sets[number as usize % sets.len()])?;
        swaps.ended.store(number, Ordering::SeqCst);
        Ok(began.elapsed())
    });
    made.collect()
}

/// The most swaps that any one second had.
fn busiest_second(made: &[Duration]) -> usize {
    let within =
        |from: usize| made[from..].iter().take_while(|at| **at - made[from] < Duration::from_secs(1)).count();
    (0..made.len()).map(within).max().unwrap_or_default()
}

fn no_target(maps: &PinnedMaps) -> Result<u64> {
    let all = maps.reasons()?;
    Ok(all.iter().find(|(reason, _)| *reason == Reason::NoTarget).context("NoTarget")?.1)
}

fn swapped_under_traffic(place: &Place) -> Result<()> {
    let mut plane = Plane::open(place)?;
    let maps = PinnedMaps::open(&place.pins)?.context("the maps are pinned")?;
    let sets = [
        forwarding(&[(1, 1), (2, 1), (3, 1), (4, 1), (5, 1)]),
        // One evicted, one gone, one replaced by another (in a slot of its own), one with more weight.
        forwarding(&[(1, 1), (2, 1), (3, 1), (4, 1), (5, 0)]),
        forwarding(&[(1, 1), (2, 1), (3, 1), (5, 1)]),
        forwarding(&[(1, 1), (2, 1), (6, 1), (4, 1), (5, 1)]),
        forwarding(&[(1, 9), (2, 1), (3, 1), (4, 1), (7, 1)]),
    ];
    let rings: Vec<Vec<IpAddr>> =
        sets.iter().map(|set| expected(&mut plane, &maps, set)).collect::<Result<_>>()?;
    plane.put(&sets[0])?;
    let swaps = Swaps::default();
    let (made, went) = std::thread::scope(|scope| -> Result<_> {
        let sender = scope.spawn(|| traffic(&place.pins, &swaps));
        let swapped = swap(&mut plane, &sets, &swaps);
        if swapped.is_err() {
            // Nothing is proven any more, but nobody shall wait for swaps that do not come.
            swaps.begun.store(u32::MAX, Ordering::SeqCst);
        }
        let went = sender.join().expect("the sender's own panic");
        Ok((swapped?, went?))
    })?;
    let says = |ring: u32, flow: usize| rings[ring as usize % rings.len()][flow];
    let wrong: Vec<usize> = (0..went.len())
        .filter(|&flow| !went[flow].rings.clone().any(|ring| says(ring, flow) == went[flow].to))
        .collect();
    ensure!(wrong.is_empty(), "{} of {FLOWS} flows went elsewhere, such as {:?}", wrong.len(), wrong.first());
    // A pick that any of the rings could have made would prove nothing.
    let telling = went.iter().enumerate().filter(|(flow, pick)| {
        pick.rings.end() - pick.rings.start() <= 1 && rings.iter().any(|ring| ring[*flow] != pick.to)
    });
    let (telling, busiest) = (telling.count(), busiest_second(&made));
    let seconds = made.last().context("swaps")?.as_secs_f64();
    let rate = f64::from(SWAPS) / seconds;
    println!(
        "{SWAPS} swaps in {seconds:.1} s, {rate:.0} a second, {busiest} in the busiest; {telling} of {FLOWS} picks tell rings apart"
    );
    ensure!(telling > FLOWS as usize / 10, "only {telling} picks tell rings apart");
    ensure!(no_target(&maps)? == 0, "a flow found no target");
    ensure!(busiest >= 1_000, "at most {busiest} swaps in a second");
    plane.data_path.leave();
    Ok(())
}

#[test]
fn every_pick_is_from_the_old_or_the_new_ring() -> Result<()> {
    let test = || -> Result<()> {
        unshare(CloneFlags::CLONE_NEWNET).context("a network namespace: run this as root")?;
        let place = Place { pins: PathBuf::from(format!("/sys/fs/bpf/nlb-ring-{}", std::process::id())) };
        swapped_under_traffic(&place)
    };
    std::thread::spawn(test).join().expect("the test's own panic")
}
