//! The client of a cluster and its tables, for threads of any kind.

use bytes::Bytes;
use dsn_replication::client::{self, Admin, Client, ClientError, ClientOptions, Pending, Request};
use std::time::Duration;

use crate::ops::{self, Check, Checked, Found, MultiGet, Record, Ttl};
use crate::scanner::{ScanOptions, Scanner};
use crate::schema::codes::RPC_RRDB_RRDB_CLEAR_SCANNER;
use crate::schema::rrdb::{Mutate, MutateOperation};
use crate::schema::{APP_TYPE, partition_hash};

/// A cluster. Cheap to clone; all clones share one thread and one connection per server.
#[derive(Clone, Debug)]
pub struct PegasusClient {
    client: Client,
}

impl PegasusClient {
    /// A client of the cluster with these meta servers, each `host:port`. Nothing is contacted yet.
    ///
    /// # Errors
    /// A meta server that is not named so, or none; or when its thread cannot be started.
    pub fn new<M: AsRef<str>>(metas: &[M]) -> Result<Self, ClientError> {
        Client::new(metas).map(|client| Self { client })
    }

    /// The same with settings.
    ///
    /// # Errors
    /// When its thread cannot be started or no meta server is given.
    pub fn with_options(options: ClientOptions) -> Result<Self, ClientError> {
        Client::with_options(options).map(|client| Self { client })
    }

    /// Its settings.
    pub fn options(&self) -> ClientOptions {
        self.client.options()
    }

    /// A table of the cluster. Whether it exists is seen at the first operation.
    pub fn table(&self, name: &str) -> Table {
        Table { table: self.client.table(name) }
    }

    /// Operator calls.
    pub fn admin(&self) -> Admin {
        self.client.admin(APP_TYPE)
    }
}

/// A table. Blocking operations wait for their outcome; those called `start_...` give a [`Pending`].
#[derive(Clone, Debug)]
pub struct Table {
    table: client::Table,
}

type Outcome<T> = Result<T, ClientError>;

impl Table {
    /// The same table with another timeout for each operation.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { table: self.table.with_timeout(timeout) }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.table.name()
    }

    /// The client it belongs to.
    pub fn client(&self) -> PegasusClient {
        PegasusClient { client: self.table.client().clone() }
    }

    /// Starts any request.
    pub fn start<T: Send + 'static>(&self, request: Outcome<Request<T>>) -> Pending<T> {
        match request {
            Ok(request) => self.table.send(request),
            Err(error) => self.table.refused(error),
        }
    }

    fn expire(&self, ttl: Ttl) -> i32 {
        ttl.expire_ts(self.table.client().wall().unix_seconds())
    }

    /// Starts [`Table::set`].
    pub fn start_set(
        &self,
        hk: &[u8],
        sk: &[u8],
        value: impl Into<Bytes>,
        ttl: Ttl,
    ) -> Pending<()> {
        self.start(ops::put(hk, sk, value.into(), self.expire(ttl)))
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
        self.start(ops::multi_put(hk, records, self.expire(ttl))).wait()
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
        let expire = self.expire(ttl);
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
        let set_expire_ts_seconds = self.expire(ttl);
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
        self.table.partition_count()
    }

    /// Lets a server forget a scan.
    pub(crate) fn end_scan(&self, partition: i32, context: i64) {
        self.table.tell(partition, &RPC_RRDB_RRDB_CLEAR_SCANNER, context);
    }

    /// Scans the records of one hash key in order of sort key, from `start` to `stop` (empty: to the end).
    ///
    /// # Errors
    /// [`Reason::Invalid`](crate::Reason::Invalid) when the hash key is too long.
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
