//! Ballots and decrees: the two numbers everything in replication is ordered by.
//!
//! Both are `i64` on the wire and on disk. Here they are types of their own with named steps, so that one cannot be
//! taken for the other and a `+ 1` always says what it means.

use std::fmt;

/// Sequence number of a mutation within its partition. Dense, from 1; 0 is the empty state, -1 stands for "none".
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Decree(pub i64);

impl Decree {
    /// The state before the first mutation.
    pub const ZERO: Self = Self(0);
    /// No decree at all.
    pub const NONE: Self = Self(-1);
    /// No limit.
    pub const MAX: Self = Self(i64::MAX);

    /// The one after this.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The one before this.
    #[must_use]
    pub const fn prev(self) -> Self {
        Self(self.0 - 1)
    }

    /// `count` further.
    #[must_use]
    pub const fn plus(self, count: usize) -> Self {
        Self(self.0.saturating_add(count as i64))
    }

    /// How many decrees lie in `(earlier, self]`; 0 when `earlier` is not earlier.
    #[must_use]
    pub const fn since(self, earlier: Self) -> usize {
        let distance = self.0.saturating_sub(earlier.0);
        if distance > 0 { distance as usize } else { 0 }
    }
}

impl fmt::Display for Decree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Decree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "d{}", self.0)
    }
}

/// Version of a partition's configuration: grows by one with every change of membership or primary.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ballot(pub i64);

impl Ballot {
    /// Before any configuration.
    pub const ZERO: Self = Self(0);
    /// No ballot at all.
    pub const NONE: Self = Self(-1);

    /// The configuration after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_do_not_go_below_zero() {
        assert_eq!(Decree(7).since(Decree(4)), 3);
        assert_eq!(Decree(4).since(Decree(7)), 0);
        assert_eq!(Decree(4).next().prev(), Decree(4));
        assert_eq!(Decree(4).plus(3), Decree(7));
        assert_eq!(Ballot(1).next(), Ballot(2));
        assert_eq!(format!("{:?} {:?}", Decree(3), Ballot(2)), "d3 b2");
    }
}
