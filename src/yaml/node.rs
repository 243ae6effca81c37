//! YAML as a tree whose every value knows where it was written: what files are merged over each other as.

use super::place::Place;
use super::scalar;
use crate::error::{nearest, Error};
use indexmap::IndexMap;
use serde_yaml::Value;

/// A value and its place.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub place: Place,
    pub content: Content,
}

#[derive(Debug, Clone)]
pub(crate) enum Content {
    /// `plain` is false for what stands in quotation marks, which is always a text.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    /// key → where the key stands, and its value.
    Map(IndexMap<String, (Place, Node)>),
}

/// A step of a path into a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Into a mapping.
    Key(String),
    /// Into a sequence, from 0.
    Index(usize),
}

impl Node {
    /// A text or number as it would stand in a file.
    pub(crate) fn plain(text: impl Into<String>, place: &Place) -> Self {
        let content = Content::Scalar {
            text: text.into(),
            plain: true,
        };
        Node {
            place: place.clone(),
            content,
        }
    }

    /// An empty mapping.
    pub(crate) fn map(place: &Place) -> Self {
        Node {
            place: place.clone(),
            content: Content::Map(IndexMap::new()),
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.content, Content::Scalar { text, plain: true }
            if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// Null, or a list or mapping without elements.
    pub(crate) fn is_empty(&self) -> bool {
        match &self.content {
            Content::Scalar { .. } => self.is_null(),
            Content::List(list) => list.is_empty(),
            Content::Map(map) => map.is_empty(),
        }
    }

    /// What this is in words where it is no mapping.
    pub(crate) fn no_mapping(&self) -> Option<&'static str> {
        match &self.content {
            Content::Map(_) => None,
            Content::List(_) => Some("a list"),
            Content::Scalar { .. } if self.is_null() => Some("nothing"),
            Content::Scalar { .. } => Some("a plain value"),
        }
    }

    /// The scalar's text.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Scalar { text, .. } if !self.is_null() => Some(text),
            _ => None,
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        match &self.content {
            Content::Map(map) => map.get(key).map(|(_, v)| v),
            _ => None,
        }
    }

    /// Keys with their places and values; none where this is no mapping.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&str, &Place, &Node)> {
        let map = match &self.content {
            Content::Map(map) => Some(map),
            _ => None,
        };
        map.into_iter().flatten().map(|(k, (p, v))| (k.as_str(), p, v))
    }

    /// Takes a key out of a mapping.
    pub(crate) fn take(&mut self, key: &str) -> Option<Node> {
        match &mut self.content {
            Content::Map(map) => map.shift_remove(key).map(|(_, v)| v),
            _ => None,
        }
    }

    /// What lies at the end of a path.
    pub(crate) fn at(&self, path: &[Step]) -> Option<&Node> {
        let Some((step, rest)) = path.split_first() else {
            return Some(self);
        };
        let below = match (&self.content, step) {
            (Content::Map(map), Step::Key(key)) => map.get(key).map(|(_, node)| node),
            (Content::List(list), Step::Index(i)) => list.get(*i),
            _ => None,
        };
        below?.at(rest)
    }

    /// As [`Node::at`], to be changed.
    pub(crate) fn at_mut(&mut self, path: &[Step]) -> Option<&mut Node> {
        let Some((step, rest)) = path.split_first() else {
            return Some(self);
        };
        let below = match (&mut self.content, step) {
            (Content::Map(map), Step::Key(key)) => map.get_mut(key).map(|(_, node)| node),
            (Content::List(list), Step::Index(i)) => list.get_mut(*i),
            _ => None,
        };
        below?.at_mut(rest)
    }

    /// Takes out what lies at the end of a path; whether there was something.
    pub(crate) fn remove(&mut self, path: &[Step]) -> bool {
        let Some((last, above)) = path.split_last() else {
            return false;
        };
        match (self.at_mut(above).map(|n| &mut n.content), last) {
            (Some(Content::Map(map)), Step::Key(key)) => map.shift_remove(key).is_some(),
            (Some(Content::List(list)), Step::Index(i)) if *i < list.len() => {
                list.remove(*i);
                true
            }
            _ => false,
        }
    }

    /// Makes a mapping of mappings, which would be laid over a list by the names of its elements, that list; whether it was one.
    pub(crate) fn list_by_name(&mut self) -> bool {
        let place = self.place.clone();
        let Content::Map(map) = &mut self.content else {
            return false;
        };
        if map
            .values()
            .any(|(_, node)| !node.is_null() && node.no_mapping().is_some())
        {
            return false;
        }
        let elements = std::mem::take(map)
            .into_iter()
            .filter(|(_, (_, node))| !node.is_null());
        let named = elements.map(|(name, (at, mut node))| {
            if let Content::Map(own) = &mut node.content {
                let name = Node::plain(name, &place);
                own.entry("name".into()).or_insert((at, name));
            }
            node
        });
        self.content = Content::List(named.collect());
        true
    }

    /// Puts a value under the last step of a path, a key of a mapping; whether there is that mapping.
    pub(crate) fn put(&mut self, path: &[Step], node: Node) -> bool {
        let Some((Step::Key(key), above)) = path.split_last() else {
            return false;
        };
        match self.at_mut(above).map(|n| &mut n.content) {
            Some(Content::Map(map)) => {
                map.insert(key.clone(), (node.place.clone(), node));
                true
            }
            _ => false,
        }
    }

    /// A path as it is written on a command line: elements of a list by their names where they have one.
    pub(crate) fn dotted(&self, path: &[Step]) -> String {
        let mut parts = Vec::new();
        for (i, step) in path.iter().enumerate() {
            parts.push(match step {
                Step::Key(key) => key.clone(),
                Step::Index(n) => {
                    let name = self.at(&path[..=i]).and_then(Node::name);
                    name.map_or_else(|| n.to_string(), str::to_owned)
                }
            });
        }
        parts.join(".")
    }

    /// As a value without places. Keys are texts.
    pub(crate) fn to_value(&self) -> Value {
        match &self.content {
            Content::Scalar { text, plain: true } => scalar::plain(text),
            Content::Scalar { text, .. } => Value::String(text.clone()),
            Content::List(list) => Value::Sequence(list.iter().map(Node::to_value).collect()),
            Content::Map(map) => {
                let entries = map.iter();
                Value::Mapping(
                    entries
                        .map(|(key, (_, node))| (Value::String(key.clone()), node.to_value()))
                        .collect(),
                )
            }
        }
    }

    /// The path, as `a[1].b`, of what stands at a place; of the mapping, where a key does.
    pub(crate) fn path_to(&self, place: &Place) -> Option<String> {
        let below = |part: String, node: &Node| {
            let rest = match node.place.is(place) {
                true => String::new(),
                false => node.path_to(place)?,
            };
            let joint = if rest.is_empty() || rest.starts_with('[') {
                ""
            } else {
                "."
            };
            Some(format!("{part}{joint}{rest}"))
        };
        match &self.content {
            Content::Scalar { .. } => None,
            Content::List(list) => (list.iter().enumerate()).find_map(|(i, n)| below(format!("[{i}]"), n)),
            Content::Map(map) => map.iter().find_map(|(name, (key, n))| match key.is(place) {
                true => Some(String::new()),
                false => below(name.clone(), n),
            }),
        }
    }

    /// Gives it and all that is below it this place.
    pub(crate) fn stand_at(&mut self, place: &Place) {
        self.place = place.clone();
        match &mut self.content {
            Content::Scalar { .. } => {}
            Content::List(list) => list.iter_mut().for_each(|n| n.stand_at(place)),
            Content::Map(map) => map.values_mut().for_each(|(p, n)| {
                *p = place.clone();
                n.stand_at(place);
            }),
        }
    }

    fn name(&self) -> Option<&str> {
        self.get("name").and_then(Node::text)
    }

    /// What a key of a mapping, or an index or a `name` in a list, leads to, with the place to show for it.
    pub(crate) fn child(&self, part: &str) -> Option<(&Place, &Node)> {
        match &self.content {
            Content::Map(map) => map.get(part).map(|(p, v)| (p, v)),
            Content::List(list) => {
                let place = place_in(list, part)?;
                list.get(place).map(|n| (&n.place, n))
            }
            Content::Scalar { .. } => None,
        }
    }

    /// Sets a dotted path; list elements go by index or by their `name`. Null removes.
    pub(crate) fn set(&mut self, key: &str, new: Node) -> Result<(), String> {
        let (part, rest) = key.split_once('.').map_or((key, None), |(p, r)| (p, Some(r)));
        if part.is_empty() {
            return Err("an empty part in the key".into());
        }
        if self.is_null() {
            self.content = Content::Map(IndexMap::new());
        }
        match &mut self.content {
            Content::Map(map) => match rest {
                None if new.is_null() => {
                    // An unknown key stays, so that it is told.
                    if map.shift_remove(part).is_none() {
                        map.insert(part.into(), (new.place.clone(), new));
                    }
                }
                None => {
                    map.insert(part.into(), (new.place.clone(), new));
                }
                Some(rest) => {
                    let place = new.place.clone();
                    let below = map
                        .entry(part.into())
                        .or_insert_with(|| (place.clone(), Node::map(&place)));
                    below.1.set(rest, new)?;
                }
            },
            Content::List(list) => {
                let length = list.len();
                let at = place_in(list, part)
                    .filter(|i| *i < length)
                    .ok_or(format!("no element `{part}` in a list of {length}"))?;
                match rest {
                    None if new.is_null() => {
                        list.remove(at);
                    }
                    None => list[at] = new,
                    Some(rest) => list[at].set(rest, new)?,
                }
            }
            Content::Scalar { .. } => return Err(format!("`{part}` lies below a plain value")),
        }
        Ok(())
    }

    /// Lays `over` over this: mappings merge, null removes a key, a mapping over a list whose elements have names merges into
    /// those elements, and everything else takes the place of what was there. Returns what could not be laid anywhere.
    #[must_use]
    pub(crate) fn merge(&mut self, over: Node) -> Vec<Error> {
        let mut faults = Vec::new();
        match (&mut self.content, over.content) {
            (Content::Map(base), Content::Map(over)) => {
                for (key, (place, value)) in over {
                    match base.get_mut(&key) {
                        Some(_) if value.is_null() => {
                            base.shift_remove(&key);
                        }
                        Some(at) => {
                            at.0 = place;
                            faults.extend(at.1.merge(value));
                        }
                        None => {
                            base.insert(key, (place, value));
                        }
                    }
                }
            }
            (Content::List(base), Content::Map(over))
                if !base.is_empty() && base.iter().all(|n| n.name().is_some()) =>
            {
                for (key, (place, value)) in over {
                    let Some(at) = base.iter().position(|n| n.name() == Some(&key)) else {
                        let names: Vec<&str> = base.iter().filter_map(Node::name).collect();
                        let e = place.error(format!("no element is named `{key}`, only {names:?}"));
                        faults.push(match nearest(&key, names) {
                            Some(n) => e.hint(format!("did you mean `{n}`?")),
                            None => e.hint("a list takes the place of the base's list"),
                        });
                        continue;
                    };
                    if value.is_null() {
                        base.remove(at);
                    } else {
                        faults.extend(base[at].merge(value));
                    }
                }
            }
            (content, over_content) => {
                *content = over_content;
                self.place = over.place;
            }
        }
        faults
    }
}

fn place_in(list: &[Node], part: &str) -> Option<usize> {
    let named = || list.iter().position(|n| n.name() == Some(part));
    part.parse().ok().or_else(named)
}

#[cfg(test)]
mod tests {
    use super::super::parse::parse;
    use super::*;

    fn read(text: &str) -> Node {
        let parsed = parse(text, "f.yaml").unwrap();
        assert!(parsed.faults.is_empty());
        parsed.root.unwrap()
    }

    #[test]
    fn every_value_knows_its_place() {
        let root = read("a: 1\nb:\n  - x\n  - {name: n, c: \"3\"}\n");
        let (place, value) = root.get("b").unwrap().child("n").unwrap().1.child("c").unwrap();
        assert_eq!(place.short(), "f.yaml:4");
        assert_eq!(place.at, Some((4, 15)));
        assert!(matches!(&value.content, Content::Scalar { plain: false, text } if text == "3"));
        let path = [Step::Key("b".into()), Step::Index(1), Step::Key("c".into())];
        assert_eq!(root.at(&path).unwrap().text(), Some("3"));
        assert_eq!(root.dotted(&path), "b.n.c");
    }

    #[test]
    fn lists_replace_and_mappings_merge() {
        let mut base = read("a: {x: 1, y: 2}\nl: [1, 2]\n");
        assert!(base.merge(read("a: {y: 3, x: null}\nl: [9]\n")).is_empty());
        assert!(base.get("a").unwrap().get("x").is_none());
        assert_eq!(base.get("a").unwrap().get("y").unwrap().text(), Some("3"));
        assert!(matches!(&base.get("l").unwrap().content, Content::List(l) if l.len() == 1));
    }
}
