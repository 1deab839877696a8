//! What the cores tell each other, and how it arrives.

use super::*;

#[derive(Clone, Debug)]
pub(crate) enum Message {
    Prepare(Prepare),
    Ack(Ack),
    Invite(Ballot, i64),
    Learn(i64, Position),
    Checkpoint(Ballot, i64, Vec<Content>),
}

impl World {
    pub(crate) fn route(&mut self, from: usize, effects: Effects) {
        let ballot = self.servers[from].core.ballot();
        for effect in effects {
            let (to, message) = match effect {
                Effect::Prepare(to, prepare) => (to, Message::Prepare(prepare)),
                Effect::Ack(to, ack) => (to, Message::Ack(ack)),
                Effect::Invite(to, attempt) => (to, Message::Invite(ballot, attempt)),
                Effect::Change(change) => {
                    self.asked.push((from, change));
                    continue;
                }
                Effect::ReadLog(to, attempt, after, proof) => {
                    self.read_log(from, to, attempt, (after, proof));
                    continue;
                }
                Effect::Sync => continue,
                Effect::Behind(_) => {
                    self.leave(from);
                    continue;
                }
            };
            self.links.entry((from, index(to))).or_default().push_back(message);
        }
    }

    pub(crate) fn read_log(
        &mut self,
        at: usize,
        to: Node,
        attempt: i64,
        (after, proof): (Decree, Option<u64>),
    ) {
        let server = &self.servers[at];
        let range = (after, server.core.committed());
        let chunk = read_decided(&server.log, GPID, range, proof, 0, 300).expect("the log is read");
        let (now, mut effects) = (self.now, Effects::new());
        let core = &mut self.servers[at].core;
        core.on_log_read(to, attempt, after, chunk.bodies, now, &mut effects);
        self.route(at, effects);
    }

    pub(crate) fn deliver(&mut self, from: usize, to: usize) {
        let Some(message) = self.links.get_mut(&(from, to)).and_then(VecDeque::pop_front) else {
            return;
        };
        if !self.servers[to].up {
            return;
        }
        let sender = node(from);
        match message {
            Message::Prepare(prepare) => self.turn(to, |core, log, out, _| {
                let given_up = core.on_prepare(sender, &prepare, log, out);
                core.due_ack(out);
                given_up
            }),
            Message::Ack(ack) => self.turn(to, |core, _, out, now| {
                core.on_ack(sender, &ack, now, out);
                GivenUp::default()
            }),
            Message::Invite(ballot, attempt) => {
                let mut position = None;
                self.turn(to, |core, log, _, _| {
                    match core.begin_learning(sender, ballot, attempt, log) {
                        Ok(given_up) => {
                            position = Some(core.position());
                            given_up
                        }
                        Err(_) => GivenUp::default(),
                    }
                });
                if let Some(position) = position {
                    let message = Message::Learn(attempt, position);
                    self.links.entry((to, from)).or_default().push_back(message);
                }
            }
            Message::Learn(attempt, position) => {
                let lowest = self.servers[to].log.decrees(GPID).map(|(lowest, _)| lowest);
                let mut answer = LearnAnswer::Unknown;
                self.turn(to, |core, _, _, now| {
                    answer = core.on_learn(sender, attempt, position, lowest, now);
                    GivenUp::default()
                });
                if matches!(answer, LearnAnswer::Checkpoint { .. }) {
                    let server = &self.servers[to];
                    let files = server.history.clone();
                    let message = Message::Checkpoint(server.core.ballot(), attempt, files);
                    self.links.entry((to, from)).or_default().push_back(message);
                }
            }
            Message::Checkpoint(ballot, attempt, files) => {
                self.install(to, from, ballot, attempt, files)
            }
        }
    }

    /// A learner takes a checkpoint for its own and goes on.
    pub(crate) fn install(
        &mut self,
        at: usize,
        from: usize,
        ballot: Ballot,
        attempt: i64,
        files: Vec<Content>,
    ) {
        let Role::Learner(follow) = self.servers[at].core.role() else { return };
        if follow.attempt != attempt {
            return;
        }
        let (disk, floor) =
            (self.servers[at].disk.restart(Crash::Kill), self.servers[at].log.end());
        let lease = self.servers[at].lease;
        let durable = files.len();
        self.servers[at] = open(&disk, self.durability, files, durable, (floor, ballot));
        self.servers[at].lease = lease;
        let message = Message::Invite(ballot, attempt);
        self.links.entry((from, at)).or_default().push_back(message);
    }
}
