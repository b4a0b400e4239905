//! Status codes, `errid` on the wire (spec/protocol.md 1.11).
//!
//! Not here: RESULT, which carries them (`Outcome`). Any number is a status; unknown ones only lack a name.

use std::fmt;

/// Status of a request, as a RESULT reports it (spec/protocol.md 1.11).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Status(pub u16);

macro_rules! statuses {
    ($($code:literal $name:ident $meaning:literal)*) => {
        impl Status {
            $(
                #[doc = concat!("`", stringify!($code), "`: ", $meaning, ".")]
                pub const $name: Self = Self($code);
            )*

            /// PacketLab's name, e.g. `ECTLBADMSG`; `None` for a number that has none.
            #[must_use]
            pub fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some(stringify!($name)),)*
                    _ => None,
                }
            }

            /// What it means, in a few words; `None` for a number that has no name.
            #[must_use]
            pub fn meaning(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some($meaning),)*
                    _ => None,
                }
            }
        }
    };
}

statuses! {
    0x0000 SUCCESS "success"
    0x0010 ECTLBADMSG "malformed message"
    0x0011 ECTLNOTSUP "type or operation not supported in this state"
    0x0012 ECTLMONREJ "a monitor rejected it"
    0x0013 ECTLMONUKN "a monitor crashed or is unusable"
    0x0020 ECRTBADHDAT "program data bad or its digest not demanded by the chain"
    0x0021 ECRTNOHDAT "START although demanded programs are missing"
    0x0022 ECRTBADFRM "certificate form bad"
    0x0023 ECRTNOSPACE "no space for certificate"
    0x0024 ECRTBADHINT "unknown CDATA hint"
    0x0030 ESYSNOBUFS "buffer space exhausted"
    0x0031 ESYSNOPERM "no permission"
    0x0032 ESKTINUSE "sktid already open"
    0x0033 ESKTNOTOPEN "sktid not open or in an error state"
    0x0034 ESKTNOPRFAM "family unsupported"
    0x0035 ESKTNOPROTO "protocol unsupported"
    0x0036 ESKTNOADDR "local address not available"
    0x0037 ESKTNOMATCH "family or protocol differ from the open socket"
    0x0038 ESKTBADFILT "bad capture filter"
    0x0039 ESKTPKTDENY "packet denied by limits"
    0x003A ESKTOPNDENY "open denied by limits"
    0x0040 ETCPNOPORT "TCP port unavailable"
    0x0041 EPKTNOTSENT "packet not sent"
    0x0042 EUDPNOPORT "UDP port unavailable"
    0x0043 EPKTTRUNC "packet truncated"
    0x0044 ENORES "resource limit reached"
    0x0048 EMEMBADADR "bad memory address"
    0x0050 EPUBBADCHL "publish: bad channel list"
    0x0051 EPUBBADCHN "publish: bad channel"
    0x0052 EPUBBADADDR "publish: bad address"
    0x0053 EPUBBADPR "publish: bad priority"
    0x0054 EPUBBADXD "publish: bad descriptor"
    0x0060 ESUBBADCHL "subscribe: bad channel list"
    0x0061 ESUBBADCHN "subscribe: bad channel"
    0x0062 ESUBBADDA "subscribe: bad attributes"
    0xFFFF EUNKFAULT "unknown"
}

/// `EPUBBADCHL (80): publish: bad channel list`; the number is decimal, as the original prints it.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.name(), self.meaning()) {
            (Some(name), Some(meaning)) => write!(f, "{name} ({}): {meaning}", self.0),
            _ => write!(f, "unnamed status ({})", self.0),
        }
    }
}
