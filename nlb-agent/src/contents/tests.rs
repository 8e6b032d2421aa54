//! Reading back, and that every kind of incoherence is seen.

use super::*;
use crate::control::Control;
use crate::model::{self, Forwarding, Placed};
use crate::slots::Epoch;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

const LIMITS: Limits = Limits { listeners: 4, vips: 4, slots: 16, ring_words: 1_000, hz: 100 };

type Spoil = fn(&mut Contents);

fn forwarding(port: u16) -> Forwarding {
    let placed = |host| Placed {
        key: model::TargetKey { ip: IpAddr::from([10, 0, 0, host]), port: 8080, uid: None },
        incarnation: 0,
        share: 1,
    };
    Forwarding {
        listener: ListenerKey { vip: Ipv4Addr::new(192, 0, 2, 1).into(), port, protocol: 6, zero: 0 },
        node_vip: false,
        idle_timeout: Duration::from_secs(350),
        registered: 3,
        targets: vec![placed(1), placed(2), placed(3)],
    }
}

fn filled() -> Contents {
    let mut control = Control::new(LIMITS);
    control.apply(vec![forwarding(80), forwarding(81)], Epoch(0));
    control.contents().clone()
}

#[test]
fn every_incoherence_is_seen() {
    let spoils: [(&str, Spoil); 10] = [
        ("denies the VIP", |maps| maps.vip_filter.fill(0)),
        ("stands on no VIP", |maps| maps.vips.clear()),
        ("have the id", |maps| maps.listeners.values_mut().for_each(|listener| listener.id = 0)),
        ("beyond the map", |maps| maps.listeners.values_mut().next().unwrap().id = 4),
        ("leads nowhere", |maps| maps.choices[0] = 999),
        ("empty slot", |maps| maps.slots[1] = free_slot(2)),
        ("leads to slot", |maps| maps.choices.swap(0, 1)),
        ("is not in `targets`", |maps| maps.targets.clear()),
        ("the filter denies TargetKey", |maps| maps.target_filter.fill(0)),
        ("another target or none", |maps| {
            maps.targets.insert(TargetKey::default(), sharers(&[0]));
            maps.target_filter.fill(u64::MAX);
        }),
    ];
    assert_eq!(filled().incoherence(), None);
    for (words, spoil) in spoils {
        let mut maps = filled();
        spoil(&mut maps);
        let found = maps.incoherence();
        assert!(found.as_ref().is_some_and(|found| found.contains(words)), "{words}: {found:?}");
        assert!(!maps.is_coherent());
    }
}

#[test]
fn maps_of_another_size_are_refused_by_name() {
    let dump = MapDump { vip_filter: vec![0; 1_024], choices: vec![0; 5], ..MapDump::default() };
    let error = Contents::read(dump, &LIMITS).unwrap_err();
    assert_eq!(error.to_string(), "the map `choices` has 5 elements, not 4");
}

#[test]
fn a_choice_leads_to_as_many_members_as_its_ring_names() {
    let maps = filled();
    let pick = maps.pick(maps.choices[0]).unwrap();
    assert_eq!((pick.members.size, pick.slots.as_slice()), (1_021, [0, 1, 2].as_slice()));
    assert_eq!(maps.pick(0), None);
    assert_eq!(maps.pick(u64::MAX), None);
}

#[test]
fn sharers_are_the_lowest_slots_once() {
    let all = sharers(&[9, 1, NO_SLOT, 1, 8, 2, 7, 3, 6, 4, 5]);
    assert_eq!(all.slots, [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(sharers(&[4]).slots[..2], [4, NO_SLOT]);
}
