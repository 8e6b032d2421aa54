//! The system calls that no crate offers: links by file descriptor, mapped arrays, `membarrier`, the tick, leases on files.
//!
//! aya attaches XDP by link but falls back to netlink without a word where the link is refused, and gives no descriptor to
//! what it has pinned; whoever must replace, look at and pin links needs the five commands below.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::{NonNull, null_mut};
use std::slice;
use std::sync::atomic::AtomicU64;

const PROG_LOAD: i32 = 5;
const OBJ_PIN: i32 = 6;
const OBJ_GET: i32 = 7;
const PROG_TEST_RUN: i32 = 10;
const OBJ_GET_INFO_BY_FD: i32 = 15;
const LINK_CREATE: i32 = 28;
const LINK_UPDATE: i32 = 29;
const LINK_DETACH: i32 = 34;
/// `F_SETSIG`, which libc does not name.
const F_SETSIG: i32 = 10;

/// Where a link attaches (`enum bpf_attach_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Hook {
    /// Arriving frames.
    Xdp = 37,
    /// Leaving packets, kernel 6.6 and newer.
    TcxEgress = 47,
}

/// What the kernel says of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkInfo {
    /// The program's id.
    pub program: u32,
    /// The device's index; 0 once the device or the attachment is gone.
    pub interface: u32,
}

/// `attr` must be the command's part of `union bpf_attr`, its pointers valid for the call.
fn bpf<T>(command: i32, attr: &mut T) -> io::Result<i32> {
    // SAFETY: the kernel reads and writes at most `size_of::<T>()` bytes at `attr` and keeps no pointer; every caller is in
    // this file and passes what its command expects.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<T>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer as i32) }
}

fn descriptor(number: i32) -> OwnedFd {
    // SAFETY: only called with what the kernel has just returned as a new descriptor.
    unsafe { OwnedFd::from_raw_fd(number) }
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// Attaches a program to a device, for as long as the link is open or pinned.
pub fn link_create(program: BorrowedFd<'_>, interface: u32, hook: Hook, flags: u32) -> io::Result<OwnedFd> {
    let mut attr = [number(program), interface, hook as u32, flags];
    bpf(LINK_CREATE, &mut attr).map(descriptor)
}

/// Puts another program into a link; no packet sees none or both. ENOLINK: the device is gone.
pub fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = [number(link), number(program), 0, 0];
    bpf(LINK_UPDATE, &mut attr).map(drop)
}

/// Ends an attachment whoever else holds the link.
pub fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    bpf(LINK_DETACH, &mut [number(link)]).map(drop)
}

#[repr(C)]
struct InfoAttr {
    fd: u32,
    size: u32,
    at: u64,
}

fn info(fd: BorrowedFd<'_>) -> io::Result<[u32; 16]> {
    let mut info = [0u32; 16];
    let at = info.as_mut_ptr() as u64;
    let mut attr = InfoAttr { fd: number(fd), size: size_of_val(&info) as u32, at };
    bpf(OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(info)
}

/// What a link is attached to.
pub fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    // struct bpf_link_info: type, id, prog_id, padding, then for XDP and tcx alike the interface.
    let info = info(link)?;
    Ok(LinkInfo { program: info[2], interface: info[4] })
}

/// The id of a program.
pub fn program_id(program: BorrowedFd<'_>) -> io::Result<u32> {
    // struct bpf_prog_info: type, id.
    Ok(info(program)?[1])
}

/// Whether anybody has a file, that is open for reading here, open for writing. The kernel grants a read lease only where
/// nobody has; this one is given back at once. EINVAL: the file system knows no leases. EACCES: somebody else's file, and no
/// CAP_LEASE.
pub fn has_writer(file: BorrowedFd<'_>) -> io::Result<bool> {
    // Whoever opens the file for writing while the lease lasts waits for a moment, and the kernel tells us by a signal: by
    // default SIGIO, which ends a process; SIGURG is ignored.
    // SAFETY: these commands take a number and touch no memory of ours.
    let set = |command, value: i32| unsafe { libc::fcntl(file.as_raw_fd(), command, value) };
    if set(F_SETSIG, libc::SIGURG) < 0 {
        return Err(io::Error::last_os_error());
    }
    if set(libc::F_SETLEASE, libc::F_RDLCK) == 0 {
        set(libc::F_SETLEASE, libc::F_UNLCK);
        return Ok(false);
    }
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::WouldBlock { Ok(true) } else { Err(error) }
}

#[repr(C)]
struct ObjectAttr {
    path: u64,
    fd: u32,
    flags: u32,
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

/// Pins a link, program or map. EPERM: the name has a dot, or the folder is no BPF file system.
pub fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    bpf(OBJ_PIN, &mut ObjectAttr { path: path.as_ptr() as u64, fd: number(object), flags: 0 }).map(drop)
}

/// Opens what is pinned at `path`.
pub fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    bpf(OBJ_GET, &mut ObjectAttr { path: path.as_ptr() as u64, fd: 0, flags: 0 }).map(descriptor)
}

/// Waits until every packet that was in the data path when this was called has left it (an RCU grace period, about 10 ms).
pub fn grace_period() -> io::Result<()> {
    const MEMBARRIER_CMD_GLOBAL: i32 = 1;
    // SAFETY: takes two integers.
    let answer = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Nanoseconds between two ticks of the kernel: what its coarse clock resolves.
pub fn tick_nanoseconds() -> io::Result<u64> {
    let mut resolution = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one `timespec`.
    let answer = unsafe { libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, &raw mut resolution) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(resolution.tv_nsec.cast_unsigned()) }
}

#[repr(C)]
struct ProgramAttr {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
}

#[repr(C)]
#[derive(Default)]
struct TestRunAttr {
    program: u32,
    returned: u32,
    size_in: u32,
    size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
}

/// A program of two instructions that returns jiffies.
#[derive(Debug)]
pub struct Jiffies(OwnedFd);

impl Jiffies {
    /// Loads it; needs CAP_BPF.
    pub fn load() -> io::Result<Self> {
        const SOCKET_FILTER: u32 = 1;
        // call bpf_jiffies64 (helper 118); exit.
        let code: [u64; 2] = [118 << 32 | 0x85, 0x95];
        let license = c"GPL";
        let (instructions, license) = (code.len() as u32, license.as_ptr() as u64);
        let mut attr = ProgramAttr { kind: SOCKET_FILTER, instructions, code: code.as_ptr() as u64, license };
        bpf(PROG_LOAD, &mut attr).map(|fd| Self(descriptor(fd)))
    }

    /// Jiffies now, low 32 bits: the very clock that the data path writes into the flow tables.
    pub fn now(&self) -> io::Result<u32> {
        // The shortest packet that a test run takes.
        let packet = [0u8; 14];
        let mut attr = TestRunAttr {
            program: number(self.0.as_fd()),
            size_in: packet.len() as u32,
            data_in: packet.as_ptr() as u64,
            repeat: 1,
            ..TestRunAttr::default()
        };
        bpf(PROG_TEST_RUN, &mut attr)?;
        Ok(attr.returned)
    }
}

/// An array map as memory, word by word: the kernel and other CPUs read and write it at the same time.
#[derive(Debug)]
pub struct Mapping {
    at: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: nothing but atomics, valid until drop, on whatever thread.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `words` words of an array map that was made with `BPF_F_MMAPABLE`. EINVAL: the map is smaller.
    pub fn new(map: BorrowedFd<'_>, words: usize) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let raw = map.as_raw_fd();
        // SAFETY: a new mapping, nowhere near anything we have.
        let at = unsafe { libc::mmap(null_mut(), words * 8, protection, libc::MAP_SHARED, raw, 0) };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let at = NonNull::new(at.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Self { at, words })
    }

    /// The words.
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: mapped readable and writable for `words` words until drop, page-aligned; shared by atomics alone.
        unsafe { slice::from_raw_parts(self.at.as_ptr(), self.words) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this size, and nothing borrows it any more.
        unsafe { libc::munmap(self.at.as_ptr().cast(), self.words * 8) };
    }
}
