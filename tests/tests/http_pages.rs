//! The HTTP pages of real servers, as an operator or a monitoring system asks for them.
#![expect(clippy::disallowed_methods, reason = "a native test lives outside the runtime")]

use cluster_tests::onebox::{Onebox, OneboxOptions};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Status and body of a page.
fn get(server: SocketAddr, target: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(server).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    let request = format!("GET {target} HTTP/1.1\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("ask");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.expect("a status"), body.to_owned())
}

fn json(server: SocketAddr, target: &str) -> Value {
    let (status, body) = get(server, target);
    assert_eq!(status, 200, "{target}: {body}");
    serde_json::from_str(&body).unwrap_or_else(|error| panic!("{target}: {error}: {body}"))
}

#[test]
fn every_server_answers_operators_and_monitoring() {
    let onebox = Onebox::start("http", &OneboxOptions::single());
    for (role, server) in [("meta", onebox.meta()), ("replica", onebox.replica(1))] {
        let version = json(server, "/version");
        assert_eq!(version["Version"], env!("CARGO_PKG_VERSION"), "{role}");
        assert!(version["GitCommit"].as_str().is_some_and(|commit| !commit.is_empty()), "{role}");
        let started = json(server, "/recentStartTime");
        assert_eq!(started["RecentStartTime"].as_str().map(str::len), Some(19), "{started}");
        let configs = json(server, "/configs");
        assert!(configs["network.max_frame_bytes"]["value"].is_string(), "{role}");
        let metrics = json(server, "/metrics?types=server&metrics=network_accepted");
        assert_eq!((&metrics["role"], &metrics["port"]), (&role.into(), &server.port().into()));
        let entities = metrics["entities"].as_array().expect("entities");
        assert_eq!(entities.len(), 1, "{metrics:#}");
        assert!(entities[0]["metrics"][0]["value"].as_u64() > Some(0), "{metrics:#}");
        let (status, text) = get(server, "/metrics?format=prometheus");
        assert_eq!(status, 200);
        let line = text.lines().find(|line| line.starts_with("network_accepted{"));
        assert!(line.is_some_and(|line| line.contains(&format!("role=\"{role}\""))), "{text}");
        assert_eq!(get(server, "/metrics?colour=red").0, 400);
        assert!(get(server, "/command?name=help").1.contains("\nhelp [command] - Lists"));
        let (status, text) = get(server, "/no/such/page");
        assert_eq!(status, 404);
        assert!(text.starts_with("service not found for \"no/such/page\"\n"), "{text}");
        for page in ["/version", "/metrics", "/configs", "/recentStartTime", "/command"] {
            assert!(text.contains(&format!("\n{page}  ")), "{page} is listed: {text}");
        }
    }
    assert!(json(onebox.meta(), "/envs/list")["default_ttl"]["sample"].is_string());
}
