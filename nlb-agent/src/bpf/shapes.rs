//! The maps by name: kind, element types, sizes and flags of each, as the loader makes them and a start finds them again.

use aya::maps::MapType;
use nlb_common::address::Address;
use nlb_common::layout::{
    Bucket, Choice, Client, Config, Counts, Listener, ListenerKey, SLOT_LINES, Sharers, Slot, SlotCounts,
    TARGET_FILTER_BITS, TargetKey, VIP_FILTER_BITS, Vip, WAYS,
};
use nlb_common::reasons::Reason;

/// `BPF_F_MMAPABLE`.
const MMAPABLE: u32 = 0x400;
/// Words of `rings`.
pub const RING_WORDS: u32 = 1 << 22;

/// Counters by reason; the build of another layout has some more.
const REASONS: u32 = Reason::COUNT as u32 + if cfg!(feature = "other-layout") { 8 } else { 0 };

/// How much the maps hold; fixed when they are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Established flows: a power of two from 1024 on.
    pub flows: u32,
    /// Half-open flows: a power of two from 1024 on.
    pub half_flows: u32,
    /// Listeners; as many VIPs, because each VIP has a listener.
    pub listeners: u32,
    /// Slots: targets, counted once for each listener.
    pub slots: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { flows: 1 << 20, half_flows: 1 << 18, listeners: 1 << 14, slots: 1 << 17 }
    }
}

impl Sizes {
    /// The sizes as the maps can have them: flow tables are powers of two, at most 2^28 entries; nothing is empty.
    pub fn rounded(self) -> Self {
        let table = |entries: u32| entries.clamp(1024, 1 << 28).next_power_of_two();
        Self {
            flows: table(self.flows),
            half_flows: table(self.half_flows),
            listeners: self.listeners.clamp(1, 1 << 20),
            slots: self.slots.clamp(1, 1 << 24),
        }
    }
}

/// What the kernel says, or should say, of a map.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Name of the map and of its pin.
    pub name: &'static str,
    /// Kind of map.
    pub kind: MapType,
    /// Bytes of a key.
    pub key: u32,
    /// Bytes of a value.
    pub value: u32,
    /// Elements.
    pub entries: u32,
    /// Flags.
    pub flags: u32,
}

const fn mapped<T>(name: &'static str, entries: u32) -> Shape {
    Shape { name, kind: MapType::Array, key: 4, value: size_of::<T>() as u32, entries, flags: MMAPABLE }
}

const fn hash<K, V>(name: &'static str, entries: u32) -> Shape {
    Shape {
        name,
        kind: MapType::Hash,
        key: size_of::<K>() as u32,
        value: size_of::<V>() as u32,
        entries,
        flags: 0,
    }
}

const fn per_cpu<T>(name: &'static str, entries: u32) -> Shape {
    Shape { name, kind: MapType::PerCpuArray, key: 4, value: size_of::<T>() as u32, entries, flags: 0 }
}

/// Every map of these sizes.
pub fn shapes(sizes: Sizes) -> [Shape; 19] {
    let Sizes { flows, half_flows, listeners, slots } = sizes;
    let ways = WAYS as u32;
    [
        Shape { flags: 0, ..mapped::<Config>("config", 1) },
        hash::<Address, Vip>("vips", listeners),
        mapped::<u64>("vip_filter", VIP_FILTER_BITS / 64),
        hash::<ListenerKey, Listener>("listeners", listeners),
        mapped::<Choice>("choices", listeners),
        mapped::<u64>("rings", RING_WORDS),
        mapped::<Slot>("slots", slots),
        hash::<TargetKey, Sharers>("targets", slots),
        mapped::<u64>("target_filter", TARGET_FILTER_BITS / 64),
        mapped::<Bucket>("flows", flows / ways),
        mapped::<Bucket>("replies", flows / ways),
        mapped::<Bucket>("half_flows", half_flows / ways),
        mapped::<Bucket>("half_replies", half_flows / ways),
        mapped::<Client>("flow_clients", flows),
        mapped::<Client>("half_clients", half_flows),
        per_cpu::<u64>("reasons", REASONS),
        per_cpu::<Counts>("listener_counts", listeners),
        mapped::<SlotCounts>("slot_counts", slots),
        per_cpu::<SlotCounts>("slot_cpu_counts", SLOT_LINES),
    ]
}

#[cfg(test)]
mod tests {
    use super::{Sizes, shapes};
    use aya::maps::MapType;

    #[test]
    fn what_each_cpu_has_for_itself_stays_under_a_megabyte_however_many_targets_there_are() {
        let sizes = Sizes { slots: 1 << 22, ..Sizes::default() };
        let per_cpu = shapes(sizes).into_iter().filter(|shape| shape.kind == MapType::PerCpuArray);
        let bytes: u32 = per_cpu.map(|shape| shape.entries * shape.value.next_multiple_of(8)).sum();
        assert!(bytes < 1_000_000, "{bytes} bytes for each CPU");
    }

    #[test]
    fn sizes_are_rounded_to_what_maps_can_be() {
        let odd = Sizes { flows: 1_000_000, half_flows: 1, listeners: 100, slots: 0 };
        let even = Sizes { flows: 1 << 20, half_flows: 1024, listeners: 100, slots: 1 };
        assert_eq!(odd.rounded(), even);
        assert_eq!(Sizes::default().rounded(), Sizes::default());
    }

    #[test]
    fn no_two_maps_share_a_name_that_the_kernel_keeps() {
        let mut names: Vec<&str> = shapes(Sizes::default()).iter().map(|shape| shape.name).collect();
        assert!(names.iter().all(|name| name.len() <= 15));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), shapes(Sizes::default()).len());
    }
}
