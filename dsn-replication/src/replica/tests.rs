//! Groups of cores under faults, see [`crate::testing::group`].

use super::*;
use crate::log::{LogBatch, Redeemed};
use crate::mutation::{ClientRequest, encode_body};
use crate::testing::group::*;
use crate::wire::config::ConfigType;
use bytes::BytesMut;

#[test]
fn acknowledged_writes_survive_and_members_agree() {
    let seeds = std::env::var("GROUP_SEEDS").ok().and_then(|count| count.parse().ok());
    let seeds = 0..seeds.unwrap_or(2000_usize);
    let (mut acked, mut killed, mut elections) = (0, 0, 0);
    for seed in seeds.clone() {
        let outcome = std::panic::catch_unwind(|| {
            let counts = run(seed as u64, 4_000);
            (counts.acked, counts.killed, counts.elections)
        });
        let counts = outcome.unwrap_or_else(|_| panic!("seed {seed}"));
        acked += counts.0;
        killed += counts.1;
        elections += counts.2;
    }
    println!("{seeds:?}: {acked} writes acknowledged, {killed} kills, {elections} elections");
    let count = seeds.end;
    assert!(acked > 20 * count && killed > 10 * count && elections > count / 3);
}

#[test]
fn a_change_of_the_group_has_the_next_ballot_and_names_who_stays() {
    let mut world = World::new(0);
    world.heal();
    let primary = world.config.primary.expect("a primary");
    let gone = world.config.secondaries[0];
    let ballot = world.config.ballot;
    world.turn(primary, |core, _, out, now| {
        core.wish(ConfigType::Remove, Some(node(gone)), now, out);
        GivenUp::default()
    });
    let (_, change) = world.asked.last().expect("asked for").clone();
    assert_eq!((change.ballot, change.kind), (ballot.next(), ConfigType::Remove));
    assert!(!change.secondaries.contains(&node(gone)));
}

/// Large mutations that arrive faster than they are applied: a member takes no more than fit into its memory, and goes
/// on where it stopped.
#[test]
fn a_member_takes_no_more_bytes_than_it_may_hold() {
    let world = World::new(0);
    let server = &world.servers[1];
    let mut core =
        Replica::new(GPID, Decree::ZERO, Recovered::default(), codes(), CoreOptions::default());
    let (ballot, gpid, size) = (Ballot(3), GPID, 1 << 20);
    let body = |n: i64| {
        let request = ClientRequest { code: CODES[0], body: vec![n as u8; size].into() };
        let mutation = Mutation {
            gpid,
            ballot,
            decree: Decree(n),
            last_committed: Decree(n - 1),
            timestamp_us: n as u64,
            stamp: 0,
            requests: vec![request],
        };
        let mut out = BytesMut::new();
        encode_body(&mutation, &mut out);
        out.freeze()
    };
    let most = (prepare::BACKLOG_BYTES / size) as i64;
    let all: Vec<Bytes> = (1..=most + 9).map(body).collect();
    let prepare = |first: i64| Prepare {
        gpid,
        ballot,
        attempt: 0,
        seq: first as u64,
        takeover: Decree::ZERO,
        committed: Decree(most + 9),
        first: Decree(first),
        bodies: all[first as usize - 1..].to_vec(),
    };
    for (first, taken) in [(1, most), (most + 1, most + 9)] {
        let (mut log, mut out) = (LogBatch::new(), Effects::new());
        core.on_prepare(node(0), &prepare(first), &mut log, &mut out);
        core.check_invariants().unwrap();
        assert_eq!(core.prepared(), Decree(taken));
        let Redeemed::Now(tokens) =
            server.log.append(&mut log).and_then(|pending| server.log.redeem(pending)).unwrap()
        else {
            panic!("not synced")
        };
        for token in tokens {
            core.on_logged(token).unwrap();
        }
        let run = core.next_run().expect("everything is committed");
        core.on_applied(run.last()).unwrap();
        core.check_invariants().unwrap();
    }
}
