//! A server with thousands of replicas.

#[path = "../examples/counter/counter.rs"]
mod counter;

use counter::{ADD, Add, Counter, GET};
use dsn_replication::client::Target;
use dsn_replication::testing::cluster::{Answer, ClusterSpec, SimCluster};
use std::time::Duration;

const TABLE: &str = "counters";
const REPLICAS: i32 = 4000;
/// After so long a server that says nothing is dead for the meta server: `fd_grace_seconds`.
const GRACE: Duration = Duration::from_secs(22);

/// Long, so that the log is a large one.
fn name() -> String {
    "n".repeat(2000)
}

/// Adds to every partition.
fn add_to_all(cluster: &mut SimCluster) {
    let add = Add { name: name(), ..Add::default() };
    let send = |partition| cluster.send(TABLE, ADD.request(Target::Partition(partition), &add));
    let answers: Vec<Answer<i64>> = (0..REPLICAS).map(send).collect();
    for answer in answers {
        cluster.wait(&answer).expect("it is added");
    }
}

/// Bug 35: a server reads its log for one replica after the other, or opens them too slowly otherwise, and says nothing
/// to the meta server before it has them all: with thousands of them it counts as dead long before it is back.
#[test]
fn a_server_with_thousands_of_replicas_is_back_within_its_grace() {
    let mut cluster = SimCluster::start::<Counter>(&ClusterSpec::default());
    cluster.create_table(TABLE, REPLICAS);
    (0..2).for_each(|_| add_to_all(&mut cluster));
    cluster.kill_server(0);
    let begun = cluster.sim().now();
    cluster.start_server(0);
    let get = |partition| cluster.send(TABLE, GET.request(Target::Partition(partition), &name()));
    let answers: Vec<Answer<i64>> = (0..REPLICAS).map(get).collect();
    for answer in &answers {
        assert_eq!(cluster.wait(answer), Ok(2));
    }
    let took = cluster.sim().now() - begun;
    println!("{REPLICAS} replicas serve again after {took:?}");
    assert!(took < GRACE / 4, "{took:?}");
    cluster.finish();
}
