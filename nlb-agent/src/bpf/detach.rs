//! Takes everything of nlb's away from this node again.

use super::links::index;
use super::netlink::{self, Device};
use super::pins::{Pins, PinsError, Sizes, refused, shapes};
use super::replacement;
use super::reply::is_ours;
use super::sys;
use std::os::fd::AsFd;
use std::path::Path;
use std::{fs, io};

/// Removes attachments first, then programs and maps, then the folder; says what it removed, one sentence each, and
/// nothing where there was nothing. Refuses while an agent holds the pins: it would only attach again.
pub fn detach(pin_path: &Path) -> Result<Vec<String>, PinsError> {
    let pins = Pins::new(pin_path);
    let mut done = Vec::new();
    if pin_path.exists() {
        let lock = pins.lock()?;
        links(&pins, &mut done)?;
        filters(&pins, &mut done)?;
        for folder in replacement::folders(&pins) {
            done.extend(clear(&folder)?);
        }
        objects(&pins, &mut done)?;
        folder(&pins, &mut done)?;
        drop(lock);
    } else {
        filters(&pins, &mut done)?;
    }
    Ok(done)
}

/// Takes away a folder in which everything is nlb's, also what this version does not know; says what was attached.
pub(super) fn clear(pins: &Pins) -> Result<Vec<String>, PinsError> {
    let mut done = Vec::new();
    links(pins, &mut done)?;
    for name in names(pins)? {
        fs::remove_file(pins.path(&name)).map_err(refused(format!("removing {name}")))?;
    }
    let name = pins.folder().display();
    fs::remove_dir(pins.folder()).map_err(refused(format!("removing {name}")))?;
    done.push(format!("removed {name} with its programs and maps"));
    Ok(done)
}

fn names(pins: &Pins) -> Result<Vec<String>, PinsError> {
    pins.names().map_err(refused(format!("reading {}", pins.folder().display())))
}

fn links(pins: &Pins, done: &mut Vec<String>) -> Result<(), PinsError> {
    for name in names(pins)? {
        for (kind, program) in [("link_xdp", "nlb_xdp"), ("link_reply", "nlb_reply")] {
            let Some(interface) = Pins::device_of(kind, &name) else { continue };
            let path = pins.path(&name);
            let link = sys::open_pin(&path).map_err(refused(format!("opening {}", path.display())))?;
            // A link whose device is gone has nothing to detach; its pin goes all the same.
            let detached = sys::link_detach(link.as_fd()).is_ok();
            fs::remove_file(&path).map_err(refused(format!("removing {}", path.display())))?;
            done.push(if detached {
                format!("detached {program} from {interface}")
            } else {
                format!("removed the pin of {program} on {interface}, which was attached to nothing any more")
            });
        }
    }
    Ok(())
}

fn filters(pins: &Pins, done: &mut Vec<String>) -> Result<(), PinsError> {
    for Device { index, name, .. } in netlink::devices().map_err(refused("listing the interfaces"))? {
        let all =
            netlink::egress_filters(index).map_err(refused(format!("listing the filters of {name}")))?;
        for filter in all.iter().filter(|filter| is_ours(filter)) {
            let removed = netlink::remove_egress_filter(index, filter);
            removed.map_err(refused(format!("removing the filter of {name}")))?;
            done.push(format!("detached nlb_reply from {name} (clsact)"));
        }
    }
    for mark in names(pins)? {
        if let Some(interface) = Pins::device_of("clsact", &mark) {
            remove_clsact(&interface, done)
                .map_err(refused(format!("removing the clsact qdisc of {interface}")))?;
            fs::remove_dir(pins.path(&mark)).map_err(refused(format!("removing {mark}")))?;
        }
    }
    Ok(())
}

/// The qdisc that an agent of ours added, unless others have moved in since.
fn remove_clsact(interface: &str, done: &mut Vec<String>) -> io::Result<()> {
    let Ok(index) = index(interface) else { return Ok(()) };
    if !netlink::egress_filters(index)?.is_empty() || !netlink::ingress_filters(index)?.is_empty() {
        done.push(format!("left the clsact qdisc of {interface}: others have filters there by now"));
        return Ok(());
    }
    match netlink::remove_clsact(index) {
        Ok(()) => done.push(format!("removed the clsact qdisc of {interface}")),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL)) => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

fn objects(pins: &Pins, done: &mut Vec<String>) -> Result<(), PinsError> {
    let maps = shapes(Sizes::default());
    let (mut programs, mut removed) = (0, 0);
    for name in names(pins)? {
        let is_map = maps.iter().any(|shape| shape.name == name);
        let is_program = name.starts_with("prog_");
        if is_map || is_program {
            fs::remove_file(pins.path(&name)).map_err(refused(format!("removing {name}")))?;
            programs += u32::from(is_program);
            removed += u32::from(is_map);
        }
    }
    if programs + removed > 0 {
        done.push(format!("removed {programs} programs and {removed} maps"));
    }
    Ok(())
}

fn folder(pins: &Pins, done: &mut Vec<String>) -> Result<(), PinsError> {
    let left = names(pins)?;
    let name = pins.folder().display();
    if left.is_empty() {
        fs::remove_dir(pins.folder()).map_err(refused(format!("removing {name}")))?;
        done.push(format!("removed {name}"));
    } else {
        done.push(format!("left {name}: it holds what is not nlb's ({})", left.join(", ")));
    }
    Ok(())
}
