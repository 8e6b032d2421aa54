//! What the pinned maps tell when no agent runs: addresses and counters, but no names and no health.

use crate::bpf::PinnedMaps;
use crate::bpf::flows;
use crate::bpf::verdict::Stage;
use crate::cli::Offline;
use crate::report::{self, Agent, FlowFilter, ListenerAddress, Snapshot, Table};
use crate::snapshot;
use anyhow::{Context, bail};
use nlb_common::layout::Slot;
use std::collections::HashMap;
use std::path::Path;

/// Reads the pins.
#[derive(Clone, Copy, Debug)]
pub struct Pinned;

impl Offline for Pinned {
    fn snapshot(&self, pin_path: &Path, flows: Option<&FlowFilter>) -> anyhow::Result<Snapshot> {
        let Some(maps) = PinnedMaps::open(pin_path)? else {
            bail!(
                "nothing is pinned in {}: nlb-agent has not run on this node, or was detached",
                pin_path.display()
            );
        };
        let living = Living::of(&maps).context("reading the flow tables")?;
        let listeners = maps.listeners().context("reading the map `listeners`")?;
        let slots = maps.used_slots();
        let mut found = Snapshot {
            agent: Agent { running: false, layout: Some(maps.config.layout), ..Agent::default() },
            tables: vec![
                table("flows", living.established, maps.sizes.flows),
                table("half_flows", living.half_open, maps.sizes.half_flows),
                table("listeners", listeners.len() as u32, maps.sizes.listeners),
                table("slots", slots.len() as u32, maps.sizes.slots),
            ],
            reasons: snapshot::reasons(&maps),
            ..Snapshot::default()
        };
        for (key, listener) in &listeners {
            let Some(address) = ListenerAddress::of(key) else { continue };
            let counts = maps.listener_counts(&[listener.id])?.pop().unwrap_or_default();
            found.listeners.push(report::Listener {
                listener: address,
                namespace: None,
                service: None,
                healthy: None,
                registered: None,
                fail_open: None,
                traffic: snapshot::traffic(&counts, living.of_listener(listener.id)),
                drops: snapshot::drops(&counts),
            });
        }
        for (number, slot) in &slots {
            let counts = maps.slot_counts(&[*number])?.pop().unwrap_or_default();
            let traffic = snapshot::traffic(&counts, living.of_slot(*number));
            found.targets.extend(target(slot, traffic));
        }
        if let Some(filter) = flows {
            found.flows = snapshot::flows(&maps, filter).context("reading the flow tables")?;
        }
        Ok(found)
    }
}

/// Live flows, counted without touching them.
#[derive(Default)]
struct Living {
    established: u32,
    half_open: u32,
    slots: HashMap<u32, u32>,
    listeners: HashMap<u32, u32>,
}

impl Living {
    fn of(maps: &PinnedMaps) -> std::io::Result<Self> {
        let all = flows::FlowFilter { listener: None, client: None, limit: usize::MAX };
        let mut living = Self::default();
        for flow in maps.flows(&all)?.flows {
            match flow.stage {
                Stage::HalfOpen => living.half_open += 1,
                Stage::Established | Stage::Closing => living.established += 1,
            }
            *living.slots.entry(flow.slot).or_default() += 1;
            *living.listeners.entry(flow.at.listener).or_default() += 1;
        }
        Ok(living)
    }

    fn of_slot(&self, number: u32) -> u32 {
        self.slots.get(&number).copied().unwrap_or_default()
    }

    fn of_listener(&self, id: u32) -> u32 {
        self.listeners.get(&id).copied().unwrap_or_default()
    }
}

fn table(name: &str, entries: u32, capacity: u32) -> Table {
    Table { name: name.into(), entries: entries.into(), capacity: capacity.into() }
}

fn target(slot: &Slot, traffic: report::Traffic) -> Option<report::Target> {
    Some(report::Target {
        namespace: None,
        service: None,
        listener: ListenerAddress::of(&slot.listener_key())?,
        target: (slot.target.ip(), slot.target_port).into(),
        node: None,
        zone: None,
        local: Some(true),
        weight: None,
        path: Some(report::Path::Local),
        via: Some(report::Via::Stack),
        path_reason: None,
        state: None,
        reason: None,
        description: None,
        since: None,
        traffic,
        checks: None,
    })
}
