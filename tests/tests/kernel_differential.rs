//! Random and mutated frames and states: what the kernel does is what the host does.

use nix::sched::{CloneFlags, unshare};
use nlb_common::reasons::Reason;
use nlb_tests::fixtures;
use nlb_tests::kernel::{Direction, Kernel};
use nlb_tests::oracle;
use nlb_tests::traffic::{BOUND_TCP, BOUND_UDP, Traffic};
use rand::Rng as _;
use socket2::{Domain, Socket, Type};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Frames, where `NLB_FRAMES` does not say fewer: an emulated kernel is slow.
const FRAMES: u64 = 120_000;
/// Frames through one state before host's and kernel's tables are compared and the state is changed.
const FRAMES_PER_STATE: u64 = 24;
/// How often every reason must come up in a whole run; a shorter one scatters, and must see each at all.
const OFTEN: u64 = 500;

#[test]
fn the_kernel_does_what_the_host_does() {
    let seed = number("NLB_SEED").unwrap_or_else(|| rand::rng().random());
    let frames = number("NLB_FRAMES").unwrap_or(FRAMES);
    println!("NLB_SEED={seed} NLB_FRAMES={frames}");
    // A thread of its own: its network namespace is gone with it.
    let run = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace of its own (root?)");
        let _sockets = sockets();
        compare(seed, frames)
    });
    let counted = run.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    print(&counted);
    let often = if frames < FRAMES { 1 } else { OFTEN };
    for reason in Reason::ALL {
        let count: u64 = counted.iter().filter(|((r, _), _)| r == reason).map(|(_, count)| count).sum();
        assert!(count >= often, "{} came up {count} times only", reason.name());
    }
}

/// A number from the environment.
fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not `{text}`")))
}

/// Real sockets at ports where listeners of the node's own address are too.
fn sockets() -> Vec<Socket> {
    [Domain::IPV4, Domain::IPV6]
        .into_iter()
        .flat_map(|domain| {
            let socket = |kind, port| {
                let any: IpAddr = if domain == Domain::IPV6 {
                    Ipv6Addr::UNSPECIFIED.into()
                } else {
                    Ipv4Addr::UNSPECIFIED.into()
                };
                let socket = Socket::new(domain, kind, None).expect("a socket");
                if domain == Domain::IPV6 {
                    socket.set_only_v6(true).expect("IPv6 alone");
                }
                socket.bind(&SocketAddr::new(any, port).into()).expect("a free port");
                socket
            };
            let listener = socket(Type::STREAM, BOUND_TCP);
            listener.listen(8).expect("a listener");
            [listener, socket(Type::DGRAM, BOUND_UDP)]
        })
        .collect()
}

fn compare(seed: u64, frames: u64) -> BTreeMap<(Reason, Direction), u64> {
    let mut kernel = Kernel::load().expect("the object loads");
    let mut traffic = Traffic::new(seed);
    let mut counted = BTreeMap::new();
    let mut before = kernel.reasons().expect("reasons");
    for number in 0..frames {
        if number % FRAMES_PER_STATE == 0 {
            kernel.agree(&traffic.scene.host).unwrap_or_else(|e| panic!("before frame {number}: {e:#}"));
            traffic.change();
            kernel.write(&traffic.scene.host).expect("maps can be written");
        }
        let (direction, frame) = traffic.packet();
        // A test run refuses an skb whose network header is not whole; XDP takes it.
        let Ok(run) = kernel.run(direction, &frame) else {
            assert!(direction == Direction::Egress && frame.len() < 14 + 40, "no test run of {frame:02x?}");
            continue;
        };
        let noted = traffic.scene.host.reasons.borrow().clone();
        let (reason, out) = match direction {
            Direction::Ingress => traffic.scene.ingress(&frame),
            Direction::Egress => traffic.scene.egress(&frame),
        };
        let here =
            || format!("frame {number}, {direction:?}, {reason:?}\n in  {frame:02x?}\n out {out:02x?}");
        let after = kernel.reasons().expect("reasons");
        let moved: Vec<u64> = after.iter().zip(&before).map(|(a, b)| a - b).collect();
        let wanted: Vec<u64> =
            traffic.scene.host.reasons.borrow().iter().zip(&noted).map(|(a, b)| a - b).collect();
        assert_eq!(moved, wanted, "reasons of {}", here());
        assert_eq!(run.dropped, reason.is_drop(), "verdict of {}", here());
        assert!(run.frame == out, "the kernel made {:02x?}\n of {}", run.frame, here());
        before = after;
        for (reason, count) in Reason::ALL.iter().zip(moved).filter(|(_, count)| *count > 0) {
            *counted.entry((*reason, direction)).or_default() += count;
        }
        match reason {
            Reason::Forwarded | Reason::Replied => {
                if oracle::is_sound(&frame) == Some(true) {
                    assert_eq!(oracle::is_sound(&out), Some(true), "checksums of {}", here());
                }
                assert_ne!(out, frame, "forwarded as it was: {}", here());
                if reason == Reason::Forwarded {
                    traffic.reached(&frame, &out);
                }
            }
            other => assert_eq!(out, frame, "changed and yet {other:?}: {}", here()),
        }
    }
    kernel.agree(&traffic.scene.host).unwrap_or_else(|error| panic!("at the end: {error:#}"));
    counts_agree(&kernel, &traffic);
    counted
}

fn counts_agree(kernel: &Kernel, traffic: &Traffic) {
    let host = &traffic.scene.host;
    let [slots, listeners] = fixtures::counted(host);
    assert_eq!(kernel.slot_counts().expect("counters"), slots);
    assert_eq!(kernel.listener_counts().expect("counters"), listeners);
}

fn print(counted: &BTreeMap<(Reason, Direction), u64>) {
    println!("{:<20} {:>9} {:>9}", "reason", "ingress", "egress");
    for reason in Reason::ALL {
        let count = |direction| counted.get(&(*reason, direction)).copied().unwrap_or(0);
        println!("{:<20} {:>9} {:>9}", reason.name(), count(Direction::Ingress), count(Direction::Egress));
    }
}
