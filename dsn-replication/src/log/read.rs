//! Reading mutations of one replica from a log in use: for learners, and for a replica that has to catch up.

use super::record::Record;
use super::scan::{Item, Scan};
use super::shared::SharedLog;
use super::{LogError, segment};
use crate::ids::Decree;
use dsn_core::disk::File;
use dsn_rpc::gpid::Gpid;
use std::ops::ControlFlow;
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

    /// Walks the records of a replica, in log order, from segments that have decree `from` or later, and from
    /// `position` on; blocks. Ends when `visit` says so. A decree may appear several times: the last counts. `None`
    /// stands where something of the replica is missing, or may be: what was read before it may have been superseded.
    ///
    /// # Errors
    /// Of the file system.
    pub fn walk(
        &self,
        gpid: Gpid,
        from: Decree,
        position: u64,
        mut visit: impl FnMut(Option<Record>) -> ControlFlow<()>,
    ) -> Result<(), LogError> {
        let (floor, parts) = self.parts(gpid, from);
        let begin = floor.max(position);
        for part in parts.into_iter().filter(|part| part.span.last >= begin) {
            let mut scan = Scan::new(part.file, &part.head, part.len);
            scan.seek(part.span.first.max(begin));
            let end = part.span.last - part.head.base;
            while scan.offset() <= end {
                let item = scan.advance().map_err(|error| LogError::io(&part.path, error))?;
                let found = match item {
                    Some(Item::Record(_, record)) if record.key.gpid == gpid => Some(record),
                    Some(Item::BrokenPayload(header)) if header.key.gpid != gpid => continue,
                    Some(Item::Record(..)) => continue,
                    Some(Item::Junk(_) | Item::BrokenPayload(_)) => None,
                    None => break,
                };
                if visit(found).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Somebody reads the replica's decrees from `from` on: segments that have them stay. `None`: nobody does.
    pub fn set_reader(&self, gpid: Gpid, from: Option<Decree>) {
        if let Some(needs) = self.state.lock().replicas.get_mut(&gpid) {
            needs.reader = from;
        }
    }

    /// Somebody will read from `from` on, beside those who read already.
    pub fn keep_for_reader(&self, gpid: Gpid, from: Decree) {
        if let Some(needs) = self.state.lock().replicas.get_mut(&gpid) {
            needs.reader = Some(needs.reader.map_or(from, |reader| reader.min(from)));
        }
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
