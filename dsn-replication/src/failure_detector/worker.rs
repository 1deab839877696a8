//! The replica server's side: when to send a beacon to whom, and whether the lease still holds.

use std::time::Duration;

use dsn_core::time::Mono;

use super::Timing;
use super::lease::Lease;
use super::pauses::Pauses;

/// Pause before the next meta server is tried after one did not answer.
pub const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// Names a beacon that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BeaconId(u64);

/// What a meta server said to a beacon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack<N> {
    /// Whether it leads.
    pub is_master: bool,
    /// Whether this server may take part.
    pub allowed: bool,
    /// The leader it knows.
    pub leader: Option<N>,
}

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Nothing.
    Same,
    /// The lease has begun: the leader knows this server.
    Connected,
    /// The lease is over, or is so before the next look: everything stops serving.
    Disconnected,
}

/// The state of the link to the meta servers. `N` names a meta server.
#[derive(Debug)]
pub struct Worker<N> {
    timing: Timing,
    metas: Vec<N>,
    target: usize,
    /// A leader that is not among the configured ones.
    foreign: Option<N>,
    connected: bool,
    lease: Lease,
    in_flight: Option<(BeaconId, Mono)>,
    next_id: u64,
    due: Mono,
    pauses: Pauses,
    /// The last that was heard is who leads, and that was followed at once.
    followed: bool,
}

impl<N: Clone + PartialEq> Worker<N> {
    /// A link that has not begun; it extends and ends `lease`. `metas` must not be empty.
    pub fn new(timing: Timing, metas: Vec<N>, lease: Lease, now: Mono) -> Self {
        assert!(!metas.is_empty(), "a replica server needs a meta server");
        Self {
            timing,
            metas,
            target: 0,
            foreign: None,
            connected: false,
            lease,
            in_flight: None,
            next_id: 0,
            due: now,
            pauses: Pauses::new(timing.check, now),
            followed: false,
        }
    }

    /// The lease, for whoever serves.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Whether the leader knows this server and the lease was last seen to hold.
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// The meta server that is spoken to: the leader, as far as is known.
    pub fn target(&self) -> &N {
        self.foreign.as_ref().unwrap_or(&self.metas[self.target])
    }

    /// When [`Self::beacon`] has something to do next.
    pub fn due(&self) -> Mono {
        self.due
    }

    /// A beacon to send now, if it is time for one. An unanswered earlier one is given up.
    pub fn beacon(&mut self, now: Mono) -> Option<(BeaconId, N)> {
        if now < self.due {
            return None;
        }
        self.next_id += 1;
        let id = BeaconId(self.next_id);
        self.in_flight = Some((id, now));
        self.due = now + self.timing.beacon;
        Some((id, self.target().clone()))
    }

    /// A beacon was answered.
    pub fn on_ack(&mut self, now: Mono, id: BeaconId, ack: Ack<N>) -> Link {
        let Some((_, sent)) = self.in_flight.take_if(|(waiting, _)| *waiting == id) else {
            return Link::Same;
        };
        if !ack.is_master {
            self.turn_to(ack.leader, now);
            return Link::Same;
        }
        self.followed = false;
        // A lease that has run out begins anew only after [`Self::check`] has said so.
        if !ack.allowed || self.connected && !self.lease.holds(now) {
            return Link::Same;
        }
        self.lease.extend(sent + self.timing.lease);
        let begun = !self.connected && self.lease.holds(now + self.timing.check);
        self.connected |= begun;
        if begun { Link::Connected } else { Link::Same }
    }

    /// A beacon was not answered in time, or could not be sent.
    pub fn on_failure(&mut self, now: Mono, id: BeaconId) {
        if self.in_flight.take_if(|(waiting, _)| *waiting == id).is_some() {
            self.turn_to(None, now);
        }
    }

    /// Looks at the lease; call every check interval.
    pub fn check(&mut self, now: Mono) -> Link {
        // The lease has run on meanwhile; that is looked at where it is used as well.
        self.pauses.look(now);
        if self.connected && !self.lease.holds(now + self.timing.check) {
            self.connected = false;
            // What is served from here on must not rest on what is left of the lease.
            self.lease.give_up();
            return Link::Disconnected;
        }
        Link::Same
    }

    fn turn_to(&mut self, leader: Option<N>, now: Mono) {
        match leader {
            Some(leader) if leader != *self.target() => {
                match self.metas.iter().position(|meta| *meta == leader) {
                    Some(at) => (self.target, self.foreign) = (at, None),
                    None => self.foreign = Some(leader),
                }
                // While meta servers disagree, they must not send this one to and fro as fast as it can ask.
                let pause = self.followed;
                self.followed = !pause;
                self.due = if pause { self.due.min(now + RETRY_PAUSE) } else { now };
            }
            _ => {
                self.followed = false;
                let skip = usize::from(self.foreign.take().is_none());
                self.target = (self.target + skip) % self.metas.len();
                self.due = self.due.min(now + RETRY_PAUSE);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::ReplicationOptions;

    const MASTER: Ack<&str> = Ack { is_master: true, allowed: true, leader: None };

    fn worker(metas: &[&'static str]) -> Worker<&'static str> {
        let timing = Timing::new(&ReplicationOptions::default()).unwrap();
        Worker::new(timing, metas.to_vec(), Lease::new(), at(0))
    }

    fn at(ms: u64) -> Mono {
        Mono::from_nanos(100_000_000_000 + ms * 1_000_000)
    }

    #[test]
    fn the_lease_counts_from_the_sending_of_the_acknowledged_beacon() {
        let mut worker = worker(&["a"]);
        let (id, to) = worker.beacon(at(0)).unwrap();
        assert_eq!((to, worker.beacon(at(1))), ("a", None));
        assert_eq!(worker.on_ack(at(1_500), id, MASTER), Link::Connected);
        assert_eq!(worker.lease().until(), at(20_000));
        assert_eq!(worker.check(at(17_900)), Link::Same);
        assert!(worker.lease().holds(at(17_999)));
        assert_eq!(worker.check(at(18_000)), Link::Disconnected, "over before the next check");
        assert!(!worker.lease().holds(at(18_000)));
        assert_eq!(worker.check(at(40_000)), Link::Same, "told once");
    }

    #[test]
    fn an_answer_that_came_too_late_connects_nobody() {
        let mut worker = worker(&["a"]);
        let (id, _) = worker.beacon(at(0)).unwrap();
        assert_eq!(worker.on_ack(at(19_000), id, MASTER), Link::Same);
        assert!(!worker.is_connected());
    }

    /// A process that slept through its lease may hear from the meta server before it looks at its lease.
    #[test]
    fn a_lease_that_has_run_out_is_not_prolonged() {
        let mut worker = worker(&["a"]);
        let (id, _) = worker.beacon(at(0)).unwrap();
        assert_eq!(worker.on_ack(at(10), id, MASTER), Link::Connected);
        let (id, _) = worker.beacon(at(30_000)).unwrap();
        assert_eq!(worker.on_ack(at(30_010), id, MASTER.clone()), Link::Same);
        assert!(!worker.lease().holds(at(30_010)), "who led under the old lease must stop first");
        assert_eq!(worker.check(at(30_020)), Link::Disconnected);
        let (id, _) = worker.beacon(at(33_000)).unwrap();
        assert_eq!(worker.on_ack(at(33_010), id, MASTER), Link::Connected);
    }

    /// Bug 40: beacons that are not answered pile up; only the newest counts.
    #[test]
    fn an_old_answer_does_not_count_for_a_new_beacon() {
        let mut worker = worker(&["a"]);
        let (old, _) = worker.beacon(at(0)).unwrap();
        let (new, _) = worker.beacon(at(3_000)).unwrap();
        assert_eq!(worker.on_ack(at(3_100), old, MASTER), Link::Same);
        assert_eq!(worker.lease().until(), Mono::ZERO);
        assert_eq!(worker.on_ack(at(3_200), new, MASTER), Link::Connected);
        assert_eq!(worker.lease().until(), at(23_000));
    }

    /// Bug 37: the answer of a meta server that does not lead renews the lease.
    #[test]
    fn only_the_leader_renews_the_lease() {
        let mut worker = worker(&["a", "b"]);
        let (id, _) = worker.beacon(at(0)).unwrap();
        let hint = Ack { is_master: false, allowed: true, leader: Some("b") };
        assert_eq!(worker.on_ack(at(10), id, hint), Link::Same);
        assert_eq!(worker.lease().until(), Mono::ZERO);
        let (id, to) = worker.beacon(at(10)).unwrap();
        assert_eq!(to, "b");
        let refused = Ack { is_master: true, allowed: false, leader: None };
        assert_eq!(worker.on_ack(at(20), id, refused), Link::Same);
        assert_eq!(worker.lease().until(), Mono::ZERO);
    }

    /// Bug 41: the leader has changed, and whoever is asked for it does not answer.
    #[test]
    fn silent_meta_servers_are_tried_in_turn() {
        let mut worker = worker(&["a", "b"]);
        let (id, _) = worker.beacon(at(0)).unwrap();
        worker.on_failure(at(2_000), id);
        assert_eq!(worker.due(), at(2_250));
        let (id, to) = worker.beacon(at(2_250)).unwrap();
        assert_eq!(to, "b");
        let hint = Ack { is_master: false, allowed: true, leader: Some("c") };
        worker.on_ack(at(2_251), id, hint);
        let (id, to) = worker.beacon(at(2_251)).unwrap();
        assert_eq!(to, "c", "a leader that is not configured");
        worker.on_failure(at(4_251), id);
        assert_eq!(*worker.target(), "b", "back among the configured ones");
        assert_eq!(worker.due(), at(4_501));
    }

    /// What a meta server that does not lead says of who does.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Opinion {
        Silent,
        Nobody,
        Itself,
        TheOther,
    }

    /// "a" leads until `change` and "b" from `begins` on. "a" says what `old` is for three seconds more, and "b" what
    /// `new` is until it leads. Returns when "b" was first heard to lead, and how many beacons were sent in a minute.
    fn through_a_change(change: u64, begins: u64, old: Opinion, new: Opinion) -> (u64, usize) {
        const WAY: u64 = 2;
        let (mut worker, mut sent, mut found) = (worker(&["a", "b"]), 0, None);
        let mut answers: Vec<(u64, BeaconId, Option<Ack<&str>>)> = Vec::new();
        let mut renewed = 0;
        for now in 0..60_000 {
            if let Some((id, to)) = worker.beacon(at(now)) {
                sent += 1;
                let arrives = now + WAY;
                let leads = if to == "a" { arrives < change } else { arrives >= begins };
                let other = if to == "a" { "b" } else { "a" };
                let opinion = match to {
                    "a" if arrives >= begins + 3_000 => Opinion::TheOther,
                    "a" => old,
                    _ => new,
                };
                let leader = match opinion {
                    _ if leads => Some(to),
                    Opinion::Silent | Opinion::Nobody => None,
                    Opinion::Itself => Some(to),
                    Opinion::TheOther => Some(other),
                };
                let is_silent = opinion == Opinion::Silent && !leads;
                let ack = Ack { is_master: leads, allowed: true, leader };
                let when = if is_silent { now + 2_000 } else { arrives + WAY };
                answers.push((when, id, (!is_silent).then_some(ack)));
                if leads {
                    renewed = now;
                    found = found.or((to == "b").then_some(when));
                }
            }
            for (_, id, ack) in answers.extract_if(.., |(when, ..)| *when == now) {
                match ack {
                    Some(ack) => drop(worker.on_ack(at(now), id, ack)),
                    None => worker.on_failure(at(now), id),
                }
            }
            if now % 2_000 == 0 {
                assert_ne!(worker.check(at(now)), Link::Disconnected, "{old:?} {new:?}");
            }
            assert!(worker.lease().until() <= at(renewed + 20_000), "only who leads renews it");
        }
        assert!(worker.is_connected() && *worker.target() == "b");
        (found.expect("it is connected"), sent)
    }

    /// Bug 41: the leader changes while a beacon is under way, and the meta servers do not agree who leads, or send
    /// whoever asks to themselves.
    #[test]
    fn a_change_of_the_leader_during_a_beacon_costs_no_lease_and_no_storm() {
        use Opinion::{Itself, Nobody, Silent, TheOther};
        let opinions = [Silent, Nobody, Itself, TheOther];
        let pairs = opinions.iter().flat_map(|old| opinions.iter().map(move |new| (*old, *new)));
        for (old, new) in pairs {
            // At every moment between one beacon and the next.
            for change in (20_000..23_200).step_by(100) {
                for gap in [0, 4_000] {
                    let begins = change + gap;
                    let (found, sent) = through_a_change(change, begins, old, new);
                    assert!(found < begins + 8_000, "{old:?} {new:?}: {change}, found at {found}");
                    assert!(sent < 100, "{old:?} {new:?}: {sent} beacons in a minute");
                }
            }
        }
    }
}
