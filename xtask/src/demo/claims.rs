//! What the demo claims, each claim checked as it is made; and the progress of what takes a while.

use std::cell::Cell;
use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use crossterm::style::Stylize as _;
use crossterm::tty::IsTty as _;
use indicatif::{ProgressBar, ProgressStyle};

/// Counts the claims that held; the first that does not ends the demo.
pub(crate) struct Claims {
    held: Cell<u32>,
    coloured: bool,
}

impl Claims {
    /// None yet.
    pub(crate) fn new() -> Claims {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Claims { held: Cell::new(0), coloured: std::io::stdout().is_tty() && !plain }
    }

    /// How many held.
    pub(crate) fn held(&self) -> u32 {
        self.held.get()
    }

    /// The heading of a scene.
    pub(crate) fn title(&self, text: &str) {
        if self.coloured {
            println!("\n{}", text.bold().underlined());
        } else {
            println!("\n== {text} ==");
        }
    }

    /// Says that `what` is so; an error that names it unless it `holds`. `seen` says what was found instead.
    pub(crate) fn claim(&self, what: &str, holds: bool, seen: impl Display) -> Result<()> {
        if !holds {
            bail!("this claim does not hold: {what}; seen: {seen}");
        }
        self.held.set(self.held.get() + 1);
        if self.coloured {
            println!("  {} {what}", "✓".green());
        } else {
            println!("  ✓ {what}");
        }
        Ok(())
    }

    /// Like [`Claims::claim`], for something that becomes so; the error of `work` says what was seen.
    pub(crate) fn becomes<T>(&self, what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let (done, took) = self.watch(what, work);
        let done = done.with_context(|| format!("this claim does not hold: {what}"))?;
        self.claim(&format!("{what} (after {:.1} s)", took.as_secs_f64()), true, "")?;
        Ok(done)
    }

    /// Does something that takes a while, with a sign of life.
    pub(crate) fn step<T>(&self, what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let (done, took) = self.watch(what, work);
        let done = done.with_context(|| format!("while {what}"))?;
        println!("  … {what}: {:.1} s", took.as_secs_f64());
        Ok(done)
    }

    /// Lets the load run for a while.
    pub(crate) fn pause(&self, what: &str, time: Duration) {
        let ((), _) = self.watch(what, || std::thread::sleep(time));
        println!("  … {what}: {:.1} s", time.as_secs_f64());
    }

    fn watch<T>(&self, what: &str, work: impl FnOnce() -> T) -> (T, Duration) {
        // On standard error, and only on a terminal.
        let style =
            ProgressStyle::with_template("  {spinner} {msg} {elapsed}").expect("the template is right");
        let bar = ProgressBar::new_spinner().with_style(style).with_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(100));
        let began = Instant::now();
        let done = work();
        bar.finish_and_clear();
        (done, began.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_that_does_not_hold_is_an_error_that_names_it() {
        let claims = Claims::new();
        claims.claim("water is wet", true, "").unwrap();
        let error = claims.claim("five are healthy", false, "3").unwrap_err().to_string();
        assert!(error.contains("five are healthy") && error.contains("seen: 3"), "{error}");
        assert_eq!(claims.held(), 1);
    }
}
