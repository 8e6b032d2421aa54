//! Addresses that go from pod to pod, from the manifests to the maps: no packet sent to a Service reaches another one's pod.

mod cases;

use super::write::sits;
use crate::capacity::Limits;
use crate::claims::Owner;
use crate::contents::Contents;
use crate::control::{Control, Planned};
use crate::health::{Forgotten, Health, forwardings, forwardings_of};
use crate::inputs::Inputs;
use crate::manifests::parse;
use crate::slots::{Epoch, Occupant};
use crate::translate::{Extent, Settings, Translation, Vips};
use crate::vips::Pools;
use jiff::Timestamp;
use nlb_common::layout::ListenerKey;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

const LIMITS: Limits = Limits { listeners: 16, vips: 8, slots: 256, ring_words: 1 << 14, hz: 250 };

/// Who lists endpoints: two Services of ours, one of another kind, and a slice that belongs to none.
const OWNERS: [&str; 4] = ["a", "b", "c", "d"];
const OURS: usize = 2;

/// What a slice says of an address: which pod (0 has no UID), and its conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Listed {
    pod: u8,
    ready: bool,
    serving: bool,
}

type Lists = [BTreeMap<u8, Listed>; 4];

fn ip(address: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, address + 1])
}

fn uid(pod: u8) -> Option<String> {
    (pod > 0).then(|| format!("pod-{pod}"))
}

fn manifests(lists: &Lists) -> String {
    let mut text = String::new();
    for (name, list) in OWNERS.iter().zip(lists) {
        let kind = match *name {
            "a" | "b" => "type: LoadBalancer, loadBalancerClass: nlb.io/nlb, ",
            _ => "",
        };
        if *name != "d" {
            text += &format!(
                "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{{kind}ports: [{{name: x, port: 53, protocol: UDP, targetPort: 53}}]}}\n"
            );
        }
        let label =
            if *name == "d" { "other: label".into() } else { format!("kubernetes.io/service-name: {name}") };
        // Another port than the others' makes no difference.
        let port = if *name == "c" { 8080 } else { 53 };
        let endpoint = |(address, it): (&u8, &Listed)| {
            let reference = uid(it.pod).map(|uid| format!(", targetRef: {{kind: Pod, name: p, uid: {uid}}}"));
            format!(
                "{{addresses: [{}], conditions: {{ready: {}, serving: {}, terminating: {}}}{}}}",
                ip(*address),
                it.ready,
                it.ready || it.serving,
                !it.ready && it.serving,
                reference.unwrap_or_default()
            )
        };
        let endpoints: Vec<String> = list.iter().map(endpoint).collect();
        text += &format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}, labels: {{{label}}}}}\naddressType: IPv4\nports: [{{name: x, port: {port}, protocol: UDP}}]\nendpoints: [{}]\n",
            endpoints.join(", ")
        );
    }
    text
}

fn inputs(text: &str) -> Inputs {
    let reading = parse("test", text);
    assert_eq!(reading.errors, []);
    reading.objects.into_iter().collect()
}

fn settings() -> Settings {
    let pools = vec!["192.0.2.0/24".parse().unwrap()];
    Settings { vips: Vips::Pools(Pools { pools, reserved: Vec::new() }), ..Settings::default() }
}

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

/// The agent without its kernel: what a packet finds is `control.contents()`.
struct Agent {
    inputs: Arc<Inputs>,
    translation: Translation,
    health: Health,
    control: Control,
}

impl Agent {
    fn new() -> Self {
        let inputs = Arc::<Inputs>::default();
        let translation = Translation::of(&inputs, &settings(), None);
        Self { inputs, translation, health: Health::default(), control: Control::new(LIMITS) }
    }

    /// As [`super::Reconcile`] does it: only what has changed is looked at, and it comes to what a whole look would come to.
    fn read(&mut self, text: &str) -> Vec<Forgotten> {
        let mut read = inputs(text);
        // Objects that are as they were are shared, as the sources share them.
        for (name, slice) in &mut read.endpoint_slices {
            if let Some(old) = self.inputs.endpoint_slices.get(name).filter(|old| *old == slice) {
                *slice = Arc::clone(old);
            }
        }
        self.inputs = Arc::new(read);
        let renewal = self.translation.renew(&self.inputs, &settings());
        let model = self.translation.model();
        let (forgotten, planned) = match renewal.extent {
            Extent::Nothing => return Vec::new(),
            Extent::All => {
                let forgotten = self.health.update(model, now());
                (forgotten, self.control.apply(forwardings(model, &self.health, |_| false), Epoch(0)))
            }
            Extent::Targets(places) => {
                let mut whole = self.health.clone();
                let mut of_all = whole.update(model, now());
                let changed = || places.iter().map(|place| &model.load_balancers[*place]);
                let mut forgotten = self.health.update_some(changed(), &renewal.claimed, model, now());
                assert_eq!(self.health, whole);
                for all in [&mut of_all, &mut forgotten] {
                    all.sort_by(|a, b| (&a.group, &a.key).cmp(&(&b.group, &b.key)));
                }
                assert_eq!(forgotten, of_all);
                let named: HashSet<&String> = forgotten.iter().map(|it| &it.group).collect();
                let of = |it: &&crate::model::LoadBalancer| {
                    changed().any(|other| other.name == it.name)
                        || it.target_groups.iter().any(|group| named.contains(&group.name))
                };
                let some = forwardings_of(model.load_balancers.iter().filter(of), &self.health, |_| false);
                (forgotten, self.control.apply_some(some, Epoch(0)))
            }
        };
        self.grace(planned);
        assert_eq!(self.control.contents().incoherence(), None);
        forgotten
    }

    fn grace(&mut self, mut planned: Planned) {
        for _ in 0..3 {
            planned = self.control.change(crate::control::Change::default(), planned.epoch);
        }
    }

    /// Killed; the next one has read nothing yet.
    fn restart(&mut self) {
        let health = serde_json::to_string(&self.health.saved()).unwrap();
        self.health = Health::restored(serde_json::from_str(&health).unwrap(), now());
        let slots = self.control.saved();
        self.control = Control::adopt(LIMITS, self.control.contents().clone(), &slots);
        self.inputs = Arc::default();
        self.translation = Translation::of(&self.inputs, &settings(), None);
    }

    fn contents(&self) -> &Contents {
        self.control.contents()
    }

    fn listener(&self, service: usize) -> Option<(ListenerKey, &[Occupant])> {
        let lb = self.translation.model().load_balancers.iter().find(|it| it.name == OWNERS[service])?;
        let key = crate::model::listener_key(*lb.vips.first()?, &lb.listeners[0]);
        Some((key, self.control.listener(&key)?.1))
    }

    /// A flow to every target that new flows of this Service may go to.
    fn flows(&self, service: usize) -> Vec<Flow> {
        let Some((key, occupants)) = self.listener(service) else { return Vec::new() };
        let listener = self.contents().listeners[&key];
        let pick = self.contents().pick(self.contents().choices[listener.id as usize]);
        let flow = |slot: u32| {
            let occupant = occupants.iter().find(|it| it.slot == slot).expect("members are occupants");
            let known = occupant.known.clone().expect("nothing was adopted without a note");
            let found = self.contents().slots[slot as usize];
            assert_eq!((found.listener, found.target.ip()), (listener.id, occupant.ip));
            Flow { service, ip: occupant.ip, uid: known.uid, slot, generation: found.generation }
        };
        pick.into_iter().flat_map(|pick| pick.slots).map(flow).collect()
    }

    /// Whether packets of a flow still go to its target.
    fn holds(&self, flow: &Flow) -> bool {
        let slot = self.contents().slots[flow.slot as usize];
        let holds = slot.protocol != 0 && slot.generation == flow.generation;
        assert!(!holds || slot.target.ip() == flow.ip, "a kept flow stays with its target");
        holds
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Flow {
    service: usize,
    ip: IpAddr,
    uid: Option<String>,
    slot: u32,
    generation: u32,
}

fn at(list: &BTreeMap<u8, Listed>, address: IpAddr) -> Option<Listed> {
    list.iter().find(|(it, _)| ip(**it) == address).map(|(_, it)| *it)
}

/// When the flow's target was last listed as ready by its own Service.
fn was_ready(history: &[Lists], flow: &Flow) -> Option<usize> {
    let is_ready = |it: Listed| it.ready && uid(it.pod) == flow.uid;
    history.iter().rposition(|lists| at(&lists[flow.service], flow.ip).is_some_and(is_ready))
}

/// As [`manifests`] writes it.
fn is_leaving(listed: &Listed) -> bool {
    !listed.ready && listed.serving
}

/// By the inputs' whole history: whether the address of a Service's target is another pod's now.
fn is_anothers(history: &[Lists], flow: &Flow) -> bool {
    let left = was_ready(history, flow);
    if left == Some(history.len() - 1) {
        return false;
    }
    let last = history.last().unwrap();
    (0..OWNERS.len()).any(|owner| {
        let Some(listed) = at(&last[owner], flow.ip) else { return false };
        let was_absent = |lists: &Lists| at(&lists[owner], flow.ip).is_none();
        match (&flow.uid, uid(listed.pod)) {
            (Some(old), Some(new)) => {
                let lingers = |lists: &Lists| {
                    let all = lists.iter().filter_map(|list| at(list, flow.ip));
                    all.into_iter().any(|it| is_leaving(&it) && uid(it.pod).as_ref() == Some(&new))
                };
                let had_it_first = left.is_some_and(|left| history[left..].iter().all(lingers));
                *old != new && !(is_leaving(&listed) && had_it_first)
            }
            (None, None) if owner == flow.service => false,
            _ => left.is_some_and(|left| history[left..].iter().any(was_absent)),
        }
    })
}

#[derive(Clone, Debug)]
enum Edit {
    List(usize, u8, Listed),
    Unlist(usize, u8),
    /// The pods of two addresses change places, whoever lists them.
    Swap(u8, u8),
}

fn listed() -> impl Strategy<Value = Listed> {
    let ready = prop_oneof![3 => Just((true, true)), 1 => Just((false, true)), 1 => Just((false, false))];
    (0..4_u8, ready).prop_map(|(pod, (ready, serving))| Listed { pod, ready, serving })
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        6 => (0..4_usize, 0..3_u8, listed()).prop_map(|(owner, address, listed)| Edit::List(owner, address, listed)),
        4 => (0..4_usize, 0..3_u8).prop_map(|(owner, address)| Edit::Unlist(owner, address)),
        1 => (0..3_u8, 0..3_u8).prop_map(|(one, other)| Edit::Swap(one, other)),
    ]
}

fn make(lists: &mut Lists, edit: &Edit) {
    match edit {
        Edit::List(owner, address, listed) => drop(lists[*owner].insert(*address, *listed)),
        Edit::Unlist(owner, address) => drop(lists[*owner].remove(address)),
        Edit::Swap(one, other) => {
            for list in lists {
                let (first, second) = (list.remove(one), list.remove(other));
                list.extend(first.map(|it| (*other, it)));
                list.extend(second.map(|it| (*one, it)));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_packet_reaches_the_pod_of_another_service(
        turns in prop::collection::vec((prop::collection::vec(edit(), 1..4), prop::bool::weighted(0.2)), 1..20),
    ) {
        let mut agent = Agent::new();
        let mut history = vec![Lists::default()];
        agent.read(&manifests(&history[0]));
        let mut flows: Vec<Flow> = Vec::new();
        for (edits, restarts) in turns {
            let mut lists = history.last().unwrap().clone();
            edits.iter().for_each(|edit| make(&mut lists, edit));
            history.push(lists);
            if restarts {
                agent.restart();
            }
            let forgotten = agent.read(&manifests(history.last().unwrap()));
            for it in &forgotten {
                prop_assert!(it.owner != Owner::Slice(it.slice.clone()) || it.slice.name == "d");
            }
            let (kept, lost): (Vec<Flow>, Vec<Flow>) = flows.into_iter().partition(|flow| !is_anothers(&history, flow));
            for flow in &kept {
                prop_assert!(agent.holds(flow), "{flow:?} was lost");
            }
            for flow in &lost {
                prop_assert!(!agent.holds(flow), "{flow:?} goes to another pod");
            }
            flows = kept;
            for service in 0..OURS {
                for flow in agent.flows(service) {
                    prop_assert!(!is_anothers(&history, &flow), "{flow:?} begins at another pod");
                    // One that was never ready may take flows where nobody else is there: where it stood is not told here.
                    if !flows.contains(&flow) && was_ready(&history, &flow).is_some() {
                        flows.push(flow);
                    }
                }
            }
        }
    }
}
