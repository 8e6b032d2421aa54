//! Links, addresses and routes as rtnetlink gives them, turned into plain values.

use super::addresses::{Address, Scope};
use super::interfaces::{Attached, Interface, XdpMode};
use super::network::{Hop, Network, Route};
use anyhow::Context as _;
use futures::TryStreamExt as _;
use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp, XdpAttached,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteNextHop, RouteProtocol, RouteType, RouteVia,
};
use rtnetlink::{Handle, RouteMessageBuilder};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `RT_TABLE_LOCAL`: the kernel's own list of local and broadcast addresses.
const LOCAL_TABLE: u32 = 255;

impl Network {
    /// Reads links, addresses and routes of the calling thread's network namespace.
    ///
    /// # Errors
    /// The netlink socket failed.
    pub async fn read() -> anyhow::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection().context("opening a netlink socket")?;
        let served = tokio::spawn(connection);
        let network = dump(&handle).await;
        served.abort();
        network
    }
}

async fn dump(handle: &Handle) -> anyhow::Result<Network> {
    let links: Vec<_> = handle.link().get().execute().try_collect().await.context("listing links")?;
    let addresses: Vec<_> =
        handle.address().get().execute().try_collect().await.context("listing addresses")?;
    let four = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let six = RouteMessageBuilder::<Ipv6Addr>::new().build();
    let mut routes: Vec<RouteMessage> =
        handle.route().get(four).execute().try_collect().await.context("listing IPv4 routes")?;
    // A kernel without IPv6 answers with an error; it then has no such routes.
    routes.extend(handle.route().get(six).execute().try_collect::<Vec<_>>().await.unwrap_or_default());
    Ok(Network {
        interfaces: links.iter().map(interface).collect(),
        addresses: addresses.iter().filter_map(address).collect(),
        routes: routes.iter().filter_map(route).collect(),
    })
}

fn interface(message: &LinkMessage) -> Interface {
    let flags = message.header.flags;
    let mut interface = Interface {
        index: message.header.index,
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
        ethernet: message.header.link_layer_type == LinkLayerType::Ether,
        loopback: flags.contains(LinkFlags::Loopback),
        ..Interface::default()
    };
    let mut abroad = false;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => interface.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => interface.mtu = *mtu,
            LinkAttribute::Address(bytes) if interface.ethernet => interface.mac = bytes[..].try_into().ok(),
            LinkAttribute::Controller(master) => interface.master = Some(*master),
            LinkAttribute::Link(parent) if *parent != 0 => interface.parent = Some(*parent),
            LinkAttribute::LinkNetNsId(_) => abroad = true,
            LinkAttribute::LinkInfo(infos) => interface.kind = kind(infos),
            LinkAttribute::Xdp(attached) => interface.xdp = programs(attached),
            _ => {}
        }
    }
    // The index is then one of another namespace.
    if abroad {
        interface.parent = None;
    }
    interface
}

fn kind(infos: &[LinkInfo]) -> Option<String> {
    infos.iter().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    })
}

/// The kernel names the program under its mode too, but for a single one the older pair of mode and number is always there.
fn programs(attributes: &[LinkXdp]) -> Vec<Attached> {
    let attached = attributes.iter().find_map(|one| match one {
        LinkXdp::Attached(attached) => Some(*attached),
        _ => None,
    });
    let single = match attached {
        None | Some(XdpAttached::None) => return Vec::new(),
        Some(XdpAttached::Driver) => Some(XdpMode::Driver),
        Some(XdpAttached::SocketBuffer) => Some(XdpMode::Generic),
        Some(XdpAttached::Hardware) => Some(XdpMode::Hardware),
        Some(_) => None,
    };
    let found = attributes.iter().filter_map(|one| match (one, single) {
        (LinkXdp::ProgId(program), Some(mode)) => Some(Attached { mode, program: *program }),
        (LinkXdp::DrvProgId(program), None) => Some(Attached { mode: XdpMode::Driver, program: *program }),
        (LinkXdp::SkbProgId(program), None) => Some(Attached { mode: XdpMode::Generic, program: *program }),
        (LinkXdp::HwProgId(program), None) => Some(Attached { mode: XdpMode::Hardware, program: *program }),
        _ => None,
    });
    found.collect()
}

fn address(message: &AddressMessage) -> Option<Address> {
    let (mut local, mut remote) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => remote = Some(*ip),
            _ => {}
        }
    }
    // On a point-to-point link IFA_ADDRESS is the peer's and IFA_LOCAL the node's; elsewhere IPv6 has only the former.
    let ip = local.or(remote)?;
    let scope = match message.header.scope {
        AddressScope::Link => Scope::Link,
        AddressScope::Host | AddressScope::Nowhere => Scope::Host,
        _ => Scope::Global,
    };
    let passing =
        AddressHeaderFlags::Deprecated | AddressHeaderFlags::Tentative | AddressHeaderFlags::Dadfailed;
    // The same bit means "temporary" in IPv6 and "another of the same network" in IPv4, which is as good as the first.
    let temporary = ip.is_ipv6() && message.header.flags.contains(AddressHeaderFlags::Secondary);
    let stable = !message.header.flags.intersects(passing) && !temporary;
    let prefix = IpNet::new(ip, message.header.prefix_len).ok()?;
    Some(Address { device: message.header.index, prefix, scope, stable })
}

fn route(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    let table = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    let table = table.unwrap_or(u32::from(header.table));
    if header.kind != RouteType::Unicast || table == LOCAL_TABLE {
        return None;
    }
    let everywhere: IpAddr = match header.address_family {
        netlink_packet_route::AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        netlink_packet_route::AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let destination = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(to) => plain(to),
        _ => None,
    });
    Some(Route {
        destination: IpNet::new(destination.unwrap_or(everywhere), header.destination_prefix_length).ok()?,
        table,
        advertised: header.protocol == RouteProtocol::Ra,
        hops: hops(message),
    })
}

fn hops(message: &RouteMessage) -> Vec<Hop> {
    let single = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(device) => Some(Hop { device: *device, gateway: gateway(&message.attributes) }),
        _ => None,
    });
    let many = message.attributes.iter().filter_map(|attribute| match attribute {
        RouteAttribute::MultiPath(hops) => Some(hops),
        _ => None,
    });
    let hop = |hop: &RouteNextHop| Hop { device: hop.interface_index, gateway: gateway(&hop.attributes) };
    single.into_iter().chain(many.flatten().map(hop)).collect()
}

fn gateway(attributes: &[RouteAttribute]) -> Option<IpAddr> {
    attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(address) => plain(address),
        RouteAttribute::Via(RouteVia::Inet(ip)) => Some((*ip).into()),
        RouteAttribute::Via(RouteVia::Inet6(ip)) => Some((*ip).into()),
        _ => None,
    })
}

fn plain(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}
