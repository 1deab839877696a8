//! Clocks, timers, and how a parked worker wakes.

use crate::world::{LPC_CASE, Ready, World};
use crossbeam::channel::unbounded;
use dsn_core::exec::{Ctx, Resident, WorkerId};
use dsn_core::time::Mono;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

pub fn the_monotonic_clock_never_goes_back(world: &mut World) {
    let mut last = Mono::ZERO;
    for _ in 0..50 {
        let (begun, read) = world.on(0, |ctx| (ctx.now(), ctx.clock()));
        assert!(begun > last || last == Mono::ZERO, "time passes between events");
        assert!(read >= begun, "a look at the clock is not earlier than the event");
        last = read;
    }
    world.pass(25 * MS);
    let (now, wall) = world.on(0, |ctx| (ctx.clock(), ctx.wall()));
    assert!(now.saturating_since(last) >= 20 * MS);
    assert!(wall.unix_seconds() > 1_700_000_000, "the wall clock shows a date of our time");
}

pub fn workers_share_their_clocks(world: &mut World) {
    let mut last = Mono::ZERO;
    for round in 0..20 {
        let now = world.on(round % 2, |ctx| ctx.clock());
        assert!(now >= last, "what happens later is later, whichever worker looks");
        last = now;
        // Long enough for the first event to have ended: simulated workers do run at the same time.
        world.pass(MS);
    }
}

pub fn timers_fire_in_order_and_never_early(world: &mut World) {
    let probe = world.probes[0];
    let (tell, told) = unbounded();
    let delays = [30, 5, 0, 17, 5, 300];
    let armed = world.on(0, move |ctx| {
        for (index, delay) in delays.into_iter().enumerate() {
            let tell = tell.clone();
            ctx.after(probe, &LPC_CASE, delay * MS, move |_, ctx| {
                tell.send((index, ctx.now())).unwrap();
            });
        }
        ctx.now()
    });
    let fired: Vec<(usize, Mono)> =
        delays.iter().map(|_| world.receive("a timer", &told)).collect();
    let order: Vec<usize> = fired.iter().map(|(index, _)| *index).collect();
    assert_eq!(order, [2, 1, 4, 3, 0, 5], "by time, then by order of arming");
    for (index, at) in fired {
        assert!(at.saturating_since(armed) >= delays[index] * MS, "timer {index} is early");
    }
}

pub fn a_disarmed_timer_stays_silent(world: &mut World) {
    let probe = world.probes[0];
    let (tell, told) = unbounded();
    let timer = world
        .on(0, move |ctx| ctx.after(probe, &LPC_CASE, 20 * MS, move |_, _| tell.send(()).unwrap()));
    assert!(world.on(0, move |ctx| ctx.cancel(timer)), "it was armed");
    assert!(!world.on(0, move |ctx| ctx.cancel(timer)), "and is no longer");
    world.pass(60 * MS);
    assert!(told.try_recv().is_err());
    let fired = world.on(0, move |ctx| ctx.after(probe, &LPC_CASE, MS, |_, _| ()));
    world.pass(30 * MS);
    assert!(!world.on(0, move |ctx| ctx.cancel(fired)), "what has fired is not armed");
}

struct Idle;
impl Resident for Idle {}

pub fn timers_vanish_with_their_resident(world: &mut World) {
    let (tell, told) = unbounded::<()>();
    let vanished = world.node().vanished();
    world.on(0, move |ctx| {
        let idle = ctx.spawn_here(|_, _| Idle);
        ctx.after(idle, &LPC_CASE, 5 * MS, move |_, _| tell.send(()).unwrap());
        ctx.close(idle);
    });
    world.wait("the timer to be counted", |world| {
        (world.node().vanished() == vanished + 1).then_some(())
    });
    assert!(told.try_recv().is_err());
}

pub fn a_period_repeats_until_its_resident_ends(world: &mut World) {
    let (tell, told) = unbounded();
    let idle = world.on(0, move |ctx| {
        let idle = ctx.spawn_here(|_, _| Idle);
        ctx.every(idle, &LPC_CASE, 3 * MS, move |_, ctx| tell.send(ctx.now()).unwrap());
        idle
    });
    let times: Vec<Mono> = (0..5).map(|_| world.receive("the next beat", &told)).collect();
    assert!(times.windows(2).all(|pair| pair[1].saturating_since(pair[0]) >= 3 * MS));
    world.on(0, move |ctx| ctx.close(idle));
    told.try_iter().for_each(drop);
    world.pass(30 * MS);
    assert!(told.try_recv().is_err());
}

pub fn a_parked_worker_wakes_for_a_post(world: &mut World) {
    let probe = world.probes[1];
    for _ in 0..10 {
        // Long enough that both workers have nothing to do and park without a timer.
        world.pass(5 * MS);
        let (tell, told) = unbounded();
        world.on(0, move |ctx| {
            ctx.post(probe, &LPC_CASE, move |_, ctx| tell.send(ctx.worker()).unwrap());
        });
        assert_eq!(world.receive("the post", &told), WorkerId(1));
    }
}

pub fn a_parked_worker_wakes_for_a_socket(world: &mut World) {
    let (near, far) = world.pair(0, 1);
    for round in 0..10_u8 {
        world.pass(5 * MS);
        world.write_all(0, near, &[round]);
        assert_eq!(world.read_exact(1, far, 1), [round]);
    }
}

/// Keeps its worker busy: each event posts the next one.
struct Busy {
    left: u32,
}
impl Resident for Busy {}

fn spin(busy: &mut Busy, ctx: &mut Ctx<'_>, me: dsn_core::exec::Addr<Busy>) {
    busy.left -= 1;
    if busy.left > 0 {
        ctx.post(me, &LPC_CASE, move |busy, ctx| spin(busy, ctx, me));
    }
}

pub fn a_busy_worker_still_sees_timers_and_sockets(world: &mut World) {
    let probe = world.probes[1];
    let (near, far) = world.pair(0, 1);
    let (tell, told) = unbounded();
    let busy = world.on(1, move |ctx| {
        let busy = ctx.spawn_here(|_, _| Busy { left: u32::MAX });
        ctx.post(busy, &LPC_CASE, move |it, ctx| spin(it, ctx, busy));
        ctx.after(probe, &LPC_CASE, 5 * MS, move |_, ctx| tell.send(ctx.is_here(busy)).unwrap());
        busy
    });
    world.write_all(0, near, b"x");
    world.event(1, far, Ready::Read);
    assert!(world.receive("the timer", &told), "while the worker is busy");
    world.on(1, move |ctx| ctx.close(busy));
}
