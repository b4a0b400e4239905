//! Bytes that wait to be sent, in blocks that belong to a shard's pool; and the sizes of receives and blocks.
//!
//! An outbox takes a block only while it holds bytes, so an idle session holds none, and is filled
//! only while it is empty, so a session never holds more than one block for each direction.
//!
//! Invariant: bytes in flight belong to whoever transmits them, so they cannot move or change.

/// The most bytes one relay receive delivers: 32 KiB costs 20% less CPU a GB than 16.
pub const RECEIVE_LEN: usize = 32 * 1024;

/// The most bytes a receive delivers where they come in bulk: once more a fifth less CPU a GB.
pub const BULK_RECEIVE_LEN: usize = 128 * 1024;

/// What a block has beyond a receive, which always fits behind what TLS may still hold of the record before it.
const BLOCK_MARGIN_LEN: usize = 20 * 1024;

/// Bytes of a small block.
const BLOCK_LEN: usize = RECEIVE_LEN + BLOCK_MARGIN_LEN;

/// The most memory for bytes that wait to leave a session, beyond what it takes of large blocks: those for each peer, and
/// the mlet's that wait to be sealed.
pub const SESSION_MEMORY_LEN: usize = 3 * BLOCK_LEN;

/// Bytes of a large block.
pub const BULK_BLOCK_LEN: usize = BULK_RECEIVE_LEN + BLOCK_MARGIN_LEN;

/// How long the block for what a receive of `received_len` bytes brought is.
pub fn block_len(received_len: usize) -> usize {
    if received_len <= RECEIVE_LEN { BLOCK_LEN } else { BULK_BLOCK_LEN }
}

/// One shard's blocks, the one that was used last first: it may still be in the processor's cache.
#[derive(Debug, Default)]
pub struct BlockPool {
    small: Blocks<64>,
    large: Blocks<16>,
}

/// Blocks of one length, of which `KEPT_MAX` are kept for reuse; more are given back to the allocator.
#[derive(Debug, Default)]
struct Blocks<const KEPT_MAX: usize> {
    free: Vec<Box<[u8]>>,
    lent: usize,
}

impl BlockPool {
    /// Blocks that sessions hold now, or whoever transmits for them.
    pub fn lent(&self) -> usize {
        self.small.lent + self.large.lent
    }

    /// How many of them are large.
    pub fn lent_large(&self) -> usize {
        self.large.lent
    }

    fn take(&mut self, len: usize) -> Box<[u8]> {
        if len == BLOCK_LEN { self.small.take(len) } else { self.large.take(len) }
    }

    fn give_back(&mut self, block: Box<[u8]>) {
        if block.len() == BLOCK_LEN {
            self.small.give_back(block);
        } else {
            self.large.give_back(block);
        }
    }
}

impl<const KEPT_MAX: usize> Blocks<KEPT_MAX> {
    fn take(&mut self, len: usize) -> Box<[u8]> {
        self.lent += 1;
        self.free.pop().unwrap_or_else(|| vec![0; len].into_boxed_slice())
    }

    fn give_back(&mut self, block: Box<[u8]>) {
        self.lent -= 1;
        if self.free.len() < KEPT_MAX {
            self.free.push(block);
        }
    }
}

/// Bytes on their way: whoever transmits them owns the block until it is given back.
#[derive(Debug)]
pub struct Transmission {
    /// The block.
    pub block: Box<[u8]>,
    /// First byte to send.
    pub start: usize,
    /// One past the last byte to send.
    pub end: usize,
}

impl Transmission {
    /// So many bytes that they may leave in several steps.
    pub fn is_bulk(&self) -> bool {
        self.block.len() > BLOCK_LEN
    }
}

/// The bytes one direction has to send.
#[derive(Debug, Default)]
pub struct Outbox {
    block: Option<Box<[u8]>>,
    start: usize,
    end: usize,
    in_flight: bool,
    discarded: bool,
}

impl Outbox {
    /// Nothing waits to be sent and nothing is on its way.
    pub fn is_empty(&self) -> bool {
        self.block.is_none() && !self.in_flight
    }

    /// How many bytes have not left: those that wait, and those on their way.
    pub fn unsent_len(&self) -> usize {
        self.end - self.start
    }

    /// Lets `write` append to the bytes held; it returns how many bytes it wrote. If none are held, they get a block of
    /// `block_len` bytes.
    ///
    /// Must not be called while a transmission is in flight.
    pub fn append(
        &mut self,
        pool: &mut BlockPool,
        block_len: usize,
        write: impl FnOnce(&mut [u8]) -> usize,
    ) {
        assert!(!self.in_flight, "bytes are added only to an outbox at rest");
        let block = self.block.get_or_insert_with(|| pool.take(block_len));
        self.end += write(&mut block[self.end..]);
        self.release_if_empty(pool);
    }

    /// The bytes held, other than those in flight.
    pub fn bytes(&self) -> &[u8] {
        self.block.as_ref().map_or(&[], |block| &block[self.start..self.end])
    }

    /// Takes bytes from the front without sending them.
    pub fn consume(&mut self, len: usize, pool: &mut BlockPool) {
        self.start += len;
        debug_assert!(self.start <= self.end);
        self.release_if_empty(pool);
    }

    /// Hands out all bytes held, which are then in flight until [`Self::sent`]; `None` when there are
    /// none or some are in flight already.
    pub fn transmit(&mut self) -> Option<Transmission> {
        let block = self.block.take()?;
        self.in_flight = true;
        Some(Transmission { block, start: self.start, end: self.end })
    }

    /// The transmission in flight ended after `len` bytes.
    pub fn sent(&mut self, block: Box<[u8]>, len: usize, pool: &mut BlockPool) {
        debug_assert!(self.in_flight);
        self.in_flight = false;
        self.block = Some(block);
        self.start += len;
        if std::mem::take(&mut self.discarded) {
            self.start = self.end;
        }
        self.release_if_empty(pool);
    }

    /// Forgets all bytes; those in flight once their transmission has ended.
    pub fn discard(&mut self, pool: &mut BlockPool) {
        if self.in_flight {
            self.discarded = true;
        } else {
            self.start = self.end;
            self.release_if_empty(pool);
        }
    }

    fn release_if_empty(&mut self, pool: &mut BlockPool) {
        if self.start == self.end {
            if let Some(block) = self.block.take() {
                pool.give_back(block);
            }
            (self.start, self.end) = (0, 0);
        }
    }
}
