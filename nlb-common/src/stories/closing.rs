//! How a flow ends, and what a SYN on a flow does.

use super::*;

#[test]
fn a_syn_on_an_established_flow_goes_to_its_target() {
    afterwards(&[(Syn, At(0)), (Answer(0), Back), (Data, At(0)), (Answer(0), Back)]);
}

#[test]
fn fin_from_both_sides_and_a_syn_selects_anew() {
    afterwards(&[
        (Fin, At(0)),
        (TargetFin(0), Back),
        (Data, At(0)),
        (Syn, At(1)),
        (SynAck(1), Back),
        (Ack, At(1)),
        (Data, At(1)),
    ]);
}

#[test]
fn fin_from_one_side_keeps_the_flow() {
    afterwards(&[(Fin, At(0)), (Answer(0), Back), (Syn, At(0))]);
    afterwards(&[(TargetFin(0), Back), (Data, At(0)), (Syn, At(0))]);
}

#[test]
fn a_targets_reset_and_a_syn_selects_anew() {
    afterwards(&[(TargetRst(0), Back), (Syn, At(1)), (SynAck(1), Back), (Ack, At(1))]);
}

#[test]
fn a_clients_reset_and_silence_and_a_syn_selects_anew() {
    afterwards(&[(Rst, At(0)), (Syn, At(1)), (SynAck(1), Back), (Ack, At(1))]);
}

#[test]
fn a_clients_reset_that_the_target_did_not_believe_kills_nothing() {
    afterwards(&[(Rst, At(0)), (Answer(0), Back), (Syn, At(0)), (Answer(0), Back), (Data, At(0))]);
    afterwards(&[(Rst, At(0)), (Answer(0), Back), (Data, At(0)), (Syn, At(0)), (Syn, At(0)), (Data, At(0))]);
    afterwards(&[(Rst, At(0)), (Answer(0), Back), (Syn, At(0)), (Syn, At(0))]);
}

#[test]
fn a_second_syn_after_a_second_of_silence_selects_anew() {
    afterwards(&[(Syn, At(0)), (Wait(1000), Nothing), (Syn, At(1)), (SynAck(1), Back), (Ack, At(1))]);
}

#[test]
fn a_second_syn_within_a_second_stays() {
    afterwards(&[(Syn, At(0)), (Wait(600), Nothing), (Syn, At(0)), (Wait(600), Nothing), (Syn, At(1))]);
}

#[test]
fn a_second_syn_after_a_sign_of_life_stays() {
    afterwards(&[(Syn, At(0)), (Wait(500), Nothing), (Answer(0), Back), (Wait(1000), Nothing), (Syn, At(0))]);
}

#[test]
fn a_forged_syn_kills_nothing() {
    afterwards(&[
        (Syn, At(0)),
        (Data, At(0)),
        (Answer(0), Back),
        (Data, At(0)),
        (Wait(2000), Nothing),
        (Data, At(0)),
    ]);
    afterwards(&[
        (Wait(200_000), Nothing),
        (Syn, At(0)),
        (Answer(0), Back),
        (Wait(200_000), Nothing),
        (Data, At(0)),
    ]);
    afterwards(&[
        (Wait(200_000), Nothing),
        (Syn, At(0)),
        (Wait(200_000), Nothing),
        (Data, At(0)),
        (Answer(0), Back),
    ]);
}

#[test]
fn a_forged_reset_kills_nothing() {
    afterwards(&[(Rst, At(0)), (Data, At(0)), (Answer(0), Back), (Data, At(0))]);
    afterwards(&[
        (Wait(200_000), Nothing),
        (Rst, At(0)),
        (Wait(200_000), Nothing),
        (Data, At(0)),
        (Answer(0), Back),
    ]);
}

#[test]
fn a_removed_target_loses_its_flows() {
    for story in
        afterwards(&[(Gone(0), Nothing), (Syn, At(1)), (SynAck(1), Back), (Ack, At(1)), (Data, At(1))])
    {
        assert_eq!(story.sizes()[0], 1);
    }
    afterwards(&[(Gone(0), Nothing), (Answer(0), Untouched(Reason::NotOurs))]);
}

#[test]
fn a_half_open_flow_of_a_removed_target_begins_anew() {
    tell(&[
        (Syn, At(0)),
        (SynAck(0), Back),
        (Gone(0), Nothing),
        (Aim(1), Nothing),
        (Data, At(1)),
        (Answer(0), Untouched(Reason::NotOurs)),
    ]);
}

#[test]
fn a_port_that_comes_again_after_a_closed_flow_gets_a_whole_new_life() {
    // To the very same target, whose old reply entry must not colour the new flow.
    for close in [&[(Fin, At(0)), (TargetFin(0), Back)][..], &[(TargetRst(0), Back)]] {
        for pause in [0, 5_000, 61_000, 400_000] {
            let again = [(Wait(pause), Nothing), (Syn, At(0))];
            let fresh = tell(&[&ESTABLISHED[..], close, &again].concat());
            assert!(fresh.iter().all(|s| s.sizes() == [0, 0, 1, 1]), "half-open again after {pause} ms");
            let rest =
                [(SynAck(0), Back), (Ack, At(0)), (Aim(1), Nothing), (Wait(300_000), Nothing), (Data, At(0))];
            for story in tell(&[&ESTABLISHED[..], close, &again, &rest].concat()) {
                assert_eq!(story.sizes(), [1, 1, 0, 0], "established after {pause} ms");
                assert_eq!(story.counted(Reason::FlowRebuilt), 0);
            }
        }
    }
}
