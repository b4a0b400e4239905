//! `mlet-dns` at real endpoints, with servers that lie, that are silent, and that have more to say than fits a datagram.

use super::*;

/// What the original's recorded DNS server answers, to a question of this number.
const DNS_ANSWER: &[u8] =
    b"\x15\xbe\x85\x80\0\x01\0\x01\0\0\0\0\x03www\x07example\x03com\0\0\x01\0\x01\
    \xc0\x0c\0\x01\0\x01\0\0\0\0\0\x04\xc0\0\x02\x07";

/// Answers with lies first: from another port, to another question, and with an address of five bytes. None of
/// them is the right answer's address.
async fn dns_server() -> SocketAddr {
    let server = UdpSocket::bind(TARGET).await.unwrap();
    let stranger = UdpSocket::bind(TARGET).await.unwrap();
    let address = server.local_addr().unwrap();
    tokio::spawn(async move {
        let mut question = [0; 512];
        loop {
            let (_, mlet) = server.recv_from(&mut question).await.unwrap();
            let mut right = DNS_ANSWER.to_vec();
            right[..2].copy_from_slice(&question[..2]);
            let mut lie = right.clone();
            *lie.last_mut().unwrap() = 66;
            let mut other_number = lie.clone();
            other_number[1] ^= 1;
            let mut five_bytes = [&lie[..], &[66]].concat();
            let len_at = five_bytes.len() - 6;
            five_bytes[len_at] = 5;
            stranger.send_to(&lie, mlet).await.unwrap();
            for answer in [other_number, five_bytes, right] {
                server.send_to(&answer, mlet).await.unwrap();
            }
        }
    });
    address
}

#[tokio::test]
async fn dns_finds_the_address() {
    let server = dns_server().await.to_string();
    let (home, output) = run(2, &[], &program("mlet-dns"), &["www.example.com", &server]).await;
    let mut endpoints: Vec<&str> = output.iter().map(|line| columns(&home, line)[0]).collect();
    endpoints.sort_unstable();
    assert_eq!(endpoints, ["127.1.0.1", "127.1.0.2"]);
    for line in &output {
        let columns = columns(&home, line);
        assert_eq!(columns[1..3], ["www.example.com", server.as_str()]);
        assert!(columns[3].parse::<f64>().unwrap() >= 0.0, "{line}");
        assert_eq!(columns[4..], ["192.0.2.7", "udp"]);
    }
}

#[tokio::test]
async fn dns_gives_up_on_a_server_that_does_not_answer() {
    let server = UdpSocket::bind(TARGET).await.unwrap();
    let address = server.local_addr().unwrap();
    let script = format!("{} www.example.com {address} 2>&1; true", program("mlet-dns").display());
    let (home, output) = run(1, &[], Path::new("/bin/sh"), &["-c", &script]).await;
    let endpoint = told(&home, "127.1.0.1");
    let told = format!("mlet-dns: {endpoint}: {address} did not answer within 5 s");
    assert_eq!(output, [told]);
    assert!(server.try_recv(&mut [0; 512]).is_ok(), "it was asked");
}

/// A server of which each answer is truncated, and the addresses of 99 hosts are told over TCP, in pieces.
async fn large_dns_server() -> SocketAddr {
    let (listener, datagrams) = loop {
        let listener = TcpListener::bind(TARGET).await.unwrap();
        // Whoever has this port already has it for both.
        if let Ok(datagrams) = UdpSocket::bind(listener.local_addr().unwrap()).await {
            break (listener, datagrams);
        }
    };
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut question = [0; 512];
        loop {
            let (len, mlet) = datagrams.recv_from(&mut question).await.unwrap();
            question[2] |= 0x82;
            datagrams.send_to(&question[..len], mlet).await.unwrap();
        }
    });
    tokio::spawn(async move {
        loop {
            let (mut mlet, _) = listener.accept().await.unwrap();
            let len = usize::from(mlet.read_u16().await.unwrap());
            let mut answer = vec![0; len];
            mlet.read_exact(&mut answer).await.unwrap();
            answer[2] |= 0x80;
            answer[7] = 99;
            for last in 1..=99 {
                answer.extend_from_slice(b"\xc0\x0c\0\x01\0\x01\0\0\0\0\0\x04\xc0\0\x02");
                answer.push(last);
            }
            let whole = [&(answer.len() as u16).to_be_bytes()[..], &answer].concat();
            for piece in whole.chunks(1000) {
                mlet.write_all(piece).await.unwrap();
            }
        }
    });
    address
}

#[tokio::test]
async fn dns_asks_again_over_tcp_for_what_does_not_fit_a_datagram() {
    let server = large_dns_server().await.to_string();
    let (home, output) = run(2, &[], &program("mlet-dns"), &["www.example.com", &server]).await;
    assert_eq!(output.len(), 2, "{output:?}");
    let addresses: Vec<_> = (1..=99).map(|last| format!("192.0.2.{last}")).collect();
    for line in &output {
        let columns = columns(&home, line);
        assert_eq!(columns[1..3], ["www.example.com", server.as_str()]);
        assert_eq!(columns[4..], [&addresses.join(" "), "tcp"]);
    }
}
