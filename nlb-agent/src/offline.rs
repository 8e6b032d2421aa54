//! What can be said when no agent runs: what the pinned maps hold.

use crate::bpf::PinnedMaps;
use crate::bpf::flows;
use crate::bpf::verdict::Stage;
use crate::cli::Offline;
use crate::held::{self, Fill};
use crate::report::{Agent, FlowFilter, Snapshot};
use crate::snapshot;
use anyhow::{Context, bail};
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
        let mut found = held(&maps, &living)?;
        if let Some(filter) = flows {
            found.flows = snapshot::flows(&maps, filter).context("reading the flow tables")?;
        }
        Ok(found)
    }
}

fn held(maps: &PinnedMaps, living: &Living) -> anyhow::Result<Snapshot> {
    let listeners = maps.listeners().context("reading the map `listeners`")?;
    let vips = maps.vips().context("reading the map `vips`")?;
    let slots = maps.used_slots();
    let fill = Fill {
        flows: living.established,
        half_flows: living.half_open,
        listeners: listeners.len(),
        slots: slots.len(),
        vips: vips.len(),
    };
    let mut found = Snapshot {
        agent: Agent { running: false, layout: Some(maps.config.layout), ..Agent::default() },
        tables: held::tables(fill, maps.sizes),
        vips: vips.iter().map(|(address, _)| held::vip(address.ip())).collect(),
        reasons: snapshot::reasons(maps),
        ..Snapshot::default()
    };
    for (key, listener) in &listeners {
        let counts = maps.listener_counts(listener.id)?;
        found.listeners.extend(held::listener(key, &counts, living.of_listener(listener.id)));
    }
    for (number, slot) in &slots {
        let counts = maps.slot_counts(*number)?;
        found.targets.extend(held::target(slot, &counts, living.of_slot(*number)));
    }
    Ok(found)
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
