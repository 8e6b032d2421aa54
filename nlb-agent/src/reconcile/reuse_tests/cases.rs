//! Single stories of an address that is another pod's now.

use super::*;
use crate::health::{Outcome, checks};
use crate::model::{IpFamily, TargetKey};
use crate::vips::Allocations;

const READY: Listed = Listed { pod: 1, ready: true, serving: true };

/// Service a with the pods 1 and 2 at the first two addresses; Service b with none yet.
fn two() -> (Agent, Lists, Vec<Flow>) {
    let mut lists = Lists::default();
    lists[0] = [(0, READY), (1, Listed { pod: 2, ..READY })].into();
    let mut agent = Agent::new();
    agent.read(&manifests(&lists));
    let flows = agent.flows(0);
    assert_eq!(flows.len(), 2);
    (agent, lists, flows)
}

#[test]
fn what_was_reused_while_no_agent_ran_leaves_a_service_that_cannot_be_read() {
    let (mut agent, mut lists, flows) = two();
    let (key, _) = agent.listener(0).unwrap();
    let settings =
        Settings { remembered: Allocations::of(&agent.translation.model().load_balancers), ..settings() };
    agent.restart();
    // The file of Service a is damaged; Service b has a new pod at the address of a's first one.
    lists[0].clear();
    lists[1] = [(0, Listed { pod: 3, ..READY })].into();
    let mut read = inputs(&manifests(&lists));
    read.services.retain(|name, _| name.name != "a");
    read.endpoint_slices.retain(|name, _| name.name != "a");
    let translation = Translation::of(&Arc::new(read), &settings, None);
    let model = translation.model();
    let mut strangers = agent.health.update_keeping(model, now());
    assert_eq!(strangers.len(), 1, "{strangers:?}");
    let first = TargetKey { ip: ip(0), port: 53, uid: Some("pod-1".into()) };
    assert_eq!((&strangers[0].key, strangers[0].uid.as_deref()), (&first, Some("pod-3")));
    for _ in 0..2 {
        let is_strange =
            |listener: &ListenerKey, it: &Occupant| strangers.iter().any(|s| sits(s, listener, it));
        let wanted = forwardings(model, &agent.health, |_| false);
        let planned = agent.control.apply_keeping(wanted, &is_strange, Epoch(0));
        agent.grace(planned);
        assert_eq!(agent.contents().incoherence(), None);
        assert_eq!(flows.iter().map(|flow| agent.holds(flow)).collect::<Vec<_>>(), [false, true]);
        let listener = agent.contents().listeners[&key];
        let pick = agent.contents().pick(agent.contents().choices[listener.id as usize]).unwrap();
        assert_eq!(pick.slots, [flows[1].slot], "new flows go to the other one");
        strangers.extend(agent.health.update_keeping(model, now()));
        assert_eq!(strangers.len(), 1, "once");
    }
}

#[test]
fn a_pod_that_is_being_deleted_takes_no_address_back_that_another_has_since() {
    let (mut agent, mut lists, flows) = two();
    // Service b's old pod stood at the address before, and its object lingers.
    let leaving = Listed { pod: 3, ready: false, serving: true };
    lists[1] = [(0, leaving)].into();
    agent.read(&manifests(&lists));
    // Now Service a's pod leaves, too, and drains.
    lists[0].insert(0, Listed { pod: 1, ready: false, serving: true });
    assert_eq!(agent.read(&manifests(&lists)), []);
    assert!(flows.iter().all(|flow| agent.holds(flow)), "it keeps its flows while it drains");
    // A pod that is not being deleted has the address for sure.
    lists[1].insert(0, Listed { pod: 4, ready: false, serving: false });
    assert_eq!(agent.read(&manifests(&lists)).len(), 1);
    assert!(!agent.holds(&flows[0]) && agent.holds(&flows[1]));
}

#[test]
fn a_slice_that_still_calls_the_pod_ready_keeps_it_although_its_service_cannot_be_read() {
    let (mut agent, mut lists, _) = two();
    agent.restart();
    lists[1] = [(0, Listed { pod: 3, ..READY })].into();
    let mut read = inputs(&manifests(&lists));
    read.services.retain(|name, _| name.name != "a");
    let translation = Translation::of(&Arc::new(read), &settings(), None);
    assert_eq!(agent.health.update_keeping(translation.model(), now()), []);
}

#[test]
fn checks_do_not_go_to_the_new_pod_and_the_delay_is_over_at_once() {
    let (mut agent, mut lists, flows) = two();
    let key = TargetKey { ip: ip(0), port: 53, uid: uid(1) };
    agent.health.outcome("default/a:53/UDP", &key, &Outcome::Passed, now());
    lists[0].remove(&0);
    assert_eq!(agent.read(&manifests(&lists)), []);
    let asked = |agent: &Agent| {
        let checks = checks(agent.translation.model(), &agent.health);
        checks.into_iter().map(|it| it.address.ip()).collect::<Vec<_>>()
    };
    assert_eq!(asked(&agent), [ip(0), ip(1)]);
    // A slice of no Service, under another port, in a later turn.
    lists[3] = [(0, Listed { pod: 3, ready: false, serving: false })].into();
    let forgotten = agent.read(&manifests(&lists));
    let [Forgotten { group, slice, owner, .. }] = forgotten.as_slice() else { panic!("{forgotten:?}") };
    assert_eq!((group.as_str(), slice.name.as_str()), ("default/a:53/UDP", "d"));
    assert_eq!(*owner, Owner::Slice(slice.clone()));
    assert_eq!(asked(&agent), [ip(1)]);
    assert!(agent.health.status(group, &key).is_none());
    assert_eq!(agent.health.standings(group, IpFamily::IPv4).registered, 1);
    assert!(!agent.holds(&flows[0]));
    assert_eq!(agent.flows(0), flows[1..]);
}

#[test]
fn on_a_node_s_own_address_only_the_target_s_port_counts() {
    let node = "---\napiVersion: v1\nkind: Node\nmetadata: {name: n1}\nstatus: {addresses: [{type: InternalIP, address: 10.0.0.1}]}\n";
    let (_, mut lists, _) = two();
    let text = |lists: &Lists| manifests(lists) + node;
    let mut agent = Agent::new();
    agent.read(&text(&lists));
    let flows = agent.flows(0);
    lists[0].remove(&0);
    // Port 8080 of the host's address is a stranger's, port 53 is not.
    lists[2] = [(0, Listed { pod: 3, ..READY })].into();
    assert_eq!(agent.read(&text(&lists)), []);
    assert!(flows.iter().all(|flow| agent.holds(flow)));
    lists[1] = [(0, Listed { pod: 3, ..READY })].into();
    assert_eq!(agent.read(&text(&lists)).len(), 1);
    assert_eq!(flows.iter().map(|flow| agent.holds(flow)).collect::<Vec<_>>(), [false, true]);
}
