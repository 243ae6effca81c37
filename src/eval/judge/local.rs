//! A language model's folder as who answers requests: a judge at hand.

use crate::error::Result;
use crate::generate::chat::{replies, Ask};
use crate::generate::decoding::Sampling;
use crate::llm::{Answer, Answers, Failure, Outcome, Part, Request, Role, Usage, Why};
use crate::load::ChatModel;
use crate::recipe::Precision;
use std::path::Path;
use tch::Device;

/// Most tokens of a reply where a request bounds it not.
const MOST_TOKENS: usize = 1024;

/// An instruction-tuned language model that answers requests. It follows no JSON schema: a request's is left to its words.
pub struct Local {
    model: ChatModel,
    at_once: usize,
}

impl Local {
    /// Opens a Hugging Face folder whose chats are laid out as ChatML: Qwen2-Instruct, Qwen2.5-Instruct, Qwen3 (which is told not to
    /// think). `at_once` replies are written together.
    ///
    /// # Errors
    /// No such folder, or another thing than such a model's; weights that do not fit.
    pub fn open(folder: &Path, device: Device, precision: Precision, at_once: usize) -> Result<Self> {
        Ok(Local {
            model: ChatModel::open(folder, device, precision)?,
            at_once,
        })
    }

    /// Whether a folder can be opened, without its weights.
    ///
    /// # Errors
    /// As [`Local::open`].
    pub fn look(folder: &Path) -> Result<()> {
        ChatModel::look(folder).map(drop)
    }

    /// What requests and results call it: the folder's name and a hash of all that its answers come from.
    pub fn name(&self) -> &str {
        &self.model.name
    }

    /// A request as the model is asked.
    fn asked(&self, request: &Request) -> Result<std::result::Result<Ask, Failure>> {
        let refused = |status: u16, message: String| {
            let why = Why::Refused(status);
            Ok(Err(Failure { why, message }))
        };
        // Under another name its answers would be kept as another's.
        if request.model != self.name() {
            return refused(
                404,
                format!("expected the model {}, found {}", self.name(), request.model),
            );
        }
        let mut turns = Vec::with_capacity(request.messages.len());
        for message in &request.messages {
            let mut text = String::new();
            for part in &message.parts {
                match part {
                    Part::Text(words) => text.push_str(words),
                    Part::Audio(_) => {
                        return refused(
                            415,
                            format!("expected words alone, found a sound: {} hears none", self.name()),
                        )
                    }
                }
            }
            turns.push((role(message.role), text));
        }
        let turns: Vec<(&str, &str)> = turns.iter().map(|(role, text)| (*role, text.as_str())).collect();
        let prompt = self.model.chat.ids(&turns)?;
        let most = request
            .sampling
            .max_tokens
            .map_or(MOST_TOKENS, |n| n as usize)
            .max(1);
        let room = self.model.most_tokens();
        if prompt.len() + most > room {
            let found = format!("{} of the question and {most} of the reply", prompt.len());
            return refused(413, format!("expected at most {room} tokens, found {found}"));
        }
        let (temperature, top_p) = (request.sampling.temperature, request.sampling.top_p);
        let fits = temperature.is_none_or(|t| t.is_finite() && t >= 0.0)
            && top_p.is_none_or(|p| p > 0.0 && p <= 1.0);
        if !fits {
            let found = format!("temperature {temperature:?} and top_p {top_p:?}");
            return refused(
                400,
                format!("expected a temperature from 0 on and a top_p above 0, at most 1, found {found}"),
            );
        }
        Ok(Ok(Ask {
            prompt,
            // What is not said is as with servers: all that the model may say, as likely as it thinks.
            rule: Sampling {
                temperature: temperature.unwrap_or(1.0),
                top_k: 0,
                top_p: top_p.unwrap_or(1.0),
                min_p: 0.0,
            },
            seed: request.sampling.seed.unwrap_or(0),
            // With the run in it: several answers to one question are drawn apart.
            item: request.hash(),
            most,
        }))
    }
}

fn role(role: Role) -> &'static str {
    match role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
    }
}

impl Answers for Local {
    fn answers(
        &self,
        requests: &[Request],
        each: &mut dyn FnMut(usize, Outcome) -> Result<()>,
    ) -> Result<()> {
        let (mut asks, mut places) = (Vec::new(), Vec::new());
        for (i, request) in requests.iter().enumerate() {
            match self.asked(request)? {
                Ok(ask) => {
                    asks.push(ask);
                    places.push(i);
                }
                Err(failure) => each(i, Err(failure))?,
            }
        }
        replies(&self.model, &asks, self.at_once, &mut |i, reply| {
            let answer = Answer {
                text: reply.text,
                refusal: None,
                truncated: reply.cut,
                model: Some(self.name().to_owned()),
                usage: Usage {
                    prompt: asks[i].prompt.len() as u64,
                    completion: reply.tokens as u64,
                    estimated: false,
                },
                stored: false,
            };
            each(places[i], Ok(answer))
        })
    }
}
