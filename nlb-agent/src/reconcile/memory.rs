//! What outlives the agent: written down as it changes, taken up by the next one.

use super::Reconcile;
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
    files: Files,
    /// When was last written, and how long that took.
    last_save: Option<(Instant, Duration)>,
}

impl Memory {
    /// Reads what the last agent wrote; states and slots are for others to keep.
    pub(super) fn read(files: Files) -> (Self, health::Saved, slots::Saved) {
        let Saved { vips, health, slots } = saved::read(&files.state);
        let absent = LastGood::read(&files.last_good);
        let memory = Self { vips, unsaved: false, absent, settings_unsaved: false, files, last_save: None };
        (memory, health, slots)
    }

    /// True if it is known of every Service how it was last built.
    pub(super) fn is_whole(&self) -> bool {
        self.absent.whole
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

impl Reconcile {
    /// Writes the files now, unless that is where most of the time would go; the next tick does it then.
    pub(super) fn save_soon(&mut self) {
        if self.memory.last_save.is_none_or(|(at, took)| at.elapsed() > 10 * took) {
            self.save();
        }
    }

    /// Writes what may have changed for the next agent.
    pub fn save(&mut self) {
        if !std::mem::take(&mut self.memory.unsaved) || !self.written {
            return;
        }
        let began = Instant::now();
        let vips = Allocations::of(&self.model().load_balancers).or(&self.memory.vips);
        let state = Saved { vips, health: self.health.saved(), slots: self.control.saved() };
        note(saved::write(&self.memory.files.state, &state), "targets begin anew");
        // Endpoints come and go all the time; these do not, and are many.
        if self.memory.settings_unsaved {
            let all: Vec<&LoadBalancer> =
                self.model().load_balancers.iter().chain(&self.memory.absent.load_balancers).collect();
            let written = saved::write(&self.memory.files.last_good, &all);
            self.memory.settings_unsaved = written.is_err();
            note(written, "a Service whose annotation is bad then has no earlier state");
        }
        self.memory.last_save = Some((Instant::now(), began.elapsed()));
    }
}

fn note(written: anyhow::Result<()>, otherwise: &str) {
    if let Err(error) = written {
        tracing::warn!("{error:#}; after a restart now {otherwise}");
    }
}
