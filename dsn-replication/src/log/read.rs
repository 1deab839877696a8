//! Reading mutations of one replica from a log in use: for learners, and for a replica that has to catch up.

use super::record::{Record, RecordKind};
use super::scan::{Item, Scan};
use super::shared::SharedLog;
use super::{LogError, segment};
use crate::ids::Decree;
use dsn_core::disk::File;
use dsn_rpc::gpid::Gpid;
use std::sync::Arc;

struct Part {
    file: Arc<dyn File>,
    path: std::path::PathBuf,
    head: segment::Head,
    len: u64,
    span: segment::Span,
}

impl SharedLog {
    /// The lowest and the highest decree the log has of a replica.
    #[must_use]
    pub fn decrees(&self, gpid: Gpid) -> Option<(Decree, Decree)> {
        let state = self.state.lock();
        let floor = state.replicas.get(&gpid).map_or(0, |needs| needs.floor);
        let spans = state.sealed.iter().chain(std::iter::once(&state.current));
        let spans = spans.filter_map(|segment| segment.spans.get(&gpid));
        spans.filter(|span| span.last >= floor).fold(None, |all, span| {
            let (min, max) = all.unwrap_or((span.min, span.max));
            Some((span.min.min(min), span.max.max(max)))
        })
    }

    /// Records of a replica from decree `from` on, in log order, until they have `bytes_max` bytes of payload (at
    /// least one, if there is any); blocks. A decree may appear several times: the last counts.
    ///
    /// # Errors
    /// Of the file system, or [`LogError::Invalid`] when a record in the range is broken.
    pub fn read(
        &self,
        gpid: Gpid,
        from: Decree,
        bytes_max: usize,
    ) -> Result<Vec<Record>, LogError> {
        let (floor, parts) = self.parts(gpid, from);
        let mut records = Vec::new();
        let mut bytes = 0;
        for part in parts {
            let mut scan = Scan::new(part.file, &part.head, part.len);
            scan.seek(part.span.first.max(floor));
            let end = part.span.last - part.head.base;
            while scan.offset() <= end {
                let item = scan.advance().map_err(|error| LogError::io(&part.path, error))?;
                match item {
                    Some(Item::Record(_, record)) if record.key.gpid == gpid => {
                        if record.key.kind != RecordKind::Mutation || record.key.decree < from {
                            continue;
                        }
                        bytes += record.payload.len();
                        records.push(record);
                        if bytes >= bytes_max {
                            return Ok(records);
                        }
                    }
                    Some(Item::BrokenPayload(header)) if header.key.gpid != gpid => {}
                    Some(Item::Record(..)) => {}
                    broken => {
                        let reason = format!("cannot be read at {}: {broken:?}", scan.offset());
                        return Err(LogError::Invalid { path: part.path, reason });
                    }
                }
            }
        }
        Ok(records)
    }

    fn parts(&self, gpid: Gpid, from: Decree) -> (u64, Vec<Part>) {
        let state = self.state.lock();
        let floor = state.replicas.get(&gpid).map_or(0, |needs| needs.floor);
        let parts = state.sealed.iter().chain(std::iter::once(&state.current)).filter_map(|s| {
            let span = *s.spans.get(&gpid)?;
            (span.max >= from && span.last >= floor).then(|| Part {
                file: s.file.clone(),
                path: s.path.clone(),
                head: s.head,
                len: s.len,
                span,
            })
        });
        (floor, parts.collect())
    }
}
