//! Which targets are asked, and how: the model and its health as a list for the [`super::Checker`].

use super::state::Health;
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

/// Every check that this node must make: registered targets that it may send to, and draining ones that still serve (D6);
/// and those that an earlier agent left and that could not be read yet.
pub fn checks(model: &Model, health: &Health) -> Vec<Check> {
    let mut checks = Vec::new();
    for group in model.load_balancers.iter().flat_map(|load_balancer| &load_balancer.target_groups) {
        let name: Arc<str> = group.name.as_str().into();
        let settings = Arc::new(group.health_check.clone());
        let named = group.targets.iter().map(|target| (&target.key, Some(target.check_port)));
        let kept = health.targets(&group.name).filter(|(_, status)| status.restored);
        let kept = kept.map(|(key, _)| (key, check_port(group, key)));
        for (key, port) in named.chain(kept) {
            let is_checked = health.status(&group.name, key).is_some_and(super::Status::is_checked);
            if let (true, Some(port)) = (is_checked, port) {
                let address = SocketAddr::new(key.ip, port);
                let (group, settings) = (Arc::clone(&name), Arc::clone(&settings));
                checks.push(Check { group, key: key.clone(), address, settings });
            }
        }
    }
    checks
}

/// The port that the checks of a target ask which an earlier agent left and the model does not name yet.
fn check_port(group: &TargetGroup, key: &TargetKey) -> Option<u16> {
    match group.health_check.port {
        CheckPort::TrafficPort => Some(key.port),
        CheckPort::Number(port) => Some(port),
        CheckPort::Name(_) => group.targets.first().map(|target| target.check_port),
    }
}
