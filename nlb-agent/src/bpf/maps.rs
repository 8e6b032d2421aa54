//! The pinned maps with types: [`PinnedMaps`] reads them and maps the arrays into memory, once; [`Maps`] writes them too.

use super::clock::Clock;
use super::memory::{FlowTable, Mapped};
use super::pins::{Found, Pins, PinsError, RING_WORDS, Sizes, map_io, refused};
use super::plain::Plain;
use aya::Pod;
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuValues};
use nlb_common::address::Address;
use nlb_common::hash::Tuple;
use nlb_common::layout::{
    Choice, Config, Counts, Listener, ListenerKey, Members, Sharers, Slot, SlotCounts, TARGET_FILTER_BITS,
    TargetKey, VIP_FILTER_BITS, Vip, WAYS,
};
use nlb_common::ring;
use nlb_common::tables::Table;
use std::ops::Deref;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::{fmt, io};
use zerocopy::IntoBytes;

pub(super) type Hash<K, V> = HashMap<MapData, Plain<K>, Plain<V>>;
type PerCpu<T> = PerCpuArray<MapData, Plain<T>>;

/// Everything that is pinned, to be read: by the agent, or by the command line when no agent runs.
pub struct PinnedMaps {
    /// How much the maps hold.
    pub sizes: Sizes,
    /// The layout's version, HZ, and the hash's secret.
    pub config: Config,
    /// The data path's clock.
    pub clock: Clock,
    pub(super) vips: Hash<Address, Vip>,
    pub(super) listeners: Hash<ListenerKey, Listener>,
    pub(super) targets: Hash<TargetKey, Sharers>,
    pub(super) vip_filter: Mapped<u64>,
    pub(super) target_filter: Mapped<u64>,
    pub(super) choices: Mapped<u64>,
    pub(super) rings: Mapped<u64>,
    pub(super) slots: Mapped<Slot>,
    flows: FlowTable,
    replies: FlowTable,
    half_flows: FlowTable,
    half_replies: FlowTable,
    pub(super) reasons: PerCpu<u64>,
    pub(super) listener_counts: PerCpu<Counts>,
    pub(super) slot_counts: Mapped<SlotCounts>,
    pub(super) slot_cpu_counts: PerCpu<SlotCounts>,
}

/// Opens what is pinned by name.
struct Opener<'a>(&'a Pins);

impl Opener<'_> {
    fn data(&self, name: &str) -> Result<MapData, PinsError> {
        let path = self.0.path(name);
        MapData::from_pin(&path).map_err(map_io).map_err(refused(format!("opening {}", path.display())))
    }

    fn mapped<T>(&self, name: &str, len: u32) -> Result<Mapped<T>, PinsError>
    where
        T: zerocopy::FromBytes + IntoBytes + zerocopy::Immutable,
    {
        let data = self.data(name)?;
        Mapped::new(data.fd().as_fd(), len).map_err(refused(format!("mapping `{name}` into memory")))
    }

    fn typed<M: TryFrom<Map, Error = MapError>>(
        &self,
        name: &str,
        kind: fn(MapData) -> Map,
    ) -> Result<M, PinsError> {
        M::try_from(kind(self.data(name)?))
            .map_err(map_io)
            .map_err(refused(format!("opening the map `{name}`")))
    }

    fn hash<K: Pod, V: Pod>(&self, name: &str) -> Result<HashMap<MapData, K, V>, PinsError> {
        self.typed(name, Map::HashMap)
    }

    fn per_cpu<T: Pod>(&self, name: &str) -> Result<PerCpuArray<MapData, T>, PinsError> {
        self.typed(name, Map::PerCpuArray)
    }
}

impl PinnedMaps {
    /// Opens the maps under this pin path as they are; `None` if there are none.
    pub fn open(pin_path: &Path) -> Result<Option<Self>, PinsError> {
        let pins = Pins::new(pin_path);
        match pins.find()? {
            Found::Nothing => Ok(None),
            Found::Ours(sizes, config) => {
                let clock = Clock::new().map_err(refused("reading the kernel's clock"))?;
                Self::open_pins(&pins, sizes, config, clock).map(Some)
            }
        }
    }

    fn open_pins(pins: &Pins, sizes: Sizes, config: Config, clock: Clock) -> Result<Self, PinsError> {
        let open = Opener(pins);
        let table = |name, entries: u32| open.mapped(name, entries / WAYS as u32);
        let flow_clients = Some(open.mapped("flow_clients", sizes.flows)?);
        let half_clients = Some(open.mapped("half_clients", sizes.half_flows)?);
        Ok(Self {
            sizes,
            config,
            clock,
            vips: open.hash("vips")?,
            listeners: open.hash("listeners")?,
            targets: open.hash("targets")?,
            vip_filter: open.mapped("vip_filter", VIP_FILTER_BITS / 64)?,
            target_filter: open.mapped("target_filter", TARGET_FILTER_BITS / 64)?,
            choices: open.mapped("choices", sizes.listeners)?,
            rings: open.mapped("rings", RING_WORDS)?,
            slots: open.mapped("slots", sizes.slots)?,
            flows: FlowTable::new(table("flows", sizes.flows)?, flow_clients),
            replies: FlowTable::new(table("replies", sizes.flows)?, None),
            half_flows: FlowTable::new(table("half_flows", sizes.half_flows)?, half_clients),
            half_replies: FlowTable::new(table("half_replies", sizes.half_flows)?, None),
            reasons: open.per_cpu("reasons")?,
            listener_counts: open.per_cpu("listener_counts")?,
            slot_counts: open.mapped("slot_counts", sizes.slots)?,
            slot_cpu_counts: open.per_cpu("slot_cpu_counts")?,
        })
    }

    /// A flow table.
    pub fn table(&self, table: Table) -> &FlowTable {
        match table {
            Table::Flows => &self.flows,
            Table::Replies => &self.replies,
            Table::HalfFlows => &self.half_flows,
            Table::HalfReplies => &self.half_replies,
        }
    }

    /// A slot; `None` past the end.
    pub fn slot(&self, number: u32) -> Option<Slot> {
        (number < self.slots.len()).then(|| self.slots.read(number))
    }

    /// The slot that a listener's ring has for a new flow of this tuple now, as the data path would choose it.
    pub fn pick(&self, listener: u32, tuple: &Tuple) -> Option<u32> {
        let word =
            |at: u32| (at < self.rings.len()).then(|| self.rings.element(at)[0].load(Ordering::Acquire));
        let choice = (listener < self.choices.len())
            .then(|| self.choices.element(listener)[0].load(Ordering::Acquire));
        let at = choice? as u32;
        if at == 0 {
            return None;
        }
        let members = Members::from_word(word(at)?);
        let index = ring::pick(tuple.ring(), members.size);
        let position = (word(members.ring.wrapping_add(index >> 2))? >> ((index & 3) * 16)) as u32 & 0xffff;
        let pair = word(at.wrapping_add(1 + (position >> 1)))?;
        Some(if position & 1 == 0 { pair as u32 } else { (pair >> 32) as u32 })
    }
}

impl fmt::Debug for PinnedMaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the seed: whoever reads a log must not be able to aim at a bucket.
        f.debug_struct("PinnedMaps").field("sizes", &self.sizes).finish_non_exhaustive()
    }
}

/// The maps as the one agent that holds them writes them. A write that fails leaves its map as it was.
///
/// Whoever reads beside the agent's loop shares its [`PinnedMaps`]: the memory is mapped once. What is written by system
/// calls has handles of its own here, which need no memory.
pub struct Maps {
    pinned: Arc<PinnedMaps>,
    vips: Hash<Address, Vip>,
    listeners: Hash<ListenerKey, Listener>,
    targets: Hash<TargetKey, Sharers>,
    listener_counts: PerCpu<Counts>,
    config: Array<MapData, Plain<Config>>,
}

impl fmt::Debug for Maps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pinned.fmt(f)
    }
}

impl Deref for Maps {
    type Target = PinnedMaps;

    fn deref(&self) -> &PinnedMaps {
        &self.pinned
    }
}

fn past_the_end(map: &'static str, index: u32) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("the map `{map}` has no element {index}"))
}

fn store(words: &Mapped<u64>, map: &'static str, index: u32, word: u64) -> io::Result<()> {
    if index >= words.len() {
        return Err(past_the_end(map, index));
    }
    words.store(index, word);
    Ok(())
}

fn put<K: Pod, V: Pod>(map: &mut HashMap<MapData, K, V>, key: K, value: V) -> io::Result<()> {
    map.insert(key, value, 0).map_err(map_io)
}

fn remove<K: Pod, V: Pod>(map: &mut HashMap<MapData, K, V>, key: &K) -> io::Result<()> {
    match map.remove(key) {
        Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
        Err(error) => match map_io(error) {
            error if error.kind() == io::ErrorKind::NotFound => Ok(()),
            error => Err(error),
        },
    }
}

/// The word of a [`Slot`] that holds ports and protocol.
const PROTOCOL_WORD: usize = 4;
/// The word of a [`Slot`] that holds the listener and the generation.
const GENERATION_WORD: usize = 5;
const _: () = assert!(std::mem::offset_of!(Slot, protocol) / 8 == PROTOCOL_WORD);
const _: () = assert!(std::mem::offset_of!(Slot, generation) / 8 == GENERATION_WORD);

impl Maps {
    pub(super) fn open(pins: &Pins, sizes: Sizes, config: Config, clock: Clock) -> Result<Self, PinsError> {
        let open = Opener(pins);
        Ok(Self {
            pinned: Arc::new(PinnedMaps::open_pins(pins, sizes, config, clock)?),
            vips: open.hash("vips")?,
            listeners: open.hash("listeners")?,
            targets: open.hash("targets")?,
            listener_counts: open.per_cpu("listener_counts")?,
            config: open.typed("config", Map::Array)?,
        })
    }

    /// The same maps for others to read, on whatever thread.
    pub fn shared(&self) -> Arc<PinnedMaps> {
        Arc::clone(&self.pinned)
    }

    pub(super) fn put_config(&mut self, config: &Config) -> io::Result<()> {
        self.config.set(0, Plain(*config), 0).map_err(map_io)
    }

    /// Fills a slot, or changes the idle timeout of one in use. Its generation is published last.
    pub fn put_slot(&mut self, number: u32, slot: &Slot) -> io::Result<()> {
        if number >= self.slots.len() {
            return Err(past_the_end("slots", number));
        }
        let (words, cells): ([u64; 8], _) = (zerocopy::transmute!(*slot), self.slots.element(number));
        for (i, word) in words.into_iter().enumerate().filter(|(i, _)| *i != GENERATION_WORD) {
            cells[i].store(word, Ordering::Release);
        }
        cells[GENERATION_WORD].store(words[GENERATION_WORD], Ordering::SeqCst);
        Ok(())
    }

    /// Frees a slot: its flows are stale at once. A packet that has just looked the slot up may still read where it led, so
    /// only the generation and the protocol change; [`dump`](PinnedMaps::dump) reads the rest as zeros.
    pub fn free_slot(&mut self, number: u32, generation: u32) -> io::Result<()> {
        let Some(slot) = self.slot(number) else { return Err(past_the_end("slots", number)) };
        let words: [u64; 8] = zerocopy::transmute!(Slot { generation, protocol: 0, ..slot });
        let cells = self.slots.element(number);
        cells[GENERATION_WORD].store(words[GENERATION_WORD], Ordering::SeqCst);
        cells[PROTOCOL_WORD].store(words[PROTOCOL_WORD], Ordering::SeqCst);
        Ok(())
    }

    /// Puts a listener.
    pub fn put_listener(&mut self, key: &ListenerKey, listener: &Listener) -> io::Result<()> {
        put(&mut self.listeners, Plain(*key), Plain(*listener))
    }

    /// Removes a listener; one that is not there is no error.
    pub fn remove_listener(&mut self, key: &ListenerKey) -> io::Result<()> {
        remove(&mut self.listeners, &Plain(*key))
    }

    /// Publishes a listener's members by one store; 0 takes them away.
    pub fn set_choice(&mut self, listener: u32, at: Choice) -> io::Result<()> {
        store(&self.choices, "choices", listener, at)
    }

    /// Writes words of `rings` that no choice leads to.
    pub fn write_ring_words(&mut self, at: u32, words: &[u64]) -> io::Result<()> {
        let end = at as usize + words.len();
        if end > self.rings.len() as usize {
            return Err(past_the_end("rings", end as u32));
        }
        for (i, word) in (at..).zip(words) {
            self.rings.element(i)[0].store(*word, Ordering::Release);
        }
        Ok(())
    }

    /// Puts a VIP.
    pub fn put_vip(&mut self, address: &Address, vip: &Vip) -> io::Result<()> {
        put(&mut self.vips, Plain(*address), Plain(*vip))
    }

    /// Removes a VIP; one that is not there is no error.
    pub fn remove_vip(&mut self, address: &Address) -> io::Result<()> {
        remove(&mut self.vips, &Plain(*address))
    }

    /// Stores a word of `vip_filter`.
    pub fn set_vip_filter_word(&mut self, word: u32, bits: u64) -> io::Result<()> {
        store(&self.vip_filter, "vip_filter", word, bits)
    }

    /// Puts an element of `targets`.
    pub fn put_target(&mut self, key: &TargetKey, sharers: &Sharers) -> io::Result<()> {
        put(&mut self.targets, Plain(*key), Plain(*sharers))
    }

    /// Removes an element of `targets`; one that is not there is no error.
    pub fn remove_target(&mut self, key: &TargetKey) -> io::Result<()> {
        remove(&mut self.targets, &Plain(*key))
    }

    /// Stores a word of `target_filter`.
    pub fn set_target_filter_word(&mut self, word: u32, bits: u64) -> io::Result<()> {
        store(&self.target_filter, "target_filter", word, bits)
    }

    /// Zeroes the counters of a listener's id.
    pub fn reset_listener_counts(&mut self, listener: u32) -> io::Result<()> {
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
        let zeros = PerCpuValues::try_from(vec![Plain(Counts::default()); cpus])?;
        self.listener_counts.set(listener, zeros, 0).map_err(map_io)
    }

    /// Begins the counters of a slot anew, for the generation that its next target has. No packet may be counted for it yet.
    pub fn reset_slot_counts(&mut self, number: u32) -> io::Result<()> {
        let Some(slot) = self.slot(number) else { return Err(past_the_end("slot_counts", number)) };
        // A slot that was never used is of generation 0; its first target is of generation 1.
        let generation = slot.generation.max(1);
        self.slot_counts.write(number, &SlotCounts { slot: number, generation, ..SlotCounts::default() });
        Ok(())
    }

    /// Waits until no packet reads what was replaced before this call (about 10 ms): then regions and slots may be reused.
    pub fn wait_for_readers(&self) -> io::Result<()> {
        super::sys::grace_period()
    }
}
