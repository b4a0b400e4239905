//! What it takes to reach a database: where it is, and who asks. The secrets in it are read from files by the caller.

use std::fmt;

use zeroize::Zeroizing;

use crate::address::Address;

/// Where the database is, and who asks.
#[derive(Clone)]
pub struct Access {
    /// The database and the campaign.
    pub address: Address,
    /// The password, if one is needed.
    pub password: Option<Zeroizing<Vec<u8>>>,
    /// Certificates in PEM, one of which must have signed the database's. Needed over the network alone.
    pub roots: Option<Vec<u8>>,
    /// With what the database is told who asks, beside or instead of a password.
    pub certificate: Option<ClientCertificate>,
}

/// A certificate of PostgreSQL's client, none of PacketLab's.
#[derive(Clone)]
pub struct ClientCertificate {
    /// The chain in PEM, the leaf first.
    pub chain: Vec<u8>,
    /// The key in PEM.
    pub key: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("address", &self.address).finish_non_exhaustive()
    }
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCertificate").finish_non_exhaustive()
    }
}
