//! What lies under the pin path: names, shapes, and the lock that one agent holds.
//!
//! ```text
//! <pin path>/flows, listeners, ...     the maps, by their names
//! <pin path>/prog_xdp, prog_reply      the programs
//! <pin path>/link_xdp_eth0             attachments; a dot in a device's name is a colon here: bpffs takes no dots
//! <pin path>/clsact_eth0/              an empty folder: the clsact qdisc of this device is ours
//! <pin path>/coming/, replaced/, ...   while one layout takes another's place: see `replacement`
//! ```

use super::plain::Plain;
pub use super::shapes::{RING_WORDS, Shape, Sizes, shapes};
use aya::maps::{Array, Map, MapData, MapError, MapInfo};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use nlb_common::layout::{Config, LAYOUT};
use std::fs::{DirBuilder, File, TryLockError};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

/// A killed agent's memory goes before its lock does, and a child that it has just forked holds the lock until it runs.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// What an agent finds under its pin path.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Found {
    /// Nothing of ours, or the remains of a first start that was cut off before anything was attached.
    Nothing,
    /// Maps of this layout, in use.
    Ours(Sizes, Config),
}

/// Why the pins cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PinsError {
    /// Not a BPF file system.
    #[error(
        "{0} is not on a BPF file system: mount one with `mount -t bpf bpf /sys/fs/bpf`, or give another --pin-path"
    )]
    NotBpffs(PathBuf),
    /// Somebody else has the lock.
    #[error("another nlb-agent holds the pins in {0}: stop it first, or give this one another --pin-path")]
    Held(PathBuf),
    /// Another version's maps.
    #[error(
        "the maps pinned in {path} are not of this version's layout ({what}); they are left running as they are. \
         Start the version that made them, or start this one with --replace-layout, which takes them over while traffic goes on, \
         or take them away with `nlb-agent detach --pin-path {path}`, which ends their flows"
    )]
    OtherLayout {
        /// The pin path.
        path: String,
        /// What differs.
        what: String,
    },
    /// The kernel or the file system refused.
    #[error("{what}: {error}{}", hint(.error))]
    Refused {
        /// What was tried.
        what: String,
        /// What came back.
        error: io::Error,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "; run this as root, or with CAP_BPF as the owner of the pins",
        _ => "",
    }
}

/// An error with what was being done.
pub(super) fn refused(what: impl Into<String>) -> impl FnOnce(io::Error) -> PinsError {
    let what = what.into();
    |error| PinsError::Refused { what, error }
}

/// The io error inside aya's.
pub(super) fn map_io(error: MapError) -> io::Error {
    match error {
        MapError::SyscallError(error) => error.io_error,
        other => io::Error::other(other),
    }
}

/// Held by one agent for as long as it lives; gone with it, however it ends.
#[derive(Debug)]
pub struct Lock {
    _folder: File,
}

/// The pin path.
#[derive(Clone, Debug)]
pub struct Pins {
    folder: PathBuf,
}

impl Pins {
    /// Pins in this folder of a BPF file system.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The pin of a map or program.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The pin of something that belongs to a device.
    pub fn of_device(&self, kind: &str, interface: &str) -> PathBuf {
        self.path(&format!("{kind}_{}", interface.replace('.', ":")))
    }

    /// A folder inside this one.
    pub(super) fn inside(&self, name: &str) -> Self {
        Self { folder: self.path(name) }
    }

    /// The version of the layout that these pins have; `None` where nothing tells it.
    pub fn layout(&self) -> Option<u32> {
        self.path("config").exists().then(|| self.config().ok()).flatten().map(|config| config.layout)
    }

    /// The device that a pin of this kind belongs to.
    pub fn device_of(kind: &str, name: &str) -> Option<String> {
        Some(name.strip_prefix(kind)?.strip_prefix('_')?.replace(':', "."))
    }

    /// Names of everything in the folder, sorted; empty where there is no folder.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut names = entries
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }

    /// Makes the folder if it is not there; refuses where there is no BPF file system.
    pub fn create(&self) -> Result<(), PinsError> {
        let there = self.folder.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
        let kind = statfs(there)
            .map_err(io::Error::from)
            .map_err(refused(format!("looking at {}", there.display())))?;
        if kind.filesystem_type() != BPF_FS_MAGIC {
            return Err(PinsError::NotBpffs(self.folder.clone()));
        }
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.folder);
        made.map_err(refused(format!("making {}", self.folder.display())))
    }

    /// Takes the lock, or says who it is that has it.
    pub fn lock(&self) -> Result<Lock, PinsError> {
        let name = self.folder.display();
        let folder = File::open(&self.folder).map_err(refused(format!("opening {name}")))?;
        let until = Instant::now() + LOCK_PATIENCE;
        loop {
            match folder.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < until => thread::sleep(LOCK_PATIENCE / 50),
                Err(TryLockError::WouldBlock) => return Err(PinsError::Held(self.folder.clone())),
                Err(TryLockError::Error(error)) => return Err(refused(format!("locking {name}"))(error)),
            }
        }
        // A `detach` may have taken the folder away between the two steps above; then the lock is nobody's.
        let same = fs::metadata(&self.folder)
            .and_then(|now| Ok(now.ino() == folder.metadata()?.ino()))
            .map_err(refused(format!("looking at {name}")))?;
        if same { Ok(Lock { _folder: folder }) } else { Err(PinsError::Held(self.folder.clone())) }
    }

    /// Looks at every pinned map before anything touches it: the loader itself would take whatever lies there.
    pub fn find(&self) -> Result<Found, PinsError> {
        let names = self.names().map_err(refused(format!("reading {}", self.folder.display())))?;
        let wanted = shapes(Sizes::default());
        let present = wanted.iter().filter(|shape| names.iter().any(|name| name == shape.name)).count();
        let attached = names.iter().any(|name| name.starts_with("link_"));
        if present == 0 && !attached {
            return Ok(Found::Nothing);
        }
        let config =
            if names.iter().any(|name| name == "config") { self.config()? } else { Config::default() };
        if config.layout == 0 && !attached {
            return Ok(Found::Nothing);
        }
        if config.layout != LAYOUT {
            return Err(self.other(format!("layout {}, this agent has {LAYOUT}", config.layout)));
        }
        let sizes = self.sizes(&names)?;
        for shape in shapes(sizes) {
            self.compare(&shape)?;
        }
        Ok(Found::Ours(sizes, config))
    }

    fn other(&self, what: String) -> PinsError {
        PinsError::OtherLayout { path: self.folder.display().to_string(), what }
    }

    fn info(&self, name: &str) -> Result<MapInfo, PinsError> {
        let path = self.path(name);
        MapInfo::from_pin(&path).map_err(map_io).map_err(refused(format!("opening {}", path.display())))
    }

    fn config(&self) -> Result<Config, PinsError> {
        let shape = shapes(Sizes::default())[0];
        self.compare(&shape)?;
        let path = self.path(shape.name);
        let read = || -> Result<Config, MapError> {
            let map = Array::<_, Plain<Config>>::try_from(Map::Array(MapData::from_pin(&path)?))?;
            Ok(map.get(&0, 0)?.0)
        };
        read().map_err(map_io).map_err(refused(format!("reading {}", path.display())))
    }

    fn sizes(&self, names: &[String]) -> Result<Sizes, PinsError> {
        let entries = |name: &str| {
            if names.iter().any(|there| there == name) {
                Ok(self.info(name)?.max_entries())
            } else {
                Err(self.other(format!("there is no map `{name}`")))
            }
        };
        let sizes = Sizes {
            flows: entries("flow_clients")?,
            half_flows: entries("half_clients")?,
            listeners: entries("choices")?,
            slots: entries("slots")?,
        };
        if sizes == sizes.rounded() { Ok(sizes) } else { Err(self.other(format!("{sizes:?}"))) }
    }

    fn compare(&self, wanted: &Shape) -> Result<(), PinsError> {
        if !self.path(wanted.name).exists() {
            return Err(self.other(format!("there is no map `{}`", wanted.name)));
        }
        let info = self.info(wanted.name)?;
        let is =
            (info.map_type().ok(), info.key_size(), info.value_size(), info.max_entries(), info.map_flags());
        let should = (Some(wanted.kind), wanted.key, wanted.value, wanted.entries, wanted.flags);
        if is == should {
            return Ok(());
        }
        Err(self.other(format!(
            "map `{}` has keys of {} and values of {} bytes, {} elements, flags {:#x}; expected {}, {}, {}, {:#x}",
            wanted.name, is.1, is.2, is.3, is.4, should.1, should.2, should.3, should.4
        )))
    }

    /// Takes away the remains of a start that was cut off: maps and programs that nothing uses.
    pub fn clear_unused(&self) -> Result<(), PinsError> {
        for name in self.names().map_err(refused(format!("reading {}", self.folder.display())))? {
            if shapes(Sizes::default()).iter().any(|shape| shape.name == name) || name.starts_with("prog_") {
                fs::remove_file(self.path(&name)).map_err(refused(format!("removing the pin {name}")))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Pins;
    use std::path::Path;

    #[test]
    fn a_device_with_a_dot_has_a_pin_without_one() {
        let pins = Pins::new(Path::new("/sys/fs/bpf/nlb"));
        let path = pins.of_device("link_xdp", "eth0.100");
        assert_eq!(path, Path::new("/sys/fs/bpf/nlb/link_xdp_eth0:100"));
        assert_eq!(Pins::device_of("link_xdp", "link_xdp_eth0:100").as_deref(), Some("eth0.100"));
        assert_eq!(Pins::device_of("link_reply", "link_xdp_eth0"), None);
    }
}
