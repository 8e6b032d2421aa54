//! A listener as people write it: `192.0.2.10:5001/TCP`, `[2001:db8::10]:443/TCP`.

use crate::model::Protocol;
use nlb_common::layout::{ListenerKey, TCP, UDP};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

/// VIP, port and protocol of a listener; the order is that of address, port, protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerAddress {
    /// VIP and port.
    pub socket: SocketAddr,
    /// TCP or UDP.
    pub protocol: Protocol,
}

impl ListenerAddress {
    /// The listener of a map key; `None` for a protocol that nlb does not serve.
    pub fn of(key: &ListenerKey) -> Option<Self> {
        let protocol = match key.protocol {
            TCP => Protocol::Tcp,
            UDP => Protocol::Udp,
            _ => return None,
        };
        Some(Self { socket: SocketAddr::new(key.vip.ip(), key.port), protocol })
    }

    /// The key in the map `listeners`.
    pub fn key(self) -> ListenerKey {
        ListenerKey {
            vip: self.socket.ip().into(),
            port: self.socket.port(),
            protocol: self.protocol.number(),
            zero: 0,
        }
    }
}

impl fmt::Display for ListenerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.socket, self.protocol)
    }
}

/// A text that names no listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "wanted: VIP:PORT/TCP or VIP:PORT/UDP, IPv6 in brackets, as in 192.0.2.10:5001/TCP or [2001:db8::10]:443/TCP"
)]
pub struct NotAListener;

impl FromStr for ListenerAddress {
    type Err = NotAListener;

    fn from_str(text: &str) -> Result<Self, NotAListener> {
        let (socket, protocol) = text.rsplit_once('/').ok_or(NotAListener)?;
        let protocol = match protocol.to_ascii_uppercase().as_str() {
            "TCP" => Protocol::Tcp,
            "UDP" => Protocol::Udp,
            _ => return Err(NotAListener),
        };
        Ok(Self { socket: socket.parse().map_err(|_| NotAListener)?, protocol })
    }
}

impl Serialize for ListenerAddress {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ListenerAddress {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(ip: std::net::IpAddr, port: u16, udp: bool) {
            let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
            let listener = ListenerAddress { socket: SocketAddr::new(ip, port), protocol };
            prop_assert_eq!(listener.to_string().parse(), Ok(listener));
        }

        #[test]
        fn a_map_key_survives(ip: std::net::Ipv4Addr, port: u16) {
            let listener = ListenerAddress { socket: SocketAddr::new(ip.into(), port), protocol: Protocol::Tcp };
            prop_assert_eq!(ListenerAddress::of(&listener.key()), Some(listener));
        }
    }

    #[test]
    fn ipv6_is_in_brackets() {
        let listener: ListenerAddress = "[2001:db8::10]:443/tcp".parse().unwrap();
        assert_eq!(listener.to_string(), "[2001:db8::10]:443/TCP");
    }

    #[test]
    fn half_a_listener_is_none() {
        for text in ["192.0.2.10:5001", "192.0.2.10/TCP", "2001:db8::10:443/TCP", "192.0.2.10:5001/SCTP", ""]
        {
            assert_eq!(text.parse::<ListenerAddress>(), Err(NotAListener), "{text}");
        }
    }
}
