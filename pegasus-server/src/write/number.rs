//! Numbers kept as text, as incr and the integer checks read them.
//!
//! The grammar is that of C's `strtoll` with base 0 over the whole text, which is what the data of
//! existing tables was written against: white space may lead, then a sign, then `0x` and hexadecimal
//! digits, or `0` and octal digits, or decimal digits. So `"010"` is eight. Nothing may follow, there
//! must be a digit, and the number must fit 64 bits.

/// The number that `text` is, `None` when it is none.
pub fn parse(text: &[u8]) -> Option<i64> {
    let start = text.iter().position(|byte| !is_space(*byte))?;
    let (negative, digits) = match &text[start..] {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let (base, digits) = match digits {
        [b'0', b'x' | b'X', rest @ ..] => (16, rest),
        [b'0', _, ..] => (8, &digits[1..]),
        rest => (10, rest),
    };
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0i64, |number, byte| {
        let digit = i64::from(char::from(*byte).to_digit(base)?);
        // Built on the sign's own side of zero, for the smallest number has no positive twin.
        let shifted = number.checked_mul(i64::from(base))?;
        if negative { shifted.checked_sub(digit) } else { shifted.checked_add(digit) }
    })
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_strtoll_accepts() {
        let cases: [(&[u8], i64); 16] = [
            (b"0", 0),
            (b"00", 0),
            (b"-0", 0),
            (b"7", 7),
            (b"+7", 7),
            (b"-7", -7),
            (b" \t\n\x0b\x0c\r42", 42),
            (b"010", 8),
            (b"-010", -8),
            (b"0777", 511),
            (b"0x1F", 31),
            (b"0Xff", 255),
            (b"-0x10", -16),
            (b"9223372036854775807", i64::MAX),
            (b"-9223372036854775808", i64::MIN),
            (b"-0x8000000000000000", i64::MIN),
        ];
        for (text, number) in cases {
            assert_eq!(parse(text), Some(number), "{:?}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn what_it_does_not() {
        let cases: [&[u8]; 20] = [
            b"",
            b" ",
            b"+",
            b"-",
            b"--1",
            b"+-1",
            b"- 1",
            b"1 ",
            b"1\n",
            b"1.0",
            b"12a",
            b"08",
            b"0x",
            b"0xg",
            b"x1",
            b"1\0",
            b"\x001",
            b"9223372036854775808",
            b"-9223372036854775809",
            b"0x8000000000000000",
        ];
        for text in cases {
            assert_eq!(parse(text), None, "{:?}", String::from_utf8_lossy(text));
        }
    }
}
