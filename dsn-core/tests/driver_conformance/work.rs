//! Events between workers, blocking pools, and the life of residents.

use crate::world::{LPC_CASE, LPC_CASE_JOB, LPC_CASE_JOB_ALONE, Ready, World};
use crossbeam::channel::{Receiver, Sender, unbounded};
use dsn_core::disk::OpenMode;
use dsn_core::exec::{Addr, Ctx, Phase, Place, Resident, WorkerId};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

struct Keeper {
    seen: Vec<u32>,
}
impl Resident for Keeper {}

fn keeper(world: &mut World, worker: u16) -> Addr<Keeper> {
    world.on(worker, |ctx| ctx.spawn_here(|_, _| Keeper { seen: Vec::new() }))
}

/// Waits until `count` events have come to a keeper; what it has seen.
fn seen(world: &mut World, keeper: Addr<Keeper>, count: usize) -> Vec<u32> {
    let (tell, told): (Sender<Vec<u32>>, Receiver<Vec<u32>>) = unbounded();
    world.wait("the keeper's events", |world| {
        let tell = tell.clone();
        world.on(keeper.worker().0, move |ctx| {
            let _ = ctx.with(keeper, |it, _| tell.send(it.seen.clone()).unwrap());
        });
        told.try_recv().ok().filter(|seen| seen.len() >= count)
    })
}

pub fn posts_from_one_worker_arrive_in_order(world: &mut World) {
    const COUNT: u32 = 3_000;
    let keeper = keeper(world, 1);
    for turn in 0..3 {
        world.on(0, move |ctx| {
            for n in turn * COUNT / 3..(turn + 1) * COUNT / 3 {
                ctx.post(keeper, &LPC_CASE, move |it, _| it.seen.push(n));
            }
        });
    }
    assert_eq!(seen(world, keeper, COUNT as usize), Vec::from_iter(0..COUNT));
}

pub fn posts_from_outside_arrive_in_order(world: &mut World) {
    let keeper = keeper(world, 0);
    let handle = dsn_core::exec::Handle::new(&world.node());
    for n in 0..500 {
        handle.post(keeper, &LPC_CASE, move |it, _| it.seen.push(n)).unwrap();
    }
    // The simulation looks for mail from outside when it goes on.
    world.pass(MS);
    assert_eq!(seen(world, keeper, 500), Vec::from_iter(0..500));
}

fn hit(it: &mut Keeper, ctx: &mut Ctx<'_>, n: u32, me: Addr<Keeper>, other: Addr<Keeper>) {
    it.seen.push(n);
    if n > 0 {
        ctx.post(other, &LPC_CASE, move |it, ctx| hit(it, ctx, n - 1, other, me));
    }
}

pub fn workers_play_ping_pong(world: &mut World) {
    let (one, two) = (keeper(world, 0), keeper(world, 1));
    world.on(0, move |ctx| ctx.post(one, &LPC_CASE, move |it, ctx| hit(it, ctx, 999, one, two)));
    let (odd, even) = (seen(world, one, 500), seen(world, two, 500));
    assert_eq!(odd, Vec::from_iter((1..1_000).rev().step_by(2)));
    assert_eq!(even, Vec::from_iter((0..999).rev().step_by(2)));
}

pub fn end_of_turn_work_runs_in_phases(world: &mut World) {
    let keeper = keeper(world, 0);
    world.on(0, move |ctx| {
        ctx.defer(Phase::Send, keeper, &LPC_CASE, |it, _| it.seen.push(4));
        ctx.defer(Phase::Log, keeper, &LPC_CASE, move |it, ctx| {
            it.seen.push(2);
            ctx.defer(Phase::Log, keeper, &LPC_CASE, |it, _| it.seen.push(3));
        });
        let _ = ctx.with(keeper, |it, _| it.seen.push(1));
    });
    assert_eq!(seen(world, keeper, 4), [1, 2, 3, 4], "now, then the log, then the frames");
}

pub fn blocking_jobs_bring_their_results_back(world: &mut World) {
    let (probe, (_, dir)) = (world.probes[0], world.disk());
    let (tell, told) = unbounded();
    let began = world.on(0, move |ctx| {
        ctx.offload(
            &LPC_CASE_JOB,
            move |blocking| {
                let file = blocking.disk().open(&dir.join("job"), OpenMode::CreateNew).unwrap();
                file.write_at(0, &["done".into()]).unwrap();
                let wall = blocking.wall().unix_seconds();
                (blocking.node().name().len(), blocking.now(), file.read_at(0, 9).unwrap(), wall)
            },
            probe,
            move |_, result, ctx| tell.send((result, ctx.worker(), ctx.now())).unwrap(),
        );
        ctx.now()
    });
    let ((name, ran, read, wall), worker, back) = world.receive("the result", &told);
    assert_eq!((read.as_ref(), worker), (&b"done"[..], WorkerId(0)));
    assert!(name > 0 && wall > 1_700_000_000);
    assert!(began <= ran && ran <= back, "{began:?} {ran:?} {back:?}");
    assert_eq!(world.node().stages().iter().map(|stage| stage.waiting()).sum::<usize>(), 0);
}

pub fn a_worker_goes_on_while_a_job_runs(world: &mut World) {
    let (near, far) = world.pair(0, 1);
    let probe = world.probes[0];
    let (tell, told) = unbounded();
    let (release, released) = unbounded::<()>();
    let done = tell.clone();
    // Simulated, the job is over as soon as it has begun: there it cannot wait for what comes later.
    let simulated = world.is_simulated();
    world.on(0, move |ctx| {
        ctx.after(probe, &LPC_CASE, 2 * MS, move |_, _| tell.send("timer").unwrap());
        let job = move |_: &dsn_core::exec::BlockingCtx<'_>| {
            if !simulated {
                let _ = released.recv();
            }
        };
        ctx.offload(&LPC_CASE_JOB, job, probe, move |_, (), _| done.send("job").unwrap());
    });
    if !simulated {
        assert_eq!(world.receive("the timer", &told), "timer");
        world.write_all(1, far, b"x");
        world.event(0, near, Ready::Read);
        assert_eq!(world.read_exact(0, near, 1), b"x");
        assert!(told.is_empty(), "the job still runs");
    }
    release.send(()).unwrap_or(());
    let mut came = vec![world.receive("the job", &told)];
    if simulated {
        came.push(world.receive("the timer", &told));
        came.sort_unstable();
        assert_eq!(came, ["job", "timer"]);
    } else {
        assert_eq!(came, ["job"]);
    }
}

pub fn jobs_of_one_thread_run_in_order(world: &mut World) {
    let (tell, told) = unbounded();
    for worker in [0, 0, 0] {
        let (tell, probe) = (tell.clone(), world.probes[usize::from(worker)]);
        world.on(worker, move |ctx| {
            for n in 0..20 {
                let tell = tell.clone();
                let job = move |_: &dsn_core::exec::BlockingCtx<'_>| tell.send(n).unwrap();
                ctx.offload(&LPC_CASE_JOB_ALONE, job, probe, |_, (), _| ());
            }
        });
    }
    let ran: Vec<i32> = (0..60).map(|_| world.receive("the next job", &told)).collect();
    assert_eq!(ran, Vec::from_iter((0..20).chain(0..20).chain(0..20)));
}

pub fn jobs_look_up_names(world: &mut World) {
    let probe = world.probes[0];
    let (tell, told) = unbounded();
    world.on(0, move |ctx| {
        let job = |blocking: &dsn_core::exec::BlockingCtx<'_>| {
            ["127.0.0.1", "localhost", "no such name.."].map(|host| blocking.resolve(host).ok())
        };
        ctx.offload(&LPC_CASE_JOB, job, probe, move |_, found, _| tell.send(found).unwrap());
    });
    let [literal, localhost, unknown] = world.receive("the addresses", &told);
    let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
    assert_eq!(literal, Some(vec![loopback]));
    assert!(localhost.unwrap().contains(&loopback));
    assert_eq!(unknown, None);
}

pub fn a_job_that_panics_poisons_who_waits(world: &mut World) {
    let (one, other) = (keeper(world, 0), keeper(world, 0));
    world.on(0, move |ctx| {
        let job = |_: &dsn_core::exec::BlockingCtx<'_>| panic!("on purpose");
        ctx.offload(&LPC_CASE_JOB, job, one, |it, (), _| it.seen.push(1));
    });
    world.lost += 1;
    world.wait("the loss", |world| (world.node().poisoned() == 1).then_some(()));
    assert!(world.node().first_poisoned().unwrap().text.contains("on purpose"));
    assert!(!world.on(0, move |ctx| ctx.is_here(one)));
    assert!(world.on(0, move |ctx| ctx.is_here(other)), "nobody else is touched");
}

pub fn a_job_whose_resident_is_gone_vanishes(world: &mut World) {
    let keeper = keeper(world, 0);
    let (tell, told) = unbounded::<()>();
    let vanished = world.node().vanished();
    world.on(0, move |ctx| {
        let job = |_: &dsn_core::exec::BlockingCtx<'_>| ();
        ctx.offload(&LPC_CASE_JOB, job, keeper, move |_, (), _| tell.send(()).unwrap());
        ctx.close(keeper);
    });
    world.wait("the result to be counted", |world| {
        (world.node().vanished() == vanished + 1).then_some(())
    });
    assert!(told.try_recv().is_err());
}

pub fn a_slot_used_again_is_another_resident(world: &mut World) {
    let old = keeper(world, 1);
    world.on(0, move |ctx| ctx.close(old));
    world.wait("the end", |world| (!world.on(1, move |ctx| ctx.is_here(old))).then_some(()));
    let new = world.on(0, |ctx| {
        let place = Place::Worker(WorkerId(1));
        ctx.spawn(place, &LPC_CASE, |_, _| Keeper { seen: Vec::new() })
    });
    assert_eq!(old.raw().slot, new.raw().slot, "the slot is used again");
    assert_ne!(old, new);
    let vanished = world.node().vanished();
    world.on(0, move |ctx| {
        ctx.post(old, &LPC_CASE, |it, _| it.seen.push(1));
        ctx.post(new, &LPC_CASE, |it, _| it.seen.push(2));
    });
    assert_eq!(seen(world, new, 1), [2]);
    assert_eq!(world.node().vanished(), vanished + 1);
}

pub fn a_panic_costs_one_resident(world: &mut World) {
    let (one, other) = (keeper(world, 1), keeper(world, 1));
    let residents = world.node().worker(WorkerId(1)).residents();
    world.lost += 1;
    world.on(0, move |ctx| {
        ctx.post(one, &LPC_CASE, |_, _| panic!("on purpose"));
        ctx.post(one, &LPC_CASE, |it, _| it.seen.push(1));
        ctx.post(other, &LPC_CASE, |it, _| it.seen.push(2));
    });
    assert_eq!(seen(world, other, 1), [2]);
    let lost = world.node().first_poisoned().cloned().unwrap();
    assert_eq!((lost.addr, lost.code.name()), (one.raw(), "LPC_CASE"));
    assert_eq!(lost.text, "on purpose");
    assert!(!world.on(1, move |ctx| ctx.is_here(one)));
    assert_eq!(world.node().worker(WorkerId(1)).residents(), residents - 1);
}

struct Fragile;
impl Resident for Fragile {
    fn on_close(&mut self, _: &mut Ctx<'_>) {
        panic!("at the end");
    }
}

pub fn a_panic_at_the_end_costs_one_resident(world: &mut World) {
    let other = keeper(world, 1);
    let residents = world.node().worker(WorkerId(1)).residents();
    world.lost += 2;
    world.on(0, move |ctx| {
        let place = Place::Worker(WorkerId(1));
        let fragile = ctx.spawn(place, &LPC_CASE, |_, _| Fragile);
        ctx.close(fragile);
        ctx.spawn(place, &LPC_CASE, |_, _| -> Fragile { panic!("at the beginning") });
        ctx.post(other, &LPC_CASE, |it, _| it.seen.push(1));
    });
    assert_eq!(seen(world, other, 1), [1], "the worker goes on");
    world.wait("both losses", |world| (world.node().poisoned() == 2).then_some(()));
    assert_eq!(world.node().worker(WorkerId(1)).residents(), residents, "no slot is lost");
}
