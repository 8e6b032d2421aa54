//! Builds a ring: Maglev's table (Eisenbud et al., NSDI 2016, section 3.4), with exact shares.
//!
//! Every member walks its own permutation of the entries and, when it is its turn, takes the first one that is still
//! free. The paper gives everyone the same number of turns; here a member has its quota of them, spread evenly over the
//! build. With equal shares the two are the same table.

use nlb_common::address::Address;

/// One target as a ring sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// Where its permutation comes from: [`identity`] of the target.
    pub identity: u64,
    /// Share of the entries relative to the other members; 0 gets none.
    pub share: u32,
}

/// What stands for a target on every node: a hash of address and port, never of a UID or of an order of arrival.
///
/// Four rounds of SplitMix64's finalizer over address (two big-endian words) and port. Nodes of different versions must
/// agree, so this never changes: a golden test holds it.
pub fn identity(address: Address, port: u16) -> u64 {
    let number = u128::from_be_bytes(address.bytes);
    let words = [(number >> 64) as u64, number as u64, u64::from(port)];
    words.into_iter().fold(mix(0x6e6c_622d_7269_6e67), |hash, word| mix(hash ^ word))
}

/// The ring of these members: for each entry the position of the member that has it. Empty where nobody has a share.
///
/// The result depends on the order of the members, so callers sort them by address and port.
///
/// # Panics
/// If `size` is no prime above 2, or if more members have a share than there are entries, or than a `u16` can name.
pub fn build(members: &[Member], size: u32) -> Vec<u16> {
    assert!(members.len() <= usize::from(u16::MAX), "{} members do not fit a ring", members.len());
    let quotas = quotas(members, size);
    populate(members, &turns(&quotas), size)
}

/// Entries packed as the map holds them: four a word, lowest bits first; the last word is filled up with zeros.
pub fn pack(entries: &[u16]) -> Vec<u64> {
    let word =
        |[a, b, c, d]: [u16; 4]| u64::from(a) | u64::from(b) << 16 | u64::from(c) << 32 | u64::from(d) << 48;
    let (whole, rest) = entries.as_chunks::<4>();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    whole.iter().chain((!rest.is_empty()).then_some(&last)).map(|four| word(*four)).collect()
}

/// Entry `index` of a packed ring.
pub fn entry(words: &[u64], index: usize) -> u16 {
    (words[index / 4] >> (index % 4 * 16)) as u16
}

/// SplitMix64's next output for this state (Steele, Lea, Flood, OOPSLA 2014).
fn mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A member's way through the entries: where it begins and how far it jumps, both below `size`, the jump at least 1.
fn permutation(identity: u64, size: u32) -> (u32, u32) {
    let offset = mix(identity ^ 1) % u64::from(size);
    let skip = mix(identity ^ 2) % u64::from(size - 1) + 1;
    (offset as u32, skip as u32)
}

/// How many entries each member gets: the largest remainders, but at least one for every share above 0.
fn quotas(members: &[Member], size: u32) -> Vec<u32> {
    let total: u64 = members.iter().map(|member| u64::from(member.share)).sum();
    let takers = members.iter().filter(|member| member.share > 0).count();
    assert!(takers <= size as usize, "{takers} members for {size} entries");
    if total == 0 {
        return vec![0; members.len()];
    }
    let ideal = |member: &Member| u64::from(size) * u64::from(member.share);
    let least = |member: &Member| u64::from(member.share > 0);
    let mut quotas: Vec<u32> =
        members.iter().map(|member| (ideal(member) / total).max(least(member)) as u32).collect();
    let given: u64 = quotas.iter().map(|quota| u64::from(*quota)).sum();
    if given <= u64::from(size) {
        let mut order: Vec<usize> = (0..members.len()).filter(|i| ideal(&members[*i]) >= total).collect();
        order.sort_by_key(|i| std::cmp::Reverse(ideal(&members[*i]) % total));
        for i in order.into_iter().take((u64::from(size) - given) as usize) {
            quotas[i] += 1;
        }
    } else {
        take_back(&mut quotas, members, total, size, given - u64::from(size));
    }
    quotas
}

/// Takes back what the guaranteed single entries cost, each from whoever loses least by it.
///
/// With 100 entries a member or more, what is taken from a member that should have 100 stays below 1 % of it.
fn take_back(quotas: &mut [u32], members: &[Member], total: u64, size: u32, excess: u64) {
    let least = |i: usize| {
        let ideal = u64::from(size) * u64::from(members[i].share);
        if ideal >= 100 * total { (ideal * 99).div_ceil(100 * total) as u32 } else { 1 }
    };
    // What is left of the ideal after one more loss, as a fixed-point fraction; positions break ties.
    let left = |quota: u32, i: usize| {
        (u128::from(quota - 1) << 64) / u128::from(members[i].share) / u128::from(size)
    };
    let mut losers: std::collections::BinaryHeap<_> = (0..members.len())
        .filter(|i| members[*i].share > 0 && quotas[*i] > least(*i))
        .map(|i| (left(quotas[i], i), i))
        .collect();
    for _ in 0..excess {
        let (_, i) = losers.pop().expect("100 entries a member leave enough to take back");
        quotas[i] -= 1;
        if quotas[i] > least(i) {
            losers.push((left(quotas[i], i), i));
        }
    }
}

/// Whose turn it is, for every entry of the ring: turn `k` of a member with quota `q` is in round `k * longest / q`.
fn turns(quotas: &[u32]) -> Vec<u16> {
    let longest = quotas.iter().copied().max().unwrap_or(0);
    let total = quotas.iter().sum::<u32>() as usize;
    if quotas.iter().all(|quota| longest - quota <= 1) {
        return (0..quotas.len() as u16).cycle().take(total).collect();
    }
    let mut starts = vec![0_u32; longest as usize + 1];
    for &quota in quotas {
        rounds(quota, longest).for_each(|round| starts[round + 1] += 1);
    }
    for at in 1..starts.len() {
        starts[at] += starts[at - 1];
    }
    let mut turns = vec![0; total];
    for (member, &quota) in (0_u16..).zip(quotas) {
        for round in rounds(quota, longest) {
            turns[starts[round] as usize] = member;
            starts[round] += 1;
        }
    }
    turns
}

/// The rounds in which a member with this quota has a turn: `k * longest / quota` for `k` below `quota`, without the divisions.
fn rounds(quota: u32, longest: u32) -> impl Iterator<Item = usize> {
    let (whole, part) = (longest / quota.max(1), longest % quota.max(1));
    let (mut round, mut rest) = (0, 0);
    (0..quota).map(move |_| {
        let this = round as usize;
        rest += part;
        let carry = u32::from(rest >= quota);
        rest -= carry * quota;
        round += whole + carry;
        this
    })
}

/// Gives each turn the first free entry of its member's permutation.
///
/// Walking meets ever more taken entries; for the last turns, about half the square root of the size, it is cheaper to ask
/// of each free entry how far along the permutation it stands.
fn populate(members: &[Member], turns: &[u16], size: u32) -> Vec<u16> {
    let mut ways: Vec<(u32, u32)> = members.iter().map(|member| permutation(member.identity, size)).collect();
    let mut entries = vec![0; turns.len()];
    // A bit an entry: most looks meet taken entries, and their bits stay in the nearest cache where the entries do not.
    let mut taken = vec![0_u64; size as usize / 64 + 1];
    let is_taken = |taken: &[u64], at: u32| taken[at as usize / 64] >> (at % 64) & 1 == 1;
    let (walked, searched) = turns.split_at(turns.len().saturating_sub(size.isqrt() as usize / 2));
    for &member in walked {
        let (next, skip) = &mut ways[usize::from(member)];
        let back = size - *skip;
        // Below `back` the subtraction wraps and the sum is the smaller; a branch here would be guessed wrong half the time.
        let step = |at: u32| (at + *skip).min(at.wrapping_sub(back));
        let mut at = *next;
        while is_taken(&taken, at) {
            at = step(at);
        }
        taken[at as usize / 64] |= 1 << (at % 64);
        entries[at as usize] = member;
        *next = step(at);
    }
    let mut free: Vec<u32> = (0..turns.len() as u32).filter(|at| !is_taken(&taken, *at)).collect();
    for &member in searched {
        let (next, skip) = ways[usize::from(member)];
        let nearest = nearest(&free, next, skip, size);
        entries[free.swap_remove(nearest) as usize] = member;
    }
    entries
}

/// Which of the free entries a permutation at `next` comes to first: entry `e` after `(e - next) / skip` jumps, modulo the prime `size`.
fn nearest(free: &[u32], next: u32, skip: u32, size: u32) -> usize {
    let size = u64::from(size);
    // One multiplication for each remainder (Barrett): exact after one correction, as all factors are below 2^21.
    let reciprocal = u64::MAX / size;
    let reduce = |x: u64| {
        let rest = x - ((u128::from(x) * u128::from(reciprocal)) >> 64) as u64 * size;
        if rest >= size { rest - size } else { rest }
    };
    // Fermat: skip^(size - 2) is the inverse of skip.
    let (mut inverse, mut square) = (1, u64::from(skip));
    for bit in 0..u64::BITS - (size - 2).leading_zeros() {
        if (size - 2) >> bit & 1 == 1 {
            inverse = reduce(inverse * square);
        }
        square = reduce(square * square);
    }
    let jumps = |at: &u32| reduce((u64::from(*at) + size - u64::from(next)) * inverse);
    let (index, _) =
        free.iter().map(jumps).enumerate().min_by_key(|(_, jumps)| *jumps).expect("a turn an entry");
    index
}

#[cfg(test)]
mod tests;
