//! `mlet-ping [-4|-6] [TARGET [COUNT]]`: pings a target through the endpoint, which must offer raw sockets. All
//! requests are ordered at once and leave one a second by the endpoint's clock; only the replies come back
//! here. A reply is one from the target that repeats what this run, and no other, has asked.
//!
//! ```text
//! KEY <TAB> ADDRESS <TAB> TARGET <TAB> sequence number <TAB> milliseconds, or - without a reply
//! ```

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::process::ExitCode;
use std::time::Duration;

use mlet::arguments;
use mlet::ip::{self, Header, Wanted, Way};
use mlet::probes::{self, Pace, Probe, Probes};
use mlet::{Client, Family, MletError, print_line, resolve_of};

#[cfg(test)]
#[path = "../scripted_endpoint.rs"]
mod scripted_endpoint;

const USAGE: &str = "mlet-ping [-4|-6] [TARGET [COUNT]]\n\
    prints a line for each request: key, address, target, sequence number,\n\
    milliseconds or - without a reply";
const TARGET: &str = "www.example.com";
const COUNT: u16 = 4;
const PACE: Pace = Pace { interval: Duration::from_secs(1), patience: Duration::from_secs(2) };
/// As far as a packet goes at most.
const HOP_LIMIT: u8 = 64;
const HEADER_LEN: usize = 8;

/// What is asked for.
struct Arguments {
    family: Option<Family>,
    target: String,
    count: u16,
}

/// The echo requests of one run: what they have in common, and those of no other.
#[derive(Debug, Clone, Copy)]
struct Echo {
    way: Way,
    identifier: [u8; 2],
    payload: [u8; 8],
}

fn main() -> ExitCode {
    mlet::run_with(USAGE, judged, |client, endpoint, Arguments { family, target, count }| {
        let address = resolve_of(&target, 0, family)?.ip();
        let way = Way::to(client, address)?;
        let endpoint = endpoint.columns();
        for (sequence, reply) in ping(client, way, count, PACE)? {
            let milliseconds = reply.milliseconds();
            print_line(&format!("{endpoint}\t{target}\t{sequence}\t{milliseconds}"))?;
        }
        Ok(())
    })
}

fn judged(words: &[String]) -> Result<Arguments, MletError> {
    let (family, words) = arguments::family(words)?;
    let (target, count) = match words {
        [] => (TARGET, COUNT),
        [target] => (&**target, COUNT),
        [target, count] => (&**target, arguments::number::<NonZeroU16>(count)?.get()),
        _ => return Err(MletError::Usage),
    };
    Ok(Arguments { family, target: arguments::host_alone(target, family)?, count })
}

fn ping(
    client: &mut Client,
    way: Way,
    count: u16,
    pace: Pace,
) -> Result<BTreeMap<u16, Probe<()>>, MletError> {
    let Some(last) = count.checked_sub(1) else { return Ok(BTreeMap::new()) };
    let echo = Echo::draw(way);
    let filter = ip::filter(way.family(), &[echo.wanted()])?;
    probes::exchange(client, (way.family(), &filter), 0..=last, pace, &echo)
}

impl Echo {
    fn draw(way: Way) -> Self {
        let [.., high, low] = mlet::random().to_be_bytes();
        Self { way, identifier: [high, low], payload: mlet::random().to_be_bytes() }
    }

    /// Request or reply, with its checksum in a request alone.
    fn message(&self, icmp_type: u8, sequence: [u8; 2]) -> Vec<u8> {
        [&[icmp_type, 0, 0, 0][..], &self.identifier, &sequence, &self.payload].concat()
    }

    /// Replies with this identifier.
    fn wanted(&self) -> Wanted {
        let [_, reply] = self.way.echo_types();
        let [high, low] = self.identifier;
        Wanted { protocol: self.way.icmp(), bytes: vec![(0, reply), (4, high), (5, low)] }
    }
}

impl Probes for Echo {
    type Answer = ();

    fn packet(&self, number: u16) -> Vec<u8> {
        let [request, _] = self.way.echo_types();
        let mut message = self.message(request, number.to_be_bytes());
        let checksum = self.way.checksum(self.way.icmp(), &message).to_be_bytes();
        message.splice(2..4, checksum);
        self.way.packet(self.way.icmp(), HOP_LIMIT, &message)
    }

    /// The target's reply to a request.
    fn answer(&self, packet: &[u8]) -> Option<(u16, ())> {
        let header = Header::read(packet)?;
        let sequence = *header.payload.get(6..HEADER_LEN)?.first_chunk()?;
        let [_, reply] = self.way.echo_types();
        let expected = self.message(reply, sequence);
        let is_reply = header.protocol == self.way.icmp()
            && header.source() == self.way.target()
            && header.payload.get(..2) == expected.get(..2)
            && header.payload.get(4..) == expected.get(4..)
            && header.has_right_checksum();
        is_reply.then_some((u16::from_be_bytes(sequence), ()))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use mlet::{Message, Packet, ipv4};
    use packetlab::message::Outcome;

    use super::scripted_endpoint;
    use super::*;

    const TARGET: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
    const ENDPOINT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
    const TARGET_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7);
    const ENDPOINT_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

    fn v4_way() -> Way {
        Way::between(Ipv4Addr::UNSPECIFIED, Ipv4Addr::new(192, 0, 2, 7))
    }

    /// The way to a target of IPv6 at an endpoint whose memory holds its address.
    fn v6_way() -> Way {
        let session = scripted_endpoint::start(at_v6);
        Way::to(&mut client(session), TARGET_V6.into()).unwrap()
    }

    /// Answers as the original's endpoint, with one address of IPv6.
    fn at_v6(request: &Message<'_>, answers: &mut Vec<u8>) {
        match *request {
            Message::Mread { address: address @ 0x1000_0001, .. } => {
                Message::Mdata { address, data: &[1] }.encode(answers).unwrap();
            }
            Message::Mread { address: address @ 0x1000_1000, .. } => {
                Message::Mdata { address, data: &ENDPOINT_V6.octets() }.encode(answers).unwrap();
            }
            _ => scripted_endpoint::original(request, answers),
        }
    }

    fn client(session: std::os::unix::net::UnixStream) -> Client {
        Client::new(session, mlet::SILENCE_MAX).unwrap()
    }

    /// A packet of the other side's, to the endpoint.
    fn from(source: IpAddr, message: &[u8]) -> Vec<u8> {
        let mut message = message.to_vec();
        message[2..4].fill(0);
        match source {
            IpAddr::V4(source) => {
                let checksum = ipv4::checksum(&message);
                message[2..4].copy_from_slice(&checksum.to_be_bytes());
                Way::between(source, ENDPOINT).packet(ipv4::ICMP, 64, &message)
            }
            IpAddr::V6(source) => {
                let pseudo =
                    [&source.octets()[..], &ENDPOINT_V6.octets(), &[0, 0, 0, 16, 0, 0, 0, 58]];
                let checksum = ipv4::checksum(&[&pseudo.concat()[..], &message].concat());
                message[2..4].copy_from_slice(&checksum.to_be_bytes());
                mlet::ipv6::packet(58, 64, 0, (source, ENDPOINT_V6), &message)
            }
        }
    }

    /// The reply to a request, with its byte `at` changed.
    fn reply(way: &Way, request: &[u8], at: usize, change: u8) -> Vec<u8> {
        let mut reply = Header::read(request).unwrap().payload.to_vec();
        [_, reply[0]] = way.echo_types();
        reply[at] ^= change;
        reply
    }

    #[test]
    fn the_request_is_that_of_the_originals_example_with_a_payload() {
        let echo = Echo { way: v4_way(), identifier: [0x15, 0xbe], payload: [0; 8] };
        let request = [0x08, 0x00, 0xe2, 0x41, 0x15, 0xbe, 0x00, 0x00];
        assert_eq!(echo.packet(0)[20..], [&request[..], &[0; 8]].concat());
        assert!(
            Header::read(&Echo { way: v6_way(), ..echo }.packet(0)).unwrap().has_right_checksum()
        );
    }

    #[test]
    fn two_runs_have_different_marks() {
        assert_ne!(Echo::draw(v4_way()).payload, Echo::draw(v4_way()).payload);
    }

    #[test]
    fn only_the_targets_answer_to_this_very_request_is_a_reply() {
        let other_v6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 8);
        for (way, other) in
            [(v4_way(), IpAddr::from([192, 0, 2, 8])), (v6_way(), IpAddr::from(other_v6))]
        {
            let (target, echo) = (way.target(), Echo::draw(way));
            let request = echo.packet(0x0304);
            let replied = |packet: &[u8]| echo.answer(packet).map(|(number, ())| number);
            let right = from(target, &reply(&way, &request, 0, 0));
            assert_eq!(replied(&right), Some(0x0304));
            let padded = [&right[..], &[0; 10]].concat();
            assert_eq!(replied(&padded), Some(0x0304), "padded by the link");
            assert_eq!(replied(&from(other, &reply(&way, &request, 0, 0))), None);
            // Type, code, identifier, payload.
            for at in [0, 1, 4, 5, 8, 15] {
                let changed = from(target, &reply(&way, &request, at, 1));
                assert_eq!(replied(&changed), None, "byte {at}");
            }
            assert_eq!(replied(&request), None, "the request itself is captured as well");
            let mut corrupt = right.clone();
            *corrupt.last_mut().unwrap() ^= 1;
            assert_eq!(replied(&corrupt), None);
            for len in 0..right.len() {
                assert_eq!(replied(&right[..len]), None, "{len}");
            }
        }
        let echo = Echo::draw(v4_way());
        let longer = [&reply(&echo.way, &echo.packet(0), 0, 0)[..], &[0]].concat();
        assert_eq!(echo.answer(&from(TARGET, &longer)), None);
    }

    /// Pings with an endpoint in front of which there are other hosts, other runs and the target. It is the
    /// original's: see [`scripted_endpoint`].
    #[test]
    fn at_the_originals_endpoint_only_the_targets_replies_are_counted() {
        for way in [v4_way(), v6_way()] {
            let mut asked = 0;
            let session = scripted_endpoint::start(move |request, answers| {
                scripted_endpoint::original(request, answers);
                let Message::Nsend { packet: Packet::Raw { data, family }, sktid, .. } = *request
                else {
                    return;
                };
                let target = way.target();
                let other: IpAddr = match target {
                    IpAddr::V4(_) => [192, 0, 2, 8].into(),
                    IpAddr::V6(_) => ENDPOINT_V6.into(),
                };
                let mut packets = vec![
                    from(other, &reply(&way, data, 0, 0)),
                    from(target, &reply(&way, data, 15, 1)),
                    from(target, &reply(&way, data, 5, 1)),
                ];
                // The target answers the first and the last of three.
                if asked != 1 {
                    packets.push(from(target, &reply(&way, data, 0, 0)));
                }
                asked += 1;
                for (at, packet) in packets.iter().enumerate() {
                    let packet = Packet::Raw { family, data: packet };
                    let time =
                        scripted_endpoint::CLOCK.saturating_add(Duration::from_millis(at as u64));
                    Message::Ndata { sktid, time, packet }.encode(answers).unwrap();
                }
            });
            let pace = Pace { interval: Duration::from_millis(1), patience: PACE.patience };
            let replies = ping(&mut client(session), way, 3, pace).unwrap();
            let times: Vec<_> = replies.values().map(Probe::milliseconds).collect();
            assert_eq!(times, ["3.000", "-", "3.000"]);
            assert!(replies.values().all(|one| one.sent.is_some()), "each is told but of tag 0");
        }
    }

    #[test]
    fn a_request_that_does_not_leave_is_told_with_its_target() {
        for (way, target) in [(v4_way(), "192.0.2.7"), (v6_way(), "2001:db8::7")] {
            let session = scripted_endpoint::start(|request, answers| match *request {
                Message::Nsend { sktid, tag, .. } => {
                    Message::Result(Outcome::SUCCESS).encode(answers).unwrap();
                    let (time, status) = (scripted_endpoint::CLOCK, mlet::Status::EPKTNOTSENT);
                    Message::Ntag { sktid, tag, time, status }.encode(answers).unwrap();
                }
                _ => scripted_endpoint::original(request, answers),
            });
            let error = ping(&mut client(session), way, 1, PACE).unwrap_err().to_string();
            assert_eq!(error, format!("packet 0 to {target}: EPKTNOTSENT (65): packet not sent"));
        }
    }

    #[test]
    fn an_endpoint_without_ipv6_cannot_ping_its_targets() {
        let session = scripted_endpoint::start(scripted_endpoint::original);
        let error = Way::to(&mut client(session), TARGET_V6.into()).unwrap_err().to_string();
        assert_eq!(error, "the endpoint has no address of IPv6");
        let refusing = scripted_endpoint::start(|_, answers| {
            Message::Result(Outcome::Status(mlet::Status::ESKTNOPRFAM)).encode(answers).unwrap();
        });
        let error = ping(&mut client(refusing), v6_way(), 1, PACE).unwrap_err().to_string();
        assert!(error.contains("refused"), "{error}");
    }
}
