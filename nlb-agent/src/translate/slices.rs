//! Which EndpointSlices belong to which Service.

use super::findings::{At, Findings};
use crate::inputs::{Inputs, ObjectName};
use crate::problem::{Effect, Problem};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::collections::{BTreeMap, BTreeSet};

const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// The names of every Service's slices, and what is wrong with those that belong to none.
#[derive(Clone, Debug, Default)]
pub(super) struct Slices {
    by_service: BTreeMap<ObjectName, BTreeSet<ObjectName>>,
    orphans: BTreeMap<ObjectName, Problem>,
}

impl Slices {
    pub(super) fn of(inputs: &Inputs) -> Self {
        let mut slices = Self::default();
        for (name, slice) in &inputs.endpoint_slices {
            slices.add(name, slice, inputs);
        }
        slices
    }

    /// The slices of a Service, in the order of their names.
    pub(super) fn of_service<'a>(
        &'a self,
        service: &ObjectName,
        inputs: &'a Inputs,
    ) -> Vec<(&'a ObjectName, &'a EndpointSlice)> {
        let names = self.by_service.get(service).into_iter().flatten();
        names.filter_map(|name| Some((name, inputs.endpoint_slices.get(name)?.as_ref()))).collect()
    }

    /// Slices that belong to no Service.
    pub(super) fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.orphans.values()
    }

    /// What is wrong with this slice, if it belongs to no Service.
    pub(super) fn problem(&self, slice: &ObjectName) -> Option<&Problem> {
        self.orphans.get(slice)
    }

    /// Takes in a slice as it is now; the Service that it belongs to.
    pub(super) fn add(
        &mut self,
        name: &ObjectName,
        slice: &EndpointSlice,
        inputs: &Inputs,
    ) -> Option<ObjectName> {
        let label = label(slice);
        let service = label.map(|service| ObjectName::new(&name.namespace, service));
        let Some(service) = service.filter(|it| inputs.services.contains_key(it)) else {
            self.orphans.insert(name.clone(), orphan(name, label));
            return None;
        };
        self.by_service.entry(service.clone()).or_default().insert(name.clone());
        Some(service)
    }

    /// Forgets a slice as it was; the Service that it belonged to.
    pub(super) fn remove(&mut self, name: &ObjectName, slice: &EndpointSlice) -> Option<ObjectName> {
        self.orphans.remove(name);
        let service = ObjectName::new(&name.namespace, label(slice)?);
        let names = self.by_service.get_mut(&service)?;
        names.remove(name);
        if names.is_empty() {
            self.by_service.remove(&service);
        }
        Some(service)
    }
}

pub(super) fn label(slice: &EndpointSlice) -> Option<&str> {
    slice.metadata.labels.as_ref()?.get(SERVICE_LABEL).map(String::as_str)
}

fn orphan(name: &ObjectName, service: Option<&str>) -> Problem {
    let field = super::shown(&format!("metadata.labels[{SERVICE_LABEL}]"));
    let message = match service {
        Some("") => format!("{field} is empty, so the slice belongs to no Service and has no effect."),
        Some(service) => format!(
            "{field} is {}, but there is no such Service in namespace {}; the slice has no effect.",
            super::shown(service),
            name.namespace
        ),
        None => format!("{field} is absent, so the slice belongs to no Service and has no effect."),
    };
    let mut findings = Findings::new(format!("EndpointSlice {name}"));
    let field = format!("metadata.labels[{SERVICE_LABEL}]");
    let at = At { field: &field, value: service };
    findings.warn(at, "ServiceNotFound", message, Effect::Ignored);
    findings.problems.remove(0)
}
