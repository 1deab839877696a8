//! What is asked of the server next.

use crate::args::{Operation, Plan};
use crate::keys::Keys;
use dsn_core::rng::Rng;

/// Kinds of requests, as they are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One record written.
    Set,
    /// One record read.
    Get,
    /// Several records of one hash key written.
    MultiSet,
    /// Several records of one hash key read by name.
    MultiGet,
    /// All records of one hash key read, in as many requests as it takes.
    Scan,
}

impl Kind {
    /// Number of kinds.
    pub const COUNT: usize = 5;
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] =
        [Self::Set, Self::Get, Self::MultiSet, Self::MultiGet, Self::Scan];

    /// Name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Set => "set",
            Self::Get => "get",
            Self::MultiSet => "multi_set",
            Self::MultiGet => "multi_get",
            Self::Scan => "scan",
        }
    }
}

/// One operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Op {
    /// What.
    pub kind: Kind,
    /// The first record it concerns.
    pub record: u64,
    /// How many, all of the first one's hash key.
    pub count: u32,
}

/// The endless sequence of operations of a run.
#[derive(Debug)]
pub struct Workload {
    operation: Operation,
    read_ratio: f64,
    keys: Keys,
    rng: Rng,
    sort_keys: u64,
    batch: u64,
}

impl Workload {
    /// The sequence that follows from the plan and its seed.
    pub fn new(plan: &Plan) -> Self {
        let single = matches!(plan.operation, Operation::Set | Operation::Get | Operation::Mixed);
        let units = if single { plan.records } else { plan.records / plan.sort_keys };
        Self {
            operation: plan.operation,
            read_ratio: plan.read_ratio,
            keys: Keys::new(plan.distribution, units),
            rng: Rng::stream(plan.seed, "pegasus-bench", "workload", 0),
            sort_keys: plan.sort_keys,
            batch: plan.batch,
        }
    }

    /// The next one.
    #[inline]
    pub fn draw(&mut self) -> Op {
        let kind = match self.operation {
            Operation::Set => Kind::Set,
            Operation::Get => Kind::Get,
            Operation::Mixed if self.rng.chance(self.read_ratio) => Kind::Get,
            Operation::Mixed => Kind::Set,
            Operation::MultiSet => Kind::MultiSet,
            Operation::MultiGet => Kind::MultiGet,
            Operation::Scan => Kind::Scan,
        };
        let unit = self.keys.draw(&mut self.rng);
        match kind {
            Kind::Set | Kind::Get => Op { kind, record: unit, count: 1 },
            Kind::Scan => Op { kind, record: unit * self.sort_keys, count: self.sort_keys as u32 },
            Kind::MultiSet | Kind::MultiGet => {
                let spare = self.sort_keys - self.batch;
                let first = if spare == 0 { 0 } else { self.rng.below(spare + 1) };
                Op { kind, record: unit * self.sort_keys + first, count: self.batch as u32 }
            }
        }
    }
}

/// The finite sequence that writes every record once.
#[derive(Debug)]
pub struct Filling {
    next: u64,
    records: u64,
    sort_keys: u64,
}

impl Filling {
    /// All records of a plan, a hash key at a time.
    pub fn new(plan: &Plan) -> Self {
        Self { next: 0, records: plan.records, sort_keys: plan.sort_keys }
    }

    /// Records handed out so far.
    pub fn done(&self) -> u64 {
        self.next
    }
}

impl Iterator for Filling {
    type Item = Op;

    fn next(&mut self) -> Option<Op> {
        if self.next >= self.records {
            return None;
        }
        let record = self.next;
        self.next += self.sort_keys;
        let kind = if self.sort_keys == 1 { Kind::Set } else { Kind::MultiSet };
        Some(Op { kind, record, count: self.sort_keys as u32 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Cli;
    use clap::Parser;

    fn plan(line: &str) -> Plan {
        let words = std::iter::once("pegasus-bench").chain(line.split_whitespace());
        Cli::parse_from(words).run.plan(vec![], false).unwrap()
    }

    #[test]
    fn mixed_keeps_its_ratio_and_repeats_with_its_seed() {
        let plan = plan("-o mixed --read-ratio 0.9 --seed 42");
        let (mut a, mut b) = (Workload::new(&plan), Workload::new(&plan));
        let mut reads = 0;
        for _ in 0..100_000 {
            let op = a.draw();
            assert_eq!(op, b.draw());
            reads += u32::from(op.kind == Kind::Get);
        }
        assert!((89_500..90_500).contains(&reads), "{reads} reads");
    }

    #[test]
    fn batches_stay_within_their_hash_key() {
        let mut work = Workload::new(&plan("-o multi_get --sort-keys 25 --batch 10 --keys 100"));
        for _ in 0..10_000 {
            let op = work.draw();
            let last = op.record + u64::from(op.count) - 1;
            assert_eq!(op.record / 25, last / 25, "{op:?}");
            assert!(last < 100);
        }
        let op = Workload::new(&plan("-o scan --sort-keys 50 --keys 100")).draw();
        assert_eq!((op.record % 50, op.count), (0, 50));
    }

    #[test]
    fn filling_touches_every_record_once() {
        let ops: Vec<Op> = Filling::new(&plan("--keys 7")).collect();
        assert_eq!(ops.iter().map(|op| op.record).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6]);
        assert!(ops.iter().all(|op| op.kind == Kind::Set && op.count == 1));
        let ops: Vec<Op> = Filling::new(&plan("-o multi_get --batch 10 --keys 15")).collect();
        assert_eq!(
            ops.iter().map(|op| (op.record, op.count)).collect::<Vec<_>>(),
            [(0, 10), (10, 10)]
        );
    }
}
