//! `listeners`: every VIP and port that is served, for whom, by how many targets, how fast.

use super::page::{a_few, known, plural};
use super::{Listener, ListenerAddress, Page, Rate, Snapshot, Traffic, View, count, rate, scaled};
use comfy_table::{Cell, Color};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::time::Duration;

/// The answer to `listeners`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listeners {
    /// By namespace, Service, address.
    pub listeners: Vec<Listener>,
}

impl View for Listeners {
    const PATH: &'static str = "/listeners";

    fn of(snapshot: Snapshot) -> Self {
        Self { listeners: snapshot.sorted().listeners }
    }

    fn table(&self, page: &Page) -> String {
        self.print(page, None)
    }
}

impl Listeners {
    /// The table with speeds, from an earlier look `elapsed` ago.
    pub fn table_since(&self, before: &Self, elapsed: Duration, page: &Page) -> String {
        let earlier: HashMap<ListenerAddress, &Traffic> =
            before.listeners.iter().map(|listener| (listener.listener, &listener.traffic)).collect();
        let speed = |now: &Listener| {
            earlier
                .get(&now.listener)
                .map_or_else(Rate::default, |before| rate(before, &now.traffic, elapsed))
        };
        let rates: Vec<Rate> = self.listeners.iter().map(speed).collect();
        self.print(page, Some((&rates, elapsed)))
    }

    fn print(&self, page: &Page, rates: Option<(&[Rate], Duration)>) -> String {
        if self.listeners.is_empty() {
            return page.lines(&[
                "No listener: no Service of type LoadBalancer is served here. `nlb-agent status` names problems; \
                 `nlb-agent check PATH` says what becomes of a manifest.",
            ]);
        }
        let mut table = page.table(&[
            "LISTENER",
            "~SERVICE",
            ">HEALTHY",
            ">FLOWS",
            ">NEW",
            ">PACKETS/S",
            ">BITS/S",
            ">DROPPED",
        ]);
        for (row, listener) in self.listeners.iter().enumerate() {
            let rate = rates.map(|(rates, _)| rates[row]);
            let traffic = listener.traffic;
            table.add_row([
                Cell::new(listener.listener),
                Cell::new(service_name(listener.namespace.as_deref(), listener.service.as_deref())),
                health_cell(listener.healthy, listener.registered, listener.fail_open),
                Cell::new(count(traffic.flows)),
                Cell::new(count(traffic.new_flows)),
                Cell::new(known(rate.map(|rate| scaled(rate.packets)))),
                Cell::new(known(rate.map(|rate| scaled(rate.bits)))),
                Cell::new(count(listener.drops.values().sum())),
            ]);
        }
        let mut text = page.lines(&[self.caption(rates.map(|(_, elapsed)| elapsed))]);
        text += &page.text(table, &[4, 7]);
        text.push('\n');
        text + &page.lines(&self.closing(rates.map(|(rates, _)| rates)))
    }

    fn caption(&self, elapsed: Option<Duration>) -> String {
        let speeds = match elapsed {
            Some(elapsed) => {
                format!("; speeds measured over {:.1} s, both directions", elapsed.as_secs_f64())
            }
            None => String::new(),
        };
        format!("{}: healthy/registered targets{speeds}.", plural(self.listeners.len(), "listener"))
    }

    fn closing(&self, rates: Option<&[Rate]>) -> Vec<String> {
        let total: Traffic = self.listeners.iter().map(|listener| listener.traffic).sum();
        let mut lines = vec![format!(
            "In all: {} alive, {} since the maps were made, {} packets, {} bytes{}.",
            plural(usize::try_from(total.flows).unwrap_or(usize::MAX), "flow"),
            count(total.new_flows),
            count(total.packets),
            scaled(total.bytes as f64),
            rates.map_or_else(String::new, |rates| {
                let sum: Rate = rates.iter().copied().sum();
                format!("; now {} packets/s, {}bit/s", scaled(sum.packets), unit(&scaled(sum.bits)))
            }),
        )];
        lines.extend(a_few(self.listeners.iter().filter_map(warning)));
        lines
    }
}

/// `1.25 M` becomes `1.25 M`, `12` becomes `12 `: a unit may follow.
fn unit(number: &str) -> String {
    if number.contains(' ') { number.to_owned() } else { format!("{number} ") }
}

fn warning(listener: &Listener) -> Option<String> {
    let name = listener.listener;
    match (listener.registered?, listener.healthy?, listener.fail_open?) {
        (0, _, _) => Some(format!("! {name} has no target: does the Service's selector match a ready pod?")),
        (registered, healthy, true) => Some(format!(
            "! {name} fails open: {healthy} of {registered} healthy is too few, so all registered targets get traffic. \
             `nlb-agent targets {}` says why.",
            service_name(listener.namespace.as_deref(), listener.service.as_deref()),
        )),
        (_, _, false) => None,
    }
}

/// `namespace/service`, or `?` where only the running agent would know.
pub(super) fn service_name(namespace: Option<&str>, service: Option<&str>) -> String {
    match (namespace, service) {
        (Some(namespace), Some(service)) => format!("{namespace}/{service}"),
        (None, Some(service)) => service.to_owned(),
        (_, None) => "?".to_owned(),
    }
}

/// `1/5`, coloured: green where healthy targets serve, yellow while it fails open, red where none is healthy.
pub(super) fn health_cell(healthy: Option<u32>, registered: Option<u32>, fail_open: Option<bool>) -> Cell {
    let (Some(healthy), Some(registered)) = (healthy, registered) else {
        return Cell::new("?");
    };
    let cell =
        Cell::new(format!("{healthy}/{registered}{}", if fail_open == Some(true) { " open" } else { "" }));
    match (healthy, fail_open) {
        (0, _) => cell.fg(Color::Red),
        (_, Some(true)) => cell.fg(Color::Yellow),
        (_, Some(false) | None) => cell.fg(Color::Green),
    }
}
