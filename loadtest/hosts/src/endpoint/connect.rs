//! TCP from the endpoint's own address to the first of several that answers.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use engine::sys::socket::set_connection_options;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// Connects from `own` address to the first of the others that answers, each within `limit`; the
/// error is that of the last one.
pub(super) async fn connect_any(
    own: IpAddr,
    remotes: &[SocketAddr],
    limit: Duration,
) -> io::Result<TcpStream> {
    let mut last_error = io::Error::new(
        io::ErrorKind::AddrNotAvailable,
        format!("there is no address that can be reached from {own}"),
    );
    for remote in remotes.iter().filter(|remote| can_reach(own, remote.ip())) {
        last_error = match timeout(limit, connect_one(own, *remote)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => error,
            Err(_) => io::ErrorKind::TimedOut.into(),
        };
    }
    Err(last_error)
}

/// An unspecified address of our own means any, of either family.
fn can_reach(own: IpAddr, remote: IpAddr) -> bool {
    own.is_unspecified() || own.is_ipv4() == remote.is_ipv4()
}

async fn connect_one(own: IpAddr, remote: SocketAddr) -> io::Result<TcpStream> {
    let socket = if remote.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if !own.is_unspecified() {
        socket.bind(SocketAddr::new(own, 0)).map_err(|cause| {
            let text =
                format!("nothing can be sent from the own address {own} (--address): {cause}");
            io::Error::new(cause.kind(), text)
        })?;
    }
    let stream = socket.connect(remote).await?;
    // Small messages that are waited for (Nagle would hold them back), and peers that may vanish.
    set_connection_options(&stream)?;
    Ok(stream)
}
