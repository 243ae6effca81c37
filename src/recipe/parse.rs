//! From a text to a tree: the events of the YAML parser, with their places.

use super::node::{Content, Node};
use super::place::{Place, Source};
use crate::error::{Error, Result};
use indexmap::IndexMap;
use saphyr_parser::{Event, Parser, ScalarStyle};
use std::collections::HashMap;
use std::rc::Rc;

/// More values are no recipe; aliases of aliases could make any number of them.
const MOST_NODES: usize = 1 << 20;
/// Lists and mappings within each other.
const MOST_DEEP: usize = 64;

/// Reads a text; errors have places.
pub(super) fn parse(text: &str, file: &str) -> Result<Node> {
    let source = Rc::new(Source {
        file: file.into(),
        text: text.into(),
    });
    let at = |line: usize, column: usize| Place {
        source: source.clone(),
        at: Some((line, column)),
    };
    let mut builder = Builder {
        open: Vec::new(),
        anchors: HashMap::new(),
        root: None,
        count: 0,
    };
    for event in Parser::new_from_str(text) {
        let (event, span) =
            event.map_err(|e| at(e.marker().line(), e.marker().col() + 1).error(e.info().to_owned()))?;
        builder.take(event, at(span.start.line(), span.start.col() + 1))?;
    }
    // serde_yaml refuses what the events do not show: keys that come twice, several documents.
    if let Err(e) = serde_yaml::from_str::<serde_yaml::Value>(text) {
        let full = e.to_string();
        let message = full.split(" at line ").next().unwrap_or(&full).to_owned();
        let place = e.location().map(|l| at(l.line(), l.column()));
        return Err(match place {
            Some(place) => place.error(message),
            None => Error::recipe(file, message),
        });
    }
    Ok(builder.root.unwrap_or_else(|| Node::map(&at(1, 1))))
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
}

impl Builder {
    fn take(&mut self, event: Event, place: Place) -> Result<()> {
        let (anchor, content) = match event {
            Event::SequenceStart(anchor, _) => (anchor, Content::List(Vec::new())),
            Event::MappingStart(anchor, _) => (anchor, Content::Map(IndexMap::new())),
            Event::SequenceEnd | Event::MappingEnd => {
                return match self.open.pop() {
                    Some(open) => self.value(open.anchor, open.node),
                    None => Ok(()),
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                let quoted = tag.is_some_and(|t| t.is_yaml_core_schema() && t.suffix == "str");
                let content = Content::Scalar {
                    text: text.into_owned(),
                    plain: style == ScalarStyle::Plain && !quoted,
                };
                return self.value(anchor, Node { place, content });
            }
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).cloned();
                let node = node.ok_or_else(|| place.error("an alias without its anchor"))?;
                return self.value(0, node);
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => return Ok(()),
        };
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

    fn value(&mut self, anchor: usize, node: Node) -> Result<()> {
        self.count += size(&node);
        if self.count > MOST_NODES {
            return Err(node.place.error(format!("more than {MOST_NODES} values")));
        }
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
            (Content::Map(map), Some((key, place))) => {
                map.insert(key, (place, node));
            }
            (Content::Map(_), None) => match node.content {
                Content::Scalar { text, .. } => *key = Some((text, node.place)),
                _ => return Err(node.place.error("a key must be a plain text")),
            },
            (Content::Scalar { .. }, _) => {}
        }
        Ok(())
    }
}

/// Values of a node; those of a list or mapping were counted when they came, so that only an alias counts them again.
fn size(node: &Node) -> usize {
    match &node.content {
        Content::Scalar { .. } => 1,
        Content::List(list) => 1 + list.iter().map(size).sum::<usize>(),
        Content::Map(map) => 1 + map.values().map(|(_, v)| size(v)).sum::<usize>(),
    }
}
