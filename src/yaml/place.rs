//! Where a value was written, and errors that point there.

use crate::error::{nearest, Error};
use std::rc::Rc;

/// A file, or what was said on the command line.
#[derive(Debug)]
pub(crate) struct Source {
    pub file: String,
    pub text: String,
}

impl Source {
    /// A change from the command line.
    pub(crate) const COMMAND_LINE: &'static str = "command line";
}

/// A place in a source.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub source: Rc<Source>,
    /// Line and column from 1, where the source has lines.
    pub at: Option<(usize, usize)>,
}

impl Place {
    /// A source without lines.
    pub(crate) fn whole(file: impl Into<String>, text: impl Into<String>) -> Self {
        Place {
            source: Rc::new(Source {
                file: file.into(),
                text: text.into(),
            }),
            at: None,
        }
    }

    /// Whether both are one place in one source.
    pub(crate) fn is(&self, other: &Place) -> bool {
        Rc::ptr_eq(&self.source, &other.source) && self.at == other.at
    }

    /// `file:line`, or what else the source is called.
    pub(crate) fn short(&self) -> String {
        match self.at {
            Some((line, _)) => format!("{}:{line}", self.source.file),
            None => self.source.file.clone(),
        }
    }

    /// An error that names the place, with the line and a caret under the column, and what was perhaps meant.
    pub(crate) fn error(&self, message: impl Into<String>) -> Error {
        let message = message.into();
        let hint = suggestion(&message);
        let message = match self.at {
            Some((l, c)) => message + &self.shown(l, c),
            None if self.source.file == Source::COMMAND_LINE => {
                let said: String = self.source.text.chars().take(160).collect();
                format!("{said}: {message}")
            }
            None => message,
        };
        Error::Recipe {
            file: self.source.file.clone(),
            line: self.at,
            message,
            hint,
        }
    }

    fn shown(&self, line: usize, column: usize) -> String {
        let Some(source) = self.source.text.lines().nth(line.saturating_sub(1)) else {
            return String::new();
        };
        let source: String = source.chars().take(160).collect();
        let caret = " ".repeat(column.saturating_sub(1).min(160));
        let margin = " ".repeat(line.to_string().len());
        format!("\n  {line} | {source}\n  {margin} | {caret}^")
    }
}

/// From "unknown field `x`, expected one of `a`, `b`": did you mean.
fn suggestion(message: &str) -> Option<String> {
    let start = message
        .find("unknown field `")
        .or(message.find("unknown variant `"))?;
    let mut quoted = message[start..].split('`').skip(1).step_by(2);
    let word = quoted.next()?;
    nearest(word, quoted).map(|n| format!("did you mean `{n}`?"))
}
