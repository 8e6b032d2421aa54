//! What `bpf(2)` does not tell of a device: its XDP program and its TC filters, asked over a netlink socket of the moment.

use crate::host::interfaces::{Attached, XdpMode};
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage as Route;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage, LinkXdp, XdpAttached};
use rtnetlink::packet_route::tc::{TcAttribute, TcHandle, TcMessage};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{Socket, SocketAddr};
use std::io;

/// `TC_H_CLSACT`'s two hooks.
const CLSACT: TcHandle = TcHandle { major: 0xffff, minor: 0xfff1 };
const INGRESS: TcHandle = TcHandle { major: 0xffff, minor: 0xfff2 };
const EGRESS: TcHandle = TcHandle { major: 0xffff, minor: 0xfff3 };

/// A TC filter at egress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Lower runs earlier.
    pub priority: u16,
    /// The filter's handle.
    pub handle: u32,
    /// `bpf`, `flower`, ...
    pub kind: String,
}

/// A device of this network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The index.
    pub index: u32,
    /// The name.
    pub name: String,
    /// Its XDP program.
    pub xdp: Option<Attached>,
}

fn ask(request: Route, flags: u16) -> io::Result<Vec<Route>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    header.sequence_number = 1;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let mut answers = Vec::new();
    loop {
        let (bytes, _) = socket.recv_from_full()?;
        if gather(&bytes, &mut answers)? {
            return Ok(answers);
        }
    }
}

/// Adds the messages of one datagram; true if the answer ends with it.
fn gather(mut bytes: &[u8], answers: &mut Vec<Route>) -> io::Result<bool> {
    while !bytes.is_empty() {
        let message = NetlinkMessage::<Route>::deserialize(bytes).map_err(io::Error::other)?;
        let many = message.header.flags & rtnetlink::packet_core::NLM_F_MULTIPART != 0;
        match message.payload {
            NetlinkPayload::InnerMessage(route) => {
                answers.push(route);
                if !many {
                    return Ok(true);
                }
            }
            NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
            NetlinkPayload::Done(_) | NetlinkPayload::Error(_) => return Ok(true),
            _ => {}
        }
        let length = (message.header.length as usize).next_multiple_of(4).max(16);
        bytes = bytes.get(length..).unwrap_or_default();
    }
    Ok(false)
}

fn device(message: LinkMessage) -> Option<Device> {
    let mut name = None;
    let mut xdp = None;
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text),
            LinkAttribute::Xdp(parts) => xdp = running(&parts),
            _ => {}
        }
    }
    Some(Device { index: message.header.index, name: name?, xdp })
}

fn running(parts: &[LinkXdp]) -> Option<Attached> {
    let attached = parts.iter().find_map(|part| match part {
        LinkXdp::Attached(attached) => Some(attached),
        _ => None,
    })?;
    let mode = match attached {
        XdpAttached::None => return None,
        XdpAttached::SocketBuffer => XdpMode::Generic,
        XdpAttached::Hardware => XdpMode::Hardware,
        _ => XdpMode::Driver,
    };
    let program = parts.iter().find_map(|part| match part {
        LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) => Some(*id),
        _ => None,
    });
    Some(Attached { mode, program: program.unwrap_or(0) })
}

/// Every device of this network namespace.
pub fn devices() -> io::Result<Vec<Device>> {
    let links = ask(Route::GetLink(LinkMessage::default()), NLM_F_DUMP)?;
    Ok(links
        .into_iter()
        .filter_map(|route| match route {
            Route::NewLink(message) => device(message),
            _ => None,
        })
        .collect())
}

/// The XDP program of one device.
pub fn xdp(interface: u32) -> io::Result<Option<Attached>> {
    let mut request = LinkMessage::default();
    request.header.index = interface;
    Ok(ask(Route::GetLink(request), 0)?.into_iter().find_map(|route| match route {
        Route::NewLink(message) => device(message)?.xdp,
        _ => None,
    }))
}

fn filters(interface: u32, parent: TcHandle) -> io::Result<Vec<Filter>> {
    let mut request = TcMessage::with_index(interface.cast_signed());
    request.header.parent = parent;
    let found = match ask(Route::GetTrafficFilter(request), NLM_F_DUMP) {
        Ok(found) => found,
        // Without the qdisc there is no chain to list.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => Vec::new(),
        Err(error) => return Err(error),
    };
    let mut filters: Vec<Filter> = found.into_iter().filter_map(filter).collect();
    filters.dedup();
    Ok(filters)
}

fn filter(route: Route) -> Option<Filter> {
    let Route::NewTrafficFilter(message) = route else { return None };
    let handle: u32 = message.header.handle.into();
    // Each chain is listed with a head of handle 0 first.
    if handle == 0 {
        return None;
    }
    let kind = message.attributes.into_iter().find_map(|attribute| match attribute {
        TcAttribute::Kind(kind) => Some(kind),
        _ => None,
    });
    Some(Filter { priority: (message.header.info >> 16) as u16, handle, kind: kind? })
}

/// The TC filters at a device's egress; none where it has no clsact qdisc.
pub fn egress_filters(interface: u32) -> io::Result<Vec<Filter>> {
    filters(interface, EGRESS)
}

/// The TC filters at a device's ingress; none where it has no clsact qdisc.
pub fn ingress_filters(interface: u32) -> io::Result<Vec<Filter>> {
    filters(interface, INGRESS)
}

/// Takes one filter away from a device's egress. ENOENT: it is not there.
pub fn remove_egress_filter(interface: u32, filter: &Filter) -> io::Result<()> {
    let mut request = TcMessage::with_index(interface.cast_signed());
    request.header.parent = EGRESS;
    request.header.handle = filter.handle.into();
    // Priority above, protocol (ETH_P_ALL, network byte order) below.
    request.header.info = u32::from(filter.priority) << 16 | u32::from((libc::ETH_P_ALL as u16).to_be());
    request.attributes.push(TcAttribute::Kind(filter.kind.clone()));
    ask(Route::DelTrafficFilter(request), NLM_F_ACK).map(drop)
}

/// Takes the clsact qdisc away from a device, with every filter in it. ENOENT or EINVAL: there is none.
pub fn remove_clsact(interface: u32) -> io::Result<()> {
    let mut request = TcMessage::with_index(interface.cast_signed());
    request.header.parent = CLSACT;
    request.header.handle = TcHandle { major: 0xffff, minor: 0 };
    ask(Route::DelQueueDiscipline(request), NLM_F_ACK).map(drop)
}
