//! What a restarted agent reads back, so that states, reasons, counts and rings stay as they were.

use super::state::{Group, Health};
use super::status::{Life, Status};
use crate::model::TargetKey;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Every status in a form that can be written down.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    /// Sorted by name.
    pub groups: Vec<SavedGroup>,
}

/// One target group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedGroup {
    /// Its name in the model.
    pub name: String,
    /// UID of its Service, where known.
    pub owner: Option<String>,
    /// Sorted by key.
    pub targets: Vec<SavedTarget>,
}

/// One target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedTarget {
    /// The pod's address.
    pub ip: IpAddr,
    /// The pod's port.
    pub port: u16,
    /// The pod's UID, where known.
    pub uid: Option<String>,
    /// What was known of it.
    pub status: Status,
}

impl Health {
    /// What was saved. Every target stays as it was until its next check has ended. Call [`Health::update`] before anything
    /// else, but only with a model of inputs that were read in full: what that model does not name begins to drain, and
    /// groups that it does not name are forgotten. Until then [`Health::update_keeping`] is right. Times in the future, because the clock was set back, count as now.
    pub fn restored(saved: Saved, now: Timestamp) -> Self {
        let mut health = Self::default();
        for group in saved.groups {
            let targets = group.targets.into_iter().map(|target| {
                let key = TargetKey { ip: target.ip, port: target.port, uid: target.uid };
                (key, Status { restored: true, ..not_after(target.status, now) })
            });
            let targets = targets.collect();
            let restored = Group { restored: true, owner: group.owner, targets, ..Group::default() };
            health.left.note(&group.name, &restored);
            health.groups.insert(group.name, restored);
        }
        health
    }

    /// What a restarted agent needs.
    pub fn saved(&self) -> Saved {
        let groups = self.groups.iter().map(|(name, group)| SavedGroup {
            name: name.clone(),
            owner: group.owner.clone(),
            targets: group.targets.iter().map(|(key, status)| saved(key, status)).collect(),
        });
        let mut groups: Vec<SavedGroup> = groups.collect();
        groups.sort_by(|a, b| a.name.cmp(&b.name));
        Saved { groups }
    }
}

fn saved(key: &TargetKey, status: &Status) -> SavedTarget {
    SavedTarget { ip: key.ip, port: key.port, uid: key.uid.clone(), status: status.clone() }
}

fn not_after(mut status: Status, now: Timestamp) -> Status {
    status.since = status.since.min(now);
    if let Life::Draining { began, .. } = &mut status.life {
        *began = (*began).min(now);
    }
    status
}
