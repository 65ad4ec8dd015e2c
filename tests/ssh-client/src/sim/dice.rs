//! Random numbers from a seed: splitmix64, as quick as a simulation wants them.

#[derive(Clone, Copy, Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Another seed for each `n`.
    pub fn fork(self, n: u64) -> u64 {
        Self(self.0 ^ n.wrapping_mul(0xff51_afd7_ed55_8ccd)).next()
    }

    /// Below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn size(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(u64::try_from(bound).expect("a size"))).expect("a size")
    }

    pub fn word(&mut self, bound: u32) -> u32 {
        u32::try_from(self.below(u64::from(bound))).expect("below a u32")
    }

    /// True once in `n`.
    pub fn once_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        if from.is_empty() { None } else { from.get(self.size(from.len())).copied() }
    }

    /// Mostly small, sometimes up to `most`.
    pub fn skewed(&mut self, most: usize) -> usize {
        let shift = self.below(16);
        1 + self.size((most >> shift).max(1))
    }
}
