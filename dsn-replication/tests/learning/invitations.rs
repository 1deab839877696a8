//! An invitation to learn that comes when nobody means it any more.

use super::*;
use dsn_core::exec::WorkerId;
use dsn_replication::app::ReplicatedApp;
use dsn_replication::codes::RPC_LEARN_ADD_LEARNER;
use dsn_replication::testing::cluster::LPC_TEST_CLIENT;
use dsn_replication::wire::config::{
    AppInfo, PartitionConfiguration, PartitionStatus, ReplicaConfiguration,
};
use dsn_replication::wire::replica::GroupCheckRequest;
use dsn_rpc::{CallOptions, send_oneway};
use log_store::{READ, ReadFrom};
use std::net::SocketAddr;

fn only_group(world: &mut World) -> PartitionConfiguration {
    let config = world.cluster.config(TABLE).expect("the meta server answers");
    config.partitions.iter().next().expect("there is one")
}

/// A member has lost its disk, and is the only one that is there: an empty replica, made for an invitation that was
/// under way before it was a member, must not be taken for what it had.
#[test]
fn an_old_invitation_makes_no_member_of_an_empty_replica() {
    let mut world = World::of((3, 1), 4, 1, "", true);
    world.append_one().expect("the append is acknowledged");
    let group = only_group(&mut world);
    let member = world.secondary();
    for server in 0..3 {
        world.cluster.kill_server(server);
    }
    let id = world.cluster.server(member);
    let disk = world.cluster.sim().disk(id);
    disk.remove_dir_all(Path::new("/data")).expect("it is there");
    world.cluster.start_server(member);
    world.cluster.run_for(Duration::from_secs(30));
    let invitation = GroupCheckRequest {
        app: AppInfo {
            app_id: group.pid.app_id,
            app_name: TABLE.to_owned(),
            app_type: LogStore::APP_TYPE.to_owned(),
            max_replica_count: 3,
            partition_count: 1,
            ..AppInfo::default()
        },
        config: ReplicaConfiguration {
            pid: group.pid,
            ballot: group.ballot - 1,
            primary: group.primary,
            status: PartitionStatus::PotentialSecondary,
            learner_signature: ((group.ballot - 1) << 32) + 1,
            ..ReplicaConfiguration::default()
        },
        ..GroupCheckRequest::default()
    };
    let options = CallOptions::default().on(group.pid);
    let client = world.cluster.client();
    let to = SocketAddr::from(([10, 0, 0, 10 + member as u8], 34801));
    world.cluster.sim().enter(client, WorkerId(0), &LPC_TEST_CLIENT, |ctx| {
        send_oneway(ctx, to, &RPC_LEARN_ADD_LEARNER, &invitation, options);
    });
    world.cluster.run_for(Duration::from_secs(60));
    let group = only_group(&mut world);
    assert!(!group.primary.is_valid(), "nobody who is there has anything: {group:?}");
    (0..3).filter(|server| *server != member).for_each(|server| world.cluster.start_server(server));
    world.run_until_whole(Duration::from_secs(60));
    let read = READ.request(Target::Partition(0), &ReadFrom::default());
    let answer = world.cluster.send(TABLE, read);
    assert_eq!(world.cluster.wait(&answer).map(|found| found.entries.len()), Ok(1));
    world.cluster.finish();
}
