//! Which nodes accept traffic for a load balancer (contract 1.9), where Nodes are known at all.

use super::annotations::{Annotations, Setting};
use super::findings::Findings;
use super::settings::TargetType;
use crate::inputs::Inputs;
use crate::problem::Effect;
use k8s_openapi::api::core::v1::Node;
use std::collections::BTreeMap;

const EXCLUDING_LABELS: [&str; 2] = [
    "node.kubernetes.io/exclude-from-external-load-balancers",
    "alpha.service-controller.kubernetes.io/exclude-balancer",
];
const LEAVING_TAINTS: [&str; 2] = ["ToBeDeletedByClusterAutoscaler", "karpenter.sh/disrupted"];

/// Labels that a node must have, from `target-node-labels`; none for target type `ip`.
pub(super) fn wanted_labels(
    annotations: &Annotations<'_>,
    kind: TargetType,
    findings: &mut Findings,
) -> BTreeMap<String, Setting> {
    match (kind, annotations.short("target-node-labels")) {
        (_, None) => BTreeMap::new(),
        (TargetType::Instance, Some(setting)) => {
            let labels = annotations.map("target-node-labels", findings).unwrap_or_default();
            if !labels.is_empty() {
                let message = format!(
                    "{} is not honoured yet: every node that runs nlb accepts traffic.",
                    setting.field
                );
                findings.note(setting.at(), "NotYetSupported", message, Effect::Ignored);
            }
            labels
        }
        (TargetType::Ip, Some(setting)) => {
            let message = format!("{} has no effect with target type ip.", setting.field);
            findings.note(setting.at(), "NoEffect", message, Effect::Ignored);
            BTreeMap::new()
        }
    }
}

/// Names of the nodes that accept traffic, sorted: the ready ones, or where there are none those of unknown state.
pub(super) fn nodes(inputs: &Inputs, labels: &BTreeMap<String, Setting>) -> Option<Vec<String>> {
    if inputs.nodes.is_empty() {
        return None;
    }
    let fit = |node: &&Node| {
        let own = |key: &str| {
            node.metadata.labels.iter().flatten().find(|(it, _)| *it == key).map(|(_, value)| value)
        };
        let excluded = EXCLUDING_LABELS.iter().any(|key| own(key).is_some());
        !excluded && !is_leaving(node) && labels.iter().all(|(key, value)| own(key) == Some(&value.text))
    };
    let fit: Vec<&Node> = inputs.nodes.values().map(AsRef::as_ref).filter(fit).collect();
    let with = |state: &str| -> Vec<String> {
        let named = fit.iter().filter(|node| readiness(node) == state);
        named.filter_map(|node| node.metadata.name.clone()).collect()
    };
    let ready = with("True");
    Some(if ready.is_empty() { with("Unknown") } else { ready })
}

fn is_leaving(node: &Node) -> bool {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.into_iter().any(|taint| LEAVING_TAINTS.contains(&taint.key.as_str()))
}

/// A Node from a file has no status that anybody keeps: it counts as ready.
fn readiness(node: &Node) -> &str {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().find(|it| it.type_ == "Ready").map_or("True", |it| it.status.as_str())
}
