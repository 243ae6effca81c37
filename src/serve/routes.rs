//! What is answered at which path, to whom, and how much of it at a time.

use super::metrics::Metrics;
use super::refusal::Refusal;
use super::request::{self, Rules};
use super::response::{self, Form};
use super::settings::Settings;
use super::worker::{Job, Reply};
use super::{answer, body};
use crate::data::feed::Ears;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{header, HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::Router;
use serde_json::{json, Value};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::Arc;
use tokio::sync::mpsc::{self, error::TrySendError, Sender};
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Bytes that are read of a request which is refused, whoever sends it.
const MOST_DRAINED: usize = 1 << 20;
/// Seconds for which a browser may remember what it is allowed.
const REMEMBERED: &str = "600";

/// What all requests share.
pub(super) struct House {
    settings: Arc<Settings>,
    metrics: Arc<Metrics>,
    ears: Arc<Ears>,
    jobs: Sender<Job>,
    /// Requests that may be in the house.
    places: Arc<Semaphore>,
    /// Sounds that are decoded at the same time.
    decoders: Arc<Semaphore>,
    stopping: AtomicBool,
    since: u64,
}

impl House {
    pub(super) fn new(
        settings: Arc<Settings>,
        metrics: Arc<Metrics>,
        ears: Arc<Ears>,
        jobs: Sender<Job>,
    ) -> Self {
        House {
            places: Arc::new(Semaphore::new(settings.places())),
            decoders: Arc::new(Semaphore::new(crate::cores::allowed())),
            settings,
            metrics,
            ears,
            jobs,
            stopping: AtomicBool::new(false),
            since: response::now(),
        }
    }

    pub(super) fn stop(&self) {
        self.stopping.store(true, Relaxed);
    }

    /// Until nobody computes any more.
    pub(super) async fn abandoned(&self) {
        self.jobs.closed().await;
    }

    fn admits(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.settings.token else {
            return true;
        };
        let shown = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        let shown = shown.and_then(|v| {
            let (scheme, token) = v.split_at_checked(7)?;
            scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
        });
        shown.is_some_and(|shown| token.is(shown))
    }

    /// Whether web pages of this origin may ask.
    fn welcomes(&self, origin: &HeaderValue) -> bool {
        let all = &self.settings.origins;
        all.iter().any(|o| o == "*" || o.as_bytes() == origin.as_bytes())
    }
}

pub(super) fn router(house: Arc<House>) -> Router {
    let guard = middleware::from_fn_with_state(house.clone(), guard);
    Router::new()
        .route("/v1/chat/completions", post(chat))
        .route("/v1/models", get(models))
        .route("/v1/models/{*name}", get(model))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .fallback(nowhere)
        .method_not_allowed_fallback(not_so)
        .with_state(house)
        .layer(guard)
}

/// Web pages, tokens, counts: before and behind every route.
async fn guard(State(house): State<Arc<House>>, request: Request, next: Next) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let welcome = origin.as_ref().is_none_or(|o| house.welcomes(o));
    let asks_first = request.method() == Method::OPTIONS
        && request
            .headers()
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let wanted = request
        .headers()
        .get(header::ACCESS_CONTROL_REQUEST_HEADERS)
        .cloned();
    let open = request.uri().path() == "/health";
    let mut response = if !welcome {
        let message = "web pages of this origin may not ask; `af2 serve --allow-origin` names those that may";
        refuse(
            request,
            Refusal::new(StatusCode::FORBIDDEN, message).code("origin_not_allowed"),
        )
        .await
    } else if asks_first {
        StatusCode::NO_CONTENT.into_response()
    } else if !open && !house.admits(request.headers()) {
        let message = "expected the server's token: Authorization: Bearer TOKEN";
        refuse(
            request,
            Refusal::new(StatusCode::UNAUTHORIZED, message).code("invalid_api_key"),
        )
        .await
    } else {
        next.run(request).await
    };
    if let Some(origin) = origin.filter(|_| welcome) {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::VARY, HeaderValue::from_static("Origin"));
        let mut allow = |name: HeaderName, value| headers.insert(name, HeaderValue::from_static(value));
        if asks_first {
            allow(header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, OPTIONS");
            allow(header::ACCESS_CONTROL_MAX_AGE, REMEMBERED);
            if let Some(wanted) = wanted {
                headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted);
            }
        } else {
            allow(header::ACCESS_CONTROL_EXPOSE_HEADERS, "Retry-After");
        }
    }
    house.metrics.answered(response.status().as_u16());
    response
}

async fn refuse(request: Request, refusal: Refusal) -> Response {
    body::drain(request.into_body(), MOST_DRAINED).await;
    refusal.into_response()
}

async fn nowhere(request: Request) -> Response {
    let path: String = request.uri().path().chars().take(100).collect();
    let message = format!("{path}: nothing is here; POST /v1/chat/completions asks");
    refuse(request, Refusal::new(StatusCode::NOT_FOUND, message)).await
}

async fn not_so(request: Request) -> Response {
    let message = format!("{}: not with {}", request.uri().path(), request.method());
    refuse(request, Refusal::new(StatusCode::METHOD_NOT_ALLOWED, message)).await
}

fn json_of(status: StatusCode, value: &Value) -> Response {
    let json = HeaderValue::from_static("application/json");
    (status, [(header::CONTENT_TYPE, json)], value.to_string()).into_response()
}

async fn models(State(house): State<Arc<House>>) -> Response {
    let model = response::model(&house.settings.name, house.since);
    json_of(StatusCode::OK, &json!({"object": "list", "data": [model]}))
}

async fn model(State(house): State<Arc<House>>, Path(name): Path<String>) -> Response {
    if name != house.settings.name {
        let message = format!("model: no such model: this server has {:?}", house.settings.name);
        return Refusal::new(StatusCode::NOT_FOUND, message)
            .code("model_not_found")
            .into_response();
    }
    json_of(StatusCode::OK, &response::model(&name, house.since))
}

async fn health(State(house): State<Arc<House>>) -> Response {
    let (status, word) = match house.stopping.load(Relaxed) {
        false => (StatusCode::OK, "ready"),
        true => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
    };
    let [waiting, running] = [&house.metrics.waiting, &house.metrics.running].map(|n| n.load(Relaxed));
    json_of(
        status,
        &json!({"status": word, "waiting": waiting, "running": running}),
    )
}

async fn metrics(State(house): State<Arc<House>>) -> Response {
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], house.metrics.text()).into_response()
}

/// `POST /v1/chat/completions`
async fn chat(State(house): State<Arc<House>>, request: Request) -> Response {
    let until = Instant::now() + house.settings.timeout;
    // A place comes before the body: what is read is bounded, too.
    let Ok(place) = house.places.clone().try_acquire_owned() else {
        body::drain(request.into_body(), house.settings.max_body).await;
        return Refusal::full().into_response();
    };
    let place = answer::Place::new(place, house.metrics.clone());
    match ask(&house, request, place, until).await {
        Ok(response) => response,
        Err(refusal) => refusal.into_response(),
    }
}

async fn ask(
    house: &Arc<House>,
    request: Request,
    place: answer::Place,
    until: Instant,
) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    if let Err(refusal) = is_json(&parts.headers) {
        body::drain(body, house.settings.max_body).await;
        return Err(refusal);
    }
    let body = body::read(body, house.settings.max_body).await?;
    if house.stopping.load(Relaxed) {
        return Err(Refusal::stopping());
    }
    let decoder = house.decoders.clone().acquire_owned().await;
    let shared = house.clone();
    let heard = tokio::task::spawn_blocking(move || {
        // Its turn lasts as long as the work, also where the client has gone.
        let _turn = decoder;
        let begun = std::time::Instant::now();
        let settings = &shared.settings;
        let rules = Rules {
            name: settings.name.clone(),
            history: settings.history,
            text_only: settings.text_only,
            max_new_tokens: settings.max_new_tokens,
        };
        let asked = request::read(&body, &rules)?;
        drop(body);
        let sound = asked
            .sound
            .map(|sound| sound.heard(&shared.ears, settings.windows))
            .transpose()?;
        shared.metrics.decoding.see(begun.elapsed());
        Ok((asked.rest, sound))
    });
    let (asked, sound) = heard
        .await
        .unwrap_or_else(|_| Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "a fault of af2")))?;
    let seed = asked.decoding.do_sample.then_some(asked.decoding.seed);
    let form = Form::new(&house.settings.name, seed, asked.usage);
    let answers = asked.decoding.num_return_sequences;
    let (reply, replies) = mpsc::unbounded_channel();
    let job = Job {
        sound,
        prompt: asked.prompt,
        place: asked.place,
        decoding: asked.decoding,
        stream: asked.stream,
        logprobs: asked.logprobs,
        reply,
    };
    house.jobs.try_send(job).map_err(|e| match e {
        TrySendError::Full(_) => Refusal::full(),
        TrySendError::Closed(_) => Refusal::stopping(),
    })?;
    let mut replies = answer::Replies::new(replies, until, house.settings.timeout, place);
    // Refused or taken: a stream has its status before its first word.
    let first = replies.next().await;
    if let Reply::Refused(refusal) = first {
        return Err(refusal);
    }
    match asked.stream {
        true => {
            let kind = HeaderValue::from_static("text/event-stream; charset=utf-8");
            let now = HeaderValue::from_static("no-cache");
            let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, now)];
            Ok((headers, Body::from_stream(answer::events(replies, form, answers))).into_response())
        }
        false => answer::whole(replies, &form)
            .await
            .map(|v| json_of(StatusCode::OK, &v)),
    }
}

/// A page of another origin can send other types without asking first.
fn is_json(headers: &HeaderMap) -> Result<(), Refusal> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let kind = kind.map(|k| {
        k.split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase()
    });
    match kind.as_deref() {
        Some("application/json") => Ok(()),
        _ => {
            let message = "Content-Type: expected application/json";
            Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message))
        }
    }
}
