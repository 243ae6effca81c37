//! What a server may be told.

use crate::generate::engine;
use std::net::SocketAddr;
use std::time::Duration;

/// How a server listens, whom it answers, and how much it takes on.
pub struct Settings {
    /// What the model is called in requests and answers.
    pub name: String,
    /// Where it listens; port 0 for any that is free.
    pub address: SocketAddr,
    /// What clients must show; none where everyone who reaches the address is answered.
    pub token: Option<Token>,
    /// Origins of web pages that may ask; `*` for all.
    pub origins: Vec<String>,
    /// Requests that may wait beside those that have a slot.
    pub queue: usize,
    /// Most bytes of a request.
    pub max_body: usize,
    /// Most windows of 10 s that are heard of a sound.
    pub windows: usize,
    /// Most tokens that a request may ask for.
    pub max_new_tokens: usize,
    /// From a request's first byte to its answer's last.
    pub timeout: Duration,
    /// How long requests in work may go on after a signal.
    pub grace: Duration,
    /// What is made of a conversation.
    pub history: History,
    /// Questions without a sound are answered, too: by the LM alone, past the gated blocks.
    pub text_only: bool,
    /// How answers are computed.
    pub engine: engine::Settings,
}

impl Settings {
    /// Requests that are in the house at the same time.
    pub(super) fn places(&self) -> usize {
        self.engine.slots + self.queue
    }
}

/// What is made of messages beside the question. The model was trained on one question about one sound: it has no form for a
/// system's text or for earlier turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum History {
    /// They are refused.
    Refuse,
    /// The last message is the question; the texts of the others are not read.
    Last,
    /// The texts of all messages, a line each, are one question.
    Join,
}

/// A secret. Only its hash is kept, whose comparison takes as long for any other one.
#[derive(Clone, Copy)]
pub struct Token(blake3::Hash);

impl Token {
    /// Of a text without the white space around it; none of an empty one.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Token(blake3::hash(text.as_bytes())))
    }

    /// Whether it is this one.
    pub(super) fn is(&self, shown: &[u8]) -> bool {
        // blake3's `==` takes the same time for all.
        self.0 == blake3::hash(shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_by_all_of_its_letters() {
        let token = Token::new(" a secret\n").unwrap();
        assert!(token.is(b"a secret"));
        for other in ["", "a", "a secre", "a secret ", "a secret\n", "A secret"] {
            assert!(!token.is(other.as_bytes()), "{other:?}");
        }
        assert!(Token::new(" \n").is_none());
    }
}
