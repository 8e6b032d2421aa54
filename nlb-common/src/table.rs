//! The flow tables: buckets of four entries of 32 bytes, two buckets for each flow, no locks.
//!
//! A hit reads one cache line, or two. An entry is claimed by a compare-and-swap of its tag to [`BUSY`], filled, and published by
//! its new tag; a reader compares the tag again after it has copied the entry. What changes later is one word, `life`.
//! A full pair of buckets gives up its least valuable entry: never one of another table.

use crate::flow::{self, Value};
use crate::hash::Hash;
use crate::layout::{Entry, Life, WAYS};
use crate::reasons::Reason;
use crate::tables::{Cells, Table, Tables};

/// The tag of an entry that nobody has.
pub const EMPTY: u64 = 0;
/// The tag of an entry that is being written.
pub const BUSY: u64 = 1;

/// An entry and where it stands.
#[derive(Clone, Copy, Debug)]
pub struct Found<C> {
    /// A copy of the entry.
    pub entry: Entry,
    cells: C,
    way: usize,
}

impl<C: Cells> Found<C> {
    /// Changes the life if nobody else has meanwhile.
    #[inline(always)]
    pub fn live(&self, life: Life) {
        // A lost race means that another CPU saw a packet of this flow just now: its word is as good.
        let _raced = self.cells.swap_life(self.way, self.entry.life, life);
    }

    /// Writes the expected acknowledgement number.
    #[inline(always)]
    pub fn expect(&self, number: u32) {
        self.cells.expect(self.way, number);
    }

    /// Frees the entry.
    #[inline(always)]
    pub fn forget(&self) {
        let _raced = self.cells.swap_tag(self.way, self.entry.tag, EMPTY);
    }
}

/// The other bucket that an entry of this hash may stand in.
#[inline(always)]
pub fn second_bucket(hash: Hash, mask: u32) -> u32 {
    (hash.place ^ ((hash.tag >> 40) as u32 | 1)) & mask
}

/// The entry of this hash.
#[inline(always)]
pub fn find<T: Tables>(tables: &T, table: Table, hash: Hash) -> Option<Found<T::Cells>> {
    let mask = tables.mask(table);
    match find_in(tables.cells(table, hash.place & mask)?, hash.tag) {
        Some(found) => Some(found),
        None => find_in(tables.cells(table, second_bucket(hash, mask))?, hash.tag),
    }
}

#[inline(always)]
fn find_in<C: Cells>(cells: C, tag: u64) -> Option<Found<C>> {
    for way in 0..WAYS {
        if cells.tag(way) == tag {
            let entry = cells.entry(way);
            if entry.tag == tag && cells.tag(way) == tag {
                return Some(Found { entry, cells, way });
            }
        }
    }
    None
}

/// The way that is worth least of those seen so far.
struct Weakest<C> {
    cells: C,
    bucket: u32,
    way: usize,
    tag: u64,
    value: Value,
}

/// Puts an entry in the place of the least valuable one and returns its index; `None` if others write there all the time.
/// An entry of the same hash is overwritten.
#[inline(always)]
pub fn put<T: Tables>(tables: &T, table: Table, hash: Hash, entry: &Entry) -> Option<u32> {
    let mask = tables.mask(table);
    let now = tables.now();
    for _ in 0..2 {
        let bucket = hash.place & mask;
        let cells = tables.cells(table, bucket)?;
        let mut weakest = Weakest { cells, bucket, way: 0, tag: BUSY, value: Value::HELD };
        weigh(&mut weakest, cells, bucket, hash.tag, now);
        let bucket = second_bucket(hash, mask);
        weigh(&mut weakest, tables.cells(table, bucket)?, bucket, hash.tag, now);
        let Weakest { cells, bucket, way, tag, value } = weakest;
        if tag != BUSY && cells.swap_tag(way, tag, BUSY) {
            cells.fill(way, entry);
            cells.swap_tag(way, BUSY, hash.tag);
            if value.is_precious() {
                tables.count(Reason::FlowLost);
            }
            return Some(bucket * WAYS as u32 + way as u32);
        }
    }
    None
}

#[inline(always)]
fn weigh<C: Cells>(weakest: &mut Weakest<C>, cells: C, bucket: u32, own: u64, now: u32) {
    for way in 0..WAYS {
        let tag = cells.tag(way);
        let value = match tag {
            BUSY => Value::HELD,
            EMPTY => Value::EMPTY,
            _ if tag == own => Value::OWN,
            _ => flow::value(cells.life(way), now),
        };
        if value < weakest.value {
            *weakest = Weakest { cells, bucket, way, tag, value };
        }
    }
}
