//! Pins: restart, lock, layouts, detach.

use super::{command, in_namespace, own_hook, running, tc};
use anyhow::Context;
use nlb_agent::args::XdpMode;
use nlb_agent::bpf::detach::detach;
use nlb_agent::bpf::pins::{PinsError, Sizes};
use nlb_agent::bpf::{DataPath, OpenError, Options};
use nlb_agent::host::interfaces::XdpMode as RunningMode;
use nlb_common::layout::{Config, LAYOUT};
use std::fs;
use std::path::Path;

#[test]
fn a_restart_takes_over_maps_and_links_and_replaces_the_programs() {
    in_namespace(|place| {
        let mut first = place.open()?;
        assert!(!first.adopted && first.notes.is_empty(), "{:?}", first.notes);
        assert_eq!(first.links.attach_xdp("uplink", XdpMode::Auto)?.mode, RunningMode::Driver);
        assert_eq!(first.links.attach_reply("uplink")?.hook, own_hook());
        first.maps.set_choice(3, 77)?;
        let (seed, before) = (first.maps.config.seed, running("uplink"));
        assert_ne!(seed, [0, 0]);
        first.leave();
        assert_eq!(running("uplink"), before, "the data path outlives its agent");

        let mut second = place.open()?;
        assert!(second.adopted);
        assert_eq!(second.maps.config.seed, seed);
        assert_eq!(second.maps.dump()?.choices[3], 77);
        assert_eq!(second.links.attach_xdp("uplink", XdpMode::Auto)?.mode, RunningMode::Driver);
        assert_eq!(second.links.attach_reply("uplink")?.hook, own_hook());
        let after = running("uplink");
        assert!(after.is_some() && after != before, "{before:?} {after:?}");
        assert!(second.links.verify().is_empty());
        Ok(())
    });
}

#[test]
fn sizes_that_differ_from_the_pinned_ones_are_kept_and_named() {
    in_namespace(|place| {
        place.open()?.leave();
        let wanted = Sizes { flows: 8192, ..place.options().sizes };
        let second = DataPath::open(&Options { sizes: wanted, ..place.options() })?;
        assert_eq!(second.maps.sizes.flows, 4096);
        assert!(second.notes[0].contains("keep their sizes (4096 flows"), "{:?}", second.notes);
        Ok(())
    });
}

#[test]
fn a_second_agent_on_the_same_pins_is_refused_and_so_is_detach() {
    in_namespace(|place| {
        let first = place.open()?;
        let second = place.open().err().context("a second agent")?;
        assert!(matches!(second, OpenError::Pins(PinsError::Held(_))), "{second}");
        assert!(matches!(detach(&place.pins), Err(PinsError::Held(_))));
        first.leave();
        place.open()?;
        Ok(())
    });
}

#[test]
fn maps_of_another_layout_are_refused_and_left_alone() {
    in_namespace(|place| {
        let mut first = place.open()?;
        first.links.attach_xdp("uplink", XdpMode::Auto)?;
        let before = running("uplink");
        first.leave();
        let config = Config { layout: LAYOUT + 1, hz: 250, seed: [1, 2] };
        let bytes: Vec<String> = zerocopy::IntoBytes::as_bytes(&config).iter().map(u8::to_string).collect();
        let path = place.pins.join("config");
        let update = format!("map update pinned {} key 0 0 0 0 value {}", path.display(), bytes.join(" "));
        command("bpftool", &update)?;
        let refused = place.open().err().context("another layout")?;
        assert!(matches!(refused, OpenError::Pins(PinsError::OtherLayout { .. })), "{refused}");
        assert!(refused.to_string().contains("nlb-agent detach --pin-path"), "{refused}");
        assert_eq!(running("uplink"), before);
        Ok(())
    });
}

#[test]
fn a_map_of_another_shape_is_refused_by_name() {
    in_namespace(|place| {
        place.open()?.leave();
        let path = place.pins.join("slots");
        fs::remove_file(&path)?;
        let create = format!("map create {} type array key 4 value 32 entries 64 name slots", path.display());
        command("bpftool", &create)?;
        let refused = place.open().err().context("another shape")?.to_string();
        assert!(refused.contains("map `slots`") && refused.contains("32 bytes"), "{refused}");
        Ok(())
    });
}

#[test]
fn a_first_start_that_was_cut_off_is_begun_anew() {
    in_namespace(|place| {
        place.open()?.leave();
        for name in ["config", "slots", "prog_xdp"] {
            fs::remove_file(place.pins.join(name))?;
        }
        let again = place.open()?;
        assert!(!again.adopted);
        assert_eq!(again.maps.config.layout, LAYOUT);
        Ok(())
    });
}

#[test]
fn detach_leaves_nothing_and_may_be_said_twice() {
    in_namespace(|place| {
        let mut data_path = place.open()?;
        data_path.links.attach_xdp("uplink", XdpMode::Auto)?;
        data_path.links.attach_reply("uplink")?;
        data_path.links.attach_reply_by_clsact("far")?;
        assert!(tc("qdisc show dev far")?.contains("clsact"));
        data_path.leave();
        let done = detach(&place.pins)?.join("\n");
        for part in
            ["nlb_xdp from uplink", "nlb_reply from uplink", "far (clsact)", "qdisc of far", "19 maps"]
        {
            assert!(done.contains(part), "{part} in {done}");
        }
        assert!(!place.pins.exists());
        assert_eq!(running("uplink"), None);
        assert!(!tc("qdisc show dev far")?.contains("clsact"));
        assert!(detach(&place.pins)?.is_empty());
        Ok(())
    });
}

#[test]
fn pins_belong_on_a_bpf_file_system() {
    in_namespace(|_| {
        let refused =
            DataPath::open(&Options::new(Path::new("/tmp/nlb-no-such-pins"))).err().context("/tmp")?;
        assert!(matches!(refused, OpenError::Pins(PinsError::NotBpffs(_))), "{refused}");
        assert!(!Path::new("/tmp/nlb-no-such-pins").exists());
        Ok(())
    });
}
