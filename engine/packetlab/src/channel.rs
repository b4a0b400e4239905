//! Channels, on which brokers carry experiments to endpoints (spec/protocol.md 1.5).
//!
//! Not here: the commas of a config file (`cli`) and who may use which channel. A `ChannelId` that
//! exists has 1 to 32 bytes; a `ChannelList` that exists is well formed.

use std::fmt;

/// Most bytes of a channel id; a private channel has exactly as many.
pub const CHANNEL_ID_LEN_MAX: usize = 32;

/// Digits of a key id that lines show.
const SHORT_LEN: usize = 12;

/// Name of a channel: 1 to 31 bytes of free choice, or 32 bytes that are the key id of an endpoint operator.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId {
    /// Zero beyond `len`, so that the derived comparisons hold.
    bytes: [u8; CHANNEL_ID_LEN_MAX],
    len: u8,
}

impl ChannelId {
    /// A channel by its bytes.
    ///
    /// # Errors
    /// Not 1 to 32 bytes.
    pub fn new(id: &[u8]) -> Result<Self, ChannelError> {
        if id.is_empty() {
            return Err(ChannelError::Empty);
        }
        let mut bytes = [0; CHANNEL_ID_LEN_MAX];
        let (Ok(len), Some(front)) = (u8::try_from(id.len()), bytes.get_mut(..id.len())) else {
            return Err(ChannelError::TooLong { len: id.len() });
        };
        front.copy_from_slice(id);
        Ok(Self { bytes, len })
    }

    /// A channel by its hexadecimal text, digits in either case.
    ///
    /// # Errors
    /// Not 2 to 64 hexadecimal digits, or an odd number of them.
    pub fn from_hex(text: &str) -> Result<Self, ChannelError> {
        if let Some(bad) = text.chars().find(|c| !c.is_ascii_hexdigit()) {
            return Err(ChannelError::NotHex { character: bad });
        }
        let (pairs, odd) = text.as_bytes().as_chunks::<2>();
        if !odd.is_empty() {
            return Err(ChannelError::OddHex { len: text.len() });
        }
        let digit = |c: u8| char::from(c).to_digit(16).unwrap_or(0) as u8;
        let id: Vec<u8> = pairs.iter().map(|[high, low]| digit(*high) << 4 | digit(*low)).collect();
        Self::new(&id)
    }

    /// Its bytes, 1 to 32.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len.into()).unwrap_or_default()
    }

    /// Its length in bytes, as it stands before the id on the wire.
    #[must_use]
    pub fn len_byte(&self) -> u8 {
        self.len
    }

    /// As lines show it: of a private one how it begins, as of the key id that it is.
    #[must_use]
    pub fn short(&self) -> String {
        let mut digits = self.to_string();
        if self.is_private() {
            digits.truncate(SHORT_LEN);
        }
        digits
    }

    /// A channel of 32 bytes belongs to the operator whose key id it is.
    #[must_use]
    pub fn is_private(&self) -> bool {
        usize::from(self.len) == CHANNEL_ID_LEN_MAX
    }
}

/// Hexadecimal, lower case; `from_hex` reads it back.
impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChannelId({self})")
    }
}

/// Channels in order; may be empty, may repeat. Kept as it is on the wire, so it costs no more memory
/// than was received.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ChannelList {
    /// `length, id` repeated, then one zero byte.
    encoded: Vec<u8>,
}

impl ChannelList {
    /// A list in the given order.
    #[must_use]
    pub fn new<'c>(channels: impl IntoIterator<Item = &'c ChannelId>) -> Self {
        let mut encoded = Vec::new();
        for channel in channels {
            encoded.push(channel.len);
            encoded.extend_from_slice(channel.as_bytes());
        }
        encoded.push(0);
        Self { encoded }
    }

    /// A bare list.
    ///
    /// # Errors
    /// As [`Self::decode_front`]; also bytes after the list's end.
    pub fn decode(bytes: &[u8]) -> Result<Self, ChannelError> {
        match Self::decode_front(bytes)? {
            (list, []) => Ok(list),
            (_, after) => Err(ChannelError::Trailing { len: after.len() }),
        }
    }

    /// The list at the front of `bytes`, and what follows it.
    ///
    /// # Errors
    /// A channel of more than 32 bytes, or no end of the list.
    pub fn decode_front(bytes: &[u8]) -> Result<(Self, &[u8]), ChannelError> {
        let mut rest = bytes;
        loop {
            let (&len, after) = rest.split_first().ok_or(ChannelError::Unterminated)?;
            let len = usize::from(len);
            if len > CHANNEL_ID_LEN_MAX {
                return Err(ChannelError::TooLong { len });
            }
            rest = after.get(len..).ok_or(ChannelError::Unterminated)?;
            if len == 0 {
                let encoded = bytes.strip_suffix(rest).unwrap_or(bytes).to_vec();
                return Ok((Self { encoded }, rest));
            }
        }
    }

    /// The list as it is on the wire, with its closing zero byte.
    #[must_use]
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// The channels in order.
    pub fn iter(&self) -> impl Iterator<Item = ChannelId> + '_ {
        let mut rest = self.encoded.as_slice();
        std::iter::from_fn(move || {
            let (&len, after) = rest.split_first()?;
            let (id, after) = after.split_at_checked(len.into())?;
            rest = after;
            ChannelId::new(id).ok()
        })
    }

    /// No channel at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

impl fmt::Debug for ChannelList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Why bytes or text are no channel or no list of channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelError {
    /// A channel of no bytes.
    Empty,
    /// More than [`CHANNEL_ID_LEN_MAX`] bytes.
    TooLong {
        /// How many.
        len: usize,
    },
    /// A character that is no hexadecimal digit.
    NotHex {
        /// Which.
        character: char,
    },
    /// Half a byte at the end.
    OddHex {
        /// How many digits.
        len: usize,
    },
    /// The list stops before its closing zero byte.
    Unterminated,
    /// Bytes after the closing zero byte.
    Trailing {
        /// How many.
        len: usize,
    },
}

impl fmt::Display for ChannelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "the channel is empty; give it 1 to 32 bytes"),
            Self::TooLong { len } => {
                write!(f, "the channel has {len} bytes; give it at most {CHANNEL_ID_LEN_MAX}")
            }
            Self::NotHex { character } => {
                let character = character.escape_default();
                write!(f, "'{character}' in the channel is no hexadecimal digit")
            }
            Self::OddHex { len } => {
                write!(f, "the channel has {len} hexadecimal digits; write two for every byte")
            }
            Self::Unterminated => write!(f, "the channel list stops before its closing zero byte"),
            Self::Trailing { len } => write!(f, "{len} bytes follow the end of the channel list"),
        }
    }
}

impl std::error::Error for ChannelError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn two_channels_look_as_in_the_specification() {
        let list = ChannelList::new(&[
            ChannelId::new(&[1, 2]).unwrap(),
            ChannelId::new(&[0xaa; 32]).unwrap(),
        ]);
        let bytes = [&[2, 1, 2, 0x20][..], &[0xaa; 32], &[0]].concat();
        assert_eq!(list.encoded(), bytes);
        assert_eq!(ChannelList::decode(&bytes), Ok(list.clone()));
        let private: Vec<_> = list.iter().map(|channel| channel.is_private()).collect();
        assert_eq!(private, [false, true]);
        let short: Vec<_> = list.iter().map(|channel| channel.short()).collect();
        assert_eq!(short, ["0102", "aaaaaaaaaaaa"]);
    }

    #[test]
    fn an_empty_list_is_one_zero_byte() {
        let list = ChannelList::new([]);
        assert_eq!(list.encoded(), [0]);
        assert!(list.is_empty());
        assert_eq!(ChannelList::decode(&[0]), Ok(list));
    }

    #[test]
    fn a_list_must_end_and_nothing_may_follow_it() {
        for cut in [&[][..], &[2], &[2, 1], &[2, 1, 2]] {
            assert_eq!(ChannelList::decode(cut), Err(ChannelError::Unterminated), "{cut:?}");
        }
        assert_eq!(ChannelList::decode(&[1, 9, 0, 7]), Err(ChannelError::Trailing { len: 1 }));
        let (list, rest) = ChannelList::decode_front(&[1, 9, 0, 7]).unwrap();
        assert_eq!((list.encoded(), rest), ([1, 9, 0].as_slice(), [7].as_slice()));
        let long = [&[33][..], &[1; 33], &[0]].concat();
        assert_eq!(ChannelList::decode(&long), Err(ChannelError::TooLong { len: 33 }));
    }

    /// Item 42.
    #[test]
    fn hexadecimal_text_names_a_channel_of_1_to_32_bytes() {
        let channel = ChannelId::from_hex("0aFf").unwrap();
        assert_eq!(channel.as_bytes(), [0x0a, 0xff]);
        assert_eq!(channel.to_string(), "0aff");
        assert_eq!(ChannelId::from_hex(&"ab".repeat(32)).unwrap().as_bytes(), [0xab; 32]);
        assert_eq!(ChannelId::from_hex(&"ab".repeat(33)), Err(ChannelError::TooLong { len: 33 }));
        assert_eq!(ChannelId::from_hex(""), Err(ChannelError::Empty));
        assert_eq!(ChannelId::from_hex("abc"), Err(ChannelError::OddHex { len: 3 }));
        assert_eq!(ChannelId::from_hex("0g"), Err(ChannelError::NotHex { character: 'g' }));
        assert_eq!(ChannelId::from_hex("ä0"), Err(ChannelError::NotHex { character: 'ä' }));
    }

    proptest! {
        #[test]
        fn ids_and_lists_survive_their_encoding(
            ids in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..=32), 0..6),
        ) {
            let ids: Vec<_> = ids.iter().map(|id| ChannelId::new(id).unwrap()).collect();
            let list = ChannelList::new(&ids);
            prop_assert_eq!(list.iter().collect::<Vec<_>>(), ids.clone());
            prop_assert_eq!(ChannelList::decode(list.encoded()), Ok(list));
            for id in ids {
                prop_assert_eq!(ChannelId::from_hex(&id.to_string()), Ok(id));
            }
        }

        #[test]
        fn what_decodes_as_a_list_is_its_own_encoding(bytes: Vec<u8>) {
            if let Ok((list, rest)) = ChannelList::decode_front(&bytes) {
                prop_assert_eq!([list.encoded(), rest].concat(), bytes);
                prop_assert_eq!(ChannelList::new(&list.iter().collect::<Vec<_>>()), list);
            }
        }
    }
}
