//! The object under test in the real kernel: state written into its maps, frames sent through it by test-run.

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray};
use aya::programs::{ProgramError, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfLoader, TestRun as _, TestRunOptions};
use nlb_common::host::Host;
use nlb_common::layout::{Bucket, Client, Counts, SLOT_LINES, Slot, SlotCounts, WAYS};
use nlb_common::reasons::Reason;
use nlb_common::scene::{HZ, NOW, SEED, SIZES, TABLES};
use std::cell::Cell;
use std::path::PathBuf;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Which way a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// From a client, through `nlb_xdp`.
    Ingress,
    /// From a target, through `nlb_reply`.
    Egress,
}

/// Maps of the flow tables, in the order of [`TABLES`].
const FLOW_MAPS: [&str; TABLES.len()] = ["flows", "replies", "half_flows", "half_replies"];
/// Maps of the clients' names, in the order of [`Host::clients`].
const CLIENT_MAPS: [&str; 2] = ["flow_clients", "half_clients"];
/// `XDP_DROP` and `XDP_PASS` (linux/bpf.h).
const DROP: u32 = 1;
const PASS: u32 = 2;
/// `TCX_NEXT`, as a test run returns it.
const NEXT: u32 = u32::MAX;

/// What one run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// True if the packet was dropped.
    pub dropped: bool,
    /// The frame afterwards.
    pub frame: Vec<u8>,
}

/// The object, loaded with maps as small as a scene's, and what was last written into them.
pub struct Kernel {
    ebpf: Ebpf,
    written: Host,
}

impl Kernel {
    /// Loads the object that `NLB_EBPF_OBJECT` names, else the workspace's; nothing is pinned or attached.
    pub fn load() -> Result<Self> {
        let path = object();
        let bytes = std::fs::read(&path).with_context(|| {
            format!(
                "no eBPF object at {}: run `cargo xtask build-ebpf`, or set NLB_EBPF_OBJECT",
                path.display()
            )
        })?;
        let mut loader = EbpfLoader::new();
        let quiet = 0_u8;
        let masks = [SIZES.flow_buckets as u32 - 1, SIZES.half_buckets as u32 - 1];
        loader
            .override_global("AYA_LOG_LEVEL", &quiet, false)
            .override_global("HZ", &HZ, true)
            .override_global("FIXED_NOW", &NOW, true)
            .override_global("SEED", &SEED, true)
            .override_global("FLOW_MASK", &masks[0], true)
            .override_global("HALF_MASK", &masks[1], true);
        for (names, buckets) in [(&FLOW_MAPS[..2], SIZES.flow_buckets), (&FLOW_MAPS[2..], SIZES.half_buckets)]
        {
            for name in names {
                loader.map_max_entries(name, buckets as u32);
            }
        }
        loader
            .map_max_entries("flow_clients", (SIZES.flow_buckets * WAYS) as u32)
            .map_max_entries("half_clients", (SIZES.half_buckets * WAYS) as u32)
            .map_max_entries("slots", SIZES.slots as u32)
            .map_max_entries("slot_counts", SIZES.slots as u32)
            .map_max_entries("choices", SIZES.listeners as u32)
            .map_max_entries("listener_counts", SIZES.listeners as u32)
            .map_max_entries("rings", SIZES.ring_words as u32);
        let mut ebpf = loader.load(&bytes).context("load the eBPF object (root?)")?;
        let xdp: &mut Xdp = ebpf.program_mut("nlb_xdp").context("no nlb_xdp")?.try_into()?;
        verified("nlb_xdp", xdp.load())?;
        let reply: &mut SchedClassifier =
            ebpf.program_mut("nlb_reply").context("no nlb_reply")?.try_into()?;
        verified("nlb_reply", reply.load())?;
        Ok(Self { ebpf, written: Host::new(SIZES, HZ, SEED) })
    }

    /// Makes the maps hold what `host` holds; counters excepted.
    pub fn write(&mut self, host: &Host) -> Result<()> {
        let old = std::mem::replace(&mut self.written, host.clone());
        self.differing("choices", &old.choices, &host.choices)?;
        self.differing("rings", &old.rings, &host.rings)?;
        self.differing("slots", &old.slots, &host.slots)?;
        let counts = |slots: &[Slot]| -> Vec<SlotCounts> { (0..).zip(slots).map(begun).collect() };
        self.differing("slot_counts", &counts(&old.slots), &counts(&host.slots))?;
        self.differing("vip_filter", &old.vip_filter, &host.vip_filter)?;
        self.differing("target_filter", &old.target_filter, &host.target_filter)?;
        for (name, (old, new)) in FLOW_MAPS.into_iter().zip(old.tables.iter().zip(&host.tables)) {
            let (old, new): (Vec<Bucket>, Vec<Bucket>) =
                (old.iter().map(Cell::get).collect(), new.iter().map(Cell::get).collect());
            self.differing(name, &old, &new)?;
        }
        for (name, (old, new)) in CLIENT_MAPS.into_iter().zip(old.clients.iter().zip(&host.clients)) {
            self.differing(name, &old.borrow(), &new.borrow())?;
        }
        self.keyed("vips", old.vips.keys(), &host.vips)?;
        self.keyed("listeners", old.listeners.keys(), &host.listeners)?;
        self.keyed("targets", old.targets.keys(), &host.targets)
    }

    /// Sends a frame of at least 14 bytes through one of the programs.
    pub fn run(&mut self, direction: Direction, frame: &[u8]) -> Result<Run> {
        let mut out = vec![0; frame.len() + 64];
        let options =
            TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::new() };
        let (size, dropped) = match direction {
            Direction::Ingress => {
                let program: &mut Xdp = self.ebpf.program_mut("nlb_xdp").context("no nlb_xdp")?.try_into()?;
                let result = program.test_run(options)?;
                match result.return_value {
                    DROP => (result.data_size_out, true),
                    PASS => (result.data_size_out, false),
                    other => bail!("nlb_xdp returned {other}"),
                }
            }
            Direction::Egress => {
                let program: &mut SchedClassifier =
                    self.ebpf.program_mut("nlb_reply").context("no nlb_reply")?.try_into()?;
                let result = program.test_run(options)?;
                ensure!(result.return_value == NEXT, "nlb_reply returned {}", result.return_value);
                (result.data_size_out, false)
            }
        };
        out.truncate(size as usize);
        Ok(Run { dropped, frame: out })
    }

    /// The counter of every reason, over all CPUs.
    pub fn reasons(&self) -> Result<Vec<u64>> {
        let map: PerCpuArray<&MapData, u64> = PerCpuArray::try_from(self.map("reasons")?)?;
        (0..Reason::COUNT as u32).map(|i| Ok(map.get(&i, 0)?.iter().sum())).collect()
    }

    /// The counters of all listeners, over all CPUs.
    pub fn listener_counts(&self) -> Result<Vec<Counts>> {
        const SIZE: usize = size_of::<Counts>() / 8;
        let map: PerCpuArray<&MapData, [u64; SIZE]> = PerCpuArray::try_from(self.map("listener_counts")?)?;
        (0..SIZES.listeners as u32)
            .map(|i| {
                let mut sum = [0; SIZE];
                for cpu in map.get(&i, 0)?.iter() {
                    sum.iter_mut().zip(cpu).for_each(|(sum, part)| *sum += part);
                }
                Ok(zerocopy::transmute!(sum))
            })
            .collect()
    }

    /// The counters of all slots in their present generation: what CPUs share, and what each holds in a line of its own.
    pub fn slot_counts(&self) -> Result<Vec<Counts>> {
        let shared: Vec<SlotCounts> = self.all("slot_counts", SIZES.slots)?;
        let lines: PerCpuArray<&MapData, [u64; 4]> = PerCpuArray::try_from(self.map("slot_cpu_counts")?)?;
        let mut counts = vec![Counts::default(); shared.len()];
        for (number, slot) in (0..).zip(&self.written.slots).filter(|(_, slot)| slot.protocol != 0) {
            let cpus = lines.get(&(number % SLOT_LINES), 0)?;
            let cpus = cpus.iter().map(|line| -> SlotCounts { zerocopy::transmute!(*line) });
            let total = &mut counts[number as usize];
            for part in cpus.chain([shared[number as usize]]).filter(|it| it.is_of(number, slot.generation)) {
                total.packets += part.packets;
                total.bytes += part.bytes;
                total.new_flows += part.new_flows;
            }
        }
        Ok(counts)
    }

    /// A flow table's buckets, by its place in [`TABLES`].
    pub fn buckets(&self, table: usize) -> Result<Vec<Bucket>> {
        self.all(FLOW_MAPS[table], self.written.tables[table].len())
    }

    /// The clients' names of `flows` (0) or `half_flows` (1).
    pub fn clients(&self, which: usize) -> Result<Vec<Client>> {
        self.all(CLIENT_MAPS[which], self.written.clients[which].borrow().len())
    }

    /// Compares the flow tables with a host's that saw the same packets, and takes them as written.
    pub fn agree(&mut self, host: &Host) -> Result<()> {
        for (table, cells) in TABLES.into_iter().zip(&host.tables) {
            for (number, (kernel, host)) in self.buckets(table as usize)?.into_iter().zip(cells).enumerate() {
                ensure!(
                    kernel == host.get(),
                    "{table:?} bucket {number}:\n kernel {kernel:?}\n host   {:?}",
                    host.get()
                );
            }
        }
        for (which, clients) in host.clients.iter().enumerate() {
            ensure!(self.clients(which)? == *clients.borrow(), "{} differ", CLIENT_MAPS[which]);
        }
        self.written.tables.clone_from(&host.tables);
        self.written.clients.clone_from(&host.clients);
        Ok(())
    }

    fn map(&self, name: &str) -> Result<&Map> {
        self.ebpf.map(name).with_context(|| format!("no map {name}"))
    }

    fn map_mut(&mut self, name: &str) -> Result<&mut Map> {
        self.ebpf.map_mut(name).with_context(|| format!("no map {name}"))
    }

    fn all<T: FromBytes>(&self, name: &str, entries: usize) -> Result<Vec<T>> {
        match size_of::<T>() {
            128 => self.sized::<T, 128>(name, entries),
            24 => self.sized::<T, 24>(name, entries),
            32 => self.sized::<T, 32>(name, entries),
            size => bail!("no element of {name} has {size} bytes"),
        }
    }

    fn sized<T: FromBytes, const N: usize>(&self, name: &str, entries: usize) -> Result<Vec<T>> {
        let map: Array<&MapData, [u8; N]> = Array::try_from(self.map(name)?)?;
        (0..entries as u32)
            .map(|i| T::read_from_bytes(&map.get(&i, 0)?).map_err(|_| anyhow::anyhow!("{name}: wrong size")))
            .collect()
    }

    fn differing<T: Element + PartialEq>(&mut self, name: &str, old: &[T], new: &[T]) -> Result<()> {
        let differing: Vec<usize> = (0..new.len()).filter(|i| old.get(*i) != new.get(*i)).collect();
        if differing.is_empty() {
            return Ok(());
        }
        let map = self.map_mut(name)?;
        for i in differing {
            new[i].set(map, i as u32).with_context(|| format!("{name}[{i}]"))?;
        }
        Ok(())
    }

    fn keyed<'a, K, V>(
        &mut self,
        name: &str,
        old: impl Iterator<Item = &'a K>,
        new: &std::collections::BTreeMap<K, V>,
    ) -> Result<()>
    where
        K: Ord + IntoBytes + Immutable + 'a,
        V: IntoBytes + Immutable,
    {
        let gone: Vec<&K> = old.filter(|key| !new.contains_key(key)).collect();
        let map = self.map_mut(name)?;
        let pairs = || new.iter().map(|(key, value)| (key.as_bytes(), value.as_bytes()));
        match (size_of::<K>(), size_of::<V>()) {
            (16, 4) => replace::<16, 4>(map, gone.iter().map(|k| k.as_bytes()), pairs()),
            (20, 8) => replace::<20, 8>(map, gone.iter().map(|k| k.as_bytes()), pairs()),
            (20, 32) => replace::<20, 32>(map, gone.iter().map(|k| k.as_bytes()), pairs()),
            sizes => bail!("no map has keys and values of {sizes:?} bytes"),
        }
        .with_context(|| name.to_owned())
    }
}

/// A slot's counters as the agent begins them when it gives the slot to a target.
fn begun((number, slot): (u32, &Slot)) -> SlotCounts {
    SlotCounts { slot: number, generation: slot.generation, ..SlotCounts::default() }
}

/// What an array map of the object holds, written as bytes.
trait Element {
    fn set(&self, map: &mut Map, index: u32) -> Result<()>;
}

macro_rules! elements {
    ($($element:ty)*) => {
        $(impl Element for $element {
            fn set(&self, map: &mut Map, index: u32) -> Result<()> {
                let mut bytes = [0; size_of::<$element>()];
                bytes.copy_from_slice(self.as_bytes());
                let mut array: Array<&mut MapData, [u8; size_of::<$element>()]> = Array::try_from(map)?;
                Ok(array.set(index, bytes, 0)?)
            }
        })*
    };
}
elements! { u64 Slot SlotCounts Bucket Client }

fn replace<'a, const K: usize, const V: usize>(
    map: &mut Map,
    gone: impl Iterator<Item = &'a [u8]>,
    pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>,
) -> Result<()> {
    let mut map: HashMap<&mut MapData, [u8; K], [u8; V]> = HashMap::try_from(map)?;
    for key in gone {
        map.remove(&key.try_into()?)?;
    }
    for (key, value) in pairs {
        map.insert(<[u8; K]>::try_from(key)?, <[u8; V]>::try_from(value)?, 0)?;
    }
    Ok(())
}

/// A program's load, with the last lines of the verifier's log where it refused.
fn verified(name: &str, loaded: Result<(), ProgramError>) -> Result<()> {
    match loaded {
        Err(ProgramError::LoadError { io_error, verifier_log }) => {
            let log = verifier_log.to_string();
            let lines: Vec<&str> = log.lines().collect();
            bail!("{name}: {io_error}\n{}", lines[lines.len().saturating_sub(30)..].join("\n"))
        }
        other => other.with_context(|| name.to_owned()),
    }
}

fn object() -> PathBuf {
    match std::env::var_os("NLB_EBPF_OBJECT") {
        Some(path) => path.into(),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/nlb.o"),
    }
}
