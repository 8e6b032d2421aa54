//! Packet access: the only pointer arithmetic on packets in the project.

use aya_ebpf::bindings::{__sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, xdp_md};
use aya_ebpf::helpers::{bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_skb_pull_data, bpf_skb_store_bytes};
use core::arch::asm;
use core::ptr::read_volatile;
use nlb_common::frame::{self, Bytes, FARTHEST, Frame, Readdress};
use nlb_common::parse::Packet;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// The address of `size` packet bytes at `offset`, if they are all there.
///
/// # Safety
/// Both pointers lead to the fields of those names of a program's context, which the verifier knows.
#[inline(always)]
unsafe fn within(data: *const u32, data_end: *const u32, offset: usize, size: usize) -> Option<usize> {
    if offset > FARTHEST {
        return None;
    }
    // SAFETY: says the caller; volatile keeps LLVM from splitting the context into arguments.
    let (data, end) = unsafe { (read_volatile(data) as usize, read_volatile(data_end) as usize) };
    let start = data + bounded(offset);
    if start + size > end { None } else { Some(start) }
}

/// The same offset, below 4096 for the verifier whatever LLVM does: a kernel before 6.3 forgets what was proved of a number
/// that is read twice from the stack.
#[inline(always)]
fn bounded(mut offset: usize) -> usize {
    const _: () = assert!(FARTHEST <= 4095);
    // SAFETY: arithmetic on one register.
    unsafe { asm!("{0} &= 4095", inout(reg) offset, options(pure, nomem, nostack)) };
    offset
}

/// A packet at XDP: its bytes are read and written in place.
pub struct XdpFrame {
    ctx: *mut xdp_md,
}

impl XdpFrame {
    /// The frame of a program's context.
    #[inline(always)]
    pub fn new(ctx: *mut xdp_md) -> Self {
        Self { ctx }
    }

    #[inline(always)]
    fn at(&self, offset: usize, size: usize) -> Option<usize> {
        // SAFETY: the context outlives the program.
        unsafe { within(&raw const (*self.ctx).data, &raw const (*self.ctx).data_end, offset, size) }
    }
}

impl Frame for XdpFrame {
    #[inline(always)]
    fn read<T: FromBytes + Immutable>(&self, offset: usize) -> Option<T> {
        let at = self.at(offset, size_of::<T>())?;
        // SAFETY: `at` proved that the bytes are there; BPF loads need no alignment on the machines it serves.
        Some(unsafe { core::ptr::read(at as *const T) })
    }

    #[inline(always)]
    fn readdress(&mut self, packet: &Packet, change: &Readdress) -> Option<()> {
        frame::readdress(self, packet, change)
    }

    #[inline(always)]
    fn segments(&self) -> u32 {
        1
    }
}

impl Bytes for XdpFrame {
    #[inline(always)]
    fn write<T: IntoBytes + Immutable + Copy>(&mut self, offset: usize, value: T) -> Option<()> {
        let at = self.at(offset, size_of::<T>())?;
        // SAFETY: as in `read`; nobody else has the packet.
        unsafe { core::ptr::write(at as *mut T, value) };
        Some(())
    }
}

/// A packet at TC egress: read in place, written by the helpers that know of partial checksums and segmentation offloads.
pub struct SkbFrame {
    ctx: *mut __sk_buff,
}

/// Bytes that hold every header this program reads in practice.
const HEADERS: u32 = 128;

impl SkbFrame {
    /// The frame of a program's context, its headers in linear memory.
    #[inline(always)]
    pub fn new(ctx: *mut __sk_buff) -> Self {
        // SAFETY: the context outlives the program.
        unsafe {
            let len = (*ctx).len;
            let wanted = if len < HEADERS { len } else { HEADERS };
            if read_volatile(&raw const (*ctx).data_end) - read_volatile(&raw const (*ctx).data) < wanted {
                // A packet that cannot be pulled is read as cut off.
                let _refused = bpf_skb_pull_data(ctx, wanted);
            }
        }
        Self { ctx }
    }

    #[inline(always)]
    fn at(&self, offset: usize, size: usize) -> Option<usize> {
        // SAFETY: as for `XdpFrame`.
        unsafe { within(&raw const (*self.ctx).data, &raw const (*self.ctx).data_end, offset, size) }
    }

    /// Writes bytes as they are, their checksums left to the caller; `None` where the packet ends before them.
    #[inline(always)]
    pub fn store<T: IntoBytes + Immutable>(&mut self, offset: usize, value: &T) -> Option<()> {
        // SAFETY: the helper copies `size_of::<T>()` bytes from a live value and checks the offset itself.
        let rc = unsafe {
            bpf_skb_store_bytes(
                self.ctx,
                offset as u32,
                core::ptr::from_ref(value).cast(),
                size_of::<T>() as u32,
                0,
            )
        };
        if rc == 0 { Some(()) } else { None }
    }

    #[inline(always)]
    fn sum(&mut self, offset: usize, old: u32, new: u32, flags: u64) -> Option<()> {
        // SAFETY: the helper checks the offset itself.
        let rc =
            unsafe { bpf_l4_csum_replace(self.ctx, offset as u32, u64::from(old), u64::from(new), flags) };
        if rc == 0 { Some(()) } else { None }
    }
}

impl Frame for SkbFrame {
    #[inline(always)]
    fn read<T: FromBytes + Immutable>(&self, offset: usize) -> Option<T> {
        let at = self.at(offset, size_of::<T>())?;
        // SAFETY: as for `XdpFrame`.
        Some(unsafe { core::ptr::read(at as *const T) })
    }

    #[inline(always)]
    fn readdress(&mut self, packet: &Packet, change: &Readdress) -> Option<()> {
        let (old_address, old_port, other_port, address_at, port_at, other_at) = packet.side(change.end);
        let sum_at = packet.checksum_at();
        let kind = if packet.is_udp() { u64::from(BPF_F_MARK_MANGLED_0) } else { 0 };
        let pseudo = kind | u64::from(BPF_F_PSEUDO_HDR) | 4;
        if packet.network.ipv4 {
            let at = packet.network.offset as u32 + 10;
            // SAFETY: the helper checks the offset itself.
            let rc = unsafe {
                bpf_l3_csum_replace(self.ctx, at, u64::from(old_address[3]), u64::from(change.address[3]), 4)
            };
            if rc != 0 {
                return None;
            }
            self.sum(sum_at, old_address[3], change.address[3], pseudo)?;
            self.store(address_at, &change.address[3])?;
        } else {
            for (old, new) in old_address.into_iter().zip(change.address) {
                self.sum(sum_at, old, new, pseudo)?;
            }
            self.store(address_at, &change.address)?;
        }
        self.sum(sum_at, u32::from(old_port.to_be()), u32::from(change.port.to_be()), kind | 2)?;
        self.store(port_at, &change.port.to_be())?;
        if change.other_port != other_port {
            self.sum(sum_at, u32::from(other_port.to_be()), u32::from(change.other_port.to_be()), kind | 2)?;
            self.store(other_at, &change.other_port.to_be())?;
        }
        Some(())
    }

    #[inline(always)]
    fn segments(&self) -> u32 {
        // SAFETY: the context outlives the program.
        let segments = unsafe { (*self.ctx).gso_segs };
        if segments == 0 { 1 } else { segments }
    }
}
