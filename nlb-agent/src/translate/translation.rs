//! A translation that goes on: where only EndpointSlices have changed, only the Services they belong to are read anew.
//!
//! Settings, addresses and clashes look at all Services together; targets are each Service's own. So what was found before
//! the targets is kept, and [`Translation::renew`] comes to what [`super::translate`] would come to.

use super::annotations::Annotations;
use super::claimed::{self, TWICE, Twice};
use super::findings::Findings;
use super::settings::{Settings, Vips};
use super::slices::Slices;
use super::targets::{self, Context};
use super::{Draft, drafts, front, nodes, order, ports};
use crate::inputs::{Inputs, ObjectName};
use crate::model::{LoadBalancer, Model};
use crate::problem::Problem;
use itertools::{EitherOrBoth, Itertools};
use k8s_openapi::api::core::v1::Service;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

/// A model, and what it was made of.
#[derive(Clone, Debug)]
pub struct Translation {
    inputs: Arc<Inputs>,
    settings: Settings,
    model: Model,
    slices: Slices,
    twice: Twice,
    /// Every address that is served and that no target may have.
    vips: BTreeSet<IpAddr>,
    /// What was found of each load balancer before its targets were looked at; nothing of those that are not here.
    findings: BTreeMap<ObjectName, Findings>,
    /// The places of the load balancers whose listeners lead to a target group.
    users: HashMap<String, Vec<usize>>,
}

/// What a new look at the inputs came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// What of the model may differ from what it was.
    pub extent: Extent,
    /// Problems that were not there before.
    pub found: Vec<Problem>,
    /// Where [`Self::extent`] is targets alone: the addresses that slices claim otherwise than before, for whatever Service.
    pub claimed: BTreeSet<IpAddr>,
}

/// What of a model may differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Nothing.
    Nothing,
    /// Only the targets of the load balancers at these places, and what is to be said of them.
    Targets(Vec<usize>),
    /// Anything.
    All,
}

impl Translation {
    /// As [`super::translate`].
    pub fn of(inputs: &Arc<Inputs>, settings: &Settings, previous: Option<&Model>) -> Self {
        let (mut drafts, unclaimed) = drafts(inputs, settings, previous);
        drafts.sort_by(|a, b| a.name.cmp(&b.name));
        let claims = claimed::claims(inputs, settings);
        let mut new = Self {
            inputs: Arc::clone(inputs),
            settings: settings.clone(),
            model: Model { unclaimed, ..Model::default() },
            slices: Slices::of(inputs),
            twice: Twice::of(&claims, inputs, settings),
            vips: forbidden(&drafts, settings),
            findings: BTreeMap::new(),
            users: HashMap::new(),
        };
        drafts.into_iter().for_each(|draft| new.finish(draft));
        new.users = users(&new.model);
        new.model.claims = claims;
        new.model.problems.extend(new.slices.problems().chain(new.twice.problems()).cloned());
        new.model.problems.sort_by_cached_key(order);
        new
    }

    /// What the inputs mean.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The places of the load balancers whose listeners lead to a target group, in their order.
    pub fn users(&self, group: &str) -> &[usize] {
        self.users.get(group).map(Vec::as_slice).unwrap_or_default()
    }

    /// The model alone.
    pub fn into_model(self) -> Model {
        self.model
    }

    /// Follows the inputs and settings to what they are now.
    pub fn renew(&mut self, inputs: &Arc<Inputs>, settings: &Settings) -> Renewal {
        if *settings != self.settings || !differ_at_most_in_slices(inputs, &self.inputs) {
            return self.replace(Self::of(inputs, settings, Some(&self.model)));
        }
        let changed = changed(&self.inputs.endpoint_slices, &inputs.endpoint_slices);
        let mut revision = Revision::default();
        let firsts =
            claimed::follow(&mut self.model.claims, &changed, (&self.inputs, inputs), &self.settings);
        let services = self.follow(&changed, inputs, &mut revision);
        let places: Vec<usize> = services.iter().filter_map(|name| self.model.place(name)).collect();
        let mut retold = claimed::concerned(&self.model.claims, &firsts);
        for place in &places {
            retold.extend(self.refill(*place, &mut revision));
        }
        retold.extend(changed.iter().cloned());
        self.say_twice(&retold, &mut revision);
        let extent = if changed.is_empty() { Extent::Nothing } else { Extent::Targets(places) };
        Renewal { extent, found: revision.found(), claimed: firsts.into_keys().collect() }
    }

    /// Says anew of these slices which of their addresses another pod had first.
    fn say_twice(&mut self, slices: &BTreeSet<ObjectName>, revision: &mut Revision) {
        self.twice.renew(slices, &self.model.claims, &self.inputs, &self.settings);
        let objects: BTreeSet<String> = slices.iter().map(slice_object).collect();
        let is_old = |it: &mut Problem| it.reason == TWICE && objects.contains(&it.object);
        revision.before.extend(self.model.problems.extract_if(.., is_old));
        let new: Vec<Problem> =
            slices.iter().filter_map(|slice| self.twice.problem(slice)).cloned().collect();
        revision.say(&mut self.model.problems, new);
    }

    /// Goes on with another translation.
    pub fn replace(&mut self, new: Self) -> Renewal {
        let extent = if new.model == self.model { Extent::Nothing } else { Extent::All };
        let before: BTreeSet<&Problem> = self.model.problems.iter().collect();
        let found = new.model.problems.iter().filter(|problem| !before.contains(problem)).cloned().collect();
        *self = new;
        Renewal { extent, found, claimed: BTreeSet::new() }
    }

    fn finish(&mut self, draft: Draft<'_>) {
        let Draft { name, service, lb, mut findings, .. } = draft;
        let Some(mut lb) = lb else { return self.model.problems.append(&mut findings.problems) };
        if !findings.problems.is_empty() {
            self.findings.insert(name, findings.clone());
        }
        let ports = ports::ports(service);
        lb.refused_ports.sort_by_key(|it| {
            ports.iter().position(|port| (port.number, &port.protocol) == (it.port, &it.protocol))
        });
        let problems = self.fill(&mut lb, service, findings);
        self.model.problems.extend(problems);
        self.model.load_balancers.push(lb);
    }

    /// Gives a load balancer its targets; what is to be said of it and of its slices.
    fn fill(&self, lb: &mut LoadBalancer, service: &Service, mut findings: Findings) -> Vec<Problem> {
        let Self { inputs, settings, slices, vips, .. } = self;
        let context = Context { inputs, settings, slices, vips };
        let mut problems = targets::fill(lb, service, &context, &mut findings);
        problems.append(&mut findings.problems);
        lb.nodes = accepting(service, &ObjectName::new(&lb.namespace, &lb.name), &context);
        problems
    }

    /// Takes the changed slices in; the Services that they belonged or belong to.
    fn follow(
        &mut self,
        changed: &BTreeSet<ObjectName>,
        inputs: &Arc<Inputs>,
        revision: &mut Revision,
    ) -> BTreeSet<ObjectName> {
        let mut services = BTreeSet::new();
        for name in changed {
            revision.forget(&mut self.model.problems, &slice_object(name));
            if let Some(before) = self.inputs.endpoint_slices.get(name) {
                services.extend(self.slices.remove(name, before));
            }
            if let Some(now) = inputs.endpoint_slices.get(name) {
                services.extend(self.slices.add(name, now, inputs));
            }
            let orphaned = self.slices.problem(name).cloned();
            revision.say(&mut self.model.problems, orphaned);
        }
        self.inputs = Arc::clone(inputs);
        services
    }

    /// Gives a load balancer of the model its targets anew; its slices.
    fn refill(&mut self, place: usize, revision: &mut Revision) -> Vec<ObjectName> {
        let mut lb = self.model.load_balancers[place].clone();
        let name = ObjectName::new(&lb.namespace, &lb.name);
        let object = format!("Service {name}");
        let service = Arc::clone(&self.inputs.services[&name]);
        let findings = self.findings.get(&name).cloned().unwrap_or_else(|| Findings::new(object.clone()));
        let problems = self.fill(&mut lb, &service, findings);
        revision.forget(&mut self.model.problems, &object);
        let slices = self.slices.of_service(&name, &self.inputs);
        let slices: Vec<ObjectName> = slices.into_iter().map(|(slice, _)| slice.clone()).collect();
        slices.iter().for_each(|slice| revision.forget(&mut self.model.problems, &slice_object(slice)));
        revision.say(&mut self.model.problems, problems);
        self.model.load_balancers[place] = lb;
        slices
    }
}

/// More problems than these are sorted in, all at once.
const ONE_BY_ONE: usize = 32;

/// What is said anew of some objects, and what was said of them before.
#[derive(Debug, Default)]
struct Revision {
    before: BTreeSet<Problem>,
    now: Vec<Problem>,
}

impl Revision {
    fn forget(&mut self, problems: &mut Vec<Problem>, object: &str) {
        self.before.extend(problems.extract_if(.., |problem| problem.object == object));
    }

    /// Puts problems where their order has them.
    fn say(&mut self, problems: &mut Vec<Problem>, new: impl IntoIterator<Item = Problem>) {
        let new: Vec<Problem> = new.into_iter().collect();
        if new.len() > ONE_BY_ONE {
            problems.extend(new.iter().cloned());
            problems.sort_by_cached_key(order);
            return self.now.extend(new);
        }
        for problem in new {
            let key = order(&problem);
            let at = problems.partition_point(|other| order(other) <= key);
            problems.insert(at, problem.clone());
            self.now.push(problem);
        }
    }

    fn found(self) -> Vec<Problem> {
        self.now.into_iter().filter(|problem| !self.before.contains(problem)).collect()
    }
}

fn users(model: &Model) -> HashMap<String, Vec<usize>> {
    let mut users = HashMap::<String, Vec<usize>>::new();
    for (place, lb) in model.load_balancers.iter().enumerate() {
        for forward in lb.listeners.iter().flat_map(|listener| &listener.forward) {
            let places = users.entry(forward.target_group.clone()).or_default();
            if places.last() != Some(&place) {
                places.push(place);
            }
        }
    }
    users
}

fn slice_object(name: &ObjectName) -> String {
    format!("EndpointSlice {name}")
}

/// The node's own addresses may be targets: pods of the host network have them.
fn forbidden(drafts: &[Draft<'_>], settings: &Settings) -> BTreeSet<IpAddr> {
    match settings.vips {
        Vips::Node(_) | Vips::AnyNode(_) => BTreeSet::new(),
        Vips::None | Vips::Pools(_) => {
            drafts.iter().filter_map(|it| it.lb.as_ref()).flat_map(|lb| lb.vips.iter().copied()).collect()
        }
    }
}

fn accepting(service: &Service, name: &ObjectName, context: &Context<'_>) -> Option<Vec<String>> {
    let Context { inputs, settings, .. } = context;
    if inputs.nodes.is_empty() {
        return None;
    }
    let annotations = Annotations::of(service);
    // Said already, when the Service itself was read.
    let mut said = Findings::new(String::new());
    let kind = front::target_type(&annotations, settings, &mut said);
    let labels = nodes::wanted_labels(&annotations, kind, &mut said);
    let mut nodes = nodes::nodes(inputs, &labels)?;
    let policy = service.spec.as_ref().and_then(|it| it.external_traffic_policy.as_deref());
    if policy == Some("Local") {
        let with_pods = targets::nodes_with_ready_pods(name, context);
        nodes.retain(|it| with_pods.contains(it));
    }
    Some(nodes)
}

fn differ_at_most_in_slices(a: &Inputs, b: &Inputs) -> bool {
    same(&a.services, &b.services)
        && same(&a.nodes, &b.nodes)
        && same(&a.namespaces, &b.namespaces)
        && same(&a.pods, &b.pods)
}

/// Most objects are shared with what was there before, and need no second look.
fn same<T: PartialEq>(a: &BTreeMap<ObjectName, Arc<T>>, b: &BTreeMap<ObjectName, Arc<T>>) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|((a, x), (b, y))| Arc::ptr_eq(x, y) || (a == b && x == y))
}

fn is_same<T: PartialEq>(a: &Arc<T>, b: &Arc<T>) -> bool {
    Arc::ptr_eq(a, b) || a == b
}

/// Names of objects that are new, gone, or other than they were.
fn changed<T: PartialEq>(
    before: &BTreeMap<ObjectName, Arc<T>>,
    now: &BTreeMap<ObjectName, Arc<T>>,
) -> BTreeSet<ObjectName> {
    // One object has one name: most names need not be looked at.
    let order = |(a, x): &(&ObjectName, &Arc<T>), (b, y): &(&ObjectName, &Arc<T>)| {
        if Arc::ptr_eq(x, y) { Ordering::Equal } else { a.cmp(b) }
    };
    let pairs = before.iter().merge_join_by(now, order);
    pairs
        .filter_map(|pair| match pair {
            EitherOrBoth::Both((_, a), (_, b)) if is_same(a, b) => None,
            EitherOrBoth::Both((name, _), _)
            | EitherOrBoth::Left((name, _))
            | EitherOrBoth::Right((name, _)) => Some(name.clone()),
        })
        .collect()
}
