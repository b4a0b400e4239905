//! `pktcred init`: a home, as the original's `pktlab_init` makes it, for CAIDA's public broker unless
//! another is named.

use std::path::PathBuf;

use clap::Args;
use cli::prompt::Blocked;
use packetlab::address::HostPort;
use packetlab::time::Ticks;
use packetlab_home::{
    self as home, Broker, CONFIG, Home, KEY_NAMES, PROXY_CONFIG, Settings, caida,
};

use crate::failure::{Exit, Failure, print, shown};
use crate::files::Place;
use crate::passphrase::NewPassphrase;
use crate::validity::Validity;

/// 1970 to 2038-01-19, as the original's.
const VALIDITY: (Ticks, Ticks) = (Ticks(0), Ticks(0x7FFF_FFFF * 1_000_000_000));

const KEYS_OF_OTHERS: &str = "\
Keys of the public deployment, put into the home's folder of keys:
  caida_k_bop.pub  the broker operator's, by which the public broker is known
  caida_k_eop.pub  the endpoint operator's. With the certificate that it gave
                   you for your exppriv_exper.csr:
  pktcred add-privilege --cert exppriv.cert --eop-key caida_k_eop.pub";

const EXAMPLES: &str = "\
Examples:
  pktcred init                                  ~/.pktlab, for the public broker
  pktcred init --home lab --no-broker --no-passphrase
  pktcred init --broker broker.example --broker-root bop.pub";

#[derive(Debug, Args)]
#[command(before_help = EXAMPLES, after_help = KEYS_OF_OTHERS)]
pub(crate) struct Options {
    #[command(flatten)]
    passphrase: NewPassphrase,
    /// Brokers to which the config files publish, commas between them
    #[arg(long, value_name = "HOST[:PORT],...", default_value = caida::BROKER)]
    #[arg(value_delimiter = ',', value_parser = address)]
    broker: Vec<HostPort>,
    /// Public key of the broker's operator; that of the public broker is known. Without it the
    /// broker's signature is not checked
    #[arg(long, value_name = "FILE")]
    broker_root: Option<PathBuf>,
    /// Publish nothing: endpoints are told the address in another way
    #[arg(long, conflicts_with_all = ["broker", "broker_root"])]
    no_broker: bool,
    /// Public key of the proxy's operator; without it the proxy's signature is not checked
    #[arg(long, value_name = "FILE")]
    proxy_root: Option<PathBuf>,
    #[command(flatten)]
    validity: Validity,
}

fn address(text: &str) -> Result<HostPort, String> {
    HostPort::parse(text).map_err(|error| error.to_string())
}

pub(crate) fn run(options: &Options, place: &Place) -> Result<Exit, Failure> {
    let directory = home::vacant_place(&place.home()?)?;
    let root =
        |name: &Option<PathBuf>| name.as_ref().map(|name| place.public_key(name)).transpose();
    let broker_root = match root(&options.broker_root)? {
        None if options.broker.iter().all(|broker| broker.host == caida::BROKER) => {
            Some(caida::broker_operator())
        }
        root => root,
    };
    let proxy_root = root(&options.proxy_root)?;
    let broker = Broker { addresses: options.broker.clone(), root: broker_root };
    let (not_before, not_after) = options.validity.resolve(VALIDITY)?;
    let passphrases = options.passphrase.obtain(&KEY_NAMES)?;

    // From here on it is short, and not to be left half-done.
    let _blocked = Blocked::new().map_err(Failure::unusable)?;
    let home = Home::draw(Settings {
        directory,
        not_before,
        not_after,
        snikey: None,
        program: None,
        broker: (!options.no_broker).then_some(broker),
        proxy_root,
    })?;
    home.write(|name| {
        let index = KEY_NAMES.iter().position(|known| *known == name)?;
        passphrases.get(index).cloned().flatten()
    })?;
    let unchecked = match broker_root {
        None if !options.no_broker => {
            format!(
                "The broker's signature will not be checked: {CONFIG} says how to change that.\n"
            )
        }
        _ => String::new(),
    };
    print(&format!(
        "{} is ready: keys, certificates, requests, {CONFIG}, {PROXY_CONFIG}.\n\
         {unchecked}\
         Next: pktxpmgr -c {}/{CONFIG} MLET\n",
        shown(home.directory()),
        shown(home.directory()),
    ))?;
    Ok(Exit::Success)
}
