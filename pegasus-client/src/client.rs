//! The client of a cluster and its tables, for threads of any kind.

use bytes::Bytes;
use dsn_rpc::host_port::HostPort;
use std::sync::Arc;
use std::time::Duration;

use crate::core::LPC_CLIENT_SUBMIT;
use crate::embedded::Embedded;
use crate::error::{ClientError, Reason};
use crate::ops::{self, Check, Checked, Found, MultiGet, Record, Request, Ttl};
use crate::options::ClientOptions;
use crate::pending::{Pending, pending};
use crate::scanner::{ScanOptions, Scanner};
use crate::schema::partition_hash;
use crate::schema::rrdb::{Mutate, MutateOperation};

/// A cluster. Cheap to clone; all clones share one thread and one connection per server.
#[derive(Clone, Debug)]
pub struct PegasusClient {
    options: Arc<ClientOptions>,
    pub(crate) embedded: Arc<Embedded>,
}

impl PegasusClient {
    /// A client of the cluster with these meta servers, each `host:port`. Nothing is contacted yet.
    ///
    /// # Errors
    /// A meta server that is not named so, or none; or when its thread cannot be started.
    pub fn new<M: AsRef<str>>(metas: &[M]) -> Result<Self, ClientError> {
        let named: Option<Vec<HostPort>> =
            metas.iter().map(|meta| HostPort::parse(meta.as_ref())).collect();
        let named = named
            .ok_or_else(|| ClientError::new(Reason::Invalid("a meta server is named host:port")))?;
        Self::with_options(ClientOptions::new(named))
    }

    /// The same with settings.
    ///
    /// # Errors
    /// When its thread cannot be started or no meta server is given.
    pub fn with_options(options: ClientOptions) -> Result<Self, ClientError> {
        if options.metas.is_empty() {
            return Err(ClientError::new(Reason::Invalid("no meta server given")));
        }
        let embedded = Embedded::start(options.clone())
            .map_err(|_| ClientError::new(Reason::Invalid("the client's thread does not start")))?;
        Ok(Self { options: Arc::new(options), embedded: Arc::new(embedded) })
    }

    /// Its settings.
    pub fn options(&self) -> ClientOptions {
        self.options.as_ref().clone()
    }

    /// A table of the cluster. Whether it exists is seen at the first operation.
    pub fn table(&self, name: &str) -> Table {
        Table { client: self.clone(), name: name.into(), timeout: None }
    }

    /// Sends one request; see [`crate::ops`].
    pub fn send<T: Send + 'static>(
        &self,
        table: impl Into<Arc<str>>,
        request: Request<T>,
        timeout: Option<Duration>,
    ) -> Pending<T> {
        let (completer, outcome) = pending();
        let table: Arc<str> = table.into();
        // When the mailbox is full the completer is dropped with the closure, which ends the operation.
        let _ = self.embedded.handle().post(
            self.embedded.core(),
            &LPC_CLIENT_SUBMIT,
            move |core, ctx| {
                let done = Box::new(move |_: &mut dsn_core::exec::Ctx<'_>, outcome| {
                    completer.complete(outcome);
                });
                core.submit(ctx, table, request, timeout, done);
            },
        );
        outcome
    }

    pub(crate) fn expire(&self, ttl: Ttl) -> i32 {
        ttl.expire_ts(self.embedded.unix_seconds())
    }
}

/// A table. Blocking operations wait for their outcome; those called `start_...` give a [`Pending`].
#[derive(Clone, Debug)]
pub struct Table {
    client: PegasusClient,
    name: Arc<str>,
    timeout: Option<Duration>,
}

type Outcome<T> = Result<T, ClientError>;

impl Table {
    /// The same table with another timeout for each operation.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..self.clone() }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The client it belongs to.
    pub fn client(&self) -> &PegasusClient {
        &self.client
    }

    /// Starts any request.
    pub fn start<T: Send + 'static>(&self, request: Outcome<Request<T>>) -> Pending<T> {
        match request {
            Ok(request) => self.client.send(self.name.clone(), request, self.timeout),
            Err(mut error) => {
                error.place.table = self.name.to_string();
                let (completer, outcome) = pending();
                completer.complete(Err(error));
                outcome
            }
        }
    }

    /// Starts [`Table::set`].
    pub fn start_set(
        &self,
        hk: &[u8],
        sk: &[u8],
        value: impl Into<Bytes>,
        ttl: Ttl,
    ) -> Pending<()> {
        self.start(ops::put(hk, sk, value.into(), self.client.expire(ttl)))
    }

    /// Sets a record.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::is_ambiguous`] tells whether it may have been set all the same.
    pub fn set(&self, hk: &[u8], sk: &[u8], value: impl Into<Bytes>) -> Outcome<()> {
        self.start_set(hk, sk, value, Ttl::Forever).wait()
    }

    /// Sets a record that dies.
    ///
    /// # Errors
    /// Like [`Table::set`].
    pub fn set_ttl(&self, hk: &[u8], sk: &[u8], value: impl Into<Bytes>, ttl: Ttl) -> Outcome<()> {
        self.start_set(hk, sk, value, ttl).wait()
    }

    /// Starts [`Table::get`].
    pub fn start_get(&self, hk: &[u8], sk: &[u8]) -> Pending<Option<Bytes>> {
        self.start(ops::get(hk, sk))
    }

    /// Reads a record.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn get(&self, hk: &[u8], sk: &[u8]) -> Outcome<Option<Bytes>> {
        self.start_get(hk, sk).wait()
    }

    /// Whether a record exists.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn exist(&self, hk: &[u8], sk: &[u8]) -> Outcome<bool> {
        Ok(self.ttl(hk, sk)?.is_some())
    }

    /// Seconds a record has left: `None` when there is none, `Some(None)` when it lives for ever.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn ttl(&self, hk: &[u8], sk: &[u8]) -> Outcome<Option<Option<u32>>> {
        self.start(ops::ttl(hk, sk)).wait()
    }

    /// Removes a record; removing an absent one succeeds.
    ///
    /// # Errors
    /// Like [`Table::set`].
    pub fn remove(&self, hk: &[u8], sk: &[u8]) -> Outcome<()> {
        self.start(ops::remove(hk, sk)).wait()
    }

    /// Adds to a decimal number; an absent record counts as 0. The expiry stays.
    ///
    /// # Errors
    /// Like [`Table::set`]; status 4 when the record holds no number or the sum does not fit.
    pub fn incr(&self, hk: &[u8], sk: &[u8], by: i64) -> Outcome<i64> {
        self.start(ops::incr(hk, sk, by, 0)).wait()
    }

    /// Sets several records of one hash key in one step.
    ///
    /// # Errors
    /// Like [`Table::set`].
    pub fn multi_set(
        &self,
        hk: &[u8],
        records: impl IntoIterator<Item = (Bytes, Bytes)>,
        ttl: Ttl,
    ) -> Outcome<()> {
        self.start(ops::multi_put(hk, records, self.client.expire(ttl))).wait()
    }

    /// Reads several records of one hash key.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn multi_get(&self, hk: &[u8], what: &MultiGet) -> Outcome<Found> {
        self.start(ops::multi_get(hk, what)).wait()
    }

    /// Sort keys of a hash key, at most `max` (0 leaves it to the server).
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn sort_keys(&self, hk: &[u8], max: i32) -> Outcome<Found> {
        self.multi_get(hk, &MultiGet { no_value: true, max_count: max, ..MultiGet::default() })
    }

    /// Removes several records of one hash key in one step; counts the keys given.
    ///
    /// # Errors
    /// Like [`Table::set`].
    pub fn multi_remove(
        &self,
        hk: &[u8],
        sort_keys: impl IntoIterator<Item = Bytes>,
    ) -> Outcome<i64> {
        self.start(ops::multi_remove(hk, sort_keys)).wait()
    }

    /// Counts the records of a hash key.
    ///
    /// # Errors
    /// See [`ClientError`]; status 9 when the server's time limit ended the counting.
    pub fn sort_key_count(&self, hk: &[u8]) -> Outcome<u64> {
        self.start(ops::sortkey_count(hk)).wait()
    }

    /// Reads named records, of any hash keys; what is not there is left out. One request per partition.
    ///
    /// # Errors
    /// The first partition's that fails.
    pub fn batch_get(&self, keys: &[(Bytes, Bytes)]) -> Outcome<Vec<Record>> {
        let count = self.partition_count()?;
        let mut groups: Vec<Vec<(Bytes, Bytes)>> = vec![Vec::new(); count as usize];
        for (hash_key, sort_key) in keys {
            let hash = partition_hash::of_record(hash_key, sort_key);
            let index = partition_hash::partition_index(hash, count);
            groups[index as usize].push((hash_key.clone(), sort_key.clone()));
        }
        let pending: Vec<Pending<Vec<Record>>> = groups
            .into_iter()
            .enumerate()
            .filter(|(_, keys)| !keys.is_empty())
            .map(|(index, keys)| self.start(Ok(ops::batch_get(index as i32, keys))))
            .collect();
        let mut found = Vec::new();
        for pending in pending {
            found.extend(pending.wait()?);
        }
        Ok(found)
    }

    /// Sets a record if another (or the same) of the hash key passes a check.
    ///
    /// # Errors
    /// Like [`Table::set`]; a check that does not pass is no error.
    pub fn check_and_set(
        &self,
        hk: &[u8],
        check: &Check,
        sort_key: &Bytes,
        value: impl Into<Bytes>,
        ttl: Ttl,
    ) -> Outcome<Checked> {
        let expire = self.client.expire(ttl);
        self.start(ops::check_and_set(hk, check, sort_key, value.into(), expire)).wait()
    }

    /// Puts and removes several records of a hash key if one of them passes a check.
    ///
    /// # Errors
    /// Like [`Table::set`]; a check that does not pass is no error.
    pub fn check_and_mutate(
        &self,
        hk: &[u8],
        check: &Check,
        mutations: Vec<Mutate>,
    ) -> Outcome<Checked> {
        self.start(ops::check_and_mutate(hk, check, mutations)).wait()
    }

    /// One part of [`Table::check_and_mutate`] that puts.
    pub fn mutate_put(&self, sort_key: Bytes, value: Bytes, ttl: Ttl) -> Mutate {
        let set_expire_ts_seconds = self.client.expire(ttl);
        Mutate { operation: MutateOperation::Put, sort_key, value, set_expire_ts_seconds }
    }

    /// One part of [`Table::check_and_mutate`] that removes.
    pub fn mutate_remove(&self, sort_key: Bytes) -> Mutate {
        Mutate { operation: MutateOperation::Delete, sort_key, ..Mutate::default() }
    }

    /// How many partitions the table has.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn partition_count(&self) -> Outcome<i32> {
        let (completer, outcome) = pending();
        let (table, timeout) = (self.name.clone(), self.timeout);
        let embedded = &self.client.embedded;
        let _ = embedded.handle().post(embedded.core(), &LPC_CLIENT_SUBMIT, move |core, ctx| {
            let done = Box::new(move |_: &mut dsn_core::exec::Ctx<'_>, outcome| {
                completer.complete(outcome);
            });
            core.partition_count(ctx, table, timeout, done);
        });
        outcome.wait()
    }

    /// Lets a server forget a scan.
    pub(crate) fn end_scan(&self, partition: i32, context: i64) {
        let (table, embedded) = (self.name.clone(), &self.client.embedded);
        let _ = embedded.handle().post(embedded.core(), &LPC_CLIENT_SUBMIT, move |core, ctx| {
            core.end_scan(ctx, &table, partition, context);
        });
    }

    /// Scans the records of one hash key in order of sort key, from `start` to `stop` (empty: to the end).
    ///
    /// # Errors
    /// [`Reason::Key`] when the hash key is too long.
    pub fn scan(
        &self,
        hk: &[u8],
        start: &[u8],
        stop: &[u8],
        options: &ScanOptions,
    ) -> Outcome<Scanner> {
        Scanner::of_hash_key(self, hk, start, stop, options)
    }

    /// Scans the whole table in at most `max_splits` parts, in no order; parts may be read by different threads.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn unordered_scanners(
        &self,
        max_splits: usize,
        options: &ScanOptions,
    ) -> Outcome<Vec<Scanner>> {
        Scanner::of_table(self, max_splits, options)
    }
}
