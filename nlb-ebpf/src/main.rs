//! The kernel's half of nlb: two entry points around the story that `nlb_common::decide` tells.
#![no_std]
#![no_main]
#![allow(internal_features, reason = "the target has its atomics only as intrinsics")]
#![feature(asm_experimental_arch, core_intrinsics)]

mod clock;
mod counts;
mod frame;
mod maps;
mod tables;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use aya_log_ebpf::{debug, info};
use frame::{SkbFrame, XdpFrame};
use nlb_common::decide;
use nlb_common::layout::PROBE_MARK;
use nlb_common::reasons::{Kind, Reason};
use tables::Maps;

/// `TCX_NEXT`: whatever comes after us on this device decides.
const NEXT: i32 = -1;

/// Every packet that arrives by an uplink.
#[xdp(frags)]
pub fn nlb_xdp(ctx: XdpContext) -> u32 {
    let reason = decide::ingress(&mut XdpFrame::new(ctx.ctx), &Maps::ingress(ctx.ctx));
    match reason.kind() {
        Kind::Dropped => {
            info!(&ctx, "dropped: reason {}", reason as u32);
            XDP_DROP
        }
        Kind::Forwarded | Kind::Passed | Kind::Noted => {
            if reason as u32 != Reason::NotForUs as u32 {
                debug!(&ctx, "passed on: reason {}", reason as u32);
            }
            XDP_PASS
        }
    }
}

/// Every packet that leaves by an uplink or another routed device.
#[classifier]
pub fn nlb_reply(ctx: TcContext) -> i32 {
    // SAFETY: the context outlives the program.
    if unsafe { (*ctx.skb.skb).mark } != PROBE_MARK {
        let reason = decide::egress(&mut SkbFrame::new(ctx.skb.skb), &Maps::egress());
        if reason as u32 != Reason::NotOurs as u32 {
            debug!(&ctx, "answered: reason {}", reason as u32);
        }
    }
    NEXT
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// The licence that the helpers ask for; the sources may be had under more.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 4] = *b"GPL\0";
