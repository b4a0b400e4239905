//! A manager for the tests of mlets in singleton mode: it hands sessions over as `pktxpmgr -s` does.
//!
//! Not here: what becomes of a session; its other end is the test's.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

/// Sends `bytes` with one end of a session over the manager's end of the control socket; the other end.
pub(crate) fn hand_over(manager: &UnixStream, bytes: &[u8]) -> UnixStream {
    let (near, far) = UnixStream::pair().unwrap();
    let (fds, parts) = ([far.as_fd()], [IoSlice::new(bytes)]);
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut passed = SendAncillaryBuffer::new(&mut room);
    assert!(passed.push(SendAncillaryMessage::ScmRights(&fds)));
    let sent = sendmsg(manager, &parts, &mut passed, SendFlags::empty());
    assert_eq!(sent.unwrap(), bytes.len());
    near
}
