//! What happens to a group under test: writes, deliveries, kills, lost leases, and healing in the end.

use super::*;

impl World {
    pub(crate) fn write(&mut self) {
        let at = self.rng.index(SERVERS);
        let (up, primary) = (self.servers[at].up, self.servers[at].core.role().is_primary());
        if up && primary {
            self.write_to(at);
        }
    }

    /// A client writes the next number to a primary.
    pub(crate) fn write_to(&mut self, at: usize) {
        let number = self.next_write;
        self.next_write += 1;
        self.servers[at].writes.insert(Ticket(number as u32), number);
        self.turn(at, |core, _, _, _| {
            let body = Bytes::copy_from_slice(&number.to_be_bytes());
            let request = ClientRequest { code: &RPC_TEST_GROUP, body };
            let _ = core.enqueue(request, true, Ticket(number as u32));
            GivenUp::default()
        });
    }

    pub(crate) fn kill(&mut self, at: usize) {
        let server = &mut self.servers[at];
        if !server.up {
            return;
        }
        server.up = false;
        server.waiting.clear();
        self.asked.retain(|(asker, _)| *asker != at);
        self.killed += 1;
        let power = self.durability == Durability::GroupSync && self.rng.ratio(1, 2);
        let crash = if power { Crash::PowerLoss(self.rng.next_u64()) } else { Crash::Kill };
        let server = &mut self.servers[at];
        server.disk = server.disk.restart(crash);
        server.history.truncate(server.durable);
        self.links.retain(|(from, to), _| *from != at && *to != at);
    }

    pub(crate) fn restart(&mut self, at: usize) {
        let server = &self.servers[at];
        if server.up {
            return;
        }
        let (disk, lease) = (server.disk.clone(), server.lease);
        let (floor, ballot) = (server.floor, server.init_ballot);
        let (history, durable) = (server.history.clone(), server.durable);
        self.servers[at] = open(&disk, self.durability, history, durable, (floor, ballot));
        self.servers[at].lease = lease;
    }

    /// The lease ends for the meta server; the server itself notices now or later, and has stopped acknowledging.
    pub(crate) fn expire(&mut self, at: usize) {
        self.servers[at].lease = false;
    }

    pub(crate) fn renew(&mut self, at: usize) {
        if self.servers[at].lease || !self.servers[at].up {
            return;
        }
        // Whoever gets a new lease has noticed that the old one ended.
        self.turn(at, |core, log, _, _| core.become_inactive(Ballot::ZERO, log));
        self.asked.retain(|(asker, _)| *asker != at);
        self.servers[at].lease = true;
    }

    pub(crate) fn tick(&mut self, at: usize) {
        if self.servers[at].up {
            self.turn(at, |core, _, out, now| {
                core.tick(now, out);
                GivenUp::default()
            });
        }
    }

    pub(crate) fn step(&mut self) {
        let (at, other) = (self.rng.index(SERVERS), self.rng.index(SERVERS));
        match self.rng.below(1000) {
            0..150 => self.write(),
            150..700 => self.deliver(at, other),
            700..790 => self.sync(at),
            790..850 => {
                self.now += Duration::from_millis(self.rng.below(400));
                self.tick(at);
            }
            850..900 => self.answer(),
            900..940 => self.cure(),
            940..955 => drop(self.links.remove(&(at, other))),
            955..965 => {
                let link = self.links.entry((at, other)).or_default();
                if let Some(message) = link.front().cloned() {
                    link.push_back(message);
                }
            }
            965..975 => self.servers[at].durable = self.servers[at].history.len(),
            975..981 => self.kill(at),
            981..990 => self.restart(at),
            990..994 => self.expire(at),
            _ => self.renew(at),
        }
    }

    pub(crate) fn heal(&mut self) {
        for at in 0..SERVERS {
            self.restart(at);
            self.renew(at);
        }
        for round in 0..20_000 {
            for from in 0..SERVERS {
                for to in 0..SERVERS {
                    self.deliver(from, to);
                }
            }
            (0..SERVERS).for_each(|at| self.sync(at));
            self.answer();
            if round % 10 == 0 {
                self.cure();
                self.now += Duration::from_millis(100);
                (0..SERVERS).for_each(|at| self.tick(at));
            }
            if self.is_whole() {
                return;
            }
        }
        let Config { ballot, primary, secondaries } = &self.config;
        let roles: Vec<_> =
            self.servers.iter().map(|server| (server.core.role(), server.core.ballot())).collect();
        panic!("not whole again: ballot {ballot}, {primary:?} and {secondaries:?}\n{roles:#?}");
    }

    pub(crate) fn is_whole(&self) -> bool {
        let Some(primary) = self.config.primary else { return false };
        let leader = &self.servers[primary];
        let caught_up = |at: &usize| self.servers[*at].history.len() == leader.history.len();
        leader.core.role().is_primary()
            && leader.core.ballot() == self.config.ballot
            && leader.core.is_idle()
            && 1 + self.config.secondaries.len() == WANTED
            && self.config.secondaries.iter().all(caught_up)
    }
}
