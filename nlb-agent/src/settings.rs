//! From the command line and the machine's facts to the settings that manifests are read by.

use crate::args::{TargetTypeArg, TranslateArgs, VipSource};
use crate::host::addresses::Owner;
use crate::host::network::Network;
use crate::host::ports::{NODE_PORTS, Ports};
use crate::model::IpFamily;
use crate::translate::{Listening, NodeVips, Settings, TargetType, Vips};
use crate::vips::{Allocations, Pool, Pools};
use anyhow::anyhow;
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// The settings that the flags alone decide: all that `check` needs. Without a pool there are no VIPs.
///
/// # Errors
/// A `--vip-pool` that is none, with what is allowed; `--vip pool` without one.
pub fn of_flags(args: &TranslateArgs) -> anyhow::Result<Settings> {
    let pools: Result<Vec<Pool>, String> = args.vip_pools.iter().map(|pool| pool.parse()).collect();
    let pools = pools.map_err(|why| anyhow!("--vip-pool: {why}"))?;
    let vips = match args.vip.map(|_| args.vip_source()).transpose()? {
        Some(VipSource::Node) => Vips::AnyNode(NODE_PORTS),
        None if pools.is_empty() => Vips::None,
        Some(VipSource::Pool) | None => Vips::Pools(Pools { pools, reserved: Vec::new() }),
    };
    Ok(Settings {
        load_balancer_classes: args.load_balancer_classes.clone(),
        claim_by_annotation: args.claim_by_annotation,
        default_class: args.default_class,
        default_scheme: args.default_scheme.into(),
        default_target_type: match args.default_target_type {
            TargetTypeArg::Ip => TargetType::Ip,
            TargetTypeArg::Instance => TargetType::Instance,
        },
        node_name: args.node_name.clone(),
        node_addresses: BTreeSet::new(),
        vips,
        remembered: Allocations::default(),
        source_ranges_enforced: false,
    })
}

/// Where VIPs come from on this machine, as it is now.
pub fn vips(
    flags: &Settings,
    source: VipSource,
    network: &Network,
    uplinks: &[String],
    ports: &Ports,
) -> Vips {
    match (source, &flags.vips) {
        (VipSource::Pool, Vips::Pools(pools)) => {
            Vips::Pools(Pools { pools: pools.pools.clone(), reserved: reserved(network) })
        }
        (VipSource::Pool, Vips::None | Vips::Node(_) | Vips::AnyNode(_)) => Vips::None,
        (VipSource::Node, _) => Vips::Node(NodeVips {
            addresses: [IpFamily::IPv4, IpFamily::IPv6]
                .into_iter()
                .flat_map(|family| network.node_vips(uplinks, family))
                .collect(),
            listening: ports.listening.iter().map(listening).collect(),
            node_ports: Some(NODE_PORTS),
            local_ports: Some(ports.local.clone()),
        }),
    }
}

/// The node's own addresses that a pod of the host network can be an endpoint with.
pub fn node_addresses(network: &Network) -> BTreeSet<IpAddr> {
    let all = network.addresses.iter().map(crate::host::addresses::Address::ip);
    all.filter(|ip| crate::vips::unusable(*ip).is_none()).collect()
}

fn listening(socket: &crate::host::ports::Listening) -> Listening {
    Listening {
        protocol: socket.protocol,
        address: socket.address,
        port: socket.port,
        owner: socket.process.clone().unwrap_or_else(|| "a process that cannot be named".into()),
    }
}

/// Addresses that belong to the node or to a gateway.
fn reserved(network: &Network) -> Vec<(IpNet, String)> {
    let own = network.addresses.iter().map(crate::host::addresses::Address::ip);
    own.chain(network.gateways())
        .filter_map(|ip| {
            let word = match network.owner(ip)? {
                Owner::Node(device) => format!("this node's own, on {device}"),
                Owner::Gateway(device) => format!("a gateway's, on {device}"),
            };
            Some((IpNet::from(ip), word))
        })
        .collect()
}
