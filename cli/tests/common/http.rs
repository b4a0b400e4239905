//! A request over HTTP/1.1, and metrics read.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::manager::{Manager, PATIENCE};

/// Where this manager tells metrics.
pub fn metrics_address(manager: &Manager) -> SocketAddr {
    let line = manager.says("metrics, ready and healthz are at http://");
    line.rsplit("http://").next().unwrap().parse().unwrap()
}

/// Asks for this path, on a stream that is connected; the status and the body.
pub fn ask(stream: impl Read + Write, method: &str, path: &str) -> (u16, String) {
    let (status, _, body) = ask_at(stream, "localhost", method, path);
    (status, body)
}

/// The same under the name of a host; with the head of the answer.
pub fn ask_at(
    stream: impl Read + Write,
    host: &str,
    method: &str,
    path: &str,
) -> (u16, String, String) {
    ask_with(stream, &[("Host", host)], method, path)
}

/// The same with these headers.
pub fn ask_with(
    mut stream: impl Read + Write,
    headers: &[(&str, &str)],
    method: &str,
    path: &str,
) -> (u16, String, String) {
    let headers = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
    let headers: String = headers.collect();
    let request = format!("{method} {path} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a whole head");
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_owned(), body.to_owned())
}

/// Gets this path.
pub fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    ask(stream, "GET", path)
}

/// The samples of `/metrics` by their names and labels, as they are written.
pub fn metrics(address: SocketAddr) -> BTreeMap<String, f64> {
    let (status, text) = get(address, "/metrics");
    assert_eq!(status, 200);
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let samples = samples.map(|line| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap())
    });
    samples.collect()
}
