//! What matters here of a raw packet's header.

use std::net::IpAddr;

use packetlab::message::{Family, Status};

/// Where a packet comes from and goes to.
pub(super) struct IpHeader {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
}

impl IpHeader {
    /// # Errors
    /// `EPKTTRUNC` without a whole header, `ESKTNOMATCH` for another family.
    pub(super) fn read(family: Family, packet: &[u8]) -> Result<Self, Status> {
        let version = packet.first().ok_or(Status::EPKTTRUNC)? >> 4;
        if version != family as u8 {
            return Err(Status::ESKTNOMATCH);
        }
        let addresses = match family {
            Family::Ipv4 => packet.get(..20).and_then(|header| {
                let (source, rest) = header.get(12..)?.split_first_chunk::<4>()?;
                Some((IpAddr::from(*source), IpAddr::from(*rest.first_chunk::<4>()?)))
            }),
            Family::Ipv6 => packet.get(..40).and_then(|header| {
                let (source, rest) = header.get(8..)?.split_first_chunk::<16>()?;
                Some((IpAddr::from(*source), IpAddr::from(*rest.first_chunk::<16>()?)))
            }),
        };
        let (source, destination) = addresses.ok_or(Status::EPKTTRUNC)?;
        Ok(Self { source, destination })
    }
}
