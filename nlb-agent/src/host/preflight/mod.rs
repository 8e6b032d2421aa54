//! What the machine does wrong, as problems that carry the command which mends them; nlb itself changes nothing.

mod interface;
mod node;

#[cfg(test)]
mod tests;

use super::Host;
use crate::model::{IpFamily, Protocol};
use crate::problem::{Effect, Problem, Severity};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// What nlb wants of the machine now; follows from its flags, its model and what the loader did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    /// `--node-name`.
    pub node: String,
    /// Uplinks: `--interface`, else [`super::network::Network::default_uplinks`].
    pub uplinks: Vec<String>,
    /// Addresses of the targets that the host's routing must reach.
    pub targets: BTreeSet<IpAddr>,
    /// Listeners as they are written (`192.0.2.10:5001/TCP`), with protocol and idle timeout.
    pub listeners: Vec<(String, Protocol, Duration)>,
    /// Numbers of the XDP programs that are nlb's own.
    pub own_programs: BTreeSet<u32>,
    /// Why an uplink runs in generic mode, by its name, where the loader knows (the driver's answer).
    pub generic_because: BTreeMap<String, String>,
    /// Names of programs by number, where they may be read ([`program_names`]).
    pub program_names: BTreeMap<u32, String>,
}

impl Wanted {
    fn families(&self) -> impl Iterator<Item = IpFamily> {
        [IpFamily::IPv4, IpFamily::IPv6].into_iter().filter(|family| self.uses(*family))
    }

    fn uses(&self, family: IpFamily) -> bool {
        self.targets.iter().any(|ip| IpFamily::of(*ip) == family)
    }
}

/// Everything that is wrong, the node's first, then each uplink's in the order of `wanted`, then those of the devices to the targets.
pub fn problems(host: &Host, wanted: &Wanted) -> Vec<Problem> {
    let ways = host.network.ways_to(wanted.targets.iter().copied());
    let mut all = refusals(host, wanted);
    all.extend(node::problems(host, wanted, &ways));
    all.extend(interface::problems(host, wanted, &ways));
    all
}

/// Those of [`problems`] with which nothing can be loaded: the agent prints them and ends.
pub fn refusals(host: &Host, wanted: &Wanted) -> Vec<Problem> {
    node::refusals(host, &wanted.node)
}

/// Names of all loaded programs by number; empty without CAP_SYS_ADMIN, which alone may ask.
pub fn program_names() -> BTreeMap<u32, String> {
    let programs = aya::programs::loaded_programs().filter_map(Result::ok);
    programs.filter_map(|program| Some((program.id(), program.name_as_str()?.to_owned()))).collect()
}

/// What was found where, for the fields of a problem that are not its sentence.
struct Finding<'a> {
    object: String,
    field: Option<&'a str>,
    value: Option<String>,
}

impl<'a> Finding<'a> {
    fn node(name: &str) -> Self {
        Self { object: format!("Node {name}"), field: None, value: None }
    }

    fn interface(name: &str) -> Self {
        Self { object: format!("Interface {name}"), field: None, value: None }
    }

    fn at(self, field: &'a str, value: impl std::fmt::Display) -> Self {
        Self { field: Some(field), value: Some(value.to_string()), ..self }
    }

    fn warning(self, reason: &str, message: String) -> Problem {
        self.problem(Severity::Warning, reason, message)
    }

    fn note(self, reason: &str, message: String) -> Problem {
        self.problem(Severity::Normal, reason, message)
    }

    /// The effect is always that nlb leaves the machine as it is.
    fn problem(self, severity: Severity, reason: &str, message: String) -> Problem {
        let (object, field, value) = (self.object, self.field.map(str::to_owned), self.value);
        Problem {
            severity,
            object,
            field,
            value,
            reason: reason.to_owned(),
            message,
            effect: Effect::KeptLastGood,
        }
    }
}
