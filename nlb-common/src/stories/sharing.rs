//! Two conversations that would look alike to one pod port: of two listeners, or of a listener and the pod itself.

use super::*;
use crate::flow::state;
use crate::layout::NO_SLOT;

const PAUSE: (Step, See) = (Wait(300), Nothing);

/// Two listeners (ports 443 and 444) with the same two pod ports, and a client that uses one port for both.
fn two() -> impl Iterator<Item = [Story; 2]> {
    [40_000, 500].into_iter().flat_map(two_from)
}

fn two_from(port: u16) -> impl Iterator<Item = [Story; 2]> {
    [false, true].into_iter().map(move |v6| {
        let mut first = Story::new(TCP, v6);
        first.client.set_port(port);
        first.known_as = [port; 2];
        let vip = SocketAddr::new(first.vip.ip(), 444);
        first.scene.listener(vip, TCP, 350, &first.targets);
        first.scene.aim(1, &[2]);
        first.play(&ESTABLISHED);
        let Story { client, known_as, .. } = first;
        let second = Story { scene: first.scene.clone(), vip, client, known_as, ..Story::new(TCP, v6) };
        [first, second]
    })
}

#[test]
fn a_colliding_port_is_rewritten_and_the_reply_restores_it() {
    for [mut first, mut second] in two() {
        second.play(&ESTABLISHED);
        assert_ne!(second.known_as[0], second.client.port());
        assert!(second.known_as[0] >= 1024);
        second.play(&[PAUSE, (Data, At(0)), (Answer(0), Back), (Fin, At(0)), (TargetFin(0), Back)]);
        first.scene = second.scene;
        first.play(&[(Data, At(0)), (Answer(0), Back)]);
    }
}

#[test]
fn lost_entries_of_a_rewritten_flow_are_rebuilt_whoever_speaks_first() {
    for table in [Table::Flows, Table::Replies] {
        for first in [(Data, At(0)), (Answer(0), Back)] {
            for [mut other, mut second] in two() {
                second.play(&ESTABLISHED);
                let port = second.known_as[0];
                // Only the flow that is looked at loses its entry.
                for cell in &second.scene.host.tables[table as usize] {
                    let mut bucket = cell.get();
                    bucket.entries.iter_mut().filter(|e| e.slot == 2).for_each(|e| e.tag = 0);
                    cell.set(bucket);
                }
                second.play(&[PAUSE, first, (Data, At(0)), (Answer(0), Back), (Data, At(0))]);
                assert_eq!(second.known_as[0], port);
                assert_eq!(second.counted(Reason::FlowRebuilt), 1);
                other.scene = second.scene;
                other.play(&[(Answer(0), Back), (Data, At(0))]);
            }
        }
    }
}

#[test]
fn beyond_the_listeners_that_a_pod_port_remembers_a_loss_is_counted() {
    for v6 in [false, true] {
        let mut story = Story::new(TCP, v6);
        let first = story.vip;
        for number in 1..=8 {
            story.vip.set_port(first.port() + number);
            story.scene.listener(story.vip, TCP, 350, &story.targets);
        }
        story.scene.aim(8, &[16]);
        story.play(&[(Syn, At(0)), (SynAck(0), Back), (Ack, At(0)), (Lose(Table::Replies), Nothing)]);
        story.play(&[(Answer(0), Untouched(Reason::NotOurs))]);
        assert_eq!(story.counted(Reason::FlowLost), 1);
    }
}

#[test]
fn a_lost_half_open_reply_entry_of_a_rewritten_flow_is_rebuilt() {
    for first in [(Data, At(0)), (Answer(0), Back)] {
        for [_, mut second] in two() {
            second.play(&[(Data, At(0))]);
            let port = second.known_as[0];
            second.scene.lose(Table::HalfReplies);
            second.play(&[first, (Answer(0), Back), (Data, At(0))]);
            assert_eq!(second.known_as[0], port);
            assert_eq!(second.sizes(), [2, 2, 0, 0]);
        }
    }
}

#[test]
fn no_port_left_is_counted() {
    for [_, mut second] in two() {
        // Whatever port is found for the client, a conversation of the pod's own has it already.
        for _ in 0..3 {
            assert_eq!(second.client(SYN, 0), At(0));
            second.scene.lose(Table::HalfFlows);
            for cell in &second.scene.host.tables[Table::HalfReplies as usize] {
                let mut bucket = cell.get();
                let ours = bucket.entries.iter_mut().filter(|entry| entry.tag > 1);
                ours.for_each(|entry| (entry.slot, entry.life.state) = (NO_SLOT, state::DIRECT));
                cell.set(bucket);
            }
        }
        second.play(&[(Syn, Dropped(Reason::PortAllocationError))]);
        assert_eq!(second.scene.host.listener_counts.borrow()[1].drops, [0, 0, 1]);
    }
}

#[test]
fn a_direct_conversation_is_not_disturbed_and_blocks_its_port() {
    for protocol in [TCP, UDP] {
        for v6 in [false, true] {
            let mut story = Story::new(protocol, v6);
            let ours = Untouched(Reason::NotOurs);
            story.play(&[(SynAck(0), ours), (Answer(0), ours), (Wait(100_000), Nothing)]);
            assert_eq!(story.client(SYN, 0), At(0));
            let port = story.known_as[0];
            assert_ne!(port, story.client.port());
            story.play(&[(SynAck(0), Back), (Ack, At(0)), (Data, At(0)), (Answer(0), Back)]);
            story.known_as[0] = story.client.port();
            story.play(&[(Answer(0), ours), (TargetFin(0), ours)]);
            story.known_as[0] = port;
            story.play(&[(Answer(0), Back), (Data, At(0))]);
        }
    }
}

#[test]
fn a_pods_other_conversations_pass_untouched() {
    for protocol in [TCP, UDP] {
        for v6 in [false, true] {
            let story = Story::new(protocol, v6);
            let other = SocketAddr::new(story.targets[0].ip(), 9999);
            let wire = story.packet(other, story.client, ACK);
            assert_eq!(story.scene.egress(&wire.frame()), (Reason::NotOurs, wire.frame()));
            assert_eq!(story.sizes(), [0; 4]);
        }
    }
}
