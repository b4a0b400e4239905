//! Clients of a broker and of a proxy, as controllers and endpoints are.

use std::io::ErrorKind;

use super::*;

/// A connection registered under `snikey`, as a controller does it, up to both preambles.
pub(super) fn register(
    proxy: SocketAddr,
    tls: &Arc<rustls::ClientConfig>,
    snikey: &str,
) -> TcpStream {
    try_register(proxy, tls, snikey).expect("the registration is accepted")
}

/// The same; `None` if it is refused, whether in words or by the end of the connection.
pub(super) fn try_register(
    proxy: SocketAddr,
    tls: &Arc<rustls::ClientConfig>,
    snikey: &str,
) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(proxy).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut tls = ClientConnection::new(tls.clone(), tls::server_name(None).unwrap()).unwrap();
    while tls.is_handshaking() {
        tls.complete_io(&mut stream).unwrap();
    }
    let mut xreg = Vec::new();
    Message::Xreg { snikey }.encode(&mut xreg).unwrap();
    tls.writer().write_all(&xreg).unwrap();
    tls.write_tls(&mut stream).unwrap();
    // Everything up to the preamble comes at once or in pieces; nothing follows it.
    let (mut received, mut piece) = (Vec::new(), [0; 512]);
    while !received.ends_with(PREAMBLE) {
        let len = match stream.read(&mut piece) {
            Ok(0) => return None,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
            read => read.unwrap(),
        };
        received.extend_from_slice(&piece[..len]);
    }
    received.truncate(received.len() - PREAMBLE.len());
    tls.read_tls(&mut &received[..]).unwrap();
    tls.process_new_packets().unwrap();
    let mut answer = [0; 4];
    tls.reader().read_exact(&mut answer).unwrap();
    assert_eq!(answer, [0x40, 0, 0, 0]);
    tls.send_close_notify();
    let mut farewell = Vec::new();
    tls.write_tls(&mut farewell).unwrap();
    farewell.extend_from_slice(PREAMBLE);
    stream.write_all(&farewell).unwrap();
    Some(stream)
}

/// A client of a broker: sends one request and reads messages.
pub(super) struct BrokerClient {
    stream: TcpStream,
    tls: ClientConnection,
}

impl BrokerClient {
    pub(super) fn open(
        broker: SocketAddr,
        tls: &Arc<rustls::ClientConfig>,
        request: &Message<'_>,
    ) -> Self {
        let stream = TcpStream::connect(broker).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let tls = ClientConnection::new(tls.clone(), tls::server_name(None).unwrap()).unwrap();
        let mut client = Self { stream, tls };
        client.ask(request);
        client
    }

    pub(super) fn ask(&mut self, request: &Message<'_>) {
        self.send(request);
        assert_eq!(self.read(4), [0x40, 0, 0, 0], "RESULT 0");
    }

    pub(super) fn send(&mut self, message: &Message<'_>) {
        let mut encoded = Vec::new();
        message.encode(&mut encoded).unwrap();
        rustls::Stream::new(&mut self.tls, &mut self.stream).write_all(&encoded).unwrap();
    }

    pub(super) fn read(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        rustls::Stream::new(&mut self.tls, &mut self.stream).read_exact(&mut bytes).unwrap();
        bytes
    }
}
