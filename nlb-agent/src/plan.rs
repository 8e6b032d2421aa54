//! The steps from one image of the maps to another, in an order in which no packet is ever misled.

use crate::contents::{Contents, sharers};
use nlb_common::address::Address;
use nlb_common::layout::{Choice, Listener, ListenerKey, Sharers, Slot, TCP, TargetKey, UDP, Vip};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// One write to one map.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are keys and values of the maps")]
pub enum Step {
    /// Zero the element of `slot_counts`: the slot is given to a target.
    ResetSlotCounts { slot: u32 },
    /// Zero the element of `listener_counts`: the id is given to a listener.
    ResetListenerCounts { listener: u32 },
    /// Store a word of `target_filter`.
    SetTargetFilterWord { word: u32, bits: u64 },
    /// Fill a slot that was free.
    PutSlot { slot: u32, value: Slot },
    /// Change the idle timeout of a slot in use: every byte but those of `idle` is as it was.
    SetIdle { slot: u32, value: Slot },
    /// Put an element of `targets`.
    PutTarget { key: TargetKey, sharers: Sharers },
    /// Write words of `rings` that no choice leads to: a ring, or a listener's members.
    WriteRegion { at: u32, words: Vec<u64> },
    /// Publish a listener's members by one store, after all that was written before it (release order).
    SetChoice { listener: u32, at: Choice },
    /// Store a word of `vip_filter`.
    SetVipFilterWord { word: u32, bits: u64 },
    /// Put an element of `vips`.
    PutVip { address: Address, vip: Vip },
    /// Put an element of `listeners`.
    PutListener { key: ListenerKey, listener: Listener },
    /// Remove an element of `listeners`.
    RemoveListener { key: ListenerKey },
    /// Store 0 as the choice of a listener that is gone.
    ClearChoice { listener: u32 },
    /// Remove an element of `vips`.
    RemoveVip { address: Address },
    /// Remove an element of `targets`.
    RemoveTarget { key: TargetKey },
    /// Empty a slot that nothing leads to: all zero but this generation.
    FreeSlot { slot: u32, generation: u32 },
}

impl Step {
    /// The name of the map that it writes to.
    pub fn map(&self) -> &'static str {
        match self {
            Self::ResetSlotCounts { .. } => "slot_counts",
            Self::ResetListenerCounts { .. } => "listener_counts",
            Self::SetTargetFilterWord { .. } => "target_filter",
            Self::PutSlot { .. } | Self::SetIdle { .. } | Self::FreeSlot { .. } => "slots",
            Self::PutTarget { .. } | Self::RemoveTarget { .. } => "targets",
            Self::WriteRegion { .. } => "rings",
            Self::SetChoice { .. } | Self::ClearChoice { .. } => "choices",
            Self::SetVipFilterWord { .. } => "vip_filter",
            Self::PutVip { .. } | Self::RemoveVip { .. } => "vips",
            Self::PutListener { .. } | Self::RemoveListener { .. } => "listeners",
        }
    }

    /// The element of the map, as people write it: an index, or address, port and protocol. Of several words of `rings` the first.
    pub fn element(&self) -> String {
        match self {
            Self::ResetSlotCounts { slot: index }
            | Self::PutSlot { slot: index, .. }
            | Self::SetIdle { slot: index, .. }
            | Self::FreeSlot { slot: index, .. }
            | Self::ResetListenerCounts { listener: index }
            | Self::SetChoice { listener: index, .. }
            | Self::ClearChoice { listener: index }
            | Self::SetTargetFilterWord { word: index, .. }
            | Self::SetVipFilterWord { word: index, .. }
            | Self::WriteRegion { at: index, .. } => index.to_string(),
            Self::PutVip { address, .. } | Self::RemoveVip { address } => address.ip().to_string(),
            Self::PutListener { key, .. } | Self::RemoveListener { key } => {
                address(key.vip, key.port, key.protocol)
            }
            Self::PutTarget { key, .. } | Self::RemoveTarget { key } => {
                address(key.address, key.port, key.protocol)
            }
        }
    }
}

fn address(address: Address, port: u16, protocol: u8) -> String {
    let socket = SocketAddr::new(address.ip(), port);
    match protocol {
        TCP => format!("{socket}/TCP"),
        UDP => format!("{socket}/UDP"),
        other => format!("{socket}/{other}"),
    }
}

/// The new values of what changes between two images; `None` removes. What is as it was may be named, too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the maps' names")]
pub struct Edits {
    pub slots: BTreeMap<u32, Slot>,
    pub targets: BTreeMap<TargetKey, Option<Sharers>>,
    pub target_filter: BTreeMap<u32, u64>,
    /// Runs of words in `rings`, by their first word.
    pub regions: BTreeMap<u32, Vec<u64>>,
    pub choices: BTreeMap<u32, Choice>,
    pub vip_filter: BTreeMap<u32, u64>,
    pub vips: BTreeMap<Address, Option<Vip>>,
    pub listeners: BTreeMap<ListenerKey, Option<Listener>>,
}

/// Steps from `now` to `wanted`. Every prefix of them leaves the maps coherent.
///
/// `wanted` must come from `now` by rules that only a history can keep ([`control`](crate::control) does): a slot in
/// use is never another target's at once, and words of `rings` in use are never others'.
///
/// # Panics
/// If a slot in use is to change more than its idle timeout.
pub fn plan(now: &Contents, wanted: &Contents) -> Vec<Step> {
    order(now, &Edits::between(now, wanted))
}

/// The edits as steps: what others lead to first, then what leads there; on the way out the other way round.
///
/// # Panics
/// If a slot in use is to change more than its idle timeout.
pub fn order(now: &Contents, edits: &Edits) -> Vec<Step> {
    let mut steps = Vec::new();
    build(now, edits, &mut steps);
    publish(now, edits, &mut steps);
    withdraw(now, edits, &mut steps);
    clear(now, edits, &mut steps);
    steps
}

/// Slots, targets and regions that nothing leads to yet.
fn build(now: &Contents, edits: &Edits, steps: &mut Vec<Step>) {
    for (&word, &bits) in &edits.target_filter {
        let before = now.target_filter[word as usize];
        steps.extend(
            (before | bits != before).then_some(Step::SetTargetFilterWord { word, bits: before | bits }),
        );
    }
    for (&slot, &value) in edits.slots.iter().filter(|(_, slot)| slot.protocol != 0) {
        let before = now.slots[slot as usize];
        if before.protocol == 0 {
            steps.extend([Step::ResetSlotCounts { slot }, Step::PutSlot { slot, value }]);
        } else if before != value {
            assert_eq!(Slot { idle: value.idle, ..before }, value, "slot {slot} is in use");
            steps.push(Step::SetIdle { slot, value });
        }
    }
    for (&key, &wanted) in &edits.targets {
        let Some(wanted) = wanted else { continue };
        let before = now.targets.get(&key).copied();
        let both = before.map_or(wanted, |before| union(before, wanted));
        steps.extend((before != Some(both)).then_some(Step::PutTarget { key, sharers: both }));
    }
    for (&at, words) in &edits.regions {
        let before = &now.rings[at as usize..at as usize + words.len()];
        steps.extend((before != words).then(|| Step::WriteRegion { at, words: words.clone() }));
    }
}

/// What leads packets there.
fn publish(now: &Contents, edits: &Edits, steps: &mut Vec<Step>) {
    let closed = closed(now, edits);
    for (&listener, &at) in &edits.choices {
        let changed = now.choices[listener as usize] != at && !closed.contains(&listener);
        steps.extend(changed.then_some(Step::SetChoice { listener, at }));
    }
    for (&word, &bits) in &edits.vip_filter {
        let before = now.vip_filter[word as usize];
        steps.extend(
            (before | bits != before).then_some(Step::SetVipFilterWord { word, bits: before | bits }),
        );
    }
    for (&address, &vip) in &edits.vips {
        let changed = vip.filter(|vip| now.vips.get(&address) != Some(vip));
        steps.extend(changed.map(|vip| Step::PutVip { address, vip }));
    }
    for (&key, &listener) in &edits.listeners {
        let Some(listener) = listener.filter(|listener| now.listeners.get(&key) != Some(listener)) else {
            continue;
        };
        let known = now.listeners.get(&key).is_some_and(|before| before.id == listener.id);
        steps.extend((!known).then_some(Step::ResetListenerCounts { listener: listener.id }));
        steps.push(Step::PutListener { key, listener });
    }
}

/// What no longer leads packets there.
fn withdraw(now: &Contents, edits: &Edits, steps: &mut Vec<Step>) {
    for (&key, _) in edits
        .listeners
        .iter()
        .filter(|(key, listener)| listener.is_none() && now.listeners.contains_key(*key))
    {
        steps.push(Step::RemoveListener { key });
    }
    for listener in closed(now, edits) {
        let cleared = now.choices.get(listener as usize).is_some_and(|at| *at != 0);
        steps.extend(cleared.then_some(Step::ClearChoice { listener }));
    }
    for (&address, _) in
        edits.vips.iter().filter(|(address, vip)| vip.is_none() && now.vips.contains_key(*address))
    {
        steps.push(Step::RemoveVip { address });
    }
    for (&word, &bits) in &edits.vip_filter {
        let set = now.vip_filter[word as usize] | bits;
        steps.extend((set != bits).then_some(Step::SetVipFilterWord { word, bits }));
    }
}

/// What nothing leads to any more.
fn clear(now: &Contents, edits: &Edits, steps: &mut Vec<Step>) {
    for (&key, &wanted) in &edits.targets {
        let before = now.targets.get(&key).copied();
        match (before, wanted) {
            (Some(before), Some(sharers)) if union(before, sharers) != sharers => {
                steps.push(Step::PutTarget { key, sharers });
            }
            (Some(_), None) => steps.push(Step::RemoveTarget { key }),
            (Some(_), Some(_)) | (None, Some(_) | None) => {}
        }
    }
    for (&word, &bits) in &edits.target_filter {
        let set = now.target_filter[word as usize] | bits;
        steps.extend((set != bits).then_some(Step::SetTargetFilterWord { word, bits }));
    }
    for (&slot, wanted) in edits.slots.iter().filter(|(_, slot)| slot.protocol == 0) {
        let changed = now.slots[slot as usize] != *wanted;
        steps.extend(changed.then_some(Step::FreeSlot { slot, generation: wanted.generation }));
    }
}

/// Ids whose listener goes away, or gets another id, and whose choice therefore becomes 0.
fn closed(now: &Contents, edits: &Edits) -> BTreeSet<u32> {
    let kept: BTreeSet<u32> = edits.listeners.values().flatten().map(|listener| listener.id).collect();
    let before = edits.listeners.keys().filter_map(|key| now.listeners.get(key)).map(|listener| listener.id);
    before.filter(|id| !kept.contains(id) && edits.choices.get(id) == Some(&0)).collect()
}

fn union(a: Sharers, b: Sharers) -> Sharers {
    sharers(&[a.slots, b.slots].concat())
}

impl Edits {
    /// What differs between two images of the same size.
    pub fn between(now: &Contents, wanted: &Contents) -> Self {
        Self {
            slots: changed(&now.slots, &wanted.slots),
            targets: changed_entries(&now.targets, &wanted.targets),
            target_filter: changed(&now.target_filter, &wanted.target_filter),
            regions: changed_runs(&now.rings, &wanted.rings),
            choices: changed(&now.choices, &wanted.choices),
            vip_filter: changed(&now.vip_filter, &wanted.vip_filter),
            vips: changed_entries(&now.vips, &wanted.vips),
            listeners: changed_entries(&now.listeners, &wanted.listeners),
        }
    }

    /// Makes these edits to an image at once, in no order that packets could bear.
    pub fn make(&self, contents: &mut Contents) {
        self.slots.iter().for_each(|(slot, value)| contents.slots[*slot as usize] = *value);
        self.choices.iter().for_each(|(id, at)| contents.choices[*id as usize] = *at);
        self.target_filter.iter().for_each(|(word, bits)| contents.target_filter[*word as usize] = *bits);
        self.vip_filter.iter().for_each(|(word, bits)| contents.vip_filter[*word as usize] = *bits);
        for (at, words) in &self.regions {
            contents.rings[*at as usize..*at as usize + words.len()].copy_from_slice(words);
        }
        put_or_remove(&mut contents.targets, &self.targets);
        put_or_remove(&mut contents.vips, &self.vips);
        put_or_remove(&mut contents.listeners, &self.listeners);
    }
}

fn changed<T: Copy + PartialEq>(now: &[T], wanted: &[T]) -> BTreeMap<u32, T> {
    (0..)
        .zip(now.iter().zip(wanted))
        .filter(|(_, (a, b))| a != b)
        .map(|(index, (_, b))| (index, *b))
        .collect()
}

fn changed_entries<K: Copy + Ord, V: Copy + PartialEq>(
    now: &BTreeMap<K, V>,
    wanted: &BTreeMap<K, V>,
) -> BTreeMap<K, Option<V>> {
    let gone = now.keys().filter(|key| !wanted.contains_key(key)).map(|key| (*key, None));
    let put = wanted
        .iter()
        .filter(|(key, value)| now.get(key) != Some(value))
        .map(|(key, value)| (*key, Some(*value)));
    gone.chain(put).collect()
}

fn changed_runs(now: &[u64], wanted: &[u64]) -> BTreeMap<u32, Vec<u64>> {
    let mut runs: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for (at, word) in changed(now, wanted) {
        let joined = runs.last_entry().filter(|run| run.key() + run.get().len() as u32 == at);
        match joined {
            Some(mut run) => run.get_mut().push(word),
            None => drop(runs.insert(at, vec![word])),
        }
    }
    runs
}

fn put_or_remove<K: Copy + Ord, V: Copy>(map: &mut BTreeMap<K, V>, edits: &BTreeMap<K, Option<V>>) {
    for (key, value) in edits {
        match value {
            Some(value) => drop(map.insert(*key, *value)),
            None => drop(map.remove(key)),
        }
    }
}
