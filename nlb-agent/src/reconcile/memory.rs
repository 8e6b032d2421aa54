//! What outlives the agent: written down as it changes, taken up by the next one.

use super::Reconcile;
use super::writer::{Pages, Writer};
use crate::manifests::Known;
use crate::model::{LoadBalancer, Model};
use crate::saved::{self, Files, LastGood, Saved};
use crate::translate::Extent;
use crate::vips::Allocations;
use crate::{health, slots};
use std::borrow::Cow;
use std::time::{Duration, Instant};

/// What is known from the last agent, and what is still to be written for the next.
#[derive(Debug)]
pub(super) struct Memory {
    /// Addresses that were given before this agent began.
    pub(super) vips: Allocations,
    /// Something in the state file may have changed.
    pub(super) unsaved: bool,
    /// The last agent's load balancers that this one could not read yet.
    absent: LastGood,
    /// Something but endpoints may have changed in the load balancers.
    settings_unsaved: bool,
    writer: Writer,
    /// When pages were last filled, and how long that took.
    last_save: Option<(Instant, Duration)>,
}

impl Memory {
    /// Reads what the last agent wrote; states, slots and folders are for others to keep.
    pub(super) fn read(files: Files) -> (Self, health::Saved, slots::Saved, Known) {
        let Saved { vips, health, slots, manifests } = saved::read(&files.state);
        let absent = LastGood::read(&files.last_good);
        let writer = Writer::new(files);
        let memory = Self { vips, unsaved: false, absent, settings_unsaved: false, writer, last_save: None };
        (memory, health, slots, manifests)
    }

    /// True if it is known of every Service how it was last built.
    pub(super) fn is_whole(&self) -> bool {
        self.absent.whole
    }

    /// The last agent's load balancers that could not be read yet.
    pub(super) fn absent(&self) -> &[LoadBalancer] {
        &self.absent.load_balancers
    }

    /// What was built last: this agent's model, and what the last agent had beside it.
    pub(super) fn previous<'a>(&self, model: &'a Model) -> Cow<'a, Model> {
        if self.absent.load_balancers.is_empty() {
            return Cow::Borrowed(model);
        }
        let load_balancers =
            model.load_balancers.iter().chain(&self.absent.load_balancers).cloned().collect();
        Cow::Owned(Model { load_balancers, ..Model::default() })
    }

    /// Notes what of the model may have changed: endpoints come and go all the time, and are not in the file of settings.
    pub(super) fn note(&mut self, extent: &Extent) {
        self.unsaved |= *extent != Extent::Nothing;
        self.settings_unsaved |= *extent == Extent::All;
    }

    /// What is built now need not be remembered, and what is gone for sure shall not be.
    pub(super) fn forget(&mut self, model: &Model, partial: bool) {
        if partial {
            self.absent.without(&model.load_balancers);
        } else if !std::mem::take(&mut self.absent.load_balancers).is_empty() {
            self.settings_unsaved = true;
        }
    }
}

/// What may be done between two changes.
const QUICK: Duration = Duration::from_millis(5);

impl Reconcile {
    /// Has what changed written for the next agent, unless that would keep others waiting: [`Self::save_slowly`] does it then.
    pub(super) fn save_soon(&mut self) {
        if self.memory.last_save.is_none_or(|(at, took)| took < QUICK && at.elapsed() > 10 * took) {
            self.save();
        }
    }

    /// The same, for a time when nothing waits; still not where most of the time would go.
    pub fn save_slowly(&mut self) {
        if self.memory.last_save.is_none_or(|(at, took)| at.elapsed() > 10 * took) {
            self.save();
        }
    }

    /// Has what may have changed written for the next agent.
    pub fn save(&mut self) {
        self.memory.settings_unsaved |= self.memory.writer.has_failed();
        if !std::mem::take(&mut self.memory.unsaved) || !self.written {
            return;
        }
        let began = Instant::now();
        let load_balancers = &self.translation.model().load_balancers;
        let vips = Allocations::of(load_balancers).or(&self.memory.vips);
        let manifests = self.sources.known.clone();
        let state = Saved { vips, health: self.health.saved(), slots: self.control.saved(), manifests };
        let last_good = std::mem::take(&mut self.memory.settings_unsaved)
            .then(|| load_balancers.iter().chain(&self.memory.absent.load_balancers).cloned().collect());
        self.memory.writer.write(Pages { state, last_good });
        self.memory.last_save = Some((Instant::now(), began.elapsed()));
    }
}
