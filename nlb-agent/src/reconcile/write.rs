//! The last part of the way: forwardings, plan and steps to the maps, and what happens when one cannot be written.

use super::{Reconcile, adopt, machine};
use crate::args::VipSource;
use crate::bpf::maps::Maps;
use crate::control::{Change, Planned};
use crate::health::{self, Forgotten};
use crate::model::{Forwarding, LoadBalancer};
use crate::plan::Step;
use crate::slots::{Epoch, Occupant};
use nlb_common::layout::ListenerKey;
use std::collections::{BTreeSet, HashSet};
use std::time::Instant;

impl Reconcile {
    /// The maps follow model and health.
    pub(super) fn write(&mut self, seen: Instant) -> Option<Epoch> {
        if self.unread.is_some() {
            return None;
        }
        let mut forwardings = self.forwardings(&self.model().load_balancers);
        if self.partial && !self.data_path.adopted {
            forwardings.extend(self.carried_over(&forwardings));
        }
        let planned = if self.partial {
            let strangers = &self.strangers;
            let is_strange =
                |listener: &ListenerKey, it: &Occupant| strangers.iter().any(|s| sits(s, listener, it));
            self.control.apply_keeping(forwardings, &is_strange, self.elapsed)
        } else {
            self.control.apply(forwardings, self.elapsed)
        };
        let waits = self.run(&planned);
        if self.written {
            self.metrics.applied(seen.elapsed());
        }
        self.written = true;
        waits
    }

    /// As [`Self::write`], for the listeners that lead to these target groups alone.
    pub(super) fn write_some(&mut self, groups: &HashSet<String>, seen: Instant) -> Option<Epoch> {
        if self.partial || self.unwritten.is_some() {
            return self.write(seen);
        }
        let places: BTreeSet<usize> =
            groups.iter().flat_map(|group| self.translation.users(group)).copied().collect();
        let load_balancers = &self.model().load_balancers;
        let forwardings = self.forwardings(places.iter().map(|place| &load_balancers[*place]));
        let planned = self.control.apply_some(forwardings, self.elapsed);
        let waits = self.run(&planned);
        self.metrics.applied(seen.elapsed());
        waits
    }

    /// Behind the maps of another layout nothing is adopted: what cannot be read yet goes on as the last agent wrote it down.
    fn carried_over(&self, known: &[Forwarding]) -> Vec<Forwarding> {
        let known: HashSet<ListenerKey> = known.iter().map(|it| it.listener).collect();
        let mut absent = self.forwardings(self.memory.absent());
        absent.retain(|it| !known.contains(&it.listener));
        absent
    }

    fn forwardings<'a>(&self, of: impl IntoIterator<Item = &'a LoadBalancer>) -> Vec<Forwarding> {
        let node_vip = self.vip_source == VipSource::Node;
        health::forwardings_of(of, &self.health, |_| node_vip)
    }

    /// Tries a failed write again.
    pub fn retry(&mut self) -> Option<Epoch> {
        self.unwritten.as_ref()?;
        self.readopt();
        if self.unread.is_none() { self.write(Instant::now()) } else { None }
    }

    /// A grace period has passed: what nothing leads to any more may be used again.
    pub fn grace(&mut self, epoch: Epoch) -> Option<Epoch> {
        if self.unread.is_some() {
            return None;
        }
        // A grace period that an earlier control asked for says nothing of this one's steps.
        let epoch = epoch.0.checked_sub(self.void).filter(|epoch| *epoch > 0)?;
        self.elapsed = self.elapsed.max(Epoch(epoch));
        let planned = self.control.change(Change::default(), self.elapsed);
        self.run(&planned)
    }

    fn run(&mut self, planned: &Planned) -> Option<Epoch> {
        let maps = &mut self.data_path.maps;
        let failed = planned.steps.iter().find_map(|step| Some((step, run(maps, step).err()?)));
        if let Some((step, error)) = failed {
            let (map, element) = (step.map(), step.element());
            tracing::error!(map, element, %error, "a map could not be written; reading the maps back");
            self.unwritten = Some(machine::unwritten(&self.node, step, &error));
            self.unread = Some(planned.epoch);
            self.readopt();
            return None;
        }
        self.unwritten = None;
        self.shortfalls = self.lasting(&planned.shortfalls);
        planned.waiting.then_some(Epoch(self.void + planned.epoch.0))
    }

    /// After a failed write only the maps themselves know what they hold; the next turn mends the rest.
    fn readopt(&mut self) {
        let Some(last) = self.unread else { return };
        match adopt(&self.data_path, &self.control.saved()) {
            Ok(control) => {
                self.control = control;
                self.elapsed = Epoch::default();
                self.void += last.0;
                self.unread = None;
            }
            Err(error) => tracing::error!(%error, "reading the maps back failed"),
        }
    }
}

/// True if this is the forgotten target, in a listener that its Service may have.
pub(super) fn sits(forgotten: &Forgotten, listener: &ListenerKey, occupant: &Occupant) -> bool {
    let Forgotten { group, key, .. } = forgotten;
    let of_group = health::listener_of(group)
        .is_some_and(|(_, port, protocol)| (port, protocol.number()) == (listener.port, listener.protocol));
    let is_known_otherwise = occupant.known.as_ref().is_some_and(|known| known.uid != key.uid);
    of_group && (occupant.ip, occupant.port) == (key.ip, key.port) && !is_known_otherwise
}

/// One write.
///
/// # Errors
/// The kernel refused it: the maps must then be read back and adopted.
pub fn run(maps: &mut Maps, step: &Step) -> std::io::Result<()> {
    match step {
        Step::ResetSlotCounts { slot } => maps.reset_slot_counts(*slot),
        Step::ResetListenerCounts { listener } => maps.reset_listener_counts(*listener),
        Step::SetTargetFilterWord { word, bits } => maps.set_target_filter_word(*word, *bits),
        Step::PutSlot { slot, value } | Step::SetIdle { slot, value } => maps.put_slot(*slot, value),
        Step::PutTarget { key, sharers } => maps.put_target(key, sharers),
        Step::WriteRegion { at, words } => maps.write_ring_words(*at, words),
        Step::SetChoice { listener, at } => maps.set_choice(*listener, *at),
        Step::SetVipFilterWord { word, bits } => maps.set_vip_filter_word(*word, *bits),
        Step::PutVip { address, vip } => maps.put_vip(address, vip),
        Step::PutListener { key, listener } => maps.put_listener(key, listener),
        Step::RemoveListener { key } => maps.remove_listener(key),
        Step::ClearChoice { listener } => maps.set_choice(*listener, 0),
        Step::RemoveVip { address } => maps.remove_vip(address),
        Step::RemoveTarget { key } => maps.remove_target(key),
        Step::FreeSlot { slot, generation } => maps.free_slot(*slot, *generation),
    }
}
