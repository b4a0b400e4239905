//! Receive buffers in groups, for drivers that fill them themselves.
//!
//! Not here: the groups of a ring, from which the kernel picks (`uring.rs`). Invariant: a buffer is free, or lent to one
//! receive.

use nix::errno::Errno;

use super::operations::{GroupSize, Received};

/// The groups, numbered from 0.
pub(super) struct OwnBuffers(Vec<Group>);

struct Group {
    buffers: Vec<Box<[u8]>>,
    /// The one that was lent last goes first: it may still be in the processor's cache.
    free: Vec<u16>,
}

impl OwnBuffers {
    pub(super) fn new(groups: &[GroupSize]) -> Self {
        let group = |size: &GroupSize| Group {
            buffers: (0..size.count).map(|_| vec![0; size.len as usize].into()).collect(),
            free: (0..size.count).collect(),
        };
        Self(groups.iter().map(group).collect())
    }

    /// Lets `fill` write into a free buffer of `group`; it returns how many bytes it wrote.
    ///
    /// # Errors
    /// ENOBUFS when none is free, or what `fill` says.
    pub(super) fn receive<E: From<Errno>>(
        &mut self,
        group: u16,
        fill: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<Received, E> {
        let Group { buffers, free } = &mut self.0[usize::from(group)];
        let buffer = *free.last().ok_or(Errno::ENOBUFS)?;
        let len = fill(&mut buffers[usize::from(buffer)])?;
        free.pop();
        Ok(Received { group, buffer: Some(buffer), len })
    }

    /// The bytes of a receive.
    pub(super) fn bytes(&self, received: &Received) -> &[u8] {
        match received.buffer {
            Some(buffer) => {
                let group = &self.0[usize::from(received.group)];
                &group.buffers[usize::from(buffer)][..received.len]
            }
            None => &[],
        }
    }

    /// Takes a buffer back.
    pub(super) fn give_back(&mut self, received: &Received) {
        if let Some(buffer) = received.buffer {
            self.0[usize::from(received.group)].free.push(buffer);
        }
    }

    /// OwnBuffers of all groups that are lent.
    #[cfg(any(test, feature = "bench"))]
    pub(super) fn lent(&self) -> usize {
        self.0.iter().map(|group| group.buffers.len() - group.free.len()).sum()
    }
}
