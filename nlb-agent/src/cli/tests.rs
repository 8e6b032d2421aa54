//! What the subcommands answer with and without a running agent.

use super::ask::ask;
use super::*;
use crate::args::Place;
use crate::report::tests::five_ports;
use crate::socket::{Socket, Source, Wanted};
use futures::future::BoxFuture;
use std::sync::Arc;
use tempfile::TempDir;

struct Pins;

impl Offline for Pins {
    fn snapshot(&self, pin_path: &Path, flows: Option<&FlowFilter>) -> anyhow::Result<Snapshot> {
        anyhow::ensure!(pin_path.ends_with("pins"), "no pins at {}", pin_path.display());
        let mut snapshot = five_ports();
        snapshot.listeners.truncate(1);
        snapshot.flows.total = flows.map_or(0, |filter| filter.limit.unwrap_or(0) as u64);
        Ok(snapshot)
    }
}

struct Running;

impl Source for Running {
    fn snapshot(&self, _: Wanted) -> BoxFuture<'_, Snapshot> {
        Box::pin(async { five_ports() })
    }
}

fn hooks() -> Hooks {
    Hooks {
        run: |_| anyhow::bail!("not this one"),
        check: |args| Ok(ExitCode::from(args.paths.len() as u8)),
        offline: Box::new(Pins),
        detach: |path| Ok(vec![format!("map flows at {}", path.display())]),
        version_features: Features::default,
    }
}

fn place(folder: &TempDir) -> Place {
    Place { socket: folder.path().join("agent.sock"), pin_path: folder.path().join("pins") }
}

/// An agent in the background until the runtime is dropped.
fn running(place: &Place) -> tokio::runtime::Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let socket = runtime.block_on(async { Socket::open(&place.socket) }).unwrap();
    runtime.spawn(socket.serve(Arc::new(Running)));
    runtime
}

fn dispatched(line: &str, place: &Place) -> anyhow::Result<ExitCode> {
    let [socket, pins] = [&place.socket, &place.pin_path].map(|path| path.display().to_string());
    let line = format!("nlb-agent {line} --socket {socket} --pin-path {pins}");
    dispatch(Cli::try_parse_from(line.split(' ')).unwrap().command, &hooks())
}

#[test]
fn a_running_agent_is_asked_and_quoted() {
    let folder = tempfile::tempdir().unwrap();
    let place = place(&folder);
    let _agent = running(&place);
    let asked = ask::<Listeners, _>(&hooks(), &place, &(), None).unwrap();
    assert_eq!((asked.view.listeners.len(), asked.offline), (5, None));
    assert_eq!(asked.body, Some(Listeners::of(five_ports()).json()));
}

#[test]
fn without_an_agent_the_maps_answer_and_it_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let asked = ask::<Listeners, _>(&hooks(), &place(&folder), &(), None).unwrap();
    assert_eq!(asked.view.listeners.len(), 1);
    let why = asked.offline.unwrap();
    assert!(why.contains("not running") && why.contains("pins"), "{why}");
}

#[test]
fn the_flows_asked_for_reach_the_maps() {
    let folder = tempfile::tempdir().unwrap();
    let filter = FlowFilter { limit: Some(7), ..FlowFilter::default() };
    let asked = ask::<Flows, _>(&hooks(), &place(&folder), &filter, Some(&filter)).unwrap();
    assert_eq!(asked.view.total, 7);
}

#[test]
fn with_neither_the_error_says_what_to_start() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place { pin_path: folder.path().join("elsewhere"), ..place(&folder) };
    let error = format!("{:#}", dispatched("status", &place).unwrap_err());
    for part in ["not running", "elsewhere", "nlb-agent run", "no pins at"] {
        assert!(error.contains(part), "{part} in {error}");
    }
}

#[test]
fn every_question_is_answered_in_both_ways() {
    let folder = tempfile::tempdir().unwrap();
    let place = place(&folder);
    let lines = ["status", "listeners", "targets", "targets internal-nlb-service", "flows", "drops"];
    let all_work = || {
        for line in lines {
            dispatched(line, &place).unwrap();
            dispatched(&format!("{line} -o json"), &place).unwrap();
        }
    };
    all_work();
    let _agent = running(&place);
    all_work();
}

#[test]
fn detach_needs_consent_and_a_stopped_agent() {
    let folder = tempfile::tempdir().unwrap();
    let place = place(&folder);
    let state = crate::saved::Files::beside(&place.socket).state;
    std::fs::write(&state, b"{}").unwrap();
    dispatched("detach --yes", &place).unwrap();
    assert!(!state.exists(), "what the agent wrote down goes, too");
    std::fs::write(&state, b"{}").unwrap();
    let _agent = running(&place);
    let error = dispatched("detach --yes", &place).unwrap_err().to_string();
    assert!(error.contains("stop it first"), "{error}");
    assert!(state.exists(), "a running agent's files stay");
}

#[test]
fn check_decides_its_own_exit_status() {
    let cli = Cli::try_parse_from(["nlb-agent", "check", "a", "b"]).unwrap();
    assert_eq!(format!("{:?}", dispatch(cli.command, &hooks()).unwrap()), format!("{:?}", ExitCode::from(2)));
}
