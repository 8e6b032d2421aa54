//! Interfaces as nlb sees them: what they are, what sits on them, and which of them carry its traffic.

use super::network::Network;
use std::collections::BTreeSet;

/// One link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// `eth0`.
    pub name: String,
    /// The kernel's number for it, new each time it is made.
    pub index: u32,
    /// Bytes of an IP packet at most.
    pub mtu: u32,
    /// Its Ethernet address; `None` where it has none.
    pub mac: Option<[u8; 6]>,
    /// Switched on.
    pub up: bool,
    /// Has a carrier: a cable, a peer.
    pub carrier: bool,
    /// Frames begin with an Ethernet header (not so for wireguard, ppp, tun).
    pub ethernet: bool,
    /// The loopback device.
    pub loopback: bool,
    /// `veth`, `bridge`, `vlan`, …; `None` for a plain NIC.
    pub kind: Option<String>,
    /// Index of the bridge, bond or VRF that it is a port of.
    pub master: Option<u32>,
    /// Index of the device it sits on, in this namespace: a VLAN's, macvlan's or tunnel's.
    pub parent: Option<u32>,
    /// XDP programs that run here.
    pub xdp: Vec<Attached>,
}

/// How an XDP program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum XdpMode {
    /// In the driver, before a socket buffer is made.
    Driver,
    /// After it, slower.
    Generic,
    /// In the NIC.
    Hardware,
}

/// An XDP program on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    /// How it runs.
    pub mode: XdpMode,
    /// The kernel's number for the program.
    pub program: u32,
}

impl Network {
    /// Names of the interfaces that carry a default route of either family, sorted.
    pub fn default_uplinks(&self) -> Vec<String> {
        let defaults = self.routes.iter().filter(|route| route.is_default());
        let devices = defaults.flat_map(|route| &route.hops).map(|hop| hop.device);
        self.names(devices)
    }

    /// Names of the devices by which a reply may leave, sorted: the uplinks, those with a route through a gateway (overlays included),
    /// and plain NICs with an address, whose neighbours may be clients. Pods' own devices lead to no gateway and are left out.
    pub fn reply_devices(&self, uplinks: &[String]) -> Vec<String> {
        let given = self.interfaces.iter().filter(|interface| uplinks.contains(&interface.name));
        let hops = self.routes.iter().flat_map(|route| &route.hops);
        let routed = hops.filter(|hop| hop.gateway.is_some()).map(|hop| hop.device);
        let devices = given.map(|interface| interface.index).chain(routed).chain(self.addressed_nics());
        self.names(devices)
    }

    fn addressed_nics(&self) -> impl Iterator<Item = u32> {
        let nics = self.interfaces.iter().filter(|interface| interface.ethernet && interface.kind.is_none());
        nics.map(|nic| nic.index).filter(|index| {
            self.addresses.iter().any(|address| address.device == *index && address.scope.is_global())
        })
    }

    fn names(&self, devices: impl Iterator<Item = u32>) -> Vec<String> {
        let devices: BTreeSet<u32> = devices.collect();
        let interfaces = self.interfaces.iter().filter(|one| devices.contains(&one.index) && !one.loopback);
        let names: BTreeSet<_> = interfaces.map(|interface| interface.name.clone()).collect();
        names.into_iter().collect()
    }

    /// VLANs, macvlans and ipvlans that take their frames from `interface` after nlb has seen them.
    pub fn upper(&self, interface: &Interface) -> impl Iterator<Item = &Interface> {
        const TAKERS: [&str; 5] = ["vlan", "macvlan", "macvtap", "ipvlan", "ipvtap"];
        let index = interface.index;
        let above = self.interfaces.iter().filter(move |upper| upper.parent == Some(index));
        above.filter(|upper| upper.kind.as_deref().is_some_and(|kind| TAKERS.contains(&kind)))
    }

    /// The bridge, bond or VRF that `interface` is a port of.
    pub fn master(&self, interface: &Interface) -> Option<&Interface> {
        interface.master.and_then(|index| self.indexed(index))
    }
}

#[cfg(test)]
mod tests {
    use super::super::addresses::{Address, Scope};
    use super::super::network::{Hop, MAIN_TABLE, Route};
    use super::*;

    fn link(index: u32, name: &str, kind: Option<&str>, parent: Option<u32>) -> Interface {
        let kind = kind.map(str::to_owned);
        let (ethernet, loopback) = (name != "lo", name == "lo");
        Interface { name: name.into(), index, kind, parent, ethernet, loopback, ..Interface::default() }
    }

    fn route(destination: &str, device: u32, gateway: Option<&str>, table: u32) -> Route {
        let hops = vec![Hop { device, gateway: gateway.map(|ip| ip.parse().unwrap()) }];
        Route { destination: destination.parse().unwrap(), table, advertised: false, hops }
    }

    fn node() -> Network {
        let interfaces = vec![
            link(1, "lo", None, None),
            link(2, "eth0", None, None),
            link(3, "eth1", None, None),
            link(4, "flannel.1", Some("vxlan"), Some(2)),
            link(5, "cni0", Some("bridge"), None),
            link(6, "veth1", Some("veth"), None),
            link(7, "eth0.5", Some("vlan"), Some(2)),
            link(8, "eth2", None, None),
        ];
        let routes = vec![
            route("0.0.0.0/0", 2, Some("192.0.2.1"), MAIN_TABLE),
            route("0.0.0.0/0", 6, Some("192.0.2.9"), 1000),
            route("10.1.0.0/24", 5, None, MAIN_TABLE),
            route("10.1.1.0/24", 4, Some("10.1.1.0"), MAIN_TABLE),
            route("::/0", 2, Some("fe80::1"), MAIN_TABLE),
        ];
        let global = |device, prefix: &str| Address::new(device, prefix.parse().unwrap(), Scope::Global);
        let addresses =
            vec![global(2, "192.0.2.2/24"), global(3, "198.51.100.1/24"), global(5, "10.1.0.1/24")];
        Network { interfaces, addresses, routes }
    }

    #[test]
    fn uplinks_are_those_with_a_default_route_in_the_main_table() {
        assert_eq!(node().default_uplinks(), ["eth0"]);
    }

    #[test]
    fn replies_leave_by_uplinks_overlays_and_addressed_nics_but_not_by_the_pods_bridge() {
        let mut node = node();
        assert_eq!(node.reply_devices(&["eth0".into()]), ["eth0", "eth1", "flannel.1", "veth1"]);
        node.routes.retain(|route| route.table == MAIN_TABLE);
        assert_eq!(node.reply_devices(&["veth1".into()]), ["eth0", "eth1", "flannel.1", "veth1"]);
        assert_eq!(node.reply_devices(&["gone".into()]), ["eth0", "eth1", "flannel.1"]);
    }

    #[test]
    fn what_sits_on_a_device_is_found_and_a_tunnel_through_it_is_not() {
        let node = node();
        let on: Vec<_> = node.upper(&node.interfaces[1]).map(|upper| upper.name.as_str()).collect();
        assert_eq!(on, ["eth0.5"]);
    }
}
