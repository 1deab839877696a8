//! Scans: a range of one hash key in order, and a whole table with two threads' worth of scanners.
//!
//! `cargo run --release -p pegasus-client --example scan -- [META [TABLE]]`

use bytes::Bytes;
use pegasus_client::schema::rrdb::FilterType;
use pegasus_client::{PegasusClient, ScanOptions, Ttl};
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let meta = args.next().unwrap_or_else(|| "127.0.0.1:34601".to_owned());
    let name = args.next().unwrap_or_else(|| "temp".to_owned());
    let table = PegasusClient::new(&[meta])?.table(&name);

    for day in 1..=31u32 {
        let sort_key = format!("2024-01-{day:02}");
        table.set(b"scan-example", sort_key.as_bytes(), format!("day {day}"))?;
    }

    // From the 10th to before the 15th. A scanner is an iterator of results.
    let range =
        table.scan(b"scan-example", b"2024-01-10", b"2024-01-15", &ScanOptions::default())?;
    for record in range {
        let (_, sort_key, value) = record?;
        println!("{sort_key:?} = {value:?}");
    }

    // The whole table, only hash keys with a prefix, only keys, large batches. The scanners are independent of each
    // other: give them to threads of your own to read faster.
    let options = ScanOptions {
        batch_size: 1000,
        no_value: true,
        hash_key_filter: (FilterType::Prefix, Bytes::from_static(b"scan-")),
        ..ScanOptions::default()
    };
    let mut count = 0;
    for scanner in table.unordered_scanners(2, &options)? {
        for record in scanner {
            record?;
            count += 1;
        }
    }
    println!("{count} records");

    // They go away by themselves.
    for day in 1..=31u32 {
        let sort_key = format!("2024-01-{day:02}");
        table.set_ttl(b"scan-example", sort_key.as_bytes(), "", Ttl::Seconds(1))?;
    }
    Ok(())
}
