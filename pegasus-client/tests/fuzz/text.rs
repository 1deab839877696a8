//! What operators and monitoring send as text: lines of commands, the filters of `/metrics`, names of servers.

use dsn_core::command::{CommandCall, WORDS_MAX};
use dsn_core::metrics::Filters;
use dsn_rpc::frame::http::HttpTarget;
use dsn_rpc::host_port::HostPort;

use crate::mutate::Sample;
use crate::{bounded, fuzz};

#[test]
fn lines_of_commands() {
    let lines = ["server-info", "config get 'a b' \"c\" d", "  "];
    let mut samples: Vec<Sample> = lines.iter().map(|line| Sample::new(line.as_bytes())).collect();
    samples.push(Sample::new("a ".repeat(5000).as_bytes()));
    let mut empty = 0;
    fuzz("command line", &samples, |input, _| {
        let line = String::from_utf8_lossy(input);
        let call = bounded(line.as_bytes(), || CommandCall::parse(&line));
        assert!(call.arguments.len() < WORDS_MAX);
        empty += usize::from(call.name.is_empty());
        // Every line is one; those that are valid UTF-8 stand for the accepted ones.
        std::str::from_utf8(input).is_ok()
    });
    assert!(empty > 100, "lines without a word");
}

#[test]
fn filters_of_metrics() {
    let targets = [
        "/metrics?types=replica,server&ids=1.2&metrics=a,b&detail=true",
        "/metrics?attributes=table_id,2,partition_id,3&with_metric_fields=name,p99",
    ];
    let mut samples: Vec<Sample> =
        targets.iter().map(|text| Sample::new(text.as_bytes())).collect();
    samples.push(Sample::new(format!("/metrics?ids={}", "1,".repeat(200)).as_bytes()));
    fuzz("metrics filters", &samples, |input, _| {
        let Ok(target) = HttpTarget::parse(input) else { return false };
        let arguments = target
            .arguments
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_deref().unwrap_or_default()));
        bounded(input, || Filters::parse(arguments)).is_ok()
    });
}

#[test]
fn names_of_servers() {
    let samples = [&b"127.0.0.1:34601"[..], b"meta.example:65535"].map(Sample::new);
    fuzz("host and port", &samples, |input, _| {
        let text = String::from_utf8_lossy(input);
        let Some(name) = bounded(text.as_bytes(), || HostPort::parse(&text)) else { return false };
        assert_eq!(HostPort::parse(&name.to_string()), Some(name));
        true
    });
}
