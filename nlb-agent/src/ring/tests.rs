//! What DESIGN asks of a ring, and the paper's own pseudo-code to compare with.

use super::*;
use nlb_common::ring::size;
use proptest::prelude::*;
use std::net::Ipv4Addr;

fn member(number: u32, share: u32) -> Member {
    let ip = Ipv4Addr::from_bits(0x0a00_0000 + number);
    Member { identity: identity(ip.into(), 8080), share }
}

fn equal(count: u32) -> Vec<Member> {
    (0..count).map(|number| member(number, 1)).collect()
}

/// Maglev, section 3.4, Pseudocode 1: the lists of preferences in full, then everyone in turn.
fn paper(ways: &[(u64, u64)], size: u64) -> Vec<i64> {
    let permutation: Vec<Vec<u64>> =
        ways.iter().map(|(offset, skip)| (0..size).map(|j| (offset + j * skip) % size).collect()).collect();
    let mut next = vec![0; ways.len()];
    let mut entry = vec![-1; size as usize];
    let mut n = 0;
    loop {
        for i in 0..ways.len() {
            let mut c = permutation[i][next[i]];
            while entry[c as usize] >= 0 {
                next[i] += 1;
                c = permutation[i][next[i]];
            }
            entry[c as usize] = i as i64;
            next[i] += 1;
            n += 1;
            if n == size {
                return entry;
            }
        }
    }
}

fn counts(ring: &[u16], members: usize) -> Vec<u64> {
    let mut counts = vec![0; members];
    ring.iter().for_each(|entry| counts[usize::from(*entry)] += 1);
    counts
}

fn moved(before: &[u16], after: &[u16]) -> f64 {
    before.iter().zip(after).filter(|(a, b)| a != b).count() as f64 / before.len() as f64
}

/// The ring without this member, its positions kept: as it is when only health has changed.
fn without(members: &[Member], gone: usize, size: u32) -> Vec<u16> {
    let mut left = members.to_vec();
    left[gone].share = 0;
    build(&left, size)
}

#[test]
fn equal_shares_give_the_table_of_the_paper() {
    for count in (1..=20).chain([50, 100, 163]) {
        let size = size(count).unwrap();
        let members = equal(count);
        let ways: Vec<(u64, u64)> = members
            .iter()
            .map(|member| permutation(member.identity, size))
            .map(|(offset, skip)| (offset.into(), skip.into()))
            .collect();
        let ring: Vec<i64> = build(&members, size).into_iter().map(i64::from).collect();
        assert_eq!(ring, paper(&ways, size.into()), "{count} members");
    }
}

#[test]
fn offsets_and_skips_are_a_permutation() {
    for size in nlb_common::ring::RING_SIZES {
        for number in 0..100 {
            let (offset, skip) = permutation(member(number, 1).identity, size);
            assert!(offset < size && (1..size).contains(&skip));
        }
    }
}

#[test]
fn removing_one_target_moves_little_else() {
    for count in (2..=200).chain([1_000]) {
        let size = size(count).unwrap();
        let members = equal(count);
        let ring = build(&members, size);
        let own = 1.0 / f64::from(count);
        let looked_at: Vec<usize> = if count > 12 {
            vec![0, 1, 5, count as usize / 2, count as usize - 1]
        } else {
            (0..count as usize).collect()
        };
        let moves: Vec<f64> =
            looked_at.iter().map(|gone| moved(&ring, &without(&members, *gone, size))).collect();
        let mean = moves.iter().sum::<f64>() / moves.len() as f64;
        let most = moves.iter().copied().fold(0.0, f64::max);
        assert!(most <= own + 0.07, "{count}: {most}");
        assert!(mean <= own + 0.03, "{count}: mean {mean}");
    }
}

#[test]
fn ten_thousand_targets_share_evenly_and_lose_little() {
    let size = size(10_000).unwrap();
    let members = equal(10_000);
    let ring = build(&members, size);
    assert!(counts(&ring, members.len()).iter().all(|count| (104..=105).contains(count)));
    let moves = [0, 5_000, 9_999].map(|gone| moved(&ring, &without(&members, gone, size)));
    assert!(moves.iter().all(|moved| *moved <= 0.0701), "{moves:?}");
    assert!(moves.iter().sum::<f64>() / 3.0 <= 0.0301, "{moves:?}");
}

#[test]
fn the_hash_never_changes() {
    let v4 = identity(Ipv4Addr::new(10, 1, 2, 3).into(), 8080);
    let v6: std::net::IpAddr = "2001:db8::1".parse().unwrap();
    assert_eq!(v4, GOLDEN_V4);
    assert_eq!(identity(v6.into(), 443), GOLDEN_V6);
    assert_eq!(permutation(v4, 65_521), GOLDEN_WAY);
    let weighted: Vec<Member> = (0..5).map(|number| member(number, number * number)).collect();
    let fingerprint = build(&weighted, 1_021).into_iter().fold(0, |hash, entry| mix(hash ^ u64::from(entry)));
    assert_eq!(fingerprint, GOLDEN_RING);
}

const GOLDEN_V4: u64 = 0xeffd5fef9db3ebae;
const GOLDEN_V6: u64 = 0x27a24223d726b03d;
const GOLDEN_WAY: (u32, u32) = (59542, 22895);
const GOLDEN_RING: u64 = 8_891_009_039_003_592_848;

#[test]
fn nobody_with_a_share_gives_no_ring() {
    assert!(build(&[], 251).is_empty());
    assert!(build(&[member(1, 0), member(2, 0)], 251).is_empty());
}

#[test]
fn a_crowd_of_small_shares_leaves_the_large_ones_within_a_percent() {
    // 100 members for 10 007 entries' worth: the guaranteed entries cost the large ones most of their percent.
    for large in [1_u32, 40, 66, 99] {
        let members: Vec<Member> =
            (0..100).map(|number| member(number, if number < large { 1_000_000 } else { 1 })).collect();
        let size = size(100).unwrap();
        check_shares(&members, size);
    }
}

fn check_shares(members: &[Member], size: u32) {
    let counts = counts(&build(members, size), members.len());
    let total: f64 = members.iter().map(|member| f64::from(member.share)).sum();
    for (member, count) in members.iter().zip(counts) {
        let ideal = f64::from(size) * f64::from(member.share) / total;
        assert_eq!(count > 0, member.share > 0);
        if ideal >= 100.0 {
            assert!((count as f64 - ideal).abs() <= ideal * 0.010_001, "{count} for {ideal}");
        } else {
            assert!((count as f64) < ideal + 1.0 || count == 1, "{count} for {ideal}");
        }
    }
}

fn shares() -> impl Strategy<Value = Vec<u32>> {
    let share = prop_oneof![Just(0), Just(1), 1..10_u32, 1..1_000_u32, any::<u32>()];
    prop::collection::vec(share, 1..160)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn everyone_gets_their_share(shares in shares()) {
        prop_assume!(shares.iter().any(|share| *share > 0));
        let members: Vec<Member> = (0..).zip(&shares).map(|(number, share)| member(number, *share)).collect();
        check_shares(&members, size(members.len() as u32).unwrap());
    }

    #[test]
    fn losing_a_weighted_target_moves_its_share_and_little_else(
        shares in prop::collection::vec(1..20_u32, 2..40), gone in any::<prop::sample::Index>(),
    ) {
        let members: Vec<Member> = (0..).zip(&shares).map(|(number, share)| member(number, *share)).collect();
        let gone = gone.index(members.len());
        let size = size(members.len() as u32).unwrap();
        let own = f64::from(shares[gone]) / f64::from(shares.iter().sum::<u32>());
        let moved = moved(&build(&members, size), &without(&members, gone, size));
        prop_assert!(moved <= own + 0.07, "{moved} for {own}");
    }

    #[test]
    fn only_the_ratio_of_shares_counts(shares in prop::collection::vec(0..50_u32, 1..30), factor in 1..1_000_u32) {
        let ring = |factor| {
            let members: Vec<Member> =
                (0..).zip(&shares).map(|(number, share)| member(number, share * factor)).collect();
            build(&members, 4_093)
        };
        prop_assert_eq!(ring(1), ring(factor));
    }

    #[test]
    fn packing_keeps_every_entry(entries in prop::collection::vec(any::<u16>(), 0..50)) {
        let words = pack(&entries);
        prop_assert_eq!(words.len(), entries.len().div_ceil(4));
        for (index, expected) in entries.iter().enumerate() {
            prop_assert_eq!(entry(&words, index), *expected);
        }
    }
}
