//! The BTF maps: names and types as people see them in `bpftool map`, sizes as the agent overrides them at load.

use aya_ebpf::btf_maps::{Array, HashMap, PerCpuArray};
use aya_ebpf::macros::btf_map;
use nlb_common::address::Address;
use nlb_common::layout::{
    Bucket, Choice, Client, Config, Counts, Listener, ListenerKey, SLOT_LINES, Sharers, Slot, SlotCounts,
    TARGET_FILTER_BITS, TargetKey, VIP_FILTER_BITS, Vip, WAYS,
};
use nlb_common::reasons::Reason;

/// `BPF_F_MMAPABLE`: the agent reads and writes the elements as memory.
const MMAPABLE: usize = 0x400;

const MANY_LISTENERS: usize = 1 << 14;
const MANY_SLOTS: usize = 1 << 17;
const FLOW_BUCKETS: usize = (1 << 20) / WAYS;
const HALF_BUCKETS: usize = (1 << 18) / WAYS;
const RING_WORDS: usize = 1 << 22;
const VIP_WORDS: usize = VIP_FILTER_BITS as usize / 64;
const TARGET_WORDS: usize = TARGET_FILTER_BITS as usize / 64;

macro_rules! maps {
    ($($symbol:ident $name:literal: $map:ty;)*) => {
        $(#[btf_map(name = $name)] pub static $symbol: $map = <$map>::new();)*
    };
}

maps! {
    CONFIG "config": Array<Config, 1>;
    VIPS "vips": HashMap<Address, Vip, MANY_LISTENERS>;
    VIP_FILTER "vip_filter": Array<u64, VIP_WORDS, MMAPABLE>;
    LISTENERS "listeners": HashMap<ListenerKey, Listener, MANY_LISTENERS>;
    CHOICES "choices": Array<Choice, MANY_LISTENERS, MMAPABLE>;
    RINGS "rings": Array<u64, RING_WORDS, MMAPABLE>;
    SLOTS "slots": Array<Slot, MANY_SLOTS, MMAPABLE>;
    TARGETS "targets": HashMap<TargetKey, Sharers, MANY_SLOTS>;
    TARGET_FILTER "target_filter": Array<u64, TARGET_WORDS, MMAPABLE>;
    FLOWS "flows": Array<Bucket, FLOW_BUCKETS, MMAPABLE>;
    REPLIES "replies": Array<Bucket, FLOW_BUCKETS, MMAPABLE>;
    HALF_FLOWS "half_flows": Array<Bucket, HALF_BUCKETS, MMAPABLE>;
    HALF_REPLIES "half_replies": Array<Bucket, HALF_BUCKETS, MMAPABLE>;
    FLOW_CLIENTS "flow_clients": Array<Client, { FLOW_BUCKETS * WAYS }, MMAPABLE>;
    HALF_CLIENTS "half_clients": Array<Client, { HALF_BUCKETS * WAYS }, MMAPABLE>;
    DESK "desk": PerCpuArray<[u64; 16], 1>;
    SCRATCH "scratch": PerCpuArray<u64, 1>;
    REASONS "reasons": PerCpuArray<u64, { Reason::COUNT }>;
    LISTENER_COUNTS "listener_counts": PerCpuArray<Counts, MANY_LISTENERS>;
    SLOT_COUNTS "slot_counts": Array<SlotCounts, MANY_SLOTS, MMAPABLE>;
    SLOT_CPU_COUNTS "slot_cpu_counts": PerCpuArray<SlotCounts, { SLOT_LINES as usize }>;
}
