//! Which process asks about which clip.

/// The process of each clip, so that all have about as much to do; `work` is what each clip costs. The same for the same work,
/// wherever it is asked: the costliest first, each to who has least.
pub(super) fn deal(work: &[u64], world: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..work.len()).collect();
    order.sort_by_key(|i| std::cmp::Reverse(work[*i]));
    let (mut loads, mut owners) = (vec![0; world], vec![0; work.len()]);
    for i in order {
        let rank = (0..world).min_by_key(|r| loads[*r]).unwrap_or(0);
        loads[rank] += work[i];
        owners[i] = rank;
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_have_about_as_much_to_do() {
        assert_eq!(deal(&[5, 5, 5, 5], 2), [0, 1, 0, 1]);
        assert_eq!(deal(&[1, 1, 1, 30, 1], 2), [1, 1, 1, 0, 1]);
        assert_eq!(deal(&[7], 3), [0]);
        assert_eq!(deal(&[], 3), [0usize; 0]);
        assert_eq!(deal(&[3, 0, 2], 1), [0, 0, 0]);
        // 15 questions to clips of 1 to 30 windows.
        let work: Vec<u64> = (0..200).map(|i| 15 * (1 + i * i % 30)).collect();
        for world in [2, 3, 8] {
            let owners = deal(&work, world);
            let load = |r| -> u64 {
                work.iter()
                    .zip(&owners)
                    .filter(|(_, o)| **o == r)
                    .map(|(w, _)| w)
                    .sum()
            };
            let loads: Vec<u64> = (0..world).map(load).collect();
            let (most, least) = (loads.iter().max().unwrap(), loads.iter().min().unwrap());
            assert!(most - least <= 15 * 2, "{loads:?}");
        }
    }
}
