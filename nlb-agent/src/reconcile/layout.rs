//! The change from another layout to this agent's: when the new one may take over, and what users see of it.

use super::{Reconcile, log};
use crate::bpf::replacement::{OVERLAP, Replacement, Stage};
use crate::health::Reason;
use crate::problem::{Effect, Problem, Severity};
use nlb_common::layout::LAYOUT;
use std::time::{Duration, SystemTime};

/// How long the change waits for what an earlier agent should have left, the state of each target and how each Service was
/// built: longer than most first checks take, and not so long that a dead target stays in the old maps for much longer than
/// it would otherwise.
const PATIENCE: Duration = Duration::from_secs(30);

impl Reconcile {
    /// Attaches what is missing, unless another layout forwards and this one is not ready; true if something was attached.
    pub(super) fn attach(&mut self) -> bool {
        if self.data_path.is_coming() && self.waits_for().is_some() {
            return false;
        }
        self.uplinks.attach(&mut self.data_path.links, &self.host.network)
    }

    /// Goes on with the replacement of another layout, if there is one.
    pub fn advance(&mut self) {
        let Some(replacement) = self.data_path.replacement() else { return };
        match replacement.stage {
            Stage::Coming if self.waits_for().is_none() => self.take_over(),
            Stage::Leaving { .. } if replacement.is_over(SystemTime::now()) => self.end_overlap(),
            Stage::Coming | Stage::Leaving { .. } => {}
        }
    }

    fn take_over(&mut self) {
        self.attach();
        match self.data_path.arrive() {
            Ok(others) if others.is_empty() => {
                self.data_path.replacement().map(|it| problem(&self.node, it, None)).iter().for_each(log);
            }
            Ok(others) => tracing::warn!(uplinks = ?others, "the old layout's program still runs there"),
            Err(error) => tracing::error!("the pins of the new layout cannot take their place: {error}"),
        }
    }

    fn end_overlap(&mut self) {
        match self.data_path.finish_replacement() {
            Ok(done) => done.iter().for_each(|what| tracing::info!("the old layout: {what}")),
            Err(error) => tracing::warn!("the old layout cannot be taken away, tried again: {error}"),
        }
    }

    /// What the new layout still lacks to serve as the old one does; `None` once it has all.
    fn waits_for(&self) -> Option<&'static str> {
        if !self.written || self.unwritten.is_some() || self.unread.is_some() {
            return Some("the new maps are being written");
        }
        if self.began.elapsed() >= PATIENCE {
            return None;
        }
        if self.partial && !self.memory.is_whole() {
            return Some("some manifests cannot be read, and how their Services were served is not known");
        }
        self.has_unasked_targets().then_some("the first health checks have not ended")
    }

    /// Targets of which nobody knows yet whether they answer: a ring made now could lead to those that do not.
    fn has_unasked_targets(&self) -> bool {
        let groups = self.model().load_balancers.iter().flat_map(|it| &it.target_groups);
        let mut statuses = groups.flat_map(|group| self.health.targets(&group.name));
        statuses.any(|(_, status)| status.reason() == Some(Reason::RegistrationInProgress))
    }

    /// How the replacement stands, for `status`.
    pub(super) fn layout_problem(&self) -> Option<Problem> {
        // Who waits no more is not asked what for: that looks at every target.
        let waits_for = if self.data_path.is_coming() { self.waits_for() } else { None };
        self.data_path.replacement().map(|it| problem(&self.node, it, waits_for))
    }
}

fn problem(node: &str, replacement: &Replacement, waits_for: Option<&str>) -> Problem {
    let old = replacement.old();
    let (severity, effect, message) = match replacement.stage {
        Stage::Coming => {
            let why = waits_for.unwrap_or("not every uplink runs the new program yet");
            let now = "The pinned maps are of";
            let message = format!(
                "{now} {old}, and this version's layout {LAYOUT} is to take its place. The old one forwards until then: {why}."
            );
            (Severity::Warning, Effect::KeptLastGood, message)
        }
        Stage::Leaving { flows, .. } => {
            let lost = match flows {
                Some(flows) => format!("the state of {flows} flows was lost"),
                None => "the state of its flows was lost, how many is not known".to_owned(),
            };
            let then = "each goes on with its client's next packet if the ring gives it the same target";
            let end = OVERLAP.as_secs();
            let message = format!(
                "Layout {LAYOUT} has taken the place of {old}: {lost}; {then}. The old nlb_reply and its maps are taken away {end} s after the change."
            );
            (Severity::Normal, Effect::LocalMeaning, message)
        }
    };
    Problem {
        severity,
        object: format!("Node {node}"),
        field: None,
        value: replacement.from.map(|version| version.to_string()),
        reason: "LayoutReplaced".into(),
        message,
        effect,
    }
}
