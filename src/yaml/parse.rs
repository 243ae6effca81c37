//! From a text to a tree: the events of the YAML parser, with their places.

use super::node::{Content, Node};
use super::place::{Place, Source};
use crate::error::{Error, Result};
use indexmap::map::Entry;
use indexmap::IndexMap;
use saphyr_parser::{Event, Parser, ScalarStyle, Tag};
use std::collections::HashMap;
use std::rc::Rc;

/// More values are no recipe; aliases of aliases could make any number of them.
const MOST_NODES: usize = 1 << 17;
/// Lists and mappings within each other.
const MOST_DEEP: usize = 64;

/// A text as a tree, and what in it is wrong without making the rest unreadable.
pub(crate) struct Parsed {
    /// None where the text is empty but for comments.
    pub root: Option<Node>,
    pub faults: Vec<Error>,
}

/// Reads a text; errors have places.
///
/// # Errors
/// What is no YAML, and what is too large or too deep.
pub(crate) fn parse(text: &str, file: &str) -> Result<Parsed> {
    // `fsutil` takes the mark off files.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let source = Rc::new(Source {
        file: file.into(),
        text: text.into(),
    });
    let at = |line: usize, column: usize| Place {
        source: source.clone(),
        at: Some((line, column)),
    };
    if let Some((offset, c)) = text.char_indices().find(|(_, c)| !stands_in_yaml(*c)) {
        let before = &text[..offset];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let message = format!(
            "the character {} does not stand in a YAML file",
            c.escape_unicode()
        );
        return Err(at(line, column).error(message));
    }
    let mut builder = Builder {
        open: Vec::new(),
        anchors: HashMap::new(),
        root: None,
        count: 0,
        faults: Vec::new(),
    };
    let mut documents = 0;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|e| {
            let place = at(e.marker().line(), e.marker().col() + 1);
            let error = place.error(e.info().to_owned());
            let line = e.marker().line();
            if indented_by_tab(text, line) {
                return error.hint("lines are indented with blanks, not with tabs");
            }
            match text.lines().nth(line.saturating_sub(1)) {
                Some(line) if line.contains("${") => {
                    error.hint("the braces of `${…}` are YAML's own here, and nothing is replaced: write out what it stands for")
                }
                _ => error,
            }
        })?;
        let place = at(span.start.line(), span.start.col() + 1);
        if matches!(event, Event::DocumentStart(_)) {
            documents += 1;
            if documents > 1 {
                let e = place.error("a second document begins here");
                builder.faults.push(e.hint("one file holds one; leave `---` out"));
                break;
            }
        }
        builder.take(event, place)?;
    }
    Ok(Parsed {
        root: builder.root,
        faults: builder.faults,
    })
}

/// The printable characters of YAML 1.2.
fn stands_in_yaml(c: char) -> bool {
    match c {
        '\t' | '\n' | '\r' | '\u{85}' => true,
        '\u{fffe}' | '\u{ffff}' => false,
        c => !c.is_control(),
    }
}

/// Whether a tab stands in the indentation of a line or of those beside it: the scanner stops before or behind it.
fn indented_by_tab(text: &str, line: usize) -> bool {
    let mut near = text.lines().skip(line.saturating_sub(2)).take(3);
    near.any(|l| {
        let indentation = l.len() - l.trim_start().len();
        l[..indentation].contains('\t')
    })
}

struct Open {
    anchor: usize,
    node: Node,
    /// Of a mapping: the key that waits for its value.
    key: Option<(String, Place)>,
}

struct Builder {
    /// Lists and mappings that are not closed yet.
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    root: Option<Node>,
    count: usize,
    faults: Vec<Error>,
}

impl Builder {
    fn take(&mut self, event: Event, place: Place) -> Result<()> {
        let (anchor, content) = match event {
            Event::SequenceStart(anchor, tag) => {
                self.tagged(tag.as_deref(), &["seq"], &place);
                (anchor, Content::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                self.tagged(tag.as_deref(), &["map"], &place);
                (anchor, Content::Map(IndexMap::new()))
            }
            Event::SequenceEnd | Event::MappingEnd => {
                return match self.open.pop() {
                    Some(open) => self.value(open.anchor, open.node),
                    None => Ok(()),
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.count(1, &place)?;
                let tag = tag.as_deref();
                self.tagged(tag, &["str", "int", "float", "bool", "null"], &place);
                let plain = match tag.filter(|t| t.is_yaml_core_schema()) {
                    Some(tag) => tag.suffix != "str",
                    None => tag.is_none() && style == ScalarStyle::Plain,
                };
                let content = Content::Scalar {
                    text: text.into_owned(),
                    plain,
                };
                return self.value(anchor, Node { place, content });
            }
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).cloned();
                let node = node.ok_or_else(|| place.error("an alias within what it names"))?;
                self.count(size(&node), &place)?;
                return self.value(0, node);
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => return Ok(()),
        };
        self.count(1, &place)?;
        if self.open.len() == MOST_DEEP {
            return Err(place.error(format!(
                "more than {MOST_DEEP} lists and mappings within each other"
            )));
        }
        self.open.push(Open {
            anchor,
            node: Node { place, content },
            key: None,
        });
        Ok(())
    }

    /// Before anything is kept.
    fn count(&mut self, values: usize, place: &Place) -> Result<()> {
        self.count += values;
        match self.count > MOST_NODES {
            true => Err(place.error(format!("more than {MOST_NODES} values"))),
            false => Ok(()),
        }
    }

    /// A tag asks for a type that only the reader that it was written for has.
    fn tagged(&mut self, tag: Option<&Tag>, known: &[&str], place: &Place) {
        let Some(tag) = tag else { return };
        let core = tag.is_yaml_core_schema();
        // `! x`: a text, whatever it looks like.
        let text = tag.handle.is_empty() && tag.suffix == "!" && known.contains(&"str");
        if text || core && known.contains(&tag.suffix.as_str()) {
            return;
        }
        let name = match core {
            true => format!("!!{}", tag.suffix),
            false => format!("{}{}", tag.handle, tag.suffix),
        };
        let e = place.error(format!("`{name}`: a tag that does not belong here"));
        self.faults
            .push(e.hint("leave it out: values are what their keys ask for"));
    }

    fn value(&mut self, anchor: usize, node: Node) -> Result<()> {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(Open {
            node: parent, key, ..
        }) = self.open.last_mut()
        else {
            self.root = Some(node);
            return Ok(());
        };
        match (&mut parent.content, key.take()) {
            (Content::List(list), _) => list.push(node),
            (Content::Map(map), Some((key, place))) => match map.entry(key) {
                Entry::Occupied(first) => {
                    let (of, first) = (first.key(), first.get().0.short());
                    let e = place.error(format!(
                        "duplicate entry with key `{of}`: it stands in {first} already"
                    ));
                    self.faults
                        .push(e.hint("one of them is meant: take the other out"));
                }
                Entry::Vacant(free) => {
                    free.insert((place, node));
                }
            },
            (Content::Map(_), None) => match node.content {
                Content::Scalar { text, plain } => {
                    if plain && text == "<<" {
                        let e = node.place.error("`<<`: keys are not merged within a file");
                        return Err(e.hint("write them out, or name another recipe as `base`"));
                    }
                    *key = Some((text, node.place));
                }
                _ => return Err(node.place.error("a key must be a plain text")),
            },
            (Content::Scalar { .. }, _) => {}
        }
        Ok(())
    }
}

fn size(node: &Node) -> usize {
    match &node.content {
        Content::Scalar { .. } => 1,
        Content::List(list) => 1 + list.iter().map(size).sum::<usize>(),
        Content::Map(map) => 1 + map.values().map(|(_, v)| size(v)).sum::<usize>(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> String {
        match parse(text, "f.yaml") {
            Ok(parsed) => {
                let all: Vec<String> = parsed.faults.iter().map(Error::to_string).collect();
                all.join("\n")
            }
            Err(e) => e.to_string(),
        }
    }

    #[test]
    fn aliases_cannot_make_a_flood() {
        let mut text = String::from("a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1]\n");
        for i in 1..9 {
            let before = format!("*a{}, ", i - 1).repeat(8);
            text.push_str(&format!("a{i}: &a{i} [{before}]\n"));
        }
        assert!(faults(&text).contains("more than 131072 values"));
        assert!(faults("a: &a [*a]\n").contains("an alias within what it names"));
    }

    #[test]
    fn what_is_no_yaml_is_placed() {
        for (text, place, said) in [
            (
                "a: 1\nb: 2\na: 2\n",
                "f.yaml:3:1: ",
                "key `a`: it stands in f.yaml:1 already",
            ),
            ("a: [1,\nb: 2\n", "f.yaml:", ""),
            ("a:\n  b: 1\n\tc: 2\n", "f.yaml:", "indented with blanks"),
            ("a: !!python/tuple [1]\n", "f.yaml:1:", "`!!python/tuple`: a tag"),
            ("a: !Ref x\n", "f.yaml:1:", "`!Ref`: a tag"),
            ("a: !!seq x\n", "f.yaml:1:", "`!!seq`: a tag"),
            ("a: 1\n---\nb: 2\n", "f.yaml:2:", "a second document"),
            (
                "a: &x {b: 1}\nc:\n  <<: *x\n",
                "f.yaml:3:3: ",
                "keys are not merged",
            ),
            (
                "a: \u{1b}[31m\n",
                "f.yaml:1:4: ",
                "the character \\u{1b} does not stand",
            ),
            ("a: b\0c\n", "f.yaml:1:5: ", "\\u{0}"),
            ("? [a]\n: 1\n", "f.yaml:1:", "a key must be a plain text"),
        ] {
            let found = faults(text);
            assert!(
                found.starts_with(place) && found.contains(said),
                "{text:?}: {found}"
            );
        }
        // All of those that leave the rest as it is.
        let found = faults("a: !x 1\na: 2\na: 3\n");
        assert_eq!(found.matches("f.yaml:").count() - 2, 3, "{found}");
    }

    #[test]
    fn what_is_yaml_is_read() {
        for text in [
            "\u{feff}a: 1\n",
            "a: 1\r\nb: 2\r\n",
            "---\na: 1\n...\n",
            "a: !!int 5\nb: !!map {c: !!str 5}\nd: ! 5\n",
            "? a\n: 1\n",
        ] {
            assert_eq!(faults(text), "", "{text:?}");
        }
        assert!(parse("", "f").unwrap().root.is_none());
        assert!(parse("# nothing\n", "f").unwrap().root.is_none());
    }
}
