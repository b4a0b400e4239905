//! Lengths and numbers of records and of what they hold (RFC 8446 4.6.3, 5, 6).

/// The most data that one record holds (RFC 8446 5.1).
pub const CONTENT_LEN_MAX: usize = 1 << 14;

/// Bytes of a record before its body.
pub(crate) const HEADER_LEN: usize = 5;

/// Bytes of a tag, the same in all suites.
pub(super) const TAG_LEN: usize = 16;

/// What a record adds to its content: header, content type, tag.
pub(super) const RECORD_OVERHEAD: usize = HEADER_LEN + 1 + TAG_LEN;

/// The longest body of a record. Content, type and padding together are at most one byte longer than content alone may be
/// (5.4), so that of the 256 bytes by which 5.2 lets a body grow a tag of 16 is all there can be.
pub(crate) const BODY_LEN_MAX: usize = CONTENT_LEN_MAX + 1 + TAG_LEN;

/// Content types (5.1). What is sealed claims to be application data (5.2).
pub(super) const APPLICATION_DATA: u8 = 23;
pub(super) const ALERT: u8 = 21;
pub(super) const HANDSHAKE: u8 = 22;

/// The only handshake message there is: its type, and its length with its header (4.6.3).
pub(super) const KEY_UPDATE: u8 = 24;
pub(super) const KEY_UPDATE_LEN: usize = 5;

/// The alert with which a side ends (6.1).
pub(super) const CLOSE_NOTIFY: u8 = 0;
