//! The messages of DNS, for mlets that carry them themselves; and how a client asks a server through the endpoint for the
//! IPv4 addresses of a name.
//!
//! Not here: names that are found at the controller (`resolve`). A client does not ask again over TCP where an answer is
//! truncated; the example `mlet-dns` does.

mod message;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::time::Duration;

use packetlab::message::{Message, Open, Packet};
use packetlab::time::Ticks;

use crate::client_error::ClientError;
use crate::connection::{Claim, unspecified};
use crate::random::random;
use crate::talk::{Talk, after};

pub use message::{Answer, Kind, Question};

const RECEIVE_BUFFER_LEN: u32 = 4096;

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LookUp {
    /// The addresses of the name; none if it has no IPv4 address.
    pub addresses: Vec<Ipv4Addr>,
    /// When the question left the endpoint, by its clock.
    pub sent: Ticks,
    /// When the answer came to the endpoint, by its clock.
    pub received: Ticks,
    /// When the answer came to the mlet, by the controller's clock.
    pub came: Ticks,
}

impl LookUp {
    /// How long the answer took, all by the endpoint's clock.
    #[must_use]
    pub fn took(&self) -> Duration {
        self.received.saturating_duration_since(self.sent)
    }
}

impl Talk {
    /// See `Client::look_up`.
    pub(crate) async fn look_up(
        &self,
        sktid: u8,
        name: &str,
        server: SocketAddr,
        timeout: Duration,
    ) -> Result<LookUp, ClientError> {
        let begun = self.now();
        let looked_up = self.answer_of(sktid, name, server, timeout).await;
        let waited = self.now().saturating_duration_since(begun);
        let asked = || format!("{server} on {name}");
        looked_up.map_err(|error| match error {
            // The socket's own address says nothing.
            ClientError::Blocked { monitor_errid, .. } => {
                ClientError::Blocked { target: asked(), monitor_errid }
            }
            ClientError::NotSent { status, .. } => ClientError::NotSent { target: asked(), status },
            error => error.awaiting(|| format!("the answer of {}", asked()), waited),
        })
    }

    async fn answer_of(
        &self,
        sktid: u8,
        name: &str,
        server: SocketAddr,
        timeout: Duration,
    ) -> Result<LookUp, ClientError> {
        let failed = |reason: String| ClientError::LookUp { name: name.to_owned(), server, reason };
        let [.., high, low] = random().to_be_bytes();
        let question = Question::new(name, Kind::A, [high, low]);
        let question = question.map_err(|what| failed(format!("this is {what}")))?;
        let local = SocketAddr::new(unspecified(server.ip()), 0);
        let open = Open::Udp { local };
        let deadline = after(self.now(), timeout);
        self.room(Some(deadline)).await?;
        let opened =
            self.put(&Message::Nopen { sktid, receive_buffer_len: RECEIVE_BUFFER_LEN, open })?;
        // It is closed whatever comes of the question, also if nobody waits for that any more.
        let mut claim = Claim::new(self, sktid, &opened);
        claim.opened(opened.check(&self.answer(&opened, Some(deadline)).await?))?;
        let tag = NonZeroU16::MIN;
        let packet = Packet::Udp { remote: server, data: question.message() };
        let asks = Message::Nsend { sktid, time: Ticks(0), tag: tag.get(), packet };
        self.request(&asks, Some(deadline)).await?;
        loop {
            let left = deadline.saturating_duration_since(self.now());
            let received = match self.receive(sktid, Some(left)).await {
                Err(ClientError::Silence { .. }) => {
                    let awaited = format!("the answer of {server} on {name}");
                    return Err(ClientError::Silence { awaited, waited: timeout });
                }
                received => received?,
            };
            let Some(received) = received.filter(|one| one.remote == Some(server)) else {
                continue;
            };
            if let Ok(answer) = question.answered(&received.data) {
                let addresses = ipv4_addresses(answer).map_err(failed)?;
                let left = deadline.saturating_duration_since(self.now());
                let sent = self.wait_until_sent(sktid, tag, Some(left)).await?.time;
                let (received, came) = (received.time, received.came);
                return Ok(LookUp { addresses, sent, received, came });
            }
        }
    }
}

/// The addresses of an answer, or why there are none.
fn ipv4_addresses(answer: Answer) -> Result<Vec<Ipv4Addr>, String> {
    let of_ipv4 = |address| match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    };
    match answer {
        Answer::Addresses(addresses) => Ok(addresses.into_iter().filter_map(of_ipv4).collect()),
        Answer::Truncated => Err("the answer is truncated".to_owned()),
        Answer::Failed(reason) => Err(reason),
    }
}
