//! Where `nlb_reply` runs on a device: last in its tcx chain, or in clsact where others already are.

use super::links::{AttachError, Links, ReplyAttachment, failed, index, lost_link, pinned_link, replaced};
use super::netlink::{self, Filter};
use super::sys::{self, Hook};
use aya::programs::tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle};
use aya::programs::{ProgramError, SchedClassifier, TcAttachType};
use aya::util::KernelVersion;
use std::os::fd::AsFd;
use std::{fs, io, mem};

/// Later than any priority that the kernel gives out by itself (49152 and below).
pub const PRIORITY: u16 = 50_000;
/// Where the filter stands while another layout's has [`PRIORITY`].
pub const PRIORITY_BEHIND: u16 = PRIORITY + 1;
/// The filter's handle: with the priority, what makes it ours.
pub const HANDLE: u16 = 1;

/// How a program hangs on a device's egress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyHook {
    /// A tcx link, kernel 6.6 and newer.
    Tcx,
    /// A filter of the clsact qdisc.
    Clsact,
}

impl ReplyHook {
    /// The word in `status`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}

/// True from kernel 6.6 on.
pub(super) fn tcx_is_there() -> bool {
    KernelVersion::current().is_ok_and(|kernel| kernel >= KernelVersion::new(6, 6, 0))
}

/// True for the filter that we make.
pub(super) fn is_ours(filter: &Filter) -> bool {
    (PRIORITY..=PRIORITY_BEHIND).contains(&filter.priority)
        && filter.handle == u32::from(HANDLE)
        && filter.kind == "bpf"
}

/// Attaches, or replaces what an earlier agent attached.
pub(super) fn attach(links: &Links, interface: &str, tcx: bool) -> Result<ReplyAttachment, AttachError> {
    let index = index(interface)?;
    let filters = egress(interface, index)?;
    let foreign = filters.iter().filter(|filter| !is_ours(filter)).count();
    // tcx would run before another layout's filter.
    let follows = links.behind && filters.iter().any(is_ours);
    if tcx && foreign == 0 && !follows {
        let attachment = attach_tcx(links, interface, index)?;
        // What an agent without tcx, or with company, has left.
        remove(interface, index, filters.iter().filter(|filter| is_ours(filter)))?;
        return Ok(attachment);
    }
    let priority = if follows { PRIORITY_BEHIND } else { PRIORITY };
    let fresh = !filters.iter().any(|filter| is_ours(filter) && filter.priority == priority);
    attach_clsact(links, interface, priority, fresh)?;
    if !links.behind {
        let behind = filters.iter().filter(|filter| is_ours(filter) && filter.priority == PRIORITY_BEHIND);
        remove(interface, index, behind)?;
    }
    leave_tcx(links, interface, index).map_err(failed(interface, "removing the tcx link"))?;
    let why = match (tcx, foreign) {
        (false, _) => "the kernel has no tcx (6.6 and newer have)".to_owned(),
        (true, 0) => "another layout's nlb_reply runs there, which must see packets first".to_owned(),
        (true, 1) => "it has a filter of somebody else's at egress, which must see packets first".to_owned(),
        (true, count) => {
            format!("it has {count} filters of somebody else's at egress, which must see packets first")
        }
    };
    let notes = vec![format!("nlb_reply runs on {interface} in clsact with priority {priority}: {why}")];
    Ok(ReplyAttachment { hook: ReplyHook::Clsact, notes, index, link: None })
}

fn remove<'a>(
    interface: &str,
    index: u32,
    filters: impl Iterator<Item = &'a Filter>,
) -> Result<(), AttachError> {
    for filter in filters {
        netlink::remove_egress_filter(index, filter).map_err(failed(interface, "removing the filter"))?;
    }
    Ok(())
}

fn egress(interface: &str, index: u32) -> Result<Vec<Filter>, AttachError> {
    netlink::egress_filters(index).map_err(failed(interface, "listing the egress filters"))
}

fn attach_tcx(links: &Links, interface: &str, index: u32) -> Result<ReplyAttachment, AttachError> {
    let pin = links.home.of_device("link_reply", interface);
    let program = links.reply_program.as_fd();
    let old = match pinned_link(&pin, index).map_err(failed(interface, "opening the tcx link"))? {
        Some(link) => {
            replaced(link, program, &pin).map_err(failed(interface, "replacing the reply program"))?
        }
        None => None,
    };
    let link = match old {
        Some(link) => link,
        None => {
            // No flags: behind everybody who is there.
            let link = sys::link_create(program, index, Hook::TcxEgress, 0);
            let link = link.map_err(failed(interface, "attaching to the egress"))?;
            sys::pin(link.as_fd(), &pin).map_err(failed(interface, "pinning the tcx link"))?;
            link
        }
    };
    Ok(ReplyAttachment { hook: ReplyHook::Tcx, notes: Vec::new(), index, link: Some(link) })
}

fn leave_tcx(links: &Links, interface: &str, index: u32) -> io::Result<()> {
    let pin = links.home.of_device("link_reply", interface);
    if let Some(link) = pinned_link(&pin, index)? {
        fs::remove_file(&pin)?;
        sys::link_detach(link.as_fd())?;
    }
    Ok(())
}

fn attach_clsact(links: &Links, interface: &str, priority: u16, fresh: bool) -> Result<(), AttachError> {
    if fresh {
        add_clsact(links, interface)?;
    }
    let clsact = || -> Result<(), ProgramError> {
        let mut program = SchedClassifier::from_pin(links.home.path("prog_reply"))?;
        let handle = TcHandle::new(0, HANDLE);
        let id = if fresh {
            let options = NlOptions { priority, handle, ..NlOptions::default() };
            program.attach_with_options(interface, TcAttachType::Egress, TcAttachOptions::Netlink(options))?
        } else {
            let old = SchedClassifierLink::attached(interface, TcAttachType::Egress, priority, handle, None);
            program.attach_to_link(old.map_err(TcError::IoError)?)?
        };
        // The filter stays when this process ends: dropping aya's link would take it away.
        mem::forget(program.take_link(id)?);
        Ok(())
    };
    clsact().map_err(|error| failed(interface, "attaching to clsact")(program_io(error)))
}

/// Adds the qdisc and notes that it is ours, so that `detach` takes away no more than that.
fn add_clsact(links: &Links, interface: &str) -> Result<(), AttachError> {
    match tc::qdisc_add_clsact(interface) {
        Ok(()) => {
            let mark = links.root.of_device("clsact", interface);
            match fs::create_dir(&mark) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    Err(failed(interface, "noting the clsact qdisc")(error))
                }
                Ok(()) | Err(_) => Ok(()),
            }
        }
        Err(error) => match tc_io(error) {
            error if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            error => Err(failed(interface, "adding the clsact qdisc")(error)),
        },
    }
}

fn tc_io(error: TcError) -> io::Error {
    match error {
        TcError::NetlinkError(error) => match error.raw_os_error() {
            Some(number) => io::Error::from_raw_os_error(number),
            None => io::Error::other(error),
        },
        TcError::IoError(error) => error,
        other => io::Error::other(other),
    }
}

fn program_io(error: ProgramError) -> io::Error {
    match error {
        ProgramError::TcError(error) => tc_io(error),
        other => io::Error::other(other),
    }
}

/// Takes our filters away from every device but these.
pub(super) fn retain(wanted: &[String], done: &mut Vec<String>) -> io::Result<()> {
    for device in netlink::devices()?.into_iter().filter(|device| !wanted.contains(&device.name)) {
        for filter in netlink::egress_filters(device.index)?.iter().filter(|filter| is_ours(filter)) {
            netlink::remove_egress_filter(device.index, filter)?;
            done.push(format!("detached nlb_reply from {} (clsact)", device.name));
        }
    }
    Ok(())
}

/// What is wrong with an attachment, if anything.
pub(super) fn lost(links: &Links, interface: &str, attachment: &ReplyAttachment) -> Option<String> {
    let pin = links.home.of_device("link_reply", interface);
    if let Some(link) = &attachment.link
        && let Some(lost) = lost_link(interface, attachment.index, link.as_fd(), &pin)
    {
        return Some(lost);
    }
    let Ok(now) = index(interface) else { return Some("the device is gone".to_owned()) };
    let filters = netlink::egress_filters(now).ok()?;
    match attachment.hook {
        ReplyHook::Tcx if filters.iter().any(|filter| !is_ours(filter)) => {
            Some("somebody has added a clsact filter, which tcx would run before".to_owned())
        }
        ReplyHook::Clsact if !filters.iter().any(is_ours) => {
            Some("somebody has removed its filter or replaced the clsact qdisc".to_owned())
        }
        ReplyHook::Tcx | ReplyHook::Clsact => None,
    }
}
