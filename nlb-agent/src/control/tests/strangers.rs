//! Targets whose address is another pod's leave listeners whose Service cannot be read after a restart.

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn strangers_leave_a_listener_that_cannot_be_read(chain in chain(), whom in any::<prop::sample::Index>()) {
        let (mut control, mut kernel, last) = run_chain(&chain, AMPLE);
        settle(&mut control, &mut kernel, last);
        let all: Vec<(ListenerKey, Occupant)> =
            control.seats.iter().flat_map(|(key, seat)| seat.occupants.iter().map(|it| (*key, it.clone()))).collect();
        prop_assume!(!all.is_empty());
        let (listener, stranger) = whom.get(&all);
        let is_strange = |key: &ListenerKey, it: &Occupant| key == listener && it == stranger;
        let mut again = Control::adopt(AMPLE, read_back(&kernel.maps, AMPLE), &control.saved());
        let mut kernel = Kernel::new(kernel.maps);
        let planned = again.apply_keeping(Vec::new(), &is_strange, Epoch(0));
        planned.steps.iter().for_each(|step| kernel.run(step));
        let (before, after) = (all.len(), again.seats.values().map(|seat| seat.occupants.len()).sum::<usize>());
        prop_assert_eq!(after + 1, before);
        let choice = kernel.maps.choices[kernel.maps.listeners[listener].id as usize];
        let picked = kernel.maps.pick(choice).map(|pick| pick.slots).unwrap_or_default();
        prop_assert!(!picked.contains(&stranger.slot));
        let old = control.now.pick(control.now.choices[control.now.listeners[listener].id as usize]);
        let stay = old.map(|pick| pick.slots).unwrap_or_default().into_iter().filter(|slot| *slot != stranger.slot);
        prop_assert_eq!(picked, stay.collect::<Vec<u32>>(), "the others share what it had");
        let planned = settle(&mut again, &mut kernel, planned);
        prop_assert_eq!(kernel.maps.slots[stranger.slot as usize].protocol, 0);
        prop_assert!(again.image(&Edits::default()) == kernel.maps);
        // The Service can be read at last.
        let mut wanted = chain.last().unwrap().0.clone();
        let gone = wanted.iter_mut().find(|it| it.listener == *listener).unwrap();
        gone.targets.retain(|it| {
            let known = stranger.known.as_ref().unwrap();
            (it.key.ip, it.key.port, &it.key.uid) != (stranger.ip, stranger.port, &known.uid)
        });
        let planned = again.apply(wanted.clone(), planned.epoch);
        planned.steps.iter().for_each(|step| kernel.run(step));
        prop_assert_eq!(seen(&kernel.maps), seen(scratch(&wanted, AMPLE).contents()));
        settle(&mut again, &mut kernel, planned);
        prop_assert_eq!(again.arena.free_words(), scratch(&wanted, AMPLE).arena.free_words());
    }
}
