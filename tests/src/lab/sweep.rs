//! Takes labs away: our own at the end or on a signal, and those that dead processes have left.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::namespace::output;

/// The file in a lab's folder that says that it outlives its process.
pub(crate) const KEPT: &str = "kept";
const FOLDERS: &str = "/tmp";
const PINS: &str = "/sys/fs/bpf";

/// Where a lab's files are.
pub(crate) fn folder(lab: &str) -> PathBuf {
    Path::new(FOLDERS).join(format!("{lab}-lab"))
}

/// Where a lab's pins are.
pub(crate) fn pins(lab: &str) -> PathBuf {
    Path::new(PINS).join(format!("{lab}-lab"))
}

/// Takes away one lab: processes, namespaces, pins, files. Goes on where a part is already gone.
pub(crate) fn lab(name: &str) {
    let prefix = format!("{name}-");
    let namespaces =
        || namespaces().unwrap_or_default().into_iter().filter(|namespace| namespace.starts_with(&prefix));
    for namespace in namespaces() {
        end_processes(&namespace);
    }
    for namespace in namespaces() {
        let _ = output(Command::new("ip").args(["netns", "delete", &namespace]));
    }
    let _ = std::fs::remove_dir_all(pins(name));
    let _ = std::fs::remove_dir_all(folder(name));
}

/// Takes away the labs whose process has ended, unless they are to be kept.
pub fn dead() -> Result<()> {
    for name in labs()? {
        if !is_alive(&name) && !folder(&name).join(KEPT).exists() {
            lab(&name);
        }
    }
    Ok(())
}

/// Takes away the labs that were to be kept, and says which.
pub fn kept() -> Result<Vec<String>> {
    let kept: Vec<String> = labs()?.into_iter().filter(|name| folder(name).join(KEPT).exists()).collect();
    kept.iter().for_each(|name| lab(name));
    Ok(kept)
}

/// From now on Ctrl-C, SIGTERM and a closed terminal take away this process's labs, and end it.
pub fn on_signals() -> Result<()> {
    static ONCE: Once = Once::new();
    let mut started = Ok(());
    ONCE.call_once(|| started = watch_signals());
    started
}

fn watch_signals() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot wait for signals")?;
    let wait = move || {
        if let Some(signal) = signals.forever().next() {
            ours();
            // What a shell reports for a program that a signal ended.
            std::process::exit(128 + signal);
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait).context("cannot start a thread")?;
    Ok(())
}

/// Takes away this process's labs, also one that is just being laid out.
fn ours() {
    let prefix = format!("nlb-{}-", std::process::id());
    for name in labs().unwrap_or_default().iter().filter(|name| name.starts_with(&prefix)) {
        lab(name);
    }
}

/// The names of all labs, `nlb-PID-N`, found by their folders and namespaces.
fn labs() -> Result<Vec<String>> {
    let folders = std::fs::read_dir(FOLDERS).with_context(|| format!("cannot read {FOLDERS}"))?;
    let folders = folders.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = folders.chain(namespaces()?).filter_map(|name| lab_of(&name)).collect();
    names.sort();
    names.dedup();
    Ok(names)
}

/// `nlb-PID-N` of `nlb-PID-N-anything`.
fn lab_of(name: &str) -> Option<String> {
    let mut parts = name.strip_prefix("nlb-")?.splitn(3, '-');
    let (process, number) = (parts.next()?.parse::<u32>().ok()?, parts.next()?.parse::<u32>().ok()?);
    parts.next()?;
    Some(format!("nlb-{process}-{number}"))
}

fn namespaces() -> Result<Vec<String>> {
    match std::fs::read_dir("/var/run/netns") {
        Ok(entries) => {
            Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
        }
        // Nobody has made one yet.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).context("cannot read /var/run/netns"),
    }
}

fn is_alive(lab: &str) -> bool {
    let process = lab.split('-').nth(1).unwrap_or_default();
    Path::new("/proc").join(process).exists()
}

/// Ends every process of a namespace that we made; a few rounds, because a parent may start another child meanwhile.
fn end_processes(namespace: &str) {
    for _ in 0..20 {
        let listed = output(Command::new("ip").args(["netns", "pids", namespace])).unwrap_or_default();
        let mut processes = listed.lines().filter_map(|line| line.trim().parse::<i32>().ok()).peekable();
        if processes.peek().is_none() {
            return;
        }
        for process in processes {
            // One that has just ended by itself is as good.
            let _ = kill(Pid::from_raw(process), Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::lab_of;

    #[test]
    fn only_our_own_names_are_labs() {
        assert_eq!(lab_of("nlb-17-0-client").as_deref(), Some("nlb-17-0"));
        assert_eq!(lab_of("nlb-17-3-lab").as_deref(), Some("nlb-17-3"));
        for other in ["nlb", "nlb-agent", "nlb-17", "nlb-17-0", "nlb-x-0-client", "other-17-0-client"] {
            assert_eq!(lab_of(other), None, "{other}");
        }
    }
}
