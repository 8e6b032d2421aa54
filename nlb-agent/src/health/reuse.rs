//! When a target that has left is forgotten at once: its address is another pod's now, and none of its packets may go there.

use super::state::Group;
use super::status::{Departure, Life, Status};
use crate::claims::{Claim, Claims, Owner};
use crate::inputs::ObjectName;
use crate::model::{Protocol, TargetKey};
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

/// A target that was forgotten because its address is another pod's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forgotten {
    /// The target group's name.
    pub group: String,
    /// The target.
    pub key: TargetKey,
    /// The UID of the pod that has the address now, where known.
    pub uid: Option<String>,
    /// Whose that pod is.
    pub owner: Owner,
    /// The EndpointSlice that says so.
    pub slice: ObjectName,
}

/// The Service and the port of a target group, by its name: `namespace/service:port/PROTOCOL`.
pub(crate) fn listener_of(group: &str) -> Option<(ObjectName, u16, Protocol)> {
    let (service, port) = group.rsplit_once(':')?;
    let (namespace, name) = service.split_once('/')?;
    let (number, protocol) = port.split_once('/')?;
    let protocol = [Protocol::Tcp, Protocol::Udp].into_iter().find(|it| it.to_string() == protocol)?;
    Some((ObjectName::new(namespace, name), number.parse().ok()?, protocol))
}

/// From where a target group looks at addresses.
struct View<'a> {
    claims: &'a Claims,
    home: Owner,
    protocol: Protocol,
}

impl View<'_> {
    /// Claims to a target's address. Pods of the host network share their node's, so there only the target's own port counts.
    fn claims<'a>(&'a self, key: &'a TargetKey) -> impl Iterator<Item = &'a Claim> {
        let shared = self.claims.nodes.contains(&key.ip);
        self.claims.at(key.ip).filter(move |claim| !shared || claim.by.has(self.protocol, key.port))
    }

    /// Where else the address stands.
    fn elsewhere(&self, key: &TargetKey) -> Vec<Owner> {
        if !self.claims.is_crowded(key.ip) {
            return Vec::new();
        }
        let owners: BTreeSet<&Owner> = self.claims(key).map(|claim| &claim.by.owner).collect();
        owners.into_iter().filter(|owner| **owner != self.home).cloned().collect()
    }

    /// Other pods at this address that are being deleted. A pod that had the address first may stand in its slice for some
    /// time after the address was given to this target.
    fn lingering(&self, key: &TargetKey) -> Vec<String> {
        let others = self.claims(key).filter(|claim| claim.leaving).filter_map(|claim| claim.uid.as_deref());
        others.filter(|other| uid(key).is_some_and(|own| own != *other)).map(str::to_owned).collect()
    }

    fn stands_in(&self, key: &TargetKey, owner: &Owner) -> bool {
        self.claims(key).any(|claim| claim.by.owner == *owner)
    }

    /// True if its own Service can be read far enough to call it ready.
    fn is_ready(&self, key: &TargetKey) -> bool {
        self.claims(key)
            .any(|claim| claim.ready && claim.by.owner == self.home && claim.uid.as_deref() == uid(key))
    }

    /// Takes note of where a target stands; for one that has left, the claim by which its address is another pod's.
    fn look(&self, key: &TargetKey, status: &mut Status) -> Option<Claim> {
        if matches!(status.life, Life::Unused(_)) {
            return None;
        }
        if status.is_registered() && (!status.restored || self.is_ready(key)) {
            status.also_in = self.elsewhere(key);
            status.before_it = self.lingering(key);
            status.away = false;
            return None;
        }
        // While it cannot be read whether it is still listed, what was known goes on.
        if !status.restored {
            status.away |= !self.stands_in(key, &self.home);
            status.also_in.retain(|owner| self.stands_in(key, owner));
            let lingering = self.lingering(key);
            status.before_it.retain(|other| lingering.contains(other));
        }
        let is_anothers = |claim: &&Claim| match (uid(key), claim.uid.as_deref()) {
            (Some(old), Some(new)) => {
                old != new && !(claim.leaving && status.before_it.iter().any(|other| other == new))
            }
            (None, None) if claim.by.owner == self.home => false,
            (None, _) | (_, None) if claim.by.owner == self.home => status.away,
            (None, _) | (_, None) => !status.also_in.contains(&claim.by.owner),
        };
        self.claims(key).find(is_anothers).cloned()
    }
}

fn uid(key: &TargetKey) -> Option<&str> {
    key.uid.as_deref().filter(|uid| !uid.is_empty())
}

impl Group {
    /// Looks at the addresses of all targets, or of those with one address; those that are another pod's now are forgotten.
    pub(super) fn yield_addresses(
        &mut self,
        name: &str,
        claims: &Claims,
        only: Option<IpAddr>,
    ) -> Vec<Forgotten> {
        let Some((service, _, protocol)) = listener_of(name) else { return Vec::new() };
        let view = View { claims, home: Owner::Service(service), protocol };
        let mut forgotten = Vec::new();
        let mut look = |(key, status): (&TargetKey, &mut Status)| {
            if let Some(Claim { by, uid, .. }) = view.look(key, status) {
                let (owner, slice) = (by.owner.clone(), by.slice.clone());
                let uid = uid.map(|it| it.to_string());
                forgotten.push(Forgotten { group: name.to_owned(), key: key.clone(), uid, owner, slice });
            }
        };
        match only {
            None => self.targets.iter_mut().for_each(&mut look),
            Some(ip) => {
                let first = TargetKey { ip, port: 0, uid: None };
                self.targets.range_mut(first..).take_while(|(key, _)| key.ip == ip).for_each(&mut look);
            }
        }
        for Forgotten { key, .. } in &forgotten {
            let Some(status) = self.targets.get_mut(key) else { continue };
            let is_named =
                !status.restored && !matches!(status.life, Life::Draining { departure: Departure::Gone, .. });
            if is_named {
                status.lose_address();
            } else {
                self.targets.remove(key);
            }
        }
        forgotten
    }

    /// The addresses of targets that have left, or of which it is not known.
    fn left(&self) -> BTreeSet<IpAddr> {
        let left = |status: &Status| status.restored || matches!(status.life, Life::Draining { .. });
        self.targets.iter().filter(|(_, status)| left(status)).map(|(key, _)| key.ip).collect()
    }
}

/// Which groups have targets that have left, by address.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Left {
    groups: HashMap<IpAddr, BTreeSet<String>>,
    addresses: HashMap<String, BTreeSet<IpAddr>>,
}

impl Left {
    /// Takes note of a group as it is now.
    pub(super) fn note(&mut self, name: &str, group: &Group) {
        let now = group.left();
        let before = self.addresses.get(name);
        if before.map_or(now.is_empty(), |before| *before == now) {
            return;
        }
        for gone in before.into_iter().flatten().filter(|ip| !now.contains(ip)) {
            if let Some(groups) = self.groups.get_mut(gone) {
                groups.remove(name);
                if groups.is_empty() {
                    self.groups.remove(gone);
                }
            }
        }
        for ip in &now {
            self.groups.entry(*ip).or_default().insert(name.to_owned());
        }
        if now.is_empty() {
            self.addresses.remove(name);
        } else {
            self.addresses.insert(name.to_owned(), now);
        }
    }

    /// The groups that have such a target with this address.
    pub(super) fn with(&self, address: IpAddr) -> impl Iterator<Item = &String> {
        self.groups.get(&address).into_iter().flatten()
    }
}
