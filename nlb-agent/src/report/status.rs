//! `status`: the agent, its uplinks, its sources, how full the maps are, the host's settings, and what must be mended.

use super::page::{known, plural};
use super::{
    Agent, Host, Interface, InterfaceMode, Page, ReplyMode, Snapshot, SourceState, Table, View, Vip, age,
    count,
};
use crate::problem::{Problem, Severity};
use comfy_table::{Cell, Color};
use serde::{Deserialize, Serialize};

/// The answer to `status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The agent itself.
    pub agent: Agent,
    /// The uplinks.
    pub interfaces: Option<Vec<Interface>>,
    /// Where Services come from.
    pub sources: Option<Vec<SourceState>>,
    /// How full the maps are.
    pub tables: Vec<Table>,
    /// The VIPs.
    pub vips: Vec<Vip>,
    /// The other nodes' agents; a single node has none.
    pub peers: Vec<serde_json::Value>,
    /// Ports taken by source NAT; without targets elsewhere there are none.
    pub snat: Vec<serde_json::Value>,
    /// The machine's own settings.
    pub host: Host,
    /// What must be mended; `None` = only the running agent knows.
    pub problems: Option<Vec<Problem>>,
}

impl View for Status {
    const PATH: &'static str = "/status";

    fn of(snapshot: Snapshot) -> Self {
        let snapshot = snapshot.sorted();
        Self {
            agent: snapshot.agent,
            interfaces: snapshot.interfaces,
            sources: snapshot.sources,
            tables: snapshot.tables,
            vips: snapshot.vips,
            peers: Vec::new(),
            snat: Vec::new(),
            host: snapshot.host,
            problems: snapshot.problems,
        }
    }

    fn table(&self, page: &Page) -> String {
        let parts = [
            page.lines(&self.agent_lines(page)),
            self.interface_table(page),
            self.fill_table(page),
            self.vip_table(page),
            self.problem_table(page),
        ];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n")
    }
}

impl Status {
    fn agent_lines(&self, page: &Page) -> Vec<String> {
        let agent = &self.agent;
        let layout = known(agent.layout);
        let mut lines = vec![if agent.running {
            format!(
                "Agent {} on node {}, running for {}, maps of layout {layout}.",
                known(agent.version.as_deref()),
                known(agent.node.as_deref()),
                known(agent.started_at.map(|since| age(since, page.now))),
            )
        } else {
            format!("The agent is not running; the data path serves what its maps of layout {layout} hold.")
        }];
        lines.extend(self.sources.iter().flatten().map(|source| match (source.synced, source.since) {
            (true, Some(since)) => format!("Source {}: in sync for {}.", source.name, age(since, page.now)),
            (true, None) => format!("Source {}: in sync.", source.name),
            (false, _) => format!("! Source {}: not read yet; what the maps hold goes on.", source.name),
        }));
        lines.push(self.host_line());
        lines
    }

    fn host_line(&self) -> String {
        let word = |on: Option<bool>| match on {
            Some(true) => "on",
            Some(false) => "OFF",
            None => "not known",
        };
        let Host { forwarding, conntrack } = self.host;
        let conntrack = conntrack.map_or_else(
            || "no connection tracking".to_owned(),
            |table| format!("{} of {} tracked connections", count(table.entries), count(table.capacity)),
        );
        format!(
            "Host: forwarding IPv4 {}, IPv6 {}; {conntrack}.",
            word(forwarding.ipv4),
            word(forwarding.ipv6)
        )
    }

    fn interface_table(&self, page: &Page) -> String {
        let Some(interfaces) = &self.interfaces else { return String::new() };
        if interfaces.is_empty() {
            return page
                .lines(&["! No interface: name the one that clients' packets come in by with --interface."]);
        }
        let mut table = page.table(&["INTERFACE", ">MTU", "PACKETS IN", "REPLIES OUT", "~NOTES"]);
        for interface in interfaces {
            let [mode, reply] = [mode_cell(interface.mode), reply_cell(interface.reply)];
            table.add_row([
                Cell::new(&interface.name),
                Cell::new(known(interface.mtu)),
                mode,
                reply,
                Cell::new(interface.notes.join("\n")),
            ]);
        }
        page.text(table, &[])
    }

    fn fill_table(&self, page: &Page) -> String {
        if self.tables.is_empty() {
            return String::new();
        }
        let mut table = page.table(&["TABLE", ">ENTRIES", ">CAPACITY", ">FULL"]);
        for row in &self.tables {
            let percent = row.entries as f64 * 100.0 / row.capacity.max(1) as f64;
            let full = Cell::new(format!("{percent:.1} %"));
            let full = if percent >= 90.0 { full.fg(Color::Red) } else { full };
            table.add_row([
                Cell::new(&row.name),
                Cell::new(count(row.entries)),
                Cell::new(count(row.capacity)),
                full,
            ]);
        }
        page.text(table, &[])
    }

    fn vip_table(&self, page: &Page) -> String {
        if self.vips.is_empty() {
            return String::new();
        }
        let mut table = page.table(&["VIP", "ANSWERED BY", "HERE", "~WHY NOT"]);
        let word = |yes: Option<bool>| known(yes.map(|yes| if yes { "yes" } else { "no" }));
        for row in &self.vips {
            let reason = row.reason.clone().unwrap_or_default();
            table.add_row([row.vip.to_string(), known(row.owner.as_deref()), word(row.here), reason]);
        }
        page.text(table, &[])
    }

    fn problem_table(&self, page: &Page) -> String {
        let Some(problems) = &self.problems else {
            return page.lines(&["Problems: only the running agent knows."]);
        };
        if problems.is_empty() {
            return page.lines(&["No problem."]);
        }
        let warnings = problems.iter().filter(|problem| problem.severity == Severity::Warning).count();
        let mut table = page.table(&["SEVERITY", "~OBJECT", "~FIELD", "~WHAT TO DO"]);
        for problem in problems {
            table.add_row([
                severity_cell(problem.severity),
                Cell::new(&problem.object),
                Cell::new(known(problem.field.as_deref())),
                Cell::new(format!("{}: {}", problem.reason, problem.message)),
            ]);
        }
        let [all, warnings] = [plural(problems.len(), "problem"), plural(warnings, "warning")];
        page.lines(&[format!("{all}, {warnings} among them:")]) + &page.text(table, &[])
    }
}

fn mode_cell(mode: InterfaceMode) -> Cell {
    match mode {
        InterfaceMode::Driver => Cell::new("driver").fg(Color::Green),
        InterfaceMode::Generic => Cell::new("generic").fg(Color::Yellow),
        InterfaceMode::None => Cell::new("none").fg(Color::Red),
    }
}

fn reply_cell(mode: ReplyMode) -> Cell {
    match mode {
        ReplyMode::Tcx => Cell::new("tcx").fg(Color::Green),
        ReplyMode::Clsact => Cell::new("clsact").fg(Color::Green),
        ReplyMode::None => Cell::new("none").fg(Color::Red),
    }
}

fn severity_cell(severity: Severity) -> Cell {
    match severity {
        Severity::Warning => Cell::new("Warning").fg(Color::Yellow),
        Severity::Normal => Cell::new("Normal"),
    }
}
