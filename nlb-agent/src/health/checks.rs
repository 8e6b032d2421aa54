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
    let groups = model.load_balancers.iter().flat_map(|load_balancer| &load_balancer.target_groups);
    groups.flat_map(|group| checks_of(group, health)).collect()
}

/// [`checks`] of one target group.
pub fn checks_of(group: &TargetGroup, health: &Health) -> Vec<Check> {
    let name: Arc<str> = group.name.as_str().into();
    let settings = Arc::new(group.health_check.clone());
    let named = group.targets.iter().map(|target| (&target.key, Some(target.check_port)));
    let kept = health.targets(&group.name).filter(|(_, status)| status.restored);
    let kept = kept.map(|(key, _)| (key, check_port(group, key)));
    let is_checked = |key: &TargetKey| health.status(&group.name, key).is_some_and(super::Status::is_checked);
    let asked = named.chain(kept).filter(|(key, _)| is_checked(key));
    let check = |key: &TargetKey, port| Check {
        group: Arc::clone(&name),
        key: key.clone(),
        address: SocketAddr::new(key.ip, port),
        settings: Arc::clone(&settings),
    };
    asked.filter_map(|(key, port)| Some(check(key, port?))).collect()
}

/// The port that the checks of a target ask which an earlier agent left and the model does not name yet.
fn check_port(group: &TargetGroup, key: &TargetKey) -> Option<u16> {
    match group.health_check.port {
        CheckPort::TrafficPort => Some(key.port),
        CheckPort::Number(port) => Some(port),
        CheckPort::Name(_) => group.targets.first().map(|target| target.check_port),
    }
}
