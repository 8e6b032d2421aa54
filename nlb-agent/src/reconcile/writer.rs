//! Writes the files for the next agent in a thread of its own: with many Services that takes longer than a change may wait.

use crate::model::LoadBalancer;
use crate::saved::{self, Files, Saved};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

/// What is to be written.
#[derive(Debug)]
pub(super) struct Pages {
    /// The state file's contents.
    pub(super) state: Saved,
    /// The load balancers as last built; `None` where they are what the file holds.
    pub(super) last_good: Option<Vec<LoadBalancer>>,
}

/// The handle of the thread; dropping it waits until everything is written.
#[derive(Debug)]
pub(super) struct Writer {
    pages: Option<Sender<Pages>>,
    thread: Option<JoinHandle<()>>,
    /// The load balancers could not be written.
    failed: Arc<AtomicBool>,
}

impl Writer {
    /// Starts the thread.
    pub(super) fn new(files: Files) -> Self {
        let (pages, received) = channel();
        let failed = Arc::<AtomicBool>::default();
        let seen = Arc::clone(&failed);
        let thread = std::thread::spawn(move || write_all(&files, &received, &seen));
        Self { pages: Some(pages), thread: Some(thread), failed }
    }

    /// Hands pages over; of several that wait, the newest are written.
    pub(super) fn write(&self, pages: Pages) {
        let thread = self.pages.as_ref().expect("the channel is closed only by the drop");
        thread.send(pages).expect("the thread ends only after the channel");
    }

    /// True, once, if the load balancers must be handed over again.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.swap(false, Ordering::Relaxed)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.pages.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes for the next agent has panicked");
        }
    }
}

fn write_all(files: &Files, received: &Receiver<Pages>, failed: &AtomicBool) {
    while let Ok(mut pages) = received.recv() {
        while let Ok(newer) = received.try_recv() {
            pages = Pages { last_good: newer.last_good.or(pages.last_good), ..newer };
        }
        note(saved::write(&files.state, &pages.state), "targets begin anew");
        // Endpoints come and go all the time; these do not, and are many.
        if let Some(last_good) = pages.last_good {
            let written = saved::write(&files.last_good, &last_good);
            failed.fetch_or(written.is_err(), Ordering::Relaxed);
            note(written, "a Service whose annotation is bad then has no earlier state");
        }
    }
}

fn note(written: anyhow::Result<()>, otherwise: &str) {
    if let Err(error) = written {
        tracing::warn!("{error:#}; after a restart now {otherwise}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saved::LastGood;
    use crate::slots::{Saved as Slots, SavedSlot};

    fn pages(slot: u32, last_good: Option<Vec<LoadBalancer>>) -> Pages {
        let slots = vec![SavedSlot { slot, generation: 1, uid: None, incarnation: 0 }];
        Pages { state: Saved { slots: Slots { slots }, ..Saved::default() }, last_good }
    }

    #[test]
    fn the_newest_is_on_disk_when_the_writer_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::beside(&folder.path().join("agent.sock"));
        let writer = Writer::new(files.clone());
        writer.write(pages(0, Some(Vec::new())));
        (1..100).for_each(|slot| writer.write(pages(slot, None)));
        drop(writer);
        assert_eq!(saved::read(&files.state), pages(99, None).state);
        assert!(LastGood::read(&files.last_good).whole);
    }

    #[test]
    fn what_could_not_be_written_is_asked_for_again() {
        let folder = tempfile::tempdir().unwrap();
        let writer = Writer::new(Files::beside(&folder.path().join("no/such/folder/agent.sock")));
        writer.write(pages(0, Some(Vec::new())));
        while !writer.has_failed() {
            std::thread::yield_now();
        }
        assert!(!writer.has_failed());
    }
}
