//! The tables of `nlb-agent check`, for people who have not read a manual.

use crate::model::{CheckPort, CheckProtocol, HealthCheck, LoadBalancer, Model, PortRef, TargetGroup};
use crate::problem::Severity;
use crate::report::arrangement;
use comfy_table::{Table, presets};
use std::fmt::Write;

/// The whole text.
pub(super) fn text(model: &Model) -> String {
    let mut text = String::new();
    if model.load_balancers.is_empty() {
        text.push_str("No Service here would be served by nlb.\n");
    }
    for lb in &model.load_balancers {
        let _ = writeln!(text, "{}\n{}\n", headline(lb), listeners(lb));
    }
    if !model.unclaimed.is_empty() {
        let rows =
            model.unclaimed.iter().map(|it| vec![format!("{}/{}", it.namespace, it.name), it.reason.clone()]);
        let _ = writeln!(
            text,
            "Services of type LoadBalancer that nlb leaves to others\n{}\n",
            table(&["Service", "Why"], rows)
        );
    }
    text.push_str(&problems(model));
    text
}

fn headline(lb: &LoadBalancer) -> String {
    let scheme = match lb.scheme {
        crate::model::Scheme::Internal => "internal",
        crate::model::Scheme::InternetFacing => "internet-facing",
    };
    let vips = if lb.vips.is_empty() {
        "no address (name a pool with --vip-pool)".to_owned()
    } else {
        lb.vips.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    let class = lb.class.as_deref().unwrap_or("none");
    format!("Service {}/{}: {scheme}, class {class}, VIP {vips}", lb.namespace, lb.name)
}

fn listeners(lb: &LoadBalancer) -> Table {
    let served = lb.listeners.iter().map(|listener| {
        let port = format!("{}/{}", listener.port, listener.protocol);
        let group = listener
            .forward
            .first()
            .and_then(|to| lb.target_groups.iter().find(|it| it.name == to.target_group));
        let Some(group) = group else { return vec![port] };
        vec![
            port,
            format!("pods' port {}", port_text(&group.target_port)),
            targets(group),
            check(&group.health_check),
        ]
    });
    let refused = lb
        .refused_ports
        .iter()
        .map(|it| vec![format!("{}/{}", it.port, it.protocol), format!("NOT SERVED: {}", it.reason)]);
    table(&["Listener", "Forwards to", "Targets", "Health check"], served.chain(refused))
}

fn port_text(port: &PortRef) -> String {
    match port {
        PortRef::Number(number) => number.to_string(),
        PortRef::Name(name) => format!("named {name}"),
    }
}

/// The first few by name; the JSON has them all.
fn targets(group: &TargetGroup) -> String {
    const SHOWN: usize = 8;
    let mut lines: Vec<String> =
        group.targets.iter().take(SHOWN).map(|it| it.key.socket().to_string()).collect();
    match group.targets.len() {
        0 => lines.push("none".into()),
        count if count > SHOWN => lines.push(format!("and {} more", count - SHOWN)),
        _ => {}
    }
    lines.join("\n")
}

fn check(check: &HealthCheck) -> String {
    let port = match &check.port {
        CheckPort::TrafficPort => "the target's port".to_owned(),
        CheckPort::Number(number) => format!("port {number}"),
        CheckPort::Name(name) => format!("the port named {name}"),
    };
    let what = match &check.protocol {
        CheckProtocol::Tcp => format!("TCP connect to {port}"),
        CheckProtocol::Http(http) => format!("HTTP GET {} on {port}", http.path),
        CheckProtocol::Https(http) => format!("HTTPS GET {} on {port}", http.path),
    };
    format!(
        "{what} every {} s, timeout {} s; up after {}, down after {}",
        check.interval.as_secs(),
        check.timeout.as_secs(),
        check.healthy_threshold,
        check.unhealthy_threshold
    )
}

fn problems(model: &Model) -> String {
    if model.problems.is_empty() {
        return "No problems.\n".into();
    }
    let rows = model.problems.iter().map(|it| {
        let severity = match it.severity {
            Severity::Warning => "Warning",
            Severity::Normal => "Normal",
        };
        vec![severity.into(), it.object.clone(), it.reason.clone(), it.message.clone()]
    });
    format!("What to know, and what to mend\n{}\n", table(&["", "Object", "Reason", "What it means"], rows))
}

fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    table.set_content_arrangement(arrangement(table.width()));
    table.set_header(head.to_vec());
    table.add_rows(rows);
    table
}
