//! The messages of DNS (RFC 1035): a question for the addresses of a name, and what answers it.
//!
//! Not here: how they travel.
//!
//! Invariant: an address is told only of the name that was asked for, or of what the answer itself says that this name is
//! an alias of; and reading ends, whatever a message holds.

use std::net::IpAddr;

/// Bytes before the question, and of the longest name.
const HEADER_LEN: usize = 12;
const NAME_LEN_MAX: usize = 255;
/// Aliases that lead from the question to an address; resolvers follow no more either.
const ALIASES_MAX: usize = 16;
/// The type of aliases, and the class of all that matters here.
const CNAME: u16 = 5;
const INTERNET: u16 = 1;
const MALFORMED: &str = "it is malformed";

/// Which addresses are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Those of IPv4.
    A,
    /// Those of IPv6.
    Aaaa,
}

/// What a server answers.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// There are these, or none.
    Addresses(Vec<IpAddr>),
    /// They do not fit a datagram: it has to be asked over TCP.
    Truncated,
    /// There is no answer; why.
    Failed(String),
}

/// A question.
#[derive(Debug, Clone)]
pub struct Question {
    kind: Kind,
    message: Vec<u8>,
}

/// A record of the Internet, as far as it matters here.
enum Record {
    Address { owner: Vec<u8>, address: IpAddr },
    Alias { owner: Vec<u8>, target: Vec<u8> },
}

impl Kind {
    /// As it is typed.
    #[must_use]
    pub fn read(word: &str) -> Option<Self> {
        match word {
            _ if word.eq_ignore_ascii_case("A") => Some(Self::A),
            _ if word.eq_ignore_ascii_case("AAAA") => Some(Self::Aaaa),
            _ => None,
        }
    }

    /// The type of records (RFC 1035, 3596).
    fn number(self) -> u16 {
        match self {
            Self::A => 1,
            Self::Aaaa => 28,
        }
    }

    /// The address in a record of this type, which is as long as addresses are.
    fn address(self, data: &[u8]) -> Option<IpAddr> {
        match self {
            Self::A => Some(IpAddr::from(<[u8; 4]>::try_from(data).ok()?)),
            Self::Aaaa => Some(IpAddr::from(<[u8; 16]>::try_from(data).ok()?)),
        }
    }
}

impl Question {
    /// A question of this number for the addresses of `domain`.
    ///
    /// # Errors
    /// What it is instead: not ASCII, no domain name, or too long for one.
    pub fn new(domain: &str, kind: Kind, number: [u8; 2]) -> Result<Self, &'static str> {
        if !domain.is_ascii() {
            return Err("not ASCII: give its A-label (xn--...)");
        }
        // Recursion desired, one question.
        let mut message = [&number[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
        for label in domain.strip_suffix('.').unwrap_or(domain).split('.') {
            match u8::try_from(label.len()) {
                Ok(len @ 1..64) => message.push(len),
                _ => return Err("no domain name"),
            }
            message.extend_from_slice(label.as_bytes());
        }
        message.push(0);
        if message.len() > HEADER_LEN + NAME_LEN_MAX {
            return Err("too long for a domain name");
        }
        message.extend([kind.number(), INTERNET].map(u16::to_be_bytes).concat());
        Ok(Self { kind, message })
    }

    /// Its bytes.
    #[must_use]
    pub fn message(&self) -> &[u8] {
        &self.message
    }

    /// What a message answers to the question.
    ///
    /// # Errors
    /// It is no answer to it; why.
    pub fn answered(&self, message: &[u8]) -> Result<Answer, &'static str> {
        let header: &[u8; HEADER_LEN] = message.first_chunk().ok_or(MALFORMED)?;
        let [id_high, id_low, high, low, questions_high, questions_low, answers @ ..] = header;
        if self.message.get(..2) != Some(&[*id_high, *id_low]) {
            return Err("its number is another question's");
        }
        // Flag of answers, and the operation.
        if high & 0xF8 != 0x80 {
            return Err("it is no answer to a question");
        }
        let code = low & 0x0F;
        let question = self.message.get(HEADER_LEN..).unwrap_or_default();
        let repeated = message.get(HEADER_LEN..self.message.len());
        match (questions_high, questions_low) {
            (0, 1) if repeated.is_some_and(|repeated| repeated.eq_ignore_ascii_case(question)) => {}
            // A server that did not understand the question may leave it out.
            (0, 0) if code != 0 => return Ok(Answer::Failed(refusal(code))),
            _ => return Err("it answers another question"),
        }
        if code != 0 {
            return Ok(Answer::Failed(refusal(code)));
        }
        if high & 0x02 != 0 {
            return Ok(Answer::Truncated);
        }
        let count = answers.first_chunk().copied().map_or(0, u16::from_be_bytes);
        let records = self.records(message, count).ok_or(MALFORMED)?;
        let (name, _) = name(&self.message, HEADER_LEN).ok_or(MALFORMED)?;
        Ok(addresses(&records, name))
    }

    /// The records that matter, of `count` behind the question; `None` if they are cut or malformed.
    fn records(&self, message: &[u8], count: u16) -> Option<Vec<Record>> {
        let (mut records, mut at) = (Vec::new(), self.message.len());
        for _ in 0..count {
            let (owner, fixed) = name(message, at)?;
            let u16_at =
                |at: usize| message.get(at..)?.first_chunk().copied().map(u16::from_be_bytes);
            let (record_type, class) = (u16_at(fixed)?, u16_at(fixed + 2)?);
            let start = fixed + 10;
            let end = start + usize::from(u16_at(fixed + 8)?);
            let data = message.get(start..end)?;
            match (record_type, class) {
                (CNAME, INTERNET) => {
                    let (target, _) = name(message, start).filter(|(_, behind)| *behind == end)?;
                    records.push(Record::Alias { owner, target });
                }
                (number, INTERNET) if number == self.kind.number() => {
                    let address = self.kind.address(data)?;
                    records.push(Record::Address { owner, address });
                }
                _ => {}
            }
            at = end;
        }
        Some(records)
    }
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
        let addresses: Vec<IpAddr> = addresses.collect();
        let target = records.iter().find_map(|record| match record {
            Record::Alias { owner, target } if *owner == name => Some(target),
            _ => None,
        });
        match target {
            Some(target) if addresses.is_empty() => name.clone_from(target),
            _ => return Answer::Addresses(addresses),
        }
    }
    Answer::Failed(format!(
        "the answer is a chain of more than {ALIASES_MAX} aliases, or they go round"
    ))
}

#[cfg(test)]
mod tests;
