//! Example mlets where everything is IPv6: `pktxpmgr`, `pktfleet endpoint` and the servers that the endpoint
//! measures are reached over `[::1]`.

#![expect(clippy::unwrap_used, reason = "a helper of tests may panic like a test")]

mod measuring;

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv6Addr, TcpListener, UdpSocket};
use std::thread;

use measuring::{Home, program};
use packetlab::key::PublicKey;

const LOOPBACK: (Ipv6Addr, u16) = (Ipv6Addr::LOCALHOST, 0);

/// The line of a mlet at an endpoint there.
fn measured(home: &Home, mlet: &[&str]) -> String {
    home.measure(Ipv6Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into(), mlet)
}

#[test]
#[ignore = "needs IPv6 on loopback"]
fn a_page_is_fetched_from_an_ipv6_server() {
    let home = Home::new("page");
    let listener = TcpListener::bind(LOOPBACK).unwrap();
    let server = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        let (mut visitor, address) = listener.accept().unwrap();
        let mut request = [0; 1000];
        let len = visitor.read(&mut request).unwrap();
        let request = request[..len].escape_ascii();
        write!(visitor, "HTTP/1.0 200 OK\r\n\r\n{} {request}", address.ip()).unwrap();
    });
    let line = measured(&home, &[&program("mlet-http-get"), &server, "/path"]);
    let key = PublicKey::from_pem(&fs::read(home.path("keys/k_ep.pub")).unwrap()).unwrap().key_id();
    let request = format!(r"GET /path HTTP/1.0\\r\\nHost: {server}\\r\\n\\r\\n");
    assert_eq!(line, format!("{key}\t::1\tHTTP/1.0 200 OK\t::1 {request}\n"));
}

#[test]
#[ignore = "needs IPv6 on loopback"]
fn a_name_is_asked_of_an_ipv6_server() {
    let home = Home::new("name");
    let socket = UdpSocket::bind(LOOPBACK).unwrap();
    let server = socket.local_addr().unwrap().to_string();
    thread::spawn(move || {
        let mut message = [0; 512];
        let (len, asker) = socket.recv_from(&mut message).unwrap();
        // The question again, marked as an answer, and one A record for its name.
        message[2] |= 0x80;
        message[7] = 1;
        let record = b"\xc0\x0c\0\x01\0\x01\0\0\0\0\0\x04\xc0\0\x02\x07";
        socket.send_to(&[&message[..len], record].concat(), asker).unwrap();
    });
    let line = measured(&home, &[&program("mlet-dns"), "www.example.com", &server]);
    let columns: Vec<&str> = line.trim_end().split('\t').collect();
    assert_eq!(columns[1..4], ["::1", "www.example.com", &server]);
    assert!(columns[4].parse::<f64>().unwrap() > 0.0, "{line}");
    assert_eq!(columns[5..], ["192.0.2.7", "udp"]);
}
