//! What the machine must be like for what is served now.

use super::{Reconcile, log};
use crate::host::preflight::{self, Wanted};
use crate::plan::Step;
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
pub(super) fn unwritten(node: &str, step: &Step, error: &std::io::Error) -> Problem {
    let (map, element) = (step.map(), step.element());
    Problem {
        severity: Severity::Warning,
        object: format!("Node {node}"),
        field: Some(map.into()),
        reason: "MapWriteFailed".into(),
        message: format!(
            "{element} of the map `{map}` could not be written: {error}. What was there goes on; the write is tried again every second."
        ),
        value: Some(element),
        effect: Effect::KeptLastGood,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nlb_common::layout::{ListenerKey, TargetKey};
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    #[test]
    fn a_failed_write_names_the_map_and_the_element() {
        let listener =
            ListenerKey { vip: Ipv4Addr::new(192, 0, 2, 1).into(), port: 80, protocol: 6, zero: 0 };
        let target =
            TargetKey { address: IpAddr::V6(Ipv6Addr::LOCALHOST).into(), port: 53, protocol: 17, zero: 0 };
        let cases = [
            (Step::RemoveListener { key: listener }, "listeners", "192.0.2.1:80/TCP"),
            (Step::RemoveTarget { key: target }, "targets", "[::1]:53/UDP"),
            (Step::RemoveVip { address: listener.vip }, "vips", "192.0.2.1"),
            (Step::WriteRegion { at: 7, words: vec![1, 2] }, "rings", "7"),
            (Step::FreeSlot { slot: 3, generation: 9 }, "slots", "3"),
        ];
        for (step, map, element) in cases {
            let Problem { object, field, value, message, .. } =
                unwritten("here", &step, &std::io::Error::from_raw_os_error(libc::E2BIG));
            assert_eq!(
                (object.as_str(), field.as_deref(), value.as_deref()),
                ("Node here", Some(map), Some(element))
            );
            let expected =
                format!("{element} of the map `{map}` could not be written: Argument list too long");
            assert!(message.starts_with(&expected), "{message}");
        }
    }
}
