//! Filters on hash keys and sort keys.

use bytes::Bytes;
use pegasus_client::schema::rrdb::FilterType;

/// A condition on a key.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    kind: FilterType,
    pattern: Bytes,
}

impl Filter {
    /// The filter of a request; `None` when there is no such kind. The pattern is copied: scans keep
    /// their filters long after the request is gone.
    pub(super) fn new(kind: FilterType, pattern: &Bytes) -> Option<Self> {
        let known = !matches!(kind, FilterType::Other(_));
        known.then(|| Self { kind, pattern: Bytes::copy_from_slice(pattern) })
    }

    /// The bytes that keys must begin with, if that is what the filter asks for.
    pub(super) fn prefix(&self) -> Option<&[u8]> {
        (self.kind == FilterType::Prefix && !self.pattern.is_empty()).then_some(&self.pattern[..])
    }

    /// Whether every key passes.
    pub(super) fn passes_all(&self) -> bool {
        self.kind == FilterType::NoFilter || self.pattern.is_empty()
    }

    /// Whether `key` passes.
    pub(super) fn passes(&self, key: &[u8]) -> bool {
        match self.kind {
            _ if self.pattern.is_empty() => true,
            FilterType::NoFilter => true,
            FilterType::Anywhere => {
                key.windows(self.pattern.len()).any(|window| window == self.pattern)
            }
            FilterType::Prefix => key.starts_with(&self.pattern),
            FilterType::Postfix => key.ends_with(&self.pattern),
            FilterType::Other(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(kind: FilterType, pattern: &'static [u8]) -> Filter {
        Filter::new(kind, &Bytes::from_static(pattern)).expect("a known kind")
    }

    #[test]
    fn kinds() {
        use FilterType as T;
        let passing = |kind| {
            let filter = filter(kind, b"ab");
            ["", "a", "ab", "abc", "cab", "cabd"].map(|key| filter.passes(key.as_bytes()))
        };
        assert_eq!(passing(T::NoFilter), [true; 6]);
        assert_eq!(passing(T::Anywhere), [false, false, true, true, true, true]);
        assert_eq!(passing(T::Prefix), [false, false, true, true, false, false]);
        assert_eq!(passing(T::Postfix), [false, false, true, false, true, false]);
        assert!(Filter::new(T::Other(4), &Bytes::new()).is_none());
    }

    #[test]
    fn an_empty_pattern_passes_everything() {
        for kind in FilterType::ALL {
            let filter = filter(*kind, b"");
            assert!(filter.passes_all() && filter.passes(b"") && filter.passes(b"x"));
            assert_eq!(filter.prefix(), None);
        }
        assert_eq!(filter(FilterType::Prefix, b"p").prefix(), Some(&b"p"[..]));
        assert_eq!(filter(FilterType::Postfix, b"p").prefix(), None);
    }
}
