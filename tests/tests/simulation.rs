//! The whole cluster in the simulator: seeds, each twice, and the scenarios of failures that were mended.

use cluster_tests::onebox::repository;
use cluster_tests::simulation::{RunReport, draw, run};
use dsn_core::sim::Scenario;

const SEEDS: u64 = 500;
const THREADS: u64 = 2;

fn twice(scenario: &Scenario) -> RunReport {
    let (first, second) = (run(scenario, false), run(scenario, false));
    let seed = scenario.seed;
    assert_eq!(first.report.trace_hash, second.report.trace_hash, "seed {seed} is not repeatable");
    if let Some(violation) = &first.report.violation {
        panic!("seed {seed}: {violation}; ./run.sh simulate --seeds 1 --from {seed} shrinks it");
    }
    first
}

#[test]
fn seeds_have_no_violation_and_repeat_exactly() {
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let work = move || {
                let mut total = (0, 0, 0.0);
                for seed in (thread..SEEDS).step_by(THREADS as usize) {
                    let run = twice(&draw(seed));
                    total.0 += run.acked;
                    total.1 += run.faults;
                    total.2 += run.report.length.as_secs_f64();
                }
                total
            };
            #[expect(clippy::disallowed_methods, reason = "one simulation per thread")]
            std::thread::spawn(work)
        })
        .collect();
    let (mut acked, mut faults, mut seconds) = (0, 0, 0.0);
    for thread in threads {
        let total = thread.join().expect("a seed failed, see above");
        acked += total.0;
        faults += total.1;
        seconds += total.2;
    }
    println!("{SEEDS} seeds twice: {seconds:.0} s each, {acked} calls answered, {faults} faults");
    assert!(acked > 1000 * SEEDS / 10, "the clients worked");
    assert!(faults as u64 > 8 * SEEDS, "and the faults struck");
}

#[test]
fn mended_failures_stay_mended() {
    let mut count = 0;
    for entry in std::fs::read_dir(repository().join("tests/scenarios")).expect("scenarios") {
        let path = entry.expect("scenarios").path();
        println!("{}", path.display());
        let text = std::fs::read_to_string(&path).expect("a scenario");
        twice(&Scenario::from_toml(&text).expect("a scenario"));
        count += 1;
    }
    assert!(count >= 2);
}
