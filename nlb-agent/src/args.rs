//! The command line: every subcommand and flag, each flag also as an environment variable `NLB_…`.

mod words;

pub use words::{DataPathLog, HttpAddress, LogFormat, Output, SchemeArg, TargetTypeArg, VipSource, XdpMode};

use crate::report::{FlowFilter, ListenerAddress};
use clap::builder::{BoolishValueParser, NonEmptyStringValueParser};
use clap::{Args, Parser, Subcommand};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// What the user asked for.
#[derive(Debug, Parser)]
#[command(
    name = "nlb-agent",
    version,
    about = "An in-kernel network load balancer for Kubernetes",
    max_term_width = 100
)]
pub struct Cli {
    /// Which of the subcommands.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve; stays in the foreground. SIGTERM leaves the data path in place and exits 0
    Run(Box<RunArgs>),
    /// Print what these manifests would become; needs no root, no kernel, no cluster
    Check(Box<CheckArgs>),
    /// Agent, interfaces, sources in sync, tables' fill, problems
    Status(QueryArgs),
    /// Every listener: Service, healthy and registered targets, flows, packets/s, bits/s
    Listeners(QueryArgs),
    /// Every target: listener, node, zone, state, reason, weight, flows
    Targets(TargetsArgs),
    /// Live flows
    Flows(FlowsArgs),
    /// Counters by reason, with what each means and what to do
    Drops(QueryArgs),
    /// Live view of listeners and targets; q ends it
    Top(TopArgs),
    /// Take programs, links, pins and the agent's own files away from this node
    Detach(DetachArgs),
    /// Version, kernel, features in use, layout version
    Version(VersionArgs),
}

/// `run`.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Uplink that clients' packets come in by; repeats. Default: those that carry a default route
    #[arg(long = "interface", env = "NLB_INTERFACE", value_name = "IF", value_delimiter = ',', value_parser = words::interface)]
    pub interfaces: Vec<String>,

    /// Take Services and EndpointSlices from the YAML files in DIR, watched
    #[arg(long, env = "NLB_MANIFESTS", value_name = "DIR")]
    pub manifests: PathBuf,

    /// How Services are read.
    #[command(flatten)]
    pub translate: TranslateArgs,

    /// How the XDP program is attached: driver mode, generic mode, or the first that works
    #[arg(long, env = "NLB_XDP_MODE", value_enum, default_value_t = XdpMode::Auto)]
    pub xdp_mode: XdpMode,

    /// Take pins of another layout over while traffic goes on, instead of refusing to start
    #[arg(long, env = "NLB_REPLACE_LAYOUT", value_parser = BoolishValueParser::new())]
    pub replace_layout: bool,

    /// Log lines of the data path itself; `off` costs nothing
    #[arg(long, env = "NLB_DATA_PATH_LOG", value_enum, default_value_t = DataPathLog::Off)]
    pub data_path_log: DataPathLog,

    /// Where /metrics, /healthz and /readyz are served; `none` switches them off
    #[arg(long, env = "NLB_HTTP", value_name = "ADDR:PORT", default_value = "127.0.0.1:9464", value_parser = words::http_address)]
    pub http: HttpAddress,

    /// Where the agent meets the other subcommands and the kernel.
    #[command(flatten)]
    pub place: Place,

    /// How large the maps are.
    #[command(flatten)]
    pub capacity: Capacity,

    /// Which log lines are written: off, error, warn, info, debug, trace, or `module=level,…`
    #[arg(long, env = "NLB_LOG", value_name = "FILTER", default_value = "info")]
    pub log: String,

    /// How log lines are written
    #[arg(long, env = "NLB_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// The settings that decide what a Service becomes: the same for `run` and `check`.
#[derive(Clone, Debug, Args)]
pub struct TranslateArgs {
    /// This node's name: decides which targets are local. Default: NODE_NAME, else the host's name
    #[arg(long, env = "NLB_NODE_NAME", value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub node_name: Option<String>,

    /// Services of this loadBalancerClass are ours; repeats
    #[arg(long = "load-balancer-class", env = "NLB_LOAD_BALANCER_CLASS", value_name = "C", value_delimiter = ',',
          default_value = "nlb.io/nlb", value_parser = NonEmptyStringValueParser::new())]
    pub load_balancer_classes: Vec<String>,

    /// Services without a class but with the annotation of type `nlb-ip` or `external` are ours, too
    #[arg(long, env = "NLB_CLAIM_BY_ANNOTATION", value_parser = BoolishValueParser::new())]
    pub claim_by_annotation: bool,

    /// Services without a class are ours, too
    #[arg(long, env = "NLB_DEFAULT_CLASS", value_parser = BoolishValueParser::new())]
    pub default_class: bool,

    /// Scheme of a Service that names none
    #[arg(long, env = "NLB_DEFAULT_SCHEME", value_enum, default_value_t = SchemeArg::Internal)]
    pub default_scheme: SchemeArg,

    /// Target type of a Service that names none
    #[arg(long, env = "NLB_DEFAULT_TARGET_TYPE", value_enum, default_value_t = TargetTypeArg::Instance)]
    pub default_target_type: TargetTypeArg,

    /// Addresses to give out: [SCHEME=]CIDR or [SCHEME=]FIRST-LAST; repeats
    #[arg(long = "vip-pool", env = "NLB_VIP_POOL", value_name = "[SCHEME=]CIDR|A-B", value_delimiter = ',',
          value_parser = NonEmptyStringValueParser::new())]
    pub vip_pools: Vec<String>,

    /// Where VIPs come from: the pools, or the node's own addresses. Default: pool where one is given, else node
    #[arg(long, env = "NLB_VIP", value_enum)]
    pub vip: Option<VipSource>,
}

impl TranslateArgs {
    /// Where VIPs come from, the default applied.
    ///
    /// # Errors
    /// `--vip pool` without a pool.
    pub fn vip_source(&self) -> anyhow::Result<VipSource> {
        match (self.vip, self.vip_pools.is_empty()) {
            (Some(VipSource::Pool), true) => {
                anyhow::bail!(
                    "--vip pool needs addresses to give out: add --vip-pool CIDR, or choose --vip node"
                )
            }
            (Some(source), _) => Ok(source),
            (None, true) => Ok(VipSource::Node),
            (None, false) => Ok(VipSource::Pool),
        }
    }

    /// This node's name: the flag, else `NODE_NAME` (what Kubernetes' downward API is customarily given), else the host's.
    ///
    /// # Errors
    /// The host's name cannot be read.
    pub fn node(&self) -> anyhow::Result<String> {
        let customary = std::env::var("NODE_NAME").ok().filter(|name| !name.is_empty());
        match self.node_name.clone().or(customary) {
            Some(name) => Ok(name),
            None => Ok(std::fs::read_to_string("/proc/sys/kernel/hostname")?.trim().to_owned()),
        }
    }
}

/// How many entries the maps are made for. Taken when the maps are made; later only after `detach`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Args)]
pub struct Capacity {
    /// Flows held at once, rounded up to a power of two: 1024 to 67108864
    #[arg(long, env = "NLB_MAX_FLOWS", value_name = "N", default_value = "1048576", value_parser = words::table_size)]
    pub max_flows: u32,

    /// Flows held that only one side has spoken in, rounded up to a power of two: 1024 to 67108864
    #[arg(long, env = "NLB_MAX_HALF_FLOWS", value_name = "N", default_value = "262144", value_parser = words::table_size)]
    pub max_half_flows: u32,

    /// Targets held at once, counted once for each listener: 1 to 4194304
    #[arg(long, env = "NLB_MAX_TARGETS", value_name = "N", default_value = "131072",
          value_parser = clap::value_parser!(u32).range(1..=4_194_304))]
    pub max_targets: u32,

    /// Listeners held at once, and as many VIPs: 1 to 1048576
    #[arg(long, env = "NLB_MAX_LISTENERS", value_name = "N", default_value = "16384",
          value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    pub max_listeners: u32,
}

/// Where the agent meets the other subcommands and the kernel.
#[derive(Clone, Debug, Args)]
pub struct Place {
    /// The agent's unix socket, mode 0600
    #[arg(long, env = "NLB_SOCKET", value_name = "PATH", default_value = "/run/nlb/agent.sock")]
    pub socket: PathBuf,

    /// Where programs, links and maps are pinned: a folder on a bpf file system
    #[arg(long, env = "NLB_PIN_PATH", value_name = "DIR", default_value = "/sys/fs/bpf/nlb")]
    pub pin_path: PathBuf,
}

/// `check`.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// Files, folders, or - for standard input
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,

    /// How Services are read.
    #[command(flatten)]
    pub translate: TranslateArgs,

    /// Warnings fail, too
    #[arg(long, env = "NLB_STRICT", value_parser = BoolishValueParser::new())]
    pub strict: bool,

    /// How the answer is printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// How an answer is printed.
#[derive(Clone, Copy, Debug, Args)]
pub struct OutputArgs {
    /// For people or for programs
    #[arg(short = 'o', long = "output", env = "NLB_OUTPUT", value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// A subcommand that only asks.
#[derive(Clone, Debug, Args)]
pub struct QueryArgs {
    /// Whom to ask.
    #[command(flatten)]
    pub place: Place,
    /// How the answer is printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `targets`.
#[derive(Clone, Debug, Args)]
pub struct TargetsArgs {
    /// Only this Service's: NAME or NAMESPACE/NAME
    #[arg(value_name = "SERVICE", value_parser = NonEmptyStringValueParser::new())]
    pub service: Option<String>,
    /// Whom to ask, and how the answer is printed.
    #[command(flatten)]
    pub query: QueryArgs,
}

/// `flows`.
#[derive(Clone, Debug, Args)]
pub struct FlowsArgs {
    /// Only this listener's: VIP:PORT/PROTOCOL, IPv6 in brackets
    #[arg(long, env = "NLB_LISTENER", value_name = "L")]
    pub listener: Option<ListenerAddress>,

    /// Only this client's
    #[arg(long, env = "NLB_CLIENT", value_name = "IP", value_parser = words::client)]
    pub client: Option<IpAddr>,

    /// At most so many rows. Default: 100 in a table, all in JSON
    #[arg(long, env = "NLB_LIMIT", value_name = "N")]
    pub limit: Option<usize>,

    /// Whom to ask, and how the answer is printed.
    #[command(flatten)]
    pub query: QueryArgs,
}

impl FlowsArgs {
    /// Which flows, and how many rows: a person is shown 100 unless told, a program everything.
    pub fn filter(&self) -> FlowFilter {
        let usual = match self.query.output.output {
            Output::Table => Some(100),
            Output::Json => None,
        };
        FlowFilter { listener: self.listener, client: self.client, limit: self.limit.or(usual) }
    }
}

/// `top`.
#[derive(Clone, Debug, Args)]
pub struct TopArgs {
    /// Seconds between two looks: 0.2 to 60
    #[arg(long, env = "NLB_INTERVAL", value_name = "SECONDS", default_value = "1", value_parser = words::seconds)]
    pub interval: Duration,
    /// Whom to ask.
    #[command(flatten)]
    pub place: Place,
}

/// `detach`.
#[derive(Clone, Debug, Args)]
pub struct DetachArgs {
    /// Do not ask
    #[arg(long, short = 'y', env = "NLB_YES", value_parser = BoolishValueParser::new())]
    pub yes: bool,
    /// Whose programs, and how the answer is printed.
    #[command(flatten)]
    pub query: QueryArgs,
}

/// `version`.
#[derive(Clone, Copy, Debug, Args)]
pub struct VersionArgs {
    /// How the answer is printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

#[cfg(test)]
mod tests;
