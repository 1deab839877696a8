//! One server of a group under test: a disk, a log, a core, and a state machine that is the list of what was applied.

use super::*;
use crate::log::LogError;

pub(crate) struct Server {
    pub(crate) disk: MemDisk,
    pub(crate) log: Arc<SharedLog>,
    pub(crate) core: Replica,
    pub(crate) history: Vec<Content>,
    /// So much of the history survives a crash.
    pub(crate) durable: usize,
    pub(crate) floor: u64,
    pub(crate) init_ballot: Ballot,
    pub(crate) waiting: Vec<Pending>,
    pub(crate) up: bool,
    pub(crate) lease: bool,
    pub(crate) writes: BTreeMap<Ticket, u64>,
}

pub(crate) struct Feed {
    pub(crate) recovery: Recovery,
    pub(crate) applied: Vec<Content>,
    /// The ballot that the log told last, and the highest so far.
    pub(crate) ballots: (Ballot, Ballot),
    /// At the end of the log.
    pub(crate) recovered: Option<crate::replica::recovery::Recovered>,
}

impl Feed {
    pub(crate) fn drain(&mut self) {
        for mutation in self.recovery.take_run() {
            self.applied.push(content(&mutation));
        }
    }
}

impl ReplaySink for Feed {
    fn record(&mut self, record: Record) {
        self.recovery.record(&record);
        self.drain();
    }
    fn truncate(&mut self, _: Gpid, from: Decree) {
        let (of_mark, highest) = self.ballots;
        assert_eq!(of_mark, highest, "a mark stands behind what came under a higher ballot");
        self.recovery.truncate(from);
    }
    fn ballot(&mut self, _: Gpid, ballot: Ballot) {
        self.ballots = (ballot, self.ballots.1.max(ballot));
        self.recovery.ballot(ballot);
    }
    fn lost(&mut self, _: Gpid, decree: Decree, position: u64) {
        self.recovery.lost(decree, position);
    }
    fn gap(&mut self, range: Range<u64>) {
        self.recovery.gap(range);
    }
    fn summary(&mut self, _: Gpid, max: Decree, position: u64) {
        self.recovery.summary(max, position);
    }
    fn ended(&mut self, tail: Option<Range<u64>>, _: u64) -> Result<LogBatch, LogError> {
        self.drain();
        let recovered = self.recovery.clone().finish(tail.as_slice()).expect("nothing is lost");
        let mut mended = LogBatch::new();
        self.recovered.insert(recovered).mend(GPID, &mut mended);
        Ok(mended)
    }
}

/// Opens the log and the core of a server whose state machine has `history`.
pub(crate) fn open(
    disk: &MemDisk,
    durability: Durability,
    mut history: Vec<Content>,
    durable: usize,
    (floor, init_ballot): (u64, Ballot),
) -> Server {
    let applied = Decree(history.len() as i64);
    let (on_disk, ballot) = (Decree(durable as i64), init_ballot);
    let start = ReplicaStart { gpid: GPID, applied, durable: on_disk, floor, ballot };
    let recovery = Recovery::new(GPID, applied, (floor, init_ballot), codes());
    let ballots = (Ballot::ZERO, Ballot::ZERO);
    let mut feed = Feed { recovery, applied: Vec::new(), ballots, recovered: None };
    let options = LogOptions { segment_bytes: 3000, durability, ..LogOptions::default() };
    let dir = Path::new("/log");
    let opened = SharedLog::open(&disk.shared(), dir, &options, (7, 1), &[start], &mut feed)
        .expect("the log opens");
    history.append(&mut feed.applied);
    let recovered = feed.recovered.expect("it was asked for at the end");
    let applied = Decree(history.len() as i64);
    let group = GroupOptions { learner_timeout: Duration::from_secs(5), ..Default::default() };
    let options = CoreOptions { window: 5, group, ..CoreOptions::default() };
    Server {
        disk: disk.clone(),
        log: opened.log,
        core: Replica::new(GPID, applied, recovered, codes(), options),
        history,
        durable,
        floor,
        init_ballot,
        waiting: Vec::new(),
        up: true,
        lease: true,
        writes: BTreeMap::new(),
    }
}
