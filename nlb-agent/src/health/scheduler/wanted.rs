//! Which checks the checker holds: what it is told to ask, and what it is told no more.

use super::{Ask, Ending, Entry, Group, Stage, Task};
use crate::health::checks::Check;
use crate::health::queue::{first_checks, phase};
use crate::health::urgency::Record;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::time::Instant;

impl<A: Ask> Task<A> {
    pub(super) fn set(&mut self, checks: &[Check], now: Instant) {
        self.begin(checks, now);
        let gone = self.entries.iter().filter(|(_, entry)| entry.round != self.round);
        let gone = gone.map(|(id, _)| *id).collect();
        self.end(gone);
    }

    pub(super) fn set_group(&mut self, group: &str, checks: &[Check], now: Instant) {
        self.begin(checks, now);
        let held = self.groups.get(group).into_iter().flat_map(|group| group.ids.values());
        let gone = held.filter(|id| self.entries.get(id).is_some_and(|entry| entry.round != self.round));
        let gone = gone.copied().collect();
        self.end(gone);
    }

    /// Takes in checks; those that are asked anew are queued.
    fn begin(&mut self, checks: &[Check], now: Instant) {
        self.round += 1;
        let fresh: Vec<u64> = checks.iter().filter_map(|check| self.take_in(check, now)).collect();
        for (due, &id) in first_checks(fresh.len(), now).zip(&fresh) {
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.due = due;
                self.queue.insert(due, id);
            }
        }
    }

    /// Ends checks, and gives up their places in line.
    fn end(&mut self, gone: Vec<u64>) {
        for id in gone {
            self.withdraw(id);
            let Some(entry) = self.entries.remove(&id) else { continue };
            let Check { group, key, .. } = &entry.check;
            if let Some(known) = self.groups.get_mut(group) {
                known.ids.remove(key);
                if known.ids.is_empty() {
                    self.groups.remove(group);
                }
            }
        }
    }

    /// Takes a check out of the queue, its line or its socket; its caller queues it again or forgets it.
    fn withdraw(&mut self, id: u64) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        match std::mem::replace(&mut entry.stage, Stage::Queued) {
            Stage::Queued => self.queue.remove(entry.due, id),
            Stage::Waits(since) => {
                self.waiting.remove(&(since, id));
            }
            // The check that was broken off for it has not ended yet.
            Stage::Granted { .. } => self.sockets.closing(),
            Stage::UnderWay(task) => {
                task.abort();
                self.under_way.insert(task.id(), Ending::Nothing);
                self.sockets.closing();
            }
        }
        self.sockets.leave(id);
    }

    /// Takes in one wanted check; its id if it must be made soon, because it is new or asks something else than before.
    fn take_in(&mut self, check: &Check, now: Instant) -> Option<u64> {
        let id = self.next_id;
        let group = self.groups.entry(Arc::clone(&check.group)).or_insert_with(|| {
            // The id of its first check is a number that no other group has.
            Group { number: id, ids: HashMap::new() }
        });
        if let Some(&id) = group.ids.get(&check.key) {
            return self.renew(id, check, now);
        }
        self.next_id += 1;
        let entry = Entry {
            check: check.clone(),
            group: group.number,
            phase: phase((&check.group, &check.key)),
            due: now,
            started: None,
            number: 0,
            stage: Stage::Queued,
            record: Record::default(),
            round: self.round,
        };
        group.ids.insert(check.key.clone(), id);
        self.entries.insert(id, entry);
        Some(id)
    }

    fn renew(&mut self, id: u64, check: &Check, now: Instant) -> Option<u64> {
        let entry = self.entries.get_mut(&id)?;
        let first_sight = entry.round != self.round;
        entry.round = self.round;
        let before = std::mem::replace(&mut entry.check, check.clone());
        let same_question = before.address == check.address
            && before.settings.protocol == check.settings.protocol
            && before.settings.timeout == check.settings.timeout;
        if !same_question && first_sight {
            self.withdraw(id);
            return Some(id);
        }
        let queued = matches!(entry.stage, Stage::Queued) && entry.started.is_some();
        if before.settings.interval != check.settings.interval && queued {
            self.queue.remove(entry.due, id);
            entry.due = entry.next_due(now);
            self.queue.insert(entry.due, id);
        }
        None
    }
}
