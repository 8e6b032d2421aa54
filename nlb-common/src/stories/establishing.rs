//! How a flow begins: half-open until both sides have spoken.

use super::*;

#[test]
fn a_handshake_establishes() {
    for story in tell(&ESTABLISHED) {
        assert_eq!(story.sizes(), [1, 1, 0, 0]);
    }
}

#[test]
fn a_syn_alone_is_half_open() {
    for story in tell(&[(Syn, At(0))]) {
        assert_eq!(story.sizes(), [0, 0, 1, 1]);
    }
}

#[test]
fn an_ack_that_does_not_fit_the_syn_ack_does_not_establish() {
    for story in tell(&[(Syn, At(0)), (SynAck(0), Back), (WrongAck, At(0)), (WrongAck, At(0))]) {
        assert_eq!(story.sizes(), [0, 0, 1, 1]);
    }
}

#[test]
fn an_ack_before_the_syn_ack_does_not_establish() {
    for story in tell(&[(Syn, At(0)), (Ack, At(0)), (Answer(0), Back), (Ack, At(0))]) {
        assert_eq!(story.sizes(), [0, 0, 1, 1]);
    }
}

#[test]
fn a_reset_or_another_syn_does_not_establish() {
    for story in tell(&[(Syn, At(0)), (SynAck(0), Back), (Rst, At(0)), (Syn, At(0))]) {
        assert_eq!(story.sizes(), [0, 0, 1, 1]);
    }
}

#[test]
fn an_answered_syn_stays_with_its_target() {
    tell(&[
        (Syn, At(0)),
        (SynAck(0), Back),
        (Aim(1), Nothing),
        (Syn, At(0)),
        (SynAck(0), Back),
        (Ack, At(0)),
    ]);
}

#[test]
fn a_syn_that_nobody_answered_may_find_another_target() {
    tell(&[
        (Syn, At(0)),
        (Aim(1), Nothing),
        (Wait(1000), Nothing),
        (Syn, At(1)),
        (SynAck(1), Back),
        (Ack, At(1)),
    ]);
}

#[test]
fn a_refused_syn_may_find_another_target() {
    tell(&[
        (Syn, At(0)),
        (TargetRst(0), Back),
        (Aim(1), Nothing),
        (Syn, At(1)),
        (SynAck(1), Back),
        (Ack, At(1)),
    ]);
}

#[test]
fn the_middle_of_a_conversation_is_established_by_the_packet_after_the_answer() {
    for story in tell(&[(Data, At(0)), (Answer(0), Back)]) {
        assert_eq!(story.sizes(), [0, 0, 1, 1]);
    }
    for story in tell(&[(Data, At(0)), (Answer(0), Back), (Data, At(0))]) {
        assert_eq!(story.sizes(), [1, 1, 0, 0]);
        assert_eq!(story.counted(Reason::FlowLost), 0);
    }
}

#[test]
fn the_middle_of_a_conversation_that_the_target_does_not_know_is_counted_as_lost() {
    for story in tell(&[(Data, At(0)), (TargetRst(0), Back), (TargetRst(0), Back), (Data, At(0))]) {
        assert_eq!(story.sizes(), [0, 0, 1, 1]);
        assert_eq!(story.counted(Reason::FlowLost), 1);
    }
}

#[test]
fn udp_needs_client_answer_client() {
    for story in told(UDP, &[(Data, At(0)), (Data, At(0))]) {
        assert_eq!(story.sizes(), [0, 0, 1, 1]);
    }
    for story in told(UDP, &[(Data, At(0)), (Answer(0), Back)]) {
        assert_eq!(story.sizes(), [0, 0, 1, 1]);
    }
    for story in told(UDP, &[(Data, At(0)), (Answer(0), Back), (Data, At(0))]) {
        assert_eq!(story.sizes(), [1, 1, 0, 0]);
    }
}

#[test]
fn one_way_udp_stays_with_its_target() {
    told(
        UDP,
        &[
            (Data, At(0)),
            (Aim(1), Nothing),
            (Wait(100_000), Nothing),
            (Data, At(0)),
            (Wait(100_000), Nothing),
            (Data, At(0)),
        ],
    );
}

#[test]
fn fin_marks_made_before_the_flow_was_established_are_kept() {
    for story in tell(&[
        (Fin, At(0)),
        (TargetFin(0), Back),
        (Data, At(0)),
        (Aim(1), Nothing),
        (Syn, At(1)),
        (SynAck(1), Back),
        (Ack, At(1)),
    ]) {
        assert_eq!(story.sizes()[..2], [1, 1]);
    }
}

#[test]
fn a_listener_without_targets_drops() {
    for v6 in [false, true] {
        let mut story = Story::new(TCP, v6);
        story.scene.aim(0, &[]);
        story.play(&[(Syn, Dropped(Reason::NoTarget)), (Aim(0), Nothing), (Syn, At(0))]);
        assert_eq!(story.scene.host.listener_counts.borrow()[0].drops, [1, 0, 0]);
    }
}

#[test]
fn a_vip_without_this_listener_drops() {
    let mut story = Story::new(TCP, false);
    story.vip.set_port(444);
    story.play(&[(Syn, Dropped(Reason::NoListener))]);
}

#[test]
fn a_repeated_syn_is_no_new_flow_but_one_after_a_refusal_is() {
    let new_flows = |story: &Story| {
        let counts = story.scene.host.slot_counts.borrow();
        [counts[0].new_flows, counts[1].new_flows]
    };
    for mut story in
        tell(&[(Syn, At(0)), (Wait(1000), Nothing), (Syn, At(0)), (Wait(2000), Nothing), (Syn, At(0))])
    {
        assert_eq!(new_flows(&story), [1, 0]);
        // The ring has moved on meanwhile: that target has a flow that it had not.
        story.play(&[(Aim(1), Nothing), (Syn, At(1))]);
        assert_eq!(new_flows(&story), [1, 1]);
        story.play(&[(TargetRst(1), Back), (Syn, At(1))]);
        assert_eq!(new_flows(&story), [1, 2]);
        story.play(&[(Wait(61_000), Nothing), (Syn, At(1))]);
        assert_eq!(new_flows(&story), [1, 3]);
    }
}
