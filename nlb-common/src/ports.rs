//! The client's port as a target knows it: rewritten where another conversation with the same pod port has it already.

/// How many ports are tried for a flow, its own the first.
pub const TRIED: u32 = 4;
/// The first port that a rewritten one may be: below, services live.
const FIRST: u32 = 1024;
/// Ports from [`FIRST`] on.
const COUNT: u32 = 65_536 - FIRST;
/// From one tried port to the next; no multiple below [`TRIED`] of it comes near [`COUNT`].
const STRIDE: u32 = 20_023;

/// The port that is tried for a client's port in this round (below [`TRIED`]). Always the same, so that a lost entry finds it again.
#[inline(always)]
pub fn rewritten(port: u16, round: u32) -> u16 {
    if round == 0 { port } else { moved(port, round * STRIDE) }
}

/// Guesses at a client's port: two for each round, because [`rewritten`] makes the same of a port below 1024 as of one of the last.
pub const GUESSES: u32 = 2 * TRIED;

/// A client's port that [`rewritten`] may have made this one of; 0 for a guess that cannot be.
#[inline(always)]
pub fn original(port: u16, guess: u32) -> u16 {
    let round = guess >> 1;
    let port = if round == 0 { port } else { moved(port, COUNT - round * STRIDE) };
    if guess & 1 == 0 {
        port
    } else if round != 0 && u32::from(port) >= COUNT {
        (u32::from(port) - COUNT) as u16
    } else {
        0
    }
}

#[inline(always)]
fn moved(port: u16, by: u32) -> u16 {
    (FIRST + (u32::from(port) + COUNT - FIRST + by) % COUNT) as u16
}

const _: () = assert!((TRIED - 1) * STRIDE < COUNT);

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn a_rewritten_port_is_no_low_one_differs_in_each_round_and_leads_back() {
        for port in 1..=u16::MAX {
            let tried: Vec<u16> = (0..TRIED).map(|round| rewritten(port, round)).collect();
            for (round, rewritten) in (0..).zip(&tried) {
                assert!(*rewritten >= 1024 || round == 0);
                assert!((0..GUESSES).any(|guess| original(*rewritten, guess) == port));
                assert_eq!(tried.iter().filter(|other| *other == rewritten).count(), 1);
            }
        }
    }

    #[test]
    fn the_first_guess_is_the_port_itself() {
        assert!((1..=u16::MAX).all(|port| original(port, 0) == port && original(port, 1) == 0));
    }
}
