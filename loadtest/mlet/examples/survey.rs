//! Looks up names and connects to servers through every endpoint, a line of JSON for each.
use std::process::ExitCode;
use std::time::{Duration, Instant};

use mlet::{JsonLine, MletError, resolve, run};

fn main() -> ExitCode {
    run("survey DNS_SERVER[:PORT] [NAME | HOST:PORT]...", |client, endpoint, words| {
        let (dns, targets) = words.split_first().ok_or(MletError::Usage)?;
        let (servers, names): (Vec<_>, Vec<_>) = targets.iter().partition(|one| one.contains(':'));
        client.set_session_deadline(Instant::now() + Duration::from_secs(60));
        for name in names {
            let found = client.look_up(0, name, resolve(dns, 53)?, Duration::from_secs(5));
            JsonLine::new(endpoint).text("name", name).look_up(&found).print()?;
        }
        for (sktid, server) in (1..).zip(&servers) {
            client.begin_connect(Duration::from_secs(10), sktid, resolve(server, 80)?, 4096);
        }
        while let Some((sktid, connection)) = client.next_connection() {
            let server = servers[usize::from(sktid) - 1];
            JsonLine::new(endpoint).text("server", server).connection(&connection).print()?;
        }
        Ok(())
    })
}
