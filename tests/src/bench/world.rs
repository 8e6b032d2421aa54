//! What the maps hold while packets are measured: three listeners with ten targets each, and as many live flows as asked for.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, HashMap, Map, MapData};
use nlb_agent::bpf::memory::{FlowTable, Mapped};
use nlb_agent::bpf::plain::Plain;
use nlb_agent::capacity::Limits;
use nlb_agent::contents::Contents;
use nlb_agent::control::Control;
use nlb_agent::model::{Forwarding, Placed, TargetKey};
use nlb_agent::{ring, slots::Epoch};
use nlb_common::address::Address;
use nlb_common::flow::state;
use nlb_common::hash::Tuple;
use nlb_common::layout::{Bucket, Client, Entry, Life, ListenerKey, Slot, TCP, UDP};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::programs::{Programs, SEED};

/// Targets of each listener.
const TARGETS: u8 = 10;

/// A kind of flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP over IPv4.
    Udp4,
}

impl Kind {
    fn all() -> [Kind; 3] {
        [Kind::Tcp4, Kind::Tcp6, Kind::Udp4]
    }

    /// The listener of this kind.
    pub(crate) fn listener(self) -> ListenerKey {
        let (vip, port, protocol) = match self {
            Kind::Tcp4 => (IpAddr::from(Ipv4Addr::new(192, 0, 2, 10)), 80, TCP),
            Kind::Tcp6 => (IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 10)), 80, TCP),
            Kind::Udp4 => (IpAddr::from(Ipv4Addr::new(192, 0, 2, 10)), 53, UDP),
        };
        ListenerKey { vip: vip.into(), port, protocol, zero: 0 }
    }

    /// True for the address and port of one of its targets.
    pub(crate) fn is_target(self, ip: IpAddr, port: u16) -> bool {
        (1..=TARGETS).any(|number| self.target(number) == SocketAddr::new(ip, port))
    }

    fn target(self, number: u8) -> SocketAddr {
        let ip = match self {
            Kind::Tcp4 | Kind::Udp4 => IpAddr::from(Ipv4Addr::new(10, 1, 0, number)),
            Kind::Tcp6 => IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, number.into())),
        };
        SocketAddr::new(ip, self.listener().port + 8000)
    }

    fn forwarding(self) -> Forwarding {
        let key = |at: SocketAddr| TargetKey { ip: at.ip(), port: at.port(), uid: None };
        let placed = |number| Placed { key: key(self.target(number)), incarnation: 0, share: 1 };
        Forwarding {
            listener: self.listener(),
            node_vip: false,
            idle_timeout: Duration::from_secs(if self == Kind::Udp4 { 120 } else { 350 }),
            registered: TARGETS.into(),
            targets: (1..=TARGETS).map(placed).collect(),
        }
    }

    /// A client at this last word of an address.
    fn client(self, word: u32) -> Address {
        match self {
            Kind::Tcp4 | Kind::Udp4 => Ipv4Addr::from(word & 0x003f_ffff | 0x6440_0000).into(),
            Kind::Tcp6 => {
                let [a, b] = [(word >> 16) as u16, word as u16];
                IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, a, b)).into()
            }
        }
    }
}

/// A flow in both directions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow {
    pub(crate) client: Address,
    pub(crate) port: u16,
    /// Its target's slot.
    pub(crate) slot: Slot,
    number: u32,
}

impl Flow {
    /// The client's packets.
    pub(crate) fn forward(&self) -> Tuple {
        Tuple {
            source: self.client.words(),
            destination: self.slot.vip.words(),
            source_port: self.port,
            destination_port: self.slot.vip_port,
            protocol: self.slot.protocol,
            ipv4: self.client.is_ipv4(),
        }
    }

    /// The target's.
    fn back(&self) -> Tuple {
        Tuple {
            source: self.slot.target.words(),
            destination: self.client.words(),
            source_port: self.slot.target_port,
            destination_port: self.port,
            protocol: self.slot.protocol,
            ipv4: self.client.is_ipv4(),
        }
    }
}

/// The maps of one loaded object.
pub(crate) struct World {
    contents: Contents,
    tables: [FlowTable; 2],
    memory: Vec<Mapped<Bucket>>,
}

impl World {
    /// Writes listeners, rings and slots as the agent would, by the agent's own code.
    pub(crate) fn new(programs: &mut Programs) -> Result<World> {
        let limits =
            Limits { listeners: 16, vips: 16, slots: 256, ring_words: 1 << 16, hz: programs.clock.second() };
        let mut control = Control::new(limits);
        let planned = control.apply(Kind::all().map(Kind::forwarding).to_vec(), Epoch(0));
        ensure!(planned.shortfalls.is_empty(), "the bench's listeners do not fit: {:?}", planned.shortfalls);
        let contents = control.contents().clone();
        fill(programs, &contents)?;
        let flows = programs.flows;
        let bucket = |name| mapped::<Bucket>(programs, name);
        let table = |name, clients| Ok::<_, anyhow::Error>(FlowTable::new(bucket(name)?, clients));
        let clients = Mapped::<Client>::new(fd(programs, "flow_clients")?, flows)?;
        let tables = [table("flows", Some(clients))?, table("replies", None)?];
        let memory = ["flows", "replies", "half_flows", "half_replies"].map(bucket);
        Ok(World { contents, tables, memory: memory.into_iter().collect::<Result<_>>()? })
    }

    /// Forgets every flow.
    pub(crate) fn clear(&self) {
        for table in &self.memory {
            for bucket in 0..table.len() {
                if table
                    .element(bucket)
                    .iter()
                    .any(|word| word.load(std::sync::atomic::Ordering::Relaxed) != 0)
                {
                    table.write(bucket, &Bucket::default());
                }
            }
        }
    }

    /// As many live flows as asked for, last heard of at `seen`, both entries as the data path writes them, in random
    /// order; with how many more were tried that found no place. `alone`: all of them with one target, whatever the ring says.
    pub(crate) fn populate(
        &self,
        kind: Kind,
        count: usize,
        seen: u32,
        alone: bool,
    ) -> Result<(Vec<Flow>, usize)> {
        self.clear();
        let mut flows = Vec::with_capacity(count);
        let mut lost = 0;
        let first = self.clients(kind).next().filter(|_| alone);
        for mut flow in self.clients(kind).take(2 * count) {
            if flows.len() == count {
                break;
            }
            if let Some(Flow { slot, number, .. }) = first {
                (flow.slot, flow.number) = (slot, number);
            }
            if self.insert(&flow, seen).is_some() { flows.push(flow) } else { lost += 1 }
        }
        ensure!(flows.len() == count, "only {} of {count} flows found a place", flows.len());
        Ok((flows, lost))
    }

    /// Clients in random order, none twice, each with the target that the ring gives it.
    pub(crate) fn clients(&self, kind: Kind) -> impl Iterator<Item = Flow> + '_ {
        let key = kind.listener();
        let id = self.contents.listeners[&key].id;
        let pick = self.contents.pick(self.contents.choices[id as usize]).expect("the listener has targets");
        let ring = self.contents.ring(pick.members).expect("its members have a ring");
        let mut random = StdRng::seed_from_u64(u64::from(key.port));
        let mut seen = HashSet::new();
        let mut next = move || loop {
            let (word, port) = (random.random::<u32>(), random.random_range(1024..=u16::MAX));
            let client = kind.client(word);
            if seen.insert((client, port)) {
                break (client, port);
            }
        };
        std::iter::from_fn(move || {
            let (client, port) = next();
            let tuple = Tuple {
                source: client.words(),
                destination: key.vip.words(),
                source_port: port,
                destination_port: key.port,
                protocol: key.protocol,
                ipv4: client.is_ipv4(),
            };
            let index = nlb_common::ring::pick(tuple.ring(), pick.members.size) as usize;
            let number = pick.slots[usize::from(ring::entry(ring, index))];
            Some(Flow { client, port, slot: self.contents.slots[number as usize], number })
        })
    }

    fn insert(&self, flow: &Flow, seen: u32) -> Option<()> {
        let entry = |heard| Entry {
            slot: flow.number,
            generation: flow.slot.generation,
            life: Life { seen, state: heard },
            port: flow.port,
            ..Entry::default()
        };
        let client = Client { address: flow.client, port: flow.port, zero: [0; 6] };
        let [flows, replies] = &self.tables;
        flows.insert(flow.forward().place(SEED), &entry(0), Some(client))?;
        replies.insert(flow.back().place(SEED), &entry(state::HEARD), None).map(drop)
    }
}

fn fd<'a>(programs: &'a Programs, name: &str) -> Result<std::os::fd::BorrowedFd<'a>> {
    use std::os::fd::AsFd as _;
    Ok(data(programs.ebpf.map(name).with_context(|| format!("there is no map {name}"))?)?.fd().as_fd())
}

fn data(map: &Map) -> Result<&MapData> {
    match map {
        Map::Array(data) => Ok(data),
        _ => anyhow::bail!("a map is no array"),
    }
}

/// A whole array as memory.
pub(crate) fn mapped<T>(programs: &Programs, name: &str) -> Result<Mapped<T>>
where
    T: zerocopy::FromBytes + zerocopy::IntoBytes + zerocopy::Immutable,
{
    let map = data(programs.ebpf.map(name).with_context(|| format!("there is no map {name}"))?)?;
    let length = map.info()?.max_entries();
    Mapped::new(fd(programs, name)?, length).with_context(|| format!("cannot map {name}"))
}

fn fill(programs: &mut Programs, contents: &Contents) -> Result<()> {
    let put = |name: &str, elements: &[u64]| -> Result<()> {
        let words = mapped::<u64>(programs, name)?;
        (0_u32..).zip(elements).filter(|(_, word)| **word != 0).for_each(|(i, word)| words.store(i, *word));
        Ok(())
    };
    put("vip_filter", &contents.vip_filter)?;
    put("choices", &contents.choices)?;
    put("rings", &contents.rings)?;
    put("target_filter", &contents.target_filter)?;
    let slots = mapped::<Slot>(programs, "slots")?;
    (0_u32..).zip(&contents.slots).for_each(|(i, slot)| slots.write(i, slot));
    for (address, vip) in &contents.vips {
        hash(programs, "vips")?.insert(Plain(*address), Plain(*vip), 0)?;
    }
    for (key, listener) in &contents.listeners {
        hash(programs, "listeners")?.insert(Plain(*key), Plain(*listener), 0)?;
    }
    for (key, sharers) in &contents.targets {
        hash(programs, "targets")?.insert(Plain(*key), Plain(*sharers), 0)?;
    }
    Ok(())
}

fn hash<'a, K: aya::Pod, V: aya::Pod>(
    programs: &'a mut Programs,
    name: &str,
) -> Result<HashMap<&'a mut MapData, K, V>> {
    let map = programs.ebpf.map_mut(name).with_context(|| format!("there is no map {name}"))?;
    Ok(map.try_into()?)
}

/// Sets the one element of an array.
pub(crate) fn set<T: aya::Pod>(programs: &mut Programs, name: &str, value: T) -> Result<()> {
    let map = programs.ebpf.map_mut(name).with_context(|| format!("there is no map {name}"))?;
    let mut array: Array<&mut MapData, T> = map.try_into()?;
    Ok(array.set(0, value, 0)?)
}
