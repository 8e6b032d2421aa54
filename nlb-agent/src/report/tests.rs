//! The JSON is the contract's, word for word; the tables are kept as people saw and liked them.

use super::*;
use crate::problem::{Effect, Severity};
use serde_json::{Value, json};
use std::net::IpAddr;

/// The pattern of our users: five pods behind five ports, each pod answers on one of them only.
pub(crate) fn five_ports() -> Snapshot {
    let ports = 5001..=5005_u16;
    Snapshot {
        listeners: ports.clone().map(listener).collect(),
        targets: ports.flat_map(|port| (1..=5).map(move |pod| target(port, pod))).collect(),
        ..Snapshot::default()
    }
}

fn at(text: &str) -> Option<Timestamp> {
    Some(text.parse().unwrap())
}

fn listener(port: u16) -> Listener {
    Listener {
        listener: format!("192.0.2.10:{port}/TCP").parse().unwrap(),
        namespace: Some("app-qa".to_owned()),
        service: Some("internal-nlb-service".to_owned()),
        healthy: Some(1),
        registered: Some(5),
        fail_open: Some(false),
        traffic: Traffic { flows: 3, new_flows: 40, packets: 1_234, bytes: 56_789 },
        drops: BTreeMap::from([("SourceRange".to_owned(), 0)]),
    }
}

fn target(port: u16, pod: u16) -> Target {
    let serves = port - 5000 == pod;
    let bad = |text: &str| (!serves).then(|| text.to_owned());
    Target {
        namespace: Some("app-qa".to_owned()),
        service: Some("internal-nlb-service".to_owned()),
        listener: format!("192.0.2.10:{port}/TCP").parse().unwrap(),
        target: format!("10.1.0.{pod}:{port}").parse().unwrap(),
        node: Some("node-a".to_owned()),
        zone: Some("zone-1".to_owned()),
        local: Some(true),
        weight: Some(1),
        path: Some(Path::Local),
        via: Some(Via::Stack),
        path_reason: Some("The target is on this node.".to_owned()),
        state: Some(if serves { State::Healthy } else { State::Unhealthy }),
        reason: bad("Target.FailedHealthChecks"),
        description: bad("connection refused"),
        since: at("2026-01-01T00:00:00.75Z"),
        traffic: Traffic {
            flows: u64::from(serves) * 3,
            new_flows: u64::from(serves) * 40,
            packets: 0,
            bytes: 0,
        },
        checks: Some(BTreeMap::from([("passed".to_owned(), 7)])),
    }
}

/// What the maps alone tell of the same.
fn five_ports_offline() -> Snapshot {
    let mut snapshot = five_ports();
    for row in &mut snapshot.listeners {
        (row.namespace, row.service, row.healthy, row.registered, row.fail_open) =
            (None, None, None, None, None);
    }
    for row in &mut snapshot.targets {
        (row.namespace, row.service, row.node, row.zone, row.weight) = (None, None, None, None, None);
        (row.state, row.reason, row.description, row.since, row.checks) = (None, None, None, None, None);
    }
    snapshot
}

fn status() -> Snapshot {
    Snapshot {
        agent: Agent {
            running: true,
            version: Some("0.1.0".to_owned()),
            node: Some("node-a".to_owned()),
            leader: Some(false),
            started_at: at("2026-01-01T00:00:00Z"),
            layout: Some(1),
        },
        interfaces: Some(vec![Interface {
            name: "eth0".to_owned(),
            mtu: Some(1500),
            mode: InterfaceMode::Generic,
            reply: ReplyMode::Tcx,
            notes: vec!["The driver has no XDP.".to_owned()],
        }]),
        sources: Some(vec![SourceState {
            name: "manifests".to_owned(),
            synced: true,
            since: at("2026-01-01T00:00:01Z"),
        }]),
        tables: vec![Table { name: "flows".to_owned(), entries: 12, capacity: 1_048_576 }],
        vips: vec![Vip {
            vip: "192.0.2.10".parse().unwrap(),
            owner: Some("node-a".to_owned()),
            here: Some(true),
            eligible: Some(true),
            reason: None,
        }],
        host: Host {
            forwarding: Forwarding { ipv4: Some(true), ipv6: Some(false) },
            conntrack: Some(Conntrack { entries: 10, capacity: 262_144 }),
        },
        problems: Some(vec![Problem {
            severity: Severity::Warning,
            object: "Node node-a".to_owned(),
            field: None,
            value: None,
            reason: "ForwardingOff".to_owned(),
            message: "IPv6 is not forwarded: sysctl -w net.ipv6.conf.all.forwarding=1".to_owned(),
            effect: Effect::Ignored,
        }]),
        ..Snapshot::default()
    }
}

/// What the maps alone tell of the same.
fn status_offline() -> Snapshot {
    let Snapshot { tables, .. } = status();
    let vips = vec![crate::held::vip("192.0.2.10".parse().unwrap())];
    Snapshot { agent: Agent { layout: Some(1), ..Agent::default() }, tables, vips, ..Snapshot::default() }
}

/// A restarted agent whose manifests are not there.
fn status_unread() -> Snapshot {
    let source = SourceState { name: "manifests".to_owned(), synced: false, since: None };
    let problems = vec![crate::held::problem("node-a", 5, false)];
    Snapshot { sources: Some(vec![source]), problems: Some(problems), ..status() }
}

fn reasons() -> Snapshot {
    let reason = |name: &str, packets, kind| Reason {
        name: name.to_owned(),
        packets,
        kind,
        meaning: format!("What {name} means."),
        remedy: format!("What to do about {name}."),
    };
    let reasons = vec![
        reason("Forwarded", 5_000, Kind::Forwarded),
        reason("NoTarget", 0, Kind::Dropped),
        reason("NotForUs", 1, Kind::Passed),
        reason("TableFull", 1_200, Kind::Dropped),
        reason("FlowLost", 2, Kind::Noted),
        reason("FlowRebuilt", 0, Kind::Noted),
    ];
    Snapshot { reasons, ..Snapshot::default() }
}

fn flow(client: &str, listener: &str) -> Flow {
    Flow {
        protocol: crate::model::Protocol::Tcp,
        client: client.parse().unwrap(),
        listener: listener.parse().unwrap(),
        target: Some("10.1.0.7:5001".parse().unwrap()),
        path: Path::Local,
        state: FlowState::HalfOpen,
        idle_seconds: 3,
    }
}

fn value<V: View>(snapshot: Snapshot) -> Value {
    let view = V::of(snapshot);
    let text = view.json();
    let again: V = serde_json::from_str(&text).unwrap();
    assert_eq!(again.json(), text, "what is written is read back whole");
    serde_json::from_str(&text).unwrap()
}

fn page(width: u16) -> Page {
    Page { width: Some(width), colour: false, now: "2026-01-01T00:03:05Z".parse().unwrap() }
}

#[test]
fn targets_are_the_contract() {
    let all = value::<Targets>(five_ports());
    let wanted = json!({
        "namespace": "app-qa", "service": "internal-nlb-service", "listener": "192.0.2.10:5001/TCP",
        "target": "10.1.0.1:5001", "node": "node-a", "zone": "zone-1", "local": true, "weight": 1,
        "path": "local", "via": "stack", "pathReason": "The target is on this node.",
        "state": "healthy", "reason": null, "description": null, "since": "2026-01-01T00:00:00Z",
        "flows": 3, "newFlows": 40, "packets": 0, "bytes": 0, "checks": { "passed": 7 }
    });
    assert_eq!(all["targets"][0], wanted);
    assert_eq!(all["targets"][1]["reason"], "Target.FailedHealthChecks");
    assert_eq!(all["targets"].as_array().unwrap().len(), 25);
}

#[test]
fn what_only_the_agent_knows_is_null_and_not_missing() {
    let targets = value::<Targets>(five_ports_offline());
    for field in ["namespace", "service", "node", "zone", "weight", "state", "reason", "description", "since"]
    {
        assert_eq!(targets["targets"][0].get(field), Some(&Value::Null), "{field}");
    }
    let listeners = value::<Listeners>(five_ports_offline());
    for field in ["namespace", "service", "healthy", "registered", "failOpen"] {
        assert_eq!(listeners["listeners"][0].get(field), Some(&Value::Null), "{field}");
    }
    let status = value::<Status>(status_offline());
    assert_eq!(
        status["vips"],
        json!([ { "vip": "192.0.2.10", "owner": null, "here": null, "eligible": null, "reason": null } ])
    );
    for field in ["interfaces", "sources", "problems"] {
        assert_eq!(status.get(field), Some(&Value::Null), "{field}");
    }
}

#[test]
fn listeners_are_the_contract() {
    let wanted = json!({
        "listener": "192.0.2.10:5001/TCP", "namespace": "app-qa", "service": "internal-nlb-service",
        "healthy": 1, "registered": 5, "failOpen": false,
        "flows": 3, "newFlows": 40, "packets": 1234, "bytes": 56789, "drops": { "SourceRange": 0 }
    });
    assert_eq!(value::<Listeners>(five_ports())["listeners"][0], wanted);
}

#[test]
fn flows_are_the_contract_and_ipv6_has_brackets() {
    let flows = Flows { flows: vec![flow("[2001:db8::7]:40000", "[2001:db8::10]:443/TCP")], total: 9 };
    let wanted = json!({ "flows": [ { "protocol": "TCP", "client": "[2001:db8::7]:40000",
        "listener": "[2001:db8::10]:443/TCP", "target": "10.1.0.7:5001", "path": "local",
        "state": "half-open", "idleSeconds": 3 } ], "total": 9 });
    assert_eq!(value::<Flows>(Snapshot { flows, ..Snapshot::default() }), wanted);
}

#[test]
fn drops_are_the_contract_those_at_zero_too() {
    let wanted = json!({
        "drops": [
            { "reason": "NoTarget", "packets": 0, "meaning": "What NoTarget means.", "remedy": "What to do about NoTarget." },
            { "reason": "TableFull", "packets": 1200, "meaning": "What TableFull means.", "remedy": "What to do about TableFull." } ],
        "passed": [ { "reason": "NotForUs", "packets": 1, "meaning": "What NotForUs means." } ],
        "forwarded": [ { "reason": "Forwarded", "packets": 5000, "meaning": "What Forwarded means." } ],
        "noted": [
            { "reason": "FlowLost", "packets": 2, "meaning": "What FlowLost means.", "remedy": "What to do about FlowLost." },
            { "reason": "FlowRebuilt", "packets": 0, "meaning": "What FlowRebuilt means.", "remedy": "What to do about FlowRebuilt." } ]
    });
    assert_eq!(value::<Drops>(reasons()), wanted);
}

#[test]
fn status_is_the_contract() {
    let wanted = json!({
        "agent": { "running": true, "version": "0.1.0", "node": "node-a", "leader": false,
                   "startedAt": "2026-01-01T00:00:00Z", "layout": 1 },
        "interfaces": [ { "name": "eth0", "mtu": 1500, "mode": "generic", "reply": "tcx",
                          "notes": ["The driver has no XDP."] } ],
        "sources": [ { "name": "manifests", "synced": true, "since": "2026-01-01T00:00:01Z" } ],
        "tables": [ { "name": "flows", "entries": 12, "capacity": 1048576 } ],
        "vips": [ { "vip": "192.0.2.10", "owner": "node-a", "here": true, "eligible": true, "reason": null } ],
        "peers": [], "snat": [],
        "host": { "forwarding": { "ipv4": true, "ipv6": false }, "conntrack": { "entries": 10, "capacity": 262144 } },
        "problems": [ { "severity": "Warning", "object": "Node node-a", "field": null, "value": null,
            "reason": "ForwardingOff", "message": "IPv6 is not forwarded: sysctl -w net.ipv6.conf.all.forwarding=1",
            "effect": "ignored" } ]
    });
    assert_eq!(value::<Status>(status()), wanted);
}

#[test]
fn a_filter_counts_all_and_keeps_few() {
    let one = "192.0.2.10:5001/TCP";
    let all = [
        flow("198.51.100.9:1", one),
        flow("198.51.100.7:2", one),
        flow("198.51.100.7:1", one),
        flow("198.51.100.7:1", "192.0.2.10:5002/TCP"),
    ];
    let client: IpAddr = "198.51.100.7".parse().unwrap();
    let filter = FlowFilter { listener: Some(one.parse().unwrap()), client: Some(client), limit: Some(1) };
    let answer = filter.answer(all.clone());
    assert_eq!((answer.total, answer.flows.len()), (2, 1));
    let sorted = FlowFilter::default().answer(all.clone());
    let ports: Vec<u16> = sorted.flows.iter().map(|flow| flow.client.port()).collect();
    assert_eq!((sorted.total, ports), (4, vec![1, 2, 1, 1]), "by listener, then client");
}

#[test]
fn a_service_is_asked_for_with_or_without_its_namespace() {
    let count = |wanted| Targets::of(five_ports()).only(Some(wanted)).targets.len();
    assert_eq!(count("internal-nlb-service"), 25);
    assert_eq!(count("app-qa/internal-nlb-service"), 25);
    assert_eq!(count("default/internal-nlb-service"), 0);
    assert_eq!(count("internal"), 0);
}

#[test]
fn whatever_the_order_it_came_in_it_is_shown_in_the_same() {
    let mut turned = five_ports();
    turned.targets.reverse();
    turned.listeners.reverse();
    assert_eq!(Targets::of(turned.clone()), Targets::of(five_ports()));
    assert_eq!(Listeners::of(turned), Listeners::of(five_ports()));
}

/// Compares with a table as it was liked; on purpose changed, it is written anew with `NLB_BLESS=1`.
fn golden(name: &str, text: &str) {
    let path = format!("{}/src/report/golden/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("NLB_BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap();
    assert!(text == wanted, "{name} is\n{text}\nand was\n{wanted}");
}

#[test]
fn tables_as_they_were_liked() {
    let two_ports = |snapshot: Snapshot| Targets {
        targets: Targets::of(snapshot)
            .targets
            .into_iter()
            .filter(|row| row.listener.socket.port() < 5003)
            .collect(),
    };
    golden("targets", &two_ports(five_ports()).table(&page(120)));
    golden("targets-narrow", &two_ports(five_ports()).table(&page(80)));
    golden("targets-offline", &two_ports(five_ports_offline()).table(&page(100)));
    golden("listeners", &Listeners::of(five_ports()).table(&page(110)));
    golden("listeners-offline", &Listeners::of(five_ports_offline()).table(&page(110)));
    golden("drops", &Drops::of(reasons()).table(&page(100)));
    golden("status", &Status::of(status()).table(&page(100)));
    golden("status-offline", &Status::of(status_offline()).table(&page(100)));
    golden("status-unread", &Status::of(status_unread()).table(&page(100)));
    let flows = FlowFilter { limit: Some(1), ..FlowFilter::default() }.answer([
        flow("[2001:db8::7]:40000", "[2001:db8::10]:443/TCP"),
        flow("198.51.100.7:1", "192.0.2.10:1/UDP"),
    ]);
    golden("flows", &flows.table(&page(110)));
}

#[test]
fn five_healthy_of_twenty_five_is_no_alarm_but_none_is() {
    let text = Targets::of(five_ports()).table(&page(200));
    assert!(text.starts_with("25 targets behind 5 listeners: 5 healthy, 20 unhealthy.\n"), "{text}");
    assert!(text.contains("Every listener has a healthy target") && !text.contains('!'), "{text}");
    let mut snapshot = five_ports();
    snapshot.targets[0].state = Some(State::Unhealthy);
    snapshot.listeners[0].healthy = Some(0);
    snapshot.listeners[0].fail_open = Some(true);
    let text = Targets::of(snapshot.clone()).table(&page(200));
    assert!(text.contains("! 192.0.2.10:5001/TCP has no healthy target"), "{text}");
    let text = Listeners::of(snapshot).table(&page(200));
    assert!(text.contains("! 192.0.2.10:5001/TCP fails open: 0 of 5 healthy"), "{text}");
}

#[test]
fn speeds_stand_beside_their_listener() {
    let before = Listeners::of(five_ports());
    let mut after = before.clone();
    after.listeners[2].traffic.packets += 2_000;
    after.listeners[2].traffic.bytes += 1_000_000;
    let text = after.table_since(&before, std::time::Duration::from_secs(2), &page(120));
    let row = text.lines().find(|line| line.contains(":5003/TCP")).unwrap();
    assert!(row.contains("1.00 k") && row.contains("4.00 M"), "{text}");
    assert!(text.contains("now 1.00 k packets/s, 4.00 Mbit/s"), "{text}");
}

#[test]
fn colours_are_for_terminals_only() {
    let coloured = Page { colour: true, ..page(120) };
    assert!(Targets::of(five_ports()).table(&coloured).contains("\u{1b}["));
    assert!(!Targets::of(five_ports()).table(&page(120)).contains('\u{1b}'));
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    for width in [80, 100, 140] {
        for text in [
            Targets::of(five_ports()).table(&page(width)),
            Listeners::of(five_ports()).table(&page(width)),
            Status::of(status()).table(&page(width)),
            Drops::of(reasons()).table(&page(width)),
        ] {
            let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(widest <= usize::from(width), "{widest} > {width}:\n{text}");
        }
    }
}
