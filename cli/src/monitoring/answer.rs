//! Which path is answered how.
//!
//! Not here: connections (`server.rs`). Invariant: an answer is made of one snapshot.

use engine::{RunStage, RunView};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use super::exposition;

/// The type of Prometheus' text.
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

const TEXT: &str = "text/plain; charset=utf-8";

/// What is there, for who asks for something else.
const PATHS: &str = "there are /metrics, /ready and /healthz\n";

/// Answers a request, whatever body it has.
pub(super) fn answer<B>(request: &Request<B>, run: &RunView) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut refusal = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET alone\n".into());
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refusal;
    }
    match request.uri().path() {
        "/metrics" => response(StatusCode::OK, EXPOSITION, exposition::text(&run.snapshot())),
        "/ready" => ready(run.snapshot().stage),
        "/healthz" => response(StatusCode::OK, TEXT, "ok\n".into()),
        _ => response(StatusCode::NOT_FOUND, TEXT, PATHS.into()),
    }
}

fn ready(stage: RunStage) -> Response<Full<Bytes>> {
    let status = match stage {
        RunStage::Serving => StatusCode::OK,
        RunStage::Starting | RunStage::Draining | RunStage::Forced | RunStage::Over => {
            StatusCode::SERVICE_UNAVAILABLE
        }
    };
    response(status, TEXT, format!("{stage}\n"))
}

fn response(status: StatusCode, content_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
