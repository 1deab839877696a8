//! Conditional writes: a lock that only one can take, and a transfer that is never done by halves.
//!
//! `cargo run --release -p pegasus-client --example check_and_set -- [META [TABLE]]`

use bytes::Bytes;
use pegasus_client::schema::rrdb::CasCheckType;
use pegasus_client::{Check, ClientError, PegasusClient, Table, Ttl};
use std::error::Error;

/// Takes a lock for ten seconds; `false` when somebody else has it.
fn lock(table: &Table, owner: &str) -> Result<bool, ClientError> {
    let sort_key = Bytes::from_static(b"owner");
    let free = Check {
        sort_key: sort_key.clone(),
        kind: CasCheckType::ValueNotExist,
        operand: Bytes::new(),
    };
    let taken =
        table.check_and_set(b"lock", &free, &sort_key, owner.to_owned(), Ttl::Seconds(10))?;
    if let Some(other) = &taken.value {
        println!("{owner}: held by {other:?}");
    }
    Ok(taken.done)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let meta = args.next().unwrap_or_else(|| "127.0.0.1:34601".to_owned());
    let name = args.next().unwrap_or_else(|| "temp".to_owned());
    let table = PegasusClient::new(&[meta])?.table(&name);

    table.remove(b"lock", b"owner")?;
    println!("ada: {}", lock(&table, "ada")?);
    println!("bob: {}", lock(&table, "bob")?);

    // Two records of one hash key change together, if a third says so.
    table.set(b"account", b"version", "1")?;
    let unchanged = Check {
        sort_key: Bytes::from_static(b"version"),
        kind: CasCheckType::ValueIntEqual,
        operand: Bytes::from_static(b"1"),
    };
    let changes = vec![
        table.mutate_put(Bytes::from_static(b"balance"), Bytes::from_static(b"90"), Ttl::Forever),
        table.mutate_put(Bytes::from_static(b"version"), Bytes::from_static(b"2"), Ttl::Forever),
        table.mutate_remove(Bytes::from_static(b"pending")),
    ];
    let first = table.check_and_mutate(b"account", &unchanged, changes.clone())?;
    let second = table.check_and_mutate(b"account", &unchanged, changes)?;
    println!("first: {}, second: {}", first.done, second.done);
    Ok(())
}
