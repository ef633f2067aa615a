//! Names of shards with braces, as shells and the library `webdataset` expand them.

use crate::error::{Reason, Result, bail, ensure};

/// More names than this are not made of one.
const MOST: usize = 100_000;
/// Nor of a pattern that is longer: all names together would have more than 64 MiB.
const LONGEST: usize = 670;

/// The names that a pattern stands for: `{0000..0063}` for all numbers of that range, with as many digits as the ends
/// have, and `{a,b}` for either. A name without braces stands for itself.
pub fn expand(pattern: &str) -> Result<Vec<String>, Reason> {
    let Some(open) = pattern.find('{') else { return Ok(vec![pattern.into()]) };
    ensure!(pattern.len() <= LONGEST, "a name with braces of more than {LONGEST} bytes is not expanded");
    let Some(close) = pattern[open..].find('}').map(|close| open + close) else {
        bail!("{pattern}: a brace is not closed")
    };
    let (before, inside) = (&pattern[..open], &pattern[open + 1..close]);
    ensure!(!inside.contains('{'), "{pattern}: braces in braces are not expanded");
    let choices = match inside.split_once("..") {
        Some((from, to)) => numbers(from, to).ok_or_else(|| {
            Reason::new(format!(
                "{pattern}: {{{inside}}} is no range of at most {MOST} numbers, such as {{0000..0063}}"
            ))
        })?,
        None => inside.split(',').map(str::to_string).collect(),
    };
    ensure!(choices.len() > 1 || inside.contains(".."), "{pattern}: {{{inside}}} is neither a range nor a choice");
    let rest = expand(&pattern[close + 1..])?;
    ensure!(choices.len().saturating_mul(rest.len()) <= MOST, "{pattern} stands for more than {MOST} names");
    Ok(choices.iter().flat_map(|choice| rest.iter().map(move |rest| format!("{before}{choice}{rest}"))).collect())
}

/// The numbers of a range, both ends included.
fn numbers(from: &str, to: &str) -> Option<Vec<String>> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (first, last): (usize, usize) = (from.parse().ok()?, to.parse().ok()?);
    if !digits(from) || !digits(to) || first.abs_diff(last) >= MOST {
        return None;
    }
    // Where an end begins with a zero, all are as long as the longer one.
    let padded = [from, to].iter().any(|end| end.len() > 1 && end.starts_with('0'));
    let width = if padded { from.len().max(to.len()) } else { 1 };
    let name = |number: usize| format!("{number:0width$}");
    Some(if first <= last { (first..=last).map(name).collect() } else { (last..=first).rev().map(name).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_expand_as_in_a_shell() {
        let expanded = |pattern: &str| expand(pattern).unwrap().join(" ");
        // `echo` in bash says the same.
        assert_eq!(expanded("val-{08..11}.tar"), "val-08.tar val-09.tar val-10.tar val-11.tar");
        assert_eq!(expanded("{9..11}"), "9 10 11");
        assert_eq!(expanded("{2..0}"), "2 1 0");
        assert_eq!(expanded("{00..2}"), "00 01 02");
        assert_eq!(expanded("{a,b}/{0..1}.tar"), "a/0.tar a/1.tar b/0.tar b/1.tar");
        assert_eq!(expanded("x{,y}"), "x xy");
        assert_eq!(expanded("plain.tar"), "plain.tar");
        assert_eq!(expand("imagenet1k-validation-{0000..0063}.tar").unwrap().len(), 64);
        for wrong in ["{0..", "{a..b}", "{0..9999999}", "{a}", "{{0..1}}", "{0..999}{0..999}", "{}", "{+1..2}"] {
            assert!(expand(wrong).is_err(), "{wrong}");
        }
        // Each is looked for behind the one before.
        assert_eq!(expand(&"{0..0}".repeat(100)).unwrap(), ["0".repeat(100)]);
        assert!(expand(&"{0..0}".repeat(20_000)).is_err());
    }
}
