//! What a restarted agent must know and the maps do not hold: the state file, and the file of the load balancers last built.

use crate::inputs::ObjectName;
use crate::manifests::Known;
use crate::model::LoadBalancer;
use crate::vips::Allocations;
use crate::{health, slots};
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Everything in the state file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Saved {
    /// Addresses that Services were given.
    pub vips: Allocations,
    /// States, reasons and counts of targets.
    pub health: health::Saved,
    /// Which pod sits in which slot.
    pub slots: slots::Saved,
    /// Which folder was read, and which of its files gave objects.
    pub manifests: Known,
}

/// Where the files are. They lie beside the agent's socket and, like it, do not outlive a reboot.
#[derive(Clone, Debug)]
pub struct Files {
    /// Written whenever a state changes.
    pub state: PathBuf,
    /// [`LastGood`]: written whenever settings change, which is seldom; with 10 000 Services it has some 10 MB.
    pub last_good: PathBuf,
}

impl Files {
    /// Those that belong to an agent's socket.
    pub fn beside(socket: &Path) -> Self {
        Self {
            state: socket.with_extension("state.json"),
            last_good: socket.with_extension("last-good.json"),
        }
    }

    /// Takes them away, and what an agent that was killed while it wrote them left; says which were there.
    ///
    /// # Errors
    /// The file system refused.
    pub fn remove(&self) -> anyhow::Result<Vec<PathBuf>> {
        let mut removed = Vec::new();
        for path in
            [&self.state, &self.last_good].into_iter().flat_map(|path| [path.clone(), unfinished(path)])
        {
            match std::fs::remove_file(&path) {
                Ok(()) => removed.push(path),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error).with_context(|| format!("removing {}", path.display())),
            }
        }
        Ok(removed)
    }
}

/// The load balancers as they were last built, without their targets: what goes on where an annotation is bad now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LastGood {
    /// In the order of namespace and name.
    pub load_balancers: Vec<LoadBalancer>,
    /// False if there may have been more than can be read now.
    pub whole: bool,
}

impl LastGood {
    /// Reads the file as far as it goes: another version may have other settings, and a load balancer that it wrote in a way
    /// of its own is left out.
    pub fn read(path: &Path) -> Self {
        let Some(all) = parsed::<Vec<serde_json::Value>>(path, "what was last good is unknown") else {
            return Self::default();
        };
        let count = all.len();
        let known: Vec<LoadBalancer> =
            all.into_iter().filter_map(|it| serde_json::from_value(it).ok()).collect();
        if known.len() < count {
            let unknown = count - known.len();
            tracing::warn!(path = %path.display(), unknown, "load balancers of another version are left out");
        }
        Self { whole: known.len() == count, load_balancers: known }
    }

    /// Forgets what is built now.
    pub fn without(&mut self, built: &[LoadBalancer]) {
        let name = |it: &LoadBalancer| ObjectName::new(&it.namespace, &it.name);
        let built: std::collections::BTreeSet<ObjectName> = built.iter().map(name).collect();
        self.load_balancers.retain(|it| !built.contains(&name(it)));
    }
}

/// Reads the state file; what is not there or cannot be understood is as if there were none, with a word in the log.
pub fn read(path: &Path) -> Saved {
    parsed(path, "targets begin anew").unwrap_or_default()
}

fn parsed<T: for<'de> Deserialize<'de>>(path: &Path, otherwise: &str) -> Option<T> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "a file of the last agent cannot be read: {otherwise}");
            return None;
        }
    };
    serde_json::from_slice(&text)
        .inspect_err(|error| {
            tracing::warn!(path = %path.display(), %error, "a file of the last agent is damaged: {otherwise}");
        })
        .ok()
}

/// What a file is called until it is written in full.
fn unfinished(path: &Path) -> PathBuf {
    path.with_extension("new")
}

/// Writes a file whole or not at all.
///
/// # Errors
/// The file system refused.
pub fn write<T: Serialize + ?Sized>(path: &Path, what: &T) -> anyhow::Result<()> {
    let beside = unfinished(path);
    let writing = || format!("writing {}", path.display());
    std::fs::write(&beside, serde_json::to_vec(what)?).with_context(writing)?;
    std::fs::rename(&beside, path).with_context(writing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inputs::Inputs;
    use crate::manifests::parse;
    use crate::model::Model;
    use crate::problem::Effect;
    use crate::translate::{Settings, translate};
    use serde_json::json;

    #[test]
    fn what_is_written_is_read_and_damage_is_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = Files::beside(&folder.path().join("agent.sock")).state;
        assert_eq!(read(&path), Saved::default());
        let slot = slots::SavedSlot { slot: 3, generation: 7, uid: Some("u".into()), incarnation: 1 };
        let saved = Saved { slots: slots::Saved { slots: vec![slot] }, ..Saved::default() };
        write(&path, &saved).unwrap();
        assert_eq!(read(&path), saved);
        std::fs::write(&path, b"{ half").unwrap();
        assert_eq!(read(&path), Saved::default());
    }

    #[test]
    fn they_are_taken_away_with_what_was_being_written() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::beside(&folder.path().join("agent.sock"));
        assert_eq!(files.remove().unwrap(), Vec::<PathBuf>::new());
        write(&files.state, &Saved::default()).unwrap();
        write(&files.last_good, &model().load_balancers).unwrap();
        let half = unfinished(&files.last_good);
        std::fs::write(&half, b"[{ half").unwrap();
        std::fs::write(folder.path().join("another.state.json"), b"{}").unwrap();
        assert_eq!(files.remove().unwrap(), [files.state.clone(), files.last_good.clone(), half]);
        let left: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
        assert_eq!(left, ["another.state.json"]);
    }

    /// Two Services with settings of every kind, the first with endpoints.
    fn inputs(interval: &str, uid: &str, web: u16) -> Inputs {
        let service = |name: &str| {
            json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "namespace": "a", "name": name, "uid": uid,
                    "annotations": { "service.beta.kubernetes.io/aws-load-balancer-healthcheck-protocol": "HTTP",
                        "service.beta.kubernetes.io/aws-load-balancer-healthcheck-port": "8081",
                        "service.beta.kubernetes.io/aws-load-balancer-healthcheck-interval": interval } },
                "spec": { "type": "LoadBalancer", "loadBalancerClass": "nlb.io/nlb", "ports": [
                    { "name": "web", "port": web, "targetPort": "named" },
                    { "name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53 },
                    { "name": "no", "port": 54, "protocol": "SCTP" } ] } })
        };
        let slice = json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": { "namespace": "a", "name": "one", "labels": { "kubernetes.io/service-name": "one" } },
            "ports": [{ "name": "web", "port": 8080 }, { "name": "dns", "port": 53, "protocol": "UDP" }],
            "endpoints": [{ "addresses": ["10.1.0.2"] }] });
        let texts = [service("one"), slice, service("two")].map(|it| it.to_string());
        parse("x.yaml", &texts.join("\n---\n")).objects.into_iter().collect()
    }

    fn model() -> Model {
        translate(&inputs("30", "u", 80), &Settings::default(), None)
    }

    fn without_targets(mut model: Model) -> Vec<LoadBalancer> {
        model
            .load_balancers
            .iter_mut()
            .flat_map(|it| &mut it.target_groups)
            .for_each(|it| it.targets.clear());
        model.load_balancers
    }

    #[test]
    fn load_balancers_are_read_back_without_their_targets() {
        let folder = tempfile::tempdir().unwrap();
        let path = Files::beside(&folder.path().join("agent.sock")).last_good;
        assert_eq!(LastGood::read(&path), LastGood::default());
        let model = model();
        assert!(model.load_balancers[0].target_groups.iter().all(|it| it.targets.len() == 1), "{model:?}");
        write(&path, &model.load_balancers).unwrap();
        let mut found = LastGood::read(&path);
        assert_eq!(found, LastGood { load_balancers: without_targets(model.clone()), whole: true });
        found.without(&model.load_balancers[..1]);
        assert_eq!(found.load_balancers.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["two"]);
    }

    #[test]
    fn another_versions_file_is_read_as_far_as_it_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("last-good.json");
        let mut all = serde_json::to_value(model().load_balancers).unwrap();
        all[0]["newer"] = json!({ "field": 1 });
        all[1]["listeners"][0]["protocol"] = json!("QUIC");
        write(&path, &all).unwrap();
        let found = LastGood::read(&path);
        assert_eq!(found.load_balancers, without_targets(model())[..1]);
        assert!(!found.whole, "somebody is missing");
        std::fs::write(&path, b"[{ half").unwrap();
        assert_eq!(LastGood::read(&path), LastGood::default());
    }

    #[test]
    fn a_file_of_before_slice_port_is_read_and_learns_its_ports() {
        let mut all = serde_json::to_value(model().load_balancers).unwrap();
        for group in
            all.as_array_mut().unwrap().iter_mut().flat_map(|it| it["target_groups"].as_array_mut().unwrap())
        {
            assert!(group.as_object_mut().unwrap().remove("slice_port").is_some(), "{group}");
        }
        let previous = Model { load_balancers: serde_json::from_value(all).unwrap(), ..Model::default() };
        let found = translate(&inputs("often", "u", 80), &Settings::default(), Some(&previous));
        assert_eq!(found.load_balancers, model().load_balancers);
    }

    #[test]
    fn an_agent_that_read_them_back_keeps_what_a_living_one_keeps() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("last-good.json");
        write(&path, &model().load_balancers).unwrap();
        let LastGood { load_balancers, .. } = LastGood::read(&path);
        let restarted = Model { load_balancers, ..Model::default() };
        let (kept, refused) = (Effect::KeptLastGood, Effect::LoadBalancerRefused);
        for (uid, web, effect) in [("u", 80, kept), ("u", 81, kept), ("other", 80, refused)] {
            let bad = inputs("often", uid, web);
            let after = |previous: &Model| translate(&bad, &Settings::default(), Some(previous));
            let found = after(&restarted);
            assert_eq!(found, after(&model()));
            let told: Vec<Effect> = found
                .problems
                .iter()
                .filter(|it| it.reason == "InvalidAnnotation")
                .map(|it| it.effect)
                .collect();
            assert_eq!(told, [effect; 2], "{:?}", found.problems);
            assert_eq!(found.load_balancers, if uid == "u" { model().load_balancers } else { Vec::new() });
        }
        assert_eq!(translate(&Inputs::default(), &Settings::default(), Some(&restarted)).load_balancers, []);
    }
}
