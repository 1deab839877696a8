//! Host names of a simulated world: every node's name stands for its address, and a scenario may say otherwise at any
//! time. A lookup takes a drawn time on its blocking pool.

use super::sim::Sim;
use super::world::World;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

impl World {
    /// What a lookup on `node`'s pool finds.
    pub(super) fn resolve(&mut self, node: u16, pool: u16, host: &str) -> io::Result<Vec<IpAddr>> {
        let rng = &mut self.nodes[usize::from(node)].pools[usize::from(pool)].rng;
        self.spent += self.options.net.lookup.draw(rng);
        if let Ok(ip) = host.parse() {
            return Ok(vec![ip]);
        }
        if host == "localhost" {
            return Ok(vec![Ipv4Addr::LOCALHOST.into()]);
        }
        let said = self.names.get(host).cloned();
        let node = || self.nodes.iter().find(|node| node.name == host).map(|node| vec![node.ip]);
        match said.or_else(node) {
            Some(found) if !found.is_empty() => Ok(found),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

impl Sim {
    /// Says which addresses a host name has from now on; none means that it is not found.
    pub fn set_name(&mut self, host: &str, addresses: &[IpAddr]) {
        let mut world = self.world.borrow_mut();
        world.record("name", addresses.len() as u64, 0, 0);
        world.names.insert(host.to_owned(), addresses.to_vec());
    }
}
