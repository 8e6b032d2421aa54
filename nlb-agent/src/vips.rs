//! Which load balancer has which address: pools, requests, and who was first.

use crate::inputs::ObjectName;
use crate::model::{IpFamily, LoadBalancer, Scheme};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// One `--vip-pool`: an inclusive range of addresses, for one scheme or for all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// `None` serves every scheme.
    pub scheme: Option<Scheme>,
    /// Lowest address given out.
    pub first: IpAddr,
    /// Highest address given out.
    pub last: IpAddr,
}

impl FromStr for Pool {
    type Err = String;

    /// Reads `[internal=|internet-facing=]CIDR|A-B|A`. A CIDR of IPv4 larger than /31 loses its network and broadcast
    /// address, one of IPv6 larger than /127 its subnet-router anycast address.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!("{text:?} is no pool: {why}; write [internal=|internet-facing=]CIDR or FIRST-LAST")
        };
        let (scheme, range) = match text.split_once('=') {
            Some(("internal", range)) => (Some(Scheme::Internal), range),
            Some(("internet-facing", range)) => (Some(Scheme::InternetFacing), range),
            Some((word, _)) => return Err(wrong(&format!("{word:?} is no scheme"))),
            None => (None, text),
        };
        let address =
            |text: &str| text.trim().parse::<IpAddr>().map_err(|_| wrong(&format!("{text:?} is no address")));
        let (first, last) = if let Some((first, last)) = range.split_once('-') {
            (address(first)?, address(last)?)
        } else if range.contains('/') {
            let net: IpNet = range.trim().parse().map_err(|_| wrong("the CIDR cannot be read"))?;
            if net.addr() != net.network() {
                return Err(wrong(&format!("the CIDR has host bits, its network is {}", net.trunc())));
            }
            usable(net)
        } else {
            (address(range)?, address(range)?)
        };
        if IpFamily::of(first) != IpFamily::of(last) || first > last {
            return Err(wrong("the range ends before it begins"));
        }
        if let Some(why) = [first, last].into_iter().find_map(unusable) {
            return Err(wrong(why));
        }
        Ok(Self { scheme, first, last })
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Some(Scheme::Internal) => "internal=",
            Some(Scheme::InternetFacing) => "internet-facing=",
            None => "",
        };
        write!(f, "{scheme}{}-{}", self.first, self.last)
    }
}

fn usable(net: IpNet) -> (IpAddr, IpAddr) {
    let (first, last) = (number(net.network()), number(net.broadcast()));
    let family = IpFamily::of(net.network());
    match net {
        IpNet::V4(net) if net.prefix_len() < 31 => {
            (from_number(family, first + 1), from_number(family, last - 1))
        }
        IpNet::V6(net) if net.prefix_len() < 127 => {
            (from_number(family, first + 1), from_number(family, last))
        }
        IpNet::V4(_) | IpNet::V6(_) => (net.network(), net.broadcast()),
    }
}

/// Why an address can be no unicast address that others reach; `None` if it can.
pub fn unusable(ip: IpAddr) -> Option<&'static str> {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.to_ipv4_mapped().is_some(),
    };
    match ip {
        _ if ip.is_unspecified() => Some("it is the unspecified address"),
        _ if ip.is_loopback() => Some("it is a loopback address"),
        _ if ip.is_multicast() => Some("it is a multicast address"),
        _ if link_local => Some("it is a link-local, broadcast or IPv4-mapped address"),
        _ => None,
    }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_bits().into(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

fn from_number(family: IpFamily, number: u128) -> IpAddr {
    match family {
        IpFamily::IPv4 => Ipv4Addr::from_bits(u32::try_from(number).expect("inside a range of IPv4")).into(),
        IpFamily::IPv6 => Ipv6Addr::from_bits(number).into(),
    }
}

/// Addresses that were given, by Service; what the agent keeps over restarts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocations {
    /// In no special order of services; each with the UID it was given to, where known.
    pub given: Vec<Given>,
}

/// What one Service was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// The Service.
    pub service: ObjectName,
    /// A Service made anew under the same name has no claim to them.
    pub uid: Option<String>,
    /// Its addresses.
    pub vips: Vec<IpAddr>,
}

impl Allocations {
    /// What the load balancers of a model have.
    pub fn of(load_balancers: &[LoadBalancer]) -> Self {
        let given = load_balancers.iter().filter(|it| !it.vips.is_empty()).map(|it| Given {
            service: ObjectName::new(&it.namespace, &it.name),
            uid: it.uid.clone(),
            vips: it.vips.clone(),
        });
        Self { given: given.collect() }
    }

    /// These, and for Services that have none here, those of `older`.
    #[must_use]
    pub fn or(mut self, older: &Self) -> Self {
        let known: BTreeSet<ObjectName> = self.given.iter().map(|it| it.service.clone()).collect();
        self.given.extend(older.given.iter().filter(|it| !known.contains(&it.service)).cloned());
        self
    }
}

/// What one Service asks for. Requests are served in the order of the slice that they stand in: who was first comes first.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The Service.
    pub service: ObjectName,
    /// Its UID.
    pub uid: Option<String>,
    /// Which pools.
    pub scheme: Scheme,
    /// One address for each.
    pub families: Vec<IpFamily>,
    /// Exactly these, for their families.
    pub wanted: Vec<IpAddr>,
    /// False: it only keeps what it had, because it cannot be built now.
    pub allocate: bool,
}

/// Why a Service has no address of a family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// No pool has this scheme and family.
    NoPool(IpFamily),
    /// All its addresses are taken or reserved.
    Exhausted(IpFamily),
    /// No pool holds the requested address.
    NotInPool(IpAddr),
    /// Another Service has the requested address.
    Taken(IpAddr, ObjectName),
    /// The requested address belongs to something else.
    Reserved(IpAddr, String),
}

/// Addresses of one Service and what it lacks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// In the order of the families asked for.
    pub vips: Vec<IpAddr>,
    /// What could not be given.
    pub shortages: Vec<Shortage>,
}

/// Every `--vip-pool`, and the addresses inside them that must not be given out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pools {
    /// In the order of the command line; earlier ones are used first.
    pub pools: Vec<Pool>,
    /// Addresses of nodes, gateways, the API server, pod and Service ranges, each with a word for what it is.
    pub reserved: Vec<(IpNet, String)>,
}

impl Pools {
    /// Gives addresses: who has one keeps it, then requested ones, then the lowest free, in the order of `requests`.
    pub fn allocate(&self, requests: &[Request], before: &Allocations) -> BTreeMap<ObjectName, Grant> {
        let before: BTreeMap<&ObjectName, &Given> = before.given.iter().map(|it| (&it.service, it)).collect();
        let mut round = Round { pools: self, owners: BTreeMap::new(), next: vec![0; self.pools.len()] };
        let mut kept = BTreeMap::new();
        for request in requests {
            let vips =
                before.get(&request.service).map(|given| round.keep(request, given)).unwrap_or_default();
            kept.insert(&request.service, vips);
        }
        let mut grants: BTreeMap<ObjectName, Grant> = BTreeMap::new();
        // Requested addresses before free ones: a free choice must not take what a younger Service names.
        for request in requests.iter().filter(|it| it.allocate) {
            let had = kept.get(&request.service).cloned().unwrap_or_default();
            grants.insert(request.service.clone(), round.wanted(request, had));
        }
        for request in requests.iter().filter(|it| it.allocate) {
            let grant = grants.entry(request.service.clone()).or_default();
            round.complete(request, grant);
        }
        grants
    }

    fn holder(&self, ip: IpAddr) -> Option<&Pool> {
        self.pools.iter().find(|pool| {
            IpFamily::of(pool.first) == IpFamily::of(ip) && (pool.first..=pool.last).contains(&ip)
        })
    }

    fn reservation(&self, ip: IpAddr) -> Option<&str> {
        self.reserved.iter().find(|(net, _)| net.contains(&ip)).map(|(_, what)| what.as_str())
    }
}

/// One allocation under way.
struct Round<'a> {
    pools: &'a Pools,
    owners: BTreeMap<IpAddr, ObjectName>,
    /// By pool: how far its addresses are known to be taken.
    next: Vec<u128>,
}

impl Round<'_> {
    fn keep(&mut self, request: &Request, given: &Given) -> Vec<IpAddr> {
        let other = |a: &Option<String>, b: &Option<String>| a.is_some() && b.is_some() && a != b;
        if other(&given.uid, &request.uid) {
            return Vec::new();
        }
        let fits = |ip: &IpAddr| {
            let family = IpFamily::of(*ip);
            let asked = request.wanted.iter().any(|it| IpFamily::of(*it) == family);
            let pool = self
                .pools
                .holder(*ip)
                .is_some_and(|pool| asked || pool.scheme.is_none_or(|it| it == request.scheme));
            let wanted = if asked { request.wanted.contains(ip) } else { pool };
            let suits = !request.allocate || wanted && request.families.contains(&family);
            suits && self.pools.holder(*ip).is_some() && self.pools.reservation(*ip).is_none()
        };
        let fit: Vec<IpAddr> = given.vips.iter().copied().filter(fits).collect();
        fit.into_iter().filter(|ip| self.take(*ip, &request.service)).collect()
    }

    fn take(&mut self, ip: IpAddr, service: &ObjectName) -> bool {
        self.owners.entry(ip).or_insert_with(|| service.clone()) == service
    }

    fn wanted(&mut self, request: &Request, had: Vec<IpAddr>) -> Grant {
        let mut grant = Grant { vips: had, shortages: Vec::new() };
        for ip in request.wanted.iter().copied().filter(|ip| request.families.contains(&IpFamily::of(*ip))) {
            if grant.vips.contains(&ip) {
                continue;
            }
            if let Some(what) = self.pools.reservation(ip) {
                grant.shortages.push(Shortage::Reserved(ip, what.to_owned()));
            } else if self.pools.holder(ip).is_none() {
                grant.shortages.push(Shortage::NotInPool(ip));
            } else if let Some(owner) = self.owners.get(&ip).filter(|owner| **owner != request.service) {
                grant.shortages.push(Shortage::Taken(ip, owner.clone()));
            } else {
                self.take(ip, &request.service);
                grant.vips.push(ip);
            }
        }
        grant
    }

    fn complete(&mut self, request: &Request, grant: &mut Grant) {
        for family in &request.families {
            let has = grant.vips.iter().any(|ip| IpFamily::of(*ip) == *family);
            let asked = request.wanted.iter().any(|ip| IpFamily::of(*ip) == *family);
            if has || asked {
                continue;
            }
            match self.lowest(request, *family) {
                Ok(ip) => grant.vips.push(ip),
                Err(shortage) => grant.shortages.push(shortage),
            }
        }
        let place = |ip: &IpAddr| request.families.iter().position(|it| *it == IpFamily::of(*ip));
        grant.vips.sort_by_key(|ip| (place(ip), request.wanted.iter().position(|it| it == ip)));
    }

    fn lowest(&mut self, request: &Request, family: IpFamily) -> Result<IpAddr, Shortage> {
        let mut known = false;
        for index in 0..self.pools.pools.len() {
            let pool = &self.pools.pools[index];
            if IpFamily::of(pool.first) != family || pool.scheme.is_some_and(|it| it != request.scheme) {
                continue;
            }
            known = true;
            let (first, last) = (number(pool.first), number(pool.last));
            while let Some(at) = first.checked_add(self.next[index]).filter(|at| *at <= last) {
                self.next[index] += 1;
                let ip = from_number(family, at);
                if let Some((net, _)) = self.pools.reserved.iter().find(|(net, _)| net.contains(&ip)) {
                    // Past the whole reserved network at once: it may be a /64.
                    self.next[index] = (number(net.broadcast()) - first).saturating_add(1);
                } else if !self.owners.contains_key(&ip) {
                    self.take(ip, &request.service);
                    return Ok(ip);
                }
            }
        }
        Err(if known { Shortage::Exhausted(family) } else { Shortage::NoPool(family) })
    }
}

#[cfg(test)]
#[path = "vips_tests.rs"]
mod tests;
