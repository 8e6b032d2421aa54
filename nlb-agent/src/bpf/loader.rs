//! From the object in the agent's belly to programs in the kernel and maps under pins.

use super::clock::Clock;
use super::links::{AttachError, Links};
use super::log::LogForwarder;
use super::maps::Maps;
use super::pins::{Found, Lock, Pins, PinsError, Sizes, shapes};
use super::replacement::{self, Replacement};
use super::{OBJECT, log, sys};
use crate::args::DataPathLog;
use crate::host::privileges::Capabilities;
use aya::programs::{Program, ProgramError, ProgramFd, SchedClassifier, Xdp};
use aya::util::KernelVersion;
use aya::{Ebpf, EbpfError, EbpfLoader};
use nlb_common::layout::{Config, LAYOUT, WAYS};
use rand::RngCore;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::{fs, io};

/// Where and how large.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder of the pins, on a BPF file system.
    pub pin_path: PathBuf,
    /// How much new maps hold; maps that are there keep their sizes.
    pub sizes: Sizes,
    /// What the data path itself logs.
    pub log: DataPathLog,
    /// Whether pins of another layout are taken over while traffic goes on.
    pub replace_layout: bool,
    /// Jiffies at which the data path's clock stands still, for tests that compare; 0 = the kernel's own.
    pub fixed_now: u32,
}

impl Options {
    /// The defaults under this pin path.
    pub fn new(pin_path: &Path) -> Self {
        Self {
            pin_path: pin_path.to_owned(),
            sizes: Sizes::default(),
            log: DataPathLog::Off,
            replace_layout: false,
            fixed_now: 0,
        }
    }
}

/// Why the data path could not be opened; each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The build had no object.
    #[error("this agent was built without the eBPF object: run `cargo xtask build`")]
    NoObject,
    /// Before 6.1.
    #[error("kernel {0} is too old: nlb needs Linux 6.1 or newer")]
    OldKernel(String),
    /// Not allowed.
    #[error(
        "not permitted: this process lacks {0}; run it as root or give it CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
    )]
    Capabilities(String),
    /// Pins that cannot be used.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// An attachment that cannot be made anew.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The verifier's word.
    #[error("the kernel refused the program {program}: {error}; the end of its log:\n{log}")]
    Verifier {
        /// The program's name.
        program: &'static str,
        /// What `bpf(2)` returned.
        error: io::Error,
        /// The last lines of the verifier's log.
        log: String,
    },
    /// The loader.
    #[error("loading the eBPF object: {0}")]
    Loader(String),
    /// A system call.
    #[error("{what}: {error}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What came back.
        error: io::Error,
    },
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> OpenError {
    move |error| OpenError::System { what, error }
}

/// The data path of this node: loaded, pinned, and held by this agent alone.
#[derive(Debug)]
pub struct DataPath {
    /// Typed access to the maps.
    pub maps: Maps,
    /// What is attached where.
    pub links: Links,
    /// True if the maps were there already: read them back before writing.
    pub adopted: bool,
    /// What an operator should know of this start, one sentence each.
    pub notes: Vec<String>,
    replacement: Option<Replacement>,
    log: Option<LogForwarder>,
    ebpf: Ebpf,
    lock: Lock,
}

impl DataPath {
    /// Loads the programs over the pinned maps, or over new ones where there are none. Nothing is attached yet, and what
    /// an earlier agent attached goes on as it was. Pins of another layout are refused, or, with
    /// [`Options::replace_layout`], left as they are: the new maps lie beside them until [`Self::arrive`].
    pub fn open(options: &Options) -> Result<Self, OpenError> {
        check_host()?;
        let root = Pins::new(&options.pin_path);
        root.create()?;
        let lock = root.lock()?;
        replacement::resume(&root)?;
        let (replacement, pins) = match root.find() {
            Err(PinsError::OtherLayout { .. }) if options.replace_layout => {
                let (replacement, coming) = Replacement::begin(&root)?;
                (Some(replacement), coming)
            }
            Err(error) => return Err(error.into()),
            Ok(_) => (Replacement::left(&root)?, root.clone()),
        };
        let clock = Clock::new().map_err(system("reading the kernel's clock"))?;
        let wanted = options.sizes.rounded();
        let (sizes, config, adopted) = match pins.find()? {
            Found::Ours(sizes, config) => (sizes, config, true),
            Found::Nothing => {
                pins.clear_unused()?;
                (wanted, new_config(&clock), false)
            }
        };
        let mut notes = Vec::new();
        if sizes != wanted {
            notes.push(kept_sizes(sizes, wanted));
        }
        let config = Config { hz: clock.second(), ..config };
        let mut ebpf = load(options, &pins, sizes, &config)?;
        let mut maps = Maps::open(&pins, sizes, config, clock)?;
        let (xdp, reply) = programs(&mut ebpf, &pins)?;
        let links = Links::new((&root, &pins), replacement.is_some(), xdp, reply);
        // The last step of a first start: without it the next one begins anew.
        maps.put_config(&config).map_err(system("writing the map `config`"))?;
        let log = LogForwarder::new(options.log, &mut ebpf).map_err(OpenError::Loader)?;
        Ok(Self { maps, links, adopted, notes, replacement, log, ebpf, lock })
    }

    /// The replacement of another layout that is under way.
    pub fn replacement(&self) -> Option<&Replacement> {
        self.replacement.as_ref()
    }

    /// True while another layout forwards and these maps are only being filled: nothing may be attached yet.
    pub fn is_coming(&self) -> bool {
        self.replacement.as_ref().is_some_and(|it| it.stage == replacement::Stage::Coming)
    }

    /// Takes the place of the layout that forwarded before, once this one's program runs on every uplink; the uplinks where
    /// it does not yet, and nothing has changed, otherwise.
    pub fn arrive(&mut self) -> Result<Vec<String>, PinsError> {
        let others = self.links.uplinks_of_others().map_err(super::pins::refused("reading the XDP links"))?;
        if let Some(replacement) = self.replacement.as_mut().filter(|_| others.is_empty()) {
            replacement.arrive(&mut self.links)?;
        }
        Ok(others)
    }

    /// Takes the old layout away; says what.
    pub fn finish_replacement(&mut self) -> Result<Vec<String>, OpenError> {
        let Some(replacement) = &self.replacement else { return Ok(Vec::new()) };
        let done = replacement.finish()?;
        self.links.step_forward()?;
        self.replacement = None;
        Ok(done)
    }

    /// The data path's own log, to be run as a task; once, and only where it was asked for.
    pub fn take_log(&mut self) -> Option<LogForwarder> {
        self.log.take()
    }

    /// The programs, for test runs.
    pub fn programs(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// Gives the lock away and leaves everything running, as the end of the process does.
    pub fn leave(self) {
        let Self { lock, .. } = self;
        drop(lock);
    }
}

fn check_host() -> Result<(), OpenError> {
    if OBJECT.is_empty() {
        return Err(OpenError::NoObject);
    }
    let kernel = KernelVersion::current().map_err(|error| OpenError::Loader(error.to_string()))?;
    check_kernel(kernel, || fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default())?;
    let missing = Capabilities::read().map_err(|error| OpenError::Loader(format!("{error:#}")))?.missing();
    if missing.is_empty() { Ok(()) } else { Err(OpenError::Capabilities(missing.join(", "))) }
}

fn check_kernel(kernel: KernelVersion, name: impl FnOnce() -> String) -> Result<(), OpenError> {
    if kernel >= KernelVersion::new(6, 1, 0) {
        return Ok(());
    }
    Err(OpenError::OldKernel(name().trim().to_owned()))
}

fn new_config(clock: &Clock) -> Config {
    let mut random = rand::rng();
    Config { layout: LAYOUT, hz: clock.second(), seed: [random.next_u64(), random.next_u64()] }
}

fn kept_sizes(sizes: Sizes, wanted: Sizes) -> String {
    let text = |s: Sizes| {
        let Sizes { flows, half_flows, listeners, slots } = s;
        format!("{flows} flows, {half_flows} half-open flows, {listeners} listeners, {slots} slots")
    };
    format!(
        "the pinned maps keep their sizes ({}) although {} were asked for: `nlb-agent detach` first to change them",
        text(sizes),
        text(wanted)
    )
}

fn load(options: &Options, pins: &Pins, sizes: Sizes, config: &Config) -> Result<Ebpf, OpenError> {
    let flow_mask = sizes.flows / WAYS as u32 - 1;
    let half_mask = sizes.half_flows / WAYS as u32 - 1;
    let level = log::level(options.log);
    let mut loader = EbpfLoader::new();
    for shape in shapes(sizes) {
        loader.map_max_entries(shape.name, shape.entries);
        loader.map_pin_path(shape.name, pins.path(shape.name));
    }
    loader
        .override_global("SEED", &config.seed, true)
        .override_global("HZ", &config.hz, true)
        .override_global("FLOW_MASK", &flow_mask, true)
        .override_global("HALF_MASK", &half_mask, true)
        .override_global("FIXED_NOW", &options.fixed_now, true)
        .override_global(aya_log::LEVEL, &level, true);
    loader.load(OBJECT).map_err(|error| match error {
        EbpfError::MapError(error) => {
            OpenError::Loader(format!("making the maps: {}", super::pins::map_io(error)))
        }
        other => OpenError::Loader(other.to_string()),
    })
}

/// Both programs, loaded and pinned in place of their predecessors.
fn programs(ebpf: &mut Ebpf, pins: &Pins) -> Result<(OwnedFd, OwnedFd), OpenError> {
    let xdp: &mut Xdp = program(ebpf, "nlb_xdp")?;
    xdp.load().map_err(|error| refusal("nlb_xdp", error))?;
    let xdp = pinned(xdp.fd(), &pins.path("prog_xdp"))?;
    let reply: &mut SchedClassifier = program(ebpf, "nlb_reply")?;
    reply.load().map_err(|error| refusal("nlb_reply", error))?;
    let reply = pinned(reply.fd(), &pins.path("prog_reply"))?;
    Ok((xdp, reply))
}

fn program<'a, P>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, OpenError>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    let program =
        ebpf.program_mut(name).ok_or_else(|| OpenError::Loader(format!("there is no program `{name}`")))?;
    program.try_into().map_err(|error: ProgramError| OpenError::Loader(error.to_string()))
}

/// Pins beside the old program and renames over it, so that at every moment one of the two is there.
fn pinned(fd: Result<&ProgramFd, ProgramError>, path: &Path) -> Result<OwnedFd, OpenError> {
    let fd = fd.map_err(|error| OpenError::Loader(error.to_string()))?.as_fd();
    let fresh =
        path.with_file_name(format!("{}_new", path.file_name().unwrap_or_default().to_string_lossy()));
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(system("removing the pin of a program")(error));
        }
        Ok(()) | Err(_) => {}
    }
    sys::pin(fd, &fresh).map_err(system("pinning a program"))?;
    fs::rename(&fresh, path).map_err(system("pinning a program"))?;
    fd.try_clone_to_owned().map_err(system("keeping a program"))
}

fn refusal(program: &'static str, error: ProgramError) -> OpenError {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            OpenError::Verifier { program, error: io_error, log: last_lines(&verifier_log.to_string(), 30) }
        }
        other => OpenError::Loader(format!("program `{program}`: {other}")),
    }
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::{OpenError, Sizes, check_kernel, kept_sizes, last_lines};
    use aya::util::KernelVersion;

    #[test]
    fn kernels_before_6_1_are_refused_by_name() {
        let refused = check_kernel(KernelVersion::new(5, 10, 223), || "5.10.0-32-amd64\n".into());
        let Err(error @ OpenError::OldKernel(_)) = refused else { panic!("{refused:?}") };
        assert_eq!(error.to_string(), "kernel 5.10.0-32-amd64 is too old: nlb needs Linux 6.1 or newer");
        assert!(check_kernel(KernelVersion::new(6, 1, 0), String::new).is_ok());
    }

    #[test]
    fn only_the_end_of_a_verifier_log_is_shown() {
        let log: String = (0..100).map(|i| format!("{i}\n")).collect();
        assert_eq!(last_lines(&log, 2), "98\n99");
        assert_eq!(last_lines("one", 30), "one");
    }

    #[test]
    fn kept_sizes_name_both() {
        let text = kept_sizes(Sizes::default(), Sizes { flows: 2048, ..Sizes::default() });
        assert!(text.contains("(1048576 flows") && text.contains("although 2048 flows"), "{text}");
    }
}
