//! How errors and numbers are put to people.

/// An error and its causes in one line. Some libraries repeat their cause in their own message, and
/// candle adds a backtrace where `RUST_BACKTRACE` is set: both are left out.
pub fn one_line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        let cause = cause.split("\n   0: ").next().unwrap_or_default().trim();
        if !text.contains(cause) {
            text = if text.is_empty() { cause.to_string() } else { format!("{text}: {cause}") };
        }
    }
    printable(&text)
}

/// Text with its control characters escaped: file names may hold any.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect()
}

/// `78.40 %`
pub fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

/// `50,000`
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_one_line() {
        let cause = anyhow::anyhow!("no such thing\n   0: some::frame\n   1: another");
        let error = cause.context("cannot do it: no such thing").context("photo.png");
        assert_eq!(one_line(&error), "photo.png: cannot do it: no such thing");
        assert_eq!(one_line(&anyhow::anyhow!("bad").context("a\nb.png")), r"a\nb.png: bad");
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 999, 1000, 50_000, 1_281_167].map(thousands), ["0", "999", "1,000", "50,000", "1,281,167"]);
        assert_eq!(percent(0.784), "78.40 %");
    }
}
