//! A filter's bitmap with a count of who needs each bit, so that it is known when one can be cleared.

/// The bits of a filter and how many keys stand behind each.
#[derive(Clone, Debug)]
pub struct Bits {
    words: Vec<u64>,
    users: Vec<u32>,
}

impl Bits {
    /// A filter of this many bits, none of them set.
    pub fn new(bits: u32) -> Self {
        Self { words: vec![0; bits as usize / 64], users: vec![0; bits as usize] }
    }

    /// One more key stands behind the bit; the index and value of its word.
    pub fn add(&mut self, bit: u32) -> (u32, u64) {
        self.users[bit as usize] += 1;
        self.words[bit as usize / 64] |= 1 << (bit % 64);
        (bit / 64, self.words[bit as usize / 64])
    }

    /// One key fewer stands behind the bit; the index and value of its word.
    pub fn remove(&mut self, bit: u32) -> (u32, u64) {
        self.users[bit as usize] -= 1;
        if self.users[bit as usize] == 0 {
            self.words[bit as usize / 64] &= !(1 << (bit % 64));
        }
        (bit / 64, self.words[bit as usize / 64])
    }

    /// The bitmap.
    pub fn words(&self) -> &[u64] {
        &self.words
    }
}
