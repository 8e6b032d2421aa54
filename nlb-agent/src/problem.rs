//! What a user must fix, in the words of their own manifest: shown in `status`, `check`, metrics and Events, never a crash.

use serde::{Deserialize, Serialize};

/// How bad a problem is; the word is the type of the Kubernetes Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Severity {
    /// Something does not work as it was asked for.
    Warning,
    /// It works; people should know how.
    Normal,
}

/// What nlb did about a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// The change was not made; what worked before goes on.
    KeptLastGood,
    /// The setting has its default.
    DefaultUsed,
    /// The setting has the nearest allowed value.
    Clamped,
    /// The port is not served; the others are.
    PortRefused,
    /// The setting has no effect here.
    Ignored,
    /// The setting has a meaning of ours.
    LocalMeaning,
    /// The load balancer is not built at all.
    LoadBalancerRefused,
}

/// One thing that a user should know or mend.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Problem {
    /// Warning or Normal.
    pub severity: Severity,
    /// `KIND namespace/name` of the object to mend, `Node NAME` or `Interface NAME` for the machine's own.
    pub object: String,
    /// Path of the field inside the object; `null` where the object as a whole is meant.
    pub field: Option<String>,
    /// The value that was found.
    pub value: Option<String>,
    /// CamelCase, the Event's reason.
    pub reason: String,
    /// One or two sentences: field, value, what is allowed, what to do.
    pub message: String,
    /// What nlb did about it.
    pub effect: Effect,
}
