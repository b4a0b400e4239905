//! Which core each part of a run is tied to.

use std::io;

use engine::sys::cpu;

/// The cores of one session's parts; `None` where the kernel chooses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placement {
    pub(super) endpoint: Option<usize>,
    pub(super) relay: Option<usize>,
    pub(super) mlet: Option<usize>,
}

impl Placement {
    /// With a relay on `cores`, as `pktxpmgr --cores` takes them: on one core only it has a place.
    pub(super) fn new(
        cores: &str,
        endpoint: Option<usize>,
        mlet: Option<usize>,
    ) -> io::Result<Self> {
        let relay = match cores.split_once('-') {
            Some((first, last)) if first == last => first.parse().ok(),
            None if cores == "1" => cpu::allowed_cores()?.first().copied(),
            _ => None,
        };
        Ok(Self { endpoint, relay, mlet })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_has_a_place_only_on_one_core() {
        let relay = |cores| Placement::new(cores, None, None).unwrap().relay;
        assert_eq!(relay("1"), cpu::allowed_cores().unwrap().first().copied());
        assert_eq!(relay("3-3"), Some(3));
        assert_eq!(relay("2"), None);
        assert_eq!(relay("0-1"), None);
        assert_eq!(relay("0,2"), None);
    }
}
