//! The chains that every forwarded packet must get through, as `nft` and `iptables-save` list them.

use serde_json::Value;
use std::time::Duration;
use tokio::process::Command;

/// A listing that takes longer is left out: a firewall of that size is not judged at the price of a start that hangs.
const PATIENCE: Duration = Duration::from_secs(5);

/// A base chain at the forward hook of IPv4, IPv6 or both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForwardChain {
    /// How it was made, and so how it is changed.
    pub tool: Tool,
    /// `ip`, `ip6` or `inet`.
    pub family: String,
    /// The table's name.
    pub table: String,
    /// The chain's name.
    pub name: String,
    /// What becomes of a packet that no rule decides.
    pub policy_drop: bool,
    /// Number of rules.
    pub rules: usize,
    /// Rules that accept something, or lead to a chain that may.
    pub accepting: usize,
    /// The first rule without a condition accepts, whatever the policy.
    pub accepts_all: bool,
    /// The first rule without a condition drops or rejects: what comes to it ends there, whatever the policy.
    pub drops_all: bool,
}

/// What lists and changes a chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tool {
    /// nftables, iptables-nft's chains among them.
    #[default]
    Nft,
    /// `iptables` or `ip6tables` of the older kind.
    Iptables,
}

impl ForwardChain {
    /// Whether a packet that no rule names is lost here.
    pub fn drops_the_rest(&self) -> bool {
        !self.accepts_all && (self.policy_drop || self.drops_all)
    }

    /// Whether IPv4 packets pass it.
    pub fn sees_ipv4(&self) -> bool {
        self.family != "ip6"
    }

    /// Whether IPv6 packets pass it.
    pub fn sees_ipv6(&self) -> bool {
        self.family != "ip"
    }
}

/// What one rule does, as far as it matters here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Accepts,
    Leads,
    Drops,
    Nothing,
}

impl ForwardChain {
    fn add(&mut self, outcome: Outcome, always: bool) {
        let decided = self.accepts_all || self.drops_all;
        self.rules += 1;
        self.accepting += usize::from(matches!(outcome, Outcome::Accepts | Outcome::Leads));
        self.accepts_all |= always && !decided && outcome == Outcome::Accepts;
        self.drops_all |= always && !decided && outcome == Outcome::Drops;
    }
}

/// Lists the chains with the tools that are there; a tool that is missing, fails or hangs is left out.
pub async fn read() -> Vec<ForwardChain> {
    let mut chains = Vec::new();
    let nft = output("nft", &["-j", "list", "chains"]).await;
    for chain in base_chains(nft.as_deref().unwrap_or_default()) {
        let place = ["-j", "list", "chain", &chain.family, &chain.table, &chain.name];
        if let Some(listing) = output("nft", &place).await {
            chains.push(with_nft_rules(chain, &listing));
        }
    }
    for (family, tools) in [
        ("ip", ["iptables-legacy-save", "iptables-save"]),
        ("ip6", ["ip6tables-legacy-save", "ip6tables-save"]),
    ] {
        for tool in tools {
            let Some(listing) = output(tool, &[]).await else { continue };
            // iptables-nft shows the chains that nft has shown already.
            if !(listing.contains("(nf_tables)") && nft.is_some()) {
                chains.extend(saved_chain(&listing, family));
            }
            break;
        }
    }
    chains
}

async fn output(tool: &str, arguments: &[&str]) -> Option<String> {
    let run = Command::new(tool).args(arguments).kill_on_drop(true).output();
    let done = tokio::time::timeout(PATIENCE, run).await.ok()?.ok()?;
    done.status.success().then(|| String::from_utf8_lossy(&done.stdout).into_owned())
}

/// The items of one kind in nft's JSON (libnftables-json(5)).
fn items(listing: &str, kind: &str) -> Vec<Value> {
    let mut root: Value = serde_json::from_str(listing).unwrap_or_default();
    let all = root.get_mut("nftables").and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default();
    all.into_iter().filter_map(|mut item| item.get_mut(kind).map(Value::take)).collect()
}

fn base_chains(listing: &str) -> Vec<ForwardChain> {
    let text = |chain: &Value, key: &str| chain[key].as_str().unwrap_or_default().to_owned();
    let chains = items(listing, "chain").into_iter();
    let forward = chains.filter(|chain| chain["hook"] == "forward");
    let routed = forward.filter(|chain| ["ip", "ip6", "inet"].contains(&text(chain, "family").as_str()));
    let plain = routed.map(|chain| ForwardChain {
        family: text(&chain, "family"),
        table: text(&chain, "table"),
        name: text(&chain, "name"),
        policy_drop: chain["policy"] == "drop",
        ..ForwardChain::default()
    });
    plain.collect()
}

fn with_nft_rules(mut chain: ForwardChain, listing: &str) -> ForwardChain {
    for rule in items(listing, "rule") {
        let expressions = rule["expr"].as_array().map(Vec::as_slice).unwrap_or_default();
        let has =
            |names: &[&str]| expressions.iter().any(|one| names.iter().any(|name| one.get(name).is_some()));
        let outcome = match () {
            () if has(&["accept"]) => Outcome::Accepts,
            () if has(&["jump", "goto", "vmap", "queue"]) => Outcome::Leads,
            () if has(&["drop", "reject"]) => Outcome::Drops,
            () => Outcome::Nothing,
        };
        const UNCONDITIONAL: [&str; 5] = ["counter", "log", "accept", "drop", "reject"];
        let always = expressions.iter().all(|one| UNCONDITIONAL.iter().any(|name| one.get(name).is_some()));
        chain.add(outcome, always);
    }
    chain
}

/// The FORWARD chain of the filter table in the format of iptables-save.
fn saved_chain(listing: &str, family: &str) -> Option<ForwardChain> {
    let filter = listing.lines().skip_while(|line| *line != "*filter").take_while(|line| *line != "COMMIT");
    let mut found = None;
    for line in filter {
        if let Some(head) = line.strip_prefix(":FORWARD ") {
            let (family, table, name) = (family.into(), "filter".into(), "FORWARD".into());
            let policy_drop = head.starts_with("DROP");
            found = Some(ForwardChain {
                tool: Tool::Iptables,
                family,
                table,
                name,
                policy_drop,
                ..ForwardChain::default()
            });
        }
        if let (Some(chain), Some(rule)) = (&mut found, line.strip_prefix("-A FORWARD")) {
            let (conditions, target) =
                rule.split_once(" -j ").or(rule.split_once(" -g ")).unwrap_or((rule, ""));
            let outcome = match target.split(' ').next().unwrap_or_default() {
                "ACCEPT" => Outcome::Accepts,
                "DROP" | "REJECT" => Outcome::Drops,
                "" | "LOG" | "NFLOG" | "MARK" | "CONNMARK" | "RETURN" | "TCPMSS" => Outcome::Nothing,
                _ => Outcome::Leads,
            };
            chain.add(outcome, conditions.trim().is_empty());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAINS: &str = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
        {"chain": {"family": "inet", "table": "t", "name": "f", "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}},
        {"chain": {"family": "bridge", "table": "t", "name": "b", "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}},
        {"chain": {"family": "inet", "table": "t", "name": "i", "type": "filter", "hook": "input", "prio": 0, "policy": "drop"}},
        {"chain": {"family": "ip", "table": "t", "name": "custom"}}]}"#;

    fn with(rules: &[&str]) -> ForwardChain {
        let rules: Vec<String> =
            rules.iter().map(|expr| format!(r#"{{"rule": {{"chain": "f", "expr": {expr}}}}}"#)).collect();
        with_nft_rules(base_chains(CHAINS).remove(0), &format!(r#"{{"nftables": [{}]}}"#, rules.join(",")))
    }

    #[test]
    fn only_routed_forward_chains_count() {
        let names: Vec<_> = base_chains(CHAINS).into_iter().map(|chain| chain.name).collect();
        assert_eq!(names, ["f"]);
        assert!(base_chains("no json").is_empty() && base_chains("{}").is_empty());
    }

    #[test]
    fn a_drop_policy_is_lifted_by_an_unconditional_accept_alone() {
        let conditional = r#"[{"match": {"op": "=="}}, {"accept": null}]"#;
        assert!(with(&[]).drops_the_rest());
        assert!(with(&[conditional]).drops_the_rest());
        assert_eq!(with(&[conditional, r#"[{"jump": {"target": "x"}}]"#]).accepting, 2);
        assert!(!with(&[conditional, r#"[{"counter": {}}, {"accept": null}]"#]).drops_the_rest());
    }

    #[test]
    fn a_closing_reject_is_a_drop_policy_by_another_name() {
        let reject = r#"[{"reject": {"type": "icmpx"}}]"#;
        let accept = r#"[{"accept": null}]"#;
        let open = ForwardChain { policy_drop: false, ..with(&[reject]) };
        assert!(open.drops_the_rest());
        assert!(!with(&[accept, reject]).drops_the_rest());
        assert!(with(&[reject, accept]).drops_the_rest());
    }

    #[test]
    fn iptables_save_is_read() {
        let text = "# Generated by iptables-save v1.8.9\n*nat\n:FORWARD ACCEPT [0:0]\nCOMMIT\n*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [3:180]\n\
            -A INPUT -j ACCEPT\n-A FORWARD -j DOCKER-USER\n-A FORWARD -i docker0 -j ACCEPT\n-A FORWARD -m comment --comment x\nCOMMIT\n";
        let chain = saved_chain(text, "ip").unwrap();
        assert_eq!((chain.rules, chain.accepting, chain.drops_the_rest()), (3, 2, true));
        assert_eq!((chain.tool, chain.sees_ipv4(), chain.sees_ipv6()), (Tool::Iptables, true, false));
        let open = saved_chain(&text.replace("FORWARD DROP", "FORWARD ACCEPT"), "ip").unwrap();
        assert!(!open.drops_the_rest());
        assert_eq!(saved_chain("", "ip"), None);
    }
}
