//! Servers that listen where they are told to, each on an address of its own, as on machines of their own.

use cluster_tests::onebox::{Onebox, OneboxOptions, program, repository, scratch};
use std::net::Ipv4Addr;
use std::process::Command;

#[test]
fn servers_on_addresses_of_their_own_are_a_cluster() {
    let options = OneboxOptions { own_addresses: true, ..OneboxOptions::default() };
    let mut onebox = Onebox::start("addresses", &options);
    let client = onebox.with_table(3);
    let config = client.admin().query_config("temp").expect("the meta server answers");
    for group in config.partitions.iter() {
        let members = std::iter::once(&group.primary).chain(group.secondaries.iter());
        let mut ips: Vec<Ipv4Addr> = members.map(|member| member.ip()).collect();
        ips.sort();
        assert_eq!(ips, [3, 4, 5].map(|host| Ipv4Addr::new(127, 0, 0, host)));
    }
    let table = client.table("temp");
    for n in 0..64 {
        let key = format!("key{n}");
        table.set(key.as_bytes(), b"s", key.clone()).expect("a set");
        assert_eq!(
            table.get(key.as_bytes(), b"s").expect("a get").as_deref(),
            Some(key.as_bytes())
        );
    }
    for index in (0..=onebox.replicas()).rev() {
        assert!(onebox.stop(index), "{}", onebox.stderr(index));
    }
}

/// What a replica server says that is told to listen there, in a folder of its own.
#[expect(clippy::disallowed_methods, reason = "a real process is started outside the runtime")]
fn refusal(address: &str) -> String {
    let dir = scratch("refusal");
    let output = Command::new(program("pegasus-server"))
        .args(["--app", "replica", "--set", &format!("network.listen_address={address}")])
        .arg("--config")
        .arg(repository().join("configs/onebox.toml"))
        .current_dir(&dir)
        .output()
        .expect("the server can be started");
    std::fs::remove_dir_all(dir).expect("the folder");
    assert!(!output.status.success(), "it must not run");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn nobody_listens_beyond_loopback_by_accident() {
    for open in ["0.0.0.0", "10.1.2.3"] {
        let said = refusal(open);
        assert!(said.contains(open) && said.contains("[network] insecure = true"), "{said}");
    }
    let said = refusal("everywhere");
    assert!(said.contains("everywhere: no IPv4 address"), "{said}");
}
