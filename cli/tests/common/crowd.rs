//! Honest sessions beside mlets that never read while their endpoints flood (promise P11).

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::Home;
use super::endpoint::{Dial, Endpoint, NDATA, message};
use super::manager::{Manager, children_of, kill_hard, wait_until};

/// Pause between two round trips of an honest session, and between two attempts of the flood.
const PAUSE: Duration = Duration::from_millis(5);

/// The 99th percentiles of the honest sessions' round trips, one of each for every round.
#[derive(Debug, Default)]
pub struct Figures {
    pub alone: Vec<Duration>,
    pub crowded: Vec<Duration>,
    /// Bytes that the floods brought under, all rounds together.
    pub flooded_len: usize,
}

impl Figures {
    /// The best window with the others is hardly worse than the best without: a comparison that what else the
    /// machine does gets into least.
    pub fn best_holds(&self) -> bool {
        let best = |p99s: &[Duration]| p99s.iter().min().copied().unwrap();
        hardly_worse(best(&self.crowded), best(&self.alone))
    }

    /// The same of the medians, which one lucky window does not sway.
    pub fn median_holds(&self) -> bool {
        let median = |p99s: &[Duration]| {
            let mut p99s = p99s.to_vec();
            p99s.sort_unstable();
            p99s[p99s.len() / 2]
        };
        hardly_worse(median(&self.crowded), median(&self.alone))
    }
}

/// Promise P11 as the project has it: at most half as much again.
fn hardly_worse(crowded: Duration, alone: Duration) -> bool {
    crowded <= alone * 3 / 2
}

/// Measures so many honest sessions in windows with and without so many others, by turns, for so many rounds or
/// until the figures are good enough.
pub fn measure(
    honest: usize,
    others: usize,
    rounds: usize,
    window: Duration,
    is_enough: fn(&Figures) -> bool,
) -> Figures {
    let home = Home::new();
    let manager = home.start(&[], &["obey"]);
    let dial = home.dial(&manager);
    let mut sessions: Vec<Endpoint> = (0..honest).map(|_| told(&dial, b"echo")).collect();
    wait_until("their mlets run", || mlets(&manager).len() == honest);
    let mut figures = Figures::default();
    for _ in 0..rounds {
        figures.alone.push(p99(&mut sessions, window));
        let kept = mlets(&manager);
        let flooding: Vec<Endpoint> = (0..others).map(|_| told(&dial, b"silent")).collect();
        beside_a_flood(flooding, &mut figures, &mut sessions, window);
        // A mlet that never reads hides the end of its endpoint, so that only its own end ends it.
        let others = mlets(&manager).into_iter().filter(|pid| !kept.contains(pid));
        others.for_each(kill_hard);
        wait_until("only the honest are left", || mlets(&manager).len() == kept.len());
        if is_enough(&figures) {
            break;
        }
    }
    figures
}

fn mlets(manager: &Manager) -> Vec<i32> {
    children_of(manager.supervisor())
}

fn told(dial: &Dial, order: &[u8]) -> Endpoint {
    let mut endpoint = dial.session();
    endpoint.send(&message(NDATA, order));
    endpoint
}

fn p99(sessions: &mut [Endpoint], window: Duration) -> Duration {
    let end = Instant::now() + window;
    let mut times: Vec<Duration> = thread::scope(|scope| {
        let threads: Vec<_> = sessions
            .iter_mut()
            .map(|session| {
                scope.spawn(move || {
                    let mut times = Vec::new();
                    while Instant::now() < end {
                        let start = Instant::now();
                        session.echoes(&[7; 64]);
                        times.push(start.elapsed());
                        thread::sleep(PAUSE);
                    }
                    times
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

/// Measures when every flood has come to a stand, and goes on trying to send meanwhile: what the
/// filling of all the buffers costs the sender would be measured otherwise.
fn beside_a_flood(
    mut flooding: Vec<Endpoint>,
    figures: &mut Figures,
    sessions: &mut [Endpoint],
    window: Duration,
) {
    let (is_over, standing, sent) =
        (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let len: usize = flooding.iter_mut().map(flood).sum();
                sent.fetch_add(len, Ordering::Relaxed);
                if len == 0 {
                    standing.fetch_add(1, Ordering::Relaxed);
                }
                thread::sleep(PAUSE);
            }
        });
        wait_until("the floods have come to a stand", || standing.load(Ordering::Relaxed) >= 5);
        figures.crowded.push(p99(sessions, window));
        is_over.store(true, Ordering::Relaxed);
    });
    figures.flooded_len += sent.into_inner();
}

/// Sends until nothing more is taken, and returns how much was.
fn flood(endpoint: &mut Endpoint) -> usize {
    let piece = message(NDATA, &[7; 16_000]);
    endpoint.tcp.set_nonblocking(true).unwrap();
    let mut len = 0;
    while endpoint.try_send(&piece).is_ok() {
        len += piece.len();
    }
    len
}
