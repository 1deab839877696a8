//! `pegasus-bench` against a real cluster: every workload, both loops, both distributions, and what it reports.

use cluster_tests::onebox::{Onebox, OneboxOptions, program};
use serde_json::Value;
use std::process::Command;

fn bench(onebox: &Onebox, line: &str) -> Value {
    let (meta, pid) = (onebox.meta().to_string(), onebox.pid(1).expect("runs").to_string());
    let output = Command::new(program("pegasus-bench"))
        .args(["--meta", &meta, "--server-pid", &pid, "--json", "--keys", "2000"])
        .args(["--warm-up", "50ms", "--duration", "400ms", "--read-back"])
        .args(line.split_whitespace())
        .output()
        .expect("the bench starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {errors}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{line}: {error}"))
}

fn number(report: &Value, path: &str) -> f64 {
    let found = report.pointer(path).unwrap_or_else(|| panic!("{path} is missing: {report:#}"));
    found.as_f64().unwrap_or_else(|| panic!("{path} is no number: {found}"))
}

#[test]
fn every_workload_runs_and_is_reported() {
    let onebox = Onebox::start("bench", &OneboxOptions::single());
    drop(onebox.with_table(1));

    for line in [
        "-o set --value-size 100,1000 -c 4 -d 4",
        "-o get --load --value-size 100 -c 8",
        "-o get --load --distribution zipf -c 2 -d 16",
        "-o mixed --load --read-ratio 0.9 -c 4 -d 2",
        "-o multi_set --batch 20 -c 2",
        "-o multi_get --load --batch 20 -c 2 -d 2",
        "-o scan --load --sort-keys 100 --batch 30 -c 2",
        "-o mixed --load --rate 2000 -c 4",
    ] {
        println!("{line}");
        let report = bench(&onebox, line);
        assert_eq!(number(&report, "/errors_total"), 0.0, "{line}: {report:#}");
        assert!(number(&report, "/ops") > 50.0, "{line}: {report:#}");
        assert_eq!(number(&report, "/misses") + number(&report, "/wrong"), 0.0, "{line}");
        let kinds = report["kinds"].as_object().expect("kinds");
        assert_eq!(kinds.len(), if line.contains("mixed") { 2 } else { 1 }, "{line}: {report:#}");
        for kind in kinds.values() {
            let percentiles: Vec<f64> = ["p50", "p90", "p95", "p99", "p999", "p9999"]
                .iter()
                .map(|name| number(kind, &format!("/latency_us/{name}")))
                .collect();
            assert!(percentiles[0] > 0.0 && percentiles.is_sorted(), "{line}: {percentiles:?}");
        }
        assert!(number(&report, "/server_cpu_us_per_op") > 0.0, "{line}: {report:#}");
    }
}
