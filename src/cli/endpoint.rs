//! The options of verbs that ask a server: where it is, who asks, how fast, how often, for how much.

use crate::error::Result;
use crate::llm::{Backoff, Budget, Client, Endpoint, Key, Prices, Settings, TimeOuts};
use clap::Args;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The variables that hold a key for any server, a key for a judge beside another server, and one whose key is for one server alone.
const KEY: &str = "AF2_API_KEY";
const JUDGE_KEY: &str = "AF2_JUDGE_API_KEY";
const OPENAI: (&str, &str) = ("OPENAI_API_KEY", "api.openai.com");

/// Which server.
#[derive(Args)]
pub(super) struct ServerArgs {
    /// A server that speaks OpenAI's chat completions, up to /v1. Its key: AF2_API_KEY, or OPENAI_API_KEY for api.openai.com.
    #[arg(long, value_name = "URL")]
    pub endpoint: Option<String>,
    /// A file with the server's key, which its owner alone may read.
    #[arg(long, value_name = "FILE", requires = "endpoint")]
    key_file: Option<PathBuf>,
    #[command(flatten)]
    limits: LimitArgs,
}

impl ServerArgs {
    /// The client, whose answers are stored below `answers`; without an endpoint it asks nothing.
    pub(super) fn client(&self, answers: &Path) -> Result<Client> {
        let (endpoint, key_file) = (self.endpoint.as_deref(), self.key_file.as_deref());
        self.of(endpoint, key_file, &[KEY], answers)
    }

    /// The same for a judge beside the server that is asked, within the same limits.
    pub(super) fn judge(
        &self,
        endpoint: Option<&str>,
        key_file: Option<&Path>,
        answers: &Path,
    ) -> Result<Client> {
        // A key for one of two servers is not sent to the other.
        let variables: &[&str] = match self.endpoint {
            Some(_) => &[JUDGE_KEY],
            None => &[JUDGE_KEY, KEY],
        };
        self.of(endpoint, key_file, variables, answers)
    }

    fn of(
        &self,
        endpoint: Option<&str>,
        key_file: Option<&Path>,
        variables: &[&str],
        answers: &Path,
    ) -> Result<Client> {
        let endpoint = endpoint.map(Endpoint::parse).transpose()?;
        let key = match (key_file, &endpoint) {
            (_, None) => None,
            (Some(file), _) => Some(Key::of_file(file)?),
            (None, Some(endpoint)) => {
                let own = (endpoint.host() == OPENAI.1).then_some(OPENAI.0);
                let all: Vec<&str> = variables.iter().copied().chain(own).collect();
                Key::of_variables(&all)?
            }
        };
        Client::open(Settings {
            offline: endpoint.is_none(),
            endpoint,
            key,
            store: Some(answers.to_owned()),
            ..self.limits.settings()
        })
    }

    /// Requests that may be on their way at once, or replies that are written at once.
    pub(super) fn at_once(&self) -> usize {
        self.limits.at_once.into()
    }

    /// The first limit that is given and bounds what a server is sent.
    pub(super) fn bounds(&self) -> Option<&'static str> {
        let LimitArgs {
            per_minute,
            tokens_per_minute,
            budget_calls,
            budget_tokens,
            budget_usd,
            ..
        } = &self.limits;
        let all = [
            ("--per-minute", per_minute.is_some()),
            ("--tokens-per-minute", tokens_per_minute.is_some()),
            ("--budget-calls", budget_calls.is_some()),
            ("--budget-tokens", budget_tokens.is_some()),
            ("--budget-usd", budget_usd.is_some()),
        ];
        all.into_iter().find(|(_, said)| *said).map(|(name, _)| name)
    }
}

/// How fast, how often, for how much.
#[derive(Args)]
struct LimitArgs {
    /// Requests on their way at once; of a model at hand replies that are written at once.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    at_once: u16,
    /// Most requests a minute.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    per_minute: Option<u32>,
    /// Most tokens a minute.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    tokens_per_minute: Option<u64>,
    /// Most requests that are sent, those included that are sent again.
    #[arg(long, value_name = "N")]
    budget_calls: Option<u64>,
    /// Most tokens of questions and replies.
    #[arg(long, value_name = "N")]
    budget_tokens: Option<u64>,
    /// Most dollars, or whatever the prices are in.
    #[arg(long, value_name = "X", requires = "price_in", requires = "price_out")]
    budget_usd: Option<f64>,
    /// What a million tokens of questions cost.
    #[arg(long, value_name = "X", requires = "price_out")]
    price_in: Option<f64>,
    /// What a million tokens of replies cost.
    #[arg(long, value_name = "X", requires = "price_in")]
    price_out: Option<f64>,
    /// Seconds for a reply.
    #[arg(long, value_name = "SECONDS", default_value = "600", value_parser = seconds)]
    timeout: Duration,
    /// How often a request is sent where the server is busy, silent or gone.
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=100))]
    tries: u32,
    /// Seconds before the second try; twice as many before each further one.
    #[arg(long, value_name = "SECONDS", default_value = "0.5", value_parser = seconds)]
    wait: Duration,
}

fn seconds(text: &str) -> std::result::Result<Duration, String> {
    let parsed = text.parse().ok().filter(|s| (0.001..=86_400.0).contains(s));
    parsed
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "expected seconds, from 0.001 to 86400".to_owned())
}

impl LimitArgs {
    fn settings(&self) -> Settings {
        Settings {
            at_once: self.at_once.into(),
            calls_a_minute: self.per_minute,
            tokens_a_minute: self.tokens_per_minute,
            budget: Budget {
                calls: self.budget_calls,
                tokens: self.budget_tokens,
                money: self.budget_usd,
            },
            prices: self
                .price_in
                .zip(self.price_out)
                .map(|(prompt, completion)| Prices { prompt, completion }),
            times: TimeOuts {
                first: self.timeout,
                total: self.timeout,
                ..TimeOuts::default()
            },
            tries: self.tries,
            backoff: Backoff {
                first: self.wait,
                ..Backoff::default()
            },
            ..Settings::default()
        }
    }
}
