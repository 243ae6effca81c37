//! Keys of earlier versions under the names that they have now. Each file is renamed before it is laid over its base, and so is
//! what the command line says: a value in either form stands over the same value below it.

use crate::yaml::{Content, Node, Place};

/// A rate of its own by its old key, the group that it is now, and the weights of that group.
const RATES: [(&str, &str, &str); 2] = [("gate_rate", "gates", "*_gate"), ("clap_rate", "clap", "clap.*")];

/// Renames in a whole file or what the command line made of it; returns a note for each key that had its old name.
pub(crate) fn renew(root: &mut Node) -> Vec<String> {
    let mut notes = Vec::new();
    for section in ["lm", "clap"] {
        below(root, section, section, &mut notes);
    }
    if let Some(stages) = child(root, "stages") {
        match &mut stages.content {
            Content::List(list) => {
                for (i, stage) in list.iter_mut().enumerate() {
                    let name = stage.get("name").and_then(Node::text);
                    let place = format!("stages.{}", name.map_or_else(|| i.to_string(), str::to_owned));
                    optim(stage, &place, &mut notes);
                }
            }
            // Over a base whose stages have names.
            Content::Map(map) => {
                for (name, (_, stage)) in map {
                    optim(stage, &format!("stages.{name}"), &mut notes);
                }
            }
            Content::Scalar { .. } => {}
        }
    }
    notes
}

fn child<'n>(node: &'n mut Node, key: &str) -> Option<&'n mut Node> {
    match &mut node.content {
        Content::Map(map) => map.get_mut(key).map(|(_, below)| below),
        _ => None,
    }
}

fn below(root: &mut Node, section: &str, place: &str, notes: &mut Vec<String>) {
    if let Some(section) = child(root, section) {
        optim(section, place, notes);
    }
}

fn optim(section: &mut Node, place: &str, notes: &mut Vec<String>) {
    let Some(optim) = child(section, "optim") else {
        return;
    };
    for (old, group, pattern) in RATES {
        let Some(rate) = optim.take(old) else { continue };
        let at: Place = rate.place.clone();
        let now = format!("groups.{group}");
        notes.push(format!(
            "{}: {place}.optim.{old} is now {place}.optim.{now}.rate, of the weights that match {pattern}",
            at.short()
        ));
        if rate.is_null() {
            // Takes out what a base says.
            let _ = optim.set(&now, rate);
            continue;
        }
        let known = optim.get("groups").and_then(|g| g.get(group)).is_some();
        if !known {
            let pattern = Node {
                content: Content::Scalar {
                    text: pattern.into(),
                    plain: false,
                },
                place: at,
            };
            let _ = optim.set(&format!("{now}.match"), pattern);
        }
        let _ = optim.set(&format!("{now}.rate"), rate);
    }
}
