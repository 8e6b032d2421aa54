//! Pools and who gets what from them.

use super::*;
use proptest::prelude::*;

fn request(name: &str, wanted: &[&str]) -> Request {
    Request {
        service: ObjectName::new("default", name),
        uid: None,
        scheme: Scheme::Internal,
        families: vec![IpFamily::IPv4],
        wanted: wanted.iter().map(|it| it.parse().unwrap()).collect(),
        allocate: true,
    }
}

fn pools(texts: &[&str]) -> Pools {
    Pools { pools: texts.iter().map(|it| it.parse().unwrap()).collect(), reserved: Vec::new() }
}

fn vips(grants: &BTreeMap<ObjectName, Grant>, name: &str) -> Vec<String> {
    grants[&ObjectName::new("default", name)].vips.iter().map(ToString::to_string).collect()
}

fn given(grants: &BTreeMap<ObjectName, Grant>) -> Allocations {
    let one = |(service, grant): (&ObjectName, &Grant)| Given {
        service: service.clone(),
        uid: None,
        vips: grant.vips.clone(),
    };
    Allocations { given: grants.iter().map(one).collect() }
}

#[test]
fn pools_read_and_lose_what_is_no_host() {
    let ends = |text: &str| text.parse::<Pool>().map(|it| (it.first.to_string(), it.last.to_string()));
    let pair = |a: &str, b: &str| Ok((a.to_owned(), b.to_owned()));
    assert_eq!(ends("192.0.2.0/24"), pair("192.0.2.1", "192.0.2.254"));
    assert_eq!(ends("192.0.2.0/31"), pair("192.0.2.0", "192.0.2.1"));
    assert_eq!(ends("internal=192.0.2.7"), pair("192.0.2.7", "192.0.2.7"));
    assert_eq!(ends("internet-facing=192.0.2.7-192.0.2.9"), pair("192.0.2.7", "192.0.2.9"));
    assert_eq!(ends("2001:db8::/64"), pair("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff"));
    for bad in [
        "",
        "192.0.2.1/24",
        "192.0.2.9-192.0.2.7",
        "192.0.2.1-2001:db8::1",
        "127.0.0.0/8",
        "public=192.0.2.0/24",
        "224.0.0.0/4",
    ] {
        assert!(bad.parse::<Pool>().is_err(), "{bad}");
    }
}

#[test]
fn the_lowest_free_address_is_given_and_stays() {
    let pools = pools(&["192.0.2.0/29"]);
    let first = pools.allocate(&[request("a", &[]), request("b", &[])], &Allocations::default());
    assert_eq!((vips(&first, "a"), vips(&first, "b")), (vec!["192.0.2.1".into()], vec!["192.0.2.2".into()]));
    // An older one comes in between, and "a" goes: "b" keeps its address, the new one gets the lowest.
    let second = pools.allocate(&[request("c", &[]), request("b", &[])], &given(&first));
    assert_eq!(
        (vips(&second, "b"), vips(&second, "c")),
        (vec!["192.0.2.2".into()], vec!["192.0.2.1".into()])
    );
}

#[test]
fn requests_are_kept_free_and_refused_with_a_reason() {
    let mut pools = pools(&["192.0.2.0/29"]);
    pools.reserved = vec![("192.0.2.2/32".parse().unwrap(), "the gateway".into())];
    let requests = [
        request("a", &[]),
        request("b", &["192.0.2.1"]),
        request("c", &["192.0.2.1"]),
        request("d", &["192.0.2.2"]),
        request("e", &["198.51.100.1"]),
    ];
    let grants = pools.allocate(&requests, &Allocations::default());
    assert_eq!(vips(&grants, "a"), ["192.0.2.3"]);
    assert_eq!(vips(&grants, "b"), ["192.0.2.1"]);
    let shortage = |name: &str| grants[&ObjectName::new("default", name)].shortages[0].clone();
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    assert_eq!(shortage("c"), Shortage::Taken(ip("192.0.2.1"), ObjectName::new("default", "b")));
    assert_eq!(shortage("d"), Shortage::Reserved(ip("192.0.2.2"), "the gateway".into()));
    assert_eq!(shortage("e"), Shortage::NotInPool(ip("198.51.100.1")));
}

#[test]
fn another_uid_has_no_claim_and_schemes_have_their_own_pools() {
    let pools = pools(&["internet-facing=198.51.100.0/30", "internal=192.0.2.0/30"]);
    let mut one = request("a", &[]);
    one.uid = Some("new".into());
    let before = Allocations {
        given: vec![Given {
            service: one.service.clone(),
            uid: Some("old".into()),
            vips: vec!["192.0.2.2".parse().unwrap()],
        }],
    };
    assert_eq!(vips(&pools.allocate(&[one.clone()], &before), "a"), ["192.0.2.1"]);
    one.families = vec![IpFamily::IPv6];
    assert_eq!(
        pools.allocate(&[one.clone()], &before)[&one.service].shortages,
        [Shortage::NoPool(IpFamily::IPv6)]
    );
}

proptest! {
    #[test]
    fn no_address_is_given_twice_and_none_is_lost(count in 0usize..20, prefix in 26u8..31, again in 0usize..20) {
        let pools = pools(&[&format!("192.0.2.0/{prefix}")]);
        let requests: Vec<_> = (0..count).map(|n| request(&format!("s{n:02}"), &[])).collect();
        let first = pools.allocate(&requests, &Allocations::default());
        let all: Vec<IpAddr> = first.values().flat_map(|it| it.vips.clone()).collect();
        prop_assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        prop_assert_eq!(all.len(), count.min((1 << (32 - prefix)) - 2));
        // Whoever comes first the next time: what was given stays.
        let mut turned = requests.clone();
        turned.rotate_left(again % count.max(1));
        prop_assert_eq!(pools.allocate(&turned, &given(&first)), first);
    }
}
