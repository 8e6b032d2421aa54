//! The data path's own log, for people who debug it: off by default, and then pruned from the programs.

use crate::args::DataPathLog;
use aya::Ebpf;
use aya_log::EbpfLogger;
use std::fmt;
use std::time::Duration;

/// The level as the programs' global has it.
pub(super) fn level(log: DataPathLog) -> u8 {
    match log {
        DataPathLog::Off => 0,
        DataPathLog::Info => aya_log::Level::Info as u8,
        DataPathLog::Debug => aya_log::Level::Debug as u8,
    }
}

/// Takes the data path's lines from their ring buffer to the `log` crate, which the agent routes into `tracing`.
pub struct LogForwarder {
    lines: EbpfLogger<&'static dyn tracing_log::log::Log>,
}

impl fmt::Debug for LogForwarder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogForwarder")
    }
}

/// Ten looks a second: nobody reads faster, and the ring buffer holds more than a second of a debugger's traffic.
const LOOK: Duration = Duration::from_millis(100);

impl LogForwarder {
    /// Opens the ring buffer, unless nothing is logged.
    pub(super) fn new(level: DataPathLog, ebpf: &mut Ebpf) -> Result<Option<Self>, String> {
        match level {
            DataPathLog::Off => Ok(None),
            DataPathLog::Info | DataPathLog::Debug => {
                let lines =
                    EbpfLogger::init(ebpf).map_err(|error| format!("the data path's log: {error}"))?;
                Ok(Some(Self { lines }))
            }
        }
    }

    /// Logs what has come since the last look.
    pub fn flush(&mut self) {
        self.lines.flush();
    }

    /// Forwards for as long as the task lives.
    pub async fn run(mut self) {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            self.flush();
        }
    }
}
