//! Attaching: modes, foreign programs, devices that go and come back, clsact.

use super::{Place, in_namespace, ip, own_hook, priorities, running, tc};
use anyhow::Context;
use nlb_agent::args::XdpMode;
use nlb_agent::bpf::detach::detach;
use nlb_agent::bpf::links::AttachError;
use nlb_agent::bpf::reply::{PRIORITY, ReplyHook};
use nlb_agent::bpf::sys;
use nlb_agent::host::interfaces::XdpMode as RunningMode;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::{fs, thread};

#[test]
fn no_packet_finds_the_device_without_a_program_while_it_is_replaced() {
    in_namespace(|place| {
        let mut data_path = place.open()?;
        data_path.links.attach_xdp("uplink", XdpMode::Auto)?;
        let second = place.neighbour();
        let _other = second.open()?;
        let link = sys::open_pin(&place.pins.join("link_xdp_uplink"))?;
        let open = |place: &Place| sys::open_pin(&place.pins.join("prog_xdp"));
        let programs = [open(&second)?, open(place)?];
        let (done, looks, bare) = (AtomicBool::new(false), AtomicU32::new(0), AtomicU32::new(0));
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    bare.fetch_add(u32::from(running("uplink").is_none()), Ordering::Relaxed);
                    looks.fetch_add(1, Ordering::Relaxed);
                }
            });
            let mut replaced = 0;
            while replaced < 40 || looks.load(Ordering::Relaxed) < 200 {
                // The same program again would be no replacement at all.
                sys::link_update(link.as_fd(), programs[replaced % 2].as_fd()).unwrap();
                replaced += 1;
            }
            done.store(true, Ordering::Relaxed);
        });
        assert_eq!(bare.load(Ordering::Relaxed), 0);
        Ok(())
    });
}

#[test]
fn what_is_no_longer_wanted_is_detached_by_the_next_agent() {
    in_namespace(|place| {
        let mut first = place.open()?;
        first.links.attach_xdp("uplink", XdpMode::Auto)?;
        first.links.attach_reply("uplink")?;
        first.links.attach_reply_by_clsact("far")?;
        first.leave();
        let mut second = place.open()?;
        second.links.attach_xdp("uplink", XdpMode::Auto)?;
        let mut done = second.links.retain(&["uplink".to_owned()], &[])?;
        done.sort();
        let from_uplink = match own_hook() {
            ReplyHook::Tcx => "detached nlb_reply from uplink",
            ReplyHook::Clsact => "detached nlb_reply from uplink (clsact)",
        };
        assert_eq!(done, ["detached nlb_reply from far (clsact)", from_uplink]);
        assert!(running("uplink").is_some());
        assert!(priorities("far").is_empty() && priorities("uplink").is_empty());
        assert!(second.links.retain(&["uplink".to_owned()], &[])?.is_empty());
        Ok(())
    });
}

#[test]
fn somebody_elses_xdp_program_is_left_alone_and_named() {
    in_namespace(|place| {
        let owner = place.neighbour();
        let mut other = owner.open()?;
        other.links.attach_xdp("uplink", XdpMode::Generic)?;
        let theirs = running("uplink").context("attached")?;
        let mut ours = place.open()?;
        for mode in [XdpMode::Auto, XdpMode::Driver, XdpMode::Generic] {
            let error = ours.links.attach_xdp("uplink", mode).err().context("foreign")?;
            assert!(matches!(error, AttachError::Foreign { .. }), "{error}");
            assert!(error.to_string().contains(&format!("id {}", theirs.1)), "{error}");
        }
        assert_eq!(running("uplink"), Some(theirs));
        other.leave();
        Ok(())
    });
}

#[test]
fn modes_fall_back_or_are_forced_and_a_missing_device_is_named() {
    in_namespace(|place| {
        let mut data_path = place.open()?;
        ip("link add bridge0 type bridge")?;
        let fallen = data_path.links.attach_xdp("bridge0", XdpMode::Auto)?;
        assert_eq!(fallen.mode, RunningMode::Generic);
        assert!(fallen.notes[0].contains("generic mode"), "{:?}", fallen.notes);
        ip("link add bridge1 type bridge")?;
        let forced =
            data_path.links.attach_xdp("bridge1", XdpMode::Driver).err().context("no driver mode")?;
        assert!(matches!(forced, AttachError::Mode { mode: "driver", .. }), "{forced}");
        assert_eq!(data_path.links.attach_xdp("uplink", XdpMode::Generic)?.mode, RunningMode::Generic);
        assert_eq!(data_path.links.attach_xdp("uplink", XdpMode::Driver)?.mode, RunningMode::Driver);
        let missing = data_path.links.attach_xdp("eth77", XdpMode::Auto).err().context("no device")?;
        assert!(matches!(missing, AttachError::Missing(_)), "{missing}");
        Ok(())
    });
}

#[test]
fn a_device_that_goes_and_comes_back_is_attached_again() {
    in_namespace(|place| {
        let mut data_path = place.open()?;
        data_path.links.attach_xdp("uplink", XdpMode::Auto)?;
        data_path.links.attach_reply("uplink")?;
        ip("link del uplink")?;
        let gone = data_path.links.verify();
        assert!(
            gone.iter().all(|problem| problem.reason == "InterfaceMissing") && gone.len() == 2,
            "{gone:?}"
        );
        ip("link add uplink type veth peer name far")?;
        let back = data_path.links.verify();
        assert!(
            back.iter().all(|problem| problem.reason == "AttachmentRestored") && back.len() == 2,
            "{back:?}"
        );
        assert!(running("uplink").is_some());
        assert!(data_path.links.verify().is_empty());
        data_path.leave();
        // The same for an agent that was away meanwhile: the pin is of a device that is no more.
        ip("link del uplink")?;
        ip("link add uplink type veth peer name far")?;
        let mut second = place.open()?;
        second.links.attach_xdp("uplink", XdpMode::Auto)?;
        second.links.attach_reply("uplink")?;
        assert!(running("uplink").is_some());
        Ok(())
    });
}

#[test]
fn what_somebody_detaches_or_unpins_is_restored() {
    in_namespace(|place| {
        let mut data_path = place.open()?;
        data_path.links.attach_xdp("uplink", XdpMode::Auto)?;
        data_path.links.attach_reply("uplink")?;
        sys::link_detach(sys::open_pin(&place.pins.join("link_xdp_uplink"))?.as_fd())?;
        assert_eq!(running("uplink"), None);
        let problems = data_path.links.verify();
        assert_eq!(problems.len(), 1);
        assert!(
            problems[0].message.contains("nlb_xdp") && problems[0].object == "Interface uplink",
            "{problems:?}"
        );
        assert!(running("uplink").is_some());
        match own_hook() {
            ReplyHook::Tcx => {
                fs::remove_file(place.pins.join("link_reply_uplink"))?;
                assert!(data_path.links.verify().is_empty());
                assert!(place.pins.join("link_reply_uplink").exists());
            }
            ReplyHook::Clsact => {
                tc("filter del dev uplink egress")?;
                assert!(priorities("uplink").is_empty());
                let problems = data_path.links.verify();
                assert!(problems.len() == 1 && problems[0].message.contains("nlb_reply"), "{problems:?}");
                assert_eq!(priorities("uplink"), [PRIORITY]);
            }
        }
        assert!(data_path.links.verify().is_empty());
        Ok(())
    });
}

/// Somebody else's filter at egress of the uplink, with a qdisc where there is none; the program does not matter.
fn foreign_filter(place: &Place) -> anyhow::Result<()> {
    if !tc("qdisc show dev uplink")?.contains("clsact") {
        tc("qdisc add dev uplink clsact")?;
    }
    let program = place.pins.join("prog_reply");
    let add = "filter add dev uplink egress prio 7 protocol all bpf da object-pinned";
    tc(&format!("{add} {}", program.display())).map(drop)
}

#[test]
fn beside_a_clsact_filter_nlb_goes_to_clsact_and_last() {
    in_namespace(|place| {
        let mut data_path = place.open()?;
        foreign_filter(place)?;
        let attached = data_path.links.attach_reply("uplink")?;
        assert_eq!(attached.hook, ReplyHook::Clsact);
        let why = match own_hook() {
            ReplyHook::Tcx => "somebody else's",
            ReplyHook::Clsact => "the kernel has no tcx",
        };
        assert!(attached.notes[0].contains(why), "{:?}", attached.notes);
        assert_eq!(priorities("uplink"), [7, PRIORITY]);
        assert!(data_path.links.verify().is_empty());
        // The next agent replaces it where it is.
        data_path.leave();
        assert_eq!(priorities("uplink"), [7, PRIORITY]);
        let mut second = place.open()?;
        second.links.attach_reply("uplink")?;
        assert_eq!(priorities("uplink"), [7, PRIORITY]);
        // A CNI that replaces the qdisc takes our filter with it.
        tc("qdisc del dev uplink clsact")?;
        let problems = second.links.verify();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(second.links.reply()["uplink"].hook, own_hook());
        // And one that comes later is let go first: from tcx we move for it, in clsact it comes before us by itself.
        foreign_filter(place)?;
        let moved = usize::from(own_hook() == ReplyHook::Tcx);
        assert_eq!(second.links.verify().len(), moved);
        assert_eq!(second.links.reply()["uplink"].hook, ReplyHook::Clsact);
        assert_eq!(priorities("uplink"), [7, PRIORITY]);
        assert!(!place.pins.join("link_reply_uplink").exists());
        second.leave();
        let done = detach(&place.pins)?;
        assert!(done.iter().any(|line| line.contains("(clsact)")), "{done:?}");
        assert_eq!(priorities("uplink"), [7], "others' filters stay");
        Ok(())
    });
}
