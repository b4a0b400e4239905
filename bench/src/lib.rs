//! Fixtures that benchmarks and counts share: messages as they occur in real conversations, credentials, and an endpoint in
//! memory.
//!
//! Not here: measuring, and the shard that counts are of (`simulated/`). Every fixture is well formed, so that no benchmark measures an error path.

pub mod credentials;
pub mod endpoint;
pub mod streams;

use packetlab::channel::{ChannelId, ChannelList};
use packetlab::message::{Family, Message, Outcome, Packet};
use packetlab::time::Ticks;

/// Descriptor that the original published in the capture of spec/protocol.md 8.5.
pub const XDESCR: &str = "hostid=HOST-1;endpoint_location=BK29;endpoint_location=IO91*;\
     endpoint_country=DEU;endpoint_country=USA;exp_priority=7;pub_end=1795434141288556833;\
     controller_addr=198.51.100.7:5555;sni_key=hello;baz=q*;foo=bar;";

/// The answer to almost every request.
#[must_use]
pub fn result() -> Message<'static> {
    Message::Result(Outcome::SUCCESS)
}

/// A received piece of a TCP stream.
#[must_use]
pub fn ndata(data: &[u8]) -> Message<'_> {
    let packet = Packet::Tcp { family: Family::Ipv4, data };
    Message::Ndata { sktid: 5, time: Ticks(0x1797_9cfe_362a_0000), packet }
}

/// A publication on a public and a private channel.
///
/// # Panics
/// Never: the channels are well formed.
#[must_use]
pub fn xpub() -> Message<'static> {
    let channel = |id: &[u8]| ChannelId::new(id).expect("1 to 32 bytes");
    let channels = ChannelList::new(&[channel(&[1, 2]), channel(&[0x2c; 32])]);
    Message::Xpub { channels, operator_key: [0xb5; 32], xdescr: XDESCR }
}

/// A message as it is on the wire.
///
/// # Panics
/// The message has no encoding; no fixture is such a message.
#[must_use]
pub fn encoded(message: &Message<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    message.encode(&mut out).expect("fixtures have an encoding");
    out
}
