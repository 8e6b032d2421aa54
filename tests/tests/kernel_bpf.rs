//! The agent's side of the kernel's border against a real kernel: loading, pins, attachments, maps, the sweep.
//! Needs root; each test has a network namespace and a pin path of its own.

use anyhow::{Context, ensure};
use aya::programs::Xdp;
use aya::{TestRun as _, TestRunOptions};
use nix::sched::{CloneFlags, unshare};
use nlb_agent::args::{DataPathLog, XdpMode};
use nlb_agent::bpf::dump::MapDump;
use nlb_agent::bpf::flows::FlowFilter;
use nlb_agent::bpf::links::AttachError;
use nlb_agent::bpf::pins::{PinsError, Sizes};
use nlb_agent::bpf::reply::ReplyHook;
use nlb_agent::bpf::sweep::Sweep;
use nlb_agent::bpf::verdict::{Stage, client_tuple, reply_tuple};
use nlb_agent::bpf::{DataPath, OpenError, Options, PinnedMaps, netlink};
use nlb_agent::bpf::{detach::detach, sys};
use nlb_agent::host::interfaces::XdpMode as RunningMode;
use nlb_common::address::Address;
use nlb_common::flow::state;
use nlb_common::hash::vip_bit;
use nlb_common::layout::{
    Client, Config, Counts, Entry, LAYOUT, Life, Listener, ListenerKey, Members, NO_SLOT, SHARERS, Sharers,
    Slot, TCP, TargetKey, Vip,
};
use nlb_common::reasons::Reason;
use nlb_common::tables::Table;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::{fs, thread};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A pin path that is gone again when the test ends, however it does.
struct Place {
    pins: PathBuf,
}

impl Drop for Place {
    fn drop(&mut self) {
        let _nothing_left = detach(&self.pins);
    }
}

impl Place {
    fn options(&self) -> Options {
        let sizes = Sizes { flows: 4096, half_flows: 1024, listeners: 64, slots: 64 };
        Options { sizes, ..Options::new(&self.pins) }
    }

    /// Another pin path, for another agent.
    fn neighbour(&self) -> Self {
        let mut name = self.pins.clone().into_os_string();
        name.push("-b");
        Self { pins: name.into() }
    }

    fn open(&self) -> Result<DataPath, OpenError> {
        DataPath::open(&self.options())
    }
}

/// Runs a test in a network namespace of its own that has a veth pair, `uplink` and `far`.
fn in_namespace(test: impl FnOnce(&Place) -> anyhow::Result<()> + Send + 'static) {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let pins = PathBuf::from(format!("/sys/fs/bpf/nlb-test-{}-{number}", std::process::id()));
    let run = move || -> anyhow::Result<()> {
        unshare(CloneFlags::CLONE_NEWNET).context("a network namespace: run this as root")?;
        ip("link add uplink type veth peer name far")?;
        ip("link set uplink up")?;
        ip("link set far up")?;
        let place = Place { pins };
        test(&place)
    };
    thread::spawn(run).join().expect("the test's own panic").unwrap();
}

fn command(program: &str, arguments: &str) -> anyhow::Result<String> {
    let output = Command::new(program).args(arguments.split_whitespace()).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{program} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(text)
}

fn ip(arguments: &str) -> anyhow::Result<String> {
    command("ip", arguments)
}

fn tc(arguments: &str) -> anyhow::Result<String> {
    command("tc", arguments)
}

fn index(interface: &str) -> u32 {
    nix::net::if_::if_nametoindex(interface).unwrap()
}

fn running(interface: &str) -> Option<(RunningMode, u32)> {
    netlink::xdp(index(interface)).unwrap().map(|xdp| (xdp.mode, xdp.program))
}

#[test]
fn a_restart_takes_over_maps_and_links_and_replaces_the_programs() {
    in_namespace(|place| {
        let mut first = place.open()?;
        assert!(!first.adopted && first.notes.is_empty(), "{:?}", first.notes);
        assert_eq!(first.links.attach_xdp("uplink", XdpMode::Auto)?.mode, RunningMode::Driver);
        assert_eq!(first.links.attach_reply("uplink")?.hook, ReplyHook::Tcx);
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
        assert_eq!(second.links.attach_reply("uplink")?.hook, ReplyHook::Tcx);
        let after = running("uplink");
        assert!(after.is_some() && after != before, "{before:?} {after:?}");
        assert!(second.links.verify().is_empty());
        Ok(())
    });
}

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
        let done = second.links.retain(&["uplink".to_owned()], &[])?;
        assert_eq!(done, ["detached nlb_reply from uplink", "detached nlb_reply from far (clsact)"]);
        assert!(running("uplink").is_some());
        assert!(netlink::egress_filters(index("far"))?.is_empty());
        assert!(second.links.retain(&["uplink".to_owned()], &[])?.is_empty());
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
fn what_somebody_detaches_or_unpins_is_restored_with_a_problem() {
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
        fs::remove_file(place.pins.join("link_reply_uplink"))?;
        assert!(data_path.links.verify().is_empty());
        assert!(place.pins.join("link_reply_uplink").exists());
        Ok(())
    });
}

#[test]
fn beside_a_clsact_filter_nlb_goes_to_clsact_and_last() {
    in_namespace(|place| {
        let mut data_path = place.open()?;
        let program = place.pins.join("prog_reply");
        let foreign = || -> anyhow::Result<()> {
            tc("qdisc add dev uplink clsact")?;
            let add = "filter add dev uplink egress prio 7 protocol all bpf da object-pinned";
            tc(&format!("{add} {}", program.display())).map(drop)
        };
        foreign()?;
        let attached = data_path.links.attach_reply("uplink")?;
        assert_eq!(attached.hook, ReplyHook::Clsact);
        assert!(attached.notes[0].contains("somebody else's"), "{:?}", attached.notes);
        let priorities = || -> Vec<u16> {
            netlink::egress_filters(index("uplink")).unwrap().iter().map(|filter| filter.priority).collect()
        };
        assert_eq!(priorities(), [7, nlb_agent::bpf::reply::PRIORITY]);
        assert!(data_path.links.verify().is_empty());
        // The next agent replaces it where it is.
        data_path.leave();
        assert_eq!(priorities(), [7, nlb_agent::bpf::reply::PRIORITY]);
        let mut second = place.open()?;
        second.links.attach_reply("uplink")?;
        assert_eq!(priorities(), [7, nlb_agent::bpf::reply::PRIORITY]);
        // A CNI that replaces the qdisc takes our filter with it.
        tc("qdisc del dev uplink clsact")?;
        let problems = second.links.verify();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(second.links.reply()["uplink"].hook, ReplyHook::Tcx);
        // And one that comes later is let go first.
        foreign()?;
        assert_eq!(second.links.verify().len(), 1);
        assert_eq!(second.links.reply()["uplink"].hook, ReplyHook::Clsact);
        assert!(!place.pins.join("link_reply_uplink").exists());
        second.leave();
        let done = detach(&place.pins)?;
        assert!(done.iter().any(|line| line.contains("(clsact)")), "{done:?}");
        assert_eq!(priorities(), [7], "others' filters stay");
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
            ["nlb_xdp from uplink", "nlb_reply from uplink", "far (clsact)", "qdisc of far", "18 maps"]
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

fn vip() -> Address {
    Ipv4Addr::new(192, 0, 2, 10).into()
}

fn slot(last: u8, generation: u32) -> Slot {
    Slot {
        target: Ipv4Addr::new(10, 1, 0, last).into(),
        vip: vip(),
        target_port: 5001,
        vip_port: 80,
        protocol: TCP,
        listener: 2,
        generation,
        idle: 350 * 250,
        ..Slot::default()
    }
}

#[test]
fn what_is_written_is_read_back_by_whoever_opens_the_pins() {
    in_namespace(|place| {
        assert!(PinnedMaps::open(&place.pins)?.is_none());
        let mut data_path = place.open()?;
        let maps = &mut data_path.maps;
        let key = ListenerKey { vip: vip(), port: 80, protocol: TCP, zero: 0 };
        let target = TargetKey { address: slot(1, 1).target, port: 5001, protocol: TCP, zero: 0 };
        let mut sharers = Sharers { slots: [NO_SLOT; SHARERS] };
        sharers.slots[0] = 5;
        maps.put_slot(5, &slot(1, 9))?;
        maps.put_slot(6, &slot(2, 3))?;
        maps.free_slot(6, 4)?;
        maps.put_target(&target, &sharers)?;
        maps.set_target_filter_word(1, 2)?;
        maps.write_ring_words(1, &[7, 8, 9])?;
        maps.set_choice(2, 1)?;
        maps.put_vip(&vip(), &Vip { flags: Vip::NODE })?;
        maps.set_vip_filter_word(3, 4)?;
        maps.put_listener(&key, &Listener { id: 2, flags: 0 })?;
        assert!(maps.put_slot(64, &slot(1, 1)).is_err() && maps.set_choice(64, 0).is_err());

        let read = PinnedMaps::open(&place.pins)?.context("pinned")?;
        let MapDump { vips, vip_filter, listeners, choices, rings, slots, targets, target_filter } =
            read.dump()?;
        assert_eq!((vips, vip_filter[3]), (vec![(vip(), Vip { flags: Vip::NODE })], 4));
        assert_eq!((listeners, choices[2]), (vec![(key, Listener { id: 2, flags: 0 })], 1));
        assert_eq!((&rings[..5], rings.len()), (&[0, 7, 8, 9, 0][..], 1 << 22));
        assert_eq!((slots[5], slots.len()), (slot(1, 9), 64));
        assert_eq!(slots[6], Slot { generation: 4, ..Slot::default() });
        assert_eq!((targets, target_filter[1]), (vec![(target, sharers)], 2));
        assert_eq!(read.used_slots(), [(5, slot(1, 9))]);

        let maps = &mut data_path.maps;
        maps.remove_target(&target)?;
        maps.remove_target(&target)?;
        maps.remove_vip(&vip())?;
        maps.remove_listener(&key)?;
        let dump = read.dump()?;
        assert!(dump.vips.is_empty() && dump.listeners.is_empty() && dump.targets.is_empty());
        maps.wait_for_readers()?;
        Ok(())
    });
}

#[test]
fn counters_are_summed_and_reset() {
    in_namespace(|place| {
        let mut data_path = place.open()?;
        let counts = |packets: u64| {
            let bytes = zerocopy::IntoBytes::as_bytes(&Counts { packets, bytes: 1, new_flows: 0, drops: 2 })
                .iter()
                .map(u8::to_string)
                .collect::<Vec<_>>();
            bytes.join(" ")
        };
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)? as u64;
        let path = place.pins.join("listener_counts");
        // bpftool writes the same value for every CPU.
        let update = format!("map update pinned {} key 4 0 0 0 value {}", path.display(), counts(5));
        command("bpftool", &update)?;
        let sum = data_path.maps.listener_counts(&[4, 5])?;
        assert_eq!(sum[0], Counts { packets: 5 * cpus, bytes: cpus, new_flows: 0, drops: 2 * cpus });
        assert_eq!(sum[1], Counts::default());
        data_path.maps.reset_listener_counts(4)?;
        assert_eq!(data_path.maps.listener_counts(&[4])?, [Counts::default()]);
        data_path.maps.reset_slot_counts(0)?;
        assert!(data_path.maps.reasons()?.iter().all(|(_, count)| *count == 0));
        Ok(())
    });
}

/// A flow in both directions as the data path would have written it, `silent` jiffies ago in each.
fn put_flow(
    maps: &PinnedMaps,
    tables: [Table; 2],
    at: (u32, Slot),
    client: Client,
    port: u16,
    silent: [Option<u32>; 2],
) {
    let now = maps.clock.now().unwrap();
    let (slot, seed) = (at.1, maps.config.seed);
    let entry = |age: u32, port| Entry {
        slot: at.0,
        generation: slot.generation,
        life: Life { seen: now.wrapping_sub(age), state: 0 },
        port,
        ..Entry::default()
    };
    if let Some(age) = silent[0] {
        let hash = client_tuple(&client, &slot).place(seed);
        maps.table(tables[0]).insert(hash, &entry(age, port), Some(client)).unwrap();
    }
    if let Some(age) = silent[1] {
        let hash = reply_tuple(&client, &slot, port).place(seed);
        maps.table(tables[1]).insert(hash, &entry(age, client.port), None).unwrap();
    }
}

fn client(port: u16) -> Client {
    Client { address: Ipv4Addr::new(198, 51, 100, 7).into(), port, zero: [0; 6] }
}

const FULL: [Table; 2] = [Table::Flows, Table::Replies];
const HALF: [Table; 2] = [Table::HalfFlows, Table::HalfReplies];

#[test]
fn the_sweep_removes_what_is_over_in_both_directions_and_counts_the_rest() {
    in_namespace(|place| {
        let mut data_path = place.open()?;
        let hz = data_path.maps.config.hz;
        let five = (5, Slot { idle: 350 * hz, ..slot(1, 9) });
        data_path.maps.put_slot(5, &five.1)?;
        let maps = &data_path.maps;
        let put = |tables, port, silent| put_flow(maps, tables, five, client(port), port, silent);
        let old = 351 * hz;
        put(FULL, 1, [Some(0), Some(0)]);
        put(FULL, 2, [Some(0), Some(old)]);
        put(FULL, 3, [Some(old), Some(0)]);
        put(FULL, 4, [Some(old), Some(old)]);
        put(FULL, 5, [Some(old), None]);
        put(FULL, 6, [None, Some(old)]);
        put(FULL, 7, [None, Some(0)]);
        put(HALF, 8, [Some(0), Some(0)]);
        put(HALF, 9, [Some(61 * hz), Some(61 * hz)]);
        let stale = (5, Slot { generation: 8, ..five.1 });
        put_flow(maps, FULL, stale, client(10), 10, [Some(0), Some(0)]);
        let direct = Entry {
            slot: NO_SLOT,
            life: Life { seen: maps.clock.now()?.wrapping_sub(61 * hz), state: state::DIRECT },
            ..Entry::default()
        };
        let hash = reply_tuple(&client(11), &five.1, 11).place(maps.config.seed);
        maps.table(Table::HalfReplies).insert(hash, &direct, None).context("room")?;

        let mut sweep = Sweep::default();
        let now = maps.clock.now()?;
        let mut ticks = 1;
        while !sweep.tick(maps, now, 3) {
            ticks += 1;
        }
        assert!(ticks > 3, "the work is bounded");
        let tally = sweep.tally();
        assert_eq!((tally.total().established, tally.total().half_open), (3, 1));
        assert_eq!((tally.slot(5).all(), tally.listener(2).all(), tally.slot(6).all()), (4, 4, 0));
        // 4: two, 5: one, 6: one, 9: two, the stale one: two, the direct one: one.
        assert_eq!(tally.removed(), 9);
        let entries = |table| maps.fill(table).entries;
        assert_eq!(FULL.map(entries), [3, 4]);
        assert_eq!(HALF.map(entries), [1, 1]);

        let list = maps.flows(&FlowFilter { listener: None, client: None, limit: 2 })?;
        assert_eq!((list.total, list.flows.len()), (4, 2));
        assert_eq!(list.flows[0].stage, Stage::Established);
        assert_eq!(list.flows[0].client.ip(), Ipv4Addr::new(198, 51, 100, 7));
        assert!(list.flows.iter().all(|flow| flow.idle_seconds == 0));
        let other = Some(Ipv4Addr::new(198, 51, 100, 8).into());
        assert_eq!(maps.flows(&FlowFilter { listener: None, client: other, limit: 9 })?.total, 0);
        Ok(())
    });
}

#[test]
fn the_sweep_keeps_what_todays_ring_would_not_give_again() {
    in_namespace(|place| {
        let mut data_path = place.open()?;
        data_path.maps.put_slot(5, &slot(1, 9))?;
        data_path.maps.put_slot(6, &slot(2, 9))?;
        // A ring of 251 entries that all lead to member 0, slot 6.
        data_path.maps.write_ring_words(100, &[0; 63])?;
        data_path.maps.write_ring_words(1, &[Members { ring: 100, size: 251 }.word(), 6])?;
        data_path.maps.set_choice(2, 1)?;
        let maps = &data_path.maps;
        put_flow(maps, FULL, (5, slot(1, 9)), client(1), 1, [Some(0), Some(0)]);
        put_flow(maps, FULL, (6, slot(2, 9)), client(2), 2, [Some(0), Some(0)]);
        put_flow(maps, FULL, (6, slot(2, 9)), client(3), 3333, [Some(0), Some(0)]);
        let mut sweep = Sweep::default();
        let now = maps.clock.now()?;
        sweep.walk(maps, now);
        let kept = |at: Slot, port, rewritten| -> [bool; 2] {
            let seed = maps.config.seed;
            let keep = |table, hash| {
                let (_, entry) = maps.table(table).find(hash).unwrap();
                entry.life.state & state::KEEP != 0
            };
            [
                keep(Table::Flows, client_tuple(&client(port), &at).place(seed)),
                keep(Table::Replies, reply_tuple(&client(port), &at, rewritten).place(seed)),
            ]
        };
        assert_eq!(kept(slot(1, 9), 1, 1), [true, true], "the ring has moved");
        assert_eq!(kept(slot(2, 9), 2, 2), [false, false], "the ring gives it again");
        assert_eq!(kept(slot(2, 9), 3, 3333), [true, true], "its port was rewritten");
        // The ring moves back.
        data_path.maps.write_ring_words(50, &[Members { ring: 100, size: 251 }.word(), 5])?;
        data_path.maps.set_choice(2, 50)?;
        let maps = &data_path.maps;
        sweep.walk(maps, now);
        let (_, entry) = maps
            .table(Table::Replies)
            .find(reply_tuple(&client(1), &slot(1, 9), 1).place(maps.config.seed))
            .context("there")?;
        assert_eq!(entry.life.state & state::KEEP, 0);
        Ok(())
    });
}

/// Keeps what is logged.
struct Lines(Mutex<Vec<String>>);

impl log::Log for Lines {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        self.0.lock().unwrap().push(record.args().to_string());
    }

    fn flush(&self) {}
}

static LINES: Lines = Lines(Mutex::new(Vec::new()));

#[test]
fn the_data_path_logs_where_it_is_asked_to_and_is_silent_else() {
    in_namespace(|place| {
        log::set_logger(&LINES).map_err(|error| anyhow::anyhow!("{error}"))?;
        log::set_max_level(log::LevelFilter::Trace);
        let mut frame = Vec::new();
        let headers =
            etherparse::PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([198, 51, 100, 7], [192, 0, 2, 10], 64);
        headers.tcp(40_000, 80, 1, 1024).syn().write(&mut frame, &[])?;
        let dropped =
            || LINES.0.lock().unwrap().iter().filter(|line| line.contains("dropped: reason")).count();
        for (log, lines) in [(DataPathLog::Debug, 1), (DataPathLog::Info, 2), (DataPathLog::Off, 2)] {
            let mut data_path = DataPath::open(&Options { log, ..place.options() })?;
            let bit = vip_bit(vip().words());
            data_path.maps.put_vip(&vip(), &Vip { flags: 0 })?;
            data_path.maps.set_vip_filter_word(bit / 64, 1 << (bit % 64))?;
            let program: &Xdp = data_path.programs().program("nlb_xdp").context("the program")?.try_into()?;
            let run = program.test_run(TestRunOptions { data_in: Some(&frame), ..TestRunOptions::new() })?;
            assert_eq!(run.return_value, 1, "XDP_DROP: a VIP without this listener");
            if let Some(mut log) = data_path.take_log() {
                log.flush();
            }
            assert_eq!(dropped(), lines, "{log:?}");
            let reasons = data_path.maps.reasons()?;
            assert!(reasons.iter().any(|(reason, count)| *reason == Reason::NoListener && *count > 0));
            data_path.leave();
        }
        Ok(())
    });
}
