//! Texts of many documents, good and bad.

use super::*;

const SERVICE: &str =
    "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {type: LoadBalancer, ports: [{port: 80}]}\n";

fn names(reading: &Reading) -> Vec<String> {
    reading.objects.iter().map(|it| it.identity().to_string()).collect()
}

#[test]
fn documents_lists_and_unknown_kinds() {
    let list = "kind: ServiceList\napiVersion: v1\nitems:\n- metadata: {name: in-list}\n  spec: {ports: [{port: 1}]}\n";
    let text =
        format!("---\n{SERVICE}---\n# nothing\n---\n{list}---\napiVersion: apps/v1\nkind: Deployment\n");
    let reading = parse("a.yaml", &text);
    assert_eq!(reading.errors, []);
    assert_eq!(names(&reading), ["Service default/web", "Service default/in-list"]);
    let skipped: Vec<String> = reading.skipped.iter().map(ToString::to_string).collect();
    assert_eq!(skipped, ["a.yaml, document 4: skipped apps/v1 Deployment, a kind that nlb does not read"]);
}

#[test]
fn errors_name_document_and_line() {
    let text = format!(
        "{SERVICE}---\napiVersion: v1\nkind: Service\nmetadata:\n  name: x\n  annotations:\n    a: true\n---\n{SERVICE}"
    );
    let reading = parse("a.yaml", &text);
    assert_eq!(names(&reading).len(), 2);
    assert!(!reading.obscure);
    let error = &reading.errors[0];
    assert_eq!((error.document, error.line), (2, Some(11)), "{error}");
    assert_eq!(error.identity.as_ref().unwrap().to_string(), "Service default/x");
}

#[test]
fn every_error_names_a_line() {
    let json = |name: &str, port: &str| {
        format!(
            "{{\"apiVersion\":\"v1\",\"kind\":\"Service\",\n\"metadata\":{{\"name\":\"{name}\"}},\n\"spec\":{{\"ports\":[{{\"port\":{port}}}]}}}}"
        )
    };
    let list = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Service, metadata: {name: b}, spec: {ports: [{port: x}]}}\n";
    let wrong = "spec.ports[0].port is `x`, a string, but must be a whole number";
    let rows = [
        (json("a", "\"x\""), 1, 3, format!("Service default/a: {wrong}")),
        (
            format!("\n{}\n{}", json("a", "1"), json("b", "\"x\"")),
            2,
            7,
            format!("Service default/b: {wrong}"),
        ),
        ("{\"a\":1}".into(), 1, 1, "no `kind`".into()),
        (format!("{SERVICE}---\nfoo: 1\n"), 2, 6, "no `kind`".into()),
        (list.into(), 1, 4, format!("Service default/b: {wrong}")),
        ("apiVersion: v1\nkind: List\nitems: 3\n".into(), 1, 3, "must be a list".into()),
        (format!("{SERVICE}---\n\nkind: [\n"), 2, 7, "unclosed bracket".into()),
    ];
    for (text, document, line, why) in rows {
        let error = &parse("-", &text).errors[0];
        assert_eq!((error.document, error.line), (document, Some(line)), "{error}");
        assert!(error.why.contains(&why), "{error}");
    }
}

#[test]
fn merge_keys_and_a_byte_order_mark_are_read_as_kubectl_does() {
    let text = SERVICE.replace("metadata: {", "metadata: {<<: {namespace: other}, ");
    let reading = parse("a.yaml", &format!("\u{feff}{text}"));
    assert_eq!(reading.errors, []);
    assert_eq!(names(&reading), ["Service other/web"]);
    // As `cat` leaves them.
    for between in ["\u{feff}---\n", "---\n\u{feff}"] {
        let reading = parse("a.yaml", &format!("\u{feff}{SERVICE}{between}{SERVICE}"));
        assert_eq!((names(&reading).len(), reading.errors.len()), (2, 0), "{between:?}");
    }
}

/// Ways in which a document is bad: text, whether it cannot be told whose it is.
const BAD: [(&str, bool); 12] = [
    ("kind: [\n", true),
    ("kind: Service\nmetadata: {name: bad\nspec: {}\n", true),
    ("a: 'no end\nb: 1\n", true),
    ("a: \"no end\nb: 1\n", true),
    ("a: *nobody\n", true),
    ("a: b: c\n", true),
    ("  a: 1\n b: 2\n", true),
    ("foo: 1\n", true),
    ("just words\n", true),
    ("{\"kind\": \"Service\",\n", true),
    ("apiVersion: v1\nkind: Service\nmetadata: {name: bad}\nspec: {ports: [{port: x}]}\n", false),
    ("apiVersion: v1\nkind: Service\nmetadata: {name: yes}\nspec: {ports: [{port: 1}]}\n", false),
];

#[test]
fn a_bad_document_costs_itself_alone() {
    let good: Vec<String> = (0..4).map(|n| SERVICE.replace("web", &format!("web{n}"))).collect();
    let wanted: Vec<String> = (0..4).map(|n| format!("Service default/web{n}")).collect();
    for (bad, obscure) in BAD {
        for at in 0..=good.len() {
            let mut texts = good.clone();
            texts.insert(at, bad.to_owned());
            let reading = parse("a.yaml", &texts.join("---\n"));
            assert_eq!(names(&reading), wanted, "{bad:?} at {at}: {:?}", reading.errors);
            let documents: Vec<usize> = reading.errors.iter().map(|it| it.document).collect();
            assert_eq!((documents, reading.obscure), (vec![at + 1], obscure), "{bad:?}");
        }
    }
}

#[test]
fn a_key_that_is_given_twice_costs_nothing() {
    let twice = "apiVersion: v1\nkind: Service\nmetadata:\n  name: twice\n  annotations:\n    example.com/owner: platform\n    example.com/owner: migrations\nspec: {ports: [{port: 80}]}\n";
    let reading = parse("a.yaml", &format!("{SERVICE}---\n{twice}---\n{SERVICE}"));
    assert_eq!((names(&reading).len(), reading.errors.as_slice()), (3, &[][..]));
    let Object::Service(service) = &reading.objects[1] else { panic!("{reading:?}") };
    assert_eq!(service.metadata.annotations.as_ref().unwrap()["example.com/owner"], "migrations");
    let problem = &reading.problems[0];
    assert_eq!((reading.problems.len(), problem.object.as_str()), (1, "Service default/twice"));
    assert_eq!(problem.field.as_deref(), Some("metadata.annotations[example.com/owner]"));
    assert_eq!((problem.value.as_deref(), problem.effect), (Some("migrations"), Effect::Ignored));
    for word in ["a.yaml, document 2", "line 11 as `platform`", "line 12 as `migrations`"] {
        assert!(problem.message.contains(word), "{}", problem.message);
    }
    let listed = format!("kind: List\napiVersion: v1\nitems:\n- {}", twice.trim_end().replace('\n', "\n  "));
    assert_eq!(parse("a.yaml", &listed).problems[0].object, "Service default/twice");
    let other = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a, name: a}\n";
    assert_eq!(parse("a.yaml", other).problems, []);
}

#[test]
fn null_is_the_zero_value_wherever_it_stands() {
    let text = "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  creationTimestamp: null\n  annotations: {a: , b: ~}\n  labels: {c: null}\n  finalizers:\nspec:\n  selector: {d: }\n  type: LoadBalancer\n  externalTrafficPolicy:\n  ports: [{port: 80, targetPort: , name: ~, nodePort: null}]\nstatus:\n";
    let json = "{\"apiVersion\": \"v1\", \"kind\": \"Service\", \"metadata\": {\"name\": \"web\", \"creationTimestamp\": null, \"annotations\": {\"a\": null, \"b\": null}, \"labels\": {\"c\": null}, \"finalizers\": null}, \"spec\": {\"selector\": {\"d\": null}, \"type\": \"LoadBalancer\", \"externalTrafficPolicy\": null, \"ports\": [{\"port\": 80, \"targetPort\": null, \"name\": null, \"nodePort\": null}]}, \"status\": null}";
    for (file, text) in [("a.yaml", text), ("a.json", json)] {
        let reading = parse(file, text);
        assert_eq!(reading.errors, []);
        let Object::Service(service) = &reading.objects[0] else { panic!("{reading:?}") };
        let (metadata, spec) = (&service.metadata, service.spec.as_ref().unwrap());
        let map =
            |it: &Option<std::collections::BTreeMap<String, String>>| format!("{:?}", it.as_ref().unwrap());
        assert_eq!(map(&metadata.annotations), r#"{"a": "", "b": ""}"#);
        assert_eq!(
            (map(&metadata.labels), map(&spec.selector)),
            (r#"{"c": ""}"#.into(), r#"{"d": ""}"#.into())
        );
        assert_eq!(spec.external_traffic_policy.as_deref(), Some("Cluster"));
        assert_eq!(spec.ports.as_ref().unwrap()[0].node_port, None);
    }
    let slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s, labels: {kubernetes.io/service-name: web, x: }}\naddressType: IPv4\nports: [{port: 80, name: }]\nendpoints: [{addresses: [10.0.0.1], conditions: , deprecatedTopology: {zone: }, hints: ~}]\n";
    let reading = parse("a.yaml", slice);
    assert_eq!((names(&reading), reading.errors), (vec!["EndpointSlice default/s".to_owned()], vec![]));
}

#[test]
fn what_lacks_its_quotes_is_told_so() {
    let service = |annotation: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  annotations:\n    a: {annotation}\nspec: {{ports: [{{port: 80}}]}}\n"
        )
    };
    for (word, what) in [
        ("yes", "a truth value (bool)"),
        ("on", "a truth value"),
        ("10", "a number"),
        ("0x1F", "a number"),
        ("1.5", "a number"),
    ] {
        let reading = parse("a.yaml", &service(word));
        let error = reading.errors[0].to_string();
        assert!(
            error.starts_with("a.yaml, document 1, line 6: Service default/web: metadata.annotations[a] is "),
            "{error}"
        );
        assert!(
            error.contains(what) && error.contains(&format!("write it in quotes, \"{word}\"")),
            "{error}"
        );
    }
    for word in ["\"yes\"", "'10'", "1:30", "2001-01-01", "yEs", "!!str 10", "|-\n      10"] {
        assert_eq!(parse("a.yaml", &service(word)).errors, [], "{word}");
    }
}

#[test]
fn numbers_are_read_as_kubectl_reads_them() {
    for (word, port) in
        [("80.0", 80), ("0x50", 80), ("0o120", 80), ("0120", 80), ("8_0", 80), ("8e1", 80), ("+80", 80)]
    {
        let text = SERVICE.replace("port: 80", &format!("port: {word}, targetPort: {word}"));
        let reading = parse("a.yaml", &text);
        let Some(Object::Service(service)) = reading.objects.first() else { panic!("{word}: {reading:?}") };
        assert_eq!(service.spec.as_ref().unwrap().ports.as_ref().unwrap()[0].port, port, "{word}");
    }
    for word in ["80.5", "4294967376", "'80'", "1:20", "[80]", "{a: 80}", "true"] {
        let reading = parse("a.yaml", &SERVICE.replace("port: 80", &format!("port: {word}")));
        assert!(reading.errors[0].why.contains("spec.ports[0].port"), "{word}: {:?}", reading.errors);
    }
}

/// A text is cut at every byte, while its writer has it open: what is taken is always what the whole text says.
#[test]
fn a_growing_text_says_nothing_that_the_whole_one_does_not() {
    let yaml = (1..4).map(|n| SERVICE.replace("web", &format!("web{n}"))).collect::<Vec<_>>().join("---\n");
    let json = (1..4).map(|n| format!("{{\"apiVersion\":\"v1\",\"kind\":\"Service\",\"metadata\":{{\"name\":\"web{n}\"}},\"spec\":{{\"ports\":[{{\"port\":80}}]}}}}\n")).collect::<String>();
    for (file, text) in [("a.yaml", format!("{yaml}...\n")), ("a.json", json)] {
        let whole = parse(file, &text);
        assert_eq!((whole.objects.len(), whole.errors.len()), (3, 0));
        for end in 0..=text.len() {
            let part = parse_growing(file, &text[..end]);
            assert!(whole.objects.starts_with(&part.objects), "{:?}", &text[..end]);
            assert_eq!(part.errors, []);
        }
        let all = parse_growing(file, &text);
        assert_eq!((all.objects, all.waiting), (whole.objects, false));
    }
    assert!(parse_growing("a.yaml", &yaml).waiting);
    assert_eq!(parse_growing("a.yaml", &yaml).objects.len(), 2);
}

#[test]
fn json_documents_follow_each_other() {
    let one =
        r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"a"},"spec":{"ports":[{"port":80}]}}"#;
    assert_eq!(names(&parse("-", &format!("{one}\n{one}"))).len(), 2);
    assert_eq!(names(&parse("x.yaml", "{apiVersion: v1, kind: Node, metadata: {name: n1}}")), ["Node n1"]);
}
