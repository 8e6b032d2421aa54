//! Log lines on standard error: text for people, JSON for collectors, `log` users included.

use crate::args::LogFormat;
use anyhow::{Context, anyhow};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

/// Newer kernels have attributes that the netlink crate does not know, and it says so for each at every look. What the
/// user writes about the same module comes later and wins.
const CHATTER: &str = "netlink_packet_route=off";

/// Begins to log to standard error; once in a process.
///
/// # Errors
/// The filter cannot be read, or logging has begun before.
pub fn begin(filter: &str, format: LogFormat) -> anyhow::Result<()> {
    let filter = parse(filter)?;
    // `try_init` also takes what is written by the `log` crate, which aya and others use.
    tracing_subscriber::registry()
        .with(lines(format, std::io::stderr).with_filter(filter))
        .try_init()
        .map_err(|error| anyhow!("logging began twice: {error}"))
}

/// The layer that writes lines; no colours, as they end up in journals more often than on terminals.
fn lines<W>(format: LogFormat, to: W) -> Box<dyn Layer<Registry> + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    match format {
        LogFormat::Text => fmt::layer().with_writer(to).with_ansi(false).with_target(false).boxed(),
        LogFormat::Json => fmt::layer().with_writer(to).json().flatten_event(true).boxed(),
    }
}

fn parse(filter: &str) -> anyhow::Result<EnvFilter> {
    let filter = if filter.trim().is_empty() { "info" } else { filter };
    EnvFilter::try_new(format!("{CHATTER},{filter}")).with_context(|| {
        format!("--log {filter}: wanted off, error, warn, info, debug or trace, or MODULE=LEVEL,… as in info,nlb_agent::health=debug")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, filter: &str) -> String {
        let sink = Sink::default();
        let to = sink.clone();
        let layer = lines(format, move || to.clone()).with_filter(parse(filter).unwrap());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::info!(vip = "192.0.2.10", "taken");
            tracing::debug!("not for everyone");
        });
        String::from_utf8(sink.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn json_is_one_object_a_line() {
        let text = logged(LogFormat::Json, "info");
        let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!(
            (&line["message"], &line["vip"], &line["level"]),
            (&"taken".into(), &"192.0.2.10".into(), &"INFO".into())
        );
    }

    #[test]
    fn the_filter_decides() {
        assert!(!logged(LogFormat::Text, "info").contains("not for everyone"));
        assert!(logged(LogFormat::Text, "debug").contains("not for everyone"));
        assert_eq!(logged(LogFormat::Text, "off"), "");
    }

    #[test]
    fn a_crates_chatter_is_left_out_unless_asked_for() {
        let warned = |filter: &str| {
            let sink = Sink::default();
            let to = sink.clone();
            let layer = lines(LogFormat::Text, move || to.clone()).with_filter(parse(filter).unwrap());
            tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
                tracing::warn!(target: "netlink_packet_route::link", "more than is known");
            });
            String::from_utf8(sink.0.lock().unwrap().clone()).unwrap()
        };
        assert_eq!(warned("info"), "");
        assert_eq!(warned("debug"), "");
        assert!(warned("info,netlink_packet_route=warn").contains("more than is known"));
    }

    #[test]
    fn a_bad_filter_is_an_error_with_an_example() {
        let error = format!("{:#}", parse("nlb_agent=loud").unwrap_err());
        assert!(error.contains("nlb_agent=loud") && error.contains("nlb_agent::health=debug"), "{error}");
    }
}
