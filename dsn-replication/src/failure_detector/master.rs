//! The meta server's side: which replica servers are alive.

use std::collections::BTreeMap;
use std::time::Duration;

use dsn_core::time::Mono;

use super::Timing;
use super::pauses::Pauses;

/// When a server that starts again and again counts as unstable.
#[derive(Clone, Copy, Debug)]
pub struct Stability {
    /// A shorter run than this is an unstable one.
    pub min_running: Duration,
    /// So many unstable starts in a row make the server unstable; 0 = never.
    pub max_restarts: u32,
}

/// What is known about one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// When its last beacon arrived.
    pub heard: Mono,
    /// Whether it counts as alive.
    pub alive: bool,
    /// The start time that it tells, in milliseconds of its own clock; `None` before its first beacon.
    pub start_time: Option<i64>,
    /// When its present run was first heard of.
    pub running_since: Mono,
    /// Unstable starts in a row.
    pub unstable_restarts: u32,
    /// When its process was seen to have ended, until its next run is heard of.
    pub ended: Option<Mono>,
}

/// A run of a server's process, and when it was last heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The start time that it told, if it did.
    pub start_time: Option<i64>,
    /// When its last beacon arrived.
    pub heard: Mono,
}

impl Member {
    fn run(&self) -> Run {
        Run { start_time: self.start_time, heard: self.heard }
    }
}

/// What a beacon changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing.
    Same,
    /// The server is new, or was taken for dead.
    Alive,
    /// The server was alive all the time and has been started anew in between.
    Restarted,
    /// A beacon of a run that was seen to have ended: it changes nothing and extends no lease.
    Ended,
}

/// Liveness of the replica servers. `N` names a server.
#[derive(Debug)]
pub struct Master<N> {
    timing: Timing,
    stability: Stability,
    members: BTreeMap<N, Member>,
    pauses: Pauses,
}

impl<N: Copy + Ord> Master<N> {
    /// Nobody is known.
    pub fn new(timing: Timing, stability: Stability, now: Mono) -> Self {
        let pauses = Pauses::new(timing.check, now);
        Self { timing, stability, members: BTreeMap::new(), pauses }
    }

    /// Counts a server that nothing was heard of as alive from now on, with a full grace to show up: for the members of
    /// groups when a meta server begins to lead.
    pub fn register(&mut self, node: N, now: Mono) {
        self.members.entry(node).or_insert(Member {
            heard: now,
            alive: true,
            start_time: None,
            running_since: now,
            unstable_restarts: 0,
            ended: None,
        });
    }

    /// A beacon arrived.
    pub fn on_beacon(&mut self, node: N, start_time: Option<i64>, now: Mono) -> Heard {
        let Some(member) = self.members.get_mut(&node) else {
            self.register(node, now);
            if let Some(member) = self.members.get_mut(&node) {
                member.start_time = start_time;
            }
            return Heard::Alive;
        };
        let restarted = member.start_time.is_some() && member.start_time != start_time;
        if !restarted
            && member.ended.is_some_and(|at| now.saturating_since(at) <= self.timing.grace)
        {
            return Heard::Ended;
        }
        member.ended = None;
        if restarted {
            let ran = member.heard.saturating_since(member.running_since);
            let unstable = ran < self.stability.min_running;
            member.unstable_restarts = if unstable { member.unstable_restarts + 1 } else { 0 };
            member.running_since = now;
        }
        member.start_time = start_time;
        member.heard = now;
        let was_alive = std::mem::replace(&mut member.alive, true);
        match (was_alive, restarted) {
            (false, _) => Heard::Alive,
            (true, true) => Heard::Restarted,
            (true, false) => Heard::Same,
        }
    }

    /// What was last heard of a server, if it is known.
    pub fn run_of(&self, node: N) -> Option<Run> {
        self.members.get(&node).map(Member::run)
    }

    /// The process of a run of a server was seen to have ended: it is dead before its grace is over. Whether that was
    /// news: not when something was heard since.
    pub fn on_end(&mut self, node: N, run: Run, now: Mono) -> bool {
        let Some(member) = self.members.get_mut(&node) else { return false };
        if member.run() != run || member.ended.is_some() {
            return false;
        }
        member.ended = Some(now);
        std::mem::replace(&mut member.alive, false)
    }

    /// Whether a server is dead for no longer than a grace and may be starting anew at this moment.
    pub fn may_be_starting(&self, node: N, now: Mono) -> bool {
        self.members.get(&node).is_some_and(|member| {
            member.ended.is_some_and(|at| now.saturating_since(at) <= self.timing.grace)
        })
    }

    /// Servers whose grace has ended since the last look; call every check interval.
    pub fn check(&mut self, now: Mono) -> Vec<N> {
        if let Some(missed) = self.pauses.look(now) {
            // Beacons of that time are still on their way to this process.
            self.members.values_mut().for_each(|member| member.heard += missed);
        }
        let grace = self.timing.grace;
        let silent = self
            .members
            .iter_mut()
            .filter(|(_, m)| m.alive && now.saturating_since(m.heard) > grace);
        silent
            .map(|(node, member)| {
                member.alive = false;
                *node
            })
            .collect()
    }

    /// Whether a server counts as alive.
    pub fn is_alive(&self, node: N) -> bool {
        self.members.get(&node).is_some_and(|member| member.alive)
    }

    /// Whether a server has a history of starting again and again and its present run is not long yet.
    pub fn is_unstable(&self, node: N, now: Mono) -> bool {
        self.stability.max_restarts > 0
            && self.members.get(&node).is_some_and(|member| {
                member.unstable_restarts >= self.stability.max_restarts
                    && now.saturating_since(member.running_since) < self.stability.min_running
            })
    }

    /// Every server ever heard of or registered, in order.
    pub fn members(&self) -> impl Iterator<Item = (N, &Member)> {
        self.members.iter().map(|(node, member)| (*node, member))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::ReplicationOptions;

    fn master() -> Master<u8> {
        let timing = Timing::new(&ReplicationOptions::default()).unwrap();
        let stability = Stability { min_running: Duration::from_secs(600), max_restarts: 2 };
        Master::new(timing, stability, at(0))
    }

    fn at(seconds: u64) -> Mono {
        Mono::from_nanos((1000 + seconds) * 1_000_000_000)
    }

    /// Looks every two seconds, as the timer does.
    fn check_until(master: &mut Master<u8>, from: u64, to: u64) -> Vec<(u64, u8)> {
        let mut dead = Vec::new();
        for second in (from..=to).step_by(2) {
            dead.extend(master.check(at(second)).into_iter().map(|node| (second, node)));
        }
        dead
    }

    #[test]
    fn silence_longer_than_the_grace_is_death_and_a_beacon_is_life() {
        let mut master = master();
        assert_eq!(master.on_beacon(1, Some(5), at(0)), Heard::Alive);
        assert_eq!(master.on_beacon(1, Some(5), at(3)), Heard::Same);
        master.register(2, at(4));
        master.register(1, at(4));
        assert_eq!(check_until(&mut master, 2, 40), [(26, 1), (28, 2)]);
        assert!(!master.is_alive(1));
        assert_eq!(master.on_beacon(1, Some(5), at(41)), Heard::Alive);
        assert!(master.is_alive(1));
    }

    #[test]
    fn a_run_that_was_seen_to_end_is_dead_at_once_and_stays_so_for_a_grace() {
        let mut master = master();
        master.on_beacon(1, Some(5), at(0));
        let run = master.run_of(1).unwrap();
        assert_eq!(master.on_beacon(1, Some(5), at(1)), Heard::Same);
        assert!(!master.on_end(1, run, at(1)), "it was heard of since");
        assert!(!master.on_end(2, run, at(1)), "a server that nobody knows");
        assert!(master.is_alive(1));
        let run = Run { start_time: Some(5), heard: at(1) };
        assert!(master.on_end(1, run, at(1)));
        assert!(!master.on_end(1, run, at(2)), "told once");
        assert!(!master.is_alive(1));
        assert!(master.may_be_starting(1, at(23)) && !master.may_be_starting(1, at(24)));
        assert_eq!(master.on_beacon(1, Some(5), at(2)), Heard::Ended, "it was under way");
        assert!(!master.is_alive(1));
        assert_eq!(master.on_beacon(1, Some(6), at(3)), Heard::Alive, "the next run");
        assert!(master.is_alive(1) && !master.may_be_starting(1, at(3)));
        assert!(master.on_end(1, master.run_of(1).unwrap(), at(4)));
        assert_eq!(master.on_beacon(1, Some(6), at(26)), Heard::Ended);
        assert_eq!(
            master.on_beacon(1, Some(6), at(27)),
            Heard::Alive,
            "its lease has run out long ago"
        );
    }

    /// Bug 39: a step of the clock makes everybody dead at once.
    #[test]
    fn a_meta_server_that_slept_gives_everybody_that_much_more_time() {
        let mut master = master();
        master.on_beacon(1, Some(5), at(0));
        assert_eq!(check_until(&mut master, 2, 10), []);
        assert_eq!(master.check(at(200)), Vec::<u8>::new());
        assert_eq!(master.on_beacon(1, Some(5), at(200)), Heard::Same);
        master.register(2, at(200));
        assert_eq!(check_until(&mut master, 202, 230), [(224, 1), (224, 2)]);
    }

    #[test]
    fn restarts_are_noticed_and_too_many_of_them_make_a_server_unstable() {
        let mut master = master();
        master.on_beacon(1, Some(5), at(0));
        assert_eq!(master.on_beacon(1, Some(6), at(10)), Heard::Restarted);
        assert!(!master.is_unstable(1, at(10)));
        assert_eq!(master.on_beacon(1, Some(7), at(20)), Heard::Restarted);
        assert!(master.is_unstable(1, at(20)));
        assert!(!master.is_unstable(1, at(20 + 600)), "it has run long enough");
        master.on_beacon(1, Some(7), at(700));
        assert_eq!(master.on_beacon(1, Some(8), at(710)), Heard::Restarted);
        assert!(!master.is_unstable(1, at(710)), "the run before was a long one");
    }
}
