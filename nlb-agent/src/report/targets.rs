//! `targets`: every target below its listener, with its health and the reason for it.

use super::listeners::{health_cell, service_name};
use super::page::{a_few, known, plural, state_cell};
use super::{ListenerAddress, Page, Snapshot, State, Target, View, age, count};
use comfy_table::{Attribute, Cell, Table};
use serde::{Deserialize, Serialize};

/// The answer to `targets`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Targets {
    /// By namespace, Service, listener, address.
    pub targets: Vec<Target>,
}

/// Whether a Service is the one that `NAME` or `NAMESPACE/NAME` asks for.
pub fn of_service(wanted: &str, namespace: Option<&str>, service: Option<&str>) -> bool {
    match wanted.split_once('/') {
        Some((in_namespace, name)) => namespace == Some(in_namespace) && service == Some(name),
        None => service == Some(wanted),
    }
}

impl View for Targets {
    const PATH: &'static str = "/targets";

    fn of(snapshot: Snapshot) -> Self {
        Self { targets: snapshot.sorted().targets }
    }

    fn table(&self, page: &Page) -> String {
        if self.targets.is_empty() {
            return page.lines(&[
                "No target: no endpoint of a Service that is served here, or none of the Service that was asked for.",
            ]);
        }
        let mut table = page
            .table(&["TARGET", "STATE", "FOR", "~WHY", "NODE", "ZONE", "PATH", ">WEIGHT", ">FLOWS", ">NEW"]);
        for (i, group) in self.groups().enumerate() {
            if i > 0 {
                table.add_row([""]);
            }
            add_heading(&mut table, group);
            let mut rows: Vec<&Target> = group.iter().collect();
            rows.sort_by_key(|row| (row.state, row.target));
            for row in rows {
                add_target(&mut table, row, page);
            }
        }
        let mut text = page.lines(&[self.caption()]);
        // Zone, path, node, age, weight, new flows: what a narrow page can do without.
        text += &page.text(table, &[5, 6, 4, 2, 7, 9]);
        text.push('\n');
        text + &page.lines(&self.closing())
    }
}

impl Targets {
    /// Only those of one Service, as `NAME` or `NAMESPACE/NAME`.
    #[must_use]
    pub fn only(mut self, service: Option<&str>) -> Self {
        if let Some(wanted) = service {
            self.targets.retain(|row| of_service(wanted, row.namespace.as_deref(), row.service.as_deref()));
        }
        self
    }

    /// Runs of the same listener.
    fn groups(&self) -> impl Iterator<Item = &[Target]> {
        self.targets.chunk_by(|a, b| a.listener == b.listener)
    }

    fn caption(&self) -> String {
        let states = State::ALL.iter().filter_map(|state| {
            let n = self.targets.iter().filter(|row| row.state == Some(*state)).count();
            (n > 0).then(|| format!("{n} {}", state.word()))
        });
        let states: Vec<String> = states.collect();
        let states = if states.is_empty() { "health not known".to_owned() } else { states.join(", ") };
        let [targets, listeners] =
            [plural(self.targets.len(), "target"), plural(self.groups().count(), "listener")];
        format!("{targets} behind {listeners}: {states}.")
    }

    /// What the states mean for the traffic: an unhealthy target is nothing to mend while another serves.
    fn closing(&self) -> Vec<String> {
        if self.targets.iter().all(|row| row.state.is_none()) {
            return Vec::new();
        }
        let without: Vec<ListenerAddress> =
            self.groups().filter(|group| healthy(group) == 0).map(|group| group[0].listener).collect();
        if without.is_empty() {
            return vec![
                "Every listener has a healthy target: new flows go to healthy ones only.".to_owned(),
            ];
        }
        let hint = |listener: &ListenerAddress| {
            format!(
                "! {listener} has no healthy target: new flows go to draining ones that still answer, else to all. \
                 Look at WHY: does the pod listen on the target's port, and answer the check within its timeout?"
            )
        };
        a_few(without.iter().map(hint))
    }
}

fn healthy(group: &[Target]) -> usize {
    group.iter().filter(|row| row.state == Some(State::Healthy)).count()
}

fn registered(group: &[Target]) -> usize {
    group.iter().filter(|row| row.state != Some(State::Draining)).count()
}

fn add_heading(table: &mut Table, group: &[Target]) {
    let first = &group[0];
    let total: super::Traffic = group.iter().map(|row| row.traffic).sum();
    let counts = first.state.map(|_| (healthy(group), registered(group)));
    let [healthy, registered] = [counts.map(|(n, _)| n as u32), counts.map(|(_, n)| n as u32)];
    table.add_row([
        Cell::new(first.listener).add_attribute(Attribute::Bold),
        health_cell(healthy, registered, None),
        Cell::new(""),
        Cell::new(service_name(first.namespace.as_deref(), first.service.as_deref()))
            .add_attribute(Attribute::Bold),
        Cell::new(""),
        Cell::new(""),
        Cell::new(""),
        Cell::new(""),
        Cell::new(count(total.flows)),
        Cell::new(count(total.new_flows)),
    ]);
}

fn add_target(table: &mut Table, row: &Target, page: &Page) {
    table.add_row([
        Cell::new(format!("  {}", row.target)),
        state_cell(row.state),
        Cell::new(known(row.since.map(|since| age(since, page.now)))),
        Cell::new(why(row)),
        Cell::new(known(row.node.as_deref())),
        Cell::new(known(row.zone.as_deref())),
        Cell::new(known(row.path.map(super::Path::word))),
        Cell::new(known(row.weight)),
        Cell::new(count(row.traffic.flows)),
        Cell::new(count(row.traffic.new_flows)),
    ]);
}

fn why(row: &Target) -> String {
    match (&row.reason, &row.description) {
        (Some(reason), Some(description)) => format!("{reason}: {description}"),
        (Some(only), None) | (None, Some(only)) => only.clone(),
        (None, None) => String::new(),
    }
}
