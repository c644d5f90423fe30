//! Numbers for readers: thousands apart, a proper minus, powers of ten where there are many zeros, sizes, times.

use std::time::Duration;

/// A value with as many decimals as `step` has.
pub(crate) fn label(value: f64, step: f64) -> String {
    if value.abs() < step * 1e-6 {
        return "0".to_owned();
    }
    let places = -step.log10().floor();
    if value.abs() >= 1e7 || places > 5.0 {
        return exact(value);
    }
    grouped(value, places.max(0.0) as usize)
}

/// A value with the digits it needs, up to four of them: 0.034, 12,346, 3×10⁻⁷.
pub fn exact(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return format!("{value}");
    }
    let power = value.abs().log10().floor();
    if (-4.0..7.0).contains(&power) {
        let text = grouped(value, (3.0 - power).max(0.0) as usize);
        let trimmed = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
        return trimmed.to_owned();
    }
    let mantissa = format!("{:.3}", value / 10_f64.powf(power));
    let mantissa = mantissa.trim_end_matches('0').trim_end_matches('.').replace('-', "\u{2212}");
    let raised: String = format!("{power:.0}").chars().map(superscript).collect();
    if mantissa == "1" { format!("10{raised}") } else { format!("{mantissa}×10{raised}") }
}

fn superscript(c: char) -> char {
    const DIGITS: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    c.to_digit(10).map_or('⁻', |digit| DIGITS[digit as usize])
}

/// A value with `places` decimals, thousands apart: 12,500.
pub fn grouped(value: f64, places: usize) -> String {
    let text = format!("{:.places$}", value.abs());
    let (whole, fraction) = text.split_once('.').map_or((text.as_str(), None), |(whole, rest)| (whole, Some(rest)));
    let mut out = String::new();
    if value < 0.0 {
        out.push('\u{2212}');
    }
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if let Some(fraction) = fraction {
        out.push('.');
        out.push_str(fraction);
    }
    out
}

/// A count with its thousands apart: 12,500.
pub fn count(number: usize) -> String {
    grouped(number as f64, 0)
}

/// A size in memory: 12.5 MB.
pub fn megabytes(bytes: usize) -> String {
    format!("{} MB", grouped(bytes as f64 / 1e6, 1))
}

/// `45s`, `2m05s` or `1h02m`.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds:02}s"),
        (hours, minutes, _) => format!("{hours}h{minutes:02}m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_readers() {
        assert_eq!(exact(0.034), "0.034");
        assert_eq!(exact(-12_345.6), "−12,346");
        assert_eq!(exact(3e-7), "3×10⁻⁷");
        assert_eq!(exact(0.0), "0");
        assert_eq!(grouped(1_234_567.0, 0), "1,234,567");
        assert_eq!(grouped(999.5, 1), "999.5");
        assert_eq!([0.0, 999.6, 41_200.4, 1e6].map(|rate| grouped(rate, 0)), ["0", "1,000", "41,200", "1,000,000"]);
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(megabytes(12_540_000_000), "12,540.0 MB");
        let seconds = [0, 59, 125, 3600, 90_061];
        let expected = ["0s", "59s", "2m05s", "1h00m", "25h01m"];
        assert_eq!(seconds.map(|seconds| duration(Duration::from_secs(seconds))), expected);
    }
}
