//! Takes over from pins of another layout under load: the new layout is filled beside the old one, and the old one goes later.
//!
//! ```text
//! <pin path>/coming/      maps, programs and reply links of the new layout, until every uplink runs its program
//! <pin path>/replaced/    what was there before, until it is taken away
//! <pin path>/arriving/    the new layout, on its way to the pin path
//! ```
//!
//! 1. The new layout is loaded in `coming`, and the agent fills its maps. The old layout forwards.
//! 2. The new `nlb_reply` is attached behind the old one, then the new `nlb_xdp` takes the old one's place in its links.
//!    From here on new flows are the new layout's; a packet of an old flow goes where the ring gives its target again.
//! 3. The old pins move to `replaced`, the new ones to the pin path.
//! 4. After [`OVERLAP`] the old `nlb_reply`, which has answered for its own flows until then, goes with its maps.
//!
//! An agent that is killed leaves one of these steps half done. The next one finds by the folders which it was, and goes on.

use super::detach::clear;
use super::links::Links;
use super::memory::Mapped;
use super::pins::{Pins, PinsError, map_io, refused};
use super::sys;
use aya::maps::{MapData, MapInfo};
use nlb_common::layout::{Bucket, Entry, LAYOUT, WAYS};
use nlb_common::table::BUSY;
use std::os::fd::AsFd;
use std::time::{Duration, SystemTime};
use std::{fs, io};

/// How long the old `nlb_reply` runs on after the new layout has taken over.
pub const OVERLAP: Duration = Duration::from_secs(60);

const COMING: &str = "coming";
const ARRIVING: &str = "arriving";
const REPLACED: &str = "replaced";

/// How far it has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The old layout forwards; the new one is being filled.
    Coming,
    /// The new layout forwards; the old `nlb_reply` answers for the flows that it knows.
    Leaving {
        /// When the new layout took over.
        since: SystemTime,
        /// Flows that the old layout still had then; `None` where this version cannot read them.
        flows: Option<u64>,
    },
}

/// One layout that takes another's place.
#[derive(Debug)]
pub struct Replacement {
    root: Pins,
    /// The old layout's version; `None` where the old pins do not tell it.
    pub from: Option<u32>,
    /// How far it has come.
    pub stage: Stage,
}

impl Replacement {
    /// Makes room beside pins of another layout, or finds what a killed agent has begun there: the folder for the new pins.
    pub(super) fn begin(root: &Pins) -> Result<(Self, Pins), PinsError> {
        // Of an earlier replacement, which has had its time.
        discard(root, REPLACED)?;
        let coming = root.inside(COMING);
        coming.create()?;
        if matches!(coming.find(), Err(PinsError::OtherLayout { .. })) {
            discard(root, COMING)?;
            coming.create()?;
        }
        Ok((Self { root: root.clone(), from: root.layout(), stage: Stage::Coming }, coming))
    }

    /// What an earlier agent has left under pins of this layout: an old layout that has still to go, or nothing.
    pub(super) fn left(root: &Pins) -> Result<Option<Self>, PinsError> {
        // Somebody who wanted another layout was killed, and this agent's was the one that forwarded.
        discard(root, COMING)?;
        let replaced = root.inside(REPLACED);
        let Ok(folder) = fs::metadata(replaced.folder()) else { return Ok(None) };
        let since = folder.modified().map_err(refused("reading when the old layout was replaced"))?;
        let stage = Stage::Leaving { since, flows: flows(&replaced) };
        Ok(Some(Self { root: root.clone(), from: replaced.layout(), stage }))
    }

    /// The new layout's program runs on every uplink: its pins take their place.
    pub(super) fn arrive(&mut self, links: &mut Links) -> Result<(), PinsError> {
        let flows = flows(&self.root);
        make(&self.root, REPLACED)?;
        resume(&self.root)?;
        links.move_to(self.root.clone());
        self.stage = Stage::Leaving { since: SystemTime::now(), flows };
        Ok(())
    }

    /// True once the old layout has had its time. A clock that was set back does not make it longer.
    pub fn is_over(&self, now: SystemTime) -> bool {
        match self.stage {
            Stage::Coming => false,
            Stage::Leaving { since, .. } => {
                now.duration_since(since).map_or(true, |passed| passed >= OVERLAP)
            }
        }
    }

    /// Takes the old layout away; says what, one sentence each.
    pub(super) fn finish(&self) -> Result<Vec<String>, PinsError> {
        discard(&self.root, REPLACED)
    }

    /// The old layout in words.
    pub fn old(&self) -> String {
        self.from.map_or_else(|| "an unknown layout".to_owned(), |version| format!("layout {version}"))
    }
}

/// Goes on with moves that a killed agent has left half done.
pub(super) fn resume(root: &Pins) -> Result<(), PinsError> {
    let is_there = |name: &str| root.path(name).exists();
    if is_there(COMING) && is_there(REPLACED) {
        let replaced = root.inside(REPLACED);
        for name in listed(root)?.iter().filter(|name| belongs_to_a_layout(name)) {
            rename(root, name, &replaced, name)?;
        }
        rename(root, COMING, root, ARRIVING)?;
    }
    if is_there(ARRIVING) {
        let arriving = root.inside(ARRIVING);
        // Last the map that says which layout this is: without it a start finds the pins unfit, and not half of them fit.
        let (last, others): (Vec<String>, Vec<String>) =
            listed(&arriving)?.into_iter().partition(|name| name == "config");
        for name in others.iter().chain(&last) {
            rename(&arriving, name, root, name)?;
        }
        fs::remove_dir(arriving.folder()).map_err(refused("removing the folder of the new pins"))?;
    }
    Ok(())
}

/// XDP links change their program and stay; a clsact qdisc is the device's.
fn belongs_to_a_layout(name: &str) -> bool {
    let stays = ["link_xdp_", "clsact_"].iter().any(|kind| name.starts_with(kind));
    !stays && ![COMING, ARRIVING, REPLACED].contains(&name)
}

/// The folders inside a pin path that a replacement makes.
pub(super) fn folders(root: &Pins) -> impl Iterator<Item = Pins> {
    let all = [COMING, ARRIVING, REPLACED].map(|name| root.inside(name));
    all.into_iter().filter(|pins| pins.folder().exists())
}

fn make(root: &Pins, name: &str) -> Result<(), PinsError> {
    match fs::create_dir(root.path(name)) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(refused(format!("making {}", root.path(name).display()))(error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn discard(root: &Pins, name: &str) -> Result<Vec<String>, PinsError> {
    let pins = root.inside(name);
    if pins.folder().exists() { clear(&pins) } else { Ok(Vec::new()) }
}

fn listed(pins: &Pins) -> Result<Vec<String>, PinsError> {
    pins.names().map_err(refused(format!("reading {}", pins.folder().display())))
}

fn rename(from: &Pins, name: &str, to: &Pins, new_name: &str) -> Result<(), PinsError> {
    fs::rename(from.path(name), to.path(new_name)).map_err(refused(format!("moving the pin {name}")))
}

/// The lower half of a layout's version; the upper half tells builds for tests from those that users run.
const VERSION: u32 = 0xffff;

/// Entries in use in the flow table of these pins, the expired ones included; `None` for a layout that keeps flows in a
/// way that this version does not know.
fn flows(pins: &Pins) -> Option<u64> {
    let version = pins.layout()? & VERSION;
    if !(1..=LAYOUT & VERSION).contains(&version) {
        return None;
    }
    let path = pins.path("flows");
    let info = MapInfo::from_pin(&path).ok()?;
    if info.value_size() as usize != size_of::<Bucket>() {
        return None;
    }
    let count = || -> io::Result<u64> {
        let map = MapData::from_pin(&path).map_err(map_io)?;
        let buckets = Mapped::<Bucket>::new(map.fd().as_fd(), info.max_entries())?;
        let taken = (0..buckets.len()).map(|bucket| {
            let entries: [Entry; WAYS] = buckets.read(bucket).entries;
            entries.iter().filter(|entry| entry.tag > BUSY).count() as u64
        });
        Ok(taken.sum())
    };
    count().ok()
}

impl Links {
    /// The programs that run in pinned links of `nlb_xdp`, whichever layout they are of.
    ///
    /// # Errors
    /// The pins or a link cannot be read.
    pub fn pinned_programs(&self) -> io::Result<Vec<u32>> {
        let links = self.pinned_uplinks()?;
        links.iter().map(|interface| Ok(self.pinned(interface)?.program)).collect()
    }

    fn pinned(&self, interface: &str) -> io::Result<sys::LinkInfo> {
        let link = sys::open_pin(&self.root.of_device("link_xdp", interface))?;
        sys::link_info(link.as_fd())
    }

    /// Uplinks where a program of another layout still runs in a link of nlb's.
    ///
    /// # Errors
    /// The pins or a link cannot be read.
    pub fn uplinks_of_others(&self) -> io::Result<Vec<String>> {
        let ours = sys::program_id(self.xdp_program.as_fd())?;
        let mut others = Vec::new();
        for interface in self.pinned_uplinks()? {
            let info = self.pinned(&interface)?;
            // A link without a device is attached to nothing any more.
            if info.interface != 0 && info.program != ours {
                others.push(interface);
            }
        }
        Ok(others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaving(since: SystemTime) -> Replacement {
        let root = Pins::new(std::path::Path::new("/nowhere"));
        Replacement { root, from: Some(1), stage: Stage::Leaving { since, flows: None } }
    }

    #[test]
    fn the_old_layout_has_its_minute_and_no_more() {
        let since = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let replacement = leaving(since);
        assert!(!replacement.is_over(since));
        assert!(!replacement.is_over(since + OVERLAP - Duration::from_millis(1)));
        assert!(replacement.is_over(since + OVERLAP));
        assert!(replacement.is_over(since - Duration::from_secs(1)), "the clock was set back");
    }

    #[test]
    fn links_of_uplinks_and_qdiscs_stay_where_they_are() {
        for stays in ["link_xdp_eth0", "clsact_eth0", "coming", "arriving", "replaced"] {
            assert!(!belongs_to_a_layout(stays), "{stays}");
        }
        // Also maps whose names this version does not know.
        for goes in ["flows", "config", "prog_xdp", "prog_reply_new", "link_reply_eth0", "something_new"] {
            assert!(belongs_to_a_layout(goes), "{goes}");
        }
    }
}
