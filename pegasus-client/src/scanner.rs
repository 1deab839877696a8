//! Scanners: records in order, batch by batch, over one partition or several.
//!
//! A server keeps a scan's place for five minutes under a context id, which changes with every batch. When the place
//! is lost (the time is over, the partition has moved, the batch hit the server's time limit) the scan goes on behind
//! the last record seen; it then shows newer data than before.

use bytes::Bytes;
use dsn_replication::client::{ClientError, Completer, Pending, Place as ErrorPlace, pending};
use std::collections::VecDeque;

use crate::client::Table;
use crate::ops::{self, Batch, Record};
use crate::schema::key::{SCAN_START, SCAN_STOP, encode_key, next_of_hash_key, split_key};
use crate::schema::partition_hash;
use crate::schema::rrdb::{FilterType, GetScannerRequest, KeyValue, scan_context, status};

/// What a scan shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanOptions {
    /// Records asked for at a time; servers cut at 1000.
    pub batch_size: i32,
    /// Whether the start itself is shown.
    pub start_inclusive: bool,
    /// Whether the stop itself is shown.
    pub stop_inclusive: bool,
    /// Only keys.
    pub no_value: bool,
    /// Only hash keys that match.
    pub hash_key_filter: (FilterType, Bytes),
    /// Only sort keys that match.
    pub sort_key_filter: (FilterType, Bytes),
}

impl Default for ScanOptions {
    fn default() -> Self {
        Self {
            batch_size: 100,
            start_inclusive: true,
            stop_inclusive: false,
            no_value: false,
            hash_key_filter: (FilterType::NoFilter, Bytes::new()),
            sort_key_filter: (FilterType::NoFilter, Bytes::new()),
        }
    }
}

/// Times that a scan is opened again at one place: a range of dead records that takes longer than the server's time
/// limit would be begun for ever.
const REOPEN_MAX: u32 = 8;

enum Place {
    /// The next partition is to be opened.
    NotOpen,
    /// A context on the server.
    Context(i64),
}

/// A scan. An iterator of records; after an error it is over.
pub struct Scanner {
    table: Table,
    request: GetScannerRequest,
    partitions: VecDeque<i32>,
    place: Place,
    rows: VecDeque<KeyValue>,
    last_key: Option<Bytes>,
    /// Times in a row that the scan was opened again without a record in between.
    reopened: u32,
    failed: bool,
}

impl std::fmt::Debug for Scanner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scanner").field("partitions", &self.partitions).finish_non_exhaustive()
    }
}

impl Scanner {
    fn new(table: &Table, request: GetScannerRequest, partitions: VecDeque<i32>) -> Self {
        Self {
            table: table.clone(),
            request,
            partitions,
            place: Place::NotOpen,
            rows: VecDeque::new(),
            last_key: None,
            reopened: 0,
            failed: false,
        }
    }

    fn request(options: &ScanOptions) -> GetScannerRequest {
        GetScannerRequest {
            start_inclusive: options.start_inclusive,
            stop_inclusive: options.stop_inclusive,
            batch_size: options.batch_size,
            no_value: options.no_value,
            hash_key_filter_type: options.hash_key_filter.0,
            hash_key_filter_pattern: options.hash_key_filter.1.clone(),
            sort_key_filter_type: options.sort_key_filter.0,
            sort_key_filter_pattern: options.sort_key_filter.1.clone(),
            ..GetScannerRequest::default()
        }
    }

    pub(crate) fn of_hash_key(
        table: &Table,
        hash_key: &[u8],
        start: &[u8],
        stop: &[u8],
        options: &ScanOptions,
    ) -> Result<Self, ClientError> {
        let here =
            |error: ClientError| ClientError { place: ErrorPlace::of_table(table.name()), ..error };
        let wrong = |error| here(ops::invalid(error));
        ops::hash_only(hash_key).map_err(here)?;
        let mut request = Self::request(options);
        request.start_key = encode_key(hash_key, start).map_err(wrong)?;
        if stop.is_empty() {
            request.stop_key = next_of_hash_key(hash_key).map_err(wrong)?;
            request.stop_inclusive = false;
        } else {
            request.stop_key = encode_key(hash_key, stop).map_err(wrong)?;
        }
        request.validate_partition_hash = Some(false);
        let hash = partition_hash::of_record(hash_key, start);
        let index = partition_hash::partition_index(hash, table.partition_count()?);
        Ok(Self::new(table, request, VecDeque::from([index])))
    }

    pub(crate) fn of_table(
        table: &Table,
        max_splits: usize,
        options: &ScanOptions,
    ) -> Result<Vec<Self>, ClientError> {
        let count = table.partition_count()?;
        let splits = max_splits.clamp(1, count as usize);
        let mut request = Self::request(options);
        request.start_key = Bytes::from_static(SCAN_START);
        request.stop_key = Bytes::from_static(SCAN_STOP);
        request.start_inclusive = true;
        request.stop_inclusive = false;
        request.full_scan = Some(true);
        let mut groups = vec![VecDeque::new(); splits];
        for index in 0..count {
            groups[index as usize % splits].push_back(index);
        }
        Ok(groups.into_iter().map(|group| Self::new(table, request.clone(), group)).collect())
    }

    /// The next record, `None` at the end.
    ///
    /// # Errors
    /// A batch that could not be had; the scan is over then.
    pub fn next_record(&mut self) -> Result<Option<Record>, ClientError> {
        loop {
            if let Some(row) = self.rows.pop_front() {
                return record(&row).map(Some);
            }
            let Some(partition) = self.partitions.front().copied() else { return Ok(None) };
            let batch = self.fetch(partition).wait()?;
            self.note(batch)?;
        }
    }

    /// Like [`Scanner::next_record`] without waiting: the next records, as many as one answer brings, and the scanner
    /// to go on with; no records and no scanner at the end.
    ///
    /// # Errors
    /// The outcome's: a batch that could not be had; the scan is over then.
    pub fn start_batch(self) -> Pending<(Vec<Record>, Option<Self>)> {
        let (completer, outcome) = pending();
        self.step(completer);
        outcome
    }

    /// Asks for batches until one brings records.
    fn step(mut self, completer: Completer<(Vec<Record>, Option<Self>)>) {
        if !self.rows.is_empty() {
            let rows = std::mem::take(&mut self.rows);
            let records: Result<Vec<Record>, ClientError> = rows.iter().map(record).collect();
            return completer.complete(records.map(|records| (records, Some(self))));
        }
        let Some(partition) = self.partitions.front().copied() else {
            return completer.complete(Ok((Vec::new(), None)));
        };
        let asked = self.fetch(partition);
        asked.then(move |outcome| match outcome.and_then(|batch| self.note(batch)) {
            Ok(()) => self.step(completer),
            Err(error) => completer.complete(Err(error)),
        });
    }

    fn fetch(&self, partition: i32) -> Pending<Batch> {
        let request = match self.place {
            Place::Context(context) => ops::scan(partition, context),
            Place::NotOpen => {
                let mut request = self.request.clone();
                if let Some(last) = &self.last_key {
                    request.start_key = last.clone();
                    request.start_inclusive = false;
                }
                ops::get_scanner(partition, &request)
            }
        };
        self.table.start(Ok(request))
    }

    /// Takes over a batch and notes where the scan goes on.
    fn note(&mut self, batch: Batch) -> Result<(), ClientError> {
        if batch.reopen && batch.rows.is_empty() {
            self.reopened += 1;
            if self.reopened > REOPEN_MAX {
                let place = ErrorPlace::of_table(self.table.name());
                return Err(ClientError { reason: ops::failed(status::INCOMPLETE), place });
            }
        } else {
            self.reopened = 0;
        }
        self.rows = batch.rows.into();
        if let Some(last) = self.rows.back() {
            self.last_key = Some(last.key.clone());
        }
        // The original answers an empty range with context 0, which no scan ever has; it means the end.
        if batch.reopen {
            self.place = Place::NotOpen;
        } else if scan_context::is_valid(batch.context)
            && !(batch.context == 0 && self.rows.is_empty())
        {
            self.place = Place::Context(batch.context);
        } else {
            self.place = Place::NotOpen;
            self.last_key = None;
            self.partitions.pop_front();
        }
        Ok(())
    }
}

fn record(row: &KeyValue) -> Result<Record, ClientError> {
    let (hash_key, sort_key) = split_key(&row.key).map_err(ops::invalid)?;
    Ok((row.key.slice_ref(hash_key), row.key.slice_ref(sort_key), row.value.clone()))
}

impl Drop for Scanner {
    /// Lets the server forget a scan that was not read to its end.
    fn drop(&mut self) {
        if let (Place::Context(context), Some(partition)) = (&self.place, self.partitions.front()) {
            self.table.end_scan(*partition, *context);
        }
    }
}

impl Iterator for Scanner {
    type Item = Result<Record, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.next_record();
        self.failed = next.is_err();
        next.transpose()
    }
}
