//! Which Services are ours (contract 1.2).

use super::annotations::Annotations;
use super::findings::{At, Findings};
use super::settings::Settings;
use crate::problem::Effect;
use k8s_openapi::api::core::v1::Service;

/// Classes whose users expect AWS's defaults.
const AWS_CLASSES: [&str; 2] = ["service.k8s.aws/nlb", "eks.amazonaws.com/nlb"];
/// The AWS controller's.
const AWS_FINALIZER: &str = "service.k8s.aws/resources";
/// Where AWS's load balancers have their names.
const AWS_DOMAINS: [&str; 2] = [".amazonaws.com", ".amazonaws.com.cn"];
/// Ours, kept on a Service only while deletion protection is on.
const FINALIZER: &str = "nlb.io/resources";

/// Whose Service it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// Ours.
    Ours,
    /// Of type LoadBalancer, but somebody else's; why.
    NotOurs(String),
    /// Of another type.
    NoLoadBalancer,
}

/// Decides whose Service it is.
pub(super) fn claim(service: &Service, settings: &Settings) -> Claim {
    let Some(spec) = service.spec.as_ref().filter(|it| it.type_.as_deref() == Some("LoadBalancer")) else {
        return Claim::NoLoadBalancer;
    };
    if service.metadata.deletion_timestamp.is_some() && !is_held_back(service) {
        return Claim::NotOurs("being deleted".into());
    }
    match &spec.load_balancer_class {
        Some(class) if settings.load_balancer_classes.contains(class) => Claim::Ours,
        Some(class) => Claim::NotOurs(format!("another class: {class}")),
        None if settings.default_class => Claim::Ours,
        None if settings.claim_by_annotation && has_claiming_annotation(service) => Claim::Ours,
        None => Claim::NotOurs("no class and no default class".into()),
    }
}

/// Says so where a Service that is being deleted is served on.
pub(super) fn deletion(service: &Service, findings: &mut Findings) {
    if service.metadata.deletion_timestamp.is_some() {
        let message = "The Service is being deleted, but deletion_protection.enabled holds that back: it is served on. \
                       Set the attribute to false to let it go.";
        findings.warn(At::WHOLE, "DeletionProtected", message.into(), Effect::LocalMeaning);
    }
}

/// Says what the AWS controller left on a Service that it had before, and how the migration ends.
pub(super) fn left_overs(service: &Service, findings: &mut Findings) {
    if service.metadata.finalizers.iter().flatten().any(|it| it == AWS_FINALIZER) {
        let message = format!(
            "metadata.finalizers holds {AWS_FINALIZER}, which the AWS Load Balancer Controller left: without that controller \
             a deletion of the Service hangs. When AWS's load balancer is gone, remove the entry (kubectl edit service)."
        );
        let at = At { field: "metadata.finalizers", value: Some(AWS_FINALIZER) };
        findings.warn(at, "LeftByAws", message, Effect::Ignored);
    }
    let balancer = service.status.as_ref().and_then(|it| it.load_balancer.as_ref());
    let ingress = balancer.iter().flat_map(|it| it.ingress.iter().flatten()).enumerate();
    for (index, name) in ingress.filter_map(|(index, it)| Some((index, it.hostname.as_deref()?))) {
        if AWS_DOMAINS.iter().any(|domain| name.ends_with(domain)) {
            let field = format!("status.loadBalancer.ingress[{index}].hostname");
            let message = format!(
                "{field} is {}, the name of a load balancer at AWS: clients that use it do not come here. Lead them to the \
                 Service's own addresses, then delete AWS's load balancer.",
                super::shown(name)
            );
            findings.warn(At { field: &field, value: Some(name) }, "LeftByAws", message, Effect::Ignored);
        }
    }
}

fn is_held_back(service: &Service) -> bool {
    service.metadata.finalizers.iter().flatten().any(|it| it == FINALIZER)
}

fn has_claiming_annotation(service: &Service) -> bool {
    let annotations = Annotations::of(service);
    let word = |key: &str| annotations.short(key).map(|it| it.value);
    match word("type").as_deref() {
        Some("nlb-ip") => true,
        Some("external") => matches!(word("nlb-target-type").as_deref(), Some("ip" | "instance")),
        Some(_) | None => false,
    }
}

/// True if the Service was written for AWS's NLB: then AWS's defaults are what its author expects.
pub(super) fn is_for_aws(service: &Service, annotations: &Annotations<'_>) -> bool {
    let class = service.spec.as_ref().and_then(|it| it.load_balancer_class.as_deref());
    let kind = annotations.short("type").map(|it| it.text);
    class.is_some_and(|it| AWS_CLASSES.contains(&it))
        || matches!(kind.as_deref(), Some("external" | "nlb-ip" | "nlb"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(text: &str) -> Service {
        crate::manifests::service(&format!("{{apiVersion: v1, kind: Service, {text}}}"))
    }

    #[test]
    fn claims_follow_class_then_switches() {
        let mut settings = Settings::default();
        let plain = service("spec: {type: LoadBalancer}");
        let ours = service("spec: {type: LoadBalancer, loadBalancerClass: nlb.io/nlb}");
        let other = service("spec: {type: LoadBalancer, loadBalancerClass: service.k8s.aws/nlb}");
        let by_annotation = service(
            "metadata: {annotations: {service.beta.kubernetes.io/aws-load-balancer-type: nlb-ip}}, spec: {type: LoadBalancer}",
        );
        assert_eq!(claim(&service("spec: {type: ClusterIP}"), &settings), Claim::NoLoadBalancer);
        assert_eq!(claim(&ours, &settings), Claim::Ours);
        assert_eq!(claim(&other, &settings), Claim::NotOurs("another class: service.k8s.aws/nlb".into()));
        assert_eq!(claim(&by_annotation, &settings), claim(&plain, &settings));
        settings.claim_by_annotation = true;
        assert_eq!(claim(&by_annotation, &settings), Claim::Ours);
        assert_ne!(claim(&plain, &settings), Claim::Ours);
        settings.default_class = true;
        assert_eq!(claim(&plain, &settings), Claim::Ours);
        assert_ne!(claim(&other, &settings), Claim::Ours);
    }

    #[test]
    fn a_deleted_service_is_not_ours_unless_held_back() {
        let text = |finalizer| {
            format!(
                "metadata: {{deletionTimestamp: 2026-01-01T00:00:00Z, finalizers: [{finalizer}]}}, spec: {{type: LoadBalancer, loadBalancerClass: nlb.io/nlb}}"
            )
        };
        assert_eq!(
            claim(&service(&text("x.y/z")), &Settings::default()),
            Claim::NotOurs("being deleted".into())
        );
        assert_eq!(claim(&service(&text(FINALIZER)), &Settings::default()), Claim::Ours);
    }
}
