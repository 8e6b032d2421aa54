//! What the machine must be like for what is served now.

use super::{Reconcile, log};
use crate::health::Load;
use crate::host::files::OpenFiles;
use crate::host::preflight::{self, Wanted};
use crate::plan::Step;
use crate::problem::{Effect, Problem, Severity};
use crate::report::ListenerAddress;
use std::time::Instant;

impl Reconcile {
    /// Says what is wrong now, and logs what is new of it.
    pub(super) fn judge_machine(&mut self) {
        let wanted = self.wanted_of_machine();
        let mut found = preflight::problems(&self.host, &wanted);
        let load = self.checker.load();
        if self.lateness.look(&load, Instant::now()) {
            found.push(late_checks(&self.node, &load, OpenFiles::read().ok()));
        }
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

/// Health checks have begun late for some time.
fn late_checks(node: &str, load: &Load, files: Option<OpenFiles>) -> Problem {
    let sockets = load.sockets;
    let why = format!(
        "Health checks begin late, so deaths and recoveries are seen late: too many targets do not answer, and each of their checks keeps one of {sockets} sockets \
         until its timeout."
    );
    let limited = files.filter(|files| {
        files.for_checks() as u64 <= sockets && sockets < OpenFiles::ENOUGH.for_checks() as u64
    });
    let remedy = match limited {
        Some(OpenFiles { soft, .. }) => format!(
            "This process may open {soft} files: raise the limit of open files to {} or more (`LimitNOFILE=` in the systemd unit, `prlimit --nofile=` or \
             `ulimit -n` elsewhere, in a pod the container runtime's own limit) and start it again; or remove the endpoints that do not answer.",
            OpenFiles::ENOUGH.soft
        ),
        None => "No more sockets are used at once: remove the endpoints that do not answer, or give their Services a shorter health check timeout.".to_owned(),
    };
    Problem {
        severity: Severity::Warning,
        object: format!("Node {node}"),
        field: Some("open files".into()),
        value: files.map(|files| files.soft.to_string()),
        reason: "ChecksLate".into(),
        message: format!("{why} {remedy}"),
        effect: Effect::KeptLastGood,
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
    fn late_checks_name_the_limit_and_what_to_do() {
        let load = |sockets| Load { sockets, ..Load::default() };
        let few = late_checks("here", &load(512), Some(OpenFiles { soft: 1024, hard: 1024 }));
        assert_eq!((few.object.as_str(), few.field.as_deref()), ("Node here", Some("open files")));
        assert_eq!((few.severity, few.value.as_deref()), (Severity::Warning, Some("1024")));
        assert!(
            few.message.contains("512 sockets") && few.message.contains("LimitNOFILE"),
            "{}",
            few.message
        );
        assert!(few.message.contains("raise the limit of open files to 32768"), "{}", few.message);
        let enough = late_checks("here", &load(20_000), Some(OpenFiles { soft: 1 << 19, hard: 1 << 19 }));
        assert!(!enough.message.contains("raise"), "{}", enough.message);
        assert!(enough.message.contains("remove the endpoints"), "{}", enough.message);
    }

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
