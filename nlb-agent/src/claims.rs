//! Which pod has which address, as all EndpointSlices together say: it tells when an address is another pod's now.

use crate::inputs::ObjectName;
use crate::model::Protocol;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// On whose behalf an address is listed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Owner {
    /// The Service that the slice's label names, whether it exists or not.
    Service(ObjectName),
    /// A slice that names no Service stands for itself.
    Slice(ObjectName),
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(name) => write!(f, "Service {name}"),
            Self::Slice(name) => write!(f, "EndpointSlice {name}"),
        }
    }
}

/// An EndpointSlice as far as its claims go. Their order is who was first: creationTimestamp, then namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claimant {
    /// A slice without a creationTimestamp is not made yet.
    unmade: bool,
    made: Option<Timestamp>,
    /// The slice.
    pub slice: ObjectName,
    /// Whose it is.
    pub owner: Owner,
    /// Its ports; `None` for a slice that names none, which stands for all.
    ports: Option<Vec<(Protocol, u16)>>,
}

impl Claimant {
    /// A slice with these ports that was made then.
    pub fn new(
        slice: ObjectName,
        owner: Owner,
        made: Option<Timestamp>,
        ports: Option<Vec<(Protocol, u16)>>,
    ) -> Self {
        Self { unmade: made.is_none(), made, slice, owner, ports }
    }

    /// True if its endpoints have this port.
    pub fn has(&self, protocol: Protocol, port: u16) -> bool {
        self.ports.as_ref().is_none_or(|ports| ports.contains(&(protocol, port)))
    }

    /// True if its endpoints and those of the other one have a port in common.
    pub fn meets(&self, other: &Self) -> bool {
        match (&self.ports, &other.ports) {
            (Some(ours), Some(theirs)) => ours.iter().any(|port| theirs.contains(port)),
            (None, _) | (_, None) => true,
        }
    }
}

/// A pod that has the address by one slice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// The slice.
    pub by: Arc<Claimant>,
    /// The pod's UID, where known.
    pub uid: Option<Arc<str>>,
    /// Whether the slice calls it ready.
    pub ready: bool,
    /// Whether the slice says that the pod is being deleted.
    pub leaving: bool,
    /// Nothing is known of the node that it is on: the address may be that node's own, which many pods share.
    pub may_be_shared: bool,
}

/// Nearly every address has one claim.
#[derive(Clone, Debug, PartialEq)]
enum Few {
    One(Claim),
    Many(BTreeSet<Claim>),
}

/// Every address that an EndpointSlice names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Claims {
    by_address: BTreeMap<IpAddr, Few>,
    /// Addresses of nodes, which pods of the host network share.
    pub nodes: BTreeSet<IpAddr>,
}

impl Claims {
    /// No claims yet; these addresses are nodes' own.
    pub fn among(nodes: BTreeSet<IpAddr>) -> Self {
        Self { nodes, ..Self::default() }
    }

    /// Who has this address, the first first.
    pub fn at(&self, address: IpAddr) -> impl Iterator<Item = &Claim> {
        let few = self.by_address.get(&address);
        let (one, many) = match few {
            Some(Few::One(claim)) => (Some(claim), None),
            Some(Few::Many(claims)) => (None, Some(claims)),
            None => (None, None),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    /// True if more than one claim is laid to this address.
    pub fn is_crowded(&self, address: IpAddr) -> bool {
        matches!(self.by_address.get(&address), Some(Few::Many(_)))
    }

    /// The addresses to which more than one claim is laid.
    pub fn crowded(&self) -> impl Iterator<Item = IpAddr> {
        self.by_address.iter().filter(|(_, few)| matches!(few, Few::Many(_))).map(|(address, _)| *address)
    }

    /// Adds a claim; twice is as good as once.
    pub fn insert(&mut self, address: IpAddr, claim: Claim) {
        match self.by_address.get_mut(&address) {
            None => drop(self.by_address.insert(address, Few::One(claim))),
            Some(Few::Many(claims)) => drop(claims.insert(claim)),
            Some(few) => {
                let Few::One(first) = few else { return };
                if *first != claim {
                    *few = Few::Many([first.clone(), claim].into());
                }
            }
        }
    }

    /// Takes a claim back.
    pub fn remove(&mut self, address: IpAddr, claim: &Claim) {
        let Some(few) = self.by_address.get_mut(&address) else { return };
        let left = match few {
            Few::One(only) if only == claim => None,
            Few::One(_) => return,
            Few::Many(claims) => {
                claims.remove(claim);
                if claims.len() > 1 {
                    return;
                }
                claims.pop_first()
            }
        };
        match left {
            Some(only) => *few = Few::One(only),
            None => drop(self.by_address.remove(&address)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(slice: &str, made: Option<i64>) -> Claim {
        let name = ObjectName::new("default", slice);
        let made = made.map(|second| Timestamp::from_second(second).unwrap());
        let by = Arc::new(Claimant::new(name.clone(), Owner::Slice(name), made, None));
        Claim { by, uid: None, ready: true, leaving: false, may_be_shared: false }
    }

    #[test]
    fn claims_come_and_go_in_the_order_of_who_was_first() {
        let (address, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let (unmade, young, old) = (claim("a", None), claim("b", Some(20)), claim("c", Some(10)));
        let mut claims = Claims::default();
        for one in [&unmade, &young, &old, &old] {
            claims.insert(address, one.clone());
        }
        claims.insert(other, young.clone());
        assert_eq!(claims.at(address).collect::<Vec<_>>(), [&old, &young, &unmade]);
        assert_eq!(claims.crowded().collect::<Vec<_>>(), [address]);
        claims.remove(address, &young);
        claims.remove(address, &young);
        assert_eq!(claims.at(address).collect::<Vec<_>>(), [&old, &unmade]);
        claims.remove(address, &old);
        claims.remove(address, &old);
        assert!(!claims.is_crowded(address));
        assert_eq!(claims.at(address).collect::<Vec<_>>(), [&unmade]);
        claims.remove(address, &unmade);
        assert_eq!(claims.at(address).count(), 0);
        let mut only = Claims::default();
        only.insert(other, young);
        assert_eq!(claims, only);
    }

    #[test]
    fn slices_meet_where_they_have_a_port_in_common() {
        let on = |ports: Option<Vec<(Protocol, u16)>>| {
            let name = ObjectName::new("default", "s");
            Claimant::new(name.clone(), Owner::Slice(name), None, ports)
        };
        let (tcp, udp) = (on(Some(vec![(Protocol::Tcp, 53)])), on(Some(vec![(Protocol::Udp, 53)])));
        assert!(tcp.has(Protocol::Tcp, 53) && !tcp.has(Protocol::Udp, 53) && !tcp.has(Protocol::Tcp, 54));
        assert!(tcp.meets(&tcp) && !tcp.meets(&udp) && tcp.meets(&on(None)) && on(None).meets(&udp));
        assert!(on(None).has(Protocol::Udp, 1) && !on(Some(Vec::new())).meets(&tcp));
    }
}
