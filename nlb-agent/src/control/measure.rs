//! How long the control plane takes at a given size: what the bench prints.

use super::{Change, Control};
use crate::capacity::Limits;
use crate::model::{Forwarding, Placed, TargetKey};
use crate::ring::{self, Member, identity};
use crate::slots::Epoch;
use nlb_common::layout::{ListenerKey, TCP};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

/// What [`measure`] found; the writes to the kernel's maps are not in it.
#[derive(Clone, Debug)]
pub struct Measured {
    /// From all forwardings to the steps, with nothing placed before.
    pub cold: Duration,
    /// Steps of that plan.
    pub steps: usize,
    /// From one listener's changed forwarding to its steps, each time another listener.
    pub changes: Vec<Duration>,
    /// The same with all forwardings given anew, and compared.
    pub compared: Duration,
    /// From maps read back, and the same forwardings, to a plan.
    pub restart: Duration,
    /// Steps of that plan: 0.
    pub restart_steps: usize,
}

/// So many listeners, each on a VIP of its own, with so many targets each, and maps twice as large as they need.
pub fn crowd(listeners: u32, targets: u32) -> (Vec<Forwarding>, Limits) {
    let placed = |number: u32| {
        let ip = IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + number));
        let uid = Some(format!("00000000-0000-4000-8000-{number:012}"));
        Placed { key: TargetKey { ip, port: 8080, uid }, incarnation: 0, share: 1 }
    };
    let forwarding = |number: u32| Forwarding {
        listener: ListenerKey {
            vip: Ipv4Addr::from_bits(0xc612_0000 + number).into(),
            port: 443,
            protocol: TCP,
            zero: 0,
        },
        node_vip: false,
        idle_timeout: Duration::from_secs(350),
        registered: targets,
        targets: (number * targets..(number + 1) * targets).map(placed).collect(),
    };
    let size = nlb_common::ring::size(targets).unwrap_or(0);
    let words = size.div_ceil(4) + targets + 1;
    let limits = Limits {
        listeners: listeners * 2,
        vips: listeners * 2,
        slots: listeners * targets * 2,
        ring_words: (words * listeners).saturating_mul(2).max(1 << 16),
        hz: 250,
    };
    ((0..listeners).map(forwarding).collect(), limits)
}

/// Places so many listeners with so many targets each, then changes one target of one listener this many times.
pub fn measure(listeners: u32, targets: u32, changes: u32) -> Measured {
    let (mut forwardings, limits) = crowd(listeners, targets);
    let mut control = Control::new(limits);
    let all = forwardings.clone();
    let (planned, cold) = timed(|| control.apply(all, Epoch(0)));
    let mut elapsed = planned.epoch;
    let mut times = Vec::new();
    for index in (0..changes).map(|change| (change % listeners) as usize) {
        let placed = forwardings[index].targets.last_mut();
        placed.into_iter().for_each(|placed| placed.share ^= 1);
        let change = Change { put: vec![forwardings[index].clone()], ..Change::default() };
        let (planned, time) = timed(|| control.change(change, elapsed));
        elapsed = planned.epoch;
        times.push(time);
    }
    let all = forwardings.clone();
    let (_, compared) = timed(|| control.apply(all, elapsed));
    let (contents, saved) = (control.contents().clone(), control.saved());
    let (again, restart) = timed(|| Control::adopt(limits, contents, &saved).apply(forwardings, Epoch(0)));
    Measured {
        cold,
        steps: planned.steps.len(),
        changes: times,
        compared,
        restart,
        restart_steps: again.steps.len(),
    }
}

/// How long the ring of this many equal targets takes.
pub fn ring(targets: u32) -> Duration {
    let member = |number| Member {
        identity: identity(Ipv4Addr::from_bits(0x0a00_0000 + number).into(), 8080),
        share: 1,
    };
    let members: Vec<Member> = (0..targets).map(member).collect();
    let size = nlb_common::ring::size(targets).expect("a set that a ring can hold");
    timed(|| ring::pack(&ring::build(&members, size))).1
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = work();
    (std::hint::black_box(result), start.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_is_placed_and_found_again() {
        let measured = measure(20, 3, 30);
        assert_eq!((measured.changes.len(), measured.restart_steps), (30, 0));
        assert!(measured.steps > 20 * 3);
        assert!(ring(10) > Duration::ZERO);
    }
}
