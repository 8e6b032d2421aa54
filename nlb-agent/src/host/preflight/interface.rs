//! Problems of single interfaces: the uplinks, and the devices that lead to targets.

use super::{Finding, Wanted};
use crate::host::Host;
use crate::host::interfaces::{Interface, XdpMode};
use crate::host::sysctls::key;
use crate::model::IpFamily;
use crate::problem::Problem;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

type Ways = BTreeMap<Option<String>, BTreeSet<IpAddr>>;

pub(super) fn problems(host: &Host, wanted: &Wanted, ways: &Ways) -> Vec<Problem> {
    let mut all = Vec::new();
    for name in &wanted.uplinks {
        match host.network.interface(name) {
            Some(uplink) => all.extend(uplink_problems(host, wanted, uplink)),
            None => all.push(missing(name)),
        }
    }
    let to_targets: BTreeSet<&str> = ways.keys().flatten().map(String::as_str).collect();
    let uplinks =
        wanted.uplinks.iter().map(String::as_str).filter(|name| host.network.interface(name).is_some());
    let inner = to_targets.iter().copied().filter(|name| !wanted.uplinks.iter().any(|uplink| uplink == name));
    if wanted.uses(IpFamily::IPv4) {
        for name in uplinks.chain(inner.clone()) {
            all.extend(strict_filter(host, name));
            all.extend(forwarding_off_here(host, name));
        }
    }
    all.extend(inner.filter_map(|name| small_mtu(host, wanted, name)));
    all.extend(wanted.uplinks.iter().filter_map(|name| targets_behind(host, name, ways)));
    all
}

fn uplink_problems(host: &Host, wanted: &Wanted, uplink: &Interface) -> Vec<Problem> {
    let mut all = Vec::new();
    all.extend(down(uplink));
    all.extend(no_ethernet(host, uplink));
    all.extend(port_of_another(host, uplink));
    all.extend(device_on_top(host, uplink));
    all.extend(foreign_programs(wanted, uplink));
    all.extend(generic(wanted, uplink));
    all.extend(proxy_arp(host, uplink));
    all
}

fn missing(name: &str) -> Problem {
    let message = format!(
        "There is no interface {name}. nlb waits for it and serves it when it comes; if the name is wrong, `ip -brief link` lists the right ones."
    );
    Finding::interface(name).at("--interface", name).warning("InterfaceMissing", message)
}

fn down(uplink: &Interface) -> Option<Problem> {
    let name = &uplink.name;
    let (value, message) = match (uplink.up, uplink.carrier) {
        (true, true) => return None,
        (false, _) => ("down", format!("{name} is switched off. `ip link set dev {name} up`.")),
        (true, false) => (
            "no carrier",
            format!(
                "{name} has no carrier: its cable, or the device at its other end, is missing or down; see `ip link show dev {name}`."
            ),
        ),
    };
    Some(Finding::interface(name).at("state", value).warning("InterfaceDown", message))
}

fn no_ethernet(host: &Host, uplink: &Interface) -> Option<Problem> {
    let name = &uplink.name;
    let kind = uplink.kind.as_deref().unwrap_or("device");
    let nics =
        host.network.interfaces.iter().filter(|one| one.ethernet && !one.loopback && one.kind.is_none());
    let others: Vec<&str> = nics.map(|one| one.name.as_str()).collect();
    let instead = if others.is_empty() { "IF".to_owned() } else { others.join(" or ") };
    let message = format!(
        "Frames of {name} ({kind}) have no Ethernet header, so nlb cannot read them and serves nothing that comes by it. \
         Name an Ethernet interface that clients reach: `--interface {instead}`."
    );
    (!uplink.ethernet).then(|| Finding::interface(name).at("kind", kind).warning("NoEthernetHeader", message))
}

fn port_of_another(host: &Host, uplink: &Interface) -> Option<Problem> {
    let (name, master) = (&uplink.name, host.network.master(uplink)?);
    let (above, kind) = (&master.name, master.kind.as_deref().unwrap_or("device"));
    let message = format!(
        "{name} is a port of the {kind} {above}: nlb sees frames before {above} does, its guests' and neighbours' among them, and replies leave by {above}. \
         Serve the {kind} instead: `--interface {above}`."
    );
    Some(Finding::interface(name).at("master", above).warning("PortOfAnotherDevice", message))
}

fn device_on_top(host: &Host, uplink: &Interface) -> Option<Problem> {
    let name = &uplink.name;
    let above: Vec<_> = host.network.upper(uplink).collect();
    let first = &above.first()?.name;
    let whom: Vec<String> = above
        .iter()
        .map(|one| format!("{} ({})", one.name, one.kind.as_deref().unwrap_or("device")))
        .collect();
    let message = format!(
        "{} sits on {name}: nlb sees its frames first, and answers a VIP in them too. Serve it alone if that is where clients are \
         (`--interface {first}`), or remove it if it is not used (`ip link delete {first}`).",
        whom.join(", ")
    );
    Some(Finding::interface(name).at("upper", whom.join(", ")).warning("DeviceOnTop", message))
}

fn foreign_programs(wanted: &Wanted, uplink: &Interface) -> Vec<Problem> {
    let name = &uplink.name;
    let foreign = uplink.xdp.iter().filter(|attached| !wanted.own_programs.contains(&attached.program));
    let problem = |program: u32, flag: &str| {
        let whose = wanted.program_names.get(&program).map(|name| format!(" ({name})")).unwrap_or_default();
        let message = format!(
            "Another XDP program, number {program}{whose}, runs on {name}; nlb leaves it there and serves nothing by this interface. If it is not \
             needed: `ip link set dev {name} {flag} off`, or, if that answers \"busy\", `bpftool link detach id` with its number in `bpftool link`."
        );
        Finding::interface(name).at("xdp", program).warning("ForeignXdpProgram", message)
    };
    let flag = |mode| match mode {
        XdpMode::Driver => "xdpdrv",
        XdpMode::Generic => "xdpgeneric",
        XdpMode::Hardware => "xdpoffload",
    };
    foreign.map(|attached| problem(attached.program, flag(attached.mode))).collect()
}

fn generic(wanted: &Wanted, uplink: &Interface) -> Option<Problem> {
    let name = &uplink.name;
    let runs = |program| wanted.own_programs.contains(&program);
    uplink.xdp.iter().find(|attached| attached.mode == XdpMode::Generic && runs(attached.program))?;
    let said = wanted.generic_because.get(name).cloned();
    let why = said.unwrap_or_else(|| match uplink.kind.as_deref() {
        Some(kind) => format!("a {kind} device may have no XDP of its own, or `--xdp-mode generic` was given"),
        None => "its driver has no XDP, or refuses it with this MTU or number of queues, or `--xdp-mode generic` was given".to_owned(),
    });
    let message = format!(
        "nlb runs on {name} in generic mode, which costs several times as much for each packet: {why}. When that is mended: `--xdp-mode driver`; \
         `ethtool -i {name}` names the driver, `ip link set dev {name} mtu 1500` helps where its MTU ({}) is too large.",
        uplink.mtu
    );
    Some(Finding::interface(name).at("mode", "generic").warning("GenericMode", message))
}

fn proxy_arp(host: &Host, uplink: &Interface) -> Option<Problem> {
    let name = &uplink.name;
    let (switch, at) =
        if host.sysctls.all.proxy_arp { ("all".to_owned(), "all") } else { (key(name), name.as_str()) };
    let message = format!(
        "{name} answers ARP for every address that the node has a route to, so also for VIPs that another node owns. \
         `sysctl -w net.ipv4.conf.{switch}.proxy_arp=0`."
    );
    let finding = Finding::interface(name).at("proxy_arp", format!("1 ({at})"));
    host.sysctls.proxy_arp(name).then(|| finding.warning("ProxyArp", message))
}

fn strict_filter(host: &Host, name: &str) -> Option<Problem> {
    const STRICT: u8 = 1;
    let own = key(name);
    // The greater value counts, so one device is made loose without touching the others.
    let message = format!(
        "{name} drops packets whose sender the node would not answer by {name} (strict reverse path filter; of `all` and the device, the greater counts). \
         Make it loose: `sysctl -w net.ipv4.conf.{own}.rp_filter=2`."
    );
    let setting = format!("net.ipv4.conf.{own}.rp_filter");
    let finding = Finding::interface(name).at(&setting, STRICT);
    (host.sysctls.rp_filter(name) == STRICT).then(|| finding.warning("StrictReversePath", message))
}

fn forwarding_off_here(host: &Host, name: &str) -> Option<Problem> {
    let setting = format!("net.ipv4.conf.{}.forwarding", key(name));
    let message = format!(
        "What comes in by {name} is not forwarded, although the node forwards. `sysctl -w {setting}=1`."
    );
    // With forwarding off altogether the node's problem says so, once.
    let off = host.sysctls.ipv4_forwarding && !host.sysctls.ipv4_forwarding_at(name);
    off.then(|| Finding::interface(name).at(&setting, 0).warning("ForwardingOff", message))
}

fn small_mtu(host: &Host, wanted: &Wanted, name: &str) -> Option<Problem> {
    let inner = host.network.interface(name)?;
    let uplinks = wanted.uplinks.iter().filter_map(|uplink| host.network.interface(uplink));
    let outer = uplinks.max_by_key(|uplink| uplink.mtu).filter(|uplink| uplink.mtu > inner.mtu)?;
    let message = format!(
        "{name}, which leads to targets, takes packets of {} bytes, and {} brings packets of {}: larger ones are fragmented or refused. \
         `ip link set dev {name} mtu {}` (and in the pod), or a smaller one on {}.",
        inner.mtu, outer.name, outer.mtu, outer.mtu, outer.name
    );
    Some(Finding::interface(name).at("mtu", inner.mtu).note("SmallerMtu", message))
}

/// Pods on a macvlan or ipvlan of the uplink look like neighbours of the node but cannot be reached by it, nor answer through it.
fn targets_behind(host: &Host, name: &str, ways: &Ways) -> Option<Problem> {
    let behind = ways.get(&Some(name.to_owned()))?;
    let first = behind.first()?;
    host.network.interface(name)?;
    let message = format!(
        "{} target(s), the first {first}, are reached by the uplink {name}, so they are not pods of this node's own routing. Their answers must come back \
         through this node (by a route there), and pods on a macvlan or ipvlan of {name} cannot be reached from it at all; \
         `ip route get {first}` shows the way.",
        behind.len()
    );
    Some(Finding::interface(name).at("targets", first).note("TargetsBehindUplink", message))
}
