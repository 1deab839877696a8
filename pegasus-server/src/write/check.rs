//! The conditions of check_and_set and check_and_mutate.

use pegasus_client::schema::rrdb::{CasCheckType, status};

use super::number;

/// What a check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Passed,
    Failed,
    /// The condition cannot be applied to this value, or does not exist.
    Invalid,
}

impl Verdict {
    /// The status that a response gives.
    pub(super) fn status(self) -> i32 {
        match self {
            Self::Passed => status::OK,
            Self::Failed => status::TRY_AGAIN,
            Self::Invalid => status::INVALID_ARGUMENT,
        }
    }
}

/// Holds `value`, `None` when there is no such record, against a condition.
pub(super) fn check(kind: CasCheckType, operand: &[u8], value: Option<&[u8]>) -> Verdict {
    use CasCheckType as T;
    let present = |test: fn(&[u8], &[u8]) -> bool| value.is_some_and(|value| test(value, operand));
    let passed = match kind {
        T::NoCheck => true,
        T::ValueNotExist => value.is_none(),
        T::ValueNotExistOrEmpty => value.is_none_or(<[u8]>::is_empty),
        T::ValueExist => value.is_some(),
        T::ValueNotEmpty => present(|value, _| !value.is_empty()),
        T::ValueMatchAnywhere => present(contains),
        T::ValueMatchPrefix => present(|value, operand| value.starts_with(operand)),
        T::ValueMatchPostfix => present(|value, operand| value.ends_with(operand)),
        T::ValueBytesLess => present(|value, operand| value < operand),
        T::ValueBytesLessOrEqual => present(|value, operand| value <= operand),
        T::ValueBytesEqual => present(|value, operand| value == operand),
        T::ValueBytesGreaterOrEqual => present(|value, operand| value >= operand),
        T::ValueBytesGreater => present(|value, operand| value > operand),
        T::ValueIntLess => return numbers(value, operand, |value, operand| value < operand),
        T::ValueIntLessOrEqual => {
            return numbers(value, operand, |value, operand| value <= operand);
        }
        T::ValueIntEqual => return numbers(value, operand, |value, operand| value == operand),
        T::ValueIntGreaterOrEqual => {
            return numbers(value, operand, |value, operand| value >= operand);
        }
        T::ValueIntGreater => return numbers(value, operand, |value, operand| value > operand),
        T::Other(_) => return Verdict::Invalid,
    };
    verdict(passed)
}

fn verdict(passed: bool) -> Verdict {
    if passed { Verdict::Passed } else { Verdict::Failed }
}

fn numbers(value: Option<&[u8]>, operand: &[u8], test: fn(i64, i64) -> bool) -> Verdict {
    let Some(value) = value else { return Verdict::Failed };
    match (number::parse(value), number::parse(operand)) {
        (Some(value), Some(operand)) => verdict(test(value, operand)),
        _ => Verdict::Invalid,
    }
}

/// Whether `part` occurs in `whole`; an empty part always does.
pub(crate) fn contains(whole: &[u8], part: &[u8]) -> bool {
    part.is_empty() || whole.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use CasCheckType as T;
    use Verdict::{Failed, Invalid, Passed};

    fn on(value: &'static str, operand: &'static str) -> impl Fn(T) -> Verdict {
        move |kind| check(kind, operand.as_bytes(), Some(value.as_bytes()))
    }

    #[test]
    fn existence() {
        let absent = |kind| check(kind, b"", None);
        assert_eq!(absent(T::NoCheck), Passed);
        assert_eq!(absent(T::ValueNotExist), Passed);
        assert_eq!(absent(T::ValueNotExistOrEmpty), Passed);
        assert_eq!(absent(T::ValueExist), Failed);
        assert_eq!(absent(T::ValueNotEmpty), Failed);
        let empty = on("", "");
        assert_eq!(empty(T::ValueNotExist), Failed);
        assert_eq!(empty(T::ValueNotExistOrEmpty), Passed);
        assert_eq!(empty(T::ValueExist), Passed);
        assert_eq!(empty(T::ValueNotEmpty), Failed);
        let full = on("x", "");
        assert_eq!(full(T::ValueNotExistOrEmpty), Failed);
        assert_eq!(full(T::ValueNotEmpty), Passed);
        assert_eq!(full(T::Other(18)), Invalid);
        assert_eq!(full(T::Other(-1)), Invalid);
    }

    #[test]
    fn an_absent_value_fails_every_comparison() {
        for number in 5..=17 {
            assert_eq!(check(T::from(number), b"", None), Failed, "type {number}");
            assert_eq!(check(T::from(number), b"no number", None), Failed, "type {number}");
        }
    }

    #[test]
    fn matches() {
        let value = on("abcab", "ab");
        assert_eq!(value(T::ValueMatchAnywhere), Passed);
        assert_eq!(value(T::ValueMatchPrefix), Passed);
        assert_eq!(value(T::ValueMatchPostfix), Passed);
        let other = on("abcab", "bc");
        assert_eq!(other(T::ValueMatchAnywhere), Passed);
        assert_eq!(other(T::ValueMatchPrefix), Failed);
        assert_eq!(other(T::ValueMatchPostfix), Failed);
        let longer = on("a", "aa");
        assert_eq!(longer(T::ValueMatchAnywhere), Failed);
        for kind in [T::ValueMatchAnywhere, T::ValueMatchPrefix, T::ValueMatchPostfix] {
            assert_eq!(on("a", "")(kind), Passed, "{kind}");
            assert_eq!(on("", "")(kind), Passed, "{kind}");
        }
    }

    #[test]
    fn bytes_compare_unsigned_and_shorter_is_less() {
        let orders = [
            (on("a", "ab"), [true, true, false, false, false]),
            (on("\u{ff}", "a"), [false, false, false, true, true]),
        ];
        for (value, expected) in orders {
            for (number, pass) in (8..).zip(expected) {
                assert_eq!(value(T::from(number)), verdict(pass), "type {number}");
            }
        }
        assert_eq!(on("a", "a")(T::ValueBytesEqual), Passed);
    }

    #[test]
    fn numbers_compare_as_numbers_or_are_invalid() {
        let expected = [true, true, false, false, false];
        for (number, pass) in (13..).zip(expected) {
            assert_eq!(on("9", "0x10")(T::from(number)), verdict(pass), "type {number}");
            assert_eq!(on("9", "ten")(T::from(number)), Invalid);
            assert_eq!(on("nine", "10")(T::from(number)), Invalid);
            assert_eq!(on("", "10")(T::from(number)), Invalid);
        }
        assert_eq!(on("010", "8")(T::ValueIntEqual), Passed);
    }
}
