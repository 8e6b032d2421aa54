//! Interfaces, addresses and routes of one network namespace, and what follows from the routes.

use super::addresses::Address;
use super::interfaces::Interface;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

/// The routing table that packets of no special rule use.
pub const MAIN_TABLE: u32 = 254;

/// What the kernel knows of the network, in the kernel's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// Every link.
    pub interfaces: Vec<Interface>,
    /// Every address of every link.
    pub addresses: Vec<Address>,
    /// Every unicast route, without the kernel's own table of local addresses.
    pub routes: Vec<Route>,
}

/// A unicast route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub destination: IpNet,
    /// Which table; [`MAIN_TABLE`] for most.
    pub table: u32,
    /// Learnt from an IPv6 router advertisement.
    pub advertised: bool,
    /// One, or several of which each flow takes one.
    pub hops: Vec<Hop>,
}

/// One way of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Index of the device it leaves by.
    pub device: u32,
    /// The next router; `None` where the destination is on the link.
    pub gateway: Option<IpAddr>,
}

impl Route {
    /// Whether it is the way to everywhere that has no route of its own.
    pub fn is_default(&self) -> bool {
        self.destination.prefix_len() == 0 && self.table == MAIN_TABLE
    }
}

impl Network {
    /// The interface of that name.
    pub fn interface(&self, name: &str) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.name == name)
    }

    /// The interface of that index.
    pub fn indexed(&self, index: u32) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.index == index)
    }

    /// Names of the devices by which the host's routing (main table) reaches `addresses`, each with the addresses it reaches.
    /// Addresses without a route are under `None`.
    pub fn ways_to(
        &self,
        addresses: impl IntoIterator<Item = IpAddr>,
    ) -> BTreeMap<Option<String>, BTreeSet<IpAddr>> {
        let table = Lookup::new(&self.routes);
        let mut ways: BTreeMap<Option<String>, BTreeSet<IpAddr>> = BTreeMap::new();
        for address in addresses {
            let devices = table.hops(address).iter().filter_map(|hop| self.indexed(hop.device));
            let names: Vec<_> = devices.map(|interface| Some(interface.name.clone())).collect();
            for way in if names.is_empty() { vec![None] } else { names } {
                ways.entry(way).or_default().insert(address);
            }
        }
        ways
    }
}

/// Longest prefix first; a table of ten thousand pod routes is looked up in as many steps as it has different lengths.
struct Lookup<'a> {
    lengths: BTreeSet<u8>,
    hops: HashMap<IpNet, &'a [Hop]>,
}

impl<'a> Lookup<'a> {
    fn new(routes: &'a [Route]) -> Self {
        let main = routes.iter().filter(|route| route.table == MAIN_TABLE);
        let mut hops = HashMap::new();
        for route in main {
            // The kernel lists the preferred of two equal routes first.
            hops.entry(route.destination.trunc()).or_insert(route.hops.as_slice());
        }
        Self { lengths: hops.keys().map(IpNet::prefix_len).collect(), hops }
    }

    fn hops(&self, address: IpAddr) -> &'a [Hop] {
        let prefixes = self.lengths.iter().rev().filter_map(|length| IpNet::new(address, *length).ok());
        prefixes.filter_map(|prefix| self.hops.get(&prefix.trunc()).copied()).next().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn route(destination: &str, table: u32, device: u32) -> Route {
        let hops = vec![Hop { device, gateway: None }];
        Route { destination: destination.parse().unwrap(), table, advertised: false, hops }
    }

    #[test]
    fn the_longest_prefix_of_the_main_table_leads() {
        let routes = [
            route("0.0.0.0/0", MAIN_TABLE, 1),
            route("10.1.0.0/16", MAIN_TABLE, 2),
            route("10.1.0.7/32", MAIN_TABLE, 3),
            route("10.1.0.7/32", MAIN_TABLE, 4),
            route("10.1.0.8/32", 100, 5),
            route("::/0", MAIN_TABLE, 6),
        ];
        let table = Lookup::new(&routes);
        let device = |address: &str| table.hops(address.parse().unwrap()).first().map(|hop| hop.device);
        assert_eq!(device("192.0.2.1"), Some(1));
        assert_eq!(device("10.1.0.7"), Some(3));
        assert_eq!(device("10.1.0.8"), Some(2));
        assert_eq!(device("2001:db8::1"), Some(6));
    }

    #[test]
    fn an_address_without_a_route_is_said() {
        let network = Network { routes: vec![route("10.1.0.0/16", MAIN_TABLE, 9)], ..Network::default() };
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        assert_eq!(network.ways_to([address]), [(None, [address].into())].into());
    }

    proptest! {
        #[test]
        fn lookup_equals_a_scan(nets in prop::collection::vec((any::<u32>(), 0u8..=32), 0..20), near in any::<prop::sample::Index>(), low in any::<u8>()) {
            let routes: Vec<Route> = nets.iter().enumerate()
                .map(|(at, (bits, length))| route(&format!("{}/{length}", std::net::Ipv4Addr::from(*bits)), MAIN_TABLE, at as u32))
                .collect();
            let base = if nets.is_empty() { 0 } else { nets[near.index(nets.len())].0 };
            let address = IpAddr::from(std::net::Ipv4Addr::from(base ^ u32::from(low)));
            let scan = routes.iter().filter(|route| route.destination.contains(&address)).map(|route| route.destination.prefix_len()).max();
            let found = Lookup::new(&routes).hops(address).first().map(|hop| routes[hop.device as usize].destination);
            prop_assert_eq!(found.map(|net| net.prefix_len()), scan);
            prop_assert!(found.is_none_or(|net| net.contains(&address)));
        }
    }
}
