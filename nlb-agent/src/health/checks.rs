//! Which targets are asked, and how: the model and its health as a list for the [`super::Checker`].

use super::state::Health;
use crate::model::{HealthCheck, Model, Target, TargetGroup, TargetKey};
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

/// Every check that this node must make: registered targets that it may send to, and draining ones that still serve (D6).
pub fn checks(model: &Model, health: &Health) -> Vec<Check> {
    let groups = model.load_balancers.iter().flat_map(|load_balancer| &load_balancer.target_groups);
    groups.flat_map(|group| checks_of(group, health)).collect()
}

/// [`checks`] of one target group.
pub fn checks_of(group: &TargetGroup, health: &Health) -> Vec<Check> {
    let name: Arc<str> = group.name.as_str().into();
    let settings = Arc::new(group.health_check.clone());
    let checked =
        |target: &&Target| health.status(&group.name, &target.key).is_some_and(super::Status::is_checked);
    let check = |target: &Target| Check {
        group: Arc::clone(&name),
        key: target.key.clone(),
        address: SocketAddr::new(target.key.ip, target.check_port),
        settings: Arc::clone(&settings),
    };
    group.targets.iter().filter(checked).map(check).collect()
}
