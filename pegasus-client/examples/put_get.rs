//! Records: set, read, count, expire, remove; then a thousand writes under way at once.
//!
//! `cargo run --release -p pegasus-client --example put_get -- [META [TABLE]]`

use pegasus_client::{ClientError, MultiGet, PegasusClient, Ttl};
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let meta = args.next().unwrap_or_else(|| "127.0.0.1:34601".to_owned());
    let name = args.next().unwrap_or_else(|| "temp".to_owned());

    // One thread and one connection per server, however many tables, clones and operations there are.
    let client = PegasusClient::new(&[meta])?;
    let table = client.table(&name);

    table.set(b"user:1", b"name", "Ada")?;
    table.set_ttl(b"user:1", b"session", "0xfe", Ttl::Seconds(3600))?;
    println!("name: {:?}", table.get(b"user:1", b"name")?);
    println!("seconds left: {:?}", table.ttl(b"user:1", b"session")?);
    println!("visits: {}", table.incr(b"user:1", b"visits", 1)?);

    // All records of a hash key are in one partition: they are read together, in order.
    let found = table.multi_get(b"user:1", &MultiGet::default())?;
    for (sort_key, value) in &found.records {
        println!("  {sort_key:?} = {value:?}");
    }
    table.remove(b"user:1", b"session")?;
    println!("records: {}", table.sort_key_count(b"user:1")?);

    // `start_...` does not wait. The outcome can be waited for, awaited, or given to a closure with `then`.
    let writes: Vec<_> = (0..1000u32)
        .map(|n| table.start_set(format!("key{n}").as_bytes(), b"", n.to_string(), Ttl::Forever))
        .collect();
    writes.into_iter().try_for_each(|write| write.wait())?;

    // Errors say what, where, and whether a write may have been done all the same.
    if let Err(error) = client.table("no such table").set(b"h", b"s", "v") {
        let ClientError { reason, place } = &error;
        println!(
            "{error}\n  reason {reason:?}, table {}, ambiguous {}",
            place.table,
            error.is_ambiguous()
        );
    }
    Ok(())
}
