//! The loop of every range read: from an iterator's position to the far end of the range.

use bytes::Bytes;
use std::cmp::Ordering;

use super::Failure;
use super::limiter::Limiter;
use crate::engine::{Direction, EngineError, EngineIter};
use crate::metrics::StorageMetrics;

/// The end of a range towards which a walk goes.
#[derive(Clone, Debug)]
pub(super) struct FarEnd {
    pub(super) key: Bytes,
    pub(super) inclusive: bool,
    pub(super) direction: Direction,
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Row {
    /// It is part of the answer, with this many bytes.
    Taken(u64),
    /// It has expired.
    Expired,
    /// It does not match, or is not this partition's.
    Filtered,
}

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Walked {
    /// At the end of the range.
    ToTheEnd,
    /// At a limit, with a record at hand that may still belong to the range.
    ToALimit,
}

/// Shows the records of the range to `visit` until the range ends, `taken_max` of them were taken or the
/// limiter says stop. A range whose last record is taken together with the last permitted one counts as
/// ended only if the iterator itself, or that very record, is at the end.
pub(super) fn walk(
    iter: &mut dyn EngineIter,
    far: &FarEnd,
    taken_max: u64,
    limiter: &mut Limiter<'_>,
    metrics: &StorageMetrics,
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<Row, EngineError>,
) -> Result<Walked, Failure> {
    let (mut taken, mut expired, mut filtered) = (0, 0, 0);
    let mut ended = false;
    while taken < taken_max && limiter.may_go_on() {
        let Some((key, value)) = iter.entry() else { break };
        let place = match far.direction {
            Direction::Forward => key.cmp(&far.key),
            Direction::Reverse => far.key[..].cmp(key),
        };
        if place == Ordering::Greater || (place == Ordering::Equal && !far.inclusive) {
            ended = true;
            break;
        }
        limiter.examine();
        match visit(key, value)? {
            Row::Taken(bytes) => {
                taken += 1;
                limiter.returning(bytes);
            }
            Row::Expired => expired += 1,
            Row::Filtered => filtered += 1,
        }
        if place == Ordering::Equal {
            ended = true;
            break;
        }
        iter.advance();
    }
    metrics.read_expired_values.add(expired);
    metrics.read_filtered_values.add(filtered);
    if iter.entry().is_none() {
        iter.status()?;
        ended = true;
    }
    Ok(if ended { Walked::ToTheEnd } else { Walked::ToALimit })
}

/// Moves off the record at `key`, when the iterator is on it and the range does not include it.
pub(super) fn skip_excluded(iter: &mut dyn EngineIter, key: &[u8], inclusive: bool) {
    if !inclusive && iter.entry().is_some_and(|(at, _)| at == key) {
        iter.advance();
    }
}
