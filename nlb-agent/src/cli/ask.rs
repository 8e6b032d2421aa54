//! An answer from the running agent, else from the maps that it left pinned.

use super::Hooks;
use crate::args::Place;
use crate::report::{FlowFilter, View};
use crate::socket::client::{self, AskError};
use anyhow::Context;
use bytes::Bytes;
use serde::Serialize;

/// An answer and where it came from.
pub(super) struct Asked<V> {
    /// The answer, read.
    pub(super) view: V,
    /// The answer as the agent sent it.
    pub(super) body: Option<String>,
    /// Why it came from the maps instead; `None` = from the agent.
    pub(super) offline: Option<String>,
}

impl<V> Asked<V> {
    /// Says on standard error that the agent was not there.
    pub(super) fn say_where_from(&self) {
        if let Some(why) = &self.offline {
            eprintln!("nlb-agent: {why}");
        }
    }
}

/// Asks the agent at `place`; if none runs there, its maps.
pub(super) fn ask<V: View, Q: Serialize>(
    hooks: &Hooks,
    place: &Place,
    query: &Q,
    flows: Option<&FlowFilter>,
) -> anyhow::Result<Asked<V>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(client::ask(&place.socket, V::PATH, query)) {
        Ok(body) => from_agent(&body),
        Err(missing @ AskError::NotRunning(_)) => from_maps(hooks, place, &missing, flows),
        Err(error @ (AskError::NoPermission(_) | AskError::NoAnswer { .. })) => Err(error.into()),
    }
}

fn from_agent<V: View>(body: &Bytes) -> anyhow::Result<Asked<V>> {
    let text = String::from_utf8(body.to_vec()).context("the agent's answer is no UTF-8")?;
    let view = serde_json::from_str(&text)
        .context("the agent's answer cannot be read: is it of another version than this command?")?;
    Ok(Asked { view, body: Some(text), offline: None })
}

fn from_maps<V: View>(
    hooks: &Hooks,
    place: &Place,
    missing: &AskError,
    flows: Option<&FlowFilter>,
) -> anyhow::Result<Asked<V>> {
    let pins = place.pin_path.display();
    let snapshot = hooks.offline.snapshot(&place.pin_path, flows).with_context(|| {
        format!("{missing}, and the maps pinned at {pins} cannot be read; start it with `nlb-agent run`")
    })?;
    let why = format!(
        "{missing}; this is what the maps pinned at {pins} hold. Health and names of Services only a running agent knows"
    );
    Ok(Asked { view: V::of(snapshot), body: None, offline: Some(why) })
}
