//! Which path is answered how.
//!
//! Not here: connections (`server.rs`). Invariant: an answer is made of one snapshot.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use engine::{RunStage, RunView, Snapshot};
use http_body_util::Full;
use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderName, HeaderValue,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode};
use std::convert::Infallible;
use tokio::sync::mpsc;

use super::exposition;
use super::live::{self, Place, Query, Watched};

/// The type of Prometheus' text.
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

const TEXT: &str = "text/plain; charset=utf-8";

const HTML: &str = "text/html; charset=utf-8";

const JSON: &str = "application/json";

const EVENTS: &str = "text/event-stream";

/// What is there, for who asks for something else.
const PATHS: &str = "there are / (a page of the run), /metrics, /ready and /healthz\n";

/// Why a page is not shown under a name.
const FOREIGN: &str = "the page is shown under an address, as localhost, or under the host that was given to --metrics\n";

/// Why what the page asks for is not told.
const OF_OTHERS: &str = "this is told to the page of the run, and not to pages of others\n";

/// What is answered from.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) run: RunView,
    pub(super) watched: Watched,
    /// The page, which is the same for everybody.
    pub(super) page: Bytes,
    /// The host that was typed, if any was.
    pub(super) host: Option<String>,
}

/// An answer, and the place of a stream if it is one.
pub(super) type Answer = (Response<Told>, Option<Rc<Place>>);

/// The body of an answer.
#[derive(Debug)]
pub(super) enum Told {
    Whole(Full<Bytes>),
    /// As long as it goes on.
    Events(mpsc::Receiver<Bytes>),
}

impl Body for Told {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(whole) => Pin::new(whole).poll_frame(cx),
            Self::Events(events) => {
                events.poll_recv(cx).map(|event| event.map(|event| Ok(Frame::data(event))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.is_end_stream(),
            Self::Events(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => whole.size_hint(),
            Self::Events(_) => SizeHint::default(),
        }
    }
}

/// Answers a request, whatever body it has.
pub(super) async fn answer<B>(request: &Request<B>, site: &Site) -> Answer {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "GET alone\n");
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return (refusal, None);
    }
    let answer = match request.uri().path() {
        "/metrics" => response(StatusCode::OK, EXPOSITION, exposition::text(&site.run.snapshot())),
        "/ready" => ready(&site.run.snapshot()),
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/" | "/events" | "/sessions" if !is_ours(request, site.host.as_deref()) => {
            text(StatusCode::FORBIDDEN, FOREIGN)
        }
        "/events" | "/sessions" if is_of_others(request) => text(StatusCode::FORBIDDEN, OF_OTHERS),
        "/" => page(site.page.clone()),
        "/events" if request.method() == Method::GET => return events(site),
        "/events" => with_headers(StatusCode::OK, EVENTS, Told::Whole(Full::default())),
        "/sessions" => {
            let query = Query::of(request.uri().query().unwrap_or_default());
            // It fails only for maps whose keys are no text.
            let rows = serde_json::to_string(&site.watched.sessions.page(&query).await);
            response(StatusCode::OK, JSON, rows.unwrap_or_default())
        }
        _ => text(StatusCode::NOT_FOUND, PATHS),
    };
    (answer, None)
}

/// Whether the page was asked for under a name that is this program's. A name of somebody else that leads here belongs to a
/// page of theirs, which would read what is told as its own.
fn is_ours<B>(request: &Request<B>, typed: Option<&str>) -> bool {
    // What no browser has sent.
    let Some(host) = request.headers().get(HOST) else { return true };
    let Ok(host) = host.to_str() else { return false };
    let name = host.rsplit_once(':').filter(|(_, port)| !port.contains(']'));
    let name = name.map_or(host, |(name, _)| name);
    let is_address = name.parse::<std::net::Ipv4Addr>().is_ok() || name.starts_with('[');
    is_address
        || name.eq_ignore_ascii_case("localhost")
        || typed.is_some_and(|typed| name.eq_ignore_ascii_case(typed))
}

/// Whether a browser says that a page of somebody else asks. That page could read nothing, but would take a place. The page
/// itself takes none, so that links may lead to it from anywhere.
fn is_of_others<B>(request: &Request<B>) -> bool {
    let site = request.headers().get("sec-fetch-site");
    site.is_some_and(|site| site != "same-origin" && site != "none")
}

fn page(page: Bytes) -> Response<Told> {
    let mut response = response(StatusCode::OK, HTML, page);
    let headers = response.headers_mut();
    // Digests and words of ours.
    if let Ok(policy) = HeaderValue::from_str(&live::policy_header()) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

fn events(site: &Site) -> Answer {
    match site.watched.watch() {
        Some((events, place)) => {
            (with_headers(StatusCode::OK, EVENTS, Told::Events(events)), Some(place))
        }
        None => {
            let refusal = "as many pages as may watch this run do so already\n";
            (text(StatusCode::SERVICE_UNAVAILABLE, refusal), None)
        }
    }
}

fn ready(run: &Snapshot) -> Response<Told> {
    let stage = run.stage;
    if run.is_ready() {
        return response(StatusCode::OK, TEXT, format!("{stage}\n"));
    }
    let why = match (stage, run.reporting.silent) {
        (RunStage::Serving, Some(_)) => "the database of the campaign does not answer\n".to_owned(),
        _ => format!("{stage}\n"),
    };
    response(StatusCode::SERVICE_UNAVAILABLE, TEXT, why)
}

fn text(status: StatusCode, text: &'static str) -> Response<Told> {
    response(status, TEXT, text)
}

fn response(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Told> {
    with_headers(status, content_type, Told::Whole(Full::new(body.into())))
}

fn with_headers(status: StatusCode, content_type: &'static str, body: Told) -> Response<Told> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers: [(HeaderName, &'static str); 3] = [
        (CONTENT_TYPE, content_type),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
