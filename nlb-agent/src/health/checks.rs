//! Which targets are asked, and how: the model and its health as a list for the [`super::Checker`].

use super::state::Health;
use super::status::Status;
use crate::model::{CheckPort, HealthCheck, Model, TargetGroup, TargetKey};
use std::net::SocketAddr;
use std::sync::Arc;

/// One target of one group that is to be checked again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The target group's name.
    pub group: Arc<str>,
    /// The target.
    pub key: TargetKey,
    /// The socket that is asked.
    pub address: SocketAddr,
    /// How it is asked, and how often.
    pub settings: Arc<HealthCheck>,
}

/// Every check that this node must make: registered targets that it may send to, and those that drain, also where no slice
/// names them any more; and those that an earlier agent left and that could not be read yet.
pub fn checks(model: &Model, health: &Health) -> Vec<Check> {
    let groups = model.load_balancers.iter().flat_map(|load_balancer| &load_balancer.target_groups);
    groups.flat_map(|group| checks_of(group, health)).collect()
}

/// [`checks`] of one target group.
pub fn checks_of(group: &TargetGroup, health: &Health) -> Vec<Check> {
    let name: Arc<str> = group.name.as_str().into();
    let settings = Arc::new(group.health_check.clone());
    let asked = health.targets(&group.name).filter(|(_, status)| status.is_placed());
    let check = |(key, status): (&TargetKey, &Status)| Check {
        group: Arc::clone(&name),
        key: key.clone(),
        address: SocketAddr::new(key.ip, status.check_port.unwrap_or_else(|| check_port(group, key))),
        settings: Arc::clone(&settings),
    };
    asked.map(check).collect()
}

/// The port that the checks of a target ask which an older agent left without a note of it.
fn check_port(group: &TargetGroup, key: &TargetKey) -> u16 {
    match group.health_check.port {
        CheckPort::TrafficPort => key.port,
        CheckPort::Number(port) => port,
        CheckPort::Name(_) => group.targets.first().map_or(key.port, |target| target.check_port),
    }
}
