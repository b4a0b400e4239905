//! What a broker allows, each an option of the command line.
//!
//! Not here: who watches over them (`rules`, `server`).

use std::time::Duration;

use clap::Args;

use command_line::units::{count, size_above_zero, time_limit};

use crate::hosting::{ServerLimits, defaults};

/// Every size, count and deadline of a broker.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Limits (durations 500ms, 10s, 5m, 2h; sizes 4096, 64k)")]
pub struct BrokerLimits {
    /// Publishers connected at once; for further ones the source with most gives way
    #[arg(long, value_name = "N", default_value = "2000", value_parser = count)]
    pub publishers_max: usize,
    /// Subscribers connected at once; for further ones the source with most gives way
    #[arg(long, value_name = "N", default_value = "20000", value_parser = count)]
    pub subscribers_max: usize,
    /// Those that a broker and a proxy have alike.
    #[command(flatten)]
    pub server: ServerLimits,
    /// Memory for what clients send: large messages, certificates, publications, subscriptions
    #[arg(long, value_name = "SIZE", default_value = "256m", value_parser = size_above_zero)]
    pub memory_max: usize,
    /// Certificates of one client before its XPUB or XSUB
    #[arg(long, value_name = "N", default_value = "16", value_parser = count)]
    pub certificates_max: usize,
    /// Size of these certificates together
    #[arg(long, value_name = "SIZE", default_value = "64k", value_parser = size_above_zero)]
    pub certificates_size_max: usize,
    /// Connections of one key at once; further ones are closed; 0: no limit
    #[arg(long, value_name = "N", default_value = "5000")]
    pub connections_per_key_max: usize,
    /// Messages of one key in a second, after four times as many at once; further ones wait, and no
    /// deadline of theirs runs meanwhile; 0: no limit
    #[arg(long, value_name = "N", default_value = "100")]
    pub messages_per_second: usize,
    /// Looks at a character of descriptors and attributes for the subscriptions of one key, and for its own
    /// descriptors those of each subscriber who listens, in a second, after four times as many at once;
    /// more wait
    #[arg(long, value_name = "SIZE", default_value = "20m", value_parser = size_above_zero)]
    pub matching_per_second: usize,
    /// Messages and looks of one address in a second, as many as so many keys may take; beyond, its connections wait
    /// for one another; 0: no limit
    #[arg(long, value_name = "N", default_value = "5")]
    pub per_source_keys: usize,
    /// Publications of one key that live at once
    #[arg(long, value_name = "N", default_value = "100", value_parser = count)]
    pub publications_max: usize,
    /// Publications of one address that live at once on one public channel; 0: no limit
    #[arg(long, value_name = "N", default_value = "100")]
    pub publications_per_source_max: usize,
    /// Channels of one subscription, and of all living publications of one key together
    #[arg(long, value_name = "N", default_value = "1000", value_parser = count)]
    pub channels_max: usize,
    /// Size of a descriptor, and of an endpoint's attributes
    #[arg(long, value_name = "SIZE", default_value = "4k", value_parser = size_above_zero)]
    pub descriptor_max: usize,
    /// A subscriber that takes nothing for so long while notifications wait is disconnected
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = time_limit)]
    pub unread_timeout: Duration,
    /// From accept to the end of the TLS handshake
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time_limit)]
    pub handshake_timeout: Duration,
    /// From there, or from a certificate, to an XPUB or XSUB that is accepted
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time_limit)]
    pub request_timeout: Duration,
    /// From the first byte of a message, or of a TLS record, to its last
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time_limit)]
    pub message_timeout: Duration,
}

impl Default for BrokerLimits {
    fn default() -> Self {
        defaults()
    }
}

impl BrokerLimits {
    /// The largest payload any request needs: a certificate that fills all the room there is, or the
    /// longest list of channels with an operator's key and a descriptor.
    pub(crate) fn payload_len_max(&self) -> usize {
        const CHANNEL_LEN_MAX: usize = 33;
        const LIST_END_AND_KEY_LEN: usize = 33;
        let request =
            self.channels_max * CHANNEL_LEN_MAX + LIST_END_AND_KEY_LEN + self.descriptor_max;
        request.max(self.certificates_size_max)
    }
}
