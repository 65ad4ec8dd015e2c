//! Growth that is told from noise: the Theil-Sen slope with its confidence interval.
//!
//! The slope is the median of the slopes between all pairs of points (Theil 1950, Sen 1968); a few
//! wild points move it little. Its interval takes the ordered slopes at the ranks that Kendall's
//! statistic gives (Sen 1968; Gilbert 1987, section 16.4.2). That wants points that do not follow
//! from each other, and samples a second apart do, since sessions last longer: so samples are put
//! together to blocks first, each with its median.

/// The normal deviate of a two-sided interval of 99 %: among the four things that are judged, one run in
/// a hundred would find a growth where there is none, and it still has to be beyond its bound.
const Z: f64 = 2.576;
/// Blocks that samples are put together to: 30 s each in the last 20 of 30 minutes, which is what a
/// session lasts.
const BLOCKS: usize = 40;
/// Fewer do not give an interval that means much.
pub const FEWEST: usize = 10;

/// A slope, and between what it lies; by unit of the abscissa.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slope {
    pub slope: f64,
    pub low: f64,
    pub high: f64,
    /// The ordinate at the abscissa 0.
    pub base: f64,
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    if values.len().is_multiple_of(2) {
        f64::midpoint(values[half - 1], values[half])
    } else {
        values[half]
    }
}

/// Points in order of their abscissa, at most [`BLOCKS`] of them.
pub fn blocks(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let each = points.len().div_ceil(BLOCKS).max(1);
    let middle = |block: &[(f64, f64)]| {
        let (x, y): (Vec<f64>, Vec<f64>) = block.iter().copied().unzip();
        (median(x), median(y))
    };
    points.chunks(each).map(middle).collect()
}

/// `None` for fewer than [`FEWEST`] points.
#[expect(clippy::cast_precision_loss, reason = "a few hundred points")]
pub fn theil_sen(points: &[(f64, f64)]) -> Option<Slope> {
    if points.len() < FEWEST {
        return None;
    }
    let mut slopes = Vec::new();
    for (n, (x, y)) in points.iter().enumerate() {
        let later = points[n + 1..].iter().filter(|(other, _)| other > x);
        slopes.extend(later.map(|(other, value)| (value - y) / (other - x)));
    }
    slopes.sort_by(f64::total_cmp);
    let slope = median(slopes.clone());
    let (count, all) = (points.len() as f64, slopes.len() as f64);
    let spread = Z * (count * (count - 1.0) * (2.0 * count + 5.0) / 18.0).sqrt();
    let (low, high) = ((all - spread) / 2.0, f64::midpoint(all, spread));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped ranks")]
    let rank = |at: f64| slopes[at.clamp(0.0, all - 1.0) as usize];
    let base = median(points.iter().map(|(x, y)| y - slope * x).collect());
    Some(Slope { slope, low: rank(low.floor()), high: rank(high.ceil()), base })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng as _, SeedableRng as _};

    fn noisy(slope: f64, seed: u64) -> Vec<(f64, f64)> {
        let mut draws = StdRng::seed_from_u64(seed);
        let noise = move || -> f64 { (0..6).map(|_| draws.random_range(-1.0..1.0)).sum() };
        let noise = std::iter::repeat_with(noise);
        (0..600)
            .map(f64::from)
            .zip(noise)
            .map(|(x, noise)| (x, 100.0 + slope * x + noise))
            .collect()
    }

    #[test]
    fn a_slope_is_found_in_noise_and_none_where_there_is_none() {
        let mut none = 0;
        for seed in 0..200 {
            let found = theil_sen(&blocks(&noisy(0.01, seed))).expect("enough points");
            assert!((found.slope - 0.01).abs() < 0.003, "{found:?}");
            assert!(found.low > 0.0, "{found:?}");
            assert!((found.base - 100.0).abs() < 1.5, "{found:?}");
            let found = theil_sen(&blocks(&noisy(0.0, seed))).expect("enough points");
            none += usize::from(found.low <= 0.0 && found.high >= 0.0);
        }
        assert!(none >= 194, "an interval of 99 % held 0 in {none} of 200");
    }

    #[test]
    fn one_wild_point_moves_nothing() {
        let mut points = noisy(0.0, 1);
        points[300].1 = 1e9;
        let found = theil_sen(&blocks(&points)).expect("enough points");
        assert!(found.slope.abs() < 0.003, "{found:?}");
    }

    #[test]
    fn what_never_changes_has_no_slope() {
        let points: Vec<_> = (0..40).map(|n| (f64::from(n), 5.0)).collect();
        assert_eq!(theil_sen(&points), Some(Slope { slope: 0.0, low: 0.0, high: 0.0, base: 5.0 }));
        assert_eq!(theil_sen(&points[..FEWEST - 1]), None);
    }
}
