//! Waits until a ClientHello is whole, and takes none of it: a peer that has said a part of one and goes on no
//! further holds no place of those that have.
//!
//! Not here: deadlines, and what it says. What is no ClientHello counts as a whole one: TLS refuses it at once.
//!
//! Invariant: nothing is taken from the socket, and nothing is kept while it is waited for more.

use std::io;
use std::os::fd::AsRawFd;

use nix::sys::socket::{MsgFlags, recv};
use packetlab::tls::Hello;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// More than the largest TLS record is never looked at.
const LOOKED_AT_LEN_MAX: usize = 5 + 16 * 1024;

/// Waits for it, or for `len_max` bytes: whoever has sent as much may go on.
///
/// # Errors
/// The connection broke, or its peer has said all that it will.
pub(crate) async fn whole_hello(stream: &TcpStream, len_max: usize) -> io::Result<()> {
    let len_max = len_max.min(LOOKED_AT_LEN_MAX);
    loop {
        // Asked before the look, so that the look sees everything that came before the end.
        let has_ended = stream.ready(Interest::READABLE).await?.is_read_closed();
        match stream.try_io(Interest::READABLE, || look(stream, len_max)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if has_ended {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            whole => return whole,
        }
    }
}

/// It would block if more is needed.
fn look(stream: &TcpStream, len_max: usize) -> io::Result<()> {
    let mut bytes = vec![0; len_max];
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    let len = recv(stream.as_raw_fd(), &mut bytes, flags)?;
    let mut seen = bytes.get(..len).unwrap_or_default();
    let is_whole = !matches!(Hello::default().receive(&mut seen), Ok(None));
    if is_whole || len == len_max { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use packetlab::tls::{self, PeerRule};
    use packetlab::trust::TrustMode;
    use rustls::ClientConnection;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.set_nodelay(true).unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    fn hello() -> Vec<u8> {
        let rule = PeerRule { mode: TrustMode::Agent, anchors: Vec::new(), mandatory: true };
        let config = tls::client_config(None, rule).unwrap();
        let mut tls = ClientConnection::new(config, tls::server_name(None).unwrap()).unwrap();
        let mut bytes = Vec::new();
        tls.write_tls(&mut bytes).unwrap();
        bytes
    }

    #[tokio::test]
    async fn a_hello_is_waited_for_to_its_last_byte_and_left_where_it_is() {
        let (mut client, mut server) = pair().await;
        let hello = hello();
        for len in 1..hello.len() {
            client.write_all(&hello[len - 1..len]).await.unwrap();
            let waiting = timeout(Duration::ZERO, whole_hello(&server, usize::MAX)).await;
            assert!(waiting.is_err(), "{len} bytes: {waiting:?}");
        }
        client.write_all(&hello[hello.len() - 1..]).await.unwrap();
        timeout(LONG, whole_hello(&server, usize::MAX)).await.unwrap().unwrap();
        let mut read = vec![0; hello.len()];
        server.read_exact(&mut read).await.unwrap();
        assert_eq!(read, hello);
    }

    /// Records of one byte each make the beginning of a hello that never ends.
    #[tokio::test]
    async fn whole_records_are_no_whole_hello() {
        let (mut client, server) = pair().await;
        client.write_all(&[22, 3, 1, 0, 1, 1, 22, 3, 1, 0, 1, 0]).await.unwrap();
        assert!(timeout(LONG / 100, whole_hello(&server, usize::MAX)).await.is_err());
    }

    #[tokio::test]
    async fn what_is_no_hello_and_what_is_too_long_is_not_waited_for() {
        let endless = [&[22, 3, 1, 0x40, 0, 1, 0, 0xFF, 0][..], &[0; LOOKED_AT_LEN_MAX]].concat();
        for bytes in [&b"GET / HTTP/1.0\r\n\r\n"[..], &endless] {
            let (mut client, server) = pair().await;
            client.write_all(bytes).await.unwrap();
            timeout(LONG, whole_hello(&server, usize::MAX)).await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn the_end_within_a_hello_is_noticed() {
        for bytes in [&hello()[..9], &[]] {
            let (mut client, server) = pair().await;
            client.write_all(bytes).await.unwrap();
            drop(client);
            let error = timeout(LONG, whole_hello(&server, usize::MAX)).await.unwrap().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }
}
