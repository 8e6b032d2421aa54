//! Each problem occurs for what causes it, alone, and disappears when the cause does.

use super::*;
use crate::host::addresses::{Address, Scope};
use crate::host::firewall::{ForwardChain, Tool};
use crate::host::interfaces::{Attached, Interface, XdpMode};
use crate::host::kernel::{Features, Kernel, Release};
use crate::host::network::{Hop, MAIN_TABLE, Network, Route};
use crate::host::privileges::{Capabilities, PinPlace};
use crate::host::sysctls::{Conntrack, DeviceSysctls, Sysctls};

fn link(index: u32, name: &str, kind: Option<&str>) -> Interface {
    let kind = kind.map(str::to_owned);
    let (up, carrier, ethernet) = (true, true, true);
    Interface { index, name: name.into(), kind, mtu: 1500, up, carrier, ethernet, ..Interface::default() }
}

fn route(destination: &str, device: u32) -> Route {
    let hops = vec![Hop { device, gateway: None }];
    Route { destination: destination.parse().unwrap(), table: MAIN_TABLE, advertised: false, hops }
}

/// A machine with nothing wrong: eth0 to the clients, veth1 to a dual-stack pod.
fn good() -> Host {
    let device = DeviceSysctls { forwarding: true, ..DeviceSysctls::default() };
    let address = Address::new(2, "192.0.2.2/24".parse().unwrap(), Scope::Global);
    Host {
        kernel: Kernel {
            name: "6.1.0-44-amd64".into(),
            release: Some(Release { major: 6, minor: 1 }),
            features: Features { tcx: false, xdp_frags: true, jit: true },
        },
        network: Network {
            interfaces: vec![link(2, "eth0", None), link(3, "veth1", Some("veth"))],
            addresses: vec![address],
            routes: vec![
                route("0.0.0.0/0", 2),
                route("::/0", 2),
                route("10.1.0.7/32", 3),
                route("fd00::7/128", 3),
            ],
        },
        sysctls: Sysctls {
            ipv4_forwarding: true,
            ipv6_forwarding: Some(true),
            all: device,
            devices: [("eth0".to_owned(), device), ("veth1".to_owned(), device)].into(),
            conntrack: Some(Conntrack {
                entries: 10,
                capacity: 1000,
                tcp_established: 432_000,
                udp_stream: 120,
            }),
        },
        capabilities: Capabilities(u64::MAX),
        pins: PinPlace { path: "/sys/fs/bpf/nlb".into(), on_bpffs: true },
        ..Host::default()
    }
}

fn wanted() -> Wanted {
    let listener = |name: &str, protocol, idle| (name.to_owned(), protocol, Duration::from_secs(idle));
    Wanted {
        node: "node-a".into(),
        uplinks: vec!["eth0".into()],
        targets: ["10.1.0.7", "fd00::7"].map(|ip| ip.parse().unwrap()).into(),
        listeners: vec![
            listener("192.0.2.10:80/TCP", Protocol::Tcp, 350),
            listener("192.0.2.10:443/TCP", Protocol::Tcp, 6000),
            listener("192.0.2.10:53/UDP", Protocol::Udp, 120),
        ],
        own_programs: [7].into(),
        ..Wanted::default()
    }
}

/// One row: what is changed on the good machine, and the one problem it makes.
struct Row {
    change: fn(&mut Host, &mut Wanted),
    object: &'static str,
    reason: &'static str,
    severity: Severity,
    /// Parts of the message: who, and the command that mends it.
    says: &'static [&'static str],
}

const NODE: &str = "Node node-a";
const ETH0: &str = "Interface eth0";

#[rustfmt::skip]
const ROWS: &[Row] = &[
    Row { change: |h, _| h.kernel.release = Release::parse("5.10.223"), object: NODE, reason: "KernelTooOld", severity: Severity::Warning, says: &["6.1 or newer"] },
    Row { change: |h, _| h.capabilities = Capabilities(1 << 12), object: NODE, reason: "MissingCapabilities", severity: Severity::Warning, says: &["lacks CAP_BPF, CAP_PERFMON.", "sudo", "setcap"] },
    Row { change: |h, _| h.pins.on_bpffs = false, object: NODE, reason: "NoBpfFileSystem", severity: Severity::Warning, says: &["mount -t bpf bpf /sys/fs/bpf`"] },
    Row { change: |h, _| h.kernel.features.jit = false, object: NODE, reason: "JitOff", severity: Severity::Warning, says: &["sysctl -w net.core.bpf_jit_enable=1"] },
    Row { change: |_, w| w.uplinks.clear(), object: NODE, reason: "NoUplink", severity: Severity::Warning, says: &["--interface IF"] },
    Row { change: |h, _| h.sysctls.ipv4_forwarding = false, object: NODE, reason: "ForwardingOff", severity: Severity::Warning, says: &["sysctl -w net.ipv4.ip_forward=1"] },
    Row { change: |h, _| h.sysctls.ipv6_forwarding = Some(false), object: NODE, reason: "ForwardingOff", severity: Severity::Warning, says: &["sysctl -w net.ipv6.conf.all.forwarding=1"] },
    Row { change: |h, _| { h.sysctls.ipv6_forwarding = None; h.network.routes[1].advertised = true; }, object: NODE, reason: "ForwardingOff", severity: Severity::Warning, says: &["net.ipv6.conf.eth0.accept_ra=2"] },
    Row { change: |h, _| h.sysctls.devices.get_mut("veth1").unwrap().forwarding = false, object: "Interface veth1", reason: "ForwardingOff", severity: Severity::Warning, says: &["sysctl -w net.ipv4.conf.veth1.forwarding=1"] },
    Row { change: |h, _| h.firewall = vec![chain("inet", Tool::Nft, 0)], object: NODE, reason: "ForwardPolicyDrop", severity: Severity::Warning, says: &["inet filter", "has no rule", "nft 'chain inet filter FORWARD { policy accept; }'"] },
    Row { change: |h, _| h.firewall = vec![chain("ip", Tool::Iptables, 2)], object: NODE, reason: "ForwardPolicyDrop", severity: Severity::Warning, says: &["3 rules, 2 of which accept", "`iptables -P FORWARD ACCEPT`", "`iptables -I FORWARD -d CIDR -j ACCEPT`"] },
    Row { change: |h, _| h.firewall = vec![chain("ip6", Tool::Iptables, 0)], object: NODE, reason: "ForwardPolicyDrop", severity: Severity::Warning, says: &["`ip6tables -P FORWARD ACCEPT`"] },
    Row { change: |h, _| h.firewall = vec![ForwardChain { policy_drop: false, drops_all: true, ..chain("ip6", Tool::Nft, 1) }], object: NODE, reason: "ForwardPolicyDrop", severity: Severity::Warning, says: &["by a rule", "nft insert rule ip6 filter FORWARD ip6 daddr"] },
    Row { change: |h, _| { h.network.routes.truncate(3); h.network.routes.remove(1); }, object: NODE, reason: "NoRouteToTarget", severity: Severity::Warning, says: &["1 target address(es), the first of them fd00::7", "ip route add fd00::7"] },
    Row { change: |h, _| h.sysctls.conntrack.as_mut().unwrap().tcp_established = 300, object: NODE, reason: "ConntrackTimeoutShort", severity: Severity::Warning, says: &["2 listener(s)", "192.0.2.10:443/TCP after 6000 s", "sysctl -w net.netfilter.nf_conntrack_tcp_timeout_established=6000"] },
    Row { change: |h, _| h.sysctls.conntrack.as_mut().unwrap().udp_stream = 119, object: NODE, reason: "ConntrackTimeoutShort", severity: Severity::Warning, says: &["192.0.2.10:53/UDP", "sysctl -w net.netfilter.nf_conntrack_udp_timeout_stream=120"] },
    Row { change: |h, _| h.sysctls.conntrack.as_mut().unwrap().entries = 900, object: NODE, reason: "ConntrackFull", severity: Severity::Warning, says: &["90 % full", "sysctl -w net.netfilter.nf_conntrack_max=2000"] },
    Row { change: |_, w| w.uplinks.push("eth9".into()), object: "Interface eth9", reason: "InterfaceMissing", severity: Severity::Warning, says: &["waits", "ip -brief link"] },
    Row { change: |h, _| h.network.interfaces[0].up = false, object: ETH0, reason: "InterfaceDown", severity: Severity::Warning, says: &["ip link set dev eth0 up"] },
    Row { change: |h, _| h.network.interfaces[0].carrier = false, object: ETH0, reason: "InterfaceDown", severity: Severity::Warning, says: &["no carrier"] },
    Row { change: |h, w| { h.network.interfaces.push(Interface { ethernet: false, ..link(4, "wg0", Some("wireguard")) }); w.uplinks.push("wg0".into()); }, object: "Interface wg0", reason: "NoEthernetHeader", severity: Severity::Warning, says: &["wg0 (wireguard)", "--interface eth0"] },
    Row { change: |h, _| { h.network.interfaces[0].master = Some(5); h.network.interfaces.push(link(5, "br0", Some("bridge"))); }, object: ETH0, reason: "PortOfAnotherDevice", severity: Severity::Warning, says: &["bridge br0", "--interface br0"] },
    Row { change: |h, _| h.network.interfaces.push(Interface { parent: Some(2), ..link(6, "eth0.5", Some("vlan")) }), object: ETH0, reason: "DeviceOnTop", severity: Severity::Warning, says: &["eth0.5 (vlan)", "--interface eth0.5"] },
    Row { change: |h, _| h.network.interfaces.push(Interface { parent: Some(2), ..link(6, "mv0", Some("macvlan")) }), object: ETH0, reason: "DeviceOnTop", severity: Severity::Warning, says: &["mv0 (macvlan)"] },
    Row { change: |h, w| { h.network.interfaces[0].xdp = vec![Attached { mode: XdpMode::Driver, program: 41 }]; w.program_names = [(41, "cil_xdp".to_owned())].into(); }, object: ETH0, reason: "ForeignXdpProgram", severity: Severity::Warning, says: &["number 41 (cil_xdp)", "ip link set dev eth0 xdpdrv off"] },
    Row { change: |h, _| h.network.interfaces[0].xdp = vec![Attached { mode: XdpMode::Generic, program: 7 }], object: ETH0, reason: "GenericMode", severity: Severity::Warning, says: &["its driver has no XDP", "ethtool -i eth0"] },
    Row { change: |h, w| { h.network.interfaces[0].xdp = vec![Attached { mode: XdpMode::Generic, program: 7 }]; w.generic_because = [("eth0".to_owned(), "the driver said: Operation not supported".to_owned())].into(); }, object: ETH0, reason: "GenericMode", severity: Severity::Warning, says: &["the driver said"] },
    Row { change: |h, _| h.sysctls.all.proxy_arp = true, object: ETH0, reason: "ProxyArp", severity: Severity::Warning, says: &["sysctl -w net.ipv4.conf.all.proxy_arp=0"] },
    Row { change: |h, _| h.sysctls.devices.get_mut("eth0").unwrap().proxy_arp = true, object: ETH0, reason: "ProxyArp", severity: Severity::Warning, says: &["sysctl -w net.ipv4.conf.eth0.proxy_arp=0"] },
    Row { change: |h, _| h.sysctls.devices.get_mut("eth0").unwrap().rp_filter = 1, object: ETH0, reason: "StrictReversePath", severity: Severity::Warning, says: &["sysctl -w net.ipv4.conf.eth0.rp_filter=2"] },
    Row { change: |h, _| { h.sysctls.all.rp_filter = 1; h.sysctls.devices.get_mut("eth0").unwrap().rp_filter = 2; }, object: "Interface veth1", reason: "StrictReversePath", severity: Severity::Warning, says: &["sysctl -w net.ipv4.conf.veth1.rp_filter=2"] },
    Row { change: |h, _| h.network.interfaces[1].mtu = 1450, object: "Interface veth1", reason: "SmallerMtu", severity: Severity::Normal, says: &["ip link set dev veth1 mtu 1500"] },
    Row { change: |h, _| h.network.routes.truncate(3), object: ETH0, reason: "TargetsBehindUplink", severity: Severity::Normal, says: &["fd00::7", "macvlan"] },
];

fn chain(family: &str, tool: Tool, accepting: usize) -> ForwardChain {
    let rules = if accepting == 0 { 0 } else { accepting + 1 };
    let (family, table, name) = (family.into(), "filter".into(), "FORWARD".into());
    ForwardChain { tool, family, table, name, policy_drop: true, rules, accepting, ..ForwardChain::default() }
}

#[test]
fn a_good_machine_has_no_problem() {
    assert_eq!(problems(&good(), &wanted()), []);
    assert_eq!(refusals(&good(), &wanted()), []);
}

#[test]
fn each_cause_makes_its_problem_and_no_other() {
    for (at, row) in ROWS.iter().enumerate() {
        let (mut host, mut wanted) = (good(), wanted());
        (row.change)(&mut host, &mut wanted);
        let found = problems(&host, &wanted);
        let names: Vec<_> =
            found.iter().map(|one| (one.object.as_str(), one.reason.as_str(), one.severity)).collect();
        assert_eq!(names, [(row.object, row.reason, row.severity)], "row {at}");
        for part in row.says {
            assert!(found[0].message.contains(part), "row {at}: {part:?} is not in: {}", found[0].message);
        }
        assert!(found[0].value.is_some() || row.reason == "NoUplink", "row {at} has no value");
    }
}

#[test]
fn only_what_cannot_be_run_with_refuses() {
    let refusing = ["KernelTooOld", "MissingCapabilities", "NoBpfFileSystem"];
    for row in ROWS {
        let (mut host, mut wanted) = (good(), wanted());
        (row.change)(&mut host, &mut wanted);
        assert_eq!(!refusals(&host, &wanted).is_empty(), refusing.contains(&row.reason), "{}", row.reason);
    }
}

#[test]
fn a_family_without_targets_is_not_judged() {
    let mut host = good();
    host.sysctls.ipv6_forwarding = None;
    host.firewall = vec![chain("ip6", Tool::Nft, 0)];
    let four = Wanted { targets: ["10.1.0.7".parse().unwrap()].into(), ..wanted() };
    assert_eq!(problems(&host, &four), []);
    host.sysctls.ipv4_forwarding = false;
    host.sysctls.all.rp_filter = 1;
    let none = Wanted { targets: BTreeSet::new(), ..wanted() };
    assert_eq!(problems(&host, &none), []);
}

#[test]
fn a_chain_of_both_families_is_one_problem() {
    let host = Host { firewall: vec![chain("inet", Tool::Nft, 1)], ..good() };
    assert_eq!(problems(&host, &wanted()).len(), 1);
}

#[test]
fn conntrack_that_is_not_loaded_is_no_problem() {
    let mut host = good();
    host.sysctls.conntrack = None;
    assert_eq!(problems(&host, &wanted()), []);
}

#[test]
fn ones_own_program_in_driver_mode_is_no_problem() {
    let mut host = good();
    host.network.interfaces[0].xdp = vec![Attached { mode: XdpMode::Driver, program: 7 }];
    assert_eq!(problems(&host, &wanted()), []);
}
