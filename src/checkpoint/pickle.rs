//! A pickle as plain values. Nothing is executed: of all globals, only those that name tensors, storages and
//! ordered dictionaries are known, and any other is refused by its name.

mod machine;
mod write;

pub(super) use write::Writer;

use std::rc::Rc;

/// Values deeper than this are refused.
const MOST_DEPTH: usize = 64;
/// Bytes of all names together, as a multiple of the pickle: a file that leads to one value by many paths would
/// otherwise make much of little.
const MOST_NAMES: usize = 16;
/// More tensors than this are in no checkpoint; those of a 7B model and its optimizer are about 4000.
const MOST_TENSORS: usize = 200_000;
/// Bytes of a tensor's dotted name.
const MOST_NAME: usize = 1024;
/// Dimensions of a tensor; libtorch itself stops at 64 in most kernels.
const MOST_DIMENSIONS: usize = 64;

/// A plain value of a checkpoint, beside its tensors.
#[derive(Debug, Clone, PartialEq)]
pub enum Plain {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An integer of up to 64 bits.
    Int(i64),
    /// A float.
    Float(f64),
    /// A string.
    Text(String),
    /// Lists and tuples of plain values.
    List(Vec<Plain>),
}

impl Plain {
    pub(crate) fn as_int(&self) -> Option<i64> {
        match self {
            Plain::Int(i) => Some(*i),
            _ => None,
        }
    }

    /// A float or an integer.
    pub fn as_float(&self) -> Option<f64> {
        match self {
            Plain::Float(x) => Some(*x),
            Plain::Int(i) => Some(*i as f64),
            _ => None,
        }
    }

    pub(crate) fn as_list(&self) -> Option<&[Plain]> {
        match self {
            Plain::List(items) => Some(items),
            _ => None,
        }
    }
}

impl std::fmt::Display for Plain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Plain::None => write!(f, "none"),
            Plain::Bool(b) => write!(f, "{b}"),
            Plain::Int(i) => write!(f, "{i}"),
            Plain::Float(x) => write!(f, "{x}"),
            Plain::Text(t) => write!(f, "{t:?}"),
            Plain::List(items) if items.len() > 8 => write!(f, "a list of {}", items.len()),
            Plain::List(items) => {
                let all: Vec<String> = items.iter().map(Plain::to_string).collect();
                write!(f, "[{}]", all.join(", "))
            }
        }
    }
}

/// A value of a pickle, as far as checkpoints need it.
#[derive(Debug, Clone)]
pub(super) enum Value {
    None,
    Bool(bool),
    /// An integer of at most 64 bits.
    Int(i64),
    Float(f64),
    Text(Rc<str>),
    /// These three are places in [`Pickle`]'s table: however deep a file nests them, dropping them is flat.
    List(usize),
    Tuple(usize),
    /// Keys and values in turn.
    Dict(usize),
    /// The same, of attributes: `argparse.Namespace`.
    Namespace(usize),
    /// A known global, as `module.name`.
    Global(Rc<str>),
    /// What a persistent id names: a storage.
    Storage(Rc<Storage>),
    Tensor(Rc<TensorView>),
    Bytes(Rc<[u8]>),
    /// A numpy dtype, as `f8`.
    Dtype(Rc<str>),
    /// Arrays and whatever else no checkpoint's meaning hangs on.
    Other,
}

/// A whole pickle: its value and the containers that it is made of.
pub(super) struct Pickle {
    pub root: Value,
    nodes: Vec<Vec<Value>>,
    /// Every storage that it names.
    pub storages: Vec<Rc<Storage>>,
    /// Bytes of the file that hold it.
    pub size: usize,
}

/// What a pickle holds, by dotted path in its order.
#[derive(Default)]
pub(super) struct Contents {
    pub tensors: Vec<(String, Rc<TensorView>)>,
    pub plain: Vec<(String, Plain)>,
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
    /// Every tensor and plain value in the dictionaries and lists, with its dotted path. A list without tensors and
    /// dictionaries is one value.
    pub(crate) fn contents(&self) -> Result<Contents, String> {
        let mut walk = Walk {
            nodes: &self.nodes,
            path: String::new(),
            visits: 0,
            most_visits: 4 * self.size + 1024,
            names: 0,
            most_names: MOST_NAMES * self.size + (64 << 10),
            found: Contents::default(),
        };
        walk.visit(&self.root, 0)?;
        Ok(walk.found)
    }

    /// The items of a list of texts.
    pub(crate) fn texts(&self) -> Option<Vec<String>> {
        let Value::List(l) = &self.root else {
            return None;
        };
        let text = |v: &Value| match v {
            Value::Text(t) => Some(t.to_string()),
            _ => None,
        };
        self.nodes[*l].iter().map(text).collect()
    }
}

struct Walk<'a> {
    nodes: &'a [Vec<Value>],
    /// Of the value that is looked at.
    path: String,
    visits: usize,
    most_visits: usize,
    names: usize,
    most_names: usize,
    found: Contents,
}

impl Walk<'_> {
    fn visit(&mut self, value: &Value, depth: usize) -> Result<(), String> {
        self.count(depth)?;
        let nodes = self.nodes;
        match value {
            Value::Tensor(t) => {
                let name = self.name()?;
                self.found.tensors.push((name, t.clone()));
                if self.found.tensors.len() > MOST_TENSORS {
                    return Err("more tensors than a checkpoint has".into());
                }
            }
            Value::Dict(d) | Value::Namespace(d) => {
                for pair in nodes[*d].chunks_exact(2) {
                    match &pair[0] {
                        Value::Text(key) => self.below(key, &pair[1], depth)?,
                        Value::Int(key) => self.below(&key.to_string(), &pair[1], depth)?,
                        _ => {}
                    }
                }
            }
            other => match (self.plain(other, depth)?, other) {
                (Some(plain), _) => {
                    let name = self.name()?;
                    self.found.plain.push((name, plain));
                }
                (None, Value::List(items) | Value::Tuple(items)) => {
                    for (i, v) in nodes[*items].iter().enumerate() {
                        self.below(&i.to_string(), v, depth)?;
                    }
                }
                _ => {}
            },
        }
        Ok(())
    }

    /// The value without its tensors and dictionaries, if it has none.
    fn plain(&mut self, value: &Value, depth: usize) -> Result<Option<Plain>, String> {
        self.count(depth)?;
        Ok(Some(match value {
            Value::None => Plain::None,
            Value::Bool(b) => Plain::Bool(*b),
            Value::Int(i) => Plain::Int(*i),
            Value::Float(x) => Plain::Float(*x),
            Value::Text(t) => {
                // Texts are shared in the pickle and copied here.
                self.names += t.len();
                self.bounded()?;
                Plain::Text(t.to_string())
            }
            Value::List(items) | Value::Tuple(items) => {
                let nodes = self.nodes;
                let mut all = Vec::new();
                for v in &nodes[*items] {
                    match self.plain(v, depth + 1)? {
                        Some(p) => all.push(p),
                        None => return Ok(None),
                    }
                }
                Plain::List(all)
            }
            _ => return Ok(None),
        }))
    }

    fn count(&mut self, depth: usize) -> Result<(), String> {
        self.visits += 1;
        if depth > MOST_DEPTH {
            return Err(format!("values nested deeper than {MOST_DEPTH}"));
        }
        if self.visits > self.most_visits {
            return Err("more values than its bytes can hold".into());
        }
        Ok(())
    }

    fn name(&mut self) -> Result<String, String> {
        self.names += self.path.len();
        self.bounded()?;
        Ok(self.path.clone())
    }

    fn bounded(&self) -> Result<(), String> {
        if self.names > self.most_names {
            return Err("more names than its bytes can hold".into());
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
