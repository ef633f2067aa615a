//! How numbers and names are written for people.

/// Text with its control characters escaped: file names may hold any.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect()
}

/// `78.40 %`
pub fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

/// `-0.28`: a difference of two shares, in hundredths.
pub fn points(difference: f64) -> String {
    format!("{:+.2}", 100.0 * difference)
}

/// `0.0312`, or `1.2e-9` where that would be 0.
pub fn p_value(p: f64) -> String {
    match p {
        0.0 => "below 1e-300".into(),
        p if p < 0.001 => format!("{p:.1e}"),
        p => format!("{p:.4}"),
    }
}

/// `50,000`
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(",")
}

/// `1 file`, `12,000 files`
pub fn count(number: u64, of: &str) -> String {
    format!("{} {of}{}", thousands(number), if number == 1 { "" } else { "s" })
}

/// `40.2 MB`, `0.3 kB`: the size of a file.
pub fn size(number: u64) -> String {
    if number < 100_000 { format!("{:.1} kB", number as f64 / 1e3) } else { bytes(number) }
}

/// `80.4 MB`, `6.67 GB`
pub fn bytes(number: u64) -> String {
    let number = number as f64;
    if number >= 1e9 { format!("{:.2} GB", number / 1e9) } else { format!("{:.1} MB", number / 1e6) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 999, 1000, 50_000, 1_281_167].map(thousands), ["0", "999", "1,000", "50,000", "1,281,167"]);
        assert_eq!(percent(0.784), "78.40 %");
        assert_eq!([0.0, 0.0123, -0.25].map(points), ["+0.00", "+1.23", "-25.00"]);
        assert_eq!([1.0, 0.03125, 3.9e-19, 0.0].map(p_value), ["1.0000", "0.0312", "3.9e-19", "below 1e-300"]);
        assert_eq!([0, 80_405_585, 6_673_500_000].map(bytes), ["0.0 MB", "80.4 MB", "6.67 GB"]);
    }
}
