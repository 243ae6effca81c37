//! Which file of `src` uses what another one defines: read from the `use` lines and the paths, without the compiler.
//!
//! A name is followed to the file that defines it, through `pub use`: a module that only hands on what its files define uses
//! none of them. Tests do not count, nor do methods, which are called without naming a file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// file → the files whose items it names; all relative to `src`.
pub(crate) type Uses = BTreeMap<String, BTreeSet<String>>;

/// `["data", "order"]`: the module below `crate`.
type Module = Vec<String>;

struct Source {
    file: String,
    /// name → what it stands for, behind a `use`; the path begins at `crate`, `super`, a module or another crate.
    imports: BTreeMap<String, Vec<String>>,
    /// Paths of two names and more, outside `use`.
    paths: Vec<Vec<String>>,
    /// Words outside `use` that can stand for an item of another file.
    words: BTreeSet<String>,
    /// What a plain `use`, which hands nothing on, names.
    own: BTreeSet<String>,
}

/// The files of `src` and whom each uses.
pub(crate) fn between_files(src: &Path) -> Uses {
    let mut sources = BTreeMap::new();
    for path in files(src) {
        let file = path.strip_prefix(src).unwrap().display().to_string();
        let mut module: Module = file
            .trim_end_matches(".rs")
            .split('/')
            .map(str::to_owned)
            .collect();
        match module.last().unwrap().as_str() {
            "tests" => continue,
            "mod" => drop(module.pop()),
            "lib" | "main" if module.len() == 1 => module.clear(),
            _ => {}
        }
        if file != "main.rs" {
            let source = read(&file, &std::fs::read_to_string(&path).unwrap());
            sources.insert(module, source);
        }
    }
    let crate_ = Crate(sources);
    let mut uses = Uses::new();
    for (module, source) in &crate_.0 {
        let mut named = BTreeSet::new();
        for (name, path) in &source.imports {
            // A module that is brought in is used by the paths that begin with it.
            if source.own.contains(name) || source.words.contains(name) {
                named.extend(crate_.item(module, path, 0));
            }
        }
        for path in &source.paths {
            named.extend(crate_.item(module, path, 0));
        }
        named.remove(&source.file);
        named.remove("lib.rs");
        uses.insert(source.file.clone(), named);
    }
    uses
}

/// The groups of files of which each reaches each other, sorted; a file that is in no circle is in no group.
pub(crate) fn circles(uses: &Uses) -> Vec<Vec<String>> {
    let reach: BTreeMap<&String, BTreeSet<&String>> = uses
        .keys()
        .map(|from| {
            let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
            while let Some(file) = open.pop() {
                open.extend(
                    uses.get(file)
                        .into_iter()
                        .flatten()
                        .filter(|next| seen.insert(*next)),
                );
            }
            (from, seen)
        })
        .collect();
    let mut groups = BTreeSet::new();
    for (from, reached) in &reach {
        if reached.contains(from) {
            let both = reached.iter().filter(|to| reach[**to].contains(from));
            groups.insert(both.map(|f| f.to_string()).collect::<Vec<_>>());
        }
    }
    groups.into_iter().collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found
}

struct Crate(BTreeMap<Module, Source>);

impl Crate {
    /// The file that defines what `path`, written in `module`, names; none for a module and for what is not of this crate.
    fn item(&self, module: &[String], path: &[String], depth: usize) -> Option<String> {
        // `use a::a` in a module `a` leads to itself.
        if depth > 16 {
            return None;
        }
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => self.within(&[], rest, depth),
            "self" => self.within(module, rest, depth),
            "super" => self.within(module.split_last()?.1, rest, depth),
            _ => {
                let known =
                    self.0.contains_key(&child(module, first)) || self.0[module].imports.contains_key(first);
                known.then(|| self.within(module, path, depth)).flatten()
            }
        }
    }

    fn within(&self, module: &[String], path: &[String], depth: usize) -> Option<String> {
        let (first, rest) = path.split_first()?;
        if first == "super" {
            return self.within(module.split_last()?.1, rest, depth);
        }
        let source = self.0.get(module)?;
        let inside = child(module, first);
        let import = source.imports.get(first).filter(|path| **path != [first.clone()]);
        match import {
            // A module and a function may have one name: what stands last is the function.
            _ if self.0.contains_key(&inside) && (import.is_none() || !rest.is_empty()) => {
                self.within(&inside, rest, depth)
            }
            Some(import) => {
                let path: Vec<String> = import.iter().chain(rest).cloned().collect();
                self.item(module, &path, depth + 1)
            }
            None => Some(source.file.clone()),
        }
    }
}

fn child(module: &[String], name: &str) -> Module {
    module
        .iter()
        .map(String::as_str)
        .chain([name])
        .map(str::to_owned)
        .collect()
}

fn read(file: &str, text: &str) -> Source {
    let tokens = tokens(text.split("#[cfg(test)]\nmod ").next().unwrap());
    let mut source = Source {
        file: file.to_owned(),
        imports: BTreeMap::new(),
        paths: Vec::new(),
        words: BTreeSet::new(),
        own: BTreeSet::new(),
    };
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at] == "use" {
            let handed_on = at > 0 && (tokens[at - 1] == "pub" || tokens[at - 1] == ")");
            at += 1;
            let mut found = Vec::new();
            tree(&tokens, &mut at, &[], &mut found);
            for (name, path) in found {
                if !handed_on {
                    source.own.insert(name.clone());
                }
                source.imports.insert(name, path);
            }
        } else if is_word(&tokens[at]) {
            let mut path = vec![tokens[at].clone()];
            while at + 2 < tokens.len() && tokens[at + 1] == "::" && is_word(&tokens[at + 2]) {
                path.push(tokens[at + 2].clone());
                at += 2;
            }
            if path.len() == 1 && speaks(&tokens, at) {
                source.words.insert(path[0].clone());
            }
            if path.len() > 1 {
                source.paths.push(path);
            }
        }
        at += 1;
    }
    source
}

/// What stands between `use` and `;`, from `at` on: the names that it brings in and their paths.
fn tree(tokens: &[String], at: &mut usize, before: &[String], found: &mut Vec<(String, Vec<String>)>) {
    let mut path = before.to_vec();
    loop {
        match tokens[*at].as_str() {
            "::" => *at += 1,
            "{" => {
                while tokens[*at] != "}" {
                    *at += 1;
                    if tokens[*at] != "}" {
                        tree(tokens, at, &path, found);
                    }
                }
                *at += 1;
                return;
            }
            "as" => {
                // `as _` has no name of its own; the item is used all the same.
                let name = match tokens[*at + 1].as_str() {
                    "_" => format!("_{}", path.join("::")),
                    name => name.to_owned(),
                };
                *at += 2;
                found.push((name, path));
                return;
            }
            "*" => {
                // `super::*` is how a module within a file has what stands around it.
                let ours = path[0] == "crate" || path[0] == "super" && path.len() > 1;
                assert!(!ours, "{}::*: name what is used", path.join("::"));
                *at += 1;
                return;
            }
            word if is_word(word) => {
                path.push(word.to_owned());
                *at += 1;
            }
            _ => {
                if path.len() > 1 && path.last().is_some_and(|l| l == "self") {
                    path.pop();
                }
                found.push((path.last().unwrap().clone(), path));
                return;
            }
        }
    }
}

/// Whether a word can stand for an item of another file: a function where it is called, anything else by its capital. Variables
/// and methods often have the name of a function.
fn speaks(tokens: &[String], at: usize) -> bool {
    let before = at.checked_sub(1).map_or("", |b| tokens[b].as_str());
    let called = tokens.get(at + 1).is_some_and(|t| t == "(");
    !["mod", "fn", "."].contains(&before) && (called || tokens[at].starts_with(char::is_uppercase))
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Words, `::` and single characters; comments, strings and characters in quotes are left out.
fn tokens(text: &str) -> Vec<String> {
    let (mut found, mut rest) = (Vec::new(), text);
    let until = |rest: &str, end: &str| rest.find(end).map_or(rest.len(), |at| at + end.len());
    while let Some(c) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            until(rest, "\n")
        } else if rest.starts_with("r\"") || rest.starts_with("r#") {
            let marks = rest[1..].chars().take_while(|c| *c == '#').count();
            let end = format!("\"{}", "#".repeat(marks));
            2 + marks + until(&rest[2 + marks..], &end)
        } else if c == '"' {
            quoted(rest, '"')
        } else if rest.starts_with("'\\") || (c == '\'' && rest.chars().nth(2) == Some('\'')) {
            quoted(rest, '\'')
        } else if c.is_alphanumeric() || c == '_' {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
            let end = end.unwrap_or(rest.len());
            found.push(rest[..end].to_owned());
            end
        } else if rest.starts_with("::") {
            found.push("::".to_owned());
            2
        } else {
            if !c.is_whitespace() {
                found.push(c.to_string());
            }
            c.len_utf8()
        };
        rest = &rest[length..];
    }
    found
}

/// The length of what begins with a quote, with its end.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}
