//! Pins of another layout are taken over while their program forwards, whenever an agent is killed meanwhile.

use super::{Place, command, in_namespace, index, own_hook, priorities, running};
use anyhow::{Context, Result, ensure};
use nlb_agent::args::XdpMode;
use nlb_agent::bpf::detach::detach;
use nlb_agent::bpf::pins::PinsError;
use nlb_agent::bpf::replacement::{OVERLAP, Stage};
use nlb_agent::bpf::reply::{PRIORITY, PRIORITY_BEHIND, ReplyHook};
use nlb_agent::bpf::{DataPath, OpenError, Options, PinnedMaps, netlink, sys};
use nlb_common::hash::Hash;
use nlb_common::layout::{Entry, LAYOUT};
use nlb_common::tables::Table;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::time::SystemTime;

/// The layout that is pinned before: one that keeps flows as today's does, and bears another number.
const OLD: u32 = LAYOUT | 1 << 16;
/// Flows that it has.
const FLOWS: u64 = 3;

/// An agent of another layout has served here, and is gone: its attachments and three flows go on.
fn old_layout(place: &Place, clsact: bool) -> Result<()> {
    let mut old = place.open()?;
    attach_reply(&mut old, clsact)?;
    old.links.attach_xdp("uplink", XdpMode::Auto)?;
    for tag in 2..2 + FLOWS {
        let hash = Hash { tag, place: tag as u32 };
        old.maps.table(Table::Flows).insert(hash, &Entry::default(), None).context("a free way")?;
    }
    let seed = [7_u8; 16].map(|byte| byte.to_string()).join(" ");
    let version = OLD.to_ne_bytes().map(|byte| byte.to_string()).join(" ");
    let path = place.pins.join("config");
    let value = format!("{version} 250 0 0 0 {seed}");
    command("bpftool", &format!("map update pinned {} key 0 0 0 0 value {value}", path.display()))?;
    old.leave();
    Ok(())
}

fn attach_reply(data_path: &mut DataPath, clsact: bool) -> Result<()> {
    if clsact {
        data_path.links.attach_reply_by_clsact("uplink")?;
    } else {
        ensure!(data_path.links.attach_reply("uplink")?.hook == own_hook());
    }
    Ok(())
}

fn open_to_replace(place: &Place) -> Result<DataPath, OpenError> {
    DataPath::open(&Options { replace_layout: true, ..place.options() })
}

fn names(place: &Place, folder: &str) -> Vec<String> {
    let entries = fs::read_dir(place.pins.join(folder)).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|it| it.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// These names, and the folder of what was replaced.
fn with_replaced(names: &[String]) -> Vec<String> {
    let mut names = names.to_vec();
    names.push("replaced".to_owned());
    names.sort();
    names
}

fn link(place: &Place, name: &str) -> Result<OwnedFd> {
    sys::open_pin(&place.pins.join(name)).with_context(|| name.to_owned())
}

/// Fills, takes over, and looks at what runs at each step.
fn replace(place: &Place, clsact: bool) -> Result<()> {
    old_layout(place, clsact)?;
    let (before, old_names) = (running("uplink"), names(place, ""));
    let refused = place.open().err().context("without the flag")?;
    assert!(matches!(refused, OpenError::Pins(PinsError::OtherLayout { .. })), "{refused}");
    assert!(refused.to_string().contains("--replace-layout"), "{refused}");
    assert_eq!(names(place, ""), old_names);

    let mut new = open_to_replace(place)?;
    assert!(new.is_coming() && !new.adopted);
    assert_eq!(new.replacement().and_then(|it| it.from), Some(OLD));
    assert_eq!(
        (new.arrive()?, running("uplink")),
        (vec!["uplink".to_owned()], before),
        "nothing is attached"
    );

    let old_link = (!clsact && own_hook() == ReplyHook::Tcx).then(|| link(place, "link_reply_uplink"));
    attach_reply(&mut new, clsact)?;
    if old_link.is_none() {
        assert_eq!(priorities("uplink"), [PRIORITY, PRIORITY_BEHIND], "behind the old one");
    }
    new.links.attach_xdp("uplink", XdpMode::Auto)?;
    assert_ne!(running("uplink").map(|(_, id)| id), before.map(|(_, id)| id));
    assert_eq!(running("uplink").map(|(mode, _)| mode), before.map(|(mode, _)| mode));

    assert!(new.arrive()?.is_empty());
    let Some(Stage::Leaving { since, flows }) = new.replacement().map(|it| it.stage.clone()) else {
        anyhow::bail!("{:?}", new.replacement())
    };
    assert_eq!(flows, Some(FLOWS));
    assert!(new.replacement().is_some_and(|it| !it.is_over(since) && it.is_over(since + OVERLAP)));
    let expected: Vec<&String> =
        old_names.iter().filter(|it| !it.starts_with("link_xdp") && !it.starts_with("clsact")).collect();
    assert_eq!(names(place, "replaced").iter().collect::<Vec<_>>(), expected);
    assert_eq!(names(place, ""), with_replaced(&old_names));
    assert_eq!(PinnedMaps::open(&place.pins)?.context("pinned")?.config.layout, LAYOUT);
    assert!(new.links.verify().is_empty(), "where the pins went, the links are found");

    // Both answer until the minute is over; a successor knows that it is not.
    new.leave();
    let mut next = place.open()?;
    assert!(next.adopted && !next.is_coming());
    let replacement = next.replacement().context("the old layout is still there")?;
    assert!(!replacement.is_over(SystemTime::now()), "{replacement:?}");
    assert_eq!(replacement.from, Some(OLD));
    attach_reply(&mut next, clsact)?;
    next.links.attach_xdp("uplink", XdpMode::Auto)?;
    let done = next.finish_replacement()?.join("\n");
    assert!(next.replacement().is_none() && names(place, "replaced").is_empty());
    // Alone again, the program runs where it runs at any start: in tcx, if the kernel has that.
    let own = if own_hook() == ReplyHook::Tcx { &[][..] } else { &[PRIORITY] };
    assert_eq!(priorities("uplink"), own, "the new one is where it belongs");
    match old_link.transpose()? {
        Some(old) => {
            assert_eq!(names(place, ""), old_names);
            assert!(done.contains("nlb_reply from uplink"), "{done}");
            assert_eq!(sys::link_info(old.as_fd())?.interface, 0, "the old one is detached");
            assert_eq!(sys::link_info(link(place, "link_reply_uplink")?.as_fd())?.interface, index("uplink"));
        }
        None => assert_eq!(next.links.reply()["uplink"].hook, own_hook()),
    }
    assert!(next.links.verify().is_empty());
    Ok(())
}

#[test]
fn another_layout_is_replaced_and_goes_after_its_minute() {
    in_namespace(|place| replace(place, false));
}

#[test]
fn another_layout_in_clsact_is_replaced_too() {
    in_namespace(|place| replace(place, true));
}

#[test]
fn an_agent_that_was_killed_while_it_filled_the_maps_has_a_successor() {
    in_namespace(|place| {
        old_layout(place, false)?;
        let first = open_to_replace(place)?;
        let before = running("uplink");
        let seed = first.maps.config.seed;
        first.leave();
        let second = open_to_replace(place)?;
        assert!(second.is_coming() && second.adopted, "what was filled is not filled again");
        assert_eq!(second.maps.config.seed, seed);
        assert_eq!(running("uplink"), before);
        second.leave();
        // Without the flag it is as if nobody had begun.
        assert!(matches!(place.open(), Err(OpenError::Pins(PinsError::OtherLayout { .. }))));
        let done = detach(&place.pins)?.join("\n");
        assert!(done.contains("coming with its programs and maps") && !place.pins.exists(), "{done}");
        Ok(())
    });
}

#[test]
fn an_agent_that_was_killed_while_it_took_the_uplinks_has_a_successor() {
    in_namespace(|place| {
        old_layout(place, false)?;
        let mut first = open_to_replace(place)?;
        attach_reply(&mut first, false)?;
        first.links.attach_xdp("uplink", XdpMode::Auto)?;
        let taken = running("uplink");
        first.leave();
        // The new program runs already, and the old pins are still where they were.
        let mut second = open_to_replace(place)?;
        assert!(second.is_coming() && second.adopted);
        assert_eq!(running("uplink"), taken);
        assert_eq!(second.links.pinned_programs()?, [taken.context("a program")?.1], "known as nlb's own");
        attach_reply(&mut second, false)?;
        second.links.attach_xdp("uplink", XdpMode::Auto)?;
        assert!(second.arrive()?.is_empty());
        second.finish_replacement()?;
        assert!(second.links.verify().is_empty());
        assert!(names(place, "coming").is_empty() && names(place, "replaced").is_empty());
        Ok(())
    });
}

/// Moves that a killed agent had done: the names in `moved` from one folder into another.
fn half_moved(place: &Place, from: &str, to: &str, moved: &[&str]) -> Result<()> {
    for name in moved {
        fs::rename(place.pins.join(from).join(name), place.pins.join(to).join(name))
            .with_context(|| format!("{from}/{name} to {to}"))?;
    }
    Ok(())
}

#[test]
fn an_agent_that_was_killed_while_it_moved_the_pins_has_a_successor() {
    for killed in ["at once", "while the old ones moved", "while the new ones moved"] {
        in_namespace(move |place| {
            old_layout(place, false)?;
            let old_names = names(place, "");
            let mut first = open_to_replace(place)?;
            attach_reply(&mut first, false)?;
            first.links.attach_xdp("uplink", XdpMode::Auto)?;
            let (running_then, seed) = (running("uplink"), first.maps.config.seed);
            first.leave();
            fs::create_dir(place.pins.join("replaced"))?;
            match killed {
                "at once" => {}
                "while the old ones moved" => half_moved(place, "", "replaced", &["flows", "config"])?,
                _ => {
                    let old: Vec<&str> = old_names.iter().map(String::as_str).collect();
                    let old: Vec<&str> = old
                        .into_iter()
                        .filter(|it| !it.starts_with("link_xdp") && !it.starts_with("clsact"))
                        .collect();
                    half_moved(place, "", "replaced", &old)?;
                    fs::rename(place.pins.join("coming"), place.pins.join("arriving"))?;
                    half_moved(place, "arriving", "", &["flows", "slots"])?;
                }
            }
            let second = place.open().with_context(|| format!("killed {killed}"))?;
            assert!(second.adopted && !second.is_coming(), "killed {killed}");
            assert_eq!((second.maps.config.seed, running("uplink")), (seed, running_then), "killed {killed}");
            let leaves = second.replacement().map(|it| it.stage.clone());
            assert!(matches!(leaves, Some(Stage::Leaving { flows: Some(FLOWS), .. })), "{leaves:?}");
            assert_eq!(names(place, ""), with_replaced(&old_names));
            second.leave();
            detach(&place.pins)?;
            assert!(!place.pins.exists(), "killed {killed}");
            assert!(netlink::egress_filters(index("uplink"))?.is_empty());
            Ok(())
        });
    }
}
