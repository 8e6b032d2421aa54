//! Every fixture on the host and in the kernel: the same verdict, the same bytes, the same counters.

use nlb_common::layout::Counts;
use nlb_common::reasons::Reason;
use nlb_common::scene::Scene;
use nlb_tests::fixtures::{self, Row};
use nlb_tests::kernel::{Direction, Kernel};
use std::collections::BTreeSet;

#[test]
fn every_row_holds_on_the_host() {
    for row in fixtures::rows() {
        let scene = fresh(&row.scene);
        let (reason, out) = on_host(&scene, &row);
        assert_eq!((reason, hex(&out)), (row.reason, hex(&row.out)), "{}", row.name);
        assert_eq!(*scene.host.reasons.borrow(), row.reasons(), "reasons of {}", row.name);
        assert_eq!(fixtures::counted(&scene.host), row.counts(), "counters of {}", row.name);
    }
}

#[test]
fn every_row_holds_in_the_kernel() {
    let mut kernel = Kernel::load().expect("the object loads");
    let names = ["slot_counts", "listener_counts"];
    for row in fixtures::rows() {
        let scene = fresh(&row.scene);
        kernel.write(&scene.host).expect("maps can be written");
        let counts = |kernel: &Kernel| {
            [kernel.slot_counts().expect("counters"), kernel.listener_counts().expect("counters")]
        };
        let (reasons, before) = (kernel.reasons().expect("reasons"), counts(&kernel));
        let run =
            kernel.run(row.direction, &row.frame).unwrap_or_else(|error| panic!("{}: {error:#}", row.name));
        assert_eq!(run.dropped, row.reason.is_drop(), "verdict of {}", row.name);
        assert_eq!(hex(&run.frame), hex(&row.out), "frame of {}", row.name);
        let moved =
            kernel.reasons().expect("reasons").iter().zip(&reasons).map(|(a, b)| a - b).collect::<Vec<_>>();
        assert_eq!(moved, row.reasons(), "reasons of {}", row.name);
        let after = counts(&kernel);
        for (kind, wanted) in row.counts().iter().enumerate() {
            for (i, wanted) in wanted.iter().enumerate() {
                let (a, b) = (after[kind][i], before[kind][i]);
                let drops = std::array::from_fn(|reason| a.drops[reason] - b.drops[reason]);
                let moved = Counts {
                    packets: a.packets - b.packets,
                    bytes: a.bytes - b.bytes,
                    new_flows: a.new_flows - b.new_flows,
                    drops,
                };
                assert_eq!(moved, *wanted, "{}[{i}] of {}", names[kind], row.name);
            }
        }
        on_host(&scene, &row);
        kernel.agree(&scene.host).unwrap_or_else(|error| panic!("tables of {}: {error:#}", row.name));
    }
}

#[test]
fn the_rows_cover_every_reason() {
    let rows = fixtures::rows();
    assert!(rows.len() >= 100, "{} rows", rows.len());
    // What only a real socket shows is the differential's and the namespaces'.
    let elsewhere = BTreeSet::from([Reason::LocalSocket]);
    let seen: BTreeSet<Reason> = rows
        .iter()
        .flat_map(|row| {
            Reason::ALL.iter().copied().zip(row.reasons()).filter(|(_, n)| *n > 0).map(|(r, _)| r)
        })
        .collect();
    let missing: Vec<&Reason> =
        Reason::ALL.iter().filter(|r| !seen.contains(r) && !elsewhere.contains(r)).collect();
    assert!(missing.is_empty(), "no row for {missing:?}");
}

/// The scene with its counters at zero.
fn fresh(scene: &Scene) -> Scene {
    let scene = scene.clone();
    scene.host.reasons.borrow_mut().fill(0);
    scene.host.slot_counts.borrow_mut().fill(Default::default());
    scene.host.listener_counts.borrow_mut().fill(Default::default());
    scene
}

fn on_host(scene: &Scene, row: &Row) -> (Reason, Vec<u8>) {
    match row.direction {
        Direction::Ingress => scene.ingress(&row.frame),
        Direction::Egress => scene.egress(&row.frame),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
