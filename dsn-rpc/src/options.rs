//! What the RPC layer may use: the `[network]` section, and its limits in the form that the loops read.
//!
//! Every queue, buffer and wait of the crate is bounded by one of these or by a named constant beside its use.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use dsn_core::config::Size;

dsn_core::options! {
    /// Connections: their number, what each may hold, and when they are given up.
    pub section RpcOptions at "network" {
        /// Largest frame in either direction, headers included. A larger one costs its sender the
        /// connection.
        max_frame_bytes: Size = Size::mib(64), in Size::kib(64)..=Size::gib(1);
        /// Connections that a node accepts; more are closed at once.
        max_connections: u32 = 20_000, in 1..=1_000_000;
        /// Connections accepted from one address; 0 means no limit.
        conn_threshold_per_ip: u32 = 0;
        /// Requests of one connection that may be unanswered. At the limit its socket is no longer read.
        max_requests_per_connection: u32 = 256, in 1..=65_536;
        /// Bytes of unanswered requests of one connection. At the limit its socket is no longer read.
        max_request_bytes_per_connection: Size = Size::mib(16), in Size::kib(64)..=Size::gib(4);
        /// Bytes of answers that a connection has not taken yet. At the limit its socket is no longer read.
        max_unsent_bytes_per_connection: Size = Size::mib(4), in Size::kib(64)..=Size::gib(4);
        /// Bytes that requests, unfinished frames and unsent answers of all connections of a node may hold. Above
        /// it client requests are refused with `ERR_BUSY`, and large frames are not read on.
        max_held_bytes: Size = Size::gib(1), in Size::mib(1)..=Size::gib(256);
        /// A connection that nothing has arrived on for this long, and that waits for nothing, is closed.
        /// Zero means never; peers that vanished are found by TCP's own probes as well.
        idle_timeout: Duration = Duration::from_secs(4 * 3600), in Duration::ZERO..=Duration::from_secs(30 * 86_400);
        /// A frame must be complete this long after its first byte, and every further half a mebibyte allows as
        /// much again; else the connection is closed.
        frame_timeout: Duration = Duration::from_secs(30), in Duration::from_millis(10)..=Duration::from_secs(3600);
        /// A peer that takes nothing of what is to be sent to it for this long loses its connection.
        send_timeout: Duration = Duration::from_secs(30), in Duration::from_millis(10)..=Duration::from_secs(3600);
        /// A connection that is not established after this time has failed.
        connect_timeout: Duration = Duration::from_secs(3), in Duration::from_millis(10)..=Duration::from_secs(120);
        /// Pause before a connection to a peer is tried again after a failure; doubles with each further one.
        reconnect_pause: Duration = Duration::from_millis(50), in Duration::from_millis(1)..=Duration::from_secs(60);
        /// Longest pause before a connection is tried again.
        max_reconnect_pause: Duration = Duration::from_secs(2), in Duration::from_millis(1)..=Duration::from_secs(600);
        /// Calls to one peer that may be unanswered, on each connection to it.
        max_calls_per_connection: u32 = 65_536, in 1..=1_048_576;
        /// Calls that may wait for a connection to be established.
        max_calls_while_connecting: u32 = 1024, in 1..=65_536;
        /// Whether the port also answers HTTP.
        enable_http_server: bool = true;
        /// IPv4 address of this machine on which the server listens; `0.0.0.0` for all of them, which needs an
        /// `advertised_address`. Beyond loopback only with `insecure`.
        listen_address: String = "127.0.0.1";
        /// Permits to listen beyond loopback although nobody who connects has to prove who they are: only in a network
        /// that is closed to others.
        insecure: bool = false;
        /// `IP:PORT` under which other servers and clients reach this server when that is not where it listens:
        /// behind a proxy or an address translation. Empty: where it listens. Whatever stands in between must never
        /// refuse connections while the server lives, or `[meta_server] fast_failover_enabled` must be off.
        advertised_address: String = "";
    }
}

impl RpcOptions {
    /// Where a server with this port listens.
    ///
    /// # Errors
    /// An address that is none, that others cannot be told, or that is open to others without permission; with the
    /// text for the operator.
    pub fn listen_at(&self, port: u16) -> Result<SocketAddr, String> {
        let text = &self.listen_address;
        let ip: Ipv4Addr = text
            .parse()
            .map_err(|_| format!("[network] listen_address: {text}: no IPv4 address"))?;
        if !ip.is_loopback() && !self.insecure {
            return Err(format!(
                "[network] listen_address: {text} is open to other machines, and nobody who connects has to prove who \
                 they are; [network] insecure = true permits it"
            ));
        }
        if ip.is_unspecified() && self.advertised_address.is_empty() {
            return Err(format!(
                "[network] listen_address: {text} is no address to reach this server by; [network] \
                 advertised_address must say one"
            ));
        }
        Ok(SocketAddr::from((ip, port)))
    }

    /// Where others reach a server that listens on `listen`.
    ///
    /// # Errors
    /// An advertised address that is none, with the text for the operator.
    pub fn reached_at(&self, listen: SocketAddr) -> Result<SocketAddr, String> {
        let text = &self.advertised_address;
        if text.is_empty() {
            return Ok(listen);
        }
        let parsed = text.parse::<SocketAddrV4>().map(SocketAddr::V4);
        parsed.map_err(|_| format!("[network] advertised_address: {text}: not of the form IP:PORT"))
    }
}

/// The options as plain numbers.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) max_frame: usize,
    pub(crate) connections: usize,
    pub(crate) per_ip: u32,
    pub(crate) in_flight: u32,
    pub(crate) in_flight_bytes: usize,
    pub(crate) unsent: usize,
    pub(crate) held: usize,
    pub(crate) idle: Duration,
    pub(crate) frame: Duration,
    pub(crate) send: Duration,
    pub(crate) connect: Duration,
    pub(crate) pause: Duration,
    pub(crate) max_pause: Duration,
    pub(crate) calls: usize,
    pub(crate) calls_connecting: usize,
    pub(crate) http: bool,
}

impl Limits {
    /// The limits of one worker of `workers`; what bounds the whole node is divided among them.
    pub(crate) fn new(options: &RpcOptions, workers: usize) -> Self {
        Self {
            max_frame: options.max_frame_bytes.as_usize(),
            connections: options.max_connections as usize,
            per_ip: options.conn_threshold_per_ip,
            in_flight: options.max_requests_per_connection,
            in_flight_bytes: options.max_request_bytes_per_connection.as_usize(),
            unsent: options.max_unsent_bytes_per_connection.as_usize(),
            held: options.max_held_bytes.as_usize() / workers.max(1),
            idle: options.idle_timeout,
            frame: options.frame_timeout,
            send: options.send_timeout,
            connect: options.connect_timeout,
            pause: options.reconnect_pause,
            max_pause: options.max_reconnect_pause,
            calls: options.max_calls_per_connection as usize,
            calls_connecting: options.max_calls_while_connecting as usize,
            http: options.enable_http_server,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_listens_on_loopback_unless_it_is_told_where_and_that_it_may() {
        let mut options = RpcOptions::default();
        assert_eq!(options.listen_at(7), Ok(SocketAddr::from(([127, 0, 0, 1], 7))));
        options.listen_address = "127.0.0.2".to_owned();
        assert_eq!(options.listen_at(7), Ok(SocketAddr::from(([127, 0, 0, 2], 7))));
        for bad in ["", "host", "::1", "10.0.0.1:7", "300.0.0.1"] {
            options.listen_address = bad.to_owned();
            assert!(options.listen_at(7).unwrap_err().contains("no IPv4 address"), "{bad}");
        }
        options.listen_address = "10.0.0.1".to_owned();
        assert!(options.listen_at(7).unwrap_err().contains("insecure = true"));
        options.insecure = true;
        assert_eq!(options.listen_at(7), Ok(SocketAddr::from(([10, 0, 0, 1], 7))));
        options.listen_address = "0.0.0.0".to_owned();
        assert!(options.listen_at(7).unwrap_err().contains("advertised_address"));
        options.advertised_address = "10.0.0.1:7".to_owned();
        assert_eq!(options.listen_at(7), Ok(SocketAddr::from(([0, 0, 0, 0], 7))));
    }

    #[test]
    fn a_server_is_reached_where_it_listens_unless_it_advertises_another_address() {
        let listen = SocketAddr::from(([127, 0, 0, 1], 34_801));
        let mut options = RpcOptions::default();
        assert_eq!(options.reached_at(listen), Ok(listen));
        options.advertised_address = "10.0.0.1:9".to_owned();
        assert_eq!(options.reached_at(listen), Ok(SocketAddr::from(([10, 0, 0, 1], 9))));
        for bad in ["10.0.0.1", "host:1", "10.0.0.1:70000", "[::1]:1"] {
            options.advertised_address = bad.to_owned();
            assert!(options.reached_at(listen).unwrap_err().contains(bad));
        }
    }
}
