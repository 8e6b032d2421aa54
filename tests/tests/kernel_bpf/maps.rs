//! Maps that are written and read back, counters, and the data path's log.

use super::{command, in_namespace, slot, vip};
use anyhow::Context;
use aya::programs::Xdp;
use aya::{TestRun as _, TestRunOptions};
use nlb_agent::args::DataPathLog;
use nlb_agent::bpf::{DataPath, Options, PinnedMaps};
use nlb_agent::contents::MapDump;
use nlb_common::hash::vip_bit;
use nlb_common::layout::{
    Counts, Listener, ListenerKey, NO_SLOT, SHARERS, Sharers, Slot, TCP, TargetKey, Vip,
};
use nlb_common::reasons::Reason;
use std::sync::Mutex;

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
            let bytes =
                zerocopy::IntoBytes::as_bytes(&Counts { packets, bytes: 1, new_flows: 0, drops: [2, 0, 1] })
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
        assert_eq!(
            data_path.maps.listener_counts(4)?,
            Counts { packets: 5 * cpus, bytes: cpus, new_flows: 0, drops: [2 * cpus, 0, cpus] }
        );
        assert_eq!(data_path.maps.listener_counts(5)?, Counts::default());
        data_path.maps.reset_listener_counts(4)?;
        assert_eq!(data_path.maps.listener_counts(4)?, Counts::default());
        assert!(data_path.maps.reasons()?.iter().all(|(_, count)| *count == 0));
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
