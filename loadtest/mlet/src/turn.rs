//! Moves a session's bytes: one look at its stream, for as long as somebody waits.
//!
//! Not here: what the bytes say (`exchange`), and who waits (`talk`).
//!
//! Invariant: nothing here blocks but the one wait, which ends when the first of those who wait gives up.

use std::io;
use std::os::fd::BorrowedFd;
use std::task::Waker;

use crate::exchange::Exchange;
use crate::session::{SessionStream, Wanted};
use crate::talk::Talk;

/// Bytes read at once.
pub(crate) const READ_LEN: usize = 64 * 1024;

/// Sends what there is to send, as far as it is taken at once, and takes what has come, after a wait for either if
/// there was neither. Returns false when nothing more comes.
pub(crate) fn turn(
    talk: &Talk,
    stream: &mut SessionStream,
    buffer: &mut [u8],
    bell: Option<BorrowedFd<'_>>,
) -> bool {
    let (wanted, timeout) = {
        let mut state = talk.lock();
        send(&mut state.exchange, stream);
        let exchange = &state.exchange;
        let wanted = Wanted { read: exchange.takes_more(), write: !exchange.unsent().is_empty() };
        (wanted, state.begin_look())
    };
    let waited = stream.wait(wanted, bell, timeout);
    let (is_over, waiting) = {
        let mut state = talk.lock();
        if let Err(cause) = waited {
            state.exchange.break_off(&cause);
        }
        send(&mut state.exchange, stream);
        if wanted.read {
            match stream.read_now(buffer) {
                Ok(0) => state.exchange.end(),
                Ok(len) => state.push(buffer.get(..len).unwrap_or_default()),
                Err(cause) if is_passing(&cause) => {}
                Err(cause) => state.exchange.break_off(&cause),
            }
        }
        (state.exchange.is_over(), state.looked())
    };
    waiting.into_iter().for_each(Waker::wake);
    !is_over
}

/// Sends as much as is taken at once.
pub(crate) fn send(exchange: &mut Exchange, stream: &mut SessionStream) {
    while !exchange.unsent().is_empty() {
        match stream.write_now(exchange.unsent()) {
            Ok(len) => exchange.sent(len),
            Err(cause) if is_passing(&cause) => return,
            // Nobody takes it; what came before can still be read, and then its end.
            Err(cause) if cause.kind() == io::ErrorKind::BrokenPipe => {
                exchange.sent(exchange.unsent().len());
            }
            Err(cause) => return exchange.break_off(&cause),
        }
    }
}

fn is_passing(cause: &io::Error) -> bool {
    matches!(cause.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
