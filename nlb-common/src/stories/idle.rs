//! How long a flow is remembered.

use super::*;

const OLD: See = Untouched(Reason::NotOurs);

#[test]
fn an_idle_flow_is_forgotten_after_its_listeners_timeout() {
    afterwards(&[(Wait(349_000), Nothing), (Data, At(0))]);
    afterwards(&[(Wait(351_000), Nothing), (Data, At(1))]);
    let udp = [(Data, At(0)), (Answer(0), Back), (Data, At(0)), (Aim(1), Nothing)];
    told(UDP, &[&udp[..], &[(Wait(119_000), Nothing), (Data, At(0))]].concat());
    told(UDP, &[&udp[..], &[(Wait(121_000), Nothing), (Data, At(1))]].concat());
}

#[test]
fn a_flow_lives_while_either_side_speaks() {
    afterwards(&[(Wait(300_000), Nothing), (Answer(0), Back), (Wait(300_000), Nothing), (Data, At(0))]);
    afterwards(&[(Wait(300_000), Nothing), (Data, At(0)), (Wait(300_000), Nothing), (Answer(0), Back)]);
}

#[test]
fn a_target_that_speaks_after_the_timeout_is_on_its_own() {
    for story in afterwards(&[(Wait(351_000), Nothing), (Answer(0), OLD)]) {
        assert_eq!(story.sizes(), [0, 0, 0, 1]);
    }
}

#[test]
fn an_old_target_does_not_take_a_forgotten_flow_back() {
    afterwards(&[
        (Wait(351_000), Nothing),
        (Syn, At(1)),
        (Answer(0), OLD),
        (SynAck(1), Back),
        (Ack, At(1)),
        (Data, At(1)),
    ]);
}

#[test]
fn a_closed_flow_is_remembered_a_minute_and_a_reset_one_ten_seconds() {
    let closed = [(Fin, At(0)), (TargetFin(0), Back)];
    afterwards(&[&closed[..], &[(Wait(59_000), Nothing), (Data, At(0))]].concat());
    afterwards(&[&closed[..], &[(Wait(61_000), Nothing), (Data, At(1))]].concat());
    afterwards(&[(TargetRst(0), Back), (Wait(9_000), Nothing), (Data, At(0))]);
    afterwards(&[(TargetRst(0), Back), (Wait(11_000), Nothing), (Data, At(1))]);
}

#[test]
fn a_clients_reset_alone_shortens_nothing() {
    afterwards(&[(Rst, At(0)), (Wait(300_000), Nothing), (Data, At(0))]);
}

#[test]
fn a_half_open_flow_is_forgotten_after_a_minute() {
    tell(&[(Data, At(0)), (Aim(1), Nothing), (Wait(59_000), Nothing), (Data, At(0))]);
    tell(&[(Data, At(0)), (Aim(1), Nothing), (Wait(61_000), Nothing), (Data, At(1))]);
    tell(&[(Syn, At(0)), (Wait(61_000), Nothing), (SynAck(0), OLD)]);
    told(UDP, &[(Data, At(0)), (Wait(119_000), Nothing), (Answer(0), Back)]);
    told(UDP, &[(Data, At(0)), (Wait(121_000), Nothing), (Answer(0), OLD)]);
}

#[test]
fn a_half_open_flow_lives_while_its_client_speaks() {
    tell(&[
        (Data, At(0)),
        (Wait(40_000), Nothing),
        (Data, At(0)),
        (Wait(40_000), Nothing),
        (Answer(0), Back),
    ]);
}

#[test]
fn a_direct_conversation_after_a_flow_with_the_same_ports_passes_untouched() {
    let closed = [(Fin, At(0)), (TargetFin(0), Back), (Data, At(0))];
    // Long over, and just over: the target's SYN-ACK answers a SYN that came in through no listener.
    afterwards(&[&closed[..], &[(Wait(70_000), Nothing), (SynAck(0), OLD), (Answer(0), OLD)]].concat());
    afterwards(&[&closed[..], &[(SynAck(0), OLD), (Answer(0), OLD)]].concat());
    afterwards(&[(TargetRst(0), Back), (SynAck(0), OLD), (Answer(0), OLD)]);
}
