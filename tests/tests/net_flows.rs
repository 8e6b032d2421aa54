//! What becomes of flows whose entries are lost, one by one, in every case that DESIGN names.

use std::net::{SocketAddr, UdpSocket};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nlb_agent::bpf::PinnedMaps;
use nlb_agent::bpf::verdict::{client_tuple, reply_tuple};
use nlb_common::address::Address;
use nlb_common::hash::{Hash, Tuple};
use nlb_common::layout::{Client, Entry, Slot, TCP, UDP};
use nlb_common::tables::Table;
use nlb_tests::lab::Lab;
use nlb_tests::lab::conversation::{self, Conversation};
use nlb_tests::lab::manifests::{Endpoint, Port, Service};
use nlb_tests::lab::scene::{BULK_TCP, PATIENCE, Scene, bulk};

/// Two listeners on one pod port, so that a client's ports can collide there.
const TALK: &str = "app-qa/talk";
const TALK_PORTS: [u16; 2] = [5200, 5300];
/// A listener whose datagrams the test itself answers.
const HALF: &str = "app-qa/half";
const HALF_UDP: (u16, u16) = (5600, 9600);
/// Longer than the data path leaves an entry's time alone.
const A_WHILE: Duration = Duration::from_millis(400);

fn talk() -> Service {
    let names = ["one", "two"];
    let port = |(&name, port)| Port { name, protocol: "TCP", port, target: BULK_TCP.1 };
    Service { name: "talk", ports: names.iter().zip(TALK_PORTS).map(port).collect(), ..bulk() }
}

fn half() -> Service {
    let port = Port { name: "half", protocol: "UDP", port: HALF_UDP.0, target: HALF_UDP.1 };
    Service { name: "half", ports: vec![port], ..bulk() }
}

/// A flow as the client's packets show it, and the maps that remember it.
struct Known<'a> {
    maps: &'a PinnedMaps,
    client: Client,
    tuple: Tuple,
}

impl<'a> Known<'a> {
    fn new(maps: &'a PinnedMaps, protocol: u8, client: SocketAddr, listener: SocketAddr) -> Known<'a> {
        let (address, vip) = (Address::from(client.ip()), Address::from(listener.ip()));
        let tuple = Tuple {
            source: address.words(),
            destination: vip.words(),
            source_port: client.port(),
            destination_port: listener.port(),
            protocol,
            ipv4: client.is_ipv4(),
        };
        Known { maps, client: Client { address, port: client.port(), zero: [0; 6] }, tuple }
    }

    fn hash(&self) -> Hash {
        self.tuple.place(self.maps.config.seed)
    }

    /// The client's entry, established or not, and its slot.
    fn entry(&self) -> Result<(Entry, Slot)> {
        let find = |table| self.maps.table(table).find(self.hash());
        let (_, entry) = find(Table::Flows).or_else(|| find(Table::HalfFlows)).context("no such flow")?;
        let slot = self.maps.slot(entry.slot).context("the flow's slot is beyond the map")?;
        assert_eq!(client_tuple(&self.client, &slot), self.tuple);
        Ok((entry, slot))
    }

    /// True if the client has another port at the target.
    fn is_rewritten(&self) -> Result<bool> {
        Ok(self.entry()?.0.port != self.client.port)
    }

    /// True if the ring of today would give the flow to another target.
    fn is_moved(&self) -> Result<bool> {
        let (entry, slot) = self.entry()?;
        Ok(self.maps.pick(slot.listener, &self.tuple) != Some(entry.slot))
    }

    /// Deletes the flow's entry in `table`; an error if there is none.
    fn lose(&self, table: Table) -> Result<()> {
        let (entry, slot) = self.entry()?;
        let hash = match table {
            Table::Flows | Table::HalfFlows => self.hash(),
            Table::Replies | Table::HalfReplies => {
                reply_tuple(&self.client, &slot, entry.port).place(self.maps.config.seed)
            }
        };
        // The data path may touch the entry between the look and the deletion.
        for _ in 0..100 {
            let (index, entry) =
                self.maps.table(table).find(hash).with_context(|| format!("no entry in {table:?}"))?;
            if self.maps.table(table).clear(index, &entry) {
                return Ok(());
            }
        }
        bail!("the entry in {table:?} changes all the time")
    }
}

/// Whose packet comes first after the loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    Client,
    Target,
}

/// What DESIGN promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Promise {
    /// The conversation goes on and `FlowRebuilt` moves.
    Repaired,
    /// That, or `FlowLost` moves.
    RepairedOrCounted,
}

/// Loses one entry of a conversation and holds the data path to its promise; true if the conversation goes on.
fn lose_and_talk(
    scene: &Scene,
    known: &Known,
    talk: &mut Conversation,
    (table, first): (Table, First),
    promise: Promise,
) -> Result<bool> {
    let case = format!("{promise:?}, {table:?} lost, {first:?} speaks first, {}", talk.client);
    let (rebuilt, lost) = (scene.reason("FlowRebuilt")?, scene.reason("FlowLost")?);
    let heard = match first {
        First::Client => {
            sleep(A_WHILE);
            known.lose(table).with_context(|| case.clone())?;
            talk.say()
        }
        First::Target => {
            talk.ask(A_WHILE * 2)?;
            sleep(A_WHILE / 4);
            known.lose(table).with_context(|| case.clone())?;
            talk.hear()
        }
    };
    let heard = heard.and_then(|_| talk.say()).and_then(|_| talk.say());
    let (rebuilt, lost) = (scene.reason("FlowRebuilt")? - rebuilt, scene.reason("FlowLost")? - lost);
    let repaired = heard.is_ok() && rebuilt > 0;
    let fine = match promise {
        Promise::Repaired => repaired,
        Promise::RepairedOrCounted => repaired || lost > 0,
    };
    ensure!(fine, "{case}: rebuilt {rebuilt}, lost {lost}, {heard:?}");
    Ok(heard.is_ok())
}

const CASES: [(Table, First); 4] = [
    (Table::Flows, First::Client),
    (Table::Flows, First::Target),
    (Table::Replies, First::Client),
    (Table::Replies, First::Target),
];

/// Three pods that talk, the first two of them registered; a Service of one of them whose datagrams we answer.
fn talking_scene() -> Result<(Scene, PinnedMaps)> {
    let scene = Scene::new(3, &[], &[])?;
    let pods: Vec<Endpoint> = scene.lab.pods().iter().map(Endpoint::ready).collect();
    for pod in scene.lab.pods() {
        for address in [pod.ipv4.into(), pod.ipv6.into()] {
            conversation::serve(&pod.namespace, &pod.name, SocketAddr::new(address, BULK_TCP.1))?;
        }
    }
    scene.manifests.write(&talk(), &pods[..2])?;
    scene.manifests.write(&half(), &pods[..1])?;
    scene.agent.wait_for(TALK, "healthy", 8, PATIENCE)?;
    scene.agent.wait_for(HALF, "healthy", 2, PATIENCE)?;
    let maps = PinnedMaps::open(&scene.lab.pins())?.context("the agent has pinned no maps")?;
    Ok((scene, maps))
}

fn open_many(scene: &Scene, to: SocketAddr, count: usize) -> Result<Vec<Conversation>> {
    let open = |_| {
        let mut talk = Conversation::open(&scene.lab.client, to)?;
        talk.say()?;
        Ok(talk)
    };
    (0..count).map(open).collect()
}

#[test]
fn a_lost_entry_of_an_established_flow_is_repaired_or_counted() -> Result<()> {
    let (scene, maps) = talking_scene()?;
    let to = scene.listener(TALK, "TCP", TALK_PORTS[0], true)?;
    let mut talks = open_many(&scene, to, 48)?;
    for ipv4 in [true, false] {
        let to = scene.listener(TALK, "TCP", TALK_PORTS[0], ipv4)?;
        let mut plain = open_many(&scene, to, 1)?.remove(0);
        let known = Known::new(&maps, TCP, plain.client, to);
        assert!(!known.is_moved()? && !known.is_rewritten()?);
        for case in CASES {
            lose_and_talk(&scene, &known, &mut plain, case, Promise::Repaired)?;
        }
    }
    a_rewritten_port(&scene, &maps)?;

    // A third pod moves about a third of the ring; established flows stay, now with entries that it would not give.
    let pods: Vec<Endpoint> = scene.lab.pods().iter().map(Endpoint::ready).collect();
    scene.manifests.write(&talk(), &pods)?;
    scene.agent.wait_for(TALK, "healthy", 12, PATIENCE)?;
    let moved = |talk: &Conversation| Known::new(&maps, TCP, talk.client, to).is_moved().unwrap_or(false);
    let (moved, mut unmoved): (Vec<_>, Vec<_>) = talks.drain(..).partition(moved);
    assert!(moved.len() >= 5, "{} of {} flows are moved", moved.len(), moved.len() + unmoved.len());
    one_conversation_for_each_case(&scene, &maps, to, moved)?;

    // The first pod drains: today's ring gives none of its flows.
    let first = |talk: &mut Conversation| Ok::<_, anyhow::Error>(talk.say()?.name == "pod1");
    let mut on_first = Vec::new();
    for mut talk in unmoved.drain(..) {
        if first(&mut talk)? {
            on_first.push(talk);
        }
    }
    scene.manifests.write(&talk(), &pods[1..])?;
    scene.agent.wait_for(TALK, "draining", 4, PATIENCE)?;
    assert!(on_first.len() >= 4, "{} flows drain", on_first.len());
    one_conversation_for_each_case(&scene, &maps, to, on_first)
}

fn one_conversation_for_each_case(
    scene: &Scene,
    maps: &PinnedMaps,
    to: SocketAddr,
    talks: Vec<Conversation>,
) -> Result<()> {
    for (mut talk, case) in talks.into_iter().zip(CASES) {
        let known = Known::new(maps, TCP, talk.client, to);
        assert!(known.is_moved()?);
        // A client that speaks first without an entry goes where today's ring says: that target knows nothing of it.
        let promise = match case {
            (Table::Flows, First::Client) => Promise::RepairedOrCounted,
            _ => Promise::Repaired,
        };
        lose_and_talk(scene, &known, &mut talk, case, promise)?;
    }
    Ok(())
}

/// Conversations whose client port another one has at the same pod.
fn a_rewritten_port(scene: &Scene, maps: &PinnedMaps) -> Result<()> {
    let (one, two) = (
        scene.listener(TALK, "TCP", TALK_PORTS[0], true)?,
        scene.listener(TALK, "TCP", TALK_PORTS[1], true)?,
    );
    let mut cases = CASES.into_iter().peekable();
    for port in 23_000..23_040 {
        let Some(case) = cases.peek() else { return Ok(()) };
        let mut first = Conversation::open_from(&scene.lab.client, port, one)?;
        let mut second = Conversation::open_from(&scene.lab.client, port, two)?;
        if first.say()?.name != second.say()?.name {
            continue;
        }
        let known = Known::new(maps, TCP, second.client, two);
        assert!(known.is_rewritten()?);
        lose_and_talk(scene, &known, &mut second, *case, Promise::Repaired)?;
        first.say().context("the other conversation of that client port")?;
        cases.next();
    }
    bail!("no two flows of one client port met at one pod")
}

/// A client's socket and the pod's, with a datagram on its way between them.
struct Datagrams {
    client: UdpSocket,
    pod: UdpSocket,
    seen: SocketAddr,
}

impl Datagrams {
    fn new(lab: &Lab, pod: &UdpSocket, to: SocketAddr) -> Result<Datagrams> {
        let client = lab.client.enter(move || UdpSocket::bind("198.51.100.7:0"))??;
        client.connect(to)?;
        client.set_read_timeout(Some(PATIENCE))?;
        let mut datagrams = Datagrams { seen: to, pod: pod.try_clone()?, client };
        datagrams.there()?;
        Ok(datagrams)
    }

    fn there(&mut self) -> Result<()> {
        self.client.send(b"there")?;
        let (read, seen) = self.pod.recv_from(&mut [0; 100]).context("nothing arrives at the pod")?;
        ensure!(read == 5, "{read} bytes arrived");
        self.seen = seen;
        Ok(())
    }

    fn back(&self) -> Result<()> {
        self.pod.send_to(b"back", self.seen)?;
        // Connected to the VIP, the client hears nobody else.
        let read = self.client.recv(&mut [0; 100]).context("nothing comes back to the client")?;
        ensure!(read == 4, "{read} bytes came back");
        Ok(())
    }
}

#[test]
fn a_lost_entry_of_a_half_open_flow_is_repaired() -> Result<()> {
    let (scene, maps) = talking_scene()?;
    let to = scene.listener(HALF, "UDP", HALF_UDP.0, true)?;
    let at = SocketAddr::new(scene.pod("pod1").ipv4.into(), HALF_UDP.1);
    let pod = scene.pod("pod1").namespace.enter(move || UdpSocket::bind(at))??;
    pod.set_read_timeout(Some(PATIENCE))?;
    for (table, answered) in [
        (Table::HalfReplies, false),
        (Table::HalfReplies, true),
        (Table::HalfFlows, false),
        (Table::HalfFlows, true),
    ] {
        let mut datagrams = Datagrams::new(&scene.lab, &pod, to)?;
        let client = datagrams.client.local_addr()?;
        if answered {
            datagrams.back()?;
        }
        let rebuilt = scene.reason("FlowRebuilt")?;
        let seen = datagrams.seen;
        Known::new(&maps, UDP, client, to).lose(table)?;
        for _ in 0..2 {
            datagrams
                .back()
                .and_then(|()| datagrams.there())
                .with_context(|| format!("{table:?} {answered}"))?;
        }
        ensure!(datagrams.seen == seen, "the client changed its port at the pod");
        let rebuilt = scene.reason("FlowRebuilt")? - rebuilt;
        ensure!(rebuilt > 0 || table == Table::HalfFlows, "{table:?} {answered}: nothing was rebuilt");
    }
    between_the_handshake_and_the_first_byte(&scene, &maps)
}

/// The client's ACK is held back while its half-open entry is lost.
fn between_the_handshake_and_the_first_byte(scene: &Scene, maps: &PinnedMaps) -> Result<()> {
    let to = scene.listener(TALK, "TCP", TALK_PORTS[0], true)?;
    let client = &scene.lab.client;
    for table in [Table::HalfFlows, Table::HalfReplies] {
        client.output(
            "nft",
            &["add table ip hold; add chain ip hold out { type filter hook output priority 0; };
            add rule ip hold out tcp dport 5200 tcp flags & syn == 0 drop"],
        )?;
        let mut talk = Conversation::open(client, to)?;
        Known::new(maps, TCP, talk.client, to).lose(table)?;
        client.output("nft", &["delete table ip hold"])?;
        for _ in 0..3 {
            talk.say().with_context(|| format!("{table:?} lost in the handshake"))?;
        }
    }
    Ok(())
}
