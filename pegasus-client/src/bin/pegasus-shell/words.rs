//! Text in, bytes out: words of a line, and C escapes in keys and values.
//!
//! A line is split at white space. Single and double quotes keep words together; a backslash before white space, a
//! quote or `#` takes away its meaning. Any other backslash stays in the word, since it begins a C escape there.

use bytes::Bytes;

/// Why text is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WordError {
    /// A quote is not closed.
    #[error("the quote {0} is not closed")]
    OpenQuote(char),
    /// The text ends with a backslash.
    #[error("a backslash at the end; write \\\\ for a backslash")]
    OpenEscape,
    /// `\` and something that is no escape.
    #[error("\\{0} is no escape; known are \\\\ \\\" \\' \\0 \\a \\b \\f \\n \\r \\t \\v \\xNN")]
    NoEscape(char),
    /// `\x` without two hexadecimal digits.
    #[error("\\x must be followed by two hexadecimal digits")]
    NoHex,
}

/// Splits a line into words. What follows a `#` at the begin of a word is a comment.
///
/// # Errors
/// [`WordError::OpenQuote`], [`WordError::OpenEscape`].
pub fn split(line: &str) -> Result<Vec<String>, WordError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                let next = chars.next().ok_or(WordError::OpenEscape)?;
                let word = word.get_or_insert_default();
                if !(next.is_whitespace() || matches!(next, '"' | '\'' | '#')) {
                    word.push('\\');
                }
                word.push(next);
            }
            _ if quote == Some(c) => quote = None,
            _ if quote.is_some() => word.get_or_insert_default().push(c),
            '"' | '\'' => {
                word.get_or_insert_default();
                quote = Some(c);
            }
            '#' if word.is_none() => break,
            _ if c.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    match quote {
        Some(quote) => Err(WordError::OpenQuote(quote)),
        None => {
            words.extend(word);
            Ok(words)
        }
    }
}

/// A key or a value written with C escapes; other characters stand for their UTF-8 bytes.
///
/// # Errors
/// [`WordError`], all but the open quote.
pub fn unescape(text: &str) -> Result<Bytes, WordError> {
    let mut out = Vec::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        out.push(match chars.next().ok_or(WordError::OpenEscape)? {
            '\\' => b'\\',
            '"' => b'"',
            '\'' => b'\'',
            '0' => 0,
            'a' => 7,
            'b' => 8,
            't' => b'\t',
            'n' => b'\n',
            'v' => 11,
            'f' => 12,
            'r' => b'\r',
            'x' => {
                let mut digit = || chars.next().and_then(|c| c.to_digit(16));
                let (high, low) = (digit(), digit());
                let (Some(high), Some(low)) = (high, low) else { return Err(WordError::NoHex) };
                (high * 16 + low) as u8
            }
            other => return Err(WordError::NoEscape(other)),
        });
    }
    Ok(Bytes::from(out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pegasus_client::schema::key::Escaped;

    #[test]
    fn lines_are_split_like_a_shell_does() {
        let words = |line| split(line).unwrap();
        assert_eq!(words("  set temp\thk  sk "), ["set", "temp", "hk", "sk"]);
        assert_eq!(words(r#"a "b c" 'd "e' '' f"g h"i"#), ["a", "b c", "d \"e", "", "fg hi"]);
        assert_eq!(words(r#"a\ b \" \' \# "x\"y""#), ["a b", "\"", "'", "#", "x\"y"]);
        assert_eq!(words(r"\x00\n \\"), [r"\x00\n", r"\\"]);
        assert_eq!(words("a b#c # d"), ["a", "b#c"]);
        assert!(words("  # nothing").is_empty() && words("").is_empty());
        assert_eq!(split("a 'b"), Err(WordError::OpenQuote('\'')));
        assert_eq!(split("a \\"), Err(WordError::OpenEscape));
    }

    #[test]
    fn escapes_are_those_of_c() {
        assert_eq!(unescape(r"a\x00\xfF\n\t\\\0").unwrap(), &b"a\x00\xff\n\t\\\0"[..]);
        assert_eq!(unescape("é").unwrap(), "é".as_bytes());
        assert_eq!(unescape(r"\x0"), Err(WordError::NoHex));
        assert_eq!(unescape(r"\xzz"), Err(WordError::NoHex));
        assert_eq!(unescape(r"\q"), Err(WordError::NoEscape('q')));
        assert_eq!(unescape("a\\"), Err(WordError::OpenEscape));
    }

    #[test]
    fn what_is_printed_can_be_typed() {
        let all: Vec<u8> = (0..=255).collect();
        let printed = Escaped(&all).to_string();
        assert_eq!(unescape(&printed).unwrap(), all);
    }
}
