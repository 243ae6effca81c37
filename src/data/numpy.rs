//! The random streams of the reference's data path: numpy's `default_rng(seed).shuffle` and torch's `randperm`.
//! Their orders decide what a model sees when.

use rand::RngCore;
use rand_mt::Mt;
use rand_pcg::Pcg64;

/// numpy's `SeedSequence`: spreads a seed over a pool of four words (O'Neill's `seed_seq`, in numpy's variant).
struct SeedSequence([u32; 4]);

const INIT_A: u32 = 0x43b0_d7e5;
const MULT_A: u32 = 0x931e_8875;
const INIT_B: u32 = 0x8b51_f9dd;
const MULT_B: u32 = 0x58f3_8ded;
const MIX_L: u32 = 0xca01_f9dd;
const MIX_R: u32 = 0x4973_f715;

/// Scrambles a word with a constant that changes with each use.
fn hash(word: u32, constant: &mut u32, factor: u32) -> u32 {
    let x = word ^ *constant;
    *constant = constant.wrapping_mul(factor);
    let x = x.wrapping_mul(*constant);
    x ^ (x >> 16)
}

impl SeedSequence {
    fn new(seed: u64) -> Self {
        // The seed's words, the lowest first; a seed of at most 128 bits fills no more than the pool.
        let words = [seed as u32, (seed >> 32) as u32, 0, 0];
        let mut constant = INIT_A;
        let mut pool = words.map(|w| hash(w, &mut constant, MULT_A));
        for from in 0..4 {
            for to in (0..4).filter(|to| *to != from) {
                let other = hash(pool[from], &mut constant, MULT_A);
                let mixed = MIX_L
                    .wrapping_mul(pool[to])
                    .wrapping_sub(MIX_R.wrapping_mul(other));
                pool[to] = mixed ^ (mixed >> 16);
            }
        }
        SeedSequence(pool)
    }

    /// `generate_state(4, uint64)`.
    fn state(&self) -> [u64; 4] {
        let mut constant = INIT_B;
        let mut words = (0..8).map(|i| hash(self.0[i % 4], &mut constant, MULT_B));
        std::array::from_fn(|_| {
            let low = u64::from(words.next().unwrap_or_default());
            low | u64::from(words.next().unwrap_or_default()) << 32
        })
    }
}

/// `numpy.random.default_rng(seed)`, as far as shuffling a list needs it.
pub struct DefaultRng {
    generator: Pcg64,
    /// The upper half of the last 64 bits drawn.
    half: Option<u32>,
}

impl DefaultRng {
    /// Seeded as `numpy.random.default_rng(seed)`.
    pub fn new(seed: u64) -> Self {
        let [a, b, c, d] = SeedSequence::new(seed).state().map(u128::from);
        DefaultRng {
            generator: Pcg64::new(a << 64 | b, c << 64 | d),
            half: None,
        }
    }

    /// 32 bits: the lower half of a draw first, then its upper half.
    fn next_u32(&mut self) -> u32 {
        self.half.take().unwrap_or_else(|| {
            let both = self.generator.next_u64();
            self.half = Some((both >> 32) as u32);
            both as u32
        })
    }

    /// Uniform in 0..=most, by throwing away what lies above under the smallest mask.
    fn interval(&mut self, most: u64) -> u64 {
        if most == 0 {
            return 0;
        }
        let mask = u64::MAX >> most.leading_zeros();
        loop {
            let value = match u32::try_from(most) {
                Ok(_) => u64::from(self.next_u32()) & mask,
                Err(_) => self.generator.next_u64() & mask,
            };
            if value <= most {
                return value;
            }
        }
    }

    /// `shuffle` of a list.
    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for i in (1..list.len()).rev() {
            list.swap(i, self.interval(i as u64) as usize);
        }
    }
}

/// `torch.randperm(n)` with a CPU generator of this seed: what torch's `DistributedSampler` orders an epoch by.
pub fn randperm(n: usize, seed: u64) -> Vec<usize> {
    // The generator takes the seed's lower 32 bits.
    let mut generator = Mt::new(seed as u32);
    let mut order: Vec<usize> = (0..n).collect();
    for i in 0..n.saturating_sub(1) {
        let step = generator.next_u32() as usize % (n - i);
        order.swap(i, i + step);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    /// numpy 2.4.6: `SeedSequence(12345).generate_state(8)`, `default_rng(s).bit_generator.random_raw(3)`.
    #[test]
    fn the_stream_is_numpys() {
        let words: Vec<u32> = SeedSequence::new(12345)
            .state()
            .iter()
            .flat_map(|w| [*w as u32, (*w >> 32) as u32])
            .collect();
        let expected = [
            2688385916, 3048105090, 4196366895, 3152189807, 924159892, 1692637855, 2685664627, 1052446614,
        ];
        assert_eq!(words, expected);
        for (seed, expected) in [
            (
                0,
                [11749869230777074271u64, 4976686463289251617, 755828109848996024],
            ),
            (
                1,
                [9441442522235856127, 17532960557476522086, 2659275481604167885],
            ),
            (
                12345,
                [4193609425186963869, 5843160025838961886, 14708796524633321433],
            ),
            (
                (1 << 40) + 7,
                [15307346044642009514, 4709548916763817589, 2836937976252648324],
            ),
        ] {
            let mut rng = DefaultRng::new(seed);
            assert_eq!(
                [(); 3].map(|()| rng.generator.next_u64()),
                expected,
                "seed {seed}"
            );
        }
    }

    /// torch 2.11: `torch.randperm(n, generator=torch.Generator().manual_seed(s))`.
    #[test]
    fn the_permutation_is_torchs() {
        assert_eq!(randperm(11, 3), [9, 0, 3, 6, 4, 5, 2, 8, 1, 10, 7]);
        let long = randperm(300, 0);
        assert_eq!(
            long[..20],
            [44, 120, 71, 270, 111, 139, 145, 29, 105, 75, 221, 157, 144, 46, 154, 296, 228, 130, 92, 61]
        );
        assert_eq!((randperm(0, 1), randperm(1, 1)), (vec![], vec![0]));
    }
}
