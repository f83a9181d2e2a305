//! Seeded chance for mutations: the same seed gives the same bytes on every machine.

/// xorshift64*, by Vigna.
pub(crate) struct Rng(u64);

impl Rng {
    /// One that gives the same numbers for the same seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `below`, which is not 0.
    pub(crate) fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        usize::try_from(high).unwrap() % below
    }

    /// One of the seeds, or two spliced, with a few bytes changed, inserted, removed or repeated.
    pub(crate) fn mutate(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = seeds[self.roll(seeds.len())].clone();
        for _ in 0..self.roll(3) {
            let other = &seeds[self.roll(seeds.len())];
            let at = self.roll(bytes.len() + 1);
            let from = if self.roll(2) == 0 { 0 } else { self.roll(other.len() + 1) };
            bytes.splice(at..at, other[from..].iter().copied());
        }
        for _ in 0..self.roll(5) {
            let at = self.roll(bytes.len() + 1);
            match self.roll(5) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, self.byte()),
                2 => {
                    let to = (at + self.roll(8)).min(bytes.len());
                    bytes.drain(at..to);
                }
                3 => {
                    let to = (at + self.roll(40)).min(bytes.len());
                    let copy = bytes[at..to].to_vec();
                    bytes.splice(at..at, copy);
                }
                _ => {
                    let byte = self.byte();
                    if let Some(old) = bytes.get_mut(at) {
                        *old = byte;
                    }
                }
            }
        }
        bytes
    }

    /// Mostly a byte that means something.
    fn byte(&mut self) -> u8 {
        const WORDS: &[u8] = b"*$+-:\r\n\r\n0123456789 '\"\\xn\0,#_(=!%~>|;.?tf\xff\x0b";
        if self.roll(6) == 0 { self.roll(256) as u8 } else { WORDS[self.roll(WORDS.len())] }
    }
}
