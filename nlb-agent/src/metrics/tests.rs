//! The text that a collector reads: every name and label of the contract.

use super::*;
use crate::problem::{Effect, Problem};
use crate::report::tests::five_ports;
use crate::report::{Agent, Checks, Reason, Table, Vip};
use std::collections::BTreeSet;

fn snapshot() -> Snapshot {
    let reason = |name: &str, packets, kind| Reason {
        name: name.to_owned(),
        packets,
        kind,
        meaning: String::new(),
        remedy: String::new(),
    };
    let vip =
        |vip: &str, here| Vip { vip: vip.parse().unwrap(), owner: None, here, eligible: None, reason: None };
    let problem = Problem {
        severity: Severity::Warning,
        object: "Node a".to_owned(),
        field: None,
        value: None,
        reason: "X".to_owned(),
        message: String::new(),
        effect: Effect::Ignored,
    };
    Snapshot {
        agent: Agent { version: Some("0.1.0".to_owned()), layout: Some(1), ..Agent::default() },
        tables: vec![Table { name: "flows".to_owned(), entries: 12, capacity: 1024 }],
        vips: vec![vip("192.0.2.10", Some(true)), vip("192.0.2.11", Some(false)), vip("2001:db8::1", None)],
        reasons: vec![
            reason("NoTarget", 0, Kind::Dropped),
            reason("NotForUs", 7, Kind::Passed),
            reason("Forwarded", 8, Kind::Forwarded),
            reason("FlowLost", 9, Kind::Noted),
        ],
        checks: Some(Checks { sockets: 512, running: 7, waiting: 3, late: 2, given_up: 9 }),
        problems: Some(vec![problem]),
        ..five_ports()
    }
}

fn text() -> String {
    let metrics = Metrics::default();
    metrics.applied(Duration::from_micros(300));
    metrics.text(snapshot())
}

#[test]
fn every_name_of_the_contract_is_there_with_its_type() {
    let text = text();
    let types: BTreeSet<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let wanted = BTreeSet::from([
        "nlb_apply_seconds histogram",
        "nlb_build_info gauge",
        "nlb_drops counter",
        "nlb_forwarded counter",
        "nlb_health_check_sockets gauge",
        "nlb_health_checks_given_up counter",
        "nlb_health_checks_late counter",
        "nlb_health_checks_running gauge",
        "nlb_health_checks_waiting gauge",
        "nlb_listener_bytes counter",
        "nlb_listener_fail_open gauge",
        "nlb_listener_flows gauge",
        "nlb_listener_healthy_targets gauge",
        "nlb_listener_new_flows counter",
        "nlb_listener_packets counter",
        "nlb_listener_registered_targets gauge",
        "nlb_noted counter",
        "nlb_passed counter",
        "nlb_problems gauge",
        "nlb_table_capacity gauge",
        "nlb_table_entries gauge",
        "nlb_target_flows gauge",
        "nlb_target_health_checks counter",
        "nlb_target_state gauge",
        "nlb_vip_owner gauge",
    ]);
    assert_eq!(types, wanted);
}

#[test]
fn values_and_labels_are_as_in_the_snapshot() {
    let text = text();
    let listener = r#"{namespace="app-qa",service="internal-nlb-service",listener="192.0.2.10:5001/TCP"}"#;
    let target = r#"namespace="app-qa",service="internal-nlb-service",listener="192.0.2.10:5001/TCP",target="10.1.0.2:5001""#;
    for line in [
        format!("nlb_listener_flows{listener} 3"),
        format!("nlb_listener_new_flows_total{listener} 40"),
        format!("nlb_listener_packets_total{listener} 1234"),
        format!("nlb_listener_bytes_total{listener} 56789"),
        format!("nlb_listener_healthy_targets{listener} 1"),
        format!("nlb_listener_registered_targets{listener} 5"),
        format!("nlb_listener_fail_open{listener} 0"),
        format!(r#"nlb_target_state{{{target},state="unhealthy"}} 1"#),
        format!(r#"nlb_target_state{{{target},state="healthy"}} 0"#),
        format!(r#"nlb_target_health_checks_total{{{target},result="passed"}} 7"#),
        r#"nlb_drops_total{reason="NoTarget"} 0"#.to_owned(),
        r#"nlb_passed_total{reason="NotForUs"} 7"#.to_owned(),
        r#"nlb_forwarded_total{reason="Forwarded"} 8"#.to_owned(),
        r#"nlb_noted_total{reason="FlowLost"} 9"#.to_owned(),
        r#"nlb_vip_owner{vip="192.0.2.10"} 1"#.to_owned(),
        r#"nlb_vip_owner{vip="192.0.2.11"} 0"#.to_owned(),
        r#"nlb_vip_owner{vip="2001:db8::1"} 0"#.to_owned(),
        r#"nlb_table_entries{table="flows"} 12"#.to_owned(),
        r#"nlb_table_capacity{table="flows"} 1024"#.to_owned(),
        "nlb_health_check_sockets 512".to_owned(),
        "nlb_health_checks_running 7".to_owned(),
        "nlb_health_checks_waiting 3".to_owned(),
        "nlb_health_checks_late_total 2".to_owned(),
        "nlb_health_checks_given_up_total 9".to_owned(),
        r#"nlb_problems{severity="Warning"} 1"#.to_owned(),
        r#"nlb_problems{severity="Normal"} 0"#.to_owned(),
        "nlb_apply_seconds_count 1".to_owned(),
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
    }
    assert!(text.contains(r#"nlb_build_info{version="0.1.0","#));
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn a_reason_is_counted_as_one_kind() {
    let text = text();
    let lines = text.lines().filter(|line| line.contains("{reason="));
    let names: Vec<&str> =
        lines.filter_map(|line| line.split_once("_total{reason=")).map(|it| it.0).collect();
    assert_eq!(names, ["nlb_drops", "nlb_passed", "nlb_forwarded", "nlb_noted"]);
}

#[test]
fn each_target_is_in_exactly_one_state() {
    let text = text();
    let ones =
        text.lines().filter(|line| line.starts_with("nlb_target_state") && line.ends_with(" 1")).count();
    assert_eq!(ones, 25);
}

#[test]
fn an_empty_agent_has_metrics_too() {
    let text = Metrics::default().text(Snapshot::default());
    assert!(
        text.contains(r#"nlb_problems{severity="Warning"} 0"#) && text.contains("nlb_build_info"),
        "{text}"
    );
}
