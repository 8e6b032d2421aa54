//! Mapped arrays with types: elements, flow tables, and the compare-and-swaps that the data path expects.

use super::sys::Mapping;
use nlb_common::hash::Hash;
use nlb_common::layout::{Bucket, Client, Entry, Life, WAYS};
use nlb_common::table::{BUSY, EMPTY, second_bucket};
use std::io;
use std::marker::PhantomData;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// The elements of an array map.
#[derive(Debug)]
pub struct Mapped<T> {
    memory: Mapping,
    element: PhantomData<T>,
}

impl<T: FromBytes + IntoBytes + Immutable> Mapped<T> {
    const WORDS: usize = {
        assert!(size_of::<T>().is_multiple_of(8), "elements are padded to words");
        size_of::<T>() / 8
    };

    /// Maps `len` elements of an array map.
    pub fn new(map: BorrowedFd<'_>, len: u32) -> io::Result<Self> {
        let memory = Mapping::new(map, len as usize * Self::WORDS)?;
        Ok(Self { memory, element: PhantomData })
    }

    /// Number of elements.
    pub fn len(&self) -> u32 {
        (self.memory.words().len() / Self::WORDS) as u32
    }

    /// True if there is no element.
    pub fn is_empty(&self) -> bool {
        self.memory.words().is_empty()
    }

    /// The words of element `i`. Panics past the end.
    pub fn element(&self, i: u32) -> &[AtomicU64] {
        &self.memory.words()[i as usize * Self::WORDS..][..Self::WORDS]
    }

    /// A copy of element `i`, each word whole. Panics past the end.
    pub fn read(&self, i: u32) -> T {
        let mut value = T::new_zeroed();
        for (bytes, word) in value.as_mut_bytes().chunks_exact_mut(8).zip(self.element(i)) {
            bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
        }
        value
    }

    /// Writes element `i`, each word whole, the last word last. Panics past the end.
    pub fn write(&self, i: u32, value: &T) {
        for (bytes, word) in value.as_bytes().chunks_exact(8).zip(self.element(i)) {
            word.store(bytes.try_into().map_or(0, u64::from_ne_bytes), Ordering::Release);
        }
    }
}

impl Mapped<u64> {
    /// Publishes one word by one store: readers see the old one or the new one. Panics past the end.
    pub fn store(&self, i: u32, word: u64) {
        self.element(i)[0].store(word, Ordering::SeqCst);
    }
}

/// A flow table in the kernel's memory. Entries are numbered across buckets: `bucket * WAYS + way`.
#[derive(Debug)]
pub struct FlowTable {
    buckets: Mapped<Bucket>,
    clients: Option<Mapped<Client>>,
}

impl FlowTable {
    /// A table and, for the client's direction, who its clients are.
    pub fn new(buckets: Mapped<Bucket>, clients: Option<Mapped<Client>>) -> Self {
        Self { buckets, clients }
    }

    /// How many entries it holds.
    pub fn capacity(&self) -> u32 {
        self.buckets.len() * WAYS as u32
    }

    fn words(&self, index: u32) -> &[AtomicU64] {
        const ENTRY: usize = size_of::<Entry>() / 8;
        let bucket = self.buckets.element(index / WAYS as u32);
        &bucket[(index as usize % WAYS) * ENTRY..][..ENTRY]
    }

    /// True if somebody has this entry.
    pub fn is_taken(&self, index: u32) -> bool {
        self.words(index)[0].load(Ordering::Relaxed) > BUSY
    }

    /// A whole entry; `None` if nobody has it or it is being written.
    pub fn entry(&self, index: u32) -> Option<Entry> {
        let words = self.words(index);
        let load = |i: usize| words[i].load(Ordering::Acquire);
        let tag = load(0);
        if tag <= BUSY {
            return None;
        }
        let entry: Entry = zerocopy::transmute!([tag, load(1), load(2), load(3)]);
        (load(0) == tag).then_some(entry)
    }

    /// The client of an entry; `None` for the target's direction.
    pub fn client(&self, index: u32) -> Option<Client> {
        self.clients.as_ref().map(|clients| clients.read(index))
    }

    /// The entry of this hash and its number.
    pub fn find(&self, hash: Hash) -> Option<(u32, Entry)> {
        let mask = self.buckets.len() - 1;
        [hash.place & mask, second_bucket(hash, mask)].into_iter().find_map(|bucket| {
            (0..WAYS as u32).map(|way| bucket * WAYS as u32 + way).find_map(|index| {
                let entry = self.entry(index).filter(|entry| entry.tag == hash.tag)?;
                Some((index, entry))
            })
        })
    }

    /// Changes an entry's state if nobody else has changed its life meanwhile; the data path's word counts more than ours.
    pub fn swap_state(&self, index: u32, from: Life, state: u32) -> bool {
        let to = Life { state, ..from };
        let (from, to): (u64, u64) = (zerocopy::transmute!(from), zerocopy::transmute!(to));
        self.words(index)[2].compare_exchange(from, to, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    /// Frees an entry if it still is this one and nothing has happened to it.
    pub fn clear(&self, index: u32, entry: &Entry) -> bool {
        let words = self.words(index);
        let life: u64 = zerocopy::transmute!(entry.life);
        words[2].load(Ordering::SeqCst) == life
            && words[0].compare_exchange(entry.tag, EMPTY, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    /// Puts an entry where it belongs if there is a free way: for tests and for tools, not beside the data path.
    pub fn insert(&self, hash: Hash, entry: &Entry, client: Option<Client>) -> Option<u32> {
        let mask = self.buckets.len() - 1;
        let buckets = [hash.place & mask, second_bucket(hash, mask)];
        let index = buckets.into_iter().find_map(|bucket| {
            (0..WAYS as u32).map(|way| bucket * WAYS as u32 + way).find(|index| !self.is_taken(*index))
        })?;
        let words: [u64; 4] = zerocopy::transmute!(Entry { tag: hash.tag, ..*entry });
        for i in [1, 2, 3, 0] {
            self.words(index)[i].store(words[i], Ordering::Release);
        }
        if let (Some(clients), Some(client)) = (&self.clients, client) {
            clients.write(index, &client);
        }
        Some(index)
    }
}
