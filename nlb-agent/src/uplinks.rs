//! Which devices carry the programs: attaches what is missing, notices what came, went or changed, and says why where it cannot.

use crate::args::XdpMode as Flag;
use crate::bpf::links::{AttachError, Links};
use crate::bpf::netlink;
use crate::bpf::reply::ReplyHook;
use crate::host::interfaces::XdpMode;
use crate::host::network::Network;
use crate::problem::{Effect, Problem, Severity};
use crate::report::{Interface, InterfaceMode, ReplyMode};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How long a restored attachment stays in `status`.
const REMEMBERED: Duration = Duration::from_secs(300);

/// The devices that nlb works on.
#[derive(Debug)]
pub struct Uplinks {
    /// `--interface`; empty = those with a default route.
    named: Vec<String>,
    mode: Flag,
    /// Uplinks now.
    uplinks: Vec<String>,
    failed: BTreeMap<(String, &'static str), String>,
    /// What is missing now and could not be put back.
    lost: Vec<Problem>,
    restored: Vec<(Instant, Problem)>,
}

impl Uplinks {
    /// Nothing attached yet by this agent; `known` are the devices that an earlier one left attached.
    pub fn new(mut named: Vec<String>, known: Vec<String>, mode: Flag) -> Self {
        let mut seen = BTreeSet::new();
        named.retain(|name| seen.insert(name.clone()));
        Self { named, mode, uplinks: known, failed: BTreeMap::new(), lost: Vec::new(), restored: Vec::new() }
    }

    /// The uplinks as the routes are now. A default route that goes away for a moment takes no uplink with it.
    pub fn names(&self, network: &Network) -> Vec<String> {
        if !self.named.is_empty() {
            return self.named.clone();
        }
        let mut names = self.uplinks.clone();
        for name in network.default_uplinks() {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names.retain(|name| network.interface(name).is_some());
        names
    }

    /// Attaches where something is missing; true if something was. Others' programs are left alone, and each failure is kept as
    /// a problem.
    pub fn attach(&mut self, links: &mut Links, network: &Network) -> bool {
        let before = links.xdp().len() + links.reply().len();
        self.uplinks = self.names(network);
        self.failed.clear();
        // An answer must find its program there before the first packet is forwarded.
        let replies = network.reply_devices(&self.uplinks);
        for name in &replies {
            let ethernet = network.interface(name).is_some_and(|interface| interface.ethernet);
            if ethernet && !links.reply().contains_key(name) {
                let attached = links.attach_reply(name).map(|attachment| attachment.notes.clone());
                self.note(name, "nlb_reply", attached);
            }
        }
        for name in self.uplinks.clone() {
            let there = network.interface(&name).is_some_and(|interface| interface.ethernet);
            if links.xdp().contains_key(&name) || (network.interface(&name).is_some() && !there) {
                continue;
            }
            let attached = links.attach_xdp(&name, self.mode).map(|attachment| attachment.notes.clone());
            self.note(&name, "nlb_xdp", attached);
        }
        // Without any uplink there is nothing to compare with: a route is gone for a moment, and what runs goes on.
        let retained =
            if self.uplinks.is_empty() { Ok(Vec::new()) } else { links.retain(&self.uplinks, &replies) };
        match retained {
            Ok(left) => left.iter().for_each(|what| tracing::info!("no longer wanted: {what}")),
            Err(error) => {
                tracing::warn!(%error, "an attachment that is no longer wanted could not be removed");
            }
        }
        links.xdp().len() + links.reply().len() > before
    }

    fn note(&mut self, name: &str, program: &'static str, attached: Result<Vec<String>, AttachError>) {
        match attached {
            Ok(notes) => {
                tracing::info!(interface = name, program, "attached");
                for note in notes {
                    tracing::warn!(interface = name, "{note}");
                }
            }
            Err(error) => {
                self.failed.insert((name.to_owned(), program), error.to_string());
            }
        }
    }

    /// Looks whether everything is still attached and restores it.
    pub fn verify(&mut self, links: &mut Links, now: Instant) {
        let (restored, lost): (Vec<Problem>, Vec<Problem>) =
            links.verify().into_iter().partition(|it| it.severity == Severity::Normal);
        for problem in lost.iter().filter(|problem| !self.lost.contains(problem)) {
            say(problem);
        }
        self.lost = lost;
        for problem in restored {
            // Each time, as somebody may fight for the place.
            say(&problem);
            self.restored.retain(|(_, known)| *known != problem);
            self.restored.push((now, problem));
        }
        self.restored.retain(|(at, _)| now.saturating_duration_since(*at) < REMEMBERED);
    }

    /// What stands in the way, and what was put right lately.
    pub fn problems(&self) -> Vec<Problem> {
        let failed = self.failed.iter().map(|((name, program), message)| Problem {
            severity: Severity::Warning,
            object: format!("Interface {name}"),
            field: None,
            value: None,
            reason: "NotAttached".into(),
            message: format!("{program} is not attached: {message}."),
            effect: Effect::KeptLastGood,
        });
        let lost = self.lost.iter().cloned();
        failed.chain(lost).chain(self.restored.iter().map(|(_, problem)| problem.clone())).collect()
    }

    /// Numbers of the XDP programs that are ours: what runs where we attached, and in the links that earlier agents pinned.
    pub fn own_programs(&self, links: &Links, network: &Network) -> BTreeSet<u32> {
        let indexes = links.xdp().keys().filter_map(|name| Some(network.interface(name)?.index));
        let running = indexes.filter_map(|index| netlink::xdp(index).ok().flatten());
        let pinned = links.pinned_programs().unwrap_or_default();
        running.map(|running| running.program).chain(pinned).collect()
    }

    /// The uplinks in the words of `status`.
    pub fn report(&self, links: &Links, network: &Network) -> Vec<Interface> {
        self.uplinks.iter().map(|name| interface(name, links, network, &self.failed)).collect()
    }

    /// True once every uplink runs `nlb_xdp`.
    pub fn are_attached(&self, links: &Links) -> bool {
        !self.uplinks.is_empty() && self.uplinks.iter().all(|name| links.xdp().contains_key(name))
    }
}

fn say(problem: &Problem) {
    let Problem { object, reason, message, .. } = problem;
    tracing::warn!(object, reason, "{message}");
}

fn interface(
    name: &str,
    links: &Links,
    network: &Network,
    failed: &BTreeMap<(String, &'static str), String>,
) -> Interface {
    let xdp = links.xdp().get(name);
    let reply = links.reply().get(name);
    let mut notes: Vec<String> = xdp.into_iter().flat_map(|attachment| attachment.notes.clone()).collect();
    notes.extend(reply.into_iter().flat_map(|attachment| attachment.notes.clone()));
    notes.extend(failed.iter().filter(|((device, _), _)| device == name).map(|(_, message)| message.clone()));
    Interface {
        name: name.to_owned(),
        mtu: network.interface(name).map(|interface| interface.mtu),
        mode: match xdp.map(|attachment| attachment.mode) {
            Some(XdpMode::Driver | XdpMode::Hardware) => InterfaceMode::Driver,
            Some(XdpMode::Generic) => InterfaceMode::Generic,
            None => InterfaceMode::None,
        },
        reply: match reply.map(|attachment| attachment.hook) {
            Some(ReplyHook::Tcx) => ReplyMode::Tcx,
            Some(ReplyHook::Clsact) => ReplyMode::Clsact,
            None => ReplyMode::None,
        },
        notes,
    }
}
