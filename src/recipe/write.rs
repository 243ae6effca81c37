//! A tree as YAML with a comment behind each line: how an imported recipe is written.

use super::node::{Content, Node};
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
        let mut line = format!("{}{}:", " ".repeat(indent), quoted(key));
        let behind = comment(&path).map(|c| format!("  # {c}")).unwrap_or_default();
        match &value.content {
            Content::Scalar { text, plain } => {
                let text = if *plain { text.clone() } else { quoted(text) };
                line.push_str(&format!(" {text}{behind}\n"));
                out.push_str(&line);
            }
            Content::Map(map) if map.is_empty() => out.push_str(&format!("{line} {{}}{behind}\n")),
            Content::Map(_) => {
                out.push_str(&format!("{line}{behind}\n"));
                block(value, &path, indent + 2, comment, out);
            }
            Content::List(list) if list.iter().all(|n| matches!(n.content, Content::Scalar { .. })) => {
                let items: Vec<String> = list.iter().filter_map(|n| n.text().map(quoted)).collect();
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

fn quoted(text: &str) -> String {
    let yaml = serde_yaml::to_string(&Value::String(text.into())).unwrap_or_default();
    let yaml = yaml.trim_end().to_owned();
    // In a flow list a comma would end the element.
    match yaml.contains(", ") && !yaml.starts_with(['\'', '"']) {
        true => format!("'{}'", yaml.replace('\'', "''")),
        false => yaml,
    }
}
