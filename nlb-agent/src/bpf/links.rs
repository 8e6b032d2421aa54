//! Attachments: `nlb_xdp` on uplinks, `nlb_reply` on every routed device; pinned, replaced in place, looked after.

use super::netlink;
use super::pins::Pins;
use super::reply::{self, ReplyHook};
use super::sys::{self, Hook};
use crate::args::XdpMode;
use crate::host::interfaces::XdpMode as RunningMode;
use crate::problem::{Effect, Problem, Severity};
use nix::net::if_::if_nametoindex;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::{fs, io};

const DRIVER_FLAG: u32 = 1 << 2;
const GENERIC_FLAG: u32 = 1 << 1;

/// Why a device could not be attached to.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// No such device now.
    #[error("there is no interface `{0}`")]
    Missing(String),
    /// Somebody else's program.
    #[error(
        "interface `{interface}` already runs an XDP program that is not nlb's ({which}); nlb leaves it alone. \
         Take it off with its owner's tool, then nlb attaches by itself"
    )]
    Foreign {
        /// The device.
        interface: String,
        /// `id 17`, as far as it can be known.
        which: String,
    },
    /// The mode that was asked for is not to be had.
    #[error("interface `{interface}` takes no XDP program in {mode} mode: {error}")]
    Mode {
        /// The device.
        interface: String,
        /// `driver` or `generic`.
        mode: &'static str,
        /// What the kernel returned.
        error: io::Error,
    },
    /// Not allowed.
    #[error("not permitted to attach to `{0}`: give this process CAP_NET_ADMIN and CAP_BPF")]
    Permission(String),
    /// Something else.
    #[error("{what} of `{interface}`: {error}")]
    System {
        /// The device.
        interface: String,
        /// What was tried.
        what: &'static str,
        /// What came back.
        error: io::Error,
    },
}

/// `nlb_xdp` on a device.
#[derive(Debug)]
pub struct XdpAttachment {
    /// How it runs.
    pub mode: RunningMode,
    /// What an operator should know: a fall back, and why.
    pub notes: Vec<String>,
    wanted: XdpMode,
    index: u32,
    link: OwnedFd,
}

/// `nlb_reply` on a device.
#[derive(Debug)]
pub struct ReplyAttachment {
    /// Where it runs.
    pub hook: ReplyHook,
    /// What an operator should know: why clsact, say.
    pub notes: Vec<String>,
    pub(super) index: u32,
    pub(super) link: Option<OwnedFd>,
}

/// What is attached where, by the device's name.
#[derive(Debug)]
pub struct Links {
    /// The pin path, where the links of `nlb_xdp` are whichever layout runs in them.
    pub(super) root: Pins,
    /// Where the programs of this agent's layout and the links of its `nlb_reply` are pinned.
    pub(super) home: Pins,
    /// Another layout's `nlb_reply` runs too: this one comes after it.
    pub(super) behind: bool,
    pub(super) xdp_program: OwnedFd,
    pub(super) reply_program: OwnedFd,
    xdp: BTreeMap<String, XdpAttachment>,
    reply: BTreeMap<String, ReplyAttachment>,
}

/// The index of a device.
pub(super) fn index(interface: &str) -> Result<u32, AttachError> {
    if_nametoindex(interface).map_err(|_| AttachError::Missing(interface.to_owned()))
}

pub(super) fn failed(interface: &str, what: &'static str) -> impl FnOnce(io::Error) -> AttachError {
    let interface = interface.to_owned();
    move |error| match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => AttachError::Permission(interface),
        Some(libc::ENODEV) => AttachError::Missing(interface),
        _ => AttachError::System { interface, what, error },
    }
}

/// A pinned link that is still attached to this device; a pin whose device is gone is taken away.
pub(super) fn pinned_link(pin: &Path, index: u32) -> io::Result<Option<OwnedFd>> {
    let link = match sys::open_pin(pin) {
        Ok(link) => link,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if sys::link_info(link.as_fd())?.interface == index {
        return Ok(Some(link));
    }
    fs::remove_file(pin)?;
    Ok(None)
}

/// Puts the program into a link that is there; `None` if its device has just gone, and then its pin too.
pub(super) fn replaced(link: OwnedFd, program: BorrowedFd<'_>, pin: &Path) -> io::Result<Option<OwnedFd>> {
    match sys::link_update(link.as_fd(), program) {
        Ok(()) => Ok(Some(link)),
        Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => {
            fs::remove_file(pin)?;
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

impl Links {
    pub(super) fn new(
        (root, home): (&Pins, &Pins),
        behind: bool,
        xdp_program: OwnedFd,
        reply_program: OwnedFd,
    ) -> Self {
        let (root, home) = (root.clone(), home.clone());
        let (xdp, reply) = (BTreeMap::new(), BTreeMap::new());
        Self { root, home, behind, xdp_program, reply_program, xdp, reply }
    }

    /// What was pinned at home has been moved to another folder.
    pub(super) fn move_to(&mut self, home: Pins) {
        self.home = home;
    }

    /// No other layout's `nlb_reply` runs any more: where this one kept behind it, it takes the usual place.
    pub(super) fn step_forward(&mut self) -> Result<(), AttachError> {
        self.behind = false;
        for interface in self.reply.keys().cloned().collect::<Vec<_>>() {
            self.attach_reply(&interface)?;
        }
        Ok(())
    }

    /// The attachments of `nlb_xdp`, by device.
    pub fn xdp(&self) -> &BTreeMap<String, XdpAttachment> {
        &self.xdp
    }

    /// The attachments of `nlb_reply`, by device.
    pub fn reply(&self) -> &BTreeMap<String, ReplyAttachment> {
        &self.reply
    }

    /// Attaches `nlb_xdp` to a device, or replaces the program of an earlier agent there without losing a packet.
    pub fn attach_xdp(&mut self, interface: &str, wanted: XdpMode) -> Result<&XdpAttachment, AttachError> {
        let index = index(interface)?;
        let pin = self.root.of_device("link_xdp", interface);
        let attachment = match self.replace_xdp(interface, index, &pin, wanted)? {
            Some(attachment) => attachment,
            None => self.attach_new_xdp(interface, index, &pin, wanted)?,
        };
        Ok(self.xdp.entry(interface.to_owned()).insert_entry(attachment).into_mut())
    }

    fn replace_xdp(
        &self,
        interface: &str,
        index: u32,
        pin: &Path,
        wanted: XdpMode,
    ) -> Result<Option<XdpAttachment>, AttachError> {
        let link = pinned_link(pin, index).map_err(failed(interface, "opening the XDP link"))?;
        let running = netlink::xdp(index).map_err(failed(interface, "asking for the XDP program"))?;
        let Some(link) = link else { return Ok(None) };
        let Some(running) = running else {
            fs::remove_file(pin).map_err(failed(interface, "removing the pin of the XDP link"))?;
            return Ok(None);
        };
        let fits = match wanted {
            XdpMode::Auto => true,
            XdpMode::Driver => running.mode == RunningMode::Driver,
            XdpMode::Generic => running.mode == RunningMode::Generic,
        };
        if !fits {
            // A link cannot change its mode: this one goes, for a moment without a program.
            fs::remove_file(pin).map_err(failed(interface, "removing the pin of the XDP link"))?;
            sys::link_detach(link.as_fd()).map_err(failed(interface, "detaching the XDP link"))?;
            return Ok(None);
        }
        let link = replaced(link, self.xdp_program.as_fd(), pin)
            .map_err(failed(interface, "replacing the XDP program"))?;
        let notes = match (wanted, running.mode) {
            (XdpMode::Auto, RunningMode::Generic) => {
                vec![generic_note(interface, "as it has been since it was attached")]
            }
            _ => Vec::new(),
        };
        Ok(link.map(|link| XdpAttachment { mode: running.mode, notes, wanted, index, link }))
    }

    fn attach_new_xdp(
        &self,
        interface: &str,
        index: u32,
        pin: &Path,
        wanted: XdpMode,
    ) -> Result<XdpAttachment, AttachError> {
        let try_mode = |flags| sys::link_create(self.xdp_program.as_fd(), index, Hook::Xdp, flags);
        let mut notes = Vec::new();
        let (mode, tried) = match wanted {
            XdpMode::Driver => (RunningMode::Driver, try_mode(DRIVER_FLAG)),
            XdpMode::Generic => (RunningMode::Generic, try_mode(GENERIC_FLAG)),
            XdpMode::Auto => match try_mode(DRIVER_FLAG) {
                Err(error) if is_about_the_driver(&error) => {
                    notes.push(generic_note(interface, &format!("the driver refused: {error}")));
                    (RunningMode::Generic, try_mode(GENERIC_FLAG))
                }
                tried => (RunningMode::Driver, tried),
            },
        };
        let link = tried.map_err(|error| refusal(interface, index, mode, error))?;
        sys::pin(link.as_fd(), pin).map_err(failed(interface, "pinning the XDP link"))?;
        Ok(XdpAttachment { mode, notes, wanted, index, link })
    }

    /// Attaches `nlb_reply` to the egress of a device, or replaces the program of an earlier agent there.
    pub fn attach_reply(&mut self, interface: &str) -> Result<&ReplyAttachment, AttachError> {
        let attachment = reply::attach(self, interface, reply::tcx_is_there())?;
        Ok(self.reply.entry(interface.to_owned()).insert_entry(attachment).into_mut())
    }

    /// As [`attach_reply`](Self::attach_reply), as if the kernel had no tcx: for tests, and for whoever must.
    pub fn attach_reply_by_clsact(&mut self, interface: &str) -> Result<&ReplyAttachment, AttachError> {
        let attachment = reply::attach(self, interface, false)?;
        Ok(self.reply.entry(interface.to_owned()).insert_entry(attachment).into_mut())
    }

    /// The devices that an earlier agent left `nlb_xdp` attached to, as the pins tell.
    ///
    /// # Errors
    /// The folder of the pins cannot be read.
    pub fn pinned_uplinks(&self) -> io::Result<Vec<String>> {
        Ok(self.root.names()?.iter().filter_map(|name| Pins::device_of("link_xdp", name)).collect())
    }

    /// Detaches from every device that is in neither list, also where an earlier agent attached; says from which.
    pub fn retain(&mut self, xdp: &[String], reply: &[String]) -> io::Result<Vec<String>> {
        self.xdp.retain(|interface, _| xdp.contains(interface));
        self.reply.retain(|interface, _| reply.contains(interface));
        let mut done = Vec::new();
        for (pins, kind, program, wanted) in
            [(&self.root, "link_xdp", "nlb_xdp", xdp), (&self.home, "link_reply", "nlb_reply", reply)]
        {
            for name in pins.names()? {
                let Some(interface) = Pins::device_of(kind, &name).filter(|there| !wanted.contains(there))
                else {
                    continue;
                };
                let link = sys::open_pin(&pins.path(&name))?;
                fs::remove_file(pins.path(&name))?;
                let gone = sys::link_detach(link.as_fd()).is_err();
                let note = if gone { ", which is gone" } else { "" };
                done.push(format!("detached {program} from {interface}{note}"));
            }
        }
        // While another layout's program answers, too, its filters are left to it.
        if !self.behind {
            reply::retain(reply, &mut done)?;
        }
        Ok(done)
    }

    /// Looks whether every attachment is still there, restores those that are not, and says what was missing.
    pub fn verify(&mut self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for interface in self.xdp.keys().cloned().collect::<Vec<_>>() {
            let Some(lost) = self.lost_xdp(&interface) else { continue };
            let wanted = self.xdp[&interface].wanted;
            let restored = self.attach_xdp(&interface, wanted).map(drop);
            problems.push(lost_problem(&interface, "nlb_xdp", &lost, restored));
        }
        for interface in self.reply.keys().cloned().collect::<Vec<_>>() {
            let Some(lost) = reply::lost(self, &interface, &self.reply[&interface]) else { continue };
            let restored = self.attach_reply(&interface).map(drop);
            problems.push(lost_problem(&interface, "nlb_reply", &lost, restored));
        }
        problems
    }

    fn lost_xdp(&self, interface: &str) -> Option<String> {
        let attachment = &self.xdp[interface];
        let pin = self.root.of_device("link_xdp", interface);
        lost_link(interface, attachment.index, attachment.link.as_fd(), &pin)
    }
}

/// What is wrong with a link that was attached to this device; a pin that was removed is put back without a word.
pub(super) fn lost_link(interface: &str, was: u32, link: BorrowedFd<'_>, pin: &Path) -> Option<String> {
    let Ok(now) = index(interface) else { return Some("the device is gone".to_owned()) };
    if now != was {
        return Some("the device was made anew".to_owned());
    }
    match sys::link_info(link) {
        Ok(info) if info.interface == now => {}
        Ok(_) => return Some("somebody detached its link".to_owned()),
        Err(error) => return Some(format!("its link cannot be read: {error}")),
    }
    if !pin.exists() && sys::pin(link, pin).is_err() {
        return Some(format!("its pin {} is gone and cannot be put back", pin.display()));
    }
    None
}

fn lost_problem(interface: &str, program: &str, lost: &str, restored: Result<(), AttachError>) -> Problem {
    let (reason, what, severity) = match restored {
        Ok(()) => ("AttachmentRestored", "it is attached again".to_owned(), Severity::Normal),
        Err(AttachError::Missing(_)) => {
            ("InterfaceMissing", "it will be attached when the device is back".to_owned(), Severity::Warning)
        }
        Err(error) => ("AttachmentLost", format!("attaching it again failed: {error}"), Severity::Warning),
    };
    Problem {
        severity,
        object: format!("Interface {interface}"),
        field: None,
        value: None,
        reason: reason.to_owned(),
        message: format!("The program {program} was no longer attached: {lost}; {what}."),
        effect: Effect::KeptLastGood,
    }
}

fn generic_note(interface: &str, why: &str) -> String {
    format!(
        "XDP runs on {interface} in generic mode, {why}; every packet costs several times as much as in driver mode. \
         See `ethtool -i {interface}` for the driver, and its documentation for what it wants (queues, MTU, LRO off)"
    )
}

/// True for what another mode may cure: not a missing device or permission, and not somebody else's program.
fn is_about_the_driver(error: &io::Error) -> bool {
    !matches!(
        error.raw_os_error(),
        Some(libc::EBUSY | libc::EEXIST | libc::EPERM | libc::EACCES | libc::ENODEV)
    )
}

fn refusal(interface: &str, index: u32, mode: RunningMode, error: io::Error) -> AttachError {
    match error.raw_os_error() {
        Some(libc::EBUSY | libc::EEXIST) => {
            let which = match netlink::xdp(index) {
                Ok(Some(running)) => format!("`bpftool prog show id {}` tells which", running.program),
                Ok(None) | Err(_) => format!("`ip -d link show {interface}` tells which"),
            };
            AttachError::Foreign { interface: interface.to_owned(), which }
        }
        Some(libc::EPERM | libc::EACCES | libc::ENODEV) => failed(interface, "attaching")(error),
        _ => {
            let mode = match mode {
                RunningMode::Driver => "driver",
                RunningMode::Generic => "generic",
                RunningMode::Hardware => "hardware",
            };
            AttachError::Mode { interface: interface.to_owned(), mode, error }
        }
    }
}
