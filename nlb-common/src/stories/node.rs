//! The node's own address as a VIP: what is the node's stays the node's.

use super::*;

fn node(v6: bool) -> Story {
    let mut story = Story::new(TCP, v6);
    story.scene.vip(story.vip.ip(), true);
    story.scene.listener(story.vip, TCP, 350, &story.targets);
    story.scene.aim(1, &[2]);
    story
}

#[test]
fn a_local_socket_comes_before_a_new_flow() {
    for v6 in [false, true] {
        let mut story = node(v6);
        let wire = story.packet(story.client, story.vip, ACK);
        story.scene.socket(&wire);
        story.play(&[(Data, Untouched(Reason::LocalSocket)), (Syn, Untouched(Reason::LocalSocket))]);
        assert_eq!(story.sizes(), [0; 4]);
        story.client.set_port(40_001);
        story.known_as[0] = 40_001;
        story.play(&ESTABLISHED);
    }
}

#[test]
fn a_flow_comes_before_a_local_socket() {
    for v6 in [false, true] {
        let mut story = node(v6);
        story.play(&ESTABLISHED);
        let wire = story.packet(story.client, story.vip, ACK);
        story.scene.socket(&wire);
        story.play(&[(Data, At(0)), (Answer(0), Back)]);
    }
}

#[test]
fn the_middle_of_a_conversation_that_nobody_knows_is_the_nodes() {
    // As the answers to a pod's masqueraded connection from a port that a listener has.
    let own = Untouched(Reason::NodeOwn);
    for v6 in [false, true] {
        let mut story = node(v6);
        story.play(&[(Data, own), (Fin, own), (Rst, own)]);
        let wire = story.packet(story.client, story.vip, SYN | ACK);
        assert_eq!(story.scene.ingress(&wire.frame()), (Reason::NodeOwn, wire.frame()));
        assert_eq!(story.sizes(), [0; 4]);
        // A flow of a listener is found again all the same.
        story.play(&[(Syn, At(0)), (SynAck(0), Back), (Lose(Table::HalfFlows), Nothing), (Ack, At(0))]);
        story.play(&[(Answer(0), Back), (Data, At(0)), (Lose(Table::Flows), Nothing), (Data, At(0))]);
        assert_eq!(story.sizes(), [1, 1, 0, 0]);
    }
}

#[test]
fn the_node_answers_what_no_listener_takes() {
    for v6 in [false, true] {
        let mut story = node(v6);
        story.vip.set_port(22);
        story.play(&[(Syn, Untouched(Reason::NodeOwn)), (Data, Untouched(Reason::NodeOwn))]);
        let wire = Wire { protocol: 50, ..story.packet(story.client, story.vip, 0) };
        assert_eq!(story.scene.ingress(&wire.frame()), (Reason::NodeOwn, wire.frame()));
    }
}

#[test]
fn a_pool_address_looks_for_no_socket() {
    let mut story = Story::new(TCP, false);
    let wire = story.packet(story.client, story.vip, ACK);
    story.scene.socket(&wire);
    story.play(&ESTABLISHED);
}
