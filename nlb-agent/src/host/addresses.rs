//! The node's own addresses: what `--vip node` listens on, and what no pool may give out.

use super::network::Network;
use crate::model::IpFamily;
use ipnet::IpNet;
use std::net::IpAddr;

/// How far an address reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everywhere, or within a site.
    Global,
    /// Its link only.
    Link,
    /// This host only.
    Host,
}

impl Scope {
    /// Whether others can reach it through a router.
    pub fn is_global(self) -> bool {
        self == Self::Global
    }
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// Index of the interface.
    pub device: u32,
    /// The address with the length of its network.
    pub prefix: IpNet,
    /// How far it reaches.
    pub scope: Scope,
    /// Will be there tomorrow: not a privacy address of IPv6, not deprecated, not still being checked for duplicates.
    pub stable: bool,
}

impl Address {
    /// A stable address.
    pub fn new(device: u32, prefix: IpNet, scope: Scope) -> Self {
        Self { device, prefix, scope, stable: true }
    }

    /// The address itself.
    pub fn ip(&self) -> IpAddr {
        self.prefix.addr()
    }
}

/// Whose an address already is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The node's own, on the interface of that name.
    Node(String),
    /// A router's that the node sends through, by the interface of that name.
    Gateway(String),
}

impl Network {
    /// Addresses that `--vip node` listens on: global and stable, of the uplinks in the order given, then those of the loopback device
    /// (routed to the node by its network). In the kernel's order, so the first of a family is the one the node itself prefers.
    pub fn node_vips(&self, uplinks: &[String], family: IpFamily) -> Vec<IpAddr> {
        let loopback = self.interfaces.iter().filter(|interface| interface.loopback);
        let given = uplinks.iter().filter_map(|name| self.interface(name)).filter(|uplink| !uplink.loopback);
        let mut ips: Vec<IpAddr> = Vec::new();
        for interface in given.chain(loopback) {
            let usable = |address: &&Address| {
                let here = address.device == interface.index && IpFamily::of(address.ip()) == family;
                here && address.scope.is_global() && address.stable && !address.ip().is_loopback()
            };
            for address in self.addresses.iter().filter(usable) {
                if !ips.contains(&address.ip()) {
                    ips.push(address.ip());
                }
            }
        }
        ips
    }

    /// Whose `ip` already is, if it is the node's or one of its gateways': then no pool gives it out.
    pub fn owner(&self, ip: IpAddr) -> Option<Owner> {
        let name = |device| self.indexed(device).map_or_else(|| format!("#{device}"), |one| one.name.clone());
        if let Some(address) = self.addresses.iter().find(|address| address.ip() == ip) {
            return Some(Owner::Node(name(address.device)));
        }
        let mut hops = self.routes.iter().flat_map(|route| &route.hops);
        hops.find(|hop| hop.gateway == Some(ip)).map(|hop| Owner::Gateway(name(hop.device)))
    }

    /// Every router that some route leads through, once each.
    pub fn gateways(&self) -> Vec<IpAddr> {
        let hops = self.routes.iter().flat_map(|route| &route.hops);
        let mut all: Vec<IpAddr> = hops.filter_map(|hop| hop.gateway).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::super::interfaces::Interface;
    use super::super::network::{Hop, MAIN_TABLE, Route};
    use super::*;

    fn node() -> Network {
        let link = |index, name: &str| Interface {
            index,
            name: name.into(),
            loopback: index == 1,
            ..Interface::default()
        };
        let address = |device, prefix: &str, scope| Address::new(device, prefix.parse().unwrap(), scope);
        let temporary = Address { stable: false, ..address(2, "2001:db8::beef/64", Scope::Global) };
        let hops = vec![Hop { device: 2, gateway: Some("192.0.2.1".parse().unwrap()) }];
        let destination = "0.0.0.0/0".parse().unwrap();
        Network {
            interfaces: vec![link(1, "lo"), link(2, "eth0"), link(3, "cni0")],
            addresses: vec![
                address(1, "127.0.0.1/8", Scope::Host),
                address(1, "203.0.113.7/32", Scope::Global),
                address(2, "192.0.2.2/24", Scope::Global),
                address(2, "192.0.2.3/24", Scope::Global),
                address(2, "169.254.0.2/16", Scope::Link),
                temporary,
                address(2, "2001:db8::2/64", Scope::Global),
                address(2, "fe80::2/64", Scope::Link),
                address(3, "10.1.0.1/24", Scope::Global),
            ],
            routes: vec![Route { destination, table: MAIN_TABLE, advertised: false, hops }],
        }
    }

    fn texts(ips: &[IpAddr]) -> Vec<String> {
        ips.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_nodes_vips_are_global_stable_and_on_an_uplink_or_the_loopback_device() {
        let uplinks = ["eth0".to_owned(), "gone".to_owned()];
        assert_eq!(
            texts(&node().node_vips(&uplinks, IpFamily::IPv4)),
            ["192.0.2.2", "192.0.2.3", "203.0.113.7"]
        );
        assert_eq!(texts(&node().node_vips(&uplinks, IpFamily::IPv6)), ["2001:db8::2"]);
    }

    #[test]
    fn addresses_of_the_node_and_its_gateways_have_an_owner_whatever_their_scope() {
        let owner = |ip: &str| node().owner(ip.parse().unwrap());
        assert_eq!(owner("10.1.0.1"), Some(Owner::Node("cni0".into())));
        assert_eq!(owner("fe80::2"), Some(Owner::Node("eth0".into())));
        assert_eq!(owner("2001:db8::beef"), Some(Owner::Node("eth0".into())));
        assert_eq!(owner("192.0.2.1"), Some(Owner::Gateway("eth0".into())));
        assert_eq!(owner("192.0.2.4"), None);
        assert_eq!(texts(&node().gateways()), ["192.0.2.1"]);
    }
}
