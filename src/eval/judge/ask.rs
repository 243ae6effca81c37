//! All answers of a file before a judge: each as often as the protocol says, and again where a reply could not be read.

use super::items::JudgeItem;
use super::prompt::{criteria, form, mark, messages, schema, Asked};
use super::reply;
use crate::benchmark::Protocol;
use crate::error::{Error, Result};
use crate::llm::{Answers, Failure, Message, Request, Role, Sampling, Why};
use crate::run::judgements::Judgement;
use indexmap::IndexMap;

/// So much of a reply is shown to the judge again.
const MOST_SHOWN: usize = 4000;

/// What a protocol leaves open.
#[derive(Debug, Clone, PartialEq)]
pub struct How {
    /// Who is asked.
    pub model: String,
    /// How often each answer is marked.
    pub runs: u32,
    /// How often a reply that could not be read is asked for again.
    pub again: u32,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Marked {
    /// By item, order and run.
    pub all: Vec<Judgement>,
    /// Questions that were not asked since they are only collected; their judgements are not among those.
    pub pending: usize,
}

/// An answer in one run and one order.
struct Unit<'a> {
    item: &'a JudgeItem,
    criteria: Vec<Asked>,
    messages: Vec<Message>,
    run: u32,
    swapped: bool,
    asked: u32,
    done: Option<Judgement>,
}

impl Unit<'_> {
    fn request(&self, protocol: &Protocol, how: &How) -> Request {
        Request {
            model: how.model.clone(),
            messages: self.messages.clone(),
            sampling: Sampling {
                temperature: protocol.temperature,
                max_tokens: Some(protocol.max_tokens),
                seed: protocol.seed,
                ..Sampling::default()
            },
            schema: Some(schema(protocol, &self.criteria)),
            run: self.run,
            about: format!("item {}", self.item.id),
        }
    }

    fn judgement(&self, reply: &str, model: Option<String>) -> Judgement {
        Judgement {
            id: self.item.id.clone(),
            clip: self.item.clip.clone(),
            run: self.run,
            swapped: self.swapped,
            marks: IndexMap::new(),
            mark: None,
            why: None,
            asked: self.asked,
            reply: reply.to_owned(),
            model,
            words: self.item.prediction.split_whitespace().count(),
        }
    }
}

fn units<'a>(protocol: &Protocol, items: &'a [JudgeItem], how: &How) -> Result<Vec<Unit<'a>>> {
    let orders: &[bool] = if protocol.pairs { &[false, true] } else { &[false] };
    let mut all = Vec::with_capacity(items.len() * how.runs as usize * orders.len());
    for item in items {
        if item.right == Some(false) {
            let mut unit = Unit {
                item,
                criteria: Vec::new(),
                messages: Vec::new(),
                run: 0,
                swapped: false,
                asked: 0,
                done: None,
            };
            unit.done = Some(Judgement {
                mark: Some(0.0),
                why: Some(format!(
                    "wrong by the rule {}",
                    protocol.gate.as_deref().unwrap_or_default()
                )),
                ..unit.judgement("", None)
            });
            all.push(unit);
            continue;
        }
        let criteria = criteria(protocol, item)?;
        for swapped in orders {
            let messages = messages(protocol, item, &criteria, *swapped)?;
            all.extend((0..how.runs).map(|run| Unit {
                item,
                criteria: criteria.clone(),
                messages: messages.clone(),
                run,
                swapped: *swapped,
                asked: 0,
                done: None,
            }));
        }
    }
    all.sort_by_key(|unit| (std::ptr::from_ref(unit.item), unit.run, unit.swapped));
    Ok(all)
}

/// What is asked first: for an estimate.
///
/// # Errors
/// As [`judge`].
pub fn first_requests(protocol: &Protocol, items: &[JudgeItem], how: &How) -> Result<Vec<Request>> {
    let units = units(protocol, items, how)?;
    let open = units.iter().filter(|u| u.done.is_none());
    Ok(open.map(|u| u.request(protocol, how)).collect())
}

/// Has answers marked. `told` gets how many of how many are done.
///
/// # Errors
/// An item without what the judge is to be shown; what ends all asking; requests that have no answer, after all others were asked.
pub fn judge(
    protocol: &Protocol,
    items: &[JudgeItem],
    how: &How,
    judge: &dyn Answers,
    told: &mut dyn FnMut(usize, usize),
) -> Result<Marked> {
    let mut units = units(protocol, items, how)?;
    let all = units.len();
    let mut open: Vec<usize> = (0..all).filter(|i| units[*i].done.is_none()).collect();
    let mut done = all - open.len();
    let (mut pending, mut unanswered): (usize, Vec<(String, Failure)>) = (0, Vec::new());
    while !open.is_empty() {
        let requests: Vec<Request> = open.iter().map(|i| units[*i].request(protocol, how)).collect();
        let mut again = Vec::new();
        judge.answers(&requests, &mut |place, outcome| {
            let i = open[place];
            let unit = &mut units[i];
            match outcome {
                Ok(answer) => {
                    unit.asked += 1;
                    let read = match (&answer.refusal, answer.truncated) {
                        (Some(refusal), _) => Err(format!("you refuse: {refusal}")),
                        (None, true) => Err("it is cut off at its most tokens".into()),
                        (None, false) => reply::read(&answer.text, &unit.criteria),
                    };
                    let said = match (&answer.refusal, answer.text.is_empty()) {
                        (Some(refusal), true) => refusal.clone(),
                        _ => answer.text.clone(),
                    };
                    let judgement = unit.judgement(&said, answer.model);
                    match read {
                        Ok(marks) => {
                            let names = unit.criteria.iter().map(|c| c.name.clone());
                            unit.done = Some(Judgement {
                                mark: mark(protocol, &unit.criteria, &marks, unit.swapped),
                                marks: names.zip(marks).collect(),
                                ..judgement
                            });
                        }
                        Err(why) if unit.asked > how.again => {
                            let why = Some(crate::error::short(&why));
                            unit.done = Some(Judgement { why, ..judgement });
                        }
                        Err(why) => {
                            let shown: String = said.chars().take(MOST_SHOWN).collect();
                            let told = format!("That reply cannot be used: {why}. {}", form(&unit.criteria));
                            unit.messages
                                .extend([Message::of(Role::Assistant, shown), Message::user(told)]);
                            again.push(i);
                        }
                    }
                }
                Err(failure) => match failure.why {
                    Why::Pending => pending += 1,
                    // It would never be taken.
                    Why::Refused(_) | Why::TooLarge => {
                        let why = Some(crate::error::short(&failure));
                        unit.asked += 1;
                        unit.done = Some(Judgement {
                            why,
                            ..unit.judgement("", None)
                        });
                    }
                    Why::NotAnswered | Why::Malformed => unanswered.push((unit.item.id.clone(), failure)),
                },
            }
            if unit.done.is_some() {
                done += 1;
                told(done, all);
            }
            Ok(())
        })?;
        again.sort_unstable();
        open = again;
    }
    if let Some((id, failure)) = unanswered.first() {
        let e = Error::Endpoint {
            endpoint: how.model.clone(),
            message: format!(
                "{} of {all} judgements have no answer; of item {id}: {failure}",
                unanswered.len()
            ),
            hint: None,
        };
        return Err(e.hint("the others are kept: the same command asks only these"));
    }
    Ok(Marked {
        all: units.into_iter().filter_map(|u| u.done).collect(),
        pending,
    })
}
