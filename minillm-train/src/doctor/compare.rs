//! How far what a form gave is from what it should have given, and how that is said.

use minillm_model::cases::{Computed, Part};

/// What is to be said about one form.
pub struct Verdict {
    /// The largest difference of a part as a share of its largest value; `None` where a part could not be compared.
    pub error: Option<f64>,
    /// In words; `None` if every part is within the tolerance.
    pub problem: Option<String>,
}

/// Compares every part with what `pair` finds for it: what to compare, and with what. Values below `smallest` count as
/// zero.
pub fn judge(
    computed: &Computed,
    tolerance: f64,
    smallest: f64,
    pair: impl Fn(&Part) -> (Vec<f32>, Option<Vec<f32>>),
) -> Verdict {
    let parts = match computed {
        Ok(parts) => parts,
        Err(problem) => return Verdict { error: None, problem: Some(format!("gave nothing: {problem}")) },
    };
    if parts.is_empty() {
        return Verdict { error: None, problem: Some("gave nothing".to_owned()) };
    }
    let (mut error, mut problems) = (Some(0.0_f64), Vec::new());
    for part in parts {
        let (got, expected) = pair(part);
        let what = &part.what;
        match difference(&part.values, &got, expected.as_deref(), smallest) {
            Err(how) => {
                error = None;
                problems.push((f64::INFINITY, format!("{what} {how}")));
            }
            Ok(off) => {
                error = error.map(|error| error.max(off));
                if off > tolerance {
                    problems.push((off, format!("{what} is off by {off:.1e} of its largest value")));
                }
            }
        }
    }
    Verdict { error, problem: summary(problems, tolerance) }
}

/// The worst first, and no more than three of them.
fn summary(mut problems: Vec<(f64, String)>, tolerance: f64) -> Option<String> {
    const MOST: usize = 3;
    problems.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    let more = problems.len().saturating_sub(MOST);
    let listed: Vec<_> = problems.into_iter().take(MOST).map(|(_, problem)| problem).collect();
    if listed.is_empty() {
        return None;
    }
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    Some(format!("{}{more} (tolerance {tolerance:.0e})", listed.join(", ")))
}

/// The largest difference as a share of the largest expected value; in words what keeps the two from being compared.
fn difference(whole: &[f32], got: &[f32], expected: Option<&[f32]>, smallest: f64) -> Result<f64, &'static str> {
    let expected = expected.ok_or("has nothing to be compared with")?;
    if whole.is_empty() {
        return Err("is missing");
    }
    if whole.iter().any(|value| !value.is_finite()) {
        return Err("is not finite");
    }
    if got.len() != expected.len() {
        return Err("has another size");
    }
    let largest = expected.iter().fold(0.0_f64, |largest, value| largest.max(f64::from(value.abs())));
    if largest > smallest && whole.iter().all(|value| *value == 0.0) {
        return Err("is all zero");
    }
    let differences = got.iter().zip(expected).map(|(got, expected)| f64::from(got - expected).abs());
    Ok(differences.fold(0.0, f64::max) / largest.max(smallest))
}
