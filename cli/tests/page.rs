//! The page of a run while it goes on (`--metrics`): what it is told and by whom it may be seen, and how a browser shows it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use common::browser::Browser;
use common::endpoint::{Dial, End, NDATA, message};
use common::events::{EVENTS, Events};
use common::http::{ask_at, ask_with, get, metrics, metrics_address};
use common::manager::{Manager, PATIENCE, wait_until};
use common::stalled::Stalled;
use common::watching::Watching;
use common::{Home, assert_says};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

/// How many may watch at once.
const PLACES: usize = 8;

fn start(home: &Home, options: &[&str], kind: &[&str]) -> (Manager, SocketAddr) {
    let manager = home.start(&[&["--metrics", "0"], &EVENTS[..], options].concat(), kind);
    let address = metrics_address(&manager);
    (manager, address)
}

/// A session whose mlet ends as it is told to.
fn obeys(dial: &Dial, order: &str) {
    let mut endpoint = dial.session();
    endpoint.send(&message(NDATA, order.as_bytes()));
    assert_eq!(endpoint.receive(), Err(End::CloseNotify));
    endpoint.close();
}

fn text<'a>(told: &'a Value, id: &str) -> &'a str {
    told["texts"][id].as_str().unwrap()
}

/// The first two cells of each row of a table, in its order.
fn pairs(rows: &Value) -> Vec<(&str, &str)> {
    let rows = rows.as_array().unwrap().iter();
    rows.map(|row| (row[0].as_str().unwrap(), row[1].as_str().unwrap())).collect()
}

/// How many sessions ended how.
fn outcomes(records: &[Value]) -> BTreeMap<&str, usize> {
    let mut outcomes = BTreeMap::new();
    for record in records {
        *outcomes.entry(record["outcome"].as_str().unwrap()).or_default() += 1;
    }
    outcomes
}

fn sum(records: &[Value], group: &str, dir: &str) -> u64 {
    records.iter().map(|record| record[group][dir].as_u64().unwrap()).sum()
}

/// What the table of sessions answers to this query.
fn sessions(address: SocketAddr, query: &str) -> Value {
    let (status, body) = get(address, &format!("/sessions?{query}"));
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

#[test]
fn who_watches_is_told_how_the_run_goes_and_at_its_end_the_numbers_of_the_records() {
    let home = Home::new();
    let (manager, address) = start(&home, &["--cores", "1", "--latency-sample", "1"], &["obey"]);
    let mut watching = Watching::begin(address);
    let dial = home.dial(&manager);
    let mut running = dial.session();
    running.send(&message(NDATA, b"say"));
    assert_eq!(running.text(), "say");
    let told = watching.until("it runs", |told| text(told, "running") == "1");
    assert_eq!(told["state"], "Running: endpoints are served.");
    assert_eq!(text(&told, "ended"), "0");
    // From its beginning on, for one who comes late as well.
    let mut late = Watching::begin(address);
    let (_, first) = late.next().unwrap();
    let paths = first["charts"]["phases-chart"]["paths"].as_array().unwrap();
    assert!(paths.iter().any(|path| path["class"] == "running"), "{paths:?}");
    for order in ["exit 0", "exit 0", "exit 3"] {
        obeys(&dial, order);
    }
    watching.until("they are over", |told| text(told, "ended") == "3");
    running.send(&message(NDATA, b"exit 0"));
    assert_eq!(running.receive(), Err(End::CloseNotify));
    running.close();
    Events::of(&home).await_sessions(4);
    manager.signal(Signal::SIGINT);
    let last = watching.last();
    assert_eq!(late.last(), last, "all are told the same");
    assert_eq!(manager.ends().code, Some(0));
    let records = Events::of(&home).sessions();
    assert_eq!(last["state"], "The run is over. These are its final numbers.");
    let expected =
        [("ended", "4"), ("ok", "3"), ("failed", "1"), ("neither", "0"), ("running", "0")];
    expected.iter().for_each(|(id, number)| assert_eq!(text(&last, id), *number, "{id}"));
    let told: BTreeMap<&str, usize> = pairs(&last["tables"]["outcomes"])
        .into_iter()
        .map(|(outcome, count)| (outcome, count.parse().unwrap()))
        .collect();
    assert_eq!(told, outcomes(&records));
    assert_eq!(pairs(&last["tables"]["reasons"]), [("mlet exit code 3", "1")]);
    for (way, dir) in [("to", "to_ep"), ("from", "from_ep")] {
        let (bytes, messages) = (sum(&records, "bytes", dir), sum(&records, "msgs", dir));
        assert!(bytes > 0);
        assert_eq!(text(&last, &format!("{way}-bytes")), format!("{bytes} B"));
        assert_eq!(text(&last, &format!("{way}-messages")), messages.to_string());
    }
    let times = pairs(&last["tables"]["times"]);
    assert!(times.contains(&("TLS", "4")) && times.contains(&("mlet's run", "4")), "{times:?}");
    // The one that ended last stands first.
    let rows = last["sessions"]["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 4);
    assert_eq!(
        (&rows[0][0], &rows[0][3], &rows[1][8]),
        (&"1".into(), &"ok".into(), &"mlet exit code 3".into())
    );
}

#[test]
fn the_table_has_those_that_run_before_those_that_ended_and_finds_what_is_looked_for() {
    let home = Home::new();
    let (manager, address) = start(&home, &["--cores", "1"], &["obey"]);
    let dial = home.dial(&manager);
    ["exit 0", "exit 3"].iter().for_each(|order| obeys(&dial, order));
    let mut running = dial.session();
    running.send(&message(NDATA, b"say"));
    assert_eq!(running.text(), "say");
    // A stranger is no session of anybody.
    let mut stranger = TcpStream::connect(manager.address).unwrap();
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let records = Events::of(&home).await_sessions(3);
    let numbers = |told: &Value| -> Vec<String> {
        let rows = told["rows"].as_array().unwrap().iter();
        rows.map(|row| row[0].as_str().unwrap().to_owned()).collect()
    };
    let all = sessions(address, "");
    assert_eq!(numbers(&all), ["3", "2", "1"]);
    assert_says(all["told"].as_str().unwrap(), &["1 to 3 of 3 sessions, of which 1 run;"]);
    let row = &all["rows"][0];
    let len = message(NDATA, b"say").len();
    let peer = row[2].as_str().unwrap();
    assert!(peer.starts_with("127.0.0.1:"), "{row}");
    assert_eq!(row[3], "running");
    assert_eq!((&row[5], &row[6]), (&format!("{len} B").into(), &format!("{len} B").into()));
    let key = records[0]["ep"]["key"].as_str().unwrap();
    assert_eq!(all["rows"][2][1]["title"], key);
    let last_outcomes = [0, 1, 2].map(|row| all["rows"][row][7].as_str().unwrap());
    assert_eq!(last_outcomes, ["mlet_failed", "ok", "-"], "of the one before");
    for (query, found) in [
        ("q=running", &["3"][..]),
        ("q=exit+code%203", &["2"]),
        ("q=EXIT+mlet_failed", &["2"]),
        ("q=running+mlet_failed", &["3"]),
        ("q=nobody", &[]),
        (&format!("q={key}"), &["3", "2", "1"]),
        ("sort=session&order=ascending", &["1", "2", "3"]),
        ("sort=session&order=descending&page=99", &["3", "2", "1"]),
        ("page=-1&sort=weather&q=%zz%", &[]),
    ] {
        assert_eq!(numbers(&sessions(address, query)), found, "{query}");
    }
    assert_eq!(sessions(address, "q=running")["found"], "1 of 3 found.");
    running.send(&message(NDATA, b"exit 0"));
    assert_eq!(running.receive(), Err(End::CloseNotify));
    running.close();
    assert_eq!(manager.interrupted().code, Some(0));
}

#[test]
fn the_page_loads_nothing_from_elsewhere_and_is_shown_under_no_name_of_others() {
    let home = Home::new();
    let (manager, address) = start(&home, &[], &["echo"]);
    let at = |host: &str, path: &str| {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        ask_at(stream, host, "GET", path)
    };
    let (status, head, page) = at(&address.to_string(), "/");
    assert_eq!(status, 200);
    let head = head.to_lowercase();
    for part in [
        "content-type: text/html; charset=utf-8",
        "content-security-policy: default-src 'none'; style-src 'sha256-",
        "connect-src 'self';",
        "frame-ancestors 'none'",
        "x-content-type-options: nosniff",
        "cache-control: no-store",
    ] {
        assert!(head.contains(part), "{part}: {head}");
    }
    assert!(!head.contains("access-control"), "{head}");
    assert_says(&page, &["<h1>Run of mlet-zoo</h1>", "role=\"status\"", "<label for=\"q\">"]);
    let lower = page.to_lowercase();
    for part in
        ["http:", "https:", " src=", " href=", "url(", "@import", "<link", " style=", " onclick="]
    {
        assert!(!lower.contains(part), "{part}");
    }
    for host in ["localhost", "LocalHost:9100", "127.0.0.1", "[::1]:80", "10.1.2.3:9100"] {
        assert_eq!(at(host, "/sessions").0, 200, "{host}");
    }
    for path in ["/", "/events", "/sessions"] {
        for host in [
            "evil.example",
            "evil.example:9100",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
        ] {
            assert_eq!(at(host, path).0, 403, "{host}{path}");
        }
    }
    // Nothing of single endpoints is told here, and scrapers have names of their own for hosts.
    assert_eq!(at("lab.example:9100", "/metrics").0, 200);
    assert_eq!(at("localhost", "/event").0, 404);
    let head = ask_at(TcpStream::connect(address).unwrap(), "localhost", "HEAD", "/events");
    assert_says(&head.1, &["200 OK", "content-type: text/event-stream"]);
    assert_eq!(manager.interrupted().code, Some(0));
}

/// Which could read nothing, but would keep others from watching.
#[test]
fn pages_of_others_are_told_nothing_and_get_no_place() {
    let home = Home::new();
    let (manager, address) = start(&home, &[], &["echo"]);
    // The head alone, as events have no end.
    let status = |site: &str, path: &str| {
        let headers = [("Host", "localhost"), ("Sec-Fetch-Site", site)];
        ask_with(TcpStream::connect(address).unwrap(), &headers, "HEAD", path).0
    };
    for site in ["cross-site", "same-site", "what comes later"] {
        assert_eq!(["/events", "/sessions"].map(|path| status(site, path)), [403; 2]);
        assert_eq!(["/", "/metrics"].map(|path| status(site, path)), [200; 2], "by a link");
    }
    for site in ["same-origin", "none"] {
        assert_eq!(["/events", "/sessions"].map(|path| status(site, path)), [200; 2]);
    }
    assert_eq!(manager.interrupted().code, Some(0));
}

#[test]
fn a_page_is_shown_under_the_host_that_was_typed() {
    let home = Home::new();
    let manager = home.start(&["--metrics", "localhost:0"], &["echo"]);
    let address = metrics_address(&manager);
    let at = |host: &str| ask_at(TcpStream::connect(address).unwrap(), host, "GET", "/sessions").0;
    assert_eq!([at("localhost:1"), at("lab")], [200, 403]);
    assert_eq!(manager.interrupted().code, Some(0));
}

/// More than there are places for watch, and many more connect and say nothing.
#[test]
fn as_many_watch_as_there_are_places_for_and_others_do_not_displace_them() {
    let home = Home::new();
    let (manager, address) = start(&home, &[], &["echo"]);
    let mut watching: Vec<Watching> = (0..PLACES).map(|_| Watching::begin(address)).collect();
    assert!(Watching::try_begin(address).is_none());
    let silent: Vec<TcpStream> = (0..60).map(|_| TcpStream::connect(address).unwrap()).collect();
    for one in &mut watching {
        (0..3).for_each(|_| assert_eq!(one.next().unwrap().0, "message"));
    }
    assert_eq!(get(address, "/ready").0, 200);
    drop(silent);
    watching.pop();
    wait_until("there is a place again", || Watching::try_begin(address).is_some());
    assert_eq!(manager.interrupted().code, Some(0));
}

/// A connection on which an event stream has been asked for, and of which hardly anything is taken.
fn watches_and_reads_nothing(address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(2048).unwrap();
    socket.connect(&address.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    stream
}

#[test]
fn who_watches_and_reads_nothing_is_let_go_and_holds_up_neither_others_nor_the_end() {
    let home = Home::new();
    let (manager, address) = start(&home, &[], &["echo"]);
    let dial = home.dial(&manager);
    let mut endpoint = dial.session();
    endpoint.echoes(b"before");
    let before = manager.open_sockets();
    let mut good = Watching::begin(address);
    let slow: Vec<TcpStream> = (1..PLACES).map(|_| watches_and_reads_nothing(address)).collect();
    wait_until("all have places", || Watching::try_begin(address).is_none());
    // First what the kernel holds for them has to be full.
    for left in [PLACES - 2, 0] {
        wait_until("they are let go", || {
            endpoint.echoes(b"beside them");
            assert_eq!(good.next().unwrap().0, "message");
            manager.open_sockets() <= before + 1 + left
        });
    }
    assert!(Watching::try_begin(address).is_some());
    drop(slow);
    let _slow: Vec<TcpStream> = (1..PLACES).map(|_| watches_and_reads_nothing(address)).collect();
    wait_until("all have places again", || Watching::try_begin(address).is_none());
    endpoint.close();
    Events::of(&home).await_sessions(1);
    let asked = Instant::now();
    manager.signal(Signal::SIGINT);
    good.last();
    assert_eq!(manager.ends().code, Some(0));
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
}

/// How often the thread of this name has gone to sleep.
fn sleeps(manager: &Manager, name: &str) -> u64 {
    let threads = fs::read_dir(format!("/proc/{}/task", manager.pid())).unwrap().flatten();
    let read =
        |thread: &fs::DirEntry, file: &str| fs::read_to_string(thread.path().join(file)).unwrap();
    let thread = threads.into_iter().find(|thread| read(thread, "comm").trim() == name).unwrap();
    let status = read(&thread, "status");
    let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Each second it is asked whether it makes turns, and for the table what its sessions have relayed.
#[test]
fn a_shard_is_woken_twice_a_second_however_many_watch_and_look_at_the_table() {
    let home = Home::new();
    let (manager, address) = start(&home, &["--cores", "1"], &["echo"]);
    home.dial(&manager).is_served();
    let mut watching: Vec<Watching> = (0..PLACES).map(|_| Watching::begin(address)).collect();
    let mut seconds = |count: u64| {
        for _ in 0..count {
            for one in &mut watching {
                one.next();
                sessions(address, "");
            }
        }
    };
    seconds(2);
    let (began, before) = (Instant::now(), sleeps(&manager, "shard-0"));
    seconds(5);
    let slept = sleeps(&manager, "shard-0") - before;
    let lasted = began.elapsed();
    // Of each question one may have come just before, and one comes at the end of a second that has not lasted whole.
    assert!(slept <= 2 * (lasted.as_secs() + 2), "{slept} in {lasted:?}");
    assert_eq!(manager.interrupted().code, Some(0));
}

/// So many endpoints come at once.
const MANY: usize = 200;

/// The cells of a table in the page, row by row.
fn cells(browser: &mut Browser, table: &str) -> Vec<Vec<String>> {
    let rows = browser.value(&format!(
        "[...document.querySelectorAll('#{table} tbody tr')].map((row) => [...row.cells].map((cell) => cell.textContent))"
    ));
    serde_json::from_value(rows).unwrap()
}

fn shown(browser: &mut Browser, id: &str) -> String {
    let text = browser.value(&format!("document.getElementById('{id}').textContent"));
    text.as_str().unwrap().to_owned()
}

/// To the field for a search, which finds one; on to the table; and a heading of it is pressed.
fn searches_and_sorts_by_keys_alone(browser: &mut Browser) {
    browser.press("Tab");
    assert_eq!(browser.value("document.activeElement.id"), "q");
    let key = browser.value("document.querySelector('#sessions tbody tr').cells[1].title");
    browser.write(&key.as_str().unwrap()[..16]);
    // The page may not know of the last of them yet.
    let all = format!("{MANY} of {MANY} found.");
    browser.until(&format!("document.getElementById('found').textContent === '{all}'"));
    browser.write(" 199");
    browser.until("document.querySelectorAll('#sessions tbody tr').length < 100");
    browser.value("document.getElementById('q').select()");
    browser.write(" ");
    browser.until("document.querySelectorAll('#sessions tbody tr').length === 100");
    let mut passed = Vec::new();
    while browser.value("document.activeElement.parentNode.id") != "by-session" {
        browser.press("Tab");
        passed.push(browser.value("document.activeElement.id || document.activeElement.className"));
        assert!(passed.len() < 10, "{passed:?}");
    }
    assert_eq!(passed[..2], ["next", "scroll"], "and then its headings");
    browser.press("Enter");
    browser.until(&format!(
        "Number(document.querySelector('#sessions tbody tr').cells[0].textContent) >= {MANY}"
    ));
}

#[test]
#[ignore = "needs chromium"]
fn a_browser_shows_a_run_of_200_endpoints_to_its_end_and_then_the_numbers_of_the_records() {
    let home = Home::new();
    let (manager, address) = start(&home, &[], &["obey"]);
    let mut browser = Browser::start(&home.path(""));
    browser.open(&format!("http://{address}/"));
    browser.until("document.body.dataset.state === 'live'");
    let dial = home.dial(&manager);
    let mut endpoints: Vec<_> = (0..MANY).map(|_| dial.session()).collect();
    for endpoint in &mut endpoints {
        endpoint.send(&message(NDATA, b"say"));
        assert_eq!(endpoint.text(), "say");
    }
    browser.until(&format!("document.getElementById('running').textContent === '{MANY}'"));
    browser.until("document.querySelectorAll('#sessions tbody tr').length === 100");
    browser.until("document.querySelector('#phases-chart path.running') !== null");
    searches_and_sorts_by_keys_alone(&mut browser);
    for (number, endpoint) in endpoints.iter_mut().enumerate() {
        let order = if number % 10 == 0 { "exit 3" } else { "exit 0" };
        endpoint.send(&message(NDATA, order.as_bytes()));
        assert_eq!(endpoint.receive(), Err(End::CloseNotify));
        endpoint.close();
    }
    Events::of(&home).await_sessions(MANY);
    assert_eq!(manager.interrupted().code, Some(0));
    browser.until("document.body.dataset.state === 'over'");
    assert_eq!(shown(&mut browser, "state"), "The run is over. These are its final numbers.");
    let records = Events::of(&home).sessions();
    let failed = records.iter().filter(|record| record["failed"] == true).count();
    for (id, number) in [("ended", MANY), ("ok", MANY - failed), ("failed", failed), ("running", 0)]
    {
        assert_eq!(shown(&mut browser, id), number.to_string(), "{id}");
    }
    let told = cells(&mut browser, "outcomes");
    let told = told.iter().map(|row| (&*row[0], row[1].parse().unwrap())).collect();
    assert_eq!(outcomes(&records), told);
    for (way, dir) in [("to", "to_ep"), ("from", "from_ep")] {
        let messages = sum(&records, "msgs", dir).to_string();
        assert_eq!(shown(&mut browser, &format!("{way}-messages")), messages);
    }
    // The table is as nobody has searched or sorted it.
    assert_eq!(browser.value("document.getElementById('q').value"), "");
    let sorted = "[...document.querySelectorAll('#sessions [aria-sort]')].map((head) => head.id)";
    assert_eq!(browser.value(sorted), json!(["by-state"]));
    let rows = cells(&mut browser, "sessions");
    assert_eq!(rows.len(), 100);
    for row in rows {
        let record =
            records.iter().find(|record| record["sid"].as_u64() == row[0].parse().ok()).unwrap();
        assert_eq!(record["outcome"], *row[3]);
        assert_eq!(format!("{} B", record["bytes"]["to_ep"]), row[5]);
        assert!(record["ep"]["key"].as_str().unwrap().starts_with(&row[1]));
        assert_eq!(record["reason"].as_str().unwrap_or_default(), row[8]);
    }
    // It has not tried to load anything that its policy forbids, nor to connect again.
    let loaded = browser.value("performance.getEntriesByType('resource').every((one) => one.name.startsWith(location.origin))");
    assert_eq!(loaded, true);
}

#[test]
#[ignore = "needs chromium"]
fn a_browser_says_that_it_has_lost_the_run_when_that_is_killed_and_keeps_what_it_has_shown() {
    let home = Home::new();
    let (manager, address) = start(&home, &[], &["echo"]);
    let mut browser = Browser::start(&home.path(""));
    browser.open(&format!("http://{address}/"));
    home.dial(&manager).is_served();
    browser.until("document.getElementById('ended').textContent === '1'");
    manager.signal(Signal::SIGKILL);
    browser.until("document.body.dataset.state === 'lost'");
    assert_says(
        &shown(&mut browser, "state"),
        &["No connection to the run since ", "Trying again."],
    );
    assert_eq!(shown(&mut browser, "ended"), "1");
}

/// In the log within two seconds, and from there on in all that shows the run.
#[test]
fn a_shard_that_stands_still_is_told_of_on_the_page_and_in_metrics_as_long_as_it_does() {
    let home = Home::new();
    let (manager, address) = start(&home, &["--cores", "1"], &["echo"]);
    let mut watching = Watching::begin(address);
    let stalls = || {
        let samples = metrics(address).into_iter();
        let core = samples.filter(|(name, _)| name.starts_with("pktxpmgr_core_stalled_seconds{"));
        core.map(|(_, value)| value).collect::<Vec<_>>()
    };
    assert_eq!((stalls(), text(&watching.next().unwrap().1, "troubles")), (vec![0.0], ""));
    let stalled = Stalled::shard(&manager, 0);
    let began = Instant::now();
    let told = watching.until("it is told", |told| !text(told, "troubles").is_empty());
    // Twice the promise, on a machine that does much else.
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert_says(text(&told, "troubles"), &["has made no turn for ", "its sessions stand still."]);
    assert!(stalls()[0] > 0.0, "{:?}", stalls());
    drop(stalled);
    watching.until("it is over", |told| text(told, "troubles").is_empty());
    assert_eq!(stalls(), [0.0]);
    assert_eq!(manager.interrupted().code, Some(0));
}

/// What a peer that means ill could say.
const HOSTILE: &str = "</td><img src=x onerror=\"document.title='taken'\"><b id=bold>x</b>\
    <script>document.title='taken'</script>";

/// Serves this page, and answers all that it asks for with what means ill, for a few connections.
fn hostile_site(page: String) -> SocketAddr {
    let cut = || json!({ "text": HOSTILE, "title": HOSTILE });
    let rows = |columns| -> Value {
        (0..2).map(|_| (0..columns).map(|_| cut()).collect::<Value>()).collect()
    };
    let sessions =
        json!({ "rows": rows(9), "told": HOSTILE, "found": HOSTILE, "page": 1, "pages": 1 });
    let chart = json!({
        "labels": [{ "x": HOSTILE, "y": "1", "anchor": HOSTILE, "text": HOSTILE }],
        "paths": [{ "class": HOSTILE, "d": HOSTILE }],
    });
    let told = json!({
        "state": HOSTILE,
        "texts": { "elapsed": HOSTILE, "lost": HOSTILE },
        "tables": {
            "outcomes": [[HOSTILE, HOSTILE, HOSTILE, { "bar": HOSTILE }], [HOSTILE]],
            "phases": [[HOSTILE, { "line": HOSTILE }, HOSTILE, HOSTILE]],
            "reasons": rows(2),
        },
        "charts": { "phases-chart": chart },
    });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answer = move |mut stream: TcpStream| {
        let mut request = String::new();
        BufReader::new(&stream).read_line(&mut request)?;
        let (kind, body) = match request.split(' ').nth(1).unwrap_or_default() {
            "/" => ("text/html", page.clone()),
            "/events" => ("text/event-stream", format!("event: message\ndata: {told}\n\n")),
            _ => ("application/json", sessions.to_string()),
        };
        write!(stream, "HTTP/1.0 200 OK\r\nContent-Type: {kind}; charset=utf-8\r\n\r\n{body}")
    };
    thread::spawn(move || {
        for stream in listener.incoming().take(50) {
            let _ = answer(stream.unwrap());
        }
    });
    address
}

#[test]
#[ignore = "needs chromium"]
fn a_browser_shows_whatever_is_told_as_text_and_nothing_else() {
    let home = Home::new();
    let (manager, address) = start(&home, &[], &["echo"]);
    let site = hostile_site(get(address, "/").1);
    assert_eq!(manager.interrupted().code, Some(0));
    let mut browser = Browser::start(&home.path(""));
    browser.open(&format!("http://{site}/"));
    browser.until("document.querySelectorAll('#sessions tbody tr').length === 2");
    browser.until("document.querySelectorAll('#outcomes tbody tr').length === 2");
    for id in ["elapsed", "sessions-told", "found"] {
        assert_eq!(shown(&mut browser, id), HOSTILE, "{id}");
    }
    assert_eq!(cells(&mut browser, "reasons")[0][0], HOSTILE);
    assert_eq!(browser.value("document.querySelectorAll('img, #bold, main script').length"), 0);
    assert_eq!(browser.value("document.title"), "Run of mlet-zoo");
}
