//! Flags, their environment variables, repeats and errors.

use super::*;
use clap::CommandFactory;
use std::process::Command as Process;

fn parse(line: &str) -> Cli {
    Cli::try_parse_from(line.split(' ')).unwrap()
}

fn refused(line: &str) -> String {
    Cli::try_parse_from(line.split(' ')).unwrap_err().to_string()
}

fn run(line: &str) -> RunArgs {
    match parse(line).command {
        Command::Run(args) => *args,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn defaults_are_the_contract() {
    let args = run("nlb-agent run --manifests m");
    assert_eq!(args.translate.load_balancer_classes, ["nlb.io/nlb"]);
    assert_eq!(args.http, HttpAddress::At("127.0.0.1:9464".parse().unwrap()));
    assert_eq!(args.place.socket, PathBuf::from("/run/nlb/agent.sock"));
    assert_eq!(args.place.pin_path, PathBuf::from("/sys/fs/bpf/nlb"));
    assert_eq!((args.xdp_mode, args.data_path_log), (XdpMode::Auto, DataPathLog::Off));
    assert_eq!(args.translate.default_target_type.word(), "instance");
    assert!(
        args.interfaces.is_empty() && !args.translate.claim_by_annotation && !args.translate.default_class
    );
    let wanted =
        Capacity { max_flows: 1 << 20, max_half_flows: 1 << 18, max_targets: 131_072, max_listeners: 16_384 };
    assert_eq!(args.capacity, wanted);
}

#[test]
fn flags_repeat() {
    let args = run("nlb-agent run --manifests m --interface eth0 --interface eth1 --vip-pool 192.0.2.0/28 \
         --vip-pool internet-facing=198.51.100.1-198.51.100.9 --load-balancer-class a --load-balancer-class b");
    assert_eq!(args.interfaces, ["eth0", "eth1"]);
    assert_eq!(args.translate.vip_pools, ["192.0.2.0/28", "internet-facing=198.51.100.1-198.51.100.9"]);
    assert_eq!(args.translate.load_balancer_classes, ["a", "b"], "given ones replace the default");
}

#[test]
fn vips_come_from_pools_where_there_are_some() {
    let source = |more: &str| run(&format!("nlb-agent run --manifests m{more}")).translate.vip_source();
    assert_eq!(source("").unwrap(), VipSource::Node);
    assert_eq!(source(" --vip-pool 192.0.2.0/28").unwrap(), VipSource::Pool);
    assert_eq!(source(" --vip-pool 192.0.2.0/28 --vip node").unwrap(), VipSource::Node);
    assert!(source(" --vip pool").unwrap_err().to_string().contains("--vip-pool"));
}

#[test]
fn table_sizes_are_rounded_up() {
    let args = run("nlb-agent run --manifests m --max-flows 100000 --http none");
    assert_eq!((args.capacity.max_flows, args.http), (131_072, HttpAddress::None));
}

#[test]
fn errors_name_what_is_allowed() {
    for (line, word) in [
        ("nlb-agent run", "--manifests"),
        ("nlb-agent run --manifests m --max-flows 12", "1024 to 67108864"),
        ("nlb-agent run --manifests m --http 9464", "127.0.0.1:9464"),
        ("nlb-agent run --manifests m --xdp-mode fast", "auto, driver, generic"),
        ("nlb-agent run --manifests m --interface a/b", "ip link"),
        ("nlb-agent flows --listener 192.0.2.10:80", "VIP:PORT/TCP"),
        ("nlb-agent flows --client 192.0.2.10:80", "without a port"),
        ("nlb-agent status -o yaml", "table, json"),
        ("nlb-agent top --interval 0", "0.2 to 60"),
        ("nlb-agent check", "<PATH>"),
    ] {
        let error = refused(line);
        assert!(error.contains(word), "{line}: {error}");
    }
}

#[test]
fn flags_of_later_versions_are_not_taken_silently() {
    for flag in ["--kubeconfig=f", "--announce=l2", "--snat-ports=1024-2048", "--leave", "--peer-port=1"] {
        assert!(
            refused(&format!("nlb-agent run --manifests m {flag}")).contains("unexpected argument"),
            "{flag}"
        );
    }
}

#[test]
fn people_see_a_hundred_flows_and_programs_all() {
    let limit = |line: &str| match parse(line).command {
        Command::Flows(args) => args.filter().limit,
        other => panic!("{other:?}"),
    };
    assert_eq!(limit("nlb-agent flows"), Some(100));
    assert_eq!(limit("nlb-agent flows -o json"), None);
    assert_eq!(limit("nlb-agent flows -o json --limit 5"), Some(5));
}

#[test]
fn clients_may_be_bracketed() {
    assert_eq!(words::client("[2001:db8::1]"), words::client("2001:db8::1"));
}

#[test]
fn every_flag_has_its_variable() {
    for command in Cli::command().get_subcommands() {
        let flags = command.get_arguments().filter(|arg| arg.get_long().is_some());
        for flag in flags.filter(|flag| !["help", "version"].contains(&flag.get_long().unwrap_or(""))) {
            let wanted = format!("NLB_{}", flag.get_long().unwrap().to_uppercase().replace('-', "_"));
            assert_eq!(flag.get_env().and_then(|name| name.to_str()), Some(wanted.as_str()), "{command}");
        }
    }
}

/// The environment belongs to a whole process, so this test starts itself again with another one.
#[test]
fn the_environment_stands_in_for_flags() {
    if std::env::var_os("NLB_TEST_INNER").is_some() {
        let args = run("nlb-agent run --http none");
        assert_eq!(args.manifests, PathBuf::from("/m"));
        assert_eq!(args.interfaces, ["eth0", "eth1"]);
        assert_eq!(args.translate.vip_pools, ["192.0.2.0/28", "2001:db8::/120"]);
        assert!(args.translate.default_class && !args.translate.claim_by_annotation);
        assert_eq!(args.http, HttpAddress::None, "a flag goes before its variable");
        assert_eq!(args.translate.node().unwrap(), "from-node-name");
        return;
    }
    let status = Process::new(std::env::current_exe().unwrap())
        .args(["--exact", "args::tests::the_environment_stands_in_for_flags"])
        .envs([
            ("NLB_TEST_INNER", "1"),
            ("NLB_MANIFESTS", "/m"),
            ("NLB_INTERFACE", "eth0,eth1"),
            ("NLB_VIP_POOL", "192.0.2.0/28,2001:db8::/120"),
            ("NLB_DEFAULT_CLASS", "1"),
            ("NLB_CLAIM_BY_ANNOTATION", "off"),
            ("NLB_HTTP", "[::1]:9464"),
            ("NODE_NAME", "from-node-name"),
        ])
        .status()
        .unwrap();
    assert!(status.success());
}
