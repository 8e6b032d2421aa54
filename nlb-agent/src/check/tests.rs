//! What `check` prints and how it ends, on the examples and on broken input.

use super::*;
use crate::translate::Vips;
use crate::vips::Pools;
use serde_json::Value;
use std::fs;

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/check/five-port.json");

fn settings(pools: &[&str]) -> Settings {
    let pools = pools.iter().map(|it| it.parse().unwrap()).collect();
    Settings {
        load_balancer_classes: vec!["nlb.io/nlb".into(), "service.k8s.aws/nlb".into()],
        vips: Vips::Pools(Pools { pools, reserved: Vec::new() }),
        ..Settings::default()
    }
}

fn check(paths: &[PathBuf], settings: &Settings, format: Format, strict: bool) -> (u8, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let status = run(settings, paths, format, strict, &mut out, &mut err);
    (status, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

fn example(name: &str) -> PathBuf {
    Path::new(EXAMPLES).join(name)
}

#[test]
fn the_five_port_service_is_what_the_golden_file_says() {
    let (status, out, err) =
        check(&[example("five-port.yaml")], &settings(&["192.0.2.0/24"]), Format::Json, true);
    assert_eq!((status, err.as_str()), (0, ""), "{out}");
    if std::env::var_os("NLB_WRITE_GOLDEN").is_some() {
        fs::write(GOLDEN, &out).unwrap();
    }
    assert_eq!(out, fs::read_to_string(GOLDEN).unwrap());
    let json: Value = serde_json::from_str(&out).unwrap();
    let lb = &json["loadBalancers"][0];
    assert_eq!(lb["vips"], serde_json::json!(["192.0.2.1"]));
    let groups = lb["targetGroups"].as_array().unwrap();
    assert_eq!(groups.iter().map(|it| it["targets"].as_array().unwrap().len()).collect::<Vec<_>>(), [5; 5]);
    assert_eq!(json["problems"], serde_json::json!([]));
}

#[test]
fn all_examples_pass_strictly_together() {
    let pools = ["192.0.2.0/24", "2001:db8:1::/120"];
    let (status, out, err) = check(&[PathBuf::from(EXAMPLES)], &settings(&pools), Format::Json, true);
    assert_eq!((status, err.as_str()), (0, ""), "{out}");
    let json: Value = serde_json::from_str(&out).unwrap();
    let dual = &json["loadBalancers"][0];
    assert_eq!(dual["name"], "dual-stack");
    assert_eq!(dual["vips"], serde_json::json!(["192.0.2.1", "2001:db8:1::1"]));
    assert_eq!(dual["listeners"][1]["idleTimeoutSeconds"], 120);
    assert_eq!(dual["targetGroups"][1]["healthCheck"]["port"], 8080);
    assert_eq!(dual["targetGroups"][1]["targets"].as_array().unwrap().len(), 10);
}

#[test]
fn the_table_names_listeners_targets_and_problems() {
    let settings =
        Settings { load_balancer_classes: vec!["service.k8s.aws/nlb".into()], ..Settings::default() };
    let (status, out, _) = check(&[PathBuf::from(EXAMPLES)], &settings, Format::Table, false);
    assert_eq!(status, 0);
    for word in [
        "app-qa/internal-nlb-service",
        "5003/TCP",
        "10.1.0.11:5003",
        "TCP connect",
        "another class: nlb.io/nlb",
        "--vip-pool",
    ] {
        assert!(out.contains(word), "{word} in\n{out}");
    }
}

#[test]
fn flags_that_cannot_be_used_end_with_2_and_node_vips_are_shared() {
    use clap::Parser;
    let folder = tempfile::TempDir::new().unwrap();
    let service = |name: &str| {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{type: LoadBalancer, loadBalancerClass: nlb.io/nlb, ports: [{{port: 80}}]}}\n"
        )
    };
    let file = folder.path().join("a.yaml");
    fs::write(&file, service("a") + &service("b")).unwrap();
    let status = |flags: &[&str]| {
        let words = ["nlb-agent", "check", file.to_str().unwrap(), "-o", "json"]
            .into_iter()
            .chain(flags.iter().copied());
        let args::Command::Check(args) = args::Cli::parse_from(words).command else { panic!() };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        (asked(&args, &mut out, &mut err), String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    };
    for (flags, word) in
        [(&["--vip-pool", "nonsense"][..], "nonsense"), (&["--vip", "pool"], "--vip-pool CIDR")]
    {
        let (code, out, err) = status(flags);
        assert_eq!((code, out.as_str()), (2, ""));
        assert!(err.contains(word), "{err}");
    }
    assert_eq!(status(&[]).0, 0);
    assert_eq!(status(&["--vip-pool", "192.0.2.0/24"]).0, 0);
    let (code, out, _) = status(&["--vip", "node", "--vip-pool", "192.0.2.0/24"]);
    assert_eq!((code, out.contains("PortTaken"), out.contains("192.0.2.1")), (1, true, false), "{out}");
}

#[test]
fn statuses_tell_refused_from_unreadable() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("a.yaml");
    let service = |ports: &str, annotation: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  annotations: {{{annotation}}}\nspec:\n  type: LoadBalancer\n  loadBalancerClass: nlb.io/nlb\n  ports: {ports}\n"
        )
    };
    let one = "[{port: 80}]";
    let typo = "service.beta.kubernetes.io/aws-load-balancer-helthcheck-path: /";
    let ten = "service.beta.kubernetes.io/aws-load-balancer-healthcheck-interval: ten";
    let cases = [
        (service(one, ""), false, 0),
        (service(one, ""), true, 0),
        (service(one, typo), false, 0),
        (service(one, typo), true, 1),
        (service(one, ten), false, 1),
        (service("[{port: 70000}]", ""), false, 1),
        (service("[{port: 80, protocol: SCTP}]", ""), false, 1),
        (service("[{port: eighty}]", ""), false, 2),
        (service("[{port: 80", ""), false, 2),
    ];
    for (text, strict, wanted) in cases {
        fs::write(&file, &text).unwrap();
        let (status, out, err) =
            check(std::slice::from_ref(&file), &settings(&["192.0.2.0/24"]), Format::Json, strict);
        assert_eq!(status, wanted, "{text}\n{out}\n{err}");
        let named = err.contains("a.yaml, document 1, line ");
        assert_eq!(named, wanted == 2, "{text}\n{err}");
    }
    // One bad document costs itself alone.
    let bad = service("[{port: eighty}]", "");
    let other = service(one, "").replace("name: web", "name: other");
    for text in [format!("{bad}---\n{other}"), format!("{other}---\n{bad}"), format!("kind: [\n---\n{other}")]
    {
        fs::write(&file, &text).unwrap();
        let (status, out, err) =
            check(std::slice::from_ref(&file), &settings(&["192.0.2.0/24"]), Format::Json, false);
        let json: Value = serde_json::from_str(&out).unwrap();
        let names: Vec<&Value> =
            json["loadBalancers"].as_array().unwrap().iter().map(|it| &it["name"]).collect();
        assert_eq!((status, names), (2, vec![&Value::from("other")]), "{text}\n{err}");
    }
    let (status, _, err) = check(&[folder.path().join("none.yaml")], &settings(&[]), Format::Json, false);
    assert!(status == 2 && err.contains("none.yaml"), "{err}");
}

/// Objects whose fields are absent, null or empty, one after the other; what is said of each is kept beside them.
#[test]
fn what_is_absent_is_called_so_and_what_is_empty_too() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/check");
    let golden = format!("{folder}/absent.txt");
    let paths = [PathBuf::from(format!("{folder}/absent.yaml"))];
    let (status, out, err) = check(&paths, &settings(&["192.0.2.0/24"]), Format::Json, false);
    assert_eq!(
        (status, err.trim_end().ends_with("skipped a Service without an `apiVersion`")),
        (1, true),
        "{err}"
    );
    let json: Value = serde_json::from_str(&out).unwrap();
    let mut text = String::new();
    for problem in json["problems"].as_array().unwrap() {
        let word = |key: &str| problem[key].as_str().unwrap_or("null").to_owned();
        let message = word("message");
        text += &format!("{}: {message} [{}]\n", word("object"), problem["value"]);
        assert!(
            !message.contains("``") && !message.contains("is ,") && !message.contains("missing"),
            "{message}"
        );
        if problem["value"].is_null() {
            let said = ["absent", "without a name"].iter().any(|it| message.contains(it));
            assert!(said || problem["field"].is_null(), "{message}");
        }
    }
    if std::env::var_os("NLB_WRITE_GOLDEN").is_some() {
        fs::write(&golden, &text).unwrap();
    }
    assert_eq!(text, fs::read_to_string(&golden).unwrap());
}
