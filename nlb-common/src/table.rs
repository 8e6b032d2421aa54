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

/// What a search came to: an entry and where it stands, or nothing.
///
/// Not an `Option`: LLVM would leave the entry of a `None` undefined, and the verifier refuses to see such a word moved.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// A copy of the entry; all zero where there is none.
    pub entry: Entry,
    table: Table,
    /// Four times its bucket plus its way.
    pub index: u32,
}

impl Found {
    #[inline(always)]
    const fn nothing(table: Table) -> Self {
        let life = Life { seen: 0, state: 0 };
        let entry = Entry { tag: EMPTY, slot: 0, generation: 0, life, port: 0, zero: 0, expect: 0 };
        Self { entry, table, index: 0 }
    }

    /// True if there is an entry.
    #[inline(always)]
    pub fn exists(&self) -> bool {
        self.entry.tag != EMPTY
    }

    /// Changes the life if nobody else has meanwhile.
    #[inline(always)]
    pub fn live<T: Tables>(&self, tables: &T, life: Life) {
        if let Some(cells) = tables.cells(self.table, self.index / WAYS as u32) {
            // A lost race means that another CPU saw a packet of this flow just now: its word is as good.
            let _raced = cells.swap_life(self.index as usize % WAYS, self.entry.life, life);
        }
    }

    /// Writes the expected acknowledgement number.
    #[inline(always)]
    pub fn expect<T: Tables>(&self, tables: &T, number: u32) {
        if let Some(cells) = tables.cells(self.table, self.index / WAYS as u32) {
            cells.expect(self.index as usize % WAYS, number);
        }
    }

    /// Frees the entry.
    #[inline(always)]
    pub fn forget<T: Tables>(&self, tables: &T) {
        if let Some(cells) = tables.cells(self.table, self.index / WAYS as u32) {
            let _raced = cells.swap_tag(self.index as usize % WAYS, self.entry.tag, EMPTY);
        }
    }
}

/// The other bucket that an entry of this hash may stand in.
#[inline(always)]
pub fn second_bucket(hash: Hash, mask: u32) -> u32 {
    (hash.place ^ ((hash.tag >> 40) as u32 | 1)) & mask
}

/// The entry of this hash, searched for in line: for the hot paths. Others ask [`Tables::find`].
#[inline(always)]
pub fn find<T: Tables>(tables: &T, table: Table, hash: Hash) -> Found {
    match locate(tables, table, hash) {
        Some(index) => at(tables, table, tables.unknown(u64::from(index)) as u32, hash.tag),
        None => Found::nothing(table),
    }
}

/// The index of the entry of this hash: four times the bucket plus the way.
#[inline(always)]
pub fn locate<T: Tables>(tables: &T, table: Table, hash: Hash) -> Option<u32> {
    let mask = tables.mask(table);
    for bucket in [hash.place & mask, second_bucket(hash, mask)] {
        let cells = tables.cells(table, bucket)?;
        for way in 0..WAYS {
            if cells.tag(way) == hash.tag {
                return Some(bucket * WAYS as u32 + way as u32);
            }
        }
    }
    None
}

/// The entry with this index, if it is this tag's, before and after it was copied.
#[inline(always)]
pub fn at<T: Tables>(tables: &T, table: Table, index: u32, tag: u64) -> Found {
    let Some(cells) = tables.cells(table, index / WAYS as u32) else { return Found::nothing(table) };
    let way = index as usize % WAYS;
    let entry = cells.entry(way);
    if entry.tag != tag || cells.tag(way) != tag {
        return Found::nothing(table);
    }
    Found { entry, table, index }
}

/// Nothing found in this table: for an index that is none.
#[inline(always)]
pub fn nothing(table: Table) -> Found {
    Found::nothing(table)
}

/// Puts an entry in the place of the least valuable one and returns its index; `None` if others write there all the time.
/// An entry of the same hash is overwritten.
#[inline(always)]
pub fn put<T: Tables>(tables: &T, table: Table, hash: Hash, entry: &Entry) -> Option<u32> {
    for _ in 0..2 {
        let choice = match vacant(tables, table, hash)? {
            Some(index) => Value::EMPTY.over(index),
            None => weakest(tables, table, hash)?,
        };
        let (value, index) = Value::under(tables.unknown(choice));
        let (cells, way) = (tables.cells(table, index / WAYS as u32)?, index as usize % WAYS);
        let tag = cells.tag(way);
        if value != Value::HELD && tag != BUSY && cells.swap_tag(way, tag, BUSY) {
            // Nothing is expected yet: that is learnt from the answer.
            cells.fill(way, &Entry { zero: 0, expect: 0, ..*entry });
            cells.swap_tag(way, BUSY, hash.tag);
            if value.is_precious() {
                tables.count(Reason::FlowLost);
            }
            return Some(index);
        }
    }
    None
}

/// The place of this very flow, else an empty one.
#[inline(always)]
fn vacant<T: Tables>(tables: &T, table: Table, hash: Hash) -> Option<Option<u32>> {
    if let Some(own) = locate(tables, table, hash) {
        return Some(Some(own));
    }
    let mask = tables.mask(table);
    for bucket in [hash.place & mask, second_bucket(hash, mask)] {
        let cells = tables.cells(table, bucket)?;
        for way in 0..WAYS {
            if cells.tag(way) == EMPTY {
                return Some(Some(bucket * WAYS as u32 + way as u32));
            }
        }
    }
    Some(None)
}

/// The least valuable place of two full buckets: its value over its index.
#[inline(always)]
fn weakest<T: Tables>(tables: &T, table: Table, hash: Hash) -> Option<u64> {
    let mask = tables.mask(table);
    let now = tables.now();
    let mut least = u64::MAX;
    for bucket in [hash.place & mask, second_bucket(hash, mask)] {
        let cells = tables.cells(table, bucket)?;
        for way in 0..WAYS {
            let value = if cells.tag(way) == BUSY { Value::HELD } else { flow::value(cells.life(way), now) };
            let candidate = tables.unknown(value.over(bucket * WAYS as u32 + way as u32));
            least = tables.unknown(if candidate < least { candidate } else { least });
        }
    }
    Some(least)
}
