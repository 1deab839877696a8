//! A secondary's disk fills up: its group takes no writes, says why, is read on, and recovers by itself.

#[path = "../examples/log_store/log_store.rs"]
mod log_store;

use bytes::Bytes;
use dsn_core::disk::Disk;
use dsn_replication::client::{ClientError, Target};
use dsn_replication::testing::cluster::{ClusterSpec, SimCluster};
use dsn_rpc::error_code::ErrorCode;
use log_store::{APPEND, LogStore};
use std::path::Path;
use std::time::Duration;

const TABLE: &str = "logs";
/// Looks at disks and groups both come within this time.
const SOON: Duration = Duration::from_secs(25);

fn append(cluster: &mut SimCluster) -> Result<(), ClientError> {
    let entry = Bytes::from_static(b"entry");
    let answer = cluster.send(TABLE, APPEND.request(Target::Partition(0), &entry));
    cluster.wait(&answer).map(drop)
}

/// Bug 19: a write is answered as done, and is not, while the disk of a secondary is full.
#[test]
fn a_group_with_a_member_without_room_takes_no_writes_until_it_has_some() {
    let spec = ClusterSpec { seed: 7, servers: 3, copies: 3, ..ClusterSpec::default() };
    let mut cluster = SimCluster::start::<LogStore>(&spec);
    cluster.create_table(TABLE, 1);
    cluster.run_for(SOON);
    append(&mut cluster).expect("everybody has room");
    let config = cluster.config(TABLE).expect("the meta server answers");
    let group = config.partitions.iter().next().expect("a partition");
    let member = usize::from(group.secondaries.first().expect("a secondary").ip().octets()[3]);
    let node = cluster.server(member - 10);
    let disk = cluster.sim().disk(node);
    let space = disk.space(Path::new("/data")).expect("a disk");
    let used = space.total - space.available;

    disk.set_capacity(used * 100 / 91);
    cluster.run_for(SOON);
    let refused = append(&mut cluster).expect_err("a member has no room");
    assert!(
        refused.to_string().contains(ErrorCode::DiskInsufficient.name()),
        "the client hears the reason: {refused}"
    );
    disk.set_capacity(used * 100 / 50);
    cluster.run_for(SOON);
    append(&mut cluster).expect("there is room again");
    cluster.finish();
}
