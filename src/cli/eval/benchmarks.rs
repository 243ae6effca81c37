//! `af2 eval --benchmarks`: cards asked and scored, each in a folder of its own, and one table over all.

use super::judged::{JudgeArgs, Marking};
use crate::benchmark::names::Rule;
use crate::benchmark::{Card, Registry};
use crate::cli::asking::{bytes, count, Thinking};
use crate::cli::endpoint::ServerArgs;
use crate::cli::parts::{ArithmeticArgs, OpenArgs};
use crate::cli::score::benchmark as scoring;
use crate::cli::steps::{as_rank, Seat};
use crate::device;
use crate::dist::{flatten, Facts, Place, Ranks};
use crate::error::{Error, Result};
use crate::eval::benchmarks::{ask, find, folder, named, takes, Benchmark, Changes, Found, Request};
use crate::eval::control::Control;
use crate::eval::scoring::{compares_embeddings as compares, fits, Kind, Way as Scored};
use crate::eval::{cascade, endpoint, Paraphrase, Way};
use crate::fsutil::sha256;
use crate::llm::Endpoint;
use crate::load::{Loaded, TextSpace};
use crate::lock;
use crate::metrics::bootstrap::Bootstrap;
use crate::recipe::{EvalRecipe, Precision};
use crate::report::{self, table::Table};
use crate::run::asked::Cascade;
use crate::run::{predictions, scored};
use clap::{Args, ValueEnum};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use tch::Device;

/// Seconds that ranks wait for each other: as a recipe's, where nothing is said.
const TIMEOUT: u64 = 600;

#[derive(Args)]
#[command(next_help_heading = "Benchmarks")]
pub(super) struct BenchmarksArgs {
    /// Benchmarks by their cards' names, with commas between them; `all`, or `table1`: those of a table of the paper.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', requires = "out")]
    benchmarks: Vec<String>,
    /// The run's folder: NAME/predictions.jsonl and NAME/results.json of each benchmark, and table.md.
    #[arg(long, value_name = "RUN", requires = "benchmarks")]
    out: Option<PathBuf>,
    /// Where `af2 benchmark import` has written NAME/SPLIT.json.
    #[arg(long, value_name = "DIR", default_value = "manifests")]
    manifests: PathBuf,
    /// Where the sounds lie, of one benchmark or of all, where it is not where they were at the import.
    #[arg(long, value_name = "[NAME=]DIR", requires = "benchmarks")]
    audio: Vec<String>,
    /// Other ways to ask the same items: silence, noise, other_clip, fragment:SECONDS, permute:ROTATIONS, rephrase, text_only, likelihood.
    #[arg(long, value_name = "WAY,…", requires = "benchmarks")]
    control: Option<String>,
    /// Has each clip captioned in pieces of so many seconds, and asks the items of these captions alone: for models that hear little at once.
    #[arg(long, value_name = "SECONDS", requires = "benchmarks", conflicts_with = "control", value_parser = count(1, 86_400))]
    cascade: Option<usize>,
    /// What is asked of each piece, in the place of our own words.
    #[arg(long, value_name = "TEXT", requires = "cascade")]
    cascade_prompt: Option<String>,
    /// Only so many items of each benchmark, from the front; every number that comes of it says so.
    #[arg(long, value_name = "N", requires = "benchmarks", value_parser = count(1, 1 << 32))]
    pub(super) limit: Option<usize>,
    /// So many samples of each answer; the score is over all of them.
    #[arg(long, value_name = "K", requires = "benchmarks", default_value_t = 1, value_parser = count(1, 1024))]
    samples: usize,
    /// Seeds the samples: each of each item has its own random numbers.
    #[arg(long, value_name = "S", requires = "samples", default_value_t = 0)]
    seed: u64,
    /// In the place of the cards' temperature; 0 is greedy.
    #[arg(long, value_name = "T", requires = "benchmarks")]
    temperature: Option<f64>,
    /// In the place of the cards' most tokens of an answer.
    #[arg(long, value_name = "N", requires = "benchmarks", value_parser = count(1, 65_536))]
    max_new_tokens: Option<usize>,
    /// Another paraphrase of the cards' pools, from 0, or all of them in turn, item by item.
    #[arg(long, value_name = "I|all", requires = "benchmarks")]
    paraphrase: Option<String>,
    /// Of answers that think first: score the conclusion, or all that was written.
    #[arg(long, value_enum, default_value = "strip")]
    thinking: Thinking,
    /// In the model's own words, which the rules read; the likeliest of the options; or both, the second as --control likelihood.
    #[arg(long, value_enum, default_value = "generate")]
    answer: Answer,
    /// Which of a card's rules gives the score; the other one's stands beside it.
    #[arg(long, value_enum, default_value = "official")]
    rule: Kind,
    /// AF-CLAP, in whose space of texts the rule clap_label compares answers with labels.
    #[arg(long, value_name = "CHECKPOINT", requires = "benchmarks")]
    label_clap: Option<PathBuf>,
    /// Its tokenizer.json, or the folder of it. Default: beside the checkpoint.
    #[arg(long, value_name = "FILE", requires = "label_clap")]
    label_clap_tokenizer: Option<PathBuf>,
    /// Whose answers these are, for tables; default: the checkpoint's name. Of --endpoint: as the server calls the model.
    #[arg(long, value_name = "NAME", requires = "benchmarks")]
    pub(super) model: Option<String>,
    /// A folder of cards of your own.
    #[arg(long, value_name = "DIR", requires = "benchmarks")]
    cards: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    judge: JudgeArgs,
    /// Most windows of 10 s that are heard of a sound; default: what the model's configuration says.
    #[arg(long, value_name = "N", requires = "benchmarks", value_parser = count(1, 10_000))]
    windows: Option<usize>,
    /// Answers that are written at once; they stay the same.
    #[arg(long, value_name = "N", requires = "benchmarks", default_value_t = 8, value_parser = count(1, 1024))]
    slots: usize,
    /// Most memory for what is heard and written, the model apart, such as 4GiB; a number alone is GiB.
    #[arg(long, value_name = "SIZE", requires = "benchmarks", value_parser = bytes)]
    memory: Option<u64>,
}

/// How an answer is got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Answer {
    /// In the model's own words.
    Generate,
    /// The likeliest of the item's options, where it has some.
    Likelihood,
    /// In its own words, and the likeliest option beside it, as `--control likelihood`.
    Both,
}

/// What both forms of the verb have.
pub(super) struct Common<'a> {
    pub checkpoint: Option<&'a Path>,
    pub open: &'a OpenArgs,
    pub arithmetic: &'a ArithmeticArgs,
    pub score_only: bool,
    pub afresh: bool,
}

/// Who is asked.
enum Whom<'a> {
    /// A checkpoint's model.
    Model(&'a Path),
    /// A server, by its host.
    Server(String),
}

impl BenchmarksArgs {
    /// The first option that is given and is of no use without `--benchmarks`; clap finds the others.
    pub(super) fn said(&self) -> Option<&'static str> {
        let all = [
            ("--endpoint", self.server.endpoint.is_some()),
            ("--manifests", self.manifests != Path::new("manifests")),
            ("--thinking", self.thinking != Thinking::Strip),
            ("--answer", self.answer != Answer::Generate),
            ("--rule", self.rule != Kind::Official),
        ];
        all.into_iter().find(|(_, said)| *said).map(|(name, _)| name)
    }

    pub(super) fn run(&self, common: &Common) -> Result<()> {
        let out = self.out()?;
        let whom = self.whom(common)?;
        let place = Place::of_environment()?;
        let first = place.as_ref().is_none_or(|p| p.rank == 0);
        let registry = self.registry()?;
        let found = self.find(&registry, first)?;
        let model = self.model.clone().unwrap_or_else(|| match &whom {
            Whom::Model(checkpoint) => {
                let whole = std::path::absolute(checkpoint).unwrap_or_else(|_| (*checkpoint).to_owned());
                whole
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned()
            }
            Whom::Server(_) => String::new(),
        });
        let controls = self.controls(&found.there)?;
        let cascade = self.cascade();
        let request = Request {
            cascade: cascade.as_ref(),
            ..self.request(&found.there, &controls, out, &model, common.afresh)?
        };
        self.check(&request)?;
        if first {
            let marked: Vec<&Benchmark> = found.there.iter().filter(|b| wants_judge(&b.card)).collect();
            self.judge.look(&marked, &self.server, out, self.samples)?;
        }
        let score = |device: Option<Device>| self.score(&found.there, &model, out, common, device);
        if common.score_only {
            if first {
                let _held = lock::hold(out, false)?;
                score(None)?;
            }
            return Ok(());
        }
        let checkpoint = match whom {
            Whom::Model(checkpoint) => checkpoint,
            // A server shares its work out itself.
            Whom::Server(_) if !first => return Ok(()),
            Whom::Server(host) => {
                let _held = lock::hold(out, false)?;
                let client = self.server.client(&out.join("answers"))?;
                // Of what is cut or made for a server; files are sent whole.
                let windows = self.windows.unwrap_or(EvalRecipe::of_no_set().windows);
                endpoint::ask(&request, &client, &host, &model, windows)?;
                return score(None);
            }
        };
        let seat = Seat {
            device: common.open.device(),
            timeout: TIMEOUT,
            tf32: common.arithmetic.tf32,
        };
        let same = || self.facts(&found.there, common);
        as_rank(place.as_ref(), &seat, same, |ranks, device| {
            ranks.remedy("what it wrote last says why; the same command asks only what is left");
            let _held = match ranks.first() {
                true => Some(lock::hold(out, ranks.again())?),
                false => None,
            };
            let request = Request {
                // What a launcher starts again has answers of its own.
                afresh: request.afresh && !ranks.again(),
                ..request
            };
            self.asked(&request, checkpoint, common, ranks, device)?;
            match ranks.first() {
                true => score(Some(device)),
                false => Ok(()),
            }
        })
    }

    pub(super) fn out(&self) -> Result<&Path> {
        let out = self.out.as_deref();
        out.ok_or_else(|| Error::usage("--benchmarks: expected --out RUN beside it"))
    }

    pub(super) fn registry(&self) -> Result<Registry> {
        Registry::with(self.cards.as_deref())
    }

    /// The benchmarks that can be asked. `tell`: says which of those that were not named one by one are not here.
    pub(super) fn find<'a>(&self, registry: &'a Registry, tell: bool) -> Result<Found<'a>> {
        let named = named(registry, &self.benchmarks)?;
        let found = find(&named, &self.manifests, &self.folders())?;
        if tell && !found.absent.is_empty() {
            crate::say!(
                "note: not asked, as they are not here:\n  {}",
                found.absent.join("\n  ")
            );
        }
        Ok(found)
    }

    /// The ways in which items are asked; the likeliest option beside the own words only where a benchmark has some.
    pub(super) fn controls(&self, there: &[Benchmark]) -> Result<Vec<Control>> {
        let mut all = Control::list(self.control.as_deref().unwrap_or_default())?;
        let weighed = all.contains(&Control::Likelihood);
        match self.answer {
            Answer::Likelihood if weighed => {
                let e = Error::usage("--control likelihood: it is what --answer likelihood asks already");
                return Err(
                    e.hint("--answer both asks for the model's own words, and for the likeliest option")
                );
            }
            Answer::Both if !weighed && there.iter().any(|one| takes(&one.card, Control::Likelihood)) => {
                all.push(Control::Likelihood);
            }
            _ => {}
        }
        Ok(all)
    }

    /// Who is asked.
    fn whom<'a>(&self, common: &Common<'a>) -> Result<Whom<'a>> {
        match (common.checkpoint, &self.server.endpoint) {
            (Some(checkpoint), None) => Ok(Whom::Model(checkpoint)),
            (None, Some(url)) if self.model.is_some() => {
                Ok(Whom::Server(Endpoint::parse(url)?.host().to_owned()))
            }
            (None, Some(_)) => Err(Error::usage(
                "--endpoint: expected --model NAME beside it, as the server calls the model",
            )),
            (Some(_), Some(_)) => Err(Error::usage("expected --checkpoint or --endpoint, found both")),
            (None, None) => Err(Error::usage(
                "--benchmarks: expected --checkpoint PATH, or --endpoint URL --model NAME",
            )),
        }
    }

    fn asked(
        &self,
        request: &Request,
        checkpoint: &Path,
        common: &Common,
        ranks: &Rc<Ranks>,
        device: Device,
    ) -> Result<()> {
        let precision = common.arithmetic.precision.unwrap_or(Precision::Fp32);
        let model = common
            .open
            .open_on(checkpoint, device, precision, ranks.first())?;
        self.ask(request, &model, common, ranks)
    }

    /// Asks an open model.
    pub(super) fn ask(
        &self,
        request: &Request,
        model: &Loaded,
        common: &Common,
        ranks: &Ranks,
    ) -> Result<()> {
        let eval = EvalRecipe {
            windows: self.windows.unwrap_or(model.max_windows).max(1),
            precision: common.arithmetic.precision.unwrap_or(Precision::Fp32),
            tf32: common.arithmetic.tf32,
            slots: self.slots,
            memory: self.memory,
            ..EvalRecipe::of_no_set()
        };
        ask(request, &eval, model, ranks)
    }

    /// What is asked of whom, and where the answers go.
    pub(super) fn request<'a>(
        &self,
        benchmarks: &'a [Benchmark<'a>],
        controls: &'a [Control],
        out: &'a Path,
        model: &'a str,
        afresh: bool,
    ) -> Result<Request<'a>> {
        Ok(Request {
            benchmarks,
            out,
            controls,
            limit: self.limit,
            paraphrase: self.paraphrase()?,
            way: match self.answer {
                Answer::Generate | Answer::Both => Way::Said,
                Answer::Likelihood => Way::Weighed,
            },
            rule: self.rule,
            decoding: Changes {
                temperature: self.temperature,
                samples: self.samples,
                seed: self.seed,
                max_new_tokens: self.max_new_tokens,
            },
            strip_thinking: self.thinking == Thinking::Strip,
            cascade: None,
            model,
            afresh,
        })
    }

    /// What cannot be asked or scored is said before anything is asked.
    pub(super) fn check(&self, request: &Request) -> Result<()> {
        for one in request.benchmarks.iter().filter(|one| !wants_judge(&one.card)) {
            let way = Scored::of(&one.card, self.rule)?;
            let tower = self.label_clap.is_some() && compares(&one.card);
            fits(&one.card, way, self.rule, tower, false)
                .map_err(|e| e.hint("here the options are --label-clap CHECKPOINT and --rule fair"))?;
            if way == Scored::Classes && !tower {
                return Err(Error::usage(format!(
                    "{}: its metric {} wants a number for each label, and a model's words have none",
                    one.card.name, one.card.metric
                ))
                .hint("--label-clap CHECKPOINT makes them of words, by AF-CLAP's text tower; or name the other benchmarks"));
            }
        }
        for one in request.benchmarks {
            request.decoding.of(&one.card)?;
        }
        Ok(())
    }

    /// A hash of how a benchmark is asked and scored, whoever is asked.
    pub(super) fn how(&self, one: &Benchmark, common: &Common) -> Result<String> {
        let all = json!([
            one.entry.sha256(),
            sha256(&one.manifest)?,
            [json!(self.limit), json!(self.control), json!(self.paraphrase)],
            [json!(self.samples), json!(self.seed), json!(self.temperature)],
            [json!(self.max_new_tokens), json!(self.windows)],
            [json!(self.cascade), json!(self.cascade_prompt)],
            format!("{:?} {:?} {:?}", self.thinking, self.answer, self.rule),
            self.label_clap.as_ref().map(|path| path.display().to_string()),
            common.arithmetic.precision,
            common.arithmetic.tf32,
            env!("CARGO_PKG_VERSION"),
        ]);
        Ok(blake3::hash(all.to_string().as_bytes()).to_hex().to_string())
    }

    pub(super) fn cascade(&self) -> Option<Cascade> {
        let prompt = self.cascade_prompt.as_deref().unwrap_or(cascade::PROMPT);
        self.cascade.map(|seconds| Cascade {
            seconds: seconds as u32,
            prompt: prompt.to_owned(),
        })
    }

    /// What all ranks must have been told alike. Which model is asked shows in its weights, what is asked in the questions.
    fn facts(&self, there: &[Benchmark], common: &Common) -> Result<Facts> {
        let names: Vec<&str> = there.iter().map(|b| b.card.name.as_str()).collect();
        let mut all = Facts::new();
        let told = json!({
            "verb": "eval",
            "benchmarks": names,
            "control": self.control,
            "cascade": self.cascade,
            "cascade_prompt": self.cascade_prompt,
            "limit": self.limit,
            "paraphrase": self.paraphrase,
            "resume": common.afresh,
            "precision": common.arithmetic.precision,
            "tf32": common.arithmetic.tf32,
        });
        flatten("", &told, &mut all);
        Ok(all)
    }

    fn folders(&self) -> Vec<(String, PathBuf)> {
        let each = self.audio.iter().map(|text| match text.split_once('=') {
            Some((name, folder)) => (name.to_owned(), folder.into()),
            None => (String::new(), text.into()),
        });
        each.collect()
    }

    fn paraphrase(&self) -> Result<Paraphrase> {
        match self.paraphrase.as_deref() {
            None => Ok(Paraphrase::Chosen),
            Some("all") => Ok(Paraphrase::All),
            Some(n) => n.parse().map(Paraphrase::Of).map_err(|_| {
                Error::usage(format!(
                    "--paraphrase: expected a number from 0, or all, found `{n}`"
                ))
            }),
        }
    }

    /// Scores what was asked, has marked what a judge marks, and prints one table over all. `device`: this process's, where it has
    /// chosen one.
    pub(super) fn score(
        &self,
        there: &[Benchmark],
        model: &str,
        out: &Path,
        common: &Common,
        device: Option<Device>,
    ) -> Result<()> {
        let tower = match &self.label_clap {
            Some(clap) => Some(TextSpace::open(
                clap,
                self.label_clap_tokenizer.as_deref(),
                Device::Cpu,
            )?),
            None => None,
        };
        let (marked, read): (Vec<&Benchmark>, Vec<&Benchmark>) =
            there.iter().partition(|one| wants_judge(&one.card));
        let mut all = Vec::new();
        for one in read {
            let own = folder(out, &one.card);
            let scored = scoring::score(scoring::Wanted {
                entry: one.entry,
                predictions: &predictions::path(&own),
                items: Some(&one.manifest),
                kind: self.rule,
                model: Some(model.to_owned()),
                folder: Some(&own),
                overrides: Some(scored::overrides(&own)).filter(|file| file.is_file()),
                frame: true,
                tower: tower.as_ref().filter(|_| compares(&one.card)),
                bert: None,
                bootstrap: Bootstrap::default(),
            })?;
            scored.write(&scored::path(&own))?;
            all.push((&one.card, scored));
        }
        let judged = match self.judge.given() {
            true => {
                let device = || device.map_or_else(|| device::of(common.open.device()), Ok);
                let of = Marking {
                    server: &self.server,
                    model,
                    out,
                    device: &device,
                    precision: common.arithmetic.precision.unwrap_or(Precision::Fp32),
                };
                self.judge
                    .mark(&marked, &of, &mut |one, scored| all.push((&one.card, scored)))
            }
            false => Ok(()),
        };
        // In the order in which they were asked for.
        all.sort_by_key(|(card, _)| there.iter().position(|one| one.card.name == card.name));
        let tables = report::asked::tables(&all);
        if !all.is_empty() {
            let shown: Vec<String> = tables.iter().map(Table::terminal).collect();
            crate::out!("{}", shown.join("\n"));
        }
        let path = crate::run::table(out);
        let markdown: Vec<String> = tables.iter().map(Table::markdown).collect();
        crate::fsutil::write_atomic_bytes(&path, markdown.join("\n").as_bytes())?;
        for one in marked.iter().filter(|_| !self.judge.given()) {
            let own = folder(out, &one.card);
            crate::out!(
                "{}: a judge marks its answers: af2 judge run --benchmark {} --predictions {} --items {} --out {} --of {model} \
                 --endpoint URL",
                one.card.name,
                one.card.name,
                predictions::path(&own).display(),
                one.manifest.display(),
                own.display()
            );
        }
        crate::out!("table: {}", path.display());
        // What rules have read is shown all the same.
        judged
    }
}

/// Whether a judge marks a card's answers.
pub(super) fn wants_judge(card: &Card) -> bool {
    card.rules
        .as_ref()
        .is_some_and(|rules| rules.official == Rule::Judge)
}
