//! The meta server of a group under test: one configuration, fenced by ballot.

use super::*;

impl World {
    /// The meta server answers one of the changes it was asked for, or the answer is lost and it is asked again.
    pub(crate) fn answer(&mut self) {
        if self.asked.is_empty() {
            return;
        }
        let (at, change) = self.asked.remove(self.rng.index(self.asked.len()));
        let members: Vec<usize> = change.secondaries.iter().map(|node| index(*node)).collect();
        let known = self.config.ballot == change.ballot
            && self.config.primary == Some(at)
            && self.config.secondaries == members;
        if !known && self.config.ballot.next() == change.ballot && self.config.primary == Some(at) {
            self.config = Config { ballot: change.ballot, primary: Some(at), secondaries: members };
        } else if !known {
            if self.servers[at].up {
                self.turn(at, |core, log, _, _| core.become_inactive(Ballot::ZERO, log));
            }
            return;
        }
        if self.rng.ratio(1, 4) {
            return self.asked.push((at, change));
        }
        if self.servers[at].up && self.servers[at].lease {
            self.lead(at);
        }
    }

    /// A primary has found out that it must not lead: it is opened again, and the others go on.
    pub(crate) fn leave(&mut self, at: usize) {
        if self.config.primary == Some(at) && self.servers[at].core.ballot() == self.config.ballot {
            self.config.primary = None;
            self.config.ballot = self.config.ballot.next();
            self.left += 1;
        }
        self.kill(at);
        self.restart(at);
    }

    /// A server hears that it is primary.
    pub(crate) fn lead(&mut self, at: usize) {
        let (ballot, secondaries) = (self.config.ballot, self.config.secondaries.clone());
        let members: Vec<Node> = secondaries.into_iter().map(node).collect();
        self.turn(at, |core, log, out, now| {
            if core.lead(ballot, &members, log).is_ok() {
                core.tick(now, out);
            }
            GivenUp::default()
        });
    }

    /// The meta server looks after the group.
    pub(crate) fn cure(&mut self) {
        let alive = |servers: &[Server], at: usize| servers[at].up && servers[at].lease;
        let Some(primary) = self.config.primary else {
            let mut chosen = self.config.secondaries.clone();
            chosen.retain(|at| alive(&self.servers, *at));
            if let Some(at) = (!chosen.is_empty()).then(|| chosen[self.rng.index(chosen.len())]) {
                self.config.secondaries.retain(|member| *member != at);
                self.config.primary = Some(at);
                self.config.ballot = self.config.ballot.next();
                self.elections += 1;
                if self.rng.ratio(3, 4) {
                    self.lead(at);
                }
            }
            return;
        };
        if !self.servers[primary].lease {
            // The lease is over, whatever the server thinks: without others, its return is waited for.
            if !self.config.secondaries.is_empty() {
                self.config.primary = None;
                self.config.ballot = self.config.ballot.next();
            }
            return;
        }
        if !self.servers[primary].up {
            return;
        }
        if !self.servers[primary].core.role().is_primary() {
            self.config.ballot = self.config.ballot.next();
            return self.lead(primary);
        }
        if self.servers[primary].core.ballot() < self.config.ballot {
            return self.lead(primary);
        }
        let members = 1 + self.config.secondaries.len();
        let outside: Vec<usize> = (0..SERVERS)
            .filter(|at| *at != primary && !self.config.secondaries.contains(at))
            .filter(|at| alive(&self.servers, *at))
            .collect();
        if members < WANTED && !outside.is_empty() {
            let at = outside[self.rng.index(outside.len())];
            self.turn(primary, |core, _, out, now| {
                core.add_learner(node(at), WANTED, now, out);
                GivenUp::default()
            });
        }
    }
}
