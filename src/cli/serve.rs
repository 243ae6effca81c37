//! `af2 serve`

use super::asking::{count, ModelArgs};
use crate::error::{Error, Result};
use crate::generate::engine;
use crate::serve::{self, History, Settings, Token};
use clap::Args;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The token's variable, where no file is named.
const TOKEN: &str = "AF2_SERVE_TOKEN";

#[derive(Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// The address to listen at. Any but a loopback address wants a token.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1", value_parser = address)]
    host: IpAddr,
    /// 0 for any that is free: the first line on standard output says which.
    #[arg(long, default_value_t = 8000)]
    port: u16,
    /// A file with what clients must send as `Authorization: Bearer …`; AF2_SERVE_TOKEN is another way.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The origin of a web page that may ask, such as http://localhost:3000; * for all. May be repeated.
    #[arg(long, value_name = "ORIGIN")]
    allow_origin: Vec<String>,
    /// What the model is called in requests; default: the checkpoint's name.
    #[arg(long)]
    name: Option<String>,
    /// Requests that may wait beside those that have a slot; more are answered 429.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = count(0, 65_536))]
    queue: usize,
    /// MiB of a request. Each of the slots and of the queue may take so much memory.
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = count(1, 4096))]
    max_body: usize,
    /// Most tokens that a request may ask for.
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = count(1, 65_536))]
    max_new_tokens: usize,
    /// Seconds from a request's first byte to its answer's last; then it is answered 504.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
    /// Seconds that requests in work have after SIGTERM or SIGINT.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    grace: u64,
    /// What is made of texts before the question (system, earlier turns), for which the model has no form.
    #[arg(long, value_enum, default_value = "refuse")]
    history: History,
    /// Answer questions without a sound as well: by the LM alone, past the gated blocks. Without this they are refused, as a sound was
    /// forgotten.
    #[arg(long)]
    text_only: bool,
}

fn address(text: &str) -> std::result::Result<IpAddr, String> {
    match text {
        "localhost" => Ok(Ipv4Addr::LOCALHOST.into()),
        text => text
            .parse()
            .map_err(|_| "expected an IP address or localhost".to_owned()),
    }
}

pub(crate) fn run(args: &ServeArgs) -> Result<()> {
    let token = token(args.token_file.as_deref())?;
    if token.is_none() && !args.host.is_loopback() {
        let message = format!("--host {}: expected a token, found none", args.host);
        return Err(Error::usage(message).hint(
            "whoever reaches that address could ask: --token-file FILE, or AF2_SERVE_TOKEN; made for example by: \
             head -c 32 /dev/urandom | base64 > FILE",
        ));
    }
    let address = SocketAddr::new(args.host, args.port);
    serve::check(address)?;
    let (model, of_engine) = args.model.open()?;
    let name = args
        .name
        .clone()
        .unwrap_or_else(|| name(&args.model.checkpoint.checkpoint));
    let settings = Settings {
        address,
        token,
        origins: args.allow_origin.clone(),
        queue: args.queue,
        max_body: args.max_body << 20,
        windows: args.model.windows(&model),
        max_new_tokens: args.max_new_tokens,
        timeout: Duration::from_secs(args.timeout),
        grace: Duration::from_secs(args.grace),
        history: args.history,
        text_only: args.text_only,
        engine: engine::Settings {
            // A sound that is asked about again is often asked about soon.
            keep: 4,
            steady: true,
            ..of_engine
        },
        name: name.clone(),
    };
    serve::serve(&model, settings, |address| {
        crate::out!("{name} answers at http://{address}/v1");
    })
}

/// What the file or the variable holds.
fn token(file: Option<&Path>) -> Result<Option<Token>> {
    let (text, place) = match (file, std::env::var_os(TOKEN)) {
        (Some(file), _) => (crate::fsutil::read_text(file)?, file.display().to_string()),
        (None, Some(text)) => {
            let text = text.into_string();
            let no_text = |_| Error::usage(format!("{TOKEN}: expected a text, found other bytes"));
            (text.map_err(no_text)?, TOKEN.to_owned())
        }
        (None, None) => return Ok(None),
    };
    let fits = |text: &str| text.chars().all(|c| c.is_ascii_graphic());
    match Token::new(&text).filter(|_| fits(text.trim())) {
        Some(token) => Ok(Some(token)),
        None => Err(Error::usage(format!(
            "{place}: expected a token of letters, digits and signs, found none"
        ))),
    }
}

/// A checkpoint's folder or file, as a model is called.
fn name(checkpoint: &Path) -> String {
    let whole = checkpoint
        .canonicalize()
        .unwrap_or_else(|_| checkpoint.to_path_buf());
    let name = whole
        .file_stem()
        .filter(|_| whole.is_file())
        .or(whole.file_name());
    name.map_or("af2".to_owned(), |n| n.to_string_lossy().into_owned())
}
