//! Problems of the node as a whole: kernel, privileges, forwarding, firewall, conntrack.

use super::{Finding, Wanted};
use crate::host::Host;
use crate::host::firewall::{ForwardChain, Tool};
use crate::host::kernel::OLDEST;
use crate::host::sysctls::{Conntrack, key};
use crate::model::{IpFamily, Protocol};
use crate::problem::Problem;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

type Ways = BTreeMap<Option<String>, BTreeSet<IpAddr>>;

/// Fuller than this, in percent, conntrack is about to drop new connections.
const CONNTRACK_FULL: u64 = 90;

pub(super) fn refusals(host: &Host, node: &str) -> Vec<Problem> {
    [old_kernel(host, node), missing_capabilities(host, node), no_bpffs(host, node)]
        .into_iter()
        .flatten()
        .collect()
}

pub(super) fn problems(host: &Host, wanted: &Wanted, ways: &Ways) -> Vec<Problem> {
    let mut all = Vec::new();
    all.extend(no_jit(host, &wanted.node));
    all.extend(no_uplink(wanted));
    for family in wanted.families() {
        all.extend(no_forwarding(host, wanted, family));
        all.extend(closed_chains(host, wanted, family));
    }
    all.extend(unreachable(wanted, ways));
    if let Some(conntrack) = &host.sysctls.conntrack {
        all.extend(short_memory(conntrack, wanted));
        all.extend(full(conntrack, &wanted.node));
    }
    // A chain that sees both families is found once for each.
    let mut seen = BTreeSet::new();
    all.retain(|problem: &Problem| seen.insert(problem.clone()));
    all
}

fn old_kernel(host: &Host, node: &str) -> Option<Problem> {
    let release = host.kernel.release?;
    let message = format!(
        "This kernel is {}; nlb needs {OLDEST} or newer. Boot a newer one (Debian 12 and Ubuntu 24.04 bring one).",
        host.kernel.name
    );
    let finding = Finding::node(node).at("kernel", &host.kernel.name);
    (release < OLDEST).then(|| finding.warning("KernelTooOld", message))
}

fn missing_capabilities(host: &Host, node: &str) -> Option<Problem> {
    let missing = host.capabilities.missing();
    let names = missing.join(", ");
    let message = format!(
        "nlb-agent may not load and attach programs: it lacks {names}. Run it as root (`sudo nlb-agent run …`), or give it CAP_BPF, CAP_NET_ADMIN and \
         CAP_PERFMON (`setcap cap_bpf,cap_net_admin,cap_perfmon+ep nlb-agent`; in a pod `securityContext.capabilities.add`)."
    );
    (!missing.is_empty())
        .then(|| Finding::node(node).at("capabilities", names).warning("MissingCapabilities", message))
}

fn no_bpffs(host: &Host, node: &str) -> Option<Problem> {
    let path = &host.pins.path;
    let place = path.parent().filter(|parent| *parent != Path::new("/")).unwrap_or(path).display();
    let message = format!(
        "{} is not on a BPF file system, so programs and maps could not outlive the agent. Mount one: `mkdir -p {place} && mount -t bpf bpf {place}`; \
         a pod mounts its node's (hostPath /sys/fs/bpf).",
        path.display()
    );
    (!host.pins.on_bpffs)
        .then(|| Finding::node(node).at("--pin-path", path.display()).warning("NoBpfFileSystem", message))
}

fn no_jit(host: &Host, node: &str) -> Option<Problem> {
    let message = "BPF programs are interpreted, which costs several times as much for each packet. Switch the compiler on: \
                   `sysctl -w net.core.bpf_jit_enable=1`.";
    let finding = Finding::node(node).at("net.core.bpf_jit_enable", 0);
    (!host.kernel.features.jit).then(|| finding.warning("JitOff", message.to_owned()))
}

fn no_uplink(wanted: &Wanted) -> Option<Problem> {
    let message = "There is no default route, so nothing says which interface clients come by. Name it: `--interface IF`.";
    wanted.uplinks.is_empty().then(|| Finding::node(&wanted.node).warning("NoUplink", message.to_owned()))
}

fn no_forwarding(host: &Host, wanted: &Wanted, family: IpFamily) -> Option<Problem> {
    let (setting, on) = match family {
        IpFamily::IPv4 => ("net.ipv4.ip_forward", host.sysctls.ipv4_forwarding),
        IpFamily::IPv6 => ("net.ipv6.conf.all.forwarding", host.sysctls.ipv6_forwarding == Some(true)),
    };
    let mut message = format!(
        "The node does not forward {family:?} packets, so none reaches a target. Switch it on: `sysctl -w {setting}=1` \
         (and in /etc/sysctl.d to keep it)."
    );
    // A forwarding node stops listening to router advertisements: the command alone would take its own default route away.
    for uplink in advertised(host).filter(|_| family == IpFamily::IPv6) {
        message += &format!(
            " Before that, as its default route is advertised: `sysctl -w net.ipv6.conf.{}.accept_ra=2`.",
            key(uplink)
        );
    }
    (!on).then(|| Finding::node(&wanted.node).at(setting, 0).warning("ForwardingOff", message))
}

/// Devices whose default route was learnt from an advertisement.
fn advertised(host: &Host) -> impl Iterator<Item = &str> {
    let routes = host.network.routes.iter().filter(|route| route.is_default() && route.advertised);
    let devices: BTreeSet<u32> = routes.flat_map(|route| &route.hops).map(|hop| hop.device).collect();
    devices
        .into_iter()
        .filter_map(|device| host.network.indexed(device))
        .map(|interface| interface.name.as_str())
}

fn closed_chains(host: &Host, wanted: &Wanted, family: IpFamily) -> Vec<Problem> {
    let sees = |chain: &&ForwardChain| match family {
        IpFamily::IPv4 => chain.sees_ipv4(),
        IpFamily::IPv6 => chain.sees_ipv6(),
    };
    let closed = host.firewall.iter().filter(sees).filter(|chain| chain.drops_the_rest());
    closed.map(|chain| closed_chain(chain, &wanted.node)).collect()
}

fn closed_chain(chain: &ForwardChain, node: &str) -> Problem {
    let ForwardChain { family, table, name, rules, accepting, .. } = chain;
    let seen = match (*rules, *accepting) {
        (0, _) => "has no rule".to_owned(),
        (rules, 0) => format!("has {rules} rules, none of which accepts anything"),
        (rules, accepting) => format!(
            "has {rules} rules, {accepting} of which accept some packets or lead on; only what they accept reaches a target, \
             and health checks, which are not forwarded, pass all the same"
        ),
    };
    let what = if chain.policy_drop {
        "drops by policy what no rule accepts"
    } else {
        "drops by a rule what no earlier rule accepts"
    };
    let message = format!(
        "Chain {name} of table {family} {table}, which every forwarded packet passes, {what}, and {seen}. {}",
        opening(chain)
    );
    let value = if chain.policy_drop { "policy drop" } else { "drop" };
    Finding::node(node).at(&format!("{family} {table} {name}"), value).warning("ForwardPolicyDrop", message)
}

/// The command that lets targets' packets through, and the one that lets everything through.
fn opening(chain: &ForwardChain) -> String {
    let ForwardChain { family, table, name, .. } = chain;
    let ip = if family == "ip6" { "ip6" } else { "ip" };
    match (chain.tool, chain.policy_drop) {
        (Tool::Nft, true) => format!(
            "Accept the targets' network both ways (`nft insert rule {family} {table} {name} {ip} daddr CIDR accept`, the same with saddr), \
             or everything: `nft 'chain {family} {table} {name} {{ policy accept; }}'`."
        ),
        (Tool::Nft, false) => format!(
            "Accept the targets' network both ways: `nft insert rule {family} {table} {name} {ip} daddr CIDR accept`, the same with saddr \
             (firewalld: `firewall-cmd --zone=trusted --add-source=CIDR`)."
        ),
        (Tool::Iptables, drop) => {
            let command = if family == "ip6" { "ip6tables" } else { "iptables" };
            let all =
                if drop { format!(", or everything: `{command} -P FORWARD ACCEPT`") } else { String::new() };
            format!(
                "Accept the targets' network both ways (`{command} -I FORWARD -d CIDR -j ACCEPT`, the same with -s){all}."
            )
        }
    }
}

fn unreachable(wanted: &Wanted, ways: &Ways) -> Option<Problem> {
    let lost = ways.get(&None)?;
    let first = lost.first()?;
    let message = format!(
        "The node has no route to {} target address(es), the first of them {first}: pods must be reached from the host by routing. \
         Add one: `ip route add {first} dev IF`.",
        lost.len()
    );
    Some(Finding::node(&wanted.node).at("route", first).warning("NoRouteToTarget", message))
}

fn short_memory(conntrack: &Conntrack, wanted: &Wanted) -> Vec<Problem> {
    let one = |protocol: Protocol| {
        let (setting, kept) = match protocol {
            Protocol::Tcp => {
                ("net.netfilter.nf_conntrack_tcp_timeout_established", conntrack.tcp_established)
            }
            Protocol::Udp => ("net.netfilter.nf_conntrack_udp_timeout_stream", conntrack.udp_stream),
        };
        let ours = wanted.listeners.iter().filter(|(_, of, idle)| *of == protocol && idle.as_secs() > kept);
        let count = ours.clone().count();
        let (listener, _, idle) = ours.max_by_key(|(_, _, idle)| *idle)?;
        let idle = idle.as_secs();
        let message = format!(
            "The host's conntrack forgets an idle {protocol} flow after {kept} s, before {count} listener(s) do, {listener} after {idle} s: \
             a firewall that wants known connections then cuts it. `sysctl -w {setting}={idle}`."
        );
        Some(Finding::node(&wanted.node).at(setting, kept).warning("ConntrackTimeoutShort", message))
    };
    [Protocol::Tcp, Protocol::Udp].into_iter().filter_map(one).collect()
}

fn full(conntrack: &Conntrack, node: &str) -> Option<Problem> {
    let Conntrack { entries, capacity, .. } = *conntrack;
    let percent = (entries * 100).checked_div(capacity)?;
    let message = format!(
        "The host's conntrack table is {percent} % full; when it is full, new connections to targets are dropped. \
         `sysctl -w net.netfilter.nf_conntrack_max={}`.",
        capacity * 2
    );
    // The exact fill changes with every look; a problem that changes with it would be announced anew each time.
    let finding = Finding::node(node).at("net.netfilter.nf_conntrack_max", capacity);
    (percent >= CONNTRACK_FULL).then(|| finding.warning("ConntrackFull", message))
}
