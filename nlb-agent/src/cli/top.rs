//! `top`: a live view of listeners and targets on the terminal.

mod screen;
mod state;

use super::{Hooks, ask};
use crate::args::TopArgs;
use crate::socket::Sample;
use anyhow::{Context, bail};
use crossterm::event::{self, Event, KeyEventKind};
use state::{Step, Top};
use std::io::IsTerminal;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// How long a key may wait: short enough to feel at once, long enough to cost nothing.
const KEY: Duration = Duration::from_millis(50);

/// One look: when, what, and why it did not come from the agent.
type Look = anyhow::Result<(Instant, Sample, Option<String>)>;

pub(super) fn run(hooks: &Hooks, args: &TopArgs) -> anyhow::Result<()> {
    if !std::io::stdout().is_terminal() {
        bail!(
            "top draws on a terminal, and standard output is none; `nlb-agent listeners` and `nlb-agent targets` print"
        );
    }
    // Before the screen is taken, so that an error is read where errors are read.
    let first = look(hooks, args)?;
    let (stop, stopped) = sync_channel::<()>(0);
    let (looks, taken) = sync_channel::<Look>(1);
    let stopped = Mutex::new(stopped);
    thread::scope(|scope| {
        // Asking takes its time; keys must not wait for it.
        scope.spawn(|| {
            let stopped = stopped.lock().expect("only this thread locks it");
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(args.interval) {
                if looks.send(look(hooks, args)).is_err() {
                    break;
                }
            }
        });
        // `init` puts a hook before the panic's message that gives the terminal back.
        let mut terminal = ratatui::init();
        let mut top = Top::default();
        take(&mut top, first);
        let ended = show(&mut terminal, &mut top, &taken);
        ratatui::restore();
        drop((stop, taken));
        ended
    })
}

fn look(hooks: &Hooks, args: &TopArgs) -> Look {
    let asked = ask::ask::<Sample, _>(hooks, &args.place, &(), None)?;
    Ok((Instant::now(), asked.view, asked.offline))
}

fn take(top: &mut Top, (at, sample, offline): (Instant, Sample, Option<String>)) {
    top.take(at, sample);
    top.notice = offline;
}

fn show(
    terminal: &mut ratatui::DefaultTerminal,
    top: &mut Top,
    looks: &Receiver<Look>,
) -> anyhow::Result<()> {
    loop {
        terminal.draw(|frame| screen::draw(top, frame)).context("cannot draw")?;
        if event::poll(KEY).context("cannot read keys")? {
            let event = event::read().context("cannot read keys")?;
            if let Event::Key(key) = event
                && key.kind != KeyEventKind::Release
                && top.key(key.code, key.modifiers) == Step::Quit
            {
                return Ok(());
            }
        }
        match looks.try_recv() {
            Ok(Ok(look)) => take(top, look),
            Ok(Err(error)) => top.notice = Some(format!("{error:#}")),
            Err(_) => {}
        }
    }
}
