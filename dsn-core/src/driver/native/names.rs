//! Host names, as the operating system knows them.

use std::io;
use std::net::{IpAddr, ToSocketAddrs};

/// The addresses of a host, in the system's order. May block for many seconds: only for blocking pools.
///
/// # Errors
/// No such name, no server that knows it, or no address.
#[expect(clippy::disallowed_methods, reason = "the driver is where names are looked up")]
pub(crate) fn resolve(host: &str) -> io::Result<Vec<IpAddr>> {
    let found: Vec<IpAddr> = (host, 0).to_socket_addrs()?.map(|found| found.ip()).collect();
    if found.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn the_system_knows_itself() {
        assert!(resolve("localhost").unwrap().contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)));
        assert_eq!(resolve("127.0.0.1").unwrap(), [IpAddr::V4(Ipv4Addr::LOCALHOST)]);
    }

    #[test]
    fn a_name_that_cannot_be_is_an_error() {
        assert!(resolve("no such name..").is_err());
    }
}
