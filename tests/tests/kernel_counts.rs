//! Slots share the lines that a CPU counts in: nothing is lost or given to another slot when a line changes hands.

use nlb_common::layout::{SLOT_LINES, TCP};
use nlb_common::parse::tcp;
use nlb_common::scene::Scene;
use nlb_common::wire::Wire;
use nlb_tests::fixtures;
use nlb_tests::kernel::{Direction, Kernel};
use std::net::SocketAddr;

/// A listener's address, whose number tells it from the others'.
fn vip(number: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, number], 80))
}

/// Two listeners, each with one target, whose slots have the same line on every CPU.
fn rivals() -> (Scene, [u32; 2]) {
    let mut scene = Scene::default();
    for number in [1, 2] {
        scene.vip(vip(number).ip(), false);
        scene.listener(vip(number), TCP, 350, &[SocketAddr::from(([10, 1, 0, number], 8080))]);
    }
    let far = SLOT_LINES;
    scene.host.slots[far as usize] = std::mem::take(&mut scene.host.slots[1]);
    scene.aim(1, &[far]);
    (scene, [0, far])
}

fn syn(number: u8, port: u16) -> Vec<u8> {
    let source = SocketAddr::from(([198, 51, 100, 7], port));
    Wire::tcp(source, vip(number), tcp::SYN).frame()
}

#[test]
fn slots_with_one_line_are_counted_apart() {
    let (mut scene, slots) = rivals();
    let mut kernel = Kernel::load().expect("the object loads");
    kernel.write(&scene.host).expect("maps can be written");
    for port in 1..=20 {
        // Every third packet goes to the second listener.
        let number = if port % 3 == 0 { 2 } else { 1 };
        let run = kernel.run(Direction::Ingress, &syn(number, port)).expect("a run");
        assert!(!run.dropped, "packet {port}");
        scene.ingress(&syn(number, port));
    }
    let counts = kernel.slot_counts().expect("counters");
    assert_eq!(slots.map(|slot| counts[slot as usize].packets), [14, 6]);
    assert_eq!(counts, fixtures::counted(&scene.host)[0]);

    // The first slot is freed and given to another target: what its line holds of the old one is forgotten.
    scene.free(slots[0]);
    kernel.write(&scene.host).expect("maps can be written");
    for number in [2, 1, 2] {
        kernel.run(Direction::Ingress, &syn(number, 40_000)).expect("a run");
        scene.ingress(&syn(number, 40_000));
    }
    let counts = kernel.slot_counts().expect("counters");
    assert_eq!(slots.map(|slot| counts[slot as usize].packets), [1, 8]);
    assert_eq!(counts, fixtures::counted(&scene.host)[0]);
}
