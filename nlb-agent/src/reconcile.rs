//! Where the pure part and the machine meet: the model of now on one side, the maps on the other, and the way between them.

mod layout;
mod machine;
mod memory;
mod problems;
#[cfg(test)]
mod reuse_tests;
mod write;
mod writer;

use crate::args::VipSource;
use crate::bpf::DataPath;
use crate::bpf::sweep::Tally;
use crate::capacity::Limits;
use crate::contents::Contents;
use crate::control::Control;
use crate::health::{self, Checked, Checker, Forgotten, Health, Lateness, Load};
use crate::host::Host;
use crate::inputs::Inputs;
use crate::manifests::Sources;
use crate::metrics::Metrics;
use crate::model::{LoadBalancer, Model};
use crate::problem::{Effect, Problem};
use crate::saved::Files;
use crate::slots::{self, Epoch};
use crate::translate::{Extent, Renewal, Settings, Translation};
use crate::uplinks::Uplinks;
use crate::{bpf, settings};
use anyhow::Context;
use itertools::Itertools;
use jiff::Timestamp;
use memory::Memory;
use problems::log;
use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;
pub use write::run;

/// Everything that the agent holds.
pub struct Reconcile {
    /// `--node-name`.
    pub node: String,
    /// What the manifests say.
    pub sources: Sources,
    /// What that means.
    translation: Translation,
    /// How the targets are.
    pub health: Health,
    /// What the maps hold.
    pub control: Control,
    /// The kernel's side.
    pub data_path: DataPath,
    /// Where it is attached.
    pub uplinks: Uplinks,
    /// The machine.
    pub host: Host,
    /// Live flows, as last counted.
    pub tally: Tally,
    /// What is measured.
    pub metrics: Metrics,
    /// True once the maps hold what the first whole reading of the sources asked for.
    pub written: bool,
    flags: Settings,
    vip_source: VipSource,
    memory: Memory,
    checker: Checker,
    lateness: Lateness,
    elapsed: Epoch,
    /// Epochs of controls that failed writes have ended; the next one counts from 1 again.
    void: u64,
    shortfalls: Vec<Problem>,
    machine: Vec<Problem>,
    /// What was adopted may be more than what can be read now: nothing of it goes before everything was read once.
    partial: bool,
    /// Targets that were forgotten while `partial`: where their listeners go on from the maps, they go there, too.
    strangers: Vec<Forgotten>,
    /// The last write failed; the next tick tries again.
    unwritten: Option<Problem>,
    /// When this agent began.
    began: Instant,
    /// The maps were not read back yet since then: the last epoch of a control that does not know what they hold.
    unread: Option<Epoch>,
}

/// What a start needs.
pub struct Start {
    /// `--node-name`.
    pub node: String,
    /// The flags that decide how manifests are read.
    pub flags: Settings,
    /// `--vip`.
    pub vip_source: VipSource,
    /// Opened, not yet attached.
    pub data_path: DataPath,
    /// Nothing attached.
    pub uplinks: Uplinks,
    /// The machine.
    pub host: Host,
    /// Asks targets.
    pub checker: Checker,
    /// What the last agent wrote down, and this one shall.
    pub files: Files,
}

fn limits(data_path: &DataPath) -> Limits {
    let sizes = data_path.maps.sizes;
    Limits {
        listeners: sizes.listeners,
        vips: sizes.listeners,
        slots: sizes.slots,
        ring_words: bpf::pins::RING_WORDS,
        hz: data_path.maps.config.hz,
    }
}

/// Reads the maps back; nobody else writes them, and readers of what was written last are waited for.
fn adopt(data_path: &DataPath, slots: &slots::Saved) -> anyhow::Result<Control> {
    data_path.maps.wait_for_readers().context("waiting for a grace period")?;
    let dump = data_path.maps.dump().context("reading the maps back")?;
    let limits = limits(data_path);
    Ok(Control::adopt(limits, Contents::read(dump, &limits)?, slots))
}

/// Says in the log which targets were forgotten.
fn told(forgotten: Vec<Forgotten>) -> Vec<Forgotten> {
    for Forgotten { group, key, uid, owner, slice } in &forgotten {
        tracing::info!(
            group,
            target = %key.socket(),
            pod = key.uid.as_deref().unwrap_or("unknown"),
            new_pod = uid.as_deref().unwrap_or("unknown"),
            new_owner = %owner,
            slice = %slice,
            "target forgotten with its flows: its address is another pod's now"
        );
    }
    forgotten
}

impl Reconcile {
    /// Takes over what an earlier agent left, or begins with empty maps; nothing is written yet.
    ///
    /// # Errors
    /// The maps cannot be read.
    pub fn begin(start: Start) -> anyhow::Result<Self> {
        let Start { node, flags, vip_source, data_path, uplinks, host, checker, files } = start;
        let (memory, health, slots, known) = Memory::read(files);
        let control =
            if data_path.adopted { adopt(&data_path, &slots)? } else { Control::new(limits(&data_path)) };
        let mut new = Self {
            node,
            sources: Sources { known, ..Sources::default() },
            translation: Translation::of(&Arc::<Inputs>::default(), &flags, None),
            health: Health::restored(health, Timestamp::now()),
            control,
            data_path,
            uplinks,
            host,
            tally: Tally::default(),
            metrics: Metrics::default(),
            written: false,
            flags,
            vip_source,
            memory,
            checker,
            lateness: Lateness::default(),
            elapsed: Epoch::default(),
            void: 0,
            shortfalls: Vec::new(),
            machine: Vec::new(),
            partial: false,
            strangers: Vec::new(),
            unwritten: None,
            unread: None,
            began: Instant::now(),
        };
        // Behind another layout's maps nothing is adopted, and what they serve must not be lost with them either.
        new.partial = new.data_path.adopted || new.data_path.is_coming();
        Ok(new)
    }

    /// The sources said something new; `seen` is when. `Some` is a grace period to wait for.
    pub fn read(&mut self, sources: Sources, seen: Instant) -> Option<Epoch> {
        // Thousands of objects are not given back while a change waits.
        let before = std::mem::replace(&mut self.sources, sources);
        self.memory.unsaved |= self.sources.known != before.known;
        let waits = self.translate(seen);
        drop(before);
        waits
    }

    /// The machine is as it is now: attaches what is missing and reads the manifests anew where they depend on it.
    pub fn look(&mut self, host: Host) -> Option<Epoch> {
        let changed = host.network != self.host.network || host.ports != self.host.ports;
        self.host = host;
        let attached = self.attach();
        let waits = if changed { self.translate(Instant::now()) } else { None };
        // What was read shows other programs than those that were attached just now: the next look is the one to judge.
        if !attached {
            self.judge_machine();
        }
        waits
    }

    /// Whether everything is still attached.
    pub fn verify(&mut self) {
        self.uplinks.verify(&mut self.data_path.links, Instant::now());
    }

    fn translate(&mut self, seen: Instant) -> Option<Epoch> {
        if !self.sources.synced {
            return None;
        }
        let names = self.uplinks.names(&self.host.network);
        let vips = settings::vips(&self.flags, self.vip_source, &self.host.network, &names, &self.host.ports);
        let settings = Settings {
            node_name: Some(self.node.clone()),
            node_addresses: settings::node_addresses(&self.host.network),
            vips,
            remembered: self.memory.vips.clone(),
            ..self.flags.clone()
        };
        let Renewal { extent, found, claimed } = self.renew(&settings);
        if extent == Extent::Nothing && self.written && !self.partial {
            return None;
        }
        found.iter().for_each(log);
        self.memory.note(&extent);
        let waits = match extent {
            Extent::Targets(places) => self.weigh_some(&places, &claimed, seen),
            Extent::Nothing | Extent::All => {
                self.partial &= self.is_unreadable();
                self.memory.forget(self.translation.model(), self.partial);
                self.weigh(seen)
            }
        };
        self.save_soon();
        waits
    }

    /// While the last agent's Services are not all read, what they were counts as what was built last.
    fn renew(&mut self, settings: &Settings) -> Renewal {
        let inputs = &self.sources.inputs;
        if self.written && !self.partial {
            return self.translation.renew(inputs, settings);
        }
        let new = Translation::of(inputs, settings, Some(&self.memory.previous(self.translation.model())));
        self.translation.replace(new)
    }

    /// Targets, checks and maps follow the model.
    fn weigh(&mut self, seen: Instant) -> Option<Epoch> {
        let model = self.translation.model();
        if self.partial {
            self.strangers.extend(told(self.health.update_keeping(model, Timestamp::now())));
        } else {
            told(self.health.update(model, Timestamp::now()));
            self.strangers.clear();
        }
        self.checker.set(health::checks(model, &self.health));
        self.write(seen)
    }

    /// As [`Self::weigh`], for the targets of the load balancers at these places, and for addresses that slices claim
    /// otherwise than before.
    fn weigh_some(&mut self, places: &[usize], claimed: &BTreeSet<IpAddr>, seen: Instant) -> Option<Epoch> {
        let model = self.translation.model();
        let changed = || places.iter().map(|place| &model.load_balancers[*place]);
        let forgotten = told(self.health.update_some(changed(), claimed, model, Timestamp::now()));
        let elsewhere = forgotten.iter().filter_map(|it| model.target_group(&it.group));
        let mut groups = HashSet::new();
        for group in changed().flat_map(|it| &it.target_groups).chain(elsewhere) {
            if groups.insert(group.name.clone()) {
                self.checker.set_group(&group.name, health::checks_of(group, &self.health));
            }
        }
        self.write_some(&groups, seen)
    }

    /// Health checks have ended.
    pub fn checked(&mut self, all: impl IntoIterator<Item = Checked>) -> Option<Epoch> {
        let seen = Instant::now();
        let mut changed = HashSet::new();
        for Checked { group, key, outcome, .. } in all {
            let shown = |it: &health::Status| (it.state(), it.has_lost_flows());
            let before = self.health.status(&group, &key).map(shown);
            if self.health.outcome(&group, &key, &outcome, Timestamp::now()) {
                changed.insert(group.to_string());
            }
            if let Some(status) = self.health.status(&group, &key)
                && before != Some(shown(status))
            {
                let (state, target) = (status.state().word(), key.socket());
                tracing::info!(group = &*group, %target, state, why = &*status.description(), "target");
            }
            self.memory.unsaved = true;
        }
        if changed.is_empty() {
            return None;
        }
        let waits = self.write_some(&changed, seen);
        // An agent that is killed a moment later must not find a target healthy again that is not.
        self.save_soon();
        waits
    }

    /// A drain has ended, or so it was thought.
    pub fn deadline(&mut self) -> Option<Epoch> {
        self.memory.unsaved = true;
        if self.partial {
            return self.weigh(Instant::now());
        }
        let due = self.health.due(Timestamp::now());
        let ended = |it: &LoadBalancer| it.target_groups.iter().any(|group| due.contains(&group.name));
        let places: Vec<usize> = self.model().load_balancers.iter().positions(ended).collect();
        self.weigh_some(&places, &BTreeSet::new(), Instant::now())
    }

    /// Something that an earlier agent may have served cannot be read now, or cannot be built and it is unknown how it was.
    fn is_unreadable(&self) -> bool {
        let refused = |it: &Problem| it.effect == Effect::LoadBalancerRefused;
        let unknown = !self.memory.is_whole() && self.model().problems.iter().any(refused);
        self.sources.doubtful || unknown
    }

    /// What the sources mean.
    pub fn model(&self) -> &Model {
        self.translation.model()
    }

    /// How busy the checks are.
    pub fn checks(&self) -> Load {
        self.checker.load()
    }

    /// When something is due although nothing happens: the end of a drain.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.health.next_deadline()
    }
}
