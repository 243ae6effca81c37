//! Many requests to one server at once: stored, paced, paid, asked again.

use super::account::{Account, Cost, Estimate, Spent};
use super::answer::{self, Answer, Answers, Failure, Outcome, Usage, Why};
use super::halt::{lock, Halt};
use super::pace::Pace;
use super::request::{Dialect, Request};
use super::retry::Backoff;
use super::server::{Called, Came, Server};
use super::settings::Settings;
use super::store::{Kept, Store};
use crate::error::{Error, Result};
use indexmap::IndexMap;
use serde_json::Value;
use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{mpsc, Mutex};
use std::time::{Duration, Instant};

/// So many requests that are missing are named.
const NAMED: usize = 3;
/// Those that a server has asked to wait come back over so long a time.
const SPREAD: Duration = Duration::from_millis(250);

/// A server, and all that it has answered.
pub struct Client {
    server: Option<Server>,
    store: Store,
    account: Account,
    pace: Pace,
    tries: u32,
    backoff: Backoff,
    seed: u64,
    at_once: usize,
    /// Requests in a row without an answer, and how many may be.
    failures: AtomicUsize,
    most_failures: usize,
}

/// Why all asking ends.
enum End {
    /// The budget, in words.
    Budget(String),
    Error(Error),
    /// Another thread has found a reason.
    Halted,
}

impl From<Error> for End {
    fn from(e: Error) -> Self {
        End::Error(e)
    }
}

/// What is not stored: its hash, and the places of the requests that ask it.
pub(super) type Todo = (String, Vec<usize>);

impl Client {
    /// Reads the store; connects to nobody.
    ///
    /// # Errors
    /// A store that cannot be read, a proxy or budget that cannot be, no server where one is to be asked.
    pub fn open(settings: Settings) -> Result<Self> {
        let at_once = settings.at_once.clamp(1, 1024);
        let server = match settings.endpoint {
            _ if settings.offline => None,
            Some(endpoint) => {
                let (times, most) = (settings.times, settings.most_bytes);
                Some(Server::new(endpoint, settings.key, times, most, at_once)?)
            }
            None => {
                let e = Error::usage("no server is named");
                return Err(e.hint("--endpoint URL, or --offline for answers that are stored"));
            }
        };
        Ok(Client {
            server,
            store: Store::open(settings.store)?,
            account: Account::new(settings.budget, settings.prices)?,
            pace: Pace::new(settings.calls_a_minute, settings.tokens_a_minute),
            tries: settings.tries.max(1),
            backoff: settings.backoff,
            seed: settings.seed,
            at_once,
            failures: AtomicUsize::new(0),
            most_failures: settings.failures_in_a_row.max(1),
        })
    }

    /// Asks one.
    ///
    /// # Errors
    /// As [`Answers::answers`].
    pub fn ask(&self, request: &Request) -> Result<Outcome> {
        let mut found = None;
        self.answers(std::slice::from_ref(request), &mut |_, outcome| {
            found = Some(outcome);
            Ok(())
        })?;
        Ok(found.unwrap_or_else(|| Err(Failure::new(Why::NotAnswered, "no answer"))))
    }

    /// What was spent so far.
    pub fn spent(&self) -> Spent {
        self.account.spent()
    }

    /// Whether the server was found to take a JSON schema, as far as it was asked.
    pub fn takes_schema(&self) -> bool {
        self.server.as_ref().is_none_or(|server| server.dialect().schema)
    }

    /// What requests would cost.
    pub fn estimate(&self, requests: &[Request]) -> Estimate {
        let mut estimate = Estimate::default();
        let mut seen = HashSet::new();
        for request in requests {
            let hash = request.hash();
            if self.store.has(&hash) {
                estimate.stored += 1;
            } else if seen.insert(hash) {
                let (prompt, completion) = request.tokens();
                estimate.calls += 1;
                estimate.prompt_tokens += prompt;
                estimate.completion_tokens += completion;
            }
        }
        let prices = self.account.prices();
        estimate.money = prices.map(|p| p.of(estimate.prompt_tokens, estimate.completion_tokens));
        estimate
    }

    pub(super) fn knows(&self, hash: &str) -> bool {
        self.store.has(hash)
    }

    pub(super) fn stored(&self, hash: &str) -> Option<Answer> {
        self.store.get(hash)
    }

    /// What is stored, by its request's place, and what is not.
    pub(super) fn parted(&self, requests: &[Request]) -> (Vec<(usize, Answer)>, Vec<Todo>) {
        // A request that stands there twice is asked once.
        let mut todo: IndexMap<String, Vec<usize>> = IndexMap::new();
        let mut there = Vec::new();
        for (i, request) in requests.iter().enumerate() {
            let hash = request.hash();
            match self.store.get(&hash) {
                Some(answer) => there.push((i, answer)),
                None => todo.entry(hash).or_default().push(i),
            }
        }
        self.account.found(there.len() as u64);
        (there, todo.into_iter().collect())
    }

    /// Books an answer that no server was asked for.
    pub(super) fn booked(&self, usage: Usage) {
        self.account.settle(Cost::default(), Some(usage), false);
    }

    pub(super) fn sync(&self) -> Result<()> {
        self.store.sync()
    }

    /// Stores a body as a request's answer; the inner error says why it is none.
    pub(super) fn keep(
        &self,
        request: &Request,
        hash: &str,
        (host, dialect, tries): (&str, Option<Dialect>, u32),
        mut body: Value,
    ) -> Result<std::result::Result<Answer, String>> {
        if let Some(key) = self.server.as_ref().and_then(Server::key) {
            answer::scrub(&mut body, key);
        }
        let answer = match answer::read(&body, request.tokens().0) {
            Ok(answer) => answer,
            Err(e) => return Ok(Err(e)),
        };
        let kept = Kept {
            hash,
            request: &request.canonical(),
            host,
            dialect,
            tries,
            usage: answer.usage,
            answer: &body,
        };
        self.store.add(&kept, &answer)?;
        Ok(Ok(answer))
    }

    /// One request until it has an answer or will have none.
    fn exchange(
        &self,
        server: &Server,
        request: &Request,
        hash: &str,
        halt: &Halt,
    ) -> std::result::Result<Outcome, End> {
        let (prompt, completion) = request.tokens();
        let cost = Cost {
            calls: 1,
            prompt,
            completion,
        };
        let (mut tried, mut again) = (0, false);
        loop {
            if halt.is_stopped() {
                return Err(End::Halted);
            }
            self.account.reserve(cost).map_err(End::Budget)?;
            let mut paid = Paid {
                account: &self.account,
                cost,
                usage: None,
                again,
            };
            let place = self.pace.place(prompt.saturating_add(completion), Instant::now());
            // A pause may have begun meanwhile.
            if !halt.sleep_until(place) || !halt.sleep_until(self.pace.quiet()) {
                return Err(End::Halted);
            }
            let dialect = server.dialect();
            let Called { came, usage } = server.call(request, dialect)?;
            paid.usage = usage;
            again = true;
            tried += 1;
            let (why, wait, kind) = match came {
                Came::End(e) => return Err(e.into()),
                Came::Failed(failure) => return Ok(Err(failure)),
                // Each dialect is learnt once.
                Came::Learned => {
                    tried -= 1;
                    continue;
                }
                Came::Again { why, wait } => (why, wait, Why::NotAnswered),
                Came::NoJson(why) => (why, None, Why::Malformed),
                Came::Body(body) => {
                    match self.keep(request, hash, (server.host(), Some(dialect), tried), body)? {
                        Ok(answer) => {
                            paid.usage = Some(answer.usage);
                            return Ok(Ok(answer));
                        }
                        Err(why) => (server.clean(&why), None, Why::Malformed),
                    }
                }
            };
            drop(paid);
            let patient = wait.is_none_or(|wait| wait <= self.backoff.patience);
            if tried >= self.tries || !patient {
                let asks = match wait {
                    Some(wait) if !patient => format!(", and asks to wait for {} s", wait.as_secs()),
                    _ => String::new(),
                };
                let times = if tried == 1 { "try" } else { "tries" };
                return Ok(Err(Failure::new(kind, format!("{why}{asks} ({tried} {times})"))));
            }
            if !halt.sleep_until(self.next(tried, wait, hash)) {
                return Err(End::Halted);
            }
        }
    }

    /// When it is tried again. A server that asks to be left alone is left alone by all.
    fn next(&self, tried: u32, wait: Option<Duration>, hash: &str) -> Instant {
        let backoff = self.backoff.wait(tried, self.seed, hash);
        let Some(wait) = wait else {
            return Instant::now() + backoff;
        };
        let then = Instant::now() + wait;
        self.pace.quiet_until(then);
        then + backoff.min(SPREAD)
    }

    /// Counts failures in a row.
    fn counted(&self, server: &Server, outcome: &Outcome) -> std::result::Result<(), End> {
        let Err(failure) = outcome else {
            self.failures.store(0, Relaxed);
            return Ok(());
        };
        let n = self.failures.fetch_add(1, Relaxed) + 1;
        if n < self.most_failures {
            return Ok(());
        }
        let e = server.error(format!(
            "{n} requests in a row have no answer; the last: {failure}"
        ));
        Err(e
            .hint("what was answered is kept: the same command asks only what is left")
            .into())
    }

    fn missing(&self, requests: &[Request], todo: &[(String, Vec<usize>)]) -> Error {
        let named = todo.iter().take(NAMED).map(|(hash, places)| {
            let about = places.first().and_then(|i| requests.get(*i)).map(Request::called);
            format!("{hash} ({:?})", about.unwrap_or_default())
        });
        let mut found = format!("none to {} of {} requests: ", todo.len(), requests.len());
        found += &named.collect::<Vec<_>>().join(", ");
        if todo.len() > NAMED {
            found += ", …";
        }
        let place = self.store.folder().map_or("answers".into(), |f| f.to_owned());
        Error::data(place, "stored answers", "one to each request", found)
            .hint("without --offline they are asked")
    }

    fn spent_up(&self, what: &str, answered: usize, of: usize) -> Error {
        let kept = match self.store.folder() {
            Some(folder) => format!(" and kept in {}", folder.display()),
            None => String::new(),
        };
        Error::Budget {
            message: format!("the budget of {what} is spent: {answered} of {of} requests are answered{kept}"),
            hint: Some("the same command with a larger budget asks only what is left".into()),
        }
    }

    /// Asks what is not stored, several at once; `each` gets outcomes by their place in `todo`, on this thread. Returns why not all
    /// were asked.
    fn at_once(
        &self,
        server: &Server,
        requests: &[Request],
        todo: &[(String, Vec<usize>)],
        each: &mut dyn FnMut(usize, Outcome) -> Result<()>,
    ) -> Result<Option<End>> {
        let (halt, next) = (Halt::default(), AtomicUsize::new(0));
        let ended: Mutex<Option<End>> = Mutex::new(None);
        let (sender, outcomes) = mpsc::channel();
        let one = |i: usize, sender: &mpsc::Sender<(usize, Outcome)>| -> std::result::Result<(), End> {
            let (hash, places) = &todo[i];
            let outcome = self.exchange(server, &requests[places[0]], hash, &halt)?;
            let counted = self.counted(server, &outcome);
            // Who does not listen any more has halted all.
            let _ = sender.send((i, outcome));
            counted
        };
        let work = |sender: mpsc::Sender<(usize, Outcome)>| {
            while !halt.is_stopped() {
                let i = next.fetch_add(1, Relaxed);
                if i >= todo.len() {
                    break;
                }
                if let Err(end) = one(i, &sender) {
                    if !matches!(end, End::Halted) {
                        lock(&ended).get_or_insert(end);
                    }
                    halt.stop();
                }
            }
        };
        let handed = std::thread::scope(|scope| {
            for _ in 0..self.at_once.min(todo.len()) {
                let (work, sender) = (&work, sender.clone());
                scope.spawn(move || work(sender));
            }
            drop(sender);
            let mut handed = Ok(());
            for (i, outcome) in outcomes {
                if handed.is_ok() {
                    handed = each(i, outcome);
                    if handed.is_err() {
                        halt.stop();
                    }
                }
            }
            handed
        });
        self.store.sync()?;
        handed?;
        let ended = lock(&ended).take();
        Ok(ended)
    }
}

impl Answers for Client {
    fn answers(
        &self,
        requests: &[Request],
        each: &mut dyn FnMut(usize, Outcome) -> Result<()>,
    ) -> Result<()> {
        let (there, todo) = self.parted(requests);
        let server = match &self.server {
            _ if todo.is_empty() => None,
            None => return Err(self.missing(requests, &todo)),
            server => server.as_ref(),
        };
        let mut answered = there.len();
        for (i, answer) in there {
            each(i, Ok(answer))?;
        }
        let Some(server) = server else {
            return Ok(());
        };
        let ended = self.at_once(server, requests, &todo, &mut |i, outcome| {
            let places = &todo[i].1;
            answered += usize::from(outcome.is_ok()) * places.len();
            places.iter().try_for_each(|place| each(*place, outcome.clone()))
        })?;
        match ended {
            None | Some(End::Halted) => Ok(()),
            Some(End::Error(e)) => Err(e),
            Some(End::Budget(what)) => Err(self.spent_up(&what, answered, requests.len())),
        }
    }
}

/// A cost that was set aside; what became of it is booked when this goes.
struct Paid<'a> {
    account: &'a Account,
    cost: Cost,
    usage: Option<Usage>,
    again: bool,
}

impl Drop for Paid<'_> {
    fn drop(&mut self) {
        self.account.settle(self.cost, self.usage, self.again);
    }
}
