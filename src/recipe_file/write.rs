//! A tree as YAML with a comment behind each line: how an imported recipe is written.

use crate::yaml::{parse, Content, Node};
use serde_yaml::Value;

/// Block YAML; `comment` gives what stands behind the line of a dotted key (list elements by index).
pub(super) fn commented<'c>(root: &Node, comment: &dyn Fn(&str) -> Option<&'c str>) -> String {
    let mut out = String::new();
    block(root, "", 0, comment, &mut out);
    out
}

fn block<'c>(
    node: &Node,
    path: &str,
    indent: usize,
    comment: &dyn Fn(&str) -> Option<&'c str>,
    out: &mut String,
) {
    for (key, _, value) in node.entries() {
        let path = match path {
            "" => key.to_owned(),
            _ => format!("{path}.{key}"),
        };
        let mut line = format!("{}{}:", " ".repeat(indent), written_key(key));
        let behind = comment(&path).map(|c| format!("  # {c}")).unwrap_or_default();
        match &value.content {
            Content::Scalar { .. } => {
                line.push_str(&format!(
                    " {}{behind}\n",
                    scalar(value, |yaml| format!("key: {yaml}"))
                ));
                out.push_str(&line);
            }
            Content::Map(map) if map.is_empty() => out.push_str(&format!("{line} {{}}{behind}\n")),
            Content::Map(_) => {
                out.push_str(&format!("{line}{behind}\n"));
                block(value, &path, indent + 2, comment, out);
            }
            Content::List(list) if list.iter().all(|n| matches!(n.content, Content::Scalar { .. })) => {
                let items = list.iter().map(|n| scalar(n, |yaml| format!("key: [{yaml}]")));
                let items: Vec<String> = items.collect();
                out.push_str(&format!("{line} [{}]{behind}\n", items.join(", ")));
            }
            Content::List(list) => {
                out.push_str(&format!("{line}{behind}\n"));
                for (i, element) in list.iter().enumerate() {
                    let mut inner = String::new();
                    block(element, &format!("{path}.{i}"), indent + 4, comment, &mut inner);
                    // The first line carries the dash.
                    let dash = format!("{}  - ", " ".repeat(indent));
                    out.push_str(&dash);
                    out.push_str(inner.get(indent + 4..).unwrap_or_default());
                }
            }
        }
    }
}

/// A scalar as it can stand in a `line`: as it is where it is read back so, else in quotation marks. What once stood in them
/// may look like something else: `a # b`, `/data/my: set`.
fn scalar(node: &Node, line: impl Fn(&str) -> String) -> String {
    let Content::Scalar { text, plain } = &node.content else {
        return String::new();
    };
    let read = |yaml: &str| read(&line(yaml)).as_ref().and_then(only);
    if node.is_null() || (*plain && read(text) == Some((text.clone(), true))) {
        return text.clone();
    }
    quoted(text, |yaml| read(yaml).is_some_and(|(back, _)| back == *text))
}

fn read(yaml: &str) -> Option<Node> {
    let parsed = parse(yaml, "").ok()?;
    parsed.root.filter(|_| parsed.faults.is_empty())
}

/// The one scalar of a tree, and whether it is plain.
fn only(node: &Node) -> Option<(String, bool)> {
    match &node.content {
        Content::Scalar { text, plain } => Some((text.clone(), *plain)),
        Content::List(list) if list.len() == 1 => only(&list[0]),
        Content::Map(map) if map.len() == 1 => map.values().find_map(|(_, value)| only(value)),
        _ => None,
    }
}

fn written_key(key: &str) -> String {
    quoted(key, |yaml| {
        let read = read(&format!("{yaml}: 0"));
        read.is_some_and(|root| root.entries().count() == 1 && root.get(key).is_some())
    })
}

/// A text as serde_yaml writes it where that is read back in its place, else as JSON does.
fn quoted(text: &str, good: impl Fn(&str) -> bool) -> String {
    let yaml = serde_yaml::to_string(&Value::String(text.into())).unwrap_or_default();
    match yaml.trim_end() {
        // Several lines would need the indentation of their place.
        yaml if !yaml.contains('\n') && good(yaml) => yaml.to_owned(),
        _ => serde_json::Value::from(text).to_string(),
    }
}
