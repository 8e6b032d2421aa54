//! The socket in a folder of its own: its mode, who may take its place, and what it answers.

use super::client::{AskError, ask};
use super::*;
use crate::report::tests::five_ports;
use std::sync::Mutex;
use tempfile::TempDir;

/// An agent that says the same to everyone, and remembers what it was asked.
#[derive(Default)]
pub(crate) struct Fixed {
    asked: Mutex<Vec<Wanted>>,
}

impl Source for Fixed {
    fn snapshot(&self, wanted: Wanted) -> BoxFuture<'_, Snapshot> {
        self.asked.lock().unwrap().push(wanted);
        Box::pin(async { five_ports() })
    }
}

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run/agent.sock");
    (folder, path)
}

fn served(path: &Path) -> Arc<Fixed> {
    let source = Arc::new(Fixed::default());
    tokio::spawn(Socket::open(path).unwrap().serve(source.clone()));
    source
}

#[tokio::test]
async fn only_its_owner_may_connect_and_nothing_is_left_behind() {
    let (_folder, path) = folder();
    let socket = Socket::open(&path).unwrap();
    for file in [path.clone(), path.with_extension("sock.lock")] {
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", file.display());
    }
    let names: Vec<_> =
        std::fs::read_dir(path.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "the socket and its lock: {names:?}");
    drop(socket);
    assert!(!path.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_living_agent_is_named_and_not_pushed_aside() {
    let (_folder, path) = folder();
    served(&path);
    let began = Instant::now();
    let error = Socket::open(&path).unwrap_err().to_string();
    assert!(error.contains("another agent is running") && error.contains("--socket"), "{error}");
    assert!(error.contains(&format!("process {} holds", std::process::id())), "{error}");
    assert!((DYING..DYING * 4).contains(&began.elapsed()), "refused after {:?}", began.elapsed());
    assert!(ask(&path, "/status", &()).await.is_ok(), "the first one still answers");
}

#[tokio::test]
async fn a_lock_without_a_listener_is_an_agents_that_begins() {
    let (_folder, path) = folder();
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    let other = lock_file(&path).unwrap();
    other.lock().unwrap();
    let error = Socket::open(&path).unwrap_err().to_string();
    assert!(error.contains("another agent is running: a process that does not say its number"), "{error}");
    assert!(!path.exists());
}

#[tokio::test]
async fn a_listener_without_our_lock_is_a_living_one_too() {
    let (_folder, path) = folder();
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    assert!(Socket::open(&path).unwrap_err().to_string().contains("another agent is running"));
}

/// Opens the socket while `other` lives on for half a second.
async fn opened_beside<T: Send + 'static>(path: &Path, other: T) {
    let dying = thread::spawn(move || {
        thread::sleep(DYING / 4);
        drop(other);
    });
    let began = Instant::now();
    let socket = Socket::open(path).unwrap();
    assert!((DYING / 4..DYING).contains(&began.elapsed()), "opened after {:?}", began.elapsed());
    dying.join().unwrap();
    tokio::spawn(socket.serve(Arc::new(Fixed::default())));
    assert!(ask(path, "/status", &()).await.is_ok());
}

#[tokio::test]
async fn a_dying_agents_lock_is_waited_for() {
    let (_folder, path) = folder();
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    let lock = lock_file(&path).unwrap();
    lock.lock().unwrap();
    opened_beside(&path, lock).await;
}

#[tokio::test]
async fn a_dying_agents_socket_is_waited_for() {
    let (_folder, path) = folder();
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    opened_beside(&path, listener).await;
}

#[tokio::test]
async fn a_dead_agents_socket_is_replaced() {
    let (_folder, path) = folder();
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    // As after kill -9: the file stays, nobody listens.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    assert!(matches!(ask(&path, "/status", &()).await, Err(AskError::NotRunning(_))));
    served(&path);
    assert!(ask(&path, "/status", &()).await.is_ok());
}

#[tokio::test]
async fn what_is_no_socket_is_left_alone() {
    let (_folder, path) = folder();
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    std::fs::write(&path, "precious").unwrap();
    assert!(Socket::open(&path).unwrap_err().to_string().contains("is no socket"));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn a_path_too_long_is_an_error_that_says_what_to_do() {
    let (folder, _) = folder();
    let error = format!("{:#}", Socket::open(&folder.path().join("x".repeat(120))).unwrap_err());
    assert!(error.contains("--socket"), "{error}");
}

#[tokio::test]
async fn answers_are_what_the_subcommands_print() {
    let (_folder, path) = folder();
    let source = served(&path);
    for (asked, wanted) in [
        (Status::PATH, Status::of(five_ports()).json()),
        (Listeners::PATH, Listeners::of(five_ports()).json()),
        (Drops::PATH, Drops::of(five_ports()).json()),
        (Sample::PATH, Sample::of(five_ports()).json()),
    ] {
        assert_eq!(ask(&path, asked, &()).await.unwrap(), wanted, "{asked}");
    }
    assert!(source.asked.lock().unwrap().iter().all(|wanted| wanted.flows.is_none()), "flows cost time");
}

#[tokio::test]
async fn filters_reach_the_agent() {
    let (_folder, path) = folder();
    let source = served(&path);
    let filter = TargetFilter { service: Some("app-qa/internal-nlb-service".to_owned()) };
    assert_eq!(ask(&path, Targets::PATH, &filter).await.unwrap(), Targets::of(five_ports()).json());
    let filter = TargetFilter { service: Some("other".to_owned()) };
    assert_eq!(ask(&path, Targets::PATH, &filter).await.unwrap(), Targets { targets: Vec::new() }.json());
    let flows = FlowFilter {
        listener: Some("[2001:db8::10]:443/TCP".parse().unwrap()),
        client: Some("198.51.100.7".parse().unwrap()),
        limit: Some(7),
    };
    ask(&path, Flows::PATH, &flows).await.unwrap();
    assert_eq!(source.asked.lock().unwrap().last(), Some(&Wanted { flows: Some(flows) }));
}

#[tokio::test]
async fn an_unknown_question_is_an_error_with_its_status() {
    let (_folder, path) = folder();
    served(&path);
    let error = ask(&path, "/nothing", &()).await.unwrap_err().to_string();
    assert!(error.contains("404"), "{error}");
    assert!(ask(&path, "/flows?limit=many", &()).await.unwrap_err().to_string().contains("400"));
}

#[tokio::test]
async fn nobody_there_is_said_with_the_path() {
    let (_folder, path) = folder();
    let error = ask(&path, "/status", &()).await.unwrap_err();
    assert!(matches!(error, AskError::NotRunning(_)));
    assert!(error.to_string().contains(path.to_str().unwrap()));
}
