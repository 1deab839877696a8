//! Which server holds which partition.

use std::net::SocketAddr;

/// The placement of one table. A Redis server is a table of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routes {
    /// Table id; 0 for Redis.
    pub app_id: i32,
    /// Servers that are primary of something, each once.
    pub servers: Vec<SocketAddr>,
    /// Index into `servers` of each partition's primary; `None` when it has none.
    pub primaries: Vec<Option<usize>>,
    /// The partition that serves for each: itself, or while it is split off and not ready its
    /// parent.
    pub serving: Vec<usize>,
}

impl Routes {
    /// Everything on one server.
    pub fn single(server: SocketAddr) -> Self {
        Self { app_id: 0, servers: vec![server], primaries: vec![Some(0)], serving: vec![0] }
    }

    /// The placement that these primaries make, in the order of partitions. The `young` ones are
    /// served by their parents.
    pub fn of(app_id: i32, primaries: &[Option<SocketAddr>], young: &[usize]) -> Self {
        let mut servers: Vec<SocketAddr> = primaries.iter().flatten().copied().collect();
        servers.sort_unstable();
        servers.dedup();
        let index = |addr: &SocketAddr| servers.binary_search(addr).ok();
        let mut serving: Vec<usize> = (0..primaries.len()).collect();
        let parents = young
            .iter()
            .filter_map(|&child| Some((child, child.checked_sub(primaries.len() / 2)?)));
        parents.for_each(|(child, parent)| serving[child] = parent);
        let primaries = primaries.iter().map(|p| p.as_ref().and_then(index)).collect();
        Self { app_id, servers, primaries, serving }
    }

    /// The server of a partition.
    #[inline]
    pub fn server(&self, partition: usize) -> Option<usize> {
        self.primaries.get(partition).copied().flatten()
    }
}

/// Spreads connections over servers. `held` tells the server each existing connection has; the
/// result tells the one that it is to have. Connections whose server stays are moved only when
/// another server has none.
pub fn spread(held: &[Option<usize>], servers: usize) -> Vec<usize> {
    if servers == 0 {
        return vec![0; held.len()];
    }
    let mut count = vec![0usize; servers];
    held.iter().flatten().for_each(|&server| count[server] += 1);
    let poorest = |count: &[usize]| (0..servers).min_by_key(|&s| count[s]).unwrap_or(0);
    let mut result: Vec<usize> = Vec::with_capacity(held.len());
    for server in held {
        result.push(server.unwrap_or_else(|| {
            let server = poorest(&count);
            count[server] += 1;
            server
        }));
    }
    loop {
        let poor = poorest(&count);
        let rich = (0..servers).max_by_key(|&s| count[s]).unwrap_or(0);
        if count[poor] > 0 || count[rich] < 2 {
            return result;
        }
        if let Some(moved) = result.iter_mut().rev().find(|server| **server == rich) {
            *moved = poor;
        }
        count[poor] += 1;
        count[rich] -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placement_names_each_server_once() {
        let a: SocketAddr = "127.0.0.1:34801".parse().unwrap();
        let b: SocketAddr = "127.0.0.1:34802".parse().unwrap();
        let routes = Routes::of(2, &[Some(b), Some(a), None, Some(b)], &[3]);
        assert_eq!(routes.servers, [a, b]);
        assert_eq!(routes.primaries, [Some(1), Some(0), None, Some(1)]);
        assert_eq!(routes.serving, [0, 1, 2, 1]);
        assert_eq!((routes.server(0), routes.server(2), routes.server(9)), (Some(1), None, None));
    }

    #[test]
    fn connections_spread_evenly_and_move_little() {
        assert_eq!(spread(&[None; 5], 2), [0, 1, 0, 1, 0]);
        assert_eq!(spread(&[Some(0), Some(1), Some(0), None], 2), [0, 1, 0, 1]);
        // A new server takes one from the richest.
        assert_eq!(spread(&[Some(0), Some(0), Some(1)], 3), [0, 2, 1]);
        // Nothing is taken from a server with a single connection.
        assert_eq!(spread(&[Some(0), Some(1)], 3), [0, 1]);
        assert_eq!(spread(&[None, None], 0), [0, 0]);
    }
}
