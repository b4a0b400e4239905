//! `mlet-dns [DOMAIN [SERVER]]`: asks a DNS server for the IPv4 addresses of a domain, through the
//! endpoint. Without SERVER it asks the first one that the endpoint itself would. What comes and does not answer the
//! question is passed over.
//!
//! ```text
//! KEY <TAB> ADDRESS <TAB> DOMAIN <TAB> SERVER <TAB> milliseconds <TAB> addresses
//! ```

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use mlet::{Client, Message, MletError, Open, Packet, Status, Ticks, print_line, resolve};

#[cfg(test)]
#[path = "../scripted_endpoint.rs"]
mod scripted_endpoint;

const USAGE: &str = "mlet-dns [DOMAIN [SERVER]]\n\
    prints a line for its endpoint: key, address, domain, server,\n\
    milliseconds, addresses found";
const DNS_PORT: u16 = 53;
/// How long a server may take to answer, way and back through the endpoint included.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes before the question, and of the longest name (RFC 1035).
const HEADER_LEN: usize = 12;
const NAME_LEN_MAX: usize = 255;
/// Aliases that lead from the question to an address; resolvers follow no more either.
const ALIASES_MAX: usize = 16;
/// Types of records, and the class of all that matter here.
const A: u16 = 1;
const CNAME: u16 = 5;
const INTERNET: u16 = 1;
const SKTID: u8 = 1;
const TAG: NonZeroU16 = NonZeroU16::new(1234).unwrap();
/// The endpoint's DNS servers: their count, and the list of 4 bytes each (spec/protocol.md 1.12).
const SERVER_COUNT: u32 = 0x1002_0000;
const SERVERS: u32 = 0x1002_0010;

/// What a server says: addresses, or in words why it has none.
type Answer = Result<Vec<Ipv4Addr>, String>;

fn main() -> ExitCode {
    mlet::run(USAGE, |client, endpoint, arguments| {
        let domain = arguments.first().map_or("www.example.com", String::as_str);
        let server = match arguments.get(1) {
            Some(name) => resolve(name, DNS_PORT)?,
            None => endpoints_server(client)?,
        };
        let [.., high, low] = mlet::random().to_be_bytes();
        let (answer, latency_ms) = ask(client, server, &query(domain, [high, low])?, PATIENCE)?;
        let addresses = answer
            .map_err(|reason| MletError::Failed(format!("{server} on {domain}: {reason}")))?;
        let addresses: Vec<String> = addresses.iter().map(Ipv4Addr::to_string).collect();
        let addresses = addresses.join(" ");
        print_line(&format!(
            "{}\t{domain}\t{server}\t{latency_ms:.3}\t{addresses}",
            endpoint.columns()
        ))
    })
}

fn endpoints_server(client: &mut Client) -> Result<SocketAddr, MletError> {
    let count = client.read_memory(SERVER_COUNT, 1)?;
    let address: Option<[u8; 4]> = client.read_memory(SERVERS, 4)?.try_into().ok();
    match address {
        Some(address) if count != [0] => Ok(SocketAddr::from((address, DNS_PORT))),
        _ => Err(MletError::Failed("the endpoint knows no DNS server; name one".to_owned())),
    }
}

/// The answer, and the milliseconds from the departure of the question to its arrival.
fn ask(
    client: &mut Client,
    server: SocketAddr,
    query: &[u8],
    patience: Duration,
) -> Result<(Answer, f64), MletError> {
    let any: SocketAddr = match server.ip() {
        IpAddr::V4(_) => ([0; 4], 0).into(),
        IpAddr::V6(_) => ([0; 16], 0).into(),
    };
    client.open(SKTID, Open::Udp { local: any }, 4096)?;
    client.send(SKTID, Ticks(0), TAG, Packet::Udp { remote: server, data: query })?;
    let deadline = Instant::now() + patience;
    // In either order.
    let (mut sent, mut answered) = (None, None);
    let mut passed_over = None;
    loop {
        if let (Some(sent), Some((time, answer))) = (sent, &mut answered) {
            client.close(SKTID)?;
            let latency = Ticks::saturating_duration_since(*time, sent);
            let answer = std::mem::replace(answer, Ok(Vec::new()));
            return Ok((answer, latency.as_secs_f64() * 1e3));
        }
        let Some(notification) = client.notification_before(deadline)? else {
            let silent = format!("{server} did not answer within {} s", patience.as_secs_f64());
            let came = passed_over.map(|reason| format!("; what came is no answer: {reason}"));
            return Err(MletError::Failed(silent + &came.unwrap_or_default()));
        };
        match notification.message() {
            Message::Ntag { sktid: SKTID, status: Status::SUCCESS, time, .. } => sent = Some(time),
            Message::Ntag { sktid: SKTID, status, .. } => {
                return Err(MletError::Failed(format!("the question was not sent: {status}")));
            }
            Message::Ndata { sktid: SKTID, time, packet: Packet::Udp { remote, data } }
                if remote == server && answered.is_none() =>
            {
                match answer(data, query) {
                    Ok(answer) => answered = Some((time, answer)),
                    Err(reason) => passed_over = Some(reason),
                }
            }
            Message::Nblock { monitor_errid, .. } => {
                return Err(MletError::Failed(format!(
                    "a monitor blocks it (code {monitor_errid})"
                )));
            }
            _ => {}
        }
    }
}

/// A question for the A records of `domain` (RFC 1035).
fn query(domain: &str, identification: [u8; 2]) -> Result<Vec<u8>, MletError> {
    let failed = |what: &str| MletError::Failed(format!("'{}' is {what}", domain.escape_debug()));
    // Recursion desired, one question.
    let mut query = [&identification[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
    for label in domain.trim_end_matches('.').split('.') {
        match u8::try_from(label.len()) {
            Ok(len @ 1..64) => query.push(len),
            _ => return Err(failed("no domain name")),
        }
        query.extend_from_slice(label.as_bytes());
    }
    query.extend_from_slice(&[0, 0, 1, 0, 1]);
    if query.len() > HEADER_LEN + NAME_LEN_MAX + 4 {
        return Err(failed("too long for a domain name"));
    }
    Ok(query)
}

/// What a datagram answers to the question.
///
/// # Errors
/// It is no answer to it; why.
fn answer(datagram: &[u8], query: &[u8]) -> Result<Answer, &'static str> {
    const MALFORMED: &str = "it is malformed";
    let header: &[u8; HEADER_LEN] = datagram.first_chunk().ok_or(MALFORMED)?;
    let [id_high, id_low, high, low, questions_high, questions_low, answers @ ..] = header;
    if query.get(..2) != Some(&[*id_high, *id_low]) {
        return Err("its number is another question's");
    }
    // Flag of answers, and the operation.
    if high & 0xF8 != 0x80 {
        return Err("it is no answer to a question");
    }
    let code = low & 0x0F;
    let question = query.get(HEADER_LEN..).unwrap_or_default();
    let repeated = datagram.get(HEADER_LEN..query.len());
    match (questions_high, questions_low) {
        (0, 1) if repeated.is_some_and(|repeated| repeated.eq_ignore_ascii_case(question)) => {}
        // A server that did not understand the question may leave it out.
        (0, 0) if code != 0 => return Ok(Err(refusal(code))),
        _ => return Err("it answers another question"),
    }
    if code != 0 {
        return Ok(Err(refusal(code)));
    }
    if high & 0x02 != 0 {
        return Ok(Err("the answer is truncated".to_owned()));
    }
    let count = answers.first_chunk().copied().map_or(0, u16::from_be_bytes);
    let records = records(datagram, query.len(), count).ok_or(MALFORMED)?;
    let (name, _) = name(query, HEADER_LEN).ok_or(MALFORMED)?;
    Ok(addresses(&records, name))
}

/// What a response code says.
fn refusal(code: u8) -> String {
    match code {
        1 => "the server does not understand the question".to_owned(),
        2 => "the server failed".to_owned(),
        3 => "there is no such domain".to_owned(),
        5 => "the server refuses to answer".to_owned(),
        code => format!("response code {code}"),
    }
}

/// A record of the Internet, as far as it matters here.
enum Record {
    Address { owner: Vec<u8>, address: Ipv4Addr },
    Alias { owner: Vec<u8>, target: Vec<u8> },
}

/// The records that matter, of `count` from `at` on; `None` if they are cut or malformed.
fn records(message: &[u8], mut at: usize, count: u16) -> Option<Vec<Record>> {
    let mut records = Vec::new();
    for _ in 0..count {
        let (owner, fixed) = name(message, at)?;
        let u16_at = |at: usize| message.get(at..)?.first_chunk().copied().map(u16::from_be_bytes);
        let (record_type, class) = (u16_at(fixed)?, u16_at(fixed + 2)?);
        let start = fixed + 10;
        let end = start + usize::from(u16_at(fixed + 8)?);
        let data = message.get(start..end)?;
        match (record_type, class) {
            (A, INTERNET) => {
                let address = <[u8; 4]>::try_from(data).ok()?.into();
                records.push(Record::Address { owner, address });
            }
            (CNAME, INTERNET) => {
                let (target, _) = name(message, start).filter(|(_, behind)| *behind == end)?;
                records.push(Record::Alias { owner, target });
            }
            _ => {}
        }
        at = end;
    }
    Some(records)
}

/// The name at `at`, whole and in lower case, and where what follows it is. A pointer leads to what stands before
/// all that was read of the name, so that no pointers go round in a circle.
fn name(message: &[u8], mut at: usize) -> Option<(Vec<u8>, usize)> {
    let (mut name, mut behind, mut start) = (Vec::new(), None, at);
    loop {
        match *message.get(at)? {
            0 => {
                name.push(0);
                return Some((name, behind.unwrap_or(at + 1)));
            }
            len @ 1..64 => {
                let label = message.get(at..=at + usize::from(len))?;
                name.extend(label.iter().map(u8::to_ascii_lowercase));
                at += label.len();
            }
            high @ 0xC0.. => {
                let low = *message.get(at + 1)?;
                behind.get_or_insert(at + 2);
                at = usize::from(u16::from_be_bytes([high & 0x3F, low]));
                if at >= start {
                    return None;
                }
                start = at;
            }
            _ => return None,
        }
        if name.len() >= NAME_LEN_MAX {
            return None;
        }
    }
}

/// The addresses of `name`, or of what it is an alias of.
fn addresses(records: &[Record], mut name: Vec<u8>) -> Answer {
    for _ in 0..=ALIASES_MAX {
        let addresses = records.iter().filter_map(|record| match record {
            Record::Address { owner, address } if *owner == name => Some(*address),
            _ => None,
        });
        let addresses: Vec<Ipv4Addr> = addresses.collect();
        let target = records.iter().find_map(|record| match record {
            Record::Alias { owner, target } if *owner == name => Some(target),
            _ => None,
        });
        match target {
            Some(target) if addresses.is_empty() => name.clone_from(target),
            _ => return Ok(addresses),
        }
    }
    Err(format!("the answer is a chain of more than {ALIASES_MAX} aliases, or they go round"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: [u8; 2] = [0x15, 0xbe];
    const QUESTION: &[u8] = b"\x03www\x07example\x03com\0\0\x01\0\x01";
    /// Where the names `www.example.com` and `example.com` are in an answer.
    const WWW: &[u8] = b"\xc0\x0c";
    const EXAMPLE: &[u8] = b"\xc0\x10";

    fn asked() -> Vec<u8> {
        query("www.example.com", ID).unwrap()
    }

    /// An answer to [`asked`] with these records.
    fn answer_of(records: &[Vec<u8>]) -> Vec<u8> {
        let head = [&ID[..], &[0x85, 0x80, 0, 1, 0, records.len() as u8, 0, 0, 0, 0], QUESTION];
        [head.concat(), records.concat()].concat()
    }

    fn record(owner: &[u8], record_type: u16, class: u16, data: &[u8]) -> Vec<u8> {
        let numbers = [record_type.to_be_bytes(), class.to_be_bytes(), [0; 2], [0; 2]].concat();
        let len = u16::try_from(data.len()).unwrap().to_be_bytes();
        [owner, &numbers, &len, data].concat()
    }

    /// The address 192.0.2.LAST of a name.
    fn address(owner: &[u8], last: u8) -> Vec<u8> {
        record(owner, A, INTERNET, &[192, 0, 2, last])
    }

    fn found(datagram: &[u8]) -> Result<Vec<u8>, String> {
        let addresses = answer(datagram, &asked())??;
        Ok(addresses.into_iter().map(|address| address.octets()[3]).collect())
    }

    #[test]
    fn the_question_is_that_of_the_originals_example() {
        let expected = [b"\x15\xbe\x01\x00\x00\x01\0\0\0\0\0\0", QUESTION].concat();
        assert_eq!(query("www.example.com", ID).unwrap(), expected);
        assert_eq!(query("www.example.com.", ID).unwrap(), expected);
        for bad in ["", ".", "a..b", &"x".repeat(64), &"x.".repeat(128)] {
            assert!(query(bad, ID).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_that_is_none_is_shown_without_its_control_characters() {
        let error = query("a..b\u{1b}[2J", ID).unwrap_err().to_string();
        assert_eq!(error, r"'a..b\u{1b}[2J' is no domain name");
    }

    #[test]
    fn addresses_are_those_of_the_question_and_of_its_aliases() {
        let alias = |owner: &[u8], target: &[u8]| record(owner, CNAME, INTERNET, target);
        let (other, third) = (b"\x05other\xc0\x10", b"\x05third\xc0\x10");
        for (records, expected) in [
            (vec![], vec![]),
            (vec![address(WWW, 7), address(WWW, 8)], vec![7, 8]),
            (vec![address(b"\x03WWW\xc0\x10", 7)], vec![7]),
            (vec![alias(WWW, EXAMPLE), address(EXAMPLE, 7)], vec![7]),
            // In any order, and over several.
            (vec![address(third, 7), alias(other, third), alias(WWW, other)], vec![7]),
            // Of another owner; of another class; of another type.
            (vec![address(EXAMPLE, 9)], vec![]),
            (vec![alias(WWW, other), address(EXAMPLE, 9), address(other, 7)], vec![7]),
            (vec![record(WWW, A, 3, &[192, 0, 2, 9]), address(WWW, 7)], vec![7]),
            (vec![record(WWW, 16, INTERNET, &[192, 0, 2, 9])], vec![]),
            (vec![record(WWW, A, 3, &[1; 5]), record(WWW, CNAME, 3, EXAMPLE)], vec![]),
        ] {
            assert_eq!(found(&answer_of(&records)), Ok(expected), "{records:?}");
        }
        let (round, back) = (alias(WWW, EXAMPLE), alias(EXAMPLE, WWW));
        let error = found(&answer_of(&[round, back])).unwrap_err();
        assert!(error.contains("they go round"), "{error}");
    }

    #[test]
    fn an_answer_that_is_cut_anywhere_is_none() {
        let alias = record(WWW, CNAME, INTERNET, EXAMPLE);
        let whole = answer_of(&[alias, address(EXAMPLE, 7)]);
        assert_eq!(found(&whole), Ok(vec![7]));
        for len in 0..whole.len() {
            assert!(answer(&whole[..len], &asked()).is_err(), "{len}");
        }
    }

    #[test]
    fn a_record_that_breaks_the_rules_spoils_its_answer() {
        // Where the first record begins.
        let here = u8::try_from(HEADER_LEN + QUESTION.len()).unwrap();
        let long = [&[63; 64][..], &[63; 64], &[63; 64], &[63; 64], &[0]].concat();
        for records in [
            vec![record(WWW, A, INTERNET, &[192, 0, 2, 7, 0])],
            vec![record(WWW, A, INTERNET, &[192, 0, 2])],
            vec![record(EXAMPLE, A, INTERNET, &[192, 0, 2, 7, 0]), address(WWW, 7)],
            vec![record(WWW, CNAME, INTERNET, b"\xc0\x10\0")],
            vec![record(WWW, CNAME, INTERNET, b"\x05other")],
            // Pointers to themselves, to behind themselves, to where they come from; a label that is neither.
            vec![address(&[0xc0, here], 7)],
            vec![address(&[0xc0, here + 1], 7)],
            vec![address(&[0xff, 0xff], 7)],
            vec![address(&[1, b'a', 0xc0, here], 7)],
            vec![address(&[0x40, 1, 0], 7)],
            vec![address(&long, 7)],
        ] {
            let datagram = answer_of(&records);
            assert_eq!(answer(&datagram, &asked()), Err("it is malformed"), "{records:?}");
        }
    }

    #[test]
    fn only_an_answer_to_this_question_is_one() {
        let changed = |at: usize, byte: u8| {
            let mut answer = answer_of(&[address(WWW, 7)]);
            answer[at] = byte;
            answer
        };
        assert_eq!(found(&changed(13, b'W')), Ok(vec![7]));
        // Another number, a question, other operations, a count of questions, another name, type, class.
        for (at, byte) in [
            (0, 0x16),
            (1, 0),
            (2, 0x05),
            (2, 0xA5),
            (2, 0x8D),
            (4, 1),
            (5, 2),
            (5, 0),
            (13, b'x'),
            (30, 2),
            (32, 3),
        ] {
            assert!(answer(&changed(at, byte), &asked()).is_err(), "byte {at}: {byte:#x}");
        }
    }

    #[test]
    fn a_server_that_cannot_answer_is_no_empty_answer() {
        let reason = |high, low, questions| {
            let header = [0x15, 0xbe, high, low, 0, questions, 0, 0, 0, 0, 0, 0];
            found(&[&header, QUESTION].concat()).unwrap_err()
        };
        for questions in [0, 1] {
            assert_eq!(reason(0x81, 0x83, questions), "there is no such domain");
            assert_eq!(reason(0x81, 0x82, questions), "the server failed");
            assert_eq!(reason(0x81, 0x8b, questions), "response code 11");
        }
        assert_eq!(reason(0x83, 0x80, 1), "the answer is truncated");
    }

    const SERVER: &str = "192.0.2.53:53";

    /// Asks where datagrams come before the news that the question has left.
    fn ask_where(datagrams: Vec<(&'static str, Vec<u8>)>) -> Result<(Answer, f64), MletError> {
        let session = scripted_endpoint::start(move |request, answers| {
            let mut behind = Vec::new();
            scripted_endpoint::original(request, &mut behind);
            if let Message::Nsend { .. } = request {
                for (remote, data) in &datagrams {
                    let time = scripted_endpoint::CLOCK.saturating_add(Duration::from_millis(3));
                    let packet = Packet::Udp { remote: remote.parse().unwrap(), data };
                    Message::Ndata { sktid: SKTID, time, packet }.encode(answers).unwrap();
                }
            }
            answers.extend(behind);
        });
        let mut client = Client::new(session, mlet::SILENCE_MAX).unwrap();
        let patience = Duration::from_millis(200);
        ask(&mut client, SERVER.parse().unwrap(), &asked(), patience)
    }

    #[test]
    fn an_answer_may_come_before_the_news_that_the_question_left() {
        let (answer, latency_ms) =
            ask_where(vec![(SERVER, answer_of(&[address(WWW, 7)]))]).unwrap();
        assert_eq!(answer, Ok(vec![Ipv4Addr::new(192, 0, 2, 7)]));
        assert!((latency_ms - 3.0).abs() < 1e-6, "{latency_ms}");
    }

    #[test]
    fn the_answer_is_found_behind_what_is_none() {
        let mut other_number = answer_of(&[address(WWW, 9)]);
        other_number[1] ^= 1;
        let right = answer_of(&[address(WWW, 7)]);
        let (answer, _) = ask_where(vec![
            ("192.0.2.54:53", answer_of(&[address(WWW, 9)])),
            ("192.0.2.53:54", answer_of(&[address(WWW, 9)])),
            (SERVER, other_number),
            (SERVER, answer_of(&[record(WWW, A, INTERNET, &[192, 0, 2, 9, 9])])),
            (SERVER, right.clone()),
        ])
        .unwrap();
        assert_eq!(answer, Ok(vec![Ipv4Addr::new(192, 0, 2, 7)]));
        let error = ask_where(vec![(SERVER, right[..40].to_vec())]).unwrap_err().to_string();
        let told =
            "192.0.2.53:53 did not answer within 0.2 s; what came is no answer: it is malformed";
        assert_eq!(error, told);
    }
}
