//! `mlet-tls [-4|-6] [HOST[:PORT] [NAME]]`: a TLS 1.3 handshake with a server through the endpoint: how long it takes, and
//! which certificates the server shows. NAME is the server name that it is asked for, HOST by default; an address is
//! none. Nothing is trusted: whoever answers is told as he shows himself, and `proven` says no more than that he holds
//! the key of the first certificate.
//!
//! ```text
//! KEY <TAB> ADDRESS <TAB> HOST <TAB> handshake <TAB> milliseconds <TAB> cipher suite <TAB> proven, or why not
//! KEY <TAB> ADDRESS <TAB> HOST <TAB> certificate <TAB> number from 1 <TAB> SHA-256 <TAB> valid from <TAB> valid until
//!     <TAB> subject <TAB> issuer <TAB> names
//! ```
//!
//! The time is what the server and the way to it take, by the endpoint's clock: from the departure of each flight of
//! messages to the arrival of the end of its answer. What is computed here, and the way between here and the endpoint, are
//! no part of it, nor is the making of the connection. Dates are seconds since 1970.
//!
//! Not here: TLS 1.2, which would have to be built into rustls for the manager as well.

mod certificates;
mod handshake;

use std::process::ExitCode;
use std::time::Duration;

use mlet::arguments;
use mlet::{Family, MletError, print_line, resolve_of};
use packetlab::address::HostPort;
use packetlab::escape::Escaped;

use handshake::Server;

const USAGE: &str = "mlet-tls [-4|-6] [HOST[:PORT] [NAME]]\n\
    prints a line for the handshake: key, address, host, \"handshake\",\n\
    milliseconds, cipher suite, whether the server has its key; and a line\n\
    for each certificate: key, address, host, \"certificate\", number, SHA-256,\n\
    valid from, valid until, subject, issuer, names";
const HOST: &str = "www.example.com";
const HTTPS_PORT: u16 = 443;
/// How long a handshake may take, the connection and all ways included.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is asked for.
struct Arguments {
    family: Option<Family>,
    host: String,
    name: String,
}

fn main() -> ExitCode {
    mlet::run_with(USAGE, judged, |client, endpoint, Arguments { family, host, name }| {
        let address = resolve_of(&host, HTTPS_PORT, family)?;
        let handshake = Server { address, name }.greet(client, PATIENCE)?;
        let start = format!("{}\t{}", endpoint.columns(), Escaped(host.as_bytes()));
        let (milliseconds, suite) = (handshake.taken.as_secs_f64() * 1e3, handshake.suite);
        let proof = handshake.proof.err().unwrap_or_else(|| "proven".to_owned());
        print_line(&format!("{start}\thandshake\t{milliseconds:.3}\t{suite}\t{proof}"))?;
        for (index, certificate) in handshake.certificates.iter().enumerate() {
            let start = format!("{start}\tcertificate\t{}", index + 1);
            print_line(&certificates::line(&start, certificate))?;
        }
        Ok(())
    })
}

fn judged(words: &[String]) -> Result<Arguments, MletError> {
    let (family, words) = arguments::family(words)?;
    let (host, name) = match words {
        [] => (HOST, None),
        [host] => (&**host, None),
        [host, name] => (&**host, Some(name.clone())),
        _ => return Err(MletError::Usage),
    };
    let host = arguments::host_of(host, family)?;
    let parsed = HostPort::parse(&host).map_err(|error| MletError::Failed(error.to_string()))?;
    let name = name.unwrap_or(parsed.host);
    handshake::check_name(&name)?;
    Ok(Arguments { family, host, name })
}
