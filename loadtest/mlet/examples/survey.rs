//! Looks up names and connects to servers through every endpoint, a line of JSON for each.
use std::process::ExitCode;
use std::time::{Duration, Instant};

use mlet::{JsonLine, MletError, arguments, resolve, run_with};

fn main() -> ExitCode {
    let usage = "survey DNS_SERVER[:PORT] [NAME | HOST:PORT]...";
    run_with(usage, judged, |client, endpoint, (dns, targets)| {
        let (servers, names): (Vec<_>, Vec<_>) = targets.iter().partition(|one| one.contains(':'));
        client.set_session_deadline(Instant::now() + Duration::from_secs(60));
        for name in names {
            let found = client.look_up(0, name, resolve(&dns, 53)?, Duration::from_secs(5));
            JsonLine::new(endpoint).text("name", name).look_up(&found).print()?;
        }
        client.connect_each(Duration::from_secs(10), 0..=255, (&servers, 80), |server, made| {
            JsonLine::new(endpoint).text("server", server).connection(made).print()
        })?;
        // Where the session is over by now, not all was measured: that is a failure.
        Ok(client.clock().map(drop)?)
    })
}

fn judged(words: &[String]) -> Result<(String, Vec<String>), MletError> {
    let (dns, targets) = words.split_first().ok_or(MletError::Usage)?;
    Ok((arguments::host(dns)?, targets.to_vec()))
}
