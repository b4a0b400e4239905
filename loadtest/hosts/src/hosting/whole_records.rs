//! A TCP connection on which a TLS record that has begun has to be whole in time, and that takes only so
//! much before its handshake is over: half a record, or an endless handshake, holds memory.
//!
//! Not here: TLS itself, and the deadline of the handshake.
//!
//! Invariant: what is read is what was received, byte for byte.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

/// Bytes that a client may send before its handshake is over: a ClientHello and one certificate have 3 KiB.
const HANDSHAKE_LEN_MAX: usize = 32 * 1024;
/// Between two looks whether a peer has left that has sent what is not taken.
const LOOK_PAUSE: Duration = Duration::from_millis(500);
/// Type, version, length.
const HEADER_LEN: usize = 5;

/// The connection.
#[derive(Debug)]
pub(crate) struct WholeRecords {
    stream: TcpStream,
    record: Record,
    limit: Duration,
    /// Runs while a record is incomplete.
    deadline: Option<Pin<Box<Sleep>>>,
    /// Bytes that may still come.
    allowance: Option<usize>,
}

impl WholeRecords {
    /// Each record may take so long from its first byte to its last.
    pub(crate) fn new(stream: TcpStream, limit: Duration) -> Self {
        let allowance = Some(HANDSHAKE_LEN_MAX);
        Self { stream, record: Record::default(), limit, deadline: None, allowance }
    }

    /// The handshake is over.
    pub(crate) fn has_shaken_hands(&mut self) {
        self.allowance = None;
    }

    /// Waits until the peer has closed its side, and takes nothing of what it has sent before.
    pub(crate) async fn left(&self) {
        while let Ok(ready) = self.stream.ready(Interest::READABLE).await {
            if ready.is_read_closed() {
                return;
            }
            // What has come stays there, and tells nothing new.
            sleep(LOOK_PAUSE).await;
        }
    }

    fn received(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(allowance) = &mut self.allowance {
            *allowance = allowance.checked_sub(bytes.len()).ok_or_else(|| {
                let max = HANDSHAKE_LEN_MAX;
                io::Error::other(format!("more than {max} bytes before the handshake was over"))
            })?;
        }
        if self.record.follow(bytes) {
            self.deadline = None;
        }
        Ok(())
    }
}

/// Where in a record the stream is.
#[derive(Debug, Default)]
struct Record {
    header: [u8; HEADER_LEN],
    header_len: usize,
    /// Bytes of its body that are still to come.
    body_left: usize,
}

impl Record {
    fn is_begun(&self) -> bool {
        self.header_len > 0
    }

    /// Takes the next bytes of the stream; whether a record has ended in them.
    fn follow(&mut self, mut bytes: &[u8]) -> bool {
        let mut has_ended = false;
        while let Some((byte, rest)) = bytes.split_first() {
            if let Some(place) = self.header.get_mut(self.header_len) {
                *place = *byte;
                self.header_len += 1;
                bytes = rest;
                let [_, _, _, high, low] = self.header;
                self.body_left = u16::from_be_bytes([high, low]).into();
            } else {
                let taken = self.body_left.min(bytes.len());
                self.body_left -= taken;
                bytes = bytes.get(taken..).unwrap_or_default();
            }
            if self.header_len == HEADER_LEN && self.body_left == 0 {
                self.header_len = 0;
                has_ended = true;
            }
        }
        has_ended
    }
}

impl AsyncRead for WholeRecords {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Ready(Ok(())) => {
                let received = buffer.filled().get(before..).unwrap_or_default();
                Poll::Ready(self.received(received))
            }
            Poll::Pending if self.record.is_begun() => {
                let limit = self.limit;
                let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(limit)));
                ready!(deadline.as_mut().poll(context));
                let late = format!("a TLS record took more than {} s", limit.as_secs_f64());
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, late)))
            }
            other => other,
        }
    }
}

impl AsyncWrite for WholeRecords {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    async fn pair() -> (TcpStream, WholeRecords) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (client, WholeRecords::new(listener.accept().await.unwrap().0, LONG))
    }

    #[tokio::test]
    async fn only_so_much_is_taken_before_the_handshake_is_over() {
        let bytes = vec![0; HANDSHAKE_LEN_MAX];
        for is_over in [false, true] {
            let (mut client, mut server) = pair().await;
            client.write_all(&bytes).await.unwrap();
            server.read_exact(&mut bytes.clone()).await.unwrap();
            if is_over {
                server.has_shaken_hands();
            }
            client.write_all(&[0]).await.unwrap();
            assert_eq!(server.read_exact(&mut [0]).await.is_ok(), is_over);
        }
    }

    #[tokio::test]
    async fn that_a_peer_has_left_is_noticed_behind_what_it_has_sent() {
        for sent in [&[][..], &[1]] {
            let (mut client, mut server) = pair().await;
            client.write_all(sent).await.unwrap();
            assert!(tokio::time::timeout(LOOK_PAUSE / 5, server.left()).await.is_err());
            drop(client);
            tokio::time::timeout(LONG, server.left()).await.unwrap();
            let mut taken = Vec::new();
            server.read_to_end(&mut taken).await.unwrap();
            assert_eq!(taken, sent);
        }
    }

    #[tokio::test]
    async fn a_record_that_comes_byte_by_byte_has_one_deadline() {
        let (mut client, mut server) = pair().await;
        server.limit = Duration::from_millis(300);
        // The first record is whole in time, and silence after it is not counted.
        client.write_all(&[22, 3, 1, 0, 1, 7]).await.unwrap();
        server.read_exact(&mut [0; 6]).await.unwrap();
        let silence = tokio::time::timeout(2 * server.limit, server.read(&mut [0])).await;
        assert!(silence.is_err());
        let trickling = tokio::spawn(async move {
            while client.write_all(&[1]).await.is_ok() {
                sleep(Duration::from_millis(20)).await;
            }
        });
        let error = loop {
            match tokio::time::timeout(LONG, server.read(&mut [0])).await.unwrap() {
                Ok(count) => assert_eq!(count, 1),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(server);
        trickling.await.unwrap();
    }

    #[test]
    fn records_are_followed_however_they_come() {
        let records = [&[22, 3, 1, 0, 2, 7, 7][..], &[23, 3, 3, 0, 0], &[23, 3, 3, 1, 0]].concat();
        for piece_len in 1..=records.len() {
            let mut record = Record::default();
            let ended = records.chunks(piece_len).filter(|piece| record.follow(piece)).count();
            assert!((1..=2).contains(&ended), "pieces of {piece_len}");
            assert!(record.is_begun(), "256 bytes are still to come");
            assert!(!record.follow(&[0; 255]));
            assert!(record.follow(&[0]));
            assert!(!record.is_begun());
        }
    }
}
