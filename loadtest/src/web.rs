//! A small HTTP/1.0 server whose page tells visitors apart: each source address gets a page with a
//! nonce made for that address alone, so that a page proves through which endpoint it was fetched.
//!
//! Not a general web server: every path gives the same page, every answer ends its connection.
//!
//! Invariant: a nonce is written only to the address it was made for.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// Longest request head that is read; what endpoints send is under 100 bytes.
const HEAD_LEN_MAX: usize = 8 * 1024;
/// A visitor that has not sent its request and taken its page by then is dropped.
const VISIT_TIMEOUT: Duration = Duration::from_secs(30);

/// The running server; it ends, with all its connections, when this is dropped.
#[derive(Debug)]
pub(crate) struct Web {
    address: SocketAddr,
    visits: Arc<Visits>,
    accepting: JoinHandle<()>,
}

/// What the server knows of its visitors.
#[derive(Debug, Default)]
struct Visits {
    /// A keyed hash with a random key per run: nobody can foretell a nonce, and none is stored.
    key: RandomState,
    connections: Mutex<HashMap<IpAddr, usize>>,
}

impl Web {
    /// Listens on `listen` (port 0: the kernel chooses) and serves until dropped. Needs a tokio runtime.
    ///
    /// # Errors
    /// The socket cannot be opened or bound.
    pub(crate) async fn start(listen: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let visits = Arc::new(Visits::default());
        let accepting = tokio::spawn(accept(listener, Arc::clone(&visits)));
        Ok(Self { address, visits, accepting })
    }

    /// Where the server listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The page that `visitor` gets, with the nonce made for it.
    pub(crate) fn page(&self, visitor: IpAddr) -> String {
        self.visits.page(visitor)
    }

    /// How many connections came from `visitor` so far.
    pub(crate) fn connections(&self, visitor: IpAddr) -> usize {
        let connections = self.visits.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.get(&visitor).copied().unwrap_or(0)
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Visits {
    fn count(&self, visitor: IpAddr) {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        *connections.entry(visitor).or_insert(0) += 1;
    }

    fn page(&self, visitor: IpAddr) -> String {
        format!("page for {visitor}, nonce {:016x}\n", self.key.hash_one(visitor))
    }
}

/// Accepts for ever; the visits belong to this task and end with it.
async fn accept(listener: TcpListener, visits: Arc<Visits>) {
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, visitor)) => {
                    visits.count(visitor.ip());
                    let answer = serve(stream, visitor.ip(), Arc::clone(&visits));
                    open.spawn(tokio::time::timeout(VISIT_TIMEOUT, answer));
                }
                // Out of fds or memory: others must end before accepting can succeed.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            },
            // Ended visits are collected as they end, so that the set holds open ones only.
            Some(_) = open.join_next() => {}
        }
    }
}

/// One visit. A visitor that fails is its own loss; the page it misses shows elsewhere.
async fn serve(mut stream: TcpStream, visitor: IpAddr, visits: Arc<Visits>) -> io::Result<()> {
    let (status, body) = match read_head(&mut stream).await? {
        Some(head) if head.starts_with(b"GET ") => ("200 OK", visits.page(visitor)),
        Some(_) => ("405 Method Not Allowed", "only GET is served\n".to_owned()),
        None => ("400 Bad Request", "no request of at most 8 KiB came\n".to_owned()),
    };
    let answer = format!(
        "HTTP/1.0 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    // Closing before the visitor has closed could turn unread input into a reset of the page.
    let mut rest = [0; 512];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

/// The request up to the empty line; `None` when it ends or grows too long before that.
async fn read_head(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut head = Vec::with_capacity(512);
    while head.len() < HEAD_LEN_MAX {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(None);
        }
        if head.windows(4).any(|window| window == b"\r\n\r\n") {
            return Ok(Some(head));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use tokio::net::TcpSocket;

    const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    /// Sends `request` in the given pieces from `source` and returns the whole answer.
    async fn visit(web: &Web, source: Ipv4Addr, request: &[&[u8]]) -> String {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(source.into(), 0)).unwrap();
        let mut stream = socket.connect(web.address()).await.unwrap();
        for piece in request {
            stream.write_all(piece).await.unwrap();
        }
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    fn nonce(page: &str) -> &str {
        page.trim_end().rsplit(' ').next().unwrap()
    }

    #[tokio::test]
    async fn each_address_gets_its_own_nonce_and_its_visits_are_counted() {
        let web = Web::start(LOOPBACK).await.unwrap();
        let (one, two) = (Ipv4Addr::new(127, 9, 0, 1), Ipv4Addr::new(127, 9, 0, 2));
        let request: &[&[u8]] = &[b"GET / HTTP/1.0\r\n", b"\r\n"];
        let first = visit(&web, one, request).await;
        let second = visit(&web, two, request).await;
        let again = visit(&web, one, request).await;

        assert!(first.starts_with("HTTP/1.0 200 OK\r\n"), "{first}");
        assert!(first.ends_with(&format!("\r\n\r\n{}", web.page(one.into()))), "{first}");
        assert!(second.ends_with(&format!("\r\n\r\n{}", web.page(two.into()))), "{second}");
        assert_ne!(nonce(&first), nonce(&second));
        assert_eq!(first, again);
        assert_eq!(web.connections(one.into()), 2);
        assert_eq!(web.connections(two.into()), 1);
        assert_eq!(web.connections(Ipv4Addr::new(127, 9, 0, 3).into()), 0);
    }

    #[tokio::test]
    async fn nonces_differ_from_run_to_run() {
        let visitor = IpAddr::from([127, 9, 0, 1]);
        let first = Web::start(LOOPBACK).await.unwrap().page(visitor);
        let second = Web::start(LOOPBACK).await.unwrap().page(visitor);
        assert_ne!(nonce(&first), nonce(&second));
    }

    #[tokio::test]
    async fn other_methods_and_endless_heads_get_no_nonce() {
        let web = Web::start(LOOPBACK).await.unwrap();
        let source = Ipv4Addr::new(127, 9, 0, 4);
        let page = web.page(source.into());
        let nonce = nonce(&page);
        let answer = visit(&web, source, &[b"POST / HTTP/1.0\r\n\r\n"]).await;
        assert!(answer.starts_with("HTTP/1.0 405 ") && !answer.contains(nonce), "{answer}");
        let answer = visit(&web, source, &[b"GET / HTTP/1.0\r\n"]).await;
        assert!(answer.starts_with("HTTP/1.0 400 ") && !answer.contains(nonce), "{answer}");
        let endless = vec![b'a'; HEAD_LEN_MAX];
        let answer = visit(&web, source, &[b"GET /", &endless]).await;
        assert!(answer.starts_with("HTTP/1.0 400 ") && !answer.contains(nonce), "{answer}");
    }
}
