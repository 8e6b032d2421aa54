//! The readers against a real kernel: each test has a network namespace of its own, which ends with its thread. They need root.

use super::addresses::Owner;
use super::interfaces::XdpMode;
use super::network::Network;
use super::ports::{PortUse, Ports};
use super::preflight::{Wanted, problems};
use super::privileges::PinPlace;
use super::{Host, watch};
use crate::model::{IpFamily, Protocol};
use nix::sched::{CloneFlags, unshare};
use std::collections::BTreeSet;
use std::future::Future;
use std::net::{Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Runs `test` on a thread of its own in a new network namespace, whose loopback device is up.
fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("this test makes a network namespace: run it as root");
        sh("ip link set lo up");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn sh(script: &str) {
    let done = Command::new("sh").args(["-ec", script]).output().unwrap();
    assert!(done.status.success(), "{script}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A client's link and a pod's, addressed and up; forwarding on, no filter.
const NODE: &str = "
    ip link add eth0 mtu 1400 type veth peer name client; ip link add veth1 type veth peer name pod
    ip link set eth0 up; ip link set client up; ip link set veth1 up; ip link set pod up
    ip addr add 192.0.2.2/24 dev eth0; ip addr add 10.1.0.1/24 dev veth1
    ip addr add 2001:db8::2/64 dev eth0 nodad; ip addr add fd00::1/64 dev veth1 nodad
    ip route add default via 192.0.2.1 dev eth0; ip route add default via 2001:db8::1 dev eth0
    ip route add 10.2.0.0/16 nexthop via 192.0.2.8 dev eth0 nexthop via 10.1.0.9 dev veth1
    sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.all.proxy_arp=0
    sysctl -qw net.ipv4.conf.eth0.rp_filter=0 net.ipv4.conf.veth1.rp_filter=0";

fn wanted() -> Wanted {
    let targets = ["10.1.0.7", "fd00::7"].map(|ip| ip.parse().unwrap()).into();
    Wanted { node: "node-a".into(), uplinks: vec!["eth0".into()], targets, ..Wanted::default() }
}

/// Reasons of the problems that the namespace can cause; the machine's own (privileges, pins, JIT) are not under test.
async fn reasons() -> BTreeSet<(String, String)> {
    let host = Host::read(Path::new("/sys/fs/bpf/nlb")).await.unwrap();
    let all = problems(&host, &wanted()).into_iter();
    let machine = ["JitOff", "NoBpfFileSystem", "MissingCapabilities", "KernelTooOld", "ConntrackFull"];
    let ours = all.filter(|problem| !machine.contains(&problem.reason.as_str()));
    ours.map(|problem| (problem.object, problem.reason)).collect()
}

/// `script` makes exactly the problem `(object, reason)`, and `mend` takes it away.
async fn occurs_and_disappears(script: &str, object: &str, reason: &str, mend: &str) {
    assert_eq!(reasons().await, BTreeSet::new(), "before {script}");
    sh(script);
    assert_eq!(reasons().await, [(object.to_owned(), reason.to_owned())].into(), "{script}");
    sh(mend);
    assert_eq!(reasons().await, BTreeSet::new(), "after {mend}");
}

#[test]
fn settings_are_read_and_the_command_that_a_problem_names_mends_it() {
    in_namespace(|| async {
        sh(NODE);
        let (node, eth0, veth1) = ("Node node-a", "Interface eth0", "Interface veth1");
        let rows = [
            ("sysctl -qw net.ipv4.ip_forward=0", node, "ForwardingOff", "sysctl -qw net.ipv4.ip_forward=1"),
            (
                "sysctl -qw net.ipv6.conf.all.forwarding=0",
                node,
                "ForwardingOff",
                "sysctl -qw net.ipv6.conf.all.forwarding=1",
            ),
            (
                "sysctl -qw net.ipv4.conf.veth1.forwarding=0",
                veth1,
                "ForwardingOff",
                "sysctl -qw net.ipv4.conf.veth1.forwarding=1",
            ),
            (
                "sysctl -qw net.ipv4.conf.eth0.rp_filter=1",
                eth0,
                "StrictReversePath",
                "sysctl -qw net.ipv4.conf.eth0.rp_filter=2",
            ),
            (
                "sysctl -qw net.ipv4.conf.all.proxy_arp=1",
                eth0,
                "ProxyArp",
                "sysctl -qw net.ipv4.conf.all.proxy_arp=0",
            ),
            ("ip link set veth1 mtu 1300", veth1, "SmallerMtu", "ip link set dev veth1 mtu 1400"),
            ("ip link set client down", eth0, "InterfaceDown", "ip link set client up"),
            ("ip link add link eth0 name mv0 type macvlan", eth0, "DeviceOnTop", "ip link delete mv0"),
            (
                "ip link add br0 type bridge; ip link set eth0 master br0",
                eth0,
                "PortOfAnotherDevice",
                "ip link delete br0",
            ),
            ("ip route add 10.1.0.7 via 192.0.2.7", eth0, "TargetsBehindUplink", "ip route delete 10.1.0.7"),
        ];
        for (script, object, reason, mend) in rows {
            occurs_and_disappears(script, object, reason, mend).await;
        }
    });
}

#[test]
fn a_chain_that_drops_is_found_and_the_named_command_opens_it() {
    in_namespace(|| async {
        sh(NODE);
        let make = |family: &str| {
            format!(
                "nft 'table {family} f {{ chain passing {{ type filter hook forward priority 0; policy drop; ct state established accept; }}; }}'"
            )
        };
        for family in ["ip", "ip6", "inet"] {
            let mend = format!("nft 'chain {family} f passing {{ policy accept; }}'");
            occurs_and_disappears(&make(family), "Node node-a", "ForwardPolicyDrop", &mend).await;
        }
        sh("nft flush ruleset");
        let reject = "nft 'table inet f { chain passing { type filter hook forward priority 0; tcp dport 22 accept; counter reject; }; }'";
        occurs_and_disappears(reject, "Node node-a", "ForwardPolicyDrop", "nft flush chain inet f passing")
            .await;
    });
}

#[test]
fn short_conntrack_timeouts_are_found() {
    in_namespace(|| async {
        // A rule that wants it makes the kernel follow connections in this namespace.
        sh("nft 'table inet f { chain passing { type filter hook forward priority 0; ct state established accept; }; }'
            sysctl -qw net.netfilter.nf_conntrack_tcp_timeout_established=100 net.netfilter.nf_conntrack_udp_timeout_stream=130");
        let host = Host::read(Path::new("/sys/fs/bpf/nlb")).await.unwrap();
        let conntrack = host.sysctls.conntrack.unwrap();
        assert_eq!((conntrack.tcp_established, conntrack.udp_stream), (100, 130));
        assert!(conntrack.capacity > 0);
    });
}

#[test]
fn interfaces_addresses_and_routes_are_what_ip_made_them() {
    in_namespace(|| async {
        sh(NODE);
        let network = Network::read().await.unwrap();
        let eth0 = network.interface("eth0").unwrap();
        assert_eq!(
            (eth0.mtu, eth0.up, eth0.carrier, eth0.ethernet, eth0.loopback),
            (1400, true, true, true, false)
        );
        assert_eq!((eth0.kind.as_deref(), eth0.master, eth0.mac.is_some()), (Some("veth"), None, true));
        assert!(network.interface("lo").unwrap().loopback);
        assert_eq!(network.default_uplinks(), ["eth0"]);
        assert_eq!(
            network.reply_devices(&["eth0".into()]),
            ["eth0", "veth1"],
            "veth1 has a gateway behind it"
        );
        let vips = |family| network.node_vips(&["eth0".into()], family);
        assert_eq!(vips(IpFamily::IPv4), ["192.0.2.2".parse::<std::net::IpAddr>().unwrap()]);
        assert_eq!(vips(IpFamily::IPv6), ["2001:db8::2".parse::<std::net::IpAddr>().unwrap()]);
        let owner = |ip: &str| network.owner(ip.parse().unwrap());
        assert_eq!(owner("10.1.0.1"), Some(Owner::Node("veth1".into())));
        for gateway in ["192.0.2.1", "2001:db8::1", "192.0.2.8"] {
            assert_eq!(owner(gateway), Some(Owner::Gateway("eth0".into())));
        }
        assert_eq!(owner("192.0.2.3"), None);
    });
}

#[test]
fn a_tun_device_has_no_ethernet_header_and_is_left_out_of_a_nic() {
    in_namespace(|| async {
        sh("ip tuntap add tun0 mode tun; ip tuntap add tap0 mode tap");
        let network = Network::read().await.unwrap();
        assert!(
            !network.interface("tun0").unwrap().ethernet && network.interface("tun0").unwrap().mac.is_none()
        );
        assert!(network.interface("tap0").unwrap().ethernet);
        let host = Host { network, ..Host::read(Path::new("/sys/fs/bpf/nlb")).await.unwrap() };
        let found = problems(&host, &Wanted { uplinks: vec!["tun0".into()], ..wanted() });
        assert!(
            found
                .iter()
                .any(|one| (one.object.as_str(), one.reason.as_str())
                    == ("Interface tun0", "NoEthernetHeader"))
        );
    });
}

/// An object file with the program `return XDP_PASS`, made by the assembler that Rust links with: two instructions need no LLVM.
fn pass_object(folder: &Path) -> PathBuf {
    let (source, object) = (folder.join("pass.s"), folder.join("pass.o"));
    let text = "
        .section xdp,\"ax\",@progbits
        .globl pass
        .type pass,@function
        pass: .byte 0xb7,0,0,0,2,0,0,0, 0x95,0,0,0,0,0,0,0
        .size pass,.-pass\n";
    std::fs::write(&source, text).unwrap();
    sh(&format!("cc -c {} -o {}", source.display(), object.display()));
    let mut bytes = std::fs::read(&object).unwrap();
    // `e_machine` of the ELF header: EM_BPF instead of the machine's own.
    bytes[18..20].copy_from_slice(&247u16.to_le_bytes());
    std::fs::write(&object, bytes).unwrap();
    object
}

#[test]
fn an_xdp_program_is_seen_with_its_mode_and_number() {
    in_namespace(|| async {
        sh(NODE);
        let folder = tempfile::tempdir().unwrap();
        let object = pass_object(folder.path());
        for (flag, mode) in [("xdpdrv", XdpMode::Driver), ("xdpgeneric", XdpMode::Generic)] {
            sh(&format!("ip link set dev eth0 {flag} obj {} sec xdp", object.display()));
            let network = Network::read().await.unwrap();
            let [attached] = network.interface("eth0").unwrap().xdp[..] else { panic!("not one program") };
            assert_eq!(attached.mode, mode);
            assert!(attached.program > 0);
            let reason = |own: &[u32]| {
                let wanted = Wanted { own_programs: own.iter().copied().collect(), ..wanted() };
                let host = Host { network: network.clone(), ..Host::default() };
                problems(&host, &wanted)
                    .into_iter()
                    .map(|one| one.reason)
                    .filter(|reason| reason.contains("Xdp") || reason.contains("Mode"))
                    .collect::<Vec<_>>()
            };
            assert_eq!(reason(&[]), ["ForeignXdpProgram"]);
            assert_eq!(reason(&[attached.program]).is_empty(), mode == XdpMode::Driver);
            sh(&format!("ip link set dev eth0 {flag} off"));
            assert_eq!(Network::read().await.unwrap().interface("eth0").unwrap().xdp, []);
        }
    });
}

#[test]
fn listening_sockets_are_found_with_their_process_and_go_when_they_close() {
    in_namespace(|| async {
        sh(NODE);
        sh(
            "sysctl -qw net.ipv4.ip_local_port_range='40000 50000' net.ipv4.ip_local_reserved_ports=41000-41010",
        );
        let name = std::fs::read_to_string("/proc/self/comm").unwrap().trim().to_owned();
        let tcp = TcpListener::bind("127.0.0.1:7001").unwrap();
        let six = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 7002)).unwrap();
        let udp = UdpSocket::bind("192.0.2.2:7003").unwrap();
        let connected = TcpStream::connect("127.0.0.1:7001").unwrap();
        let ports = Ports::read().unwrap();
        let found = |protocol, ip: &str, port| ports.use_of(protocol, ip.parse().unwrap(), port);
        let holder = |found: Option<PortUse>| match found {
            Some(PortUse::Taken(socket)) => socket.process,
            Some(PortUse::NodePort | PortUse::Ephemeral) | None => None,
        };
        assert_eq!(holder(found(Protocol::Tcp, "127.0.0.1", 7001)), Some(name.clone()));
        assert_eq!(holder(found(Protocol::Tcp, "2001:db8::2", 7002)), Some(name.clone()));
        assert_eq!(holder(found(Protocol::Tcp, "192.0.2.2", 7002)), Some(name.clone()));
        assert_eq!(holder(found(Protocol::Udp, "192.0.2.2", 7003)), Some(name));
        assert_eq!(found(Protocol::Tcp, "192.0.2.2", 7001), None);
        let outgoing = connected.local_addr().unwrap().port();
        assert_eq!(
            found(Protocol::Tcp, "127.0.0.1", outgoing),
            Some(PortUse::Ephemeral),
            "connected, not listening"
        );
        assert_eq!(found(Protocol::Tcp, "192.0.2.2", 41005), None);
        drop((tcp, six, udp, connected));
        let after = Ports::read().unwrap();
        assert_eq!(after.listening, []);
    });
}

#[test]
fn an_interface_that_goes_and_comes_back_is_noticed() {
    in_namespace(|| async {
        let mut changes = watch().unwrap();
        let there = async || Network::read().await.unwrap().interface("eth0").is_some();
        let scripts = [
            ("ip link add eth0 type veth peer name client", true),
            ("ip addr add 192.0.2.2/24 dev eth0", true),
            ("ip link set eth0 up; ip link set client up", true),
            ("ip route add default via 192.0.2.1", true),
            ("ip link delete eth0", false),
            ("ip link add eth0 type veth peer name client", true),
        ];
        for (script, wanted) in scripts {
            changes.borrow_and_update();
            sh(script);
            tokio::time::timeout(Duration::from_secs(10), changes.changed()).await.expect(script).unwrap();
            assert_eq!(there().await, wanted, "{script}");
        }
    });
}

#[test]
fn a_burst_of_changes_is_told_a_few_times_and_ends() {
    in_namespace(|| async {
        let mut changes = watch().unwrap();
        sh("for i in $(seq 50); do ip link add v$i type veth peer name w$i; done");
        tokio::time::timeout(Duration::from_secs(10), changes.changed()).await.unwrap().unwrap();
        // 50 links send several hundred messages; the burst is over when a whole second passes in silence.
        while tokio::time::timeout(Duration::from_secs(1), changes.changed()).await.is_ok() {}
        let told = *changes.borrow();
        assert!((1..50).contains(&told), "told {told} times");
        assert_eq!(Network::read().await.unwrap().interfaces.len(), 101);
    });
}

#[test]
fn a_bpf_file_system_is_told_from_others_also_for_a_folder_that_is_not_there_yet() {
    in_namespace(|| async {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let pins = folder.path().join("bpf/nlb");
        assert!(!PinPlace::read(&pins).unwrap().on_bpffs);
        let mount = folder.path().join("bpf");
        sh(&format!("mount --make-rprivate /; mkdir -p {0}; mount -t bpf bpf {0}", mount.display()));
        assert!(PinPlace::read(&pins).unwrap().on_bpffs);
        sh(&format!("umount {}", mount.display()));
        assert!(!PinPlace::read(&pins).unwrap().on_bpffs);
    });
}
