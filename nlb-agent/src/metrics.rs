//! The metrics: a snapshot in Prometheus' words, and what only counts while the agent runs.

use crate::problem::Severity;
use crate::report::{Checks, Listener, Snapshot, State, Target};
use nlb_common::reasons::Kind;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::fmt;
use std::time::Duration;

/// What is measured while the agent runs; clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    apply_seconds: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        // 50 µs to 26 s: the budget is 1 ms for one endpoint and 2 s for everything at once.
        Self { apply_seconds: Histogram::new(exponential_buckets(50e-6, 2.0, 20)) }
    }
}

impl Metrics {
    /// A change was written to the maps, so long after it was seen.
    pub fn applied(&self, took: Duration) {
        self.apply_seconds.observe(took.as_secs_f64());
    }

    /// Everything in Prometheus' text format (OpenMetrics).
    ///
    /// # Panics
    /// Never: writing into a string does not fail.
    pub fn text(&self, snapshot: Snapshot) -> String {
        let mut registry = Registry::default();
        registry.register(
            "nlb_apply_seconds",
            "Time from the moment a change was seen until it was in the maps",
            self.apply_seconds.clone(),
        );
        registry.register_collector(Box::new(Scrape(snapshot.sorted())));
        let mut page = String::new();
        text::encode(&mut page, &registry).expect("a string takes everything");
        page
    }
}

/// One scrape's values.
#[derive(Debug)]
struct Scrape(Snapshot);

type Labels<'a> = Vec<(&'static str, &'a str)>;

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let snapshot = &self.0;
        listeners(&mut encoder, &snapshot.listeners)?;
        targets(&mut encoder, &snapshot.targets)?;
        reasons(&mut encoder, snapshot)?;
        tables(&mut encoder, snapshot)?;
        vips(&mut encoder, snapshot)?;
        checks(&mut encoder, snapshot.checks)?;
        problems(&mut encoder, snapshot)?;
        build(&mut encoder, snapshot)
    }
}

fn family<'a, M: EncodeMetric>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    rows: impl IntoIterator<Item = (Labels<'a>, M)>,
) -> fmt::Result {
    let mut rows = rows.into_iter().peekable();
    let Some((_, first)) = rows.peek() else { return Ok(()) };
    let mut family = encoder.encode_descriptor(name, help, None, first.metric_type())?;
    for (labels, metric) in rows {
        metric.encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

/// A metric without labels.
fn single(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    metric: &impl EncodeMetric,
) -> fmt::Result {
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

fn gauge(value: u64) -> ConstGauge<u64> {
    ConstGauge::new(value)
}

fn counter(value: u64) -> ConstCounter<u64> {
    ConstCounter::new(value)
}

fn listeners(encoder: &mut DescriptorEncoder<'_>, all: &[Listener]) -> fmt::Result {
    let names: Vec<String> = all.iter().map(|row| row.listener.to_string()).collect();
    let labelled = || {
        all.iter().zip(&names).map(|(row, name)| {
            let service = [("namespace", &row.namespace), ("service", &row.service)];
            let mut labels: Labels<'_> =
                service.map(|(label, value)| (label, value.as_deref().unwrap_or(""))).to_vec();
            labels.push(("listener", name));
            (labels, row)
        })
    };
    let flows = ("nlb_listener_flows", "Flows alive");
    family(encoder, flows, labelled().map(|(l, row)| (l, gauge(row.traffic.flows))))?;
    let new = ("nlb_listener_new_flows", "Flows that were given a target");
    family(encoder, new, labelled().map(|(l, row)| (l, counter(row.traffic.new_flows))))?;
    let packets = ("nlb_listener_packets", "Packets forwarded, both directions");
    family(encoder, packets, labelled().map(|(l, row)| (l, counter(row.traffic.packets))))?;
    let bytes = ("nlb_listener_bytes", "Bytes forwarded, both directions, IP header included");
    family(encoder, bytes, labelled().map(|(l, row)| (l, counter(row.traffic.bytes))))?;
    let healthy = ("nlb_listener_healthy_targets", "Targets that are healthy");
    family(encoder, healthy, labelled().filter_map(|(l, row)| Some((l, gauge(row.healthy?.into())))))?;
    let registered = ("nlb_listener_registered_targets", "Targets that are registered");
    family(encoder, registered, labelled().filter_map(|(l, row)| Some((l, gauge(row.registered?.into())))))?;
    let open = ("nlb_listener_fail_open", "1 while too few targets are healthy and all of them get traffic");
    family(encoder, open, labelled().filter_map(|(l, row)| Some((l, gauge(row.fail_open?.into())))))
}

fn targets(encoder: &mut DescriptorEncoder<'_>, all: &[Target]) -> fmt::Result {
    let names: Vec<[String; 2]> =
        all.iter().map(|row| [row.listener.to_string(), row.target.to_string()]).collect();
    let labelled = || {
        all.iter().zip(&names).map(|(row, [listener, target])| {
            let labels: Labels<'_> = vec![
                ("namespace", row.namespace.as_deref().unwrap_or("")),
                ("service", row.service.as_deref().unwrap_or("")),
                ("listener", listener),
                ("target", target),
            ];
            (labels, row)
        })
    };
    let states = labelled().flat_map(|(labels, row)| {
        let known = row.state.map(|_| State::ALL).into_iter().flatten();
        known
            .map(|state| (with(&labels, "state", state.word()), gauge((row.state == Some(state)).into())))
            .collect::<Vec<_>>()
    });
    family(encoder, ("nlb_target_state", "1 for the state that the target is in"), states)?;
    let flows = ("nlb_target_flows", "Flows alive");
    family(encoder, flows, labelled().map(|(l, row)| (l, gauge(row.traffic.flows))))?;
    let checks = labelled().flat_map(|(labels, row)| {
        let results = row.checks.iter().flatten();
        results.map(|(result, n)| (with(&labels, "result", result), counter(*n))).collect::<Vec<_>>()
    });
    family(encoder, ("nlb_target_health_checks", "Health checks that ended so"), checks)
}

fn with<'a>(labels: &Labels<'a>, name: &'static str, value: &'a str) -> Labels<'a> {
    [labels.as_slice(), &[(name, value)]].concat()
}

fn reasons(encoder: &mut DescriptorEncoder<'_>, snapshot: &Snapshot) -> fmt::Result {
    let rows = |kind: Kind| {
        snapshot
            .reasons
            .iter()
            .filter(move |row| row.kind == kind)
            .map(|row| (vec![("reason", row.name.as_str())], counter(row.packets)))
    };
    family(encoder, ("nlb_drops", "Packets dropped by the data path"), rows(Kind::Dropped))?;
    family(encoder, ("nlb_passed", "Packets that the data path left to the host"), rows(Kind::Passed))?;
    let forwarded = ("nlb_forwarded", "Packets that the data path readdressed and sent on");
    family(encoder, forwarded, rows(Kind::Forwarded))?;
    let noted = (
        "nlb_noted",
        "Packets on whose way something else happened; each is counted as one of the others, too",
    );
    family(encoder, noted, rows(Kind::Noted))
}

fn tables(encoder: &mut DescriptorEncoder<'_>, snapshot: &Snapshot) -> fmt::Result {
    let labelled = || snapshot.tables.iter().map(|row| (vec![("table", row.name.as_str())], row));
    let entries = ("nlb_table_entries", "Entries in use");
    family(encoder, entries, labelled().map(|(l, row)| (l, gauge(row.entries))))?;
    let capacity = ("nlb_table_capacity", "Entries that the table was made for");
    family(encoder, capacity, labelled().map(|(l, row)| (l, gauge(row.capacity))))
}

fn vips(encoder: &mut DescriptorEncoder<'_>, snapshot: &Snapshot) -> fmt::Result {
    let names: Vec<String> = snapshot.vips.iter().map(|row| row.vip.to_string()).collect();
    let rows = snapshot
        .vips
        .iter()
        .zip(&names)
        .map(|(row, name)| (vec![("vip", name.as_str())], gauge((row.here == Some(true)).into())));
    family(encoder, ("nlb_vip_owner", "1 where this node answers for the VIP"), rows)
}

fn checks(encoder: &mut DescriptorEncoder<'_>, checks: Option<Checks>) -> fmt::Result {
    let Some(Checks { sockets, running, waiting, late, given_up }) = checks else { return Ok(()) };
    let gauges = [
        (("nlb_health_check_sockets", "Sockets that health checks may use at once"), sockets),
        (("nlb_health_checks_running", "Health checks under way, each with one socket"), running),
        (
            ("nlb_health_checks_waiting", "Health checks whose time has come and that wait for a socket"),
            waiting,
        ),
    ];
    for (name, value) in gauges {
        single(encoder, name, &gauge(value))?;
    }
    let counters = [
        (("nlb_health_checks_late", "Health checks that began more than a second after their time"), late),
        (
            ("nlb_health_checks_given_up", "Health checks broken off for another, to begin again later"),
            given_up,
        ),
    ];
    counters.into_iter().try_for_each(|(name, value)| single(encoder, name, &counter(value)))
}

fn problems(encoder: &mut DescriptorEncoder<'_>, snapshot: &Snapshot) -> fmt::Result {
    let rows = [("Warning", Severity::Warning), ("Normal", Severity::Normal)].map(|(word, severity)| {
        let all = snapshot.problems.iter().flatten();
        let n = all.filter(|problem| problem.severity == severity).count();
        (vec![("severity", word)], gauge(n as u64))
    });
    family(encoder, ("nlb_problems", "What must be mended, as `nlb-agent status` lists it"), rows)
}

fn build(encoder: &mut DescriptorEncoder<'_>, snapshot: &Snapshot) -> fmt::Result {
    let layout = snapshot.agent.layout.map(|layout| layout.to_string()).unwrap_or_default();
    let labels: Labels<'_> = vec![
        ("version", snapshot.agent.version.as_deref().unwrap_or("")),
        ("commit", crate::cli::COMMIT.unwrap_or("")),
        ("layout", &layout),
    ];
    family(encoder, ("nlb_build_info", "Always 1; the labels say what runs"), [(labels, gauge(1))])
}

#[cfg(test)]
mod tests;
