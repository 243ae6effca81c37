//! How far a rule reads, remembered: rules that read far and then do not apply would read the same text again at every token of it.

use std::collections::HashSet;

/// A stretch of text that one scan covered, and what it found there.
#[derive(Debug)]
pub(super) struct Reach<T> {
    start: usize,
    end: usize,
    found: T,
}

impl<T: Default> Default for Reach<T> {
    fn default() -> Self {
        Reach {
            start: 1,
            end: 0,
            found: T::default(),
        }
    }
}

impl<T> Reach<T> {
    pub(super) fn holds(&self, at: usize) -> bool {
        (self.start..self.end).contains(&at)
    }

    pub(super) fn set(&mut self, start: usize, end: usize, found: T) {
        let end = end.max(start + 1);
        *self = Reach { start, end, found };
    }

    /// The end of the stretch that `at` lies in, and what was found in it; scanned where it is not the last one.
    pub(super) fn of(&mut self, at: usize, scan: impl FnOnce() -> (usize, T)) -> (usize, &T) {
        if !self.holds(at) {
            let (end, found) = scan();
            self.set(at, end, found);
        }
        (self.end, &self.found)
    }
}

/// Where tags end.
#[derive(Debug, Default)]
pub(super) struct Tags {
    /// Behind attributes from where no tag ends.
    dead: HashSet<usize>,
    close: Reach<()>,
}

impl Tags {
    /// Behind the tag that begins at `at` with `<`: `<a b="c" d/>`, `</a>`, `<!…>`, `<?…>`. Quoted values may go over lines.
    pub(super) fn end(&mut self, text: &[char], at: usize) -> Option<usize> {
        let get = |i: usize| text.get(i).copied();
        get(at).filter(|c| *c == '<')?;
        let name_end = |from: usize| -> Option<usize> {
            get(from).filter(char::is_ascii_alphabetic)?;
            let len = text.iter().skip(from).take_while(|c| in_name(**c)).count();
            Some(from + len)
        };
        let blanks = |from: usize| from + text.iter().skip(from).take_while(|c| **c == ' ').count();
        match get(at + 1)? {
            '!' | '?' => {
                get(at + 2).filter(|c| c.is_ascii_alphabetic() || *c == '-')?;
                let stop = |i: &usize| matches!(text.get(*i), None | Some('>' | '\r' | '\n'));
                let (end, ()) = self
                    .close
                    .of(at + 2, || ((at + 2..).find(stop).unwrap_or(at), ()));
                return (get(end) == Some('>')).then_some(end + 1);
            }
            '/' => {
                let end = blanks(name_end(at + 2)?);
                return (get(end) == Some('>')).then_some(end + 1);
            }
            _ => {}
        }
        let mut here = name_end(at + 1)?;
        let mut passed = Vec::new();
        let end = loop {
            let behind = blanks(here);
            let close = if get(behind) == Some('/') {
                blanks(behind + 1)
            } else {
                behind
            };
            if get(close) == Some('>') {
                break Some(close + 1);
            }
            let Some(name) = name_end(behind).filter(|_| behind > here) else {
                break None;
            };
            here = name;
            let equals = blanks(name);
            if get(equals) == Some('=') {
                let quote = blanks(equals + 1);
                let Some(mark) = get(quote).filter(|c| matches!(c, '"' | '\'')) else {
                    break None;
                };
                let Some(len) = text.iter().skip(quote + 1).position(|c| *c == mark) else {
                    break None;
                };
                here = quote + len + 2;
            }
            if self.dead.contains(&here) {
                break None;
            }
            passed.push(here);
        };
        if end.is_none() {
            self.dead.extend(passed);
        }
        end
    }
}

fn in_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '_' | '-')
}
