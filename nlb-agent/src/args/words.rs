//! The words and numbers that flags take, and what is said of others.

use crate::model::Scheme;
use clap::ValueEnum;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// How an answer is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Table,
    /// For programs
    Json,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// One object a line
    Json,
}

/// How the XDP program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum XdpMode {
    /// Driver mode, else generic mode with a warning
    Auto,
    /// In the network driver or not at all
    Driver,
    /// In the kernel's own receive path: works everywhere, slower
    Generic,
}

/// How much the data path itself logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DataPathLog {
    /// Nothing
    Off,
    /// New flows and drops
    Info,
    /// Every packet
    Debug,
}

/// Where VIPs come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum VipSource {
    /// Given out of the pools
    Pool,
    /// The node's own addresses
    Node,
}

/// `--default-scheme`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SchemeArg {
    /// For clients inside
    Internal,
    /// For everyone
    InternetFacing,
}

impl From<SchemeArg> for Scheme {
    fn from(scheme: SchemeArg) -> Self {
        match scheme {
            SchemeArg::Internal => Self::Internal,
            SchemeArg::InternetFacing => Self::InternetFacing,
        }
    }
}

/// `--default-target-type`; both mean pod addresses here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TargetTypeArg {
    /// Pod addresses
    Ip,
    /// Pod addresses, too: node ports are not used
    Instance,
}

impl TargetTypeArg {
    /// The word as it stands in the model.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Instance => "instance",
        }
    }
}

/// `--http`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpAddress {
    /// Nothing is served.
    None,
    /// Served here.
    At(SocketAddr),
}

pub(super) fn http_address(text: &str) -> Result<HttpAddress, String> {
    if text == "none" {
        return Ok(HttpAddress::None);
    }
    text.parse().map(HttpAddress::At).map_err(|_| {
        "wanted: an address and a port, as in 127.0.0.1:9464, 0.0.0.0:9464 or [::1]:9464, or none".to_owned()
    })
}

/// The kernel's own rule: 1 to 15 bytes without blanks and slashes, not `.` or `..`.
pub(super) fn interface(text: &str) -> Result<String, String> {
    let fits = (1..=15).contains(&text.len()) && text != "." && text != "..";
    if !fits || text.contains(['/', ':']) || text.contains(char::is_whitespace) {
        return Err("wanted: the name of an interface as `ip link` shows it, 1 to 15 characters".to_owned());
    }
    Ok(text.to_owned())
}

pub(super) fn client(text: &str) -> Result<IpAddr, String> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse().map_err(|_| "wanted: an IPv4 or IPv6 address without a port, as in 198.51.100.7".to_owned())
}

pub(super) fn table_size(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(entries @ 1_024..=67_108_864) => Ok(entries.next_power_of_two()),
        Ok(_) | Err(_) => Err("wanted: a number of entries from 1024 to 67108864".to_owned()),
    }
}

pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.2..=60.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        Ok(_) | Err(_) => Err("wanted: seconds from 0.2 to 60".to_owned()),
    }
}
