//! Where a CPU counts a slot's packets: in a line of its own, which slots share.

use crate::maps;
use core::intrinsics::{AtomicOrdering, atomic_xadd};
use nlb_common::layout::{SLOT_LINES, SlotCounts};

/// This CPU's line for a slot's counters, which is the slot's from here on.
#[inline(always)]
pub fn slot_line(number: u32, generation: u32) -> Option<*mut SlotCounts> {
    let line = maps::SLOT_CPU_COUNTS.get_ptr_mut(number & (SLOT_LINES - 1))?;
    // SAFETY: this CPU's own line.
    if unsafe { (*line).slot != number || (*line).generation != generation } {
        nlb_take_line(number, generation);
    }
    Some(line)
}

/// Gives this CPU's line to a slot, after what the line holds was added to the counters of the slot that had it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn nlb_take_line(number: u32, generation: u32) -> u64 {
    let Some(line) = maps::SLOT_CPU_COUNTS.get_ptr_mut(number & (SLOT_LINES - 1)) else { return 0 };
    // SAFETY: this CPU's own line, and an element that all CPUs share: the sums are made by atomic additions, and the
    // agent writes the generation before any packet can be counted for it.
    unsafe {
        if let Some(shared) = maps::SLOT_COUNTS.get_ptr_mut((*line).slot)
            && (*shared).generation == (*line).generation
        {
            add(&raw mut (*shared).packets, (*line).packets);
            add(&raw mut (*shared).bytes, (*line).bytes);
            add(&raw mut (*shared).new_flows, (*line).new_flows);
        }
        (*line).packets = 0;
        (*line).bytes = 0;
        (*line).new_flows = 0;
        (*line).slot = number;
        (*line).generation = generation;
    }
    0
}

/// Adds to a word that other CPUs add to as well.
///
/// # Safety
/// `at` is an aligned word of a map element.
#[inline(always)]
unsafe fn add(at: *mut u64, number: u64) {
    // SAFETY: the caller's promise. Without a use of the result this is an atomic addition of every kernel.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(at, number) };
}
