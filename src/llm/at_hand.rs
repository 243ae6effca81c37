//! Who answers without a server, and is asked once all the same: answers are kept where a client keeps its server's.

use super::answer::{self, Answers, Outcome};
use super::client::Client;
use super::request::{Dialect, Request};
use crate::error::Result;

/// What the store names in the place of a server's host.
const HOST: &str = "at hand";
/// It is asked in words alone.
const DIALECT: Dialect = Dialect {
    schema: false,
    completion_tokens: false,
};

/// A model at hand behind a client's store: what is stored is not asked. Requests must name it by what it is, not by where it lies:
/// the name is part of what an answer is found by.
pub struct AtHand<'a> {
    client: &'a Client,
    model: &'a dyn Answers,
}

impl<'a> AtHand<'a> {
    /// Beside a client, whose own server is not asked.
    pub fn new(client: &'a Client, model: &'a dyn Answers) -> Self {
        AtHand { client, model }
    }
}

impl Answers for AtHand<'_> {
    fn answers(
        &self,
        requests: &[Request],
        each: &mut dyn FnMut(usize, Outcome) -> Result<()>,
    ) -> Result<()> {
        let (there, todo) = self.client.parted(requests);
        for (i, answer) in there {
            each(i, Ok(answer))?;
        }
        let asked: Vec<Request> = todo
            .iter()
            .filter_map(|(_, places)| requests.get(*places.first()?).cloned())
            .collect();
        let ended = self.model.answers(&asked, &mut |i, outcome| {
            let (hash, places) = &todo[i];
            if let Ok(own) = &outcome {
                self.client.booked(own.usage);
                let kept = (HOST, Some(DIALECT), 1);
                // Its own form of an answer can be read.
                let _ = self.client.keep(&asked[i], hash, kept, answer::written(own))?;
            }
            places.iter().try_for_each(|place| each(*place, outcome.clone()))
        });
        self.client.sync()?;
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::super::answer::{Answer, Failure, Usage, Why};
    use super::super::request::{Message, Sampling};
    use super::super::settings::Settings;
    use super::*;
    use crate::error::Error;
    use std::cell::Cell;

    /// Answers with the question's letters backwards; gives up after so many.
    struct Backwards {
        asked: Cell<usize>,
        most: usize,
    }

    impl Answers for Backwards {
        fn answers(
            &self,
            requests: &[Request],
            each: &mut dyn FnMut(usize, Outcome) -> Result<()>,
        ) -> Result<()> {
            for (i, request) in requests.iter().enumerate().rev() {
                if self.asked.get() >= self.most {
                    return Err(Error::device("lost"));
                }
                self.asked.set(self.asked.get() + 1);
                let text: String = request.called().chars().rev().collect();
                let failure = Failure::new(Why::Refused(413), "too long");
                each(
                    i,
                    if text.is_empty() {
                        Err(failure)
                    } else {
                        Ok(answer(&text))
                    },
                )?;
            }
            Ok(())
        }
    }

    fn answer(text: &str) -> Answer {
        Answer {
            text: text.into(),
            refusal: None,
            truncated: text.len() > 4,
            model: Some("backwards@0".into()),
            usage: Usage {
                prompt: 7,
                completion: text.len() as u64,
                estimated: false,
            },
            stored: false,
        }
    }

    fn request(text: &str) -> Request {
        Request {
            model: "backwards@0".into(),
            messages: vec![Message::user(text)],
            sampling: Sampling::default(),
            schema: None,
            run: 0,
            about: String::new(),
        }
    }

    #[test]
    fn what_was_answered_before_the_end_is_kept_and_not_asked_again() {
        let folder = tempfile::tempdir().unwrap();
        let open = || {
            Client::open(Settings {
                offline: true,
                store: Some(folder.path().join("answers")),
                ..Settings::default()
            })
            .unwrap()
        };
        let requests = ["abc", "", "abc", "hello", "x"].map(request);
        let go = |client: &Client, most: usize| {
            let model = Backwards {
                asked: Cell::new(0),
                most,
            };
            let mut found = vec![None; 5];
            let ended = AtHand::new(client, &model).answers(&requests, &mut |i, outcome| {
                found[i] = Some(outcome);
                Ok(())
            });
            (ended, found, model.asked.get())
        };
        let client = open();
        let (ended, found, asked) = go(&client, 2);
        assert!(ended.is_err() && asked == 2);
        assert_eq!(found.iter().filter(|f| f.is_some()).count(), 2);
        let spent = client.spent();
        assert_eq!(
            (spent.calls, spent.prompt_tokens, spent.completion_tokens),
            (2, 14, 6)
        );
        // The same request twice is asked once; a failure is kept by nobody.
        let (ended, found, asked) = go(&open(), 9);
        assert!(ended.is_ok() && asked == 2);
        let text = |i: usize| {
            found[i]
                .clone()
                .unwrap()
                .map(|a| (a.text, a.truncated, a.usage.completion))
        };
        assert_eq!(text(0), Ok(("cba".into(), false, 3)));
        assert_eq!(text(2), text(0));
        assert_eq!(text(3), Ok(("olleh".into(), true, 5)));
        assert!(text(1).is_err());
        let (_, again, asked) = go(&open(), 9);
        assert_eq!(asked, 1);
        assert!(again[0].clone().unwrap().unwrap().stored);
        // Nobody needs to be there for what is stored.
        let mut read = Vec::new();
        let all = [request("abc"), request("hello")];
        open()
            .answers(&all, &mut |_, outcome| {
                read.push(outcome.unwrap());
                Ok(())
            })
            .unwrap();
        assert_eq!(
            (read[0].text.as_str(), read[0].model.as_deref()),
            ("cba", Some("backwards@0"))
        );
    }
}
