//! Raw packets that leave the endpoint at their times, each with a number, and what comes back to them.
//!
//! All are ordered at once: the endpoint keeps their times, and nothing of a round trip to the controller is in what is
//! measured.
//!
//! Not here: what a probe is and what answers it ([`Probes`] says so, with [`ip`](crate::ip)).
//!
//! Invariant: an answer counts once, and only for a probe that was sent.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use packetlab::message::{Family, Message, Open, Packet, Protocol, Socket, Status};
use packetlab::program::Program;
use packetlab::time::Ticks;

use crate::client::Client;
use crate::ip::Header;
use crate::mlet_error::MletError;
use crate::talk::after;

/// The socket that probes leave from.
const SKTID: u8 = 1;
/// What it receives at most until the mlet is told, in bytes.
const RECEIVE_BUFFER_LEN: u32 = 0x1_0000;

/// What is sent, and what answers it.
pub trait Probes {
    /// What an answer tells.
    type Answer;

    /// The probe of this number, as a whole packet.
    fn packet(&self, number: u16) -> Vec<u8>;

    /// What a captured packet tells as an answer, and of which number; `None` if it is none. The probes themselves are
    /// captured as well.
    fn answer(&self, packet: &[u8]) -> Option<(u16, Self::Answer)>;

    /// Whether probes of higher numbers are not waited for any more.
    fn is_last(&self, _answer: &Self::Answer) -> bool {
        false
    }
}

/// When probes leave, and how long answers to the last are waited for.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Between one and the next.
    pub interval: Duration,
    /// Beyond the time at which the last one leaves; the way to the endpoint and back is part of it.
    pub patience: Duration,
}

/// What became of a probe. Times are the endpoint's.
#[derive(Debug)]
pub struct Probe<A> {
    /// When it left.
    pub sent: Option<Ticks>,
    /// When its first answer came, and what that tells.
    pub answered: Option<(Ticks, A)>,
}

impl<A> Probe<A> {
    /// How long the answer took, in milliseconds with three decimals; `-` without one.
    #[must_use]
    pub fn milliseconds(&self) -> String {
        let times = self.sent.zip(self.answered.as_ref());
        let taken = times.map(|(sent, (answered, _))| answered.saturating_duration_since(sent));
        taken.map_or_else(|| "-".to_owned(), |taken| format!("{:.3}", taken.as_secs_f64() * 1e3))
    }
}

/// Sends the probes from 0 or 1 on up to a number below 65,535, and waits until all are answered or time is up. What the
/// filter wants is looked at.
///
/// # Errors
/// The session fails, raw sockets or the filter are refused, or a probe could not be sent.
pub fn exchange<P: Probes>(
    client: &mut Client,
    (family, filter): (Family, &Program),
    numbers: std::ops::RangeInclusive<u16>,
    pace: Pace,
    probes: &P,
) -> Result<BTreeMap<u16, Probe<P::Answer>>, MletError> {
    let socket = Socket { sktid: SKTID, family, protocol: Protocol::Raw };
    let local: IpAddr = match family {
        Family::Ipv4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::Ipv6 => Ipv6Addr::UNSPECIFIED.into(),
    };
    client.open(SKTID, Open::Raw { local }, RECEIVE_BUFFER_LEN)?;
    client.capture(socket, Ticks::MAX, filter)?;
    // The first leaves when the requests come there, which is as much later than the clock was read.
    let looked = Instant::now();
    let mut time = client.clock()?.saturating_add(looked.elapsed());
    let (mut asked, mut sent) = (Vec::new(), BTreeMap::new());
    for number in numbers {
        let packet = Packet::Raw { family, data: &probes.packet(number) };
        let tag = tag(number).get();
        asked.push(client.ask(&Message::Nsend { sktid: SKTID, time, tag, packet })?);
        sent.insert(number, Probe { sent: None, answered: None });
        time = time.saturating_add(pace.interval);
    }
    for asked in asked {
        asked.check(&client.answer(&asked, None)?)?;
    }
    let count = u32::try_from(sent.len()).unwrap_or(u32::MAX);
    let until_last = pace.interval.saturating_mul(count);
    let deadline = after(Instant::now(), until_last.saturating_add(pace.patience));
    // An answer may be told before its probe's departure.
    while !is_complete(probes, &sent)
        && let Some(notification) = client.notification_before(deadline)?
    {
        take(probes, &mut sent, &notification.message())?;
    }
    client.close(SKTID)?;
    Ok(sent)
}

/// The tag of a probe, of which 0 would be told nothing.
fn tag(number: u16) -> NonZeroU16 {
    NonZeroU16::MIN.saturating_add(number)
}

fn is_complete<P: Probes>(probes: &P, sent: &BTreeMap<u16, Probe<P::Answer>>) -> bool {
    let is_last = |probe: &Probe<P::Answer>| {
        probe.answered.as_ref().is_some_and(|(_, answer)| probes.is_last(answer))
    };
    let last =
        sent.iter().find(|(_, probe)| is_last(probe)).map_or(u16::MAX, |(number, _)| *number);
    sent.range(..=last).all(|(_, probe)| probe.answered.is_some() && probe.sent.is_some())
}

fn take<P: Probes>(
    probes: &P,
    sent: &mut BTreeMap<u16, Probe<P::Answer>>,
    message: &Message<'_>,
) -> Result<(), MletError> {
    match *message {
        Message::Ntag { sktid: SKTID, tag, time, status } => {
            let number = tag.wrapping_sub(1);
            if status != Status::SUCCESS {
                let packet = probes.packet(number);
                let target = Header::read(&packet).map(|header| header.destination());
                let to = target.map(|target| format!(" to {target}")).unwrap_or_default();
                return Err(MletError::Failed(format!("packet {number}{to}: {status}")));
            }
            if let Some(probe) = sent.get_mut(&number) {
                probe.sent = Some(time);
            }
        }
        Message::Ndata { sktid: SKTID, time, packet: Packet::Raw { data, .. } } => {
            if let Some((number, answer)) = probes.answer(data)
                && let Some(probe) = sent.get_mut(&number)
            {
                // The first; near targets are captured more than once.
                probe.answered.get_or_insert((time, answer));
            }
        }
        Message::Nblock { monitor_errid, .. } => {
            return Err(MletError::blocked(monitor_errid));
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripted_endpoint;

    /// One byte each: the number, and for an answer one more.
    struct Numbers;

    impl Probes for Numbers {
        type Answer = u8;

        fn packet(&self, number: u16) -> Vec<u8> {
            vec![number as u8]
        }

        fn answer(&self, packet: &[u8]) -> Option<(u16, u8)> {
            let [number, answer] = *packet else { return None };
            Some((number.into(), answer))
        }

        fn is_last(&self, answer: &u8) -> bool {
            *answer == b'!'
        }
    }

    const PACE: Pace =
        Pace { interval: Duration::from_millis(5), patience: Duration::from_secs(60) };

    /// Sends three probes to an endpoint that shows them as they leave, and then these packets 2 ms later.
    fn exchanged(
        answers_to: impl Fn(u8) -> Vec<[u8; 2]> + Send + 'static,
        patience: Duration,
    ) -> Result<Vec<(u16, String)>, MletError> {
        let session = scripted_endpoint::start(move |request, answers| {
            scripted_endpoint::original(request, answers);
            let Message::Nsend { sktid, packet: Packet::Raw { data, family }, .. } = *request
            else {
                return;
            };
            let time = scripted_endpoint::CLOCK.saturating_add(Duration::from_millis(2));
            let mut show = |data: &[u8]| {
                let packet = Packet::Raw { family, data };
                Message::Ndata { sktid, time, packet }.encode(answers).unwrap();
            };
            show(data);
            answers_to(data[0]).iter().for_each(|answer| show(answer));
        });
        let mut client = Client::new(session, crate::SILENCE_MAX).unwrap();
        let filter = crate::filter("0xb7 0 0 0 1\n0x95 0 0 0 0\n").unwrap();
        let pace = Pace { patience, ..PACE };
        let sent = exchange(&mut client, (Family::Ipv4, &filter), 1..=3, pace, &Numbers)?;
        Ok(sent.into_iter().map(|(number, probe)| (number, probe.milliseconds())).collect())
    }

    #[test]
    fn an_answer_counts_once_and_for_its_own_probe() {
        let told =
            exchanged(|number| vec![[number, b'a'], [number, b'b'], [9, b'c']], PACE.patience);
        let two = "2.000".to_owned();
        assert_eq!(told.unwrap(), [(1, two.clone()), (2, two.clone()), (3, two)]);
    }

    #[test]
    fn all_probes_are_ordered_before_the_endpoint_answers_one() {
        let (mut held, mut ordered) = (Vec::new(), 0);
        let session = scripted_endpoint::start(move |request, answers| {
            if !matches!(request, Message::Nsend { .. }) {
                return scripted_endpoint::original(request, answers);
            }
            scripted_endpoint::original(request, &mut held);
            ordered += 1;
            if ordered == 3 {
                answers.append(&mut held);
            }
        });
        let mut client = Client::new(session, Duration::from_secs(20)).unwrap();
        let filter = crate::filter("0xb7 0 0 0 1\n0x95 0 0 0 0\n").unwrap();
        let pace = Pace { patience: Duration::from_millis(50), ..PACE };
        let sent = exchange(&mut client, (Family::Ipv4, &filter), 1..=3, pace, &Numbers).unwrap();
        let clock = Some(scripted_endpoint::CLOCK);
        assert!(sent.len() == 3 && sent.values().all(|probe| probe.sent == clock), "{sent:?}");
    }

    #[test]
    fn what_is_behind_the_last_answer_is_not_waited_for() {
        let began = Instant::now();
        let told = exchanged(
            |number| {
                if number <= 2 { vec![[number, b"a!"[usize::from(number) - 1]]] } else { vec![] }
            },
            PACE.patience,
        );
        assert_eq!(told.unwrap().last().unwrap(), &(3, "-".to_owned()));
        assert!(began.elapsed() < PACE.patience / 2);
    }

    #[test]
    fn a_probe_that_nobody_answers_is_given_up() {
        let told = exchanged(
            |number| if number == 2 { vec![] } else { vec![[number, b'a']] },
            Duration::from_millis(50),
        );
        let times: Vec<_> = told.unwrap().into_iter().map(|(_, time)| time).collect();
        assert_eq!(times, ["2.000", "-", "2.000"]);
    }

    #[test]
    fn no_probe_has_the_tag_of_which_nothing_is_told() {
        assert_eq!((tag(0).get(), tag(u16::MAX - 1).get()), (1, u16::MAX));
    }
}
