//! The few descriptors that the supervisor or the recorder waits for.
//!
//! By epoll: poll(2) refuses more descriptors than the limit on open files allows, and whoever lowers that while the process
//! runs would keep it from waiting and from hearing of its manager's end. Invariant: a wait ends at its time, whatever cannot be
//! watched; and what came is a hint, so that reading finds nothing at times.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// For [`Lack`](super::lack::Lack): what this takes.
pub(super) const WAITING: &str = "wait for other processes (epoll_create1, epoll_ctl, epoll_wait)";

/// How often something is looked at that cannot be watched, because memory is short or its kind has no events.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// What a descriptor is waited for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source<'fd> {
    /// It was closed, and nobody else has what it stood for.
    Closed,
    /// Nothing, not even its end.
    Aside(BorrowedFd<'fd>),
    /// These; its end and its failure in any case.
    Wanted(BorrowedFd<'fd>, EpollFlags),
}

impl<'fd> Source<'fd> {
    /// These of a descriptor that is open.
    pub(super) fn of(descriptor: Option<&'fd impl AsFd>, wanted: EpollFlags) -> Self {
        descriptor.map_or(Self::Closed, |descriptor| Self::Wanted(descriptor.as_fd(), wanted))
    }
}

/// Descriptors in places, each of which has the same one for as long as that is open.
#[derive(Debug)]
pub(super) struct Sources<const PLACES: usize> {
    epoll: Epoll,
    /// What each is watched for, if it is.
    watched: [Option<EpollFlags>; PLACES],
}

impl<const PLACES: usize> Sources<PLACES> {
    /// Watches these from now on, and makes sure that waiting is possible.
    ///
    /// # Errors
    /// As the kernel says.
    pub(super) fn new(sources: [Source<'_>; PLACES]) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut new = Self { epoll, watched: [None; PLACES] };
        for (place, source) in sources.into_iter().enumerate() {
            new.watch(place, source)?;
        }
        new.epoll.wait(&mut [EpollEvent::empty()], EpollTimeout::ZERO)?;
        Ok(new)
    }

    /// Waits for one of these, at most so long, and tells what came to each.
    pub(super) fn wait(
        &mut self,
        sources: [Source<'_>; PLACES],
        timeout: Option<Duration>,
    ) -> [EpollFlags; PLACES] {
        let mut came = [EpollFlags::empty(); PLACES];
        let mut timeout = timeout;
        for ((place, source), came) in sources.into_iter().enumerate().zip(&mut came) {
            if self.watch(place, source).is_err()
                && let Source::Wanted(_, wanted) = source
            {
                timeout = Some(timeout.unwrap_or(LOOK_INTERVAL).min(LOOK_INTERVAL));
                *came = wanted;
            }
        }
        let timeout = timeout.map_or(EpollTimeout::NONE, |timeout| {
            // Rounded up, so that waiting for less than a millisecond does not become spinning.
            let timeout = timeout + Duration::from_micros(999);
            EpollTimeout::try_from(timeout).unwrap_or(EpollTimeout::MAX)
        });
        let mut events = [EpollEvent::empty(); PLACES];
        // It fails only when a signal comes.
        let count = self.epoll.wait(&mut events, timeout).unwrap_or(0);
        for event in events.iter().take(count) {
            let place = usize::try_from(event.data()).ok();
            if let Some(came) = place.and_then(|place| came.get_mut(place)) {
                *came |= event.events();
            }
        }
        came
    }

    /// Has the kernel watch what a place wants, if it does not yet.
    fn watch(&mut self, place: usize, source: Source<'_>) -> io::Result<()> {
        let Some(watched) = self.watched.get_mut(place) else { return Ok(()) };
        match (*watched, source) {
            // The kernel has forgotten it by itself.
            (_, Source::Closed) => *watched = None,
            (None, Source::Aside(_)) => {}
            (Some(_), Source::Aside(fd)) => {
                self.epoll.delete(fd)?;
                *watched = None;
            }
            (Some(before), Source::Wanted(_, wanted)) if before == wanted => {}
            (before, Source::Wanted(fd, wanted)) => {
                let mut event = EpollEvent::new(wanted, place as u64);
                match before {
                    None => self.epoll.add(fd, event)?,
                    Some(_) => self.epoll.modify(fd, &mut event)?,
                }
                *watched = Some(wanted);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Write, pipe};

    use super::*;

    const NOW: Option<Duration> = Some(Duration::ZERO);

    #[test]
    fn a_source_is_told_for_what_is_wanted_of_it_and_aside_not_even_for_its_end() {
        let (reader, mut writer) = pipe().unwrap();
        let wanted = Source::Wanted(reader.as_fd(), EpollFlags::EPOLLIN);
        let mut sources = Sources::new([wanted]).unwrap();
        assert_eq!(sources.wait([wanted], NOW), [EpollFlags::empty()]);
        writer.write_all(b"x").unwrap();
        assert_eq!(sources.wait([wanted], None), [EpollFlags::EPOLLIN]);
        let end_alone = Source::Wanted(reader.as_fd(), EpollFlags::empty());
        assert_eq!(sources.wait([end_alone], NOW), [EpollFlags::empty()]);
        drop(writer);
        assert_eq!(sources.wait([end_alone], None), [EpollFlags::EPOLLHUP]);
        assert_eq!(sources.wait([Source::Aside(reader.as_fd())], NOW), [EpollFlags::empty()]);
        let both = EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP;
        assert_eq!(sources.wait([wanted], None), [both], "it is watched again");
    }

    #[test]
    fn a_place_that_was_closed_may_have_another() {
        let (reader, writer) = pipe().unwrap();
        let mut sources =
            Sources::new([Source::Wanted(reader.as_fd(), EpollFlags::empty())]).unwrap();
        drop((reader, writer));
        assert_eq!(sources.wait([Source::Closed], NOW), [EpollFlags::empty()]);
        let (_reader, writer) = pipe().unwrap();
        let wanted = Source::Wanted(writer.as_fd(), EpollFlags::EPOLLOUT);
        assert_eq!(sources.wait([wanted], None), [EpollFlags::EPOLLOUT]);
    }

    #[test]
    fn what_cannot_be_watched_is_looked_at_now_and_then() {
        let null = File::options().write(true).open("/dev/null").unwrap();
        let wanted = Source::Wanted(null.as_fd(), EpollFlags::EPOLLOUT);
        let mut sources = Sources::new([Source::Closed]).unwrap();
        assert_eq!(sources.wait([wanted], None), [EpollFlags::EPOLLOUT]);
        assert!(Sources::new([wanted]).is_err(), "no event is told of it");
    }
}
