//! Questions on their way to answers, and how these are printed.

use super::args::GenerateArgs;
use super::asker::Asker;
use super::questions::{clip_major, Question};
use crate::cli::asking::Thinking;
use crate::error::{Error, Result};
use crate::generate::decoding::Decoding;
use crate::generate::engine::{Ask, Event, Found, Sound, Ticket, Wanted};
use crate::generate::likelihood::{likeliest, shares, Choice};
use crate::generate::streaming::Streamed;
use crate::generate::thinking::{split, to_conclude, Said, Thought};
use crate::generate::Answer;
use crate::load::Loaded;
use crate::shapes::Seconds;
use serde::Serialize;
use std::collections::HashMap;
use std::io::IsTerminal;

/// A line of `--json`.
#[derive(Serialize)]
struct Line {
    path: String,
    prompt: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<Seconds>,
    /// Of the piece that was asked about.
    #[serde(skip_serializing_if = "Option::is_none")]
    duration: Option<Seconds>,
    /// Of choices the likeliest.
    text: String,
    #[serde(flatten)]
    what: What,
    seconds: f64,
}

#[derive(Serialize)]
#[serde(untagged)]
enum What {
    Said {
        #[serde(skip_serializing_if = "Option::is_none")]
        thinking: Option<String>,
        /// Of what was written last, as the score is.
        tokens: Vec<i64>,
        score: f64,
        #[serde(skip_serializing_if = "Option::is_none")]
        logprobs: Option<Vec<f32>>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        retried: bool,
    },
    Chosen {
        choices: Vec<Choice>,
    },
}

/// An answer that is shown as it comes.
pub(super) struct Stream<'a> {
    text: Option<Streamed<'a>>,
    /// Without thoughts.
    said: Option<Said>,
    told: bool,
}

impl Stream<'_> {
    fn push(&mut self, token: i64) -> Result<()> {
        if let Some(text) = &mut self.text {
            let piece = text.push(token)?;
            self.show(&piece);
        }
        Ok(())
    }

    fn show(&mut self, piece: &str) {
        let shown = match &mut self.said {
            Some(said) => said.push(piece),
            None => piece.to_owned(),
        };
        if !shown.is_empty() {
            crate::screen::piece(&shown);
            self.told = true;
        }
    }

    /// The rest, and the end of the line.
    fn finish(&mut self) -> Result<()> {
        if let Some(text) = self.text.take() {
            let rest = text.finish()?;
            self.show(&rest);
        }
        let rest = self.said.take().map(Said::finish).unwrap_or_default();
        crate::screen::piece(&format!("{rest}\n"));
        Ok(())
    }
}

/// A question that is being answered.
struct Open {
    sound: Sound,
    prompt: Vec<i64>,
    said: Vec<(Answer, bool)>,
    /// Askings that are not done.
    left: usize,
    seconds: f64,
}

/// What a ticket stands for: a question, or one of its answers that is asked for a conclusion, behind this text.
struct Meant {
    question: usize,
    concludes: Option<(usize, String)>,
}

/// Questions on their way to answers, which are printed in the questions' order.
pub(super) struct Asked<'a> {
    model: &'a Loaded,
    args: &'a GenerateArgs,
    decoding: &'a Decoding,
    questions: &'a [Question],
    /// One question was asked, and nobody needs to be told which.
    alone: bool,
    stream: Option<Stream<'a>>,
    asker: Asker<'a>,
    tickets: HashMap<Ticket, Meant>,
    open: HashMap<usize, Open>,
    done: Vec<Option<Result<Vec<Line>>>>,
    printed: usize,
    failed: Vec<Error>,
}

impl<'a> Asked<'a> {
    pub(super) fn new(
        model: &'a Loaded,
        args: &'a GenerateArgs,
        decoding: &'a Decoding,
        questions: &'a [Question],
        asker: Asker<'a>,
    ) -> Self {
        Asked {
            model,
            args,
            decoding,
            questions,
            alone: false,
            stream: None,
            asker,
            tickets: HashMap::new(),
            open: HashMap::new(),
            done: questions.iter().map(|_| None).collect(),
            printed: 0,
            failed: Vec::new(),
        }
    }

    /// One question alone is asked: nobody needs to be told which.
    pub(super) fn alone(mut self) -> Self {
        self.alone = true;
        let single = self.decoding.num_beams == 1 && self.decoding.num_return_sequences == 1;
        let args = self.args;
        let whole = args.json || args.no_stream || args.retry_conclusion || args.no_cache;
        if single && !whole && self.questions.iter().all(|q| q.choices.is_none()) {
            self.stream = Some(Stream {
                text: Some(Streamed::new(&self.model.tokenizer, &self.decoding.stop_strings)),
                said: (args.thinking == Thinking::Strip).then(Said::default),
                told: false,
            });
        }
        self
    }

    /// Asks all, prints all. Returns the errors of questions among others.
    ///
    /// # Errors
    /// Those of the only question; what ends all of them.
    pub(super) fn run(mut self, sounds: &[Sound], ahead: usize) -> Result<Vec<Error>> {
        self.ask_all(sounds, ahead)?;
        Ok(self.failed)
    }

    fn ask_all(&mut self, sounds: &[Sound], ahead: usize) -> Result<()> {
        let mut order = clip_major(sounds).into_iter();
        // The answers are all there is: without a reader there is nothing left to do.
        while self.printed < self.questions.len() && !crate::screen::lost() {
            while self.open.len() < ahead {
                match order.next() {
                    Some(i) => self.submit(i, &sounds[i]),
                    None => break,
                }
            }
            for event in self.asker.step()? {
                self.take(event)?;
            }
            self.print()?;
        }
        Ok(())
    }

    fn submit(&mut self, i: usize, sound: &Sound) {
        let question = &self.questions[i];
        let prompt = match self.model.tokenizer.question(&question.prompt) {
            Ok(prompt) => prompt,
            Err(e) => {
                self.done[i] = Some(Err(e));
                return;
            }
        };
        let ticket = self.asker.submit(Ask {
            sound: sound.clone(),
            prompt: prompt.clone(),
            wanted: match &question.choices {
                Some(choices) => Wanted::Choices(choices.clone()),
                None => Wanted::Answers(self.decoding.clone()),
            },
            item: question.item.clone(),
            stream: self.stream.is_some(),
        });
        let meant = Meant {
            question: i,
            concludes: None,
        };
        self.tickets.insert(ticket, meant);
        let open = Open {
            sound: sound.clone(),
            prompt,
            said: Vec::new(),
            left: 1,
            seconds: 0.0,
        };
        self.open.insert(i, open);
    }

    fn take(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Token { token, .. } => match &mut self.stream {
                Some(stream) => stream.push(token),
                None => Ok(()),
            },
            Event::Done {
                ticket,
                found,
                seconds,
            } => {
                let Some(meant) = self.tickets.remove(&ticket) else {
                    return Ok(());
                };
                let i = meant.question;
                // Another of its askings has failed.
                let Some(mut open) = self.open.remove(&i) else {
                    return Ok(());
                };
                open.left -= 1;
                open.seconds += seconds;
                match self.found(&meant, &mut open, found) {
                    Err(e) => self.done[i] = Some(Err(e)),
                    Ok(Some(choices)) => self.done[i] = Some(Ok(vec![self.chosen(i, choices, open.seconds)])),
                    Ok(None) if open.left > 0 => {
                        self.open.insert(i, open);
                    }
                    Ok(None) => self.done[i] = Some(Ok(self.said(i, open))),
                }
                Ok(())
            }
        }
    }

    /// Takes over what was found, and asks on where an answer lacks its conclusion. Choices are handed back.
    fn found(&mut self, meant: &Meant, open: &mut Open, found: Result<Found>) -> Result<Option<Vec<Choice>>> {
        match (found?, &meant.concludes) {
            (Found::Chosen(choices), _) => return Ok(Some(choices)),
            (Found::Said(said), None) => {
                for (n, answer) in said.into_iter().enumerate() {
                    let fed = to_conclude(&answer.text).filter(|_| self.args.retry_conclusion);
                    open.said.push((answer, fed.is_some()));
                    if let Some(fed) = fed {
                        self.conclude(meant.question, open, n, fed)?;
                    }
                }
            }
            (Found::Said(said), Some((n, fed))) => {
                if let Some(mut answer) = said.into_iter().next() {
                    answer.text = format!("{fed}{}", answer.text);
                    open.said[*n].0 = answer;
                }
            }
        }
        Ok(None)
    }

    fn conclude(&mut self, question: usize, open: &mut Open, n: usize, fed: String) -> Result<()> {
        let ticket = self.asker.submit(Ask {
            sound: open.sound.clone(),
            prompt: [&open.prompt[..], &self.model.tokenizer.text(&fed)?].concat(),
            wanted: Wanted::Answers(Decoding {
                num_return_sequences: 1,
                ..self.decoding.clone()
            }),
            // Random numbers of its own.
            item: format!("{}\nconclusion {n}", self.questions[question].item),
            stream: false,
        });
        open.left += 1;
        let meant = Meant {
            question,
            concludes: Some((n, fed)),
        };
        self.tickets.insert(ticket, meant);
        Ok(())
    }

    fn line(&self, i: usize, text: String, what: What, seconds: f64) -> Line {
        let question = &self.questions[i];
        Line {
            path: question.path.display().to_string(),
            prompt: question.prompt.clone(),
            start: question.piece.start,
            duration: question.piece.seconds,
            text,
            what,
            seconds,
        }
    }

    fn chosen(&self, i: usize, choices: Vec<Choice>, seconds: f64) -> Line {
        let text = likeliest(&choices).map(|c| c.choice.clone());
        self.line(i, text.unwrap_or_default(), What::Chosen { choices }, seconds)
    }

    fn said(&self, i: usize, open: Open) -> Vec<Line> {
        let line = |(answer, retried): (Answer, bool)| {
            let Thought { thinking, text } = match self.args.thinking {
                Thinking::Strip => split(&answer.text),
                Thinking::Keep => Thought {
                    thinking: None,
                    text: answer.text,
                },
            };
            let what = What::Said {
                thinking,
                tokens: answer.tokens,
                score: answer.score,
                logprobs: self.args.logprobs.then_some(answer.logprobs),
                retried,
            };
            self.line(i, text, what, open.seconds)
        };
        open.said.into_iter().map(line).collect()
    }

    /// Prints what is next in the order of the questions, as far as it is there.
    fn print(&mut self) -> Result<()> {
        while let Some(done) = self.done.get_mut(self.printed).and_then(Option::take) {
            self.printed += 1;
            match done {
                Ok(lines) => {
                    for line in &lines {
                        self.show(line)?;
                    }
                }
                // One bad file does not take the answers about the others with it.
                Err(e) if self.questions.len() > 1 => {
                    crate::say!("error: {e}");
                    self.failed.push(e);
                }
                Err(e) => {
                    if self.stream.as_ref().is_some_and(|s| s.told) {
                        crate::screen::piece("\n");
                    }
                    return Err(e);
                }
            }
        }
        Ok(())
    }

    fn show(&mut self, line: &Line) -> Result<()> {
        match &line.what {
            _ if self.args.json => {
                let line = serde_json::to_string(line).map_err(|e| Error::recipe("answer", e.to_string()))?;
                crate::out!("{line}");
                return Ok(());
            }
            What::Chosen { choices } if self.alone => {
                let bars = std::io::stdout().is_terminal();
                for (choice, share) in choices.iter().zip(shares(choices)) {
                    crate::out!("{}", choice_line(choice, share, bars));
                }
                return Ok(());
            }
            _ => {}
        }
        match &mut self.stream {
            Some(stream) => stream.finish()?,
            None if self.alone => crate::out!("{}", line.text),
            None => crate::out!("{}\t{}\t{}", line.path, line.prompt, line.text),
        }
        if let What::Said {
            thinking: Some(_), ..
        } = &line.what
        {
            if line.text.is_empty() {
                crate::say!(
                    "note: {}: thoughts without a conclusion; --thinking keep shows them, --retry-conclusion asks for one",
                    line.path
                );
            }
        }
        Ok(())
    }
}

/// A choice and its share of the probability of all: with a bar where a person reads.
fn choice_line(choice: &Choice, share: f64, bar: bool) -> String {
    const WIDTH: usize = 24;
    if !bar {
        return format!("{}\t{:.4}\t{:.4}", choice.choice, share, choice.logprob);
    }
    let filled = "█".repeat((share * WIDTH as f64).round() as usize);
    format!("{:>5.1}% {filled:<WIDTH$} {}", 100.0 * share, choice.choice)
}

#[cfg(test)]
mod tests {
    use super::super::questions::{questions, sound};
    use super::*;
    use crate::data::feed::Ears;
    use crate::generate::answers_to;
    use crate::generate::engine::Engine;
    use crate::model::parts::Precision;
    use std::path::Path;
    use std::sync::Arc;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: GenerateArgs,
    }

    /// No model of the tests reasons: its answer is put in the place of one that breaks off.
    #[test]
    fn a_chain_that_breaks_off_is_asked_for_its_conclusion_once() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let options = crate::load::Options::new(tch::Device::Cpu);
        let model = crate::load::open(&golden.join("F_tiny"), &options).unwrap();
        let wav = golden.join("wavs/speech_16k_mono_3p7s.wav").display().to_string();
        let line = [
            "af2",
            "--checkpoint",
            "x",
            "--audio",
            &wav,
            "--prompt",
            "what?",
            "--retry-conclusion",
        ];
        let Line { args } =
            clap::Parser::try_parse_from(line.iter().chain(&["--max-new-tokens", "6"])).unwrap();
        let (decoding, (questions, _)) = (args.decoding.decoding().unwrap(), questions(&args).unwrap());
        let ears = Arc::new(Ears::new(0));
        let sound = sound(&questions[0], 1, &args, &ears, None).unwrap();
        let asker = Asker::Engine(Box::new(Engine::new(
            &model,
            ears.clone(),
            args.model.engine.settings(Precision::Fp32),
        )));
        let mut all = Asked::new(&model, &args, &decoding, &questions, asker);
        all.submit(0, &sound);
        let broken = Answer {
            text: "<SUMMARY>S</SUMMARY>\n<REASONING>It rings. It is".to_owned(),
            tokens: vec![1],
            logprobs: vec![0.0],
            score: 0.0,
            least_lead: None,
        };
        let found = Ok(Found::Said(vec![broken]));
        let (ticket, seconds) = (0, 1.0);
        all.take(Event::Done {
            ticket,
            found,
            seconds,
        })
        .unwrap();
        while all.done[0].is_none() {
            for event in all.asker.step().unwrap() {
                all.take(event).unwrap();
            }
        }
        let lines = all.done[0].take().unwrap().unwrap();
        let What::Said {
            thinking,
            tokens,
            retried,
            ..
        } = &lines[0].what
        else {
            unreachable!()
        };
        assert_eq!(
            thinking.as_deref(),
            Some("<summary>s</summary>\n<reasoning>it rings</REASONING>")
        );
        assert!(*retried && lines.len() == 1 && lines[0].seconds > 1.0);
        // As if it had been asked so.
        let Sound::Clip(clip) = &sound else { unreachable!() };
        let heard = crate::generate::hear(&model, &ears, clip).unwrap();
        let fed = "<summary>s</summary>\n<reasoning>it rings</REASONING>\n<CONCLUSION>";
        let prompt = [
            model.tokenizer.question("what?").unwrap(),
            model.tokenizer.text(fed).unwrap(),
        ]
        .concat();
        let said = answers_to(&model, &heard, &prompt, &decoding, "", true).unwrap();
        assert_eq!(
            (tokens, lines[0].text.as_str()),
            (&said[0].tokens, said[0].text.trim())
        );
    }
}
