//! The booted kernel: what it runs, and how it went, by what its console says.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::build::OBJECT;
use crate::command::{cargo, command, line, output};
use crate::workspace::object;

/// Modules that the tests' devices and filters need, each after those that it needs itself.
pub(super) const MODULES: &[&str] = &["veth", "llc", "stp", "bridge", "sch_ingress", "cls_bpf"];
/// The tests that run there. `kernel_ring` is no use: it wants 1 000 swaps a second, and an emulated processor makes 70.
const TESTS: &[&str] = &["kernel_fixtures", "kernel_bpf", "kernel_differential"];
/// Frames of the differential test: what takes half a minute.
const FRAMES: u32 = 6_000;
/// Seconds until a guest that does not end is ended; some five times what it takes on two slow cores.
const PATIENCE: &str = "900";
/// What the script says of a test binary, between the binary's name and its exit status.
const ENDED: &str = " ended in the guest with status ";

/// The test binaries, built: names and files.
pub(super) fn binaries() -> Result<Vec<(String, PathBuf)>> {
    let mut build = cargo(["test", "--quiet", "--locked", "--package", "nlb-tests", "--no-run"]);
    build.arg("--message-format=json-render-diagnostics");
    build.args(TESTS.iter().flat_map(|name| ["--test", name])).env(OBJECT, object()).stderr(Stdio::inherit());
    let said = output(&mut build)?;
    let built: Vec<(String, PathBuf)> = said.lines().filter_map(executable).collect();
    let binary = |name: &&str| built.iter().find(|(built, _)| built == name).cloned();
    let wanted = |name| binary(name).with_context(|| format!("cargo built no {name}"));
    TESTS.iter().map(wanted).collect()
}

/// Name and file of an executable that one of cargo's messages is about.
fn executable(message: &str) -> Option<(String, PathBuf)> {
    let message: Value = serde_json::from_str(message).ok()?;
    let name = message["target"]["name"].as_str()?;
    Some((name.to_owned(), message["executable"].as_str()?.into()))
}

/// The guest's first and only process.
pub(super) fn script(arguments: &[String]) -> String {
    let arguments: String = arguments.iter().map(|argument| format!(" {}", quoted(argument))).collect();
    let modules = MODULES.join(" ");
    let tests = TESTS.join(" ");
    // Whatever fails before the tests ends the script, and with it the kernel.
    format!(
        "#!/bin/sh
set -e
export PATH=/bin NLB_EBPF_OBJECT=/nlb.o NLB_FRAMES={FRAMES}
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs dev /dev
busybox mount -t bpf bpf /sys/fs/bpf
busybox mount -t tmpfs tmp /tmp
busybox mount -t tmpfs run /run
for module in {modules}; do busybox insmod /modules/$module.ko; done
ip link set lo up
echo \"Linux $(busybox uname -r)\"
set +e
for test in {tests}; do
    $test{arguments} 2>&1
    echo \"$test{ENDED}$?\"
done
busybox poweroff -f
"
    )
}

/// One word for the shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Boots, and follows the console to its end.
pub(super) fn boot(image: &Path, archive: &Path, hear: &mut dyn FnMut(&str)) -> Result<()> {
    let mut qemu = command("timeout", ["--foreground", PATIENCE, "qemu-system-x86_64"]);
    // KVM is often not to be had where tests run, and hangs in some virtual machines that offer it.
    qemu.args([
        "-machine",
        "q35",
        "-accel",
        "tcg,thread=multi",
        "-cpu",
        "max,-cx16",
        "-smp",
        "2",
        "-m",
        "2048",
    ]);
    qemu.args(["-no-user-config", "-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"]);
    qemu.args(["-append", "console=ttyS0 quiet rdinit=/init oops=panic panic=-1"]);
    qemu.arg("-kernel").arg(image).arg("-initrd").arg(archive);
    let mut child =
        qemu.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start {}", line(&qemu)))?;
    let console = BufReader::new(child.stdout.take().expect("standard output is piped"));
    let mut report = Report::default();
    for text in console.split(b'\n') {
        let text = text.context("cannot read the guest's console")?;
        let text = String::from_utf8_lossy(&text);
        let text = text.trim_end_matches('\r');
        report.hear(text);
        hear(text);
    }
    let status = child.wait().context("cannot wait for qemu")?;
    ensure!(status.code() != Some(124), "the guest did not end within {PATIENCE} seconds");
    ensure!(status.success(), "qemu ended with {status}");
    report.conclude()
}

/// What the console has said so far.
#[derive(Default)]
struct Report {
    summaries: usize,
    ended: Vec<(String, String)>,
}

impl Report {
    fn hear(&mut self, text: &str) {
        self.summaries += usize::from(text.starts_with("test result: "));
        if let Some((test, status)) = text.split_once(ENDED) {
            self.ended.push((test.to_owned(), status.to_owned()));
        }
    }

    /// An error unless each test binary ended well, and said how many tests it ran.
    fn conclude(&self) -> Result<()> {
        for test in TESTS {
            match self.ended.iter().find(|(ended, _)| ended == test) {
                Some((_, status)) if status == "0" => {}
                Some((_, status)) => bail!("{test} ended with status {status} in the guest"),
                None => bail!("the guest ended before {test} did"),
            }
        }
        ensure!(self.summaries >= TESTS.len(), "the guest's console has lost a line `test result`");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conclusion(lines: &[String]) -> Result<()> {
        let mut report = Report::default();
        lines.iter().for_each(|text| report.hear(text));
        report.conclude()
    }

    fn good() -> Vec<String> {
        let said = |test: &&str| ["test result: ok. 1 passed".to_owned(), format!("{test}{ENDED}0")];
        TESTS.iter().flat_map(said).collect()
    }

    #[test]
    fn a_guest_is_believed_when_every_test_ended_well_and_was_counted() {
        assert!(conclusion(&good()).is_ok());
        for missing in 0..good().len() {
            let mut lines = good();
            lines.remove(missing);
            assert!(conclusion(&lines).is_err(), "without line {missing}");
        }
        let failed: Vec<String> = good().iter().map(|text| text.replace("status 0", "status 101")).collect();
        assert!(conclusion(&failed).is_err());
    }

    #[test]
    fn arguments_reach_the_tests_as_they_are() {
        let script = script(&["--exact".to_owned(), "it's $HOME".to_owned()]);
        assert!(script.contains(r"$test '--exact' 'it'\''s $HOME' 2>&1"), "{script}");
    }

    #[test]
    fn cargo_names_executables() {
        let message =
            r#"{"reason":"compiler-artifact","target":{"name":"kernel_bpf"},"executable":"/t/kernel_bpf-1"}"#;
        assert_eq!(executable(message), Some(("kernel_bpf".to_owned(), "/t/kernel_bpf-1".into())));
        assert_eq!(
            executable(r#"{"reason":"compiler-artifact","target":{"name":"a"},"executable":null}"#),
            None
        );
        assert_eq!(executable("warning: words"), None);
    }
}
