//! A pickle as plain values. Nothing is executed: of all globals, only those that name tensors, storages and
//! ordered dictionaries are known, and any other is refused by its name.

mod machine;

use std::rc::Rc;

/// Values deeper than this are refused.
const MOST_DEPTH: usize = 64;
/// Values that are looked at for tensors: shared ones are met once for each path that leads to them.
const MOST_VISITS: usize = 4_000_000;
/// More tensors than this are in no checkpoint; those of a 7B model and its optimizer are about 4000.
const MOST_TENSORS: usize = 200_000;
/// Bytes of a tensor's dotted name.
const MOST_NAME: usize = 1024;
/// Dimensions of a tensor; libtorch itself stops at 64 in most kernels.
const MOST_DIMENSIONS: usize = 64;

/// A value of a pickle, as far as finding tensors needs it.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// An integer of at most 64 bits.
    Int(i64),
    Text(Rc<str>),
    /// These three are places in [`Pickle`]'s table: however deep a file nests them, dropping them is flat.
    List(usize),
    Tuple(usize),
    /// Keys and values in turn.
    Dict(usize),
    /// A known global, as `module.name`.
    Global(Rc<str>),
    /// What a persistent id names: a storage.
    Storage(Rc<Storage>),
    Tensor(Rc<TensorView>),
    /// None, truth values, floats, bytes and whatever else no tensor hangs on.
    Other,
}

/// A whole pickle: its value and the containers that it is made of.
pub(super) struct Pickle {
    pub root: Value,
    nodes: Vec<Vec<Value>>,
}

/// A storage as a pickle names it.
#[derive(Debug, PartialEq)]
pub(super) struct Storage {
    /// `FloatStorage`, …
    pub class: String,
    /// The entry under `data/`.
    pub key: String,
    /// Elements.
    pub size: i64,
}

/// A view of a storage; unchecked. Offset and strides in elements.
#[derive(Debug)]
pub(super) struct TensorView {
    pub storage: Rc<Storage>,
    pub offset: i64,
    pub shape: Vec<i64>,
    pub strides: Vec<i64>,
}

/// Reads protocol 2 to 5. Errors say what was found.
pub(super) fn read(bytes: &[u8]) -> Result<Pickle, String> {
    machine::run(bytes)
}

impl Pickle {
    /// Every tensor in the dictionaries and lists below `at`, with its dotted path.
    pub fn tensors(&self, at: &Value) -> Result<Vec<(String, Rc<TensorView>)>, String> {
        let mut walk = Walk {
            nodes: &self.nodes,
            path: String::new(),
            visits: 0,
            found: Vec::new(),
        };
        walk.visit(at, 0)?;
        Ok(walk.found)
    }

    /// The dictionary under a key of the top-level dictionary.
    pub fn entry(&self, key: &str) -> Option<&Value> {
        let Value::Dict(d) = &self.root else {
            return None;
        };
        self.nodes[*d]
            .chunks_exact(2)
            .find_map(|pair| match (&pair[0], &pair[1]) {
                (Value::Text(k), v @ Value::Dict(_)) if &**k == key => Some(v),
                _ => None,
            })
    }
}

struct Walk<'a> {
    nodes: &'a [Vec<Value>],
    /// Of the value that is looked at.
    path: String,
    visits: usize,
    found: Vec<(String, Rc<TensorView>)>,
}

impl Walk<'_> {
    fn visit(&mut self, value: &Value, depth: usize) -> Result<(), String> {
        self.visits += 1;
        if depth > MOST_DEPTH {
            return Err(format!("values nested deeper than {MOST_DEPTH}"));
        }
        if self.visits > MOST_VISITS || self.found.len() > MOST_TENSORS {
            return Err("more values than a checkpoint has".into());
        }
        let nodes = self.nodes;
        match value {
            Value::Tensor(t) => self.found.push((self.path.clone(), t.clone())),
            Value::Dict(d) => {
                for pair in nodes[*d].chunks_exact(2) {
                    match &pair[0] {
                        Value::Text(key) => self.below(key, &pair[1], depth)?,
                        Value::Int(key) => self.below(&key.to_string(), &pair[1], depth)?,
                        _ => {}
                    }
                }
            }
            Value::List(items) | Value::Tuple(items) => {
                for (i, v) in nodes[*items].iter().enumerate() {
                    self.below(&i.to_string(), v, depth)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn below(&mut self, key: &str, value: &Value, depth: usize) -> Result<(), String> {
        let before = self.path.len();
        if before + key.len() > MOST_NAME {
            return Err(format!("a name longer than {MOST_NAME} bytes"));
        }
        if before > 0 {
            self.path.push('.');
        }
        self.path.push_str(key);
        self.visit(value, depth + 1)?;
        self.path.truncate(before);
        Ok(())
    }
}
