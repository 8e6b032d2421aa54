//! What is found wrong with one object while it is translated.

use crate::problem::{Effect, Problem, Severity};
use std::collections::BTreeSet;

/// Problems of one object; `broken` ones stop its change.
#[derive(Clone, Debug)]
pub(super) struct Findings {
    object: String,
    /// In the order they were found.
    pub(super) problems: Vec<Problem>,
    broken: BTreeSet<usize>,
}

/// Characters of a value that are shown inside a message.
const SHOWN: usize = 120;
/// Bytes of a message; an Event holds 1 024, and what goes on before is still to be added.
const MESSAGE: usize = 900;

/// What messages say a field is: absent is not the same as empty.
pub fn found(value: Option<&str>) -> String {
    value.map_or_else(|| "absent".to_owned(), shown)
}

/// A value as messages quote it: cut where it is long, and a word for what could not be seen.
pub fn shown(value: &str) -> String {
    if value.is_empty() {
        return "empty".to_owned();
    }
    let mut cut: String = value.chars().take(SHOWN).collect();
    if cut.len() < value.len() {
        cut.push('…');
    }
    format!("`{cut}`")
}

/// Items of a list that are not what the list is of, as a message counts them up.
pub(super) fn strangers(items: &[String]) -> String {
    let verb = if items.len() == 1 { "is" } else { "are" };
    format!("`{}` {verb} none", items.join("`, `"))
}

impl Findings {
    pub(super) fn new(object: String) -> Self {
        Self { object, problems: Vec::new(), broken: BTreeSet::new() }
    }

    /// Something is not as it was asked for.
    pub(super) fn warn(&mut self, at: At<'_>, reason: &str, message: String, effect: Effect) {
        self.add(Severity::Warning, at, reason, message, effect);
    }

    /// It works; people should know how.
    pub(super) fn note(&mut self, at: At<'_>, reason: &str, message: String, effect: Effect) {
        self.add(Severity::Normal, at, reason, message, effect);
    }

    /// A bad value of a traffic setting: the Service's change is not made.
    pub(super) fn bad(&mut self, at: At<'_>, allowed: &str) {
        let message =
            format!("{} is {}, which cannot be used; allowed: {allowed}.", at.field, found(at.value));
        self.add(Severity::Warning, at, "InvalidAnnotation", message, Effect::LoadBalancerRefused);
        self.broken.extend(self.problems.iter().position(|it| at.is_of(it)));
    }

    /// A number outside its range.
    pub(super) fn clamped(&mut self, at: At<'_>, allowed: &str, used: impl std::fmt::Display) {
        let message = format!("{} is {}; allowed: {allowed}. {used} is used.", at.field, found(at.value));
        self.warn(at, "InvalidAnnotation", message, Effect::Clamped);
    }

    fn add(&mut self, severity: Severity, at: At<'_>, reason: &str, mut message: String, effect: Effect) {
        message.truncate(message.floor_char_boundary(MESSAGE));
        let problem = Problem {
            severity,
            object: self.object.clone(),
            field: Some(at.field.to_owned()).filter(|it| !it.is_empty()),
            value: at.value.map(str::to_owned),
            reason: reason.into(),
            message,
            effect,
        };
        // One problem per setting, whatever the number of ports: the gravest that was found of it.
        let is_same = |it: &Problem| if at.field.is_empty() { *it == problem } else { at.is_of(it) };
        match self.problems.iter_mut().find(|it| is_same(it)) {
            Some(first) if gravity(first) >= gravity(&problem) => {}
            Some(first) => *first = problem,
            None => self.problems.push(problem),
        }
    }

    /// True if a bad value stops the change.
    pub(super) fn is_broken(&self) -> bool {
        !self.broken.is_empty()
    }

    /// Says that an earlier state goes on in spite of the bad values.
    pub(super) fn kept_last_good(&mut self) {
        for index in &self.broken {
            let problem = &mut self.problems[*index];
            problem.effect = Effect::KeptLastGood;
            problem.message.push_str(" What was in force before goes on.");
        }
    }
}

/// What a user must hear of first.
fn gravity(problem: &Problem) -> u8 {
    match (problem.effect, problem.severity) {
        (Effect::LoadBalancerRefused | Effect::KeptLastGood, _) => 3,
        (Effect::PortRefused, _) => 2,
        (
            Effect::DefaultUsed | Effect::Clamped | Effect::Ignored | Effect::LocalMeaning,
            Severity::Warning,
        ) => 1,
        (
            Effect::DefaultUsed | Effect::Clamped | Effect::Ignored | Effect::LocalMeaning,
            Severity::Normal,
        ) => 0,
    }
}

/// A field of the object and what it holds.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    /// Path; empty where the object as a whole is meant.
    pub(super) field: &'a str,
    /// As written; `None` where it is absent.
    pub(super) value: Option<&'a str>,
}

impl At<'_> {
    fn is_of(&self, problem: &Problem) -> bool {
        problem.field.as_deref().unwrap_or_default() == self.field && problem.value.as_deref() == self.value
    }

    /// The object as a whole.
    pub(super) const WHOLE: At<'static> = At { field: "", value: None };
}
