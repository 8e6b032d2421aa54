//! The clock: jiffies, which the verifier turns into a load.

use aya_ebpf::Global;
use aya_ebpf::helpers::bpf_jiffies64;

/// Jiffies per second, found out by the agent.
#[unsafe(no_mangle)]
static HZ: Global<u32> = Global::new(250);
/// A time that stands still, for tests that compare; 0 = the kernel's.
#[unsafe(no_mangle)]
static FIXED_NOW: Global<u32> = Global::new(0);

/// Jiffies, low 32 bits.
#[inline(always)]
pub fn now() -> u32 {
    match FIXED_NOW.load() {
        // SAFETY: the helper takes nothing and is there since kernel 5.5.
        0 => unsafe { bpf_jiffies64() as u32 },
        fixed => fixed,
    }
}

/// Jiffies in a second.
#[inline(always)]
pub fn second() -> u32 {
    HZ.load()
}
