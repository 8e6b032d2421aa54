//! What the machine must be like for what is served now.

use super::{Reconcile, log};
use crate::host::preflight::{self, Wanted};
use crate::problem::{Effect, Problem, Severity};
use crate::report::ListenerAddress;

impl Reconcile {
    /// Says what is wrong now, and logs what is new of it.
    pub(super) fn judge_machine(&mut self) {
        let wanted = self.wanted_of_machine();
        let found = preflight::problems(&self.host, &wanted);
        for problem in found.iter().filter(|problem| !self.machine.contains(problem)) {
            log(problem);
        }
        self.machine = found;
    }

    fn wanted_of_machine(&self) -> Wanted {
        let links = &self.data_path.links;
        let groups = self.model().load_balancers.iter().flat_map(|it| &it.target_groups);
        let listeners = self.model().load_balancers.iter().flat_map(|it| {
            it.vips.iter().flat_map(|vip| it.listeners.iter().map(move |listener| (*vip, listener)))
        });
        let notes = links.xdp().iter().map(|(name, xdp)| (name.clone(), xdp.notes.join("; ")));
        Wanted {
            node: self.node.clone(),
            uplinks: self.uplinks.names(&self.host.network),
            targets: groups.flat_map(|it| &it.targets).filter(|it| it.local).map(|it| it.key.ip).collect(),
            listeners: listeners
                .filter_map(|(vip, it)| {
                    let address = ListenerAddress::of(&crate::model::listener_key(vip, it))?;
                    Some((address.to_string(), it.protocol, it.idle_timeout))
                })
                .collect(),
            own_programs: self.uplinks.own_programs(links, &self.host.network),
            generic_because: notes.filter(|(_, note)| !note.is_empty()).collect(),
            program_names: preflight::program_names(),
        }
    }
}

/// A write to a map failed.
pub(super) fn unwritten(node: &str, error: &std::io::Error) -> Problem {
    Problem {
        severity: Severity::Warning,
        object: format!("Node {node}"),
        field: None,
        value: None,
        reason: "MapWriteFailed".into(),
        message: format!(
            "A map could not be written: {error}. What was there goes on; the write is tried again every second."
        ),
        effect: Effect::KeptLastGood,
    }
}
