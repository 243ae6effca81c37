//! A pickle as plain values. Nothing is executed: of all globals, only those that name tensors, storages and
//! ordered dictionaries are known, and any other is refused by its name.

use std::collections::HashMap;
use std::rc::Rc;

/// Values deeper than this are refused.
const MOST_DEPTH: usize = 64;
/// Values that are looked at for tensors: shared ones are met once for each path that leads to them.
const MOST_VISITS: usize = 10_000_000;
/// More operations than this belong to no checkpoint.
const MOST_OPERATIONS: usize = 50_000_000;

/// A value of a pickle.
#[derive(Debug, Clone)]
pub enum Value {
    None,
    Bool,
    Int(i64),
    Float,
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
    /// Something that is not needed, such as a dictionary's attributes.
    Other,
}

/// A whole pickle: its value and the containers that it is made of.
pub struct Pickle {
    pub root: Value,
    nodes: Vec<Vec<Value>>,
}

/// A storage as a pickle names it.
#[derive(Debug, PartialEq)]
pub struct Storage {
    /// `FloatStorage`, …
    pub class: String,
    /// The entry under `data/`.
    pub key: String,
    /// Elements.
    pub size: i64,
}

/// A view of a storage; unchecked.
#[derive(Debug)]
pub struct TensorView {
    pub storage: Rc<Storage>,
    pub offset: i64,
    pub shape: Vec<i64>,
    pub strides: Vec<i64>,
}

/// Reads protocol 2 to 5. Errors say what was expected and found.
pub fn read(bytes: &[u8]) -> Result<Pickle, String> {
    let mut machine = Machine {
        bytes,
        at: 0,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        nodes: Vec::new(),
    };
    let root = machine.run()?;
    Ok(Pickle {
        root,
        nodes: machine.nodes,
    })
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: HashMap<u32, Value>,
    nodes: Vec<Vec<Value>>,
}

impl Machine<'_> {
    fn run(&mut self) -> Result<Value, String> {
        for _ in 0..MOST_OPERATIONS {
            let op = self.take(1)?[0];
            match op {
                0x80 => {
                    let version = self.take(1)?[0];
                    if !(2..=5).contains(&version) {
                        return Err(format!("pickle protocol {version}, known are 2 to 5"));
                    }
                }
                // FRAME: a length that nothing here needs.
                0x95 => {
                    self.take(8)?;
                }
                b'N' => self.push(Value::None)?,
                0x88 => self.push(Value::Bool)?,
                0x89 => self.push(Value::Bool)?,
                b'K' => {
                    let v = self.take(1)?[0];
                    self.push(Value::Int(v.into()))?;
                }
                b'M' => {
                    let v = u16::from_le_bytes(self.array()?);
                    self.push(Value::Int(v.into()))?;
                }
                b'J' => {
                    let v = i32::from_le_bytes(self.array()?);
                    self.push(Value::Int(v.into()))?;
                }
                0x8a => {
                    let n = self.take(1)?[0] as usize;
                    let v = self.long(n)?;
                    self.push(Value::Int(v))?;
                }
                b'G' => {
                    self.take(8)?;
                    self.push(Value::Float)?;
                }
                b'X' => {
                    let n = u32::from_le_bytes(self.array()?) as usize;
                    self.text(n)?;
                }
                0x8c => {
                    let n = self.take(1)?[0] as usize;
                    self.text(n)?;
                }
                // Byte strings occur in optimizer and RNG states; none is needed.
                b'B' | b'T' => {
                    let n = u32::from_le_bytes(self.array()?) as usize;
                    self.take(n)?;
                    self.push(Value::Other)?;
                }
                b'C' | b'U' => {
                    let n = self.take(1)?[0] as usize;
                    self.take(n)?;
                    self.push(Value::Other)?;
                }
                b'}' => {
                    let id = self.node(Vec::new());
                    self.push(Value::Dict(id))?;
                }
                b']' => {
                    let id = self.node(Vec::new());
                    self.push(Value::List(id))?;
                }
                b')' => {
                    let id = self.node(Vec::new());
                    self.push(Value::Tuple(id))?;
                }
                0x8f => self.push(Value::Other)?,
                b'(' => self.marks.push(self.stack.len()),
                b't' => {
                    let items = self.pop_mark()?;
                    let id = self.node(items);
                    self.push(Value::Tuple(id))?;
                }
                0x85..=0x87 => {
                    let n = (op - 0x84) as usize;
                    let from = self.stack.len().checked_sub(n).ok_or("a tuple of more than there is")?;
                    let items = self.stack.split_off(from);
                    let id = self.node(items);
                    self.push(Value::Tuple(id))?;
                }
                b'l' => {
                    let items = self.pop_mark()?;
                    let id = self.node(items);
                    self.push(Value::List(id))?;
                }
                b'a' => {
                    let v = self.pop()?;
                    self.extend_list(vec![v])?;
                }
                b'e' => {
                    let items = self.pop_mark()?;
                    self.extend_list(items)?;
                }
                b's' => {
                    let (v, k) = (self.pop()?, self.pop()?);
                    self.extend_dict(vec![k, v])?;
                }
                b'u' => {
                    let items = self.pop_mark()?;
                    self.extend_dict(items)?;
                }
                b'd' => {
                    let items = self.pop_mark()?;
                    let id = self.node(items);
                    self.push(Value::Dict(id))?;
                }
                0x90 => {
                    self.pop_mark()?;
                }
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.global(&module, &name)?;
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    match (&module, &name) {
                        (Value::Text(m), Value::Text(n)) => self.global(m, n)?,
                        _ => return Err("a global without a name".into()),
                    }
                }
                b'Q' => {
                    let id = self.pop()?;
                    let storage = self.storage(&id)?;
                    self.push(Value::Storage(Rc::new(storage)))?;
                }
                b'R' => {
                    let (arguments, callable) = (self.pop()?, self.pop()?);
                    let made = self.call(&callable, &arguments)?;
                    self.push(made)?;
                }
                // An object's attributes (an ordered dictionary's `_metadata`): left aside.
                b'b' => {
                    self.pop()?;
                }
                b'q' => {
                    let k = self.take(1)?[0];
                    self.remember(k.into())?;
                }
                b'r' => {
                    let k = u32::from_le_bytes(self.array()?);
                    self.remember(k)?;
                }
                0x94 => self.remember(self.memo.len() as u32)?,
                b'h' => {
                    let k = self.take(1)?[0];
                    self.recall(k.into())?;
                }
                b'j' => {
                    let k = u32::from_le_bytes(self.array()?);
                    self.recall(k)?;
                }
                b'0' => {
                    self.pop()?;
                }
                b'2' => {
                    let v = self.stack.last().cloned().ok_or("an empty stack")?;
                    self.push(v)?;
                }
                b'.' => return self.pop(),
                other => return Err(format!("pickle operation {other:#04x}, which no checkpoint needs")),
            }
        }
        Err("more operations than any checkpoint has".into())
    }

    fn take(&mut self, n: usize) -> Result<&[u8], String> {
        let end = self.at.checked_add(n).filter(|e| *e <= self.bytes.len());
        let end = end.ok_or_else(|| format!("the end of the pickle at byte {}", self.bytes.len()))?;
        let piece = &self.bytes[self.at..end];
        self.at = end;
        Ok(piece)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn long(&mut self, n: usize) -> Result<i64, String> {
        let bytes = self.take(n)?;
        if n > 8 {
            return Err(format!("an integer of {n} bytes, at most 8 are known"));
        }
        let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
        let mut all = if negative { [0xff; 8] } else { [0; 8] };
        all[..n].copy_from_slice(bytes);
        Ok(i64::from_le_bytes(all))
    }

    fn text(&mut self, n: usize) -> Result<(), String> {
        let text = std::str::from_utf8(self.take(n)?).map_err(|_| "text that is not UTF-8")?;
        let value = Value::Text(text.into());
        self.push(value)
    }

    fn line(&mut self) -> Result<String, String> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().take(512).position(|b| *b == b'\n').ok_or("a name without an end")?;
        let line = String::from_utf8_lossy(&rest[..end]).into_owned();
        self.at += end + 1;
        Ok(line)
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), String> {
        let full = format!("{module}.{name}");
        let storage = (module == "torch" || module == "torch.storage") && name.ends_with("Storage");
        let known = [
            "collections.OrderedDict",
            "torch._utils._rebuild_tensor_v2",
            "torch._utils._rebuild_parameter",
            "torch.Size",
        ];
        if !storage && !known.contains(&full.as_str()) {
            return Err(format!("the global `{full}`, which is refused: a checkpoint needs only tensors"));
        }
        self.push(Value::Global(full.into()))
    }

    fn push(&mut self, v: Value) -> Result<(), String> {
        self.stack.push(v);
        Ok(())
    }

    fn pop(&mut self) -> Result<Value, String> {
        // What lies below a mark belongs to the opened tuple, list or dictionary.
        if self.marks.last().is_some_and(|m| self.stack.len() <= *m) {
            return Err("an empty stack".into());
        }
        self.stack.pop().ok_or("an empty stack".into())
    }

    fn pop_mark(&mut self) -> Result<Vec<Value>, String> {
        let mark = self.marks.pop().filter(|m| *m <= self.stack.len()).ok_or("no mark")?;
        Ok(self.stack.split_off(mark))
    }

    fn node(&mut self, items: Vec<Value>) -> usize {
        self.nodes.push(items);
        self.nodes.len() - 1
    }

    fn extend_list(&mut self, items: Vec<Value>) -> Result<(), String> {
        match self.stack.last() {
            Some(Value::List(l)) => self.nodes[*l].extend(items),
            Some(Value::Other) => {}
            _ => return Err("no list to append to".into()),
        }
        Ok(())
    }

    fn extend_dict(&mut self, items: Vec<Value>) -> Result<(), String> {
        match self.stack.last() {
            Some(Value::Dict(d)) => self.nodes[*d].extend(items),
            _ => return Err("no dictionary to add to".into()),
        }
        Ok(())
    }

    fn remember(&mut self, key: u32) -> Result<(), String> {
        let v = self.stack.last().cloned().ok_or("nothing to remember")?;
        self.memo.insert(key, v);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<(), String> {
        let v = self.memo.get(&key).cloned().ok_or_else(|| format!("no memo {key}"))?;
        self.push(v)
    }

    /// ('storage', class, key, device, elements)
    fn storage(&self, id: &Value) -> Result<Storage, String> {
        if let Value::Tuple(t) = id {
            if let [Value::Text(tag), Value::Global(class), Value::Text(key), _, Value::Int(size)] = &self.nodes[*t][..] {
                if &**tag == "storage" {
                    return Ok(Storage {
                        class: class.rsplit('.').next().unwrap_or_default().to_owned(),
                        key: key.to_string(),
                        size: *size,
                    });
                }
            }
        }
        Err("a persistent id that is no storage".into())
    }

    fn call(&mut self, callable: &Value, arguments: &Value) -> Result<Value, String> {
        let (Value::Global(name), Value::Tuple(arguments)) = (callable, arguments) else {
            return Err("a call of something that is no known global".into());
        };
        let integers = |v: &Value| match v {
            Value::Tuple(t) => self.nodes[*t]
                .iter()
                .map(|i| if let Value::Int(i) = i { Ok(*i) } else { Err("a size that is no integer".to_owned()) })
                .collect::<Result<Vec<_>, _>>(),
            _ => Err("sizes that are no tuple".to_owned()),
        };
        match (&**name, &self.nodes[*arguments][..]) {
            ("collections.OrderedDict", []) => Ok(Value::Dict(self.node(Vec::new()))),
            ("torch.Size", [sizes]) => Ok(sizes.clone()),
            ("torch._utils._rebuild_parameter", [tensor @ Value::Tensor(_), ..]) => Ok(tensor.clone()),
            ("torch._utils._rebuild_tensor_v2", [Value::Storage(s), Value::Int(offset), shape, strides, ..]) => {
                Ok(Value::Tensor(Rc::new(TensorView {
                    storage: s.clone(),
                    offset: *offset,
                    shape: integers(shape)?,
                    strides: integers(strides)?,
                })))
            }
            _ => Err(format!("a call of `{name}` with arguments that are not its own")),
        }
    }
}

impl Pickle {
    /// Calls `found` with the dotted path of every tensor in dictionaries and lists below `at`.
    pub fn tensors(&self, at: &Value, found: &mut dyn FnMut(String, &TensorView)) -> Result<(), String> {
        self.walk(at, String::new(), 0, &mut 0, found)
    }

    fn walk(
        &self,
        value: &Value,
        path: String,
        depth: usize,
        visits: &mut usize,
        found: &mut dyn FnMut(String, &TensorView),
    ) -> Result<(), String> {
        *visits += 1;
        if depth > MOST_DEPTH || *visits > MOST_VISITS {
            return Err(format!("more values than a checkpoint has, or nested deeper than {MOST_DEPTH}"));
        }
        let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        match value {
            Value::Tensor(t) => found(path, t),
            Value::Dict(d) => {
                for pair in self.nodes[*d].chunks_exact(2) {
                    let key = match &pair[0] {
                        Value::Text(s) => s.to_string(),
                        Value::Int(i) => i.to_string(),
                        _ => continue,
                    };
                    self.walk(&pair[1], below(&key), depth + 1, visits, found)?;
                }
            }
            Value::List(items) | Value::Tuple(items) => {
                for (i, v) in self.nodes[*items].iter().enumerate() {
                    self.walk(v, below(&i.to_string()), depth + 1, visits, found)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The dictionary under a key of the top-level dictionary.
    pub fn entry(&self, key: &str) -> Option<&Value> {
        let Value::Dict(d) = &self.root else {
            return None;
        };
        self.nodes[*d].chunks_exact(2).find_map(|pair| match (&pair[0], &pair[1]) {
            (Value::Text(k), v @ Value::Dict(_)) if &**k == key => Some(v),
            _ => None,
        })
    }
}
