//! What `cargo xtask bench` measures: programs that restore their packet, take the way of a packet, and check where it ended.
//!
//! A test run repeats on the same buffer, so a program that readdresses would see its own output from the second time on.
//! Each program here first writes the headers back, with the next client in them; the `restore` ones do only that, and
//! their cost is taken off. Nothing of this is in the product's object.
#![no_std]
#![no_main]
#![allow(internal_features, reason = "the target has its atomics only as intrinsics")]
#![feature(asm_experimental_arch, core_intrinsics)]

mod case;
mod clock;
mod counts;
mod frame;
mod maps;
mod tables;

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::btf_maps::{Array, PerCpuArray};
use aya_ebpf::macros::{btf_map, classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use case::{CLIENTS, Case, HEADER_WORDS};
use frame::{SkbFrame, XdpFrame};
use nlb_common::decide;
use nlb_common::frame::{Bytes, Frame};
use nlb_common::reasons::{Kind, Reason};
use tables::Maps;

const MMAPABLE: usize = 0x400;

#[btf_map(name = "bench_case")]
static CASE: Array<Case, 1, MMAPABLE> = Array::new();
#[btf_map(name = "bench_clients")]
static ORDER: Array<u64, CLIENTS, MMAPABLE> = Array::new();
/// Whose turn it is.
#[btf_map(name = "bench_turn")]
static TURN: PerCpuArray<u64, 1> = PerCpuArray::new();
/// Runs that did not end as the case says: must be 0.
#[btf_map(name = "bench_strays")]
static STRAYS: PerCpuArray<u64, 1> = PerCpuArray::new();

/// Where the IP header begins.
const IP: usize = 14;
/// Bytes of an Ethernet, an IPv4 or IPv6 and a TCP header.
type Headers4 = [u32; 10];
type Headers6 = [u32; HEADER_WORDS];

/// Words that change from one client to the next: of an address, and of the two ports.
struct Place {
    address: usize,
    ports: usize,
}

const CLIENT4: Place = Place { address: 3, ports: 5 };
const CLIENT6: Place = Place { address: 5, ports: 10 };
/// In an answer the client is the destination.
const ANSWERED4: Place = Place { address: 4, ports: 5 };

/// The case, and the client whose turn it is.
#[inline(always)]
fn turn() -> Option<(&'static Case, u64)> {
    let case = CASE.get(0)?;
    let turn = TURN.get_ptr_mut(0)?;
    // SAFETY: this CPU's own element.
    let client = unsafe {
        *turn += 1;
        ORDER.get(*turn as u32 & case.mask)?
    };
    Some((case, *client))
}

#[inline(always)]
fn headers4(case: &Case, client: u64, place: &Place) -> Headers4 {
    let mut words = [0; 10];
    let mut i = 0;
    while i < words.len() {
        words[i] = case.headers[i];
        i += 1;
    }
    words[place.address] = client as u32;
    words[place.ports] |= (client >> 32) as u32;
    words
}

#[inline(always)]
fn headers6(case: &Case, client: u64) -> Headers6 {
    let mut words = case.headers;
    words[CLIENT6.address] = client as u32;
    words[CLIENT6.ports] |= (client >> 32) as u32;
    words
}

#[inline(always)]
fn restore4(ctx: &XdpContext) -> Option<&'static Case> {
    let (case, client) = turn()?;
    XdpFrame::new(ctx.ctx).write(IP, headers4(case, client, &CLIENT4))?;
    Some(case)
}

#[inline(always)]
fn restore6(ctx: &XdpContext) -> Option<&'static Case> {
    let (case, client) = turn()?;
    XdpFrame::new(ctx.ctx).write(IP, headers6(case, client))?;
    Some(case)
}

#[inline(always)]
fn restore_answer(ctx: &TcContext) -> Option<&'static Case> {
    let (case, client) = turn()?;
    SkbFrame::new(ctx.skb.skb).store(IP, &headers4(case, client, &ANSWERED4))?;
    Some(case)
}

/// Counts a run that ended otherwise than the case says.
#[inline(always)]
fn check(case: &Case, reason: Reason) {
    if reason as u32 != case.expected {
        stray();
    }
}

#[inline(always)]
fn stray() {
    if let Some(strays) = STRAYS.get_ptr_mut(0) {
        // SAFETY: this CPU's own counter.
        unsafe { *strays += 1 };
    }
}

#[inline(always)]
fn action(reason: Reason) -> u32 {
    match reason.kind() {
        Kind::Dropped => XDP_DROP,
        Kind::Forwarded | Kind::Passed | Kind::Noted => XDP_PASS,
    }
}

/// The floor: what a packet costs that is sent back with its MAC addresses exchanged.
#[xdp(frags)]
pub fn floor_tx(ctx: XdpContext) -> u32 {
    let mut frame = XdpFrame::new(ctx.ctx);
    let Some([to, from]) = frame.read::<[[u16; 3]; 2]>(0) else { return XDP_ABORTED };
    match frame.write(0, [from, to]) {
        Some(()) => XDP_TX,
        None => XDP_ABORTED,
    }
}

/// The other floor: what it costs to be called at all.
#[xdp(frags)]
pub fn floor_pass(_ctx: XdpContext) -> u32 {
    XDP_PASS
}

/// The floor at TC.
#[classifier]
pub fn floor_tc(_ctx: TcContext) -> i32 {
    -1
}

/// The product's program without a logging line, on a packet that it leaves alone and that needs no restoring.
#[xdp(frags)]
pub fn without_log(ctx: XdpContext) -> u32 {
    action(decide::ingress(&mut XdpFrame::new(ctx.ctx), &Maps::ingress(ctx.ctx)))
}

/// Restores alone, IPv4.
#[xdp(frags)]
pub fn restore_ipv4(ctx: XdpContext) -> u32 {
    if restore4(&ctx).is_none() {
        stray();
    }
    XDP_PASS
}

/// Restores alone, IPv6.
#[xdp(frags)]
pub fn restore_ipv6(ctx: XdpContext) -> u32 {
    if restore6(&ctx).is_none() {
        stray();
    }
    XDP_PASS
}

/// Restores an answer alone.
#[classifier]
pub fn restore_reply(ctx: TcContext) -> i32 {
    if restore_answer(&ctx).is_none() {
        stray();
    }
    -1
}

/// A client's packet, IPv4.
#[xdp(frags)]
pub fn ingress_ipv4(ctx: XdpContext) -> u32 {
    let Some(case) = restore4(&ctx) else { return XDP_ABORTED };
    let reason = decide::ingress(&mut XdpFrame::new(ctx.ctx), &Maps::ingress(ctx.ctx));
    check(case, reason);
    action(reason)
}

/// A client's packet, IPv6.
#[xdp(frags)]
pub fn ingress_ipv6(ctx: XdpContext) -> u32 {
    let Some(case) = restore6(&ctx) else { return XDP_ABORTED };
    let reason = decide::ingress(&mut XdpFrame::new(ctx.ctx), &Maps::ingress(ctx.ctx));
    check(case, reason);
    action(reason)
}

/// A target's answer, IPv4.
#[classifier]
pub fn egress_ipv4(ctx: TcContext) -> i32 {
    let Some(case) = restore_answer(&ctx) else { return 0 };
    check(case, decide::egress(&mut SkbFrame::new(ctx.skb.skb), &Maps::egress()));
    -1
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
