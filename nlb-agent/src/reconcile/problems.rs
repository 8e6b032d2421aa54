//! What users must fix, and what `/readyz` waits for.

use super::Reconcile;
use crate::capacity::Shortfall;
use crate::model::listener_key;
use crate::problem::{Problem, Severity};
use nlb_common::layout::ListenerKey;
use std::collections::{BTreeMap, BTreeSet};

impl Reconcile {
    /// What users must fix, each thing once.
    pub fn problems(&self) -> Vec<Problem> {
        let all = self.sources.problems.iter().chain(&self.model().problems).chain(&self.shortfalls);
        let all = all.chain(&self.machine).chain(&self.unwritten).cloned();
        let all: BTreeSet<Problem> =
            all.chain(self.uplinks.problems()).chain(self.layout_problem()).collect();
        let mut all: Vec<Problem> = all.into_iter().collect();
        all.sort_by(|a, b| (&a.object, &a.field, a).cmp(&(&b.object, &b.field, b)));
        all
    }

    /// What `/readyz` waits for.
    pub fn missing(&self) -> Vec<String> {
        let checks = [
            (self.sources.synced, "manifests: not read yet"),
            (self.written, "maps: not written yet"),
            (self.unwritten.is_none(), "maps: the last write failed, trying again"),
            (!self.data_path.is_coming(), "layout: the one that is pinned still forwards"),
            (self.uplinks.are_attached(&self.data_path.links), "interfaces: not all attached"),
        ];
        checks.into_iter().filter(|(done, _)| !done).map(|(_, what)| what.to_owned()).collect()
    }

    /// What does not fit, and will not after the next grace period either.
    pub(super) fn lasting(&self, shortfalls: &[Shortfall]) -> Vec<Problem> {
        let lasting: Vec<&Shortfall> = shortfalls.iter().filter(|shortfall| !shortfall.passing).collect();
        if lasting.is_empty() {
            return Vec::new();
        }
        let owners = self.owners();
        let problem = |shortfall: &Shortfall| {
            let owner = owners.get(&shortfall.listener).cloned();
            shortfall.problem(owner.unwrap_or_else(|| format!("Node {}", self.node)))
        };
        lasting.into_iter().map(problem).collect()
    }

    /// `Service namespace/name` by listener.
    fn owners(&self) -> BTreeMap<ListenerKey, String> {
        let mut owners = BTreeMap::new();
        for it in &self.model().load_balancers {
            for (vip, listener) in it.vips.iter().flat_map(|vip| it.listeners.iter().map(move |l| (vip, l))) {
                let key = listener_key(*vip, listener);
                owners.insert(key, format!("Service {}/{}", it.namespace, it.name));
            }
        }
        owners
    }
}

pub(super) fn log(problem: &Problem) {
    let Problem { severity, object, reason, message, .. } = problem;
    match severity {
        Severity::Warning => tracing::warn!(object, reason, "{message}"),
        Severity::Normal => tracing::info!(object, reason, "{message}"),
    }
}
