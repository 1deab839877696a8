//! Sockets: connect, accept, partial reads and writes, ends, resets, refusals.

use crate::world::{Ready, World};
use std::io::{ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

/// Bytes that tell their position.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n ^ (n >> 8) ^ (n >> 16)) as u8).collect()
}

pub fn both_ends_know_each_other(world: &mut World) {
    let (listener, addr) = world.listen(1);
    assert!(addr.ip().is_loopback() && addr.port() != 0, "{addr}");
    let near = world.start_connect(0, addr);
    let accepted = world.accept(1, listener);
    let peer = accepted.peer;
    let far = world.adopt(1, accepted);
    world.connected(0, near).unwrap();
    assert_eq!(world.on(0, move |ctx| ctx.local_addr(near)).unwrap(), peer);
    assert_eq!(world.on(1, move |ctx| ctx.local_addr(far)).unwrap(), addr);
}

pub fn accepting_without_a_caller_would_block(world: &mut World) {
    let (listener, addr) = world.listen(0);
    let refused = world.on(0, move |ctx| ctx.accept(listener)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::WouldBlock);
    let near = world.start_connect(0, addr);
    world.accept(0, listener);
    world.connected(0, near).unwrap();
    let refused = world.on(0, move |ctx| ctx.accept(listener)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::WouldBlock, "one call, one connection");
}

pub fn an_accepted_connection_may_move_to_another_worker(world: &mut World) {
    let (listener, addr) = world.listen(0);
    let near = world.start_connect(0, addr);
    let accepted = world.accept(0, listener);
    world.connected(0, near).unwrap();
    world.write_all(0, near, b"before");
    // What arrived before the connection had an owner is reported to the one it gets.
    world.pass(5 * MS);
    let far = world.adopt(1, accepted);
    world.event(1, far, Ready::Read);
    assert_eq!(world.read_exact(1, far, 6), b"before");
    world.write_all(1, far, b"after");
    assert_eq!(world.read_exact(0, near, 5), b"after");
}

pub fn bytes_arrive_in_order_and_whole(world: &mut World) {
    let (near, far) = world.pair(0, 1);
    let mut sent = Vec::new();
    let mut got = Vec::new();
    for len in [1, 2, 100, 4_095, 4_096, 70_000, 3] {
        let data = pattern(sent.len() + len)[sent.len()..].to_vec();
        world.write_all(0, near, &data);
        sent.extend(data);
        got.extend(world.read_exact(1, far, len));
        world.write_all(1, far, &len.to_le_bytes());
        assert_eq!(world.read_exact(0, near, size_of::<usize>()), len.to_le_bytes());
    }
    assert_eq!(got, sent);
}

pub fn empty_and_many_buffers_are_written_as_one_stream(world: &mut World) {
    let (near, far) = world.pair(0, 1);
    let sent = pattern(40_000);
    let mut rest = sent.clone();
    let written = world.on(0, move |ctx| {
        let mut total = 0;
        while !rest.is_empty() {
            let pieces: Vec<&[u8]> = rest.chunks(97).take(100).collect();
            let mut slices = vec![IoSlice::new(&[])];
            slices.extend(pieces.iter().map(|piece| IoSlice::new(piece)));
            let count = ctx.writev(near, &slices).unwrap();
            rest.drain(..count);
            total += count;
        }
        total
    });
    assert_eq!(written, sent.len());
    assert_eq!(world.read_exact(1, far, sent.len()), sent);
    assert_eq!(world.on(0, move |ctx| ctx.writev(near, &[])).unwrap(), 0);
}

pub fn a_full_connection_would_block_and_tells_when_there_is_room(world: &mut World) {
    let (near, far) = world.pair(0, 1);
    let chunk = pattern(64 << 10);
    let mut sent = 0;
    loop {
        match world.write(0, near, &chunk) {
            Ok(count) => sent += count,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                break;
            }
        }
        assert!(sent < 256 << 20, "a connection holds a bounded number of bytes");
    }
    assert!(sent > 0);
    world.forget_events();
    let got = world.read_exact(1, far, sent);
    assert_eq!(got.len(), sent);
    world.event(0, near, Ready::Write);
    world.write_all(0, near, b"more");
    assert_eq!(world.read_exact(1, far, 4), b"more");
}

pub fn reading_without_data_would_block(world: &mut World) {
    let (near, far) = world.pair(0, 1);
    for (worker, sock) in [(0, near), (1, far)] {
        let outcome = world.on(worker, move |ctx| ctx.read(sock, &mut [0; 10]));
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::WouldBlock);
    }
    world.write_all(0, near, b"abcdef");
    assert_eq!(world.read(1, far, 1).unwrap(), b"a", "no more than there is room for");
    assert_eq!(world.read_exact(1, far, 5), b"bcdef");
}

pub fn the_end_of_a_stream_follows_its_data(world: &mut World) {
    let (near, far) = world.pair(0, 1);
    let sent = pattern(200_000);
    world.write_all(0, near, &sent[..100_000]);
    world.write_all(0, near, &sent[100_000..]);
    world.close(0, near);
    let (got, end) = world.read_to_end(1, far);
    assert_eq!(got, sent);
    assert!(end.is_ok(), "{end:?}");
    assert_eq!(world.read(1, far, 10).unwrap(), b"", "the end stays the end");
}

pub fn a_short_read_is_followed_by_an_event_for_the_end(world: &mut World) {
    let (near, far) = world.pair(0, 1);
    world.write_all(0, near, b"last words");
    world.close(0, near);
    world.pass(20 * MS);
    let mut got = Vec::new();
    loop {
        // As a careful caller does: a read that is short drained the socket, the next one waits for an event.
        world.event(1, far, Ready::Read);
        loop {
            let outcome = world.on(1, move |ctx| {
                let mut buf = [0; 64];
                ctx.read(far, &mut buf).map(|count| buf[..count].to_vec())
            });
            match outcome {
                Ok(piece) if piece.is_empty() => {
                    assert_eq!(got, b"last words");
                    return;
                }
                Ok(piece) => {
                    let short = piece.len() < 64;
                    got.extend(piece);
                    if short {
                        break;
                    }
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    break;
                }
            }
        }
    }
}

pub fn unread_data_at_close_resets_the_peer(world: &mut World) {
    let (near, far) = world.pair(0, 1);
    world.write_all(0, near, b"never read");
    world.event(1, far, Ready::Read);
    world.close(1, far);
    world.event(0, near, Ready::Read);
    let (got, end) = world.read_to_end(0, near);
    assert_eq!(got, b"");
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    let after = world.read(0, near, 10);
    assert_eq!(after.unwrap(), b"", "the error is told once");
}

pub fn writing_to_a_closed_peer_fails(world: &mut World) {
    let (near, far) = world.pair(0, 1);
    world.close(1, far);
    let failed = world.wait("a write to fail", |world| match world.write(0, near, b"anyone?") {
        Ok(_) => None,
        Err(error) => Some(error.kind()),
    });
    assert!(matches!(failed, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{failed:?}");
}

pub fn a_half_closed_connection_still_answers(world: &mut World) {
    let (near, far) = world.pair(0, 1);
    world.write_all(0, near, b"question");
    world.on(0, move |ctx| ctx.finish_writing(near)).unwrap();
    let refused = world.write(0, near, b"more").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::BrokenPipe);
    let (got, end) = world.read_to_end(1, far);
    assert_eq!(got, b"question");
    assert!(end.is_ok(), "the end of the stream, not of the connection");
    let answer = pattern(100_000);
    world.write_all(1, far, &answer[..50_000]);
    world.write_all(1, far, &answer[50_000..]);
    world.close(1, far);
    let (got, end) = world.read_to_end(0, near);
    assert_eq!(got, answer);
    assert!(end.is_ok(), "{end:?}");
}

/// An address where nobody listens.
fn nobody(world: &mut World) -> SocketAddr {
    let (listener, addr) = world.listen(1);
    world.close(1, listener);
    addr
}

pub fn a_refused_connect_says_so(world: &mut World) {
    let addr = nobody(world);
    let near = world.start_connect(0, addr);
    let refused = world.connected(0, near).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

pub fn an_address_in_use_is_refused(world: &mut World) {
    let (_, addr) = world.listen(0);
    for worker in [0, 1] {
        let refused = world.on(worker, move |ctx| ctx.listen(addr)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::AddrInUse);
    }
    let elsewhere = SocketAddr::from(([192, 0, 2, 1], 0));
    let refused = world.on(0, move |ctx| ctx.listen(elsewhere)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::AddrNotAvailable, "not an address of this host");
}

pub fn closing_a_listener_refuses_and_frees_its_address(world: &mut World) {
    let addr = nobody(world);
    let near = world.start_connect(0, addr);
    assert!(world.connected(0, near).is_err());
    let again = world.on(1, move |ctx| ctx.listen(addr)).unwrap();
    assert_eq!(world.on(1, move |ctx| ctx.local_addr(again)).unwrap(), addr);
}

pub fn connections_waiting_at_a_closed_listener_end(world: &mut World) {
    let (listener, addr) = world.listen(1);
    let near = world.start_connect(0, addr);
    world.event(1, listener, Ready::Read);
    world.connected(0, near).unwrap();
    world.close(1, listener);
    let (got, end) = world.read_to_end(0, near);
    assert_eq!(got, b"");
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset, "nobody has taken it");
}

pub fn a_dropped_accepted_connection_is_closed(world: &mut World) {
    let (listener, addr) = world.listen(1);
    let near = world.start_connect(0, addr);
    drop(world.accept(1, listener));
    world.connected(0, near).unwrap();
    let (got, end) = world.read_to_end(0, near);
    assert_eq!(got, b"");
    assert!(end.is_ok(), "nothing was unread: {end:?}");
}

pub fn a_closed_socket_is_no_socket(world: &mut World) {
    let (near, _) = world.pair(0, 1);
    world.close(0, near);
    world.close(0, near);
    let errors = world.on(0, move |ctx| {
        [
            ctx.read(near, &mut [0; 10]).unwrap_err().kind(),
            ctx.writev(near, &[IoSlice::new(b"x")]).unwrap_err().kind(),
            ctx.local_addr(near).unwrap_err().kind(),
            ctx.accept(near).unwrap_err().kind(),
            ctx.connect_result(near).unwrap_err().kind(),
            ctx.finish_writing(near).unwrap_err().kind(),
        ]
    });
    assert_eq!(errors, [ErrorKind::NotConnected; 6]);
}

pub fn events_of_a_closed_socket_reach_nobody(world: &mut World) {
    let (near, far) = world.pair(0, 1);
    world.pass(5 * MS);
    world.close(0, near);
    world.forget_events();
    world.write(1, far, b"too late").unwrap();
    world.pass(20 * MS);
    let late = world.events_so_far(0);
    assert!(late.iter().all(|event| event.sock != near), "{late:?}");
}
