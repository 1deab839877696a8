//! The client of a cluster for threads of any kind.

use dsn_core::code::Code;
use dsn_core::exec::Ctx;
use dsn_core::time::Wall;
use dsn_rpc::host_port::HostPort;
use dsn_rpc::thrift::{Decode, Encode};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::core::{ClientCore, LPC_CLIENT_SUBMIT};
use super::embedded::Embedded;
use super::error::ClientError;
use super::options::ClientOptions;
use super::pending::{Completer, Pending, pending};
use super::request::{Kind, Request, Target};
use crate::method::Method;

/// A cluster. Cheap to clone; all clones share one thread and one connection per server. The last one ends them.
#[derive(Clone, Debug)]
pub struct Client {
    options: Arc<ClientOptions>,
    pub(super) embedded: Arc<Embedded>,
}

impl Client {
    /// A client of the cluster with these meta servers, each `host:port`. Nothing is contacted yet.
    ///
    /// # Errors
    /// A meta server that is not named so, or none; or when its thread cannot be started.
    pub fn new<M: AsRef<str>>(metas: &[M]) -> Result<Self, ClientError> {
        let named: Option<Vec<HostPort>> =
            metas.iter().map(|meta| HostPort::parse(meta.as_ref())).collect();
        let named =
            named.ok_or_else(|| ClientError::invalid("a meta server is named host:port"))?;
        Self::with_options(ClientOptions::new(named))
    }

    /// The same with settings.
    ///
    /// # Errors
    /// When its thread cannot be started or no meta server is given.
    pub fn with_options(options: ClientOptions) -> Result<Self, ClientError> {
        if options.metas.is_empty() {
            return Err(ClientError::invalid("no meta server given"));
        }
        let embedded = Embedded::start(options.clone()).map_err(|error| {
            ClientError::invalid(format!("the client's thread does not start: {error}"))
        })?;
        Ok(Self { options: Arc::new(options), embedded: Arc::new(embedded) })
    }

    /// Its settings.
    #[must_use]
    pub fn options(&self) -> ClientOptions {
        self.options.as_ref().clone()
    }

    /// A table of the cluster. Whether it exists is seen at the first request.
    #[must_use]
    pub fn table(&self, name: &str) -> Table {
        Table { client: self.clone(), name: name.into(), timeout: None }
    }

    /// The wall clock.
    #[must_use]
    pub fn wall(&self) -> Wall {
        self.embedded.wall()
    }

    /// Does `f` on the client's worker. When its mailbox is full, the completer is dropped with the closure, which
    /// ends the request.
    pub(super) fn start<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut ClientCore, &mut Ctx<'_>, Completer<T>) + Send + 'static,
    ) -> Pending<T> {
        let (completer, outcome) = pending();
        let _ = self.embedded.handle().post(
            self.embedded.core(),
            &LPC_CLIENT_SUBMIT,
            move |core, ctx| f(core, ctx, completer),
        );
        outcome
    }
}

/// A table of a cluster.
#[derive(Clone, Debug)]
pub struct Table {
    client: Client,
    name: Arc<str>,
    timeout: Option<Duration>,
}

impl Table {
    /// The same table with another timeout for each request.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..self.clone() }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The client it belongs to.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Calls a method at the partition of `key`.
    pub fn call<K, Q: Encode, A: Decode + Send + 'static>(
        &self,
        method: &Method<K, Q, A>,
        key: &[u8],
        argument: &Q,
    ) -> Pending<A> {
        self.send(method.request(Target::key(key), argument))
    }

    /// Sends any request.
    pub fn send<T: Send + 'static>(&self, request: Request<T>) -> Pending<T> {
        let (table, timeout) = (self.name.clone(), self.timeout);
        self.client.start(move |core, ctx, completer: Completer<T>| {
            core.submit(ctx, table, request, timeout, completer.callback());
        })
    }

    /// A request that could not be made, as an outcome.
    #[must_use]
    pub fn refused<T>(&self, mut error: ClientError) -> Pending<T> {
        error.place.table = self.name.to_string();
        let (completer, outcome) = pending();
        completer.complete(Err(error));
        outcome
    }

    /// How many partitions the table has.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn partition_count(&self) -> Result<i32, ClientError> {
        let (table, timeout) = (self.name.clone(), self.timeout);
        let count = self.client.start(move |core, ctx, completer: Completer<i32>| {
            core.partition_count(ctx, table, timeout, completer.callback());
        });
        count.wait()
    }

    /// Tells the primary of a partition something that nobody answers; nobody minds when it does not arrive.
    pub fn tell<Q: Encode + Send + 'static>(&self, partition: i32, code: Code, what: Q) {
        let table = self.name.clone();
        drop(self.client.start(move |core, ctx, _: Completer<()>| {
            core.tell(ctx, &table, partition, code, &what);
        }));
    }
}

impl Client {
    /// Any question to the meta servers. [`Kind::Write`] for what must not be carried out twice.
    pub fn ask_meta<Q: Encode + Send + 'static, A: Decode + Send + 'static>(
        &self,
        code: Code,
        request: Q,
        kind: Kind,
        timeout: Option<Duration>,
    ) -> Pending<A> {
        self.start(move |core, ctx, completer: Completer<A>| {
            core.ask_meta(ctx, code, &request, kind, timeout, completer.callback());
        })
    }

    /// A question to one server, whichever it is, asked once.
    pub fn ask_server<Q: Encode + Send + 'static, A: Decode + Send + 'static>(
        &self,
        server: SocketAddr,
        code: Code,
        request: Q,
        timeout: Option<Duration>,
    ) -> Pending<A> {
        self.start(move |core, ctx, completer: Completer<A>| {
            core.ask_server(ctx, server, code, &request, timeout, completer.callback());
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::error::Reason;
    use super::*;

    #[test]
    fn a_client_needs_a_meta_server() {
        for metas in [&[][..], &["nowhere"]] {
            let error = Client::new(metas).unwrap_err();
            assert!(matches!(error.reason, Reason::Invalid(_)), "{error}");
        }
    }

    #[test]
    fn a_request_that_could_not_be_made_names_its_table() {
        let client = Client::new(&["127.0.0.1:1"]).unwrap();
        let outcome: Pending<i32> = client.table("t").refused(ClientError::invalid("no"));
        assert_eq!(outcome.wait().unwrap_err().to_string(), "no (table t)");
    }
}
