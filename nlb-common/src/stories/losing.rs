//! Lost entries: rebuilt from the other direction, or counted.

use super::*;

const LIVE: [(Step, See); 2] = [(Data, At(0)), (Answer(0), Back)];
const PAUSE: (Step, See) = (Wait(300), Nothing);

#[test]
fn a_lost_reply_entry_is_rebuilt_from_the_flow() {
    for (name, first) in [("client", (Data, At(0))), ("target", (Answer(0), Back))] {
        let steps = [&[(Lose(Table::Replies), Nothing), PAUSE, first][..], &LIVE].concat();
        for story in afterwards(&steps) {
            assert_eq!(story.sizes(), [1, 1, 0, 0], "the {name} spoke first");
            assert_eq!(story.counted(Reason::FlowRebuilt), 1, "the {name} spoke first");
        }
    }
}

#[test]
fn a_lost_flow_is_rebuilt_from_the_reply_entry() {
    // The target speaks first: whatever the ring says. The client speaks first: where the ring says so still.
    let target = [(Lose(Table::Flows), Nothing), PAUSE, (Answer(0), Back), (Data, At(0))];
    let client = [(Aim(0), Nothing), (Lose(Table::Flows), Nothing), (Data, At(0)), (Answer(0), Back)];
    for story in afterwards(&target).into_iter().chain(afterwards(&client)) {
        assert_eq!(story.sizes(), [1, 1, 0, 0]);
        assert_eq!(story.counted(Reason::FlowRebuilt), 1);
    }
}

#[test]
fn a_lost_flow_of_a_moved_ring_is_counted() {
    for story in afterwards(&[(Lose(Table::Flows), Nothing), (Data, At(1)), (TargetRst(1), Back)]) {
        assert_eq!(story.counted(Reason::FlowLost), 1);
    }
}

#[test]
fn a_rebuilt_flow_knows_what_the_lost_one_knew() {
    let closing = [(Fin, At(0)), (Answer(0), Back)];
    let end = [(TargetFin(0), Back), (Aim(1), Nothing), (Syn, At(1))];
    for table in [Table::Flows, Table::Replies] {
        let by_client = [(Lose(table), Nothing), PAUSE, (Data, At(0))];
        let by_target = [(Lose(table), Nothing), PAUSE, (Answer(0), Back)];
        for lost in [by_client, by_target] {
            tell(&[&ESTABLISHED[..], &closing, &lost, &end].concat());
        }
    }
}

#[test]
fn a_forged_syn_on_a_flow_whose_entry_was_lost_kills_nothing() {
    for table in [Table::Flows, Table::Replies] {
        for story in tell(
            &[&ESTABLISHED[..], &[(Lose(table), Nothing), (Syn, At(0)), PAUSE, (Answer(0), Back)], &LIVE]
                .concat(),
        ) {
            assert_eq!(story.sizes(), [1, 1, 0, 0]);
        }
    }
}

#[test]
fn a_port_is_not_stranded_by_a_lost_flow() {
    // The first SYN rebuilds the flow, the second begins to wait for the target, the third has waited long enough.
    let again = [
        (Syn, At(0)),
        (Wait(1000), Nothing),
        (Syn, At(0)),
        (Aim(1), Nothing),
        (Wait(2000), Nothing),
        (Syn, At(1)),
    ];
    tell(&[&ESTABLISHED[..], &[(Lose(Table::Flows), Nothing)], &again].concat());
}

#[test]
fn a_lost_half_open_reply_entry_is_rebuilt_by_the_answer() {
    for story in tell(&[
        (Syn, At(0)),
        (Aim(1), Nothing),
        (Lose(Table::HalfReplies), Nothing),
        (SynAck(0), Back),
        (Ack, At(0)),
    ]) {
        assert_eq!(story.sizes(), [1, 1, 0, 0]);
        assert_eq!(story.counted(Reason::FlowRebuilt), 1);
    }
}

#[test]
fn a_lost_half_open_flow_begins_in_the_middle() {
    let lost = [(Syn, At(0)), (SynAck(0), Back), (Lose(Table::HalfFlows), Nothing)];
    for story in tell(&[&lost[..], &[(Ack, At(0)), (Answer(0), Back), (Data, At(0))]].concat()) {
        assert_eq!(story.sizes(), [1, 1, 0, 0]);
    }
    for story in tell(&[&lost[..], &[(Aim(1), Nothing), (Ack, At(1)), (TargetRst(1), Back)]].concat()) {
        assert_eq!(story.counted(Reason::FlowLost), 1);
    }
}

#[test]
fn both_directions_lost_go_where_the_ring_says() {
    let lost = [(Lose(Table::Flows), Nothing), (Lose(Table::Replies), Nothing)];
    for story in tell(&[&ESTABLISHED[..], &lost, &LIVE, &LIVE].concat()) {
        assert_eq!(story.sizes(), [1, 1, 0, 0]);
    }
    for story in afterwards(&[&lost[..], &[(Data, At(1)), (TargetRst(1), Back)]].concat()) {
        assert_eq!(story.counted(Reason::FlowLost), 1);
    }
}

#[test]
fn a_flood_of_half_open_flows_leaves_established_ones_alone() {
    for protocol in [TCP, UDP] {
        for v6 in [false, true] {
            let mut story = Story::new(protocol, v6);
            let opening: &[(Step, See)] = if protocol == TCP {
                &ESTABLISHED
            } else {
                &[(Data, At(0)), (Answer(0), Back), (Data, At(0))]
            };
            story.play(opening);
            let live = story.client;
            for number in 0..3000_u16 {
                story.client.set_port(1024 + number);
                let flags = if number.is_multiple_of(2) { SYN } else { ACK };
                assert_eq!(story.client(flags, 0), At(0));
                story.client(ACK, 0);
            }
            story.client = live;
            story.known_as[0] = live.port();
            story.play(&[PAUSE, (Data, At(0)), (Answer(0), Back)]);
            assert_eq!(story.sizes()[..2], [1, 1]);
            assert_eq!(story.counted(Reason::FlowRebuilt), 0);
            story.client.set_port(9);
            story.known_as[0] = 9;
            story.play(if protocol == TCP { &ESTABLISHED } else { opening });
        }
    }
}

#[test]
fn an_old_reply_entry_does_not_answer_for_a_new_flow() {
    let closed = [(Fin, At(0)), (TargetFin(0), Back), (Lose(Table::Flows), Nothing)];
    for story in tell(&[&ESTABLISHED[..], &closed, &[(Syn, At(0)), (TargetRst(0), Back)]].concat()) {
        assert_eq!(story.sizes(), [0, 0, 1, 1]);
        assert_eq!(story.counted(Reason::FlowRebuilt), 0);
    }
}
