//! Bytes and descriptors together over an AF_UNIX socket (SCM_RIGHTS), without ever blocking.
//!
//! Used between manager, supervisor and recorder, and towards the one mlet of singleton mode (spec/pktxpmgr.md 7.6).
//! Invariant: every descriptor the kernel installs here is owned and close-on-exec at once, also when
//! the control data was cut, so that none leaks and no mlet inherits one.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::{mem, ptr};

use nix::libc;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use crate::guards::{Guard, holds};

/// Most descriptors Linux lets one message carry (`SCM_MAX_FD`); with room for all of them the control
/// data is cut only when this process has no free descriptor left.
const FDS_MAX: usize = 253;

/// What one `receive` brought.
#[derive(Debug)]
pub struct ReceivedMessage {
    /// Bytes written to the buffer; 0 means the other side has closed.
    pub len: usize,
    /// Descriptors that came along, close-on-exec.
    pub fds: Vec<OwnedFd>,
    /// Descriptors were sent that this process could not take: it is at its open-file limit.
    pub fds_lost: bool,
    /// The message was longer than the buffer and its rest is gone (packet sockets only).
    pub cut: bool,
}

/// Sends `bytes`, with `fds` attached to the first of them, and returns how many bytes were taken.
///
/// A stream may take fewer than all; the descriptors have gone with them, so the rest is sent without any.
/// The caller still owns them.
///
/// # Errors
/// [`is_later`] tells a full socket from a broken one.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[impl AsFd]) -> io::Result<usize> {
    let raw_fds: Vec<RawFd> = fds.iter().map(|fd| fd.as_fd().as_raw_fd()).collect();
    let rights = (!raw_fds.is_empty()).then_some(ControlMessage::ScmRights(&raw_fds));
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    let bytes = [IoSlice::new(bytes)];
    Ok(sendmsg::<()>(socket.as_raw_fd(), &bytes, rights.as_slice(), flags, None)?)
}

/// True when a failed [`send`] may succeed unchanged some time later: the socket is full, or this user has
/// as many descriptors in flight as one process may have open (ETOOMANYREFS). Only the first is announced by the
/// socket becoming writable.
pub fn is_later(error: &io::Error) -> bool {
    let later = [libc::EAGAIN, libc::ETOOMANYREFS, libc::EINTR, libc::ENOBUFS, libc::ENOMEM];
    error.raw_os_error().is_some_and(|errno| later.contains(&errno))
}

/// Receives up to a buffer of bytes and the descriptors that came with them.
///
/// # Errors
/// `WouldBlock` when nothing has arrived, anything else as the socket says.
#[allow(unsafe_code)]
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<ReceivedMessage> {
    // cmsghdr elements give the alignment that the kernel's control data needs.
    const HEADER_LEN: usize = size_of::<libc::cmsghdr>();
    const CONTROL_LEN: usize = 1 + (FDS_MAX * size_of::<RawFd>()).div_ceil(HEADER_LEN);
    // SAFETY: cmsghdr is plain integers, for which all zeroes is a value.
    let mut control: [libc::cmsghdr; CONTROL_LEN] = unsafe { mem::zeroed() };
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: msghdr is integers and pointers, for which all zeroes is a value.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    let on_exec = if holds(Guard::ClosesOnExec) { libc::MSG_CMSG_CLOEXEC } else { 0 };
    let flags = libc::MSG_DONTWAIT | on_exec;
    // SAFETY: message points to `part` (hence `buffer`) and `control`, which outlive the call and have the lengths given.
    let len = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
    let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
    Ok(ReceivedMessage {
        len,
        fds: take_fds(&message),
        fds_lost: message.msg_flags & libc::MSG_CTRUNC != 0,
        cut: message.msg_flags & libc::MSG_TRUNC != 0,
    })
}

/// Owns every descriptor in the control data of a message that `recvmsg` has just filled.
#[allow(unsafe_code)]
fn take_fds(message: &libc::msghdr) -> Vec<OwnedFd> {
    let mut fds = Vec::new();
    // SAFETY: recvmsg left msg_control and msg_controllen describing the control data it wrote.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(ptr::from_ref(message)) };
    // SAFETY: the CMSG functions return null or a header inside the control data, which is aligned for it.
    while let Some(header) = unsafe { next.as_ref() } {
        if header.cmsg_level == libc::SOL_SOCKET && header.cmsg_type == libc::SCM_RIGHTS {
            // SAFETY: next is a header inside the control data.
            let data = unsafe { libc::CMSG_DATA(next) };
            // SAFETY: arithmetic on a constant only.
            let header_len = unsafe { libc::CMSG_LEN(0) } as usize;
            let count = (header.cmsg_len - header_len) / size_of::<RawFd>();
            for index in 0..count {
                // SAFETY: the header's length says that `count` descriptors follow it.
                let at = unsafe { data.cast::<RawFd>().add(index) };
                // SAFETY: as above; the data need not be aligned for this read.
                let raw = unsafe { at.read_unaligned() };
                // SAFETY: the kernel has just installed this descriptor for us; nobody else knows it.
                fds.push(unsafe { OwnedFd::from_raw_fd(raw) });
            }
        }
        // SAFETY: next is a header inside the control data of message.
        next = unsafe { libc::CMSG_NXTHDR(ptr::from_ref(message), next) };
    }
    fds
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    use super::*;

    const NONE: &[OwnedFd] = &[];

    fn packet_pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap()
    }

    /// Item 98.
    #[test]
    fn an_address_and_its_session_arrive_together_and_the_session_works() {
        let (ours, mlets) = UnixStream::pair().unwrap();
        let (session, session_of_mlet) = UnixStream::pair().unwrap();
        assert_eq!(send(ours.as_fd(), b"127.0.0.1\0", &[&session_of_mlet]).unwrap(), 10);
        drop(session_of_mlet);

        let mut buffer = [0; 64];
        let mut received = receive(mlets.as_fd(), &mut buffer).unwrap();
        assert_eq!(&buffer[..received.len], b"127.0.0.1\0");
        assert!(!received.fds_lost);
        assert_eq!(received.fds.len(), 1);
        let fd = received.fds.remove(0);
        let flags = FdFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFD).unwrap());
        assert!(flags.contains(FdFlag::FD_CLOEXEC));

        drop(fd);
        assert_eq!((&session).read(&mut buffer).unwrap(), 0, "no copy of the mlet's end is left");
    }

    #[test]
    fn two_sessions_sent_to_a_stream_do_not_run_into_each_other() {
        let (ours, mlets) = UnixStream::pair().unwrap();
        let (_keep, session) = UnixStream::pair().unwrap();
        send(ours.as_fd(), b"192.0.2.1\0", &[&session]).unwrap();
        send(ours.as_fd(), b"192.0.2.22\0", &[&session]).unwrap();
        let mut buffer = [0; 64];
        let first = receive(mlets.as_fd(), &mut buffer).unwrap();
        assert_eq!((&buffer[..first.len], first.fds.len()), (&b"192.0.2.1\0"[..], 1));
        let second = receive(mlets.as_fd(), &mut buffer).unwrap();
        assert_eq!((&buffer[..second.len], second.fds.len()), (&b"192.0.2.22\0"[..], 1));
    }

    #[test]
    fn several_descriptors_in_one_message_are_all_owned() {
        let (ours, theirs) = packet_pair();
        let (session, passed) = UnixStream::pair().unwrap();
        let raw = [passed.as_raw_fd(); 5];
        let bytes = [IoSlice::new(b"x")];
        sendmsg::<()>(
            ours.as_raw_fd(),
            &bytes,
            &[ControlMessage::ScmRights(&raw)],
            MsgFlags::empty(),
            None,
        )
        .unwrap();
        drop(passed);
        let received = receive(theirs.as_fd(), &mut [0; 8]).unwrap();
        assert_eq!(received.fds.len(), 5);
        drop(received);
        assert_eq!((&session).read(&mut [0; 1]).unwrap(), 0, "all five are closed");
    }

    #[test]
    fn an_empty_socket_would_block_and_a_closed_one_gives_no_bytes() {
        let (ours, theirs) = packet_pair();
        let error = receive(theirs.as_fd(), &mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        drop(ours);
        assert_eq!(receive(theirs.as_fd(), &mut [0; 8]).unwrap().len, 0);
    }

    #[test]
    fn a_message_longer_than_the_buffer_is_reported_as_cut() {
        let (ours, theirs) = packet_pair();
        send(ours.as_fd(), &[7; 9], NONE).unwrap();
        assert!(receive(theirs.as_fd(), &mut [0; 8]).unwrap().cut);
    }

    #[test]
    fn a_full_socket_means_later_and_a_closed_one_does_not() {
        let (ours, theirs) = packet_pair();
        let full = loop {
            if let Err(error) = send(ours.as_fd(), &[0; 4096], NONE) {
                break error;
            }
        };
        assert!(is_later(&full), "{full}");
        assert!(is_later(&io::Error::from_raw_os_error(libc::ETOOMANYREFS)));
        drop(theirs);
        let broken = send(ours.as_fd(), b"x", NONE).unwrap_err();
        assert!(!is_later(&broken), "{broken}");
    }
}
