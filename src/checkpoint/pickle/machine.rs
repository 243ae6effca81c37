//! The stack machine that a pickle is a program for, with the instructions that data needs.
//! Instruction names as in CPython's `pickletools`.

use super::{Pickle, Storage, TensorView, Value, MOST_DIMENSIONS};
use std::collections::HashMap;
use std::rc::Rc;

/// Instructions that are followed: a 7B model with its optimizer needs some 300 000.
const MOST_OPERATIONS: usize = 4_000_000;
/// Bytes of a global's module or name.
const MOST_LINE: usize = 512;
/// Besides the storage classes and dtypes. numpy's are those of a scalar or an array beside the tensors: LAION-CLAP's files
/// hold some, and for them alone `torch.load(weights_only=True)` refuses them. Sets are DeepSpeed's, a `Namespace` and paths are
/// the command line that trainers save beside their weights.
const GLOBALS: [&str; 29] = [
    "collections.OrderedDict",
    "collections.Counter",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
    "torch._tensor._rebuild_from_type_v2",
    "torch.Tensor",
    "torch.nn.parameter.Parameter",
    "torch.Size",
    "torch.device",
    "numpy.dtype",
    "numpy.ndarray",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "_codecs.encode",
    // Protocol 2 writes Python 2's names.
    "__builtin__.set",
    "__builtin__.frozenset",
    "__builtin__.list",
    "builtins.set",
    "builtins.frozenset",
    "builtins.list",
    "collections.defaultdict",
    "argparse.Namespace",
    "pathlib.PosixPath",
    "pathlib.PurePosixPath",
    "pathlib.WindowsPath",
    "pathlib._local.PosixPath",
];
/// A dtype is pickled as a global.
const DTYPES: [&str; 13] = [
    "float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool",
    "double", "half", "long",
];

/// Runs one pickle; what follows its end is left alone.
pub(super) fn run(bytes: &[u8]) -> Result<Pickle, String> {
    let mut machine = Machine {
        bytes,
        at: 0,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        nodes: Vec::new(),
        storages: Vec::new(),
    };
    for _ in 0..MOST_OPERATIONS {
        let [operation] = machine.array()?;
        if operation == b'.' {
            let root = machine.pop()?;
            return Ok(Pickle {
                root,
                nodes: machine.nodes,
                storages: machine.storages,
                size: machine.at,
            });
        }
        machine.step(operation)?;
    }
    Err("more operations than any checkpoint has".into())
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: HashMap<u32, Value>,
    nodes: Vec<Vec<Value>>,
    storages: Vec<Rc<Storage>>,
}

/// A numpy scalar of a dtype that checkpoints hold, little-endian; others say nothing to us.
fn scalar(dtype: &str, bytes: &[u8]) -> Value {
    let (f4, f8): (Result<[u8; 4], _>, Result<[u8; 8], _>) = (bytes.try_into(), bytes.try_into());
    match (dtype.trim_start_matches('<'), f4, f8, bytes) {
        ("f4", Ok(b), ..) => Value::Float(f32::from_le_bytes(b).into()),
        ("f8", _, Ok(b), _) => Value::Float(f64::from_le_bytes(b)),
        ("i4", Ok(b), ..) => Value::Int(i32::from_le_bytes(b).into()),
        ("i8", _, Ok(b), _) => Value::Int(i64::from_le_bytes(b)),
        ("b1", .., [b]) => Value::Bool(*b != 0),
        _ => Value::Other,
    }
}

/// The parts of a path as text.
fn path(parts: &[Value]) -> Value {
    let all: Vec<&str> = parts
        .iter()
        .filter_map(|p| match p {
            Value::Text(t) => Some(&**t),
            _ => None,
        })
        .collect();
    Value::Text(all.join("/").replace("//", "/").into())
}

impl Machine<'_> {
    fn step(&mut self, operation: u8) -> Result<(), String> {
        match operation {
            // PROTO
            0x80 => match self.array()? {
                [2..=5] => {}
                [version] => return Err(format!("pickle protocol {version}, known are 2 to 5")),
            },
            // FRAME: a length that nothing here needs.
            0x95 => drop(self.take(8)?),
            // NONE, NEWTRUE, NEWFALSE, EMPTY_SET
            b'N' => self.stack.push(Value::None),
            0x88 => self.stack.push(Value::Bool(true)),
            0x89 => self.stack.push(Value::Bool(false)),
            0x8f => self.push(Value::List, Vec::new()),
            // BININT1, BININT2, BININT, LONG1
            b'K' => {
                let [v] = self.array()?;
                self.stack.push(Value::Int(v.into()));
            }
            b'M' => {
                let v = u16::from_le_bytes(self.array()?);
                self.stack.push(Value::Int(v.into()));
            }
            b'J' => {
                let v = i32::from_le_bytes(self.array()?);
                self.stack.push(Value::Int(v.into()));
            }
            0x8a => {
                let v = self.long()?;
                self.stack.push(v);
            }
            // BINFLOAT
            b'G' => {
                let v = f64::from_be_bytes(self.array()?);
                self.stack.push(Value::Float(v));
            }
            // BINUNICODE, SHORT_BINUNICODE
            b'X' => {
                let n = self.length4()?;
                self.text(n)?;
            }
            0x8c => {
                let n = self.length1()?;
                self.text(n)?;
            }
            // BINUNICODE8
            0x8d => {
                let n = self.length8()?;
                self.text(n)?;
            }
            // BINBYTES, BINSTRING, SHORT_BINBYTES, SHORT_BINSTRING, BINBYTES8, BYTEARRAY8
            b'B' | b'T' => {
                let n = self.length4()?;
                self.bytes(n)?;
            }
            b'C' | b'U' => {
                let n = self.length1()?;
                self.bytes(n)?;
            }
            0x8e | 0x96 => {
                let n = self.length8()?;
                self.bytes(n)?;
            }
            // EMPTY_DICT, EMPTY_LIST, EMPTY_TUPLE
            b'}' => self.push(Value::Dict, Vec::new()),
            b']' => self.push(Value::List, Vec::new()),
            b')' => self.push(Value::Tuple, Vec::new()),
            b'(' => self.marks.push(self.stack.len()),
            // TUPLE, TUPLE1 to TUPLE3, LIST, DICT, FROZENSET
            0x91 => {
                let items = self.pop_mark()?;
                self.push(Value::List, items);
            }
            b't' => {
                let items = self.pop_mark()?;
                self.push(Value::Tuple, items);
            }
            0x85..=0x87 => {
                let n = usize::from(operation - 0x84);
                let from = self
                    .stack
                    .len()
                    .checked_sub(n)
                    .ok_or("a tuple of more than there is")?;
                let items = self.stack.split_off(from);
                self.push(Value::Tuple, items);
            }
            b'l' => {
                let items = self.pop_mark()?;
                self.push(Value::List, items);
            }
            b'd' => {
                let items = self.pop_mark()?;
                self.push(Value::Dict, items);
            }
            // APPEND, APPENDS, SETITEM, SETITEMS, ADDITEMS
            b'a' => {
                let item = self.pop()?;
                self.extend(vec![item])?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.extend(vec![key, value])?;
            }
            b'e' | b'u' | 0x90 => {
                let items = self.pop_mark()?;
                self.extend(items)?;
            }
            // GLOBAL, STACK_GLOBAL
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(&module, &name)?;
            }
            0x93 => match (self.pop()?, self.pop()?) {
                (Value::Text(name), Value::Text(module)) => self.global(&module, &name)?,
                _ => return Err("a global without a name".into()),
            },
            // BINPERSID, REDUCE, NEWOBJ
            b'Q' => {
                let id = self.pop()?;
                let storage = Rc::new(self.storage(&id)?);
                self.storages.push(storage.clone());
                self.stack.push(Value::Storage(storage));
            }
            b'R' => {
                let (arguments, callable) = (self.pop()?, self.pop()?);
                let made = self.call(&callable, &arguments)?;
                self.stack.push(made);
            }
            0x81 => {
                let (arguments, class) = (self.pop()?, self.pop()?);
                let made = self.object(&class, &arguments)?;
                self.stack.push(made);
            }
            // BUILD: an object's attributes. A namespace is a dictionary of them; an ordered dictionary's (`_metadata`) are
            // left aside.
            b'b' => {
                let attributes = self.pop()?;
                if let (Some(Value::Namespace(own)), Value::Dict(given)) = (self.stack.last(), attributes) {
                    // Moved, not copied: a file could ask for it a million times.
                    let (own, given) = (*own, std::mem::take(&mut self.nodes[given]));
                    self.nodes[own].extend(given);
                }
            }
            // POP
            b'0' => drop(self.pop()?),
            // DUP
            b'2' => {
                let v = self.stack.last().cloned().ok_or("an empty stack")?;
                self.stack.push(v);
            }
            // BINPUT, LONG_BINPUT, MEMOIZE
            b'q' => {
                let n = self.length1()?;
                self.remember(n as u32)?;
            }
            b'r' => {
                let n = u32::from_le_bytes(self.array()?);
                self.remember(n)?;
            }
            0x94 => self.remember(self.memo.len() as u32)?,
            // BINGET, LONG_BINGET
            b'h' => {
                let n = self.length1()?;
                self.recall(n as u32)?;
            }
            b'j' => {
                let n = u32::from_le_bytes(self.array()?);
                self.recall(n)?;
            }
            other => {
                return Err(format!(
                    "pickle operation {other:#04x}, which no checkpoint needs"
                ))
            }
        }
        Ok(())
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

    fn length1(&mut self) -> Result<usize, String> {
        let [n] = self.array()?;
        Ok(n.into())
    }

    fn length4(&mut self) -> Result<usize, String> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    /// Integers of more than 64 bits (a seed) are no size, offset or stride of a tensor.
    fn long(&mut self) -> Result<Value, String> {
        let n = self.length1()?;
        let bytes = self.take(n)?;
        let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
        let mut all = if negative { [0xff; 8] } else { [0; 8] };
        let Some(low) = all.get_mut(..n) else {
            return Ok(Value::Other);
        };
        low.copy_from_slice(bytes);
        Ok(Value::Int(i64::from_le_bytes(all)))
    }

    fn length8(&mut self) -> Result<usize, String> {
        usize::try_from(u64::from_le_bytes(self.array()?)).map_err(|_| "a length past the memory".into())
    }

    fn bytes(&mut self, n: usize) -> Result<(), String> {
        let value = Value::Bytes(self.take(n)?.into());
        self.stack.push(value);
        Ok(())
    }

    fn text(&mut self, n: usize) -> Result<(), String> {
        let text = std::str::from_utf8(self.take(n)?).map_err(|_| "text that is not UTF-8")?;
        let value = Value::Text(text.into());
        self.stack.push(value);
        Ok(())
    }

    fn line(&mut self) -> Result<String, String> {
        let rest = &self.bytes[self.at..];
        let end = rest
            .iter()
            .take(MOST_LINE)
            .position(|b| *b == b'\n')
            .ok_or("a name without an end")?;
        let line = String::from_utf8_lossy(&rest[..end]).into_owned();
        self.at += end + 1;
        Ok(line)
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), String> {
        let full = format!("{module}.{name}");
        let storage = (module == "torch" || module == "torch.storage") && name.ends_with("Storage");
        let dtype = module == "torch" && DTYPES.contains(&name);
        if !storage && !dtype && !GLOBALS.contains(&full.as_str()) {
            let shown: String = full.chars().take(200).collect();
            return Err(format!(
                "the global `{shown}`, which is refused: a checkpoint needs only tensors"
            ));
        }
        self.stack.push(Value::Global(full.into()));
        Ok(())
    }

    fn push(&mut self, container: fn(usize) -> Value, items: Vec<Value>) {
        self.nodes.push(items);
        self.stack.push(container(self.nodes.len() - 1));
    }

    fn pop(&mut self) -> Result<Value, String> {
        // What lies below a mark belongs to the opened tuple, list or dictionary.
        if self.marks.last().is_some_and(|m| self.stack.len() <= *m) {
            return Err("an empty stack".into());
        }
        self.stack.pop().ok_or("an empty stack".into())
    }

    fn pop_mark(&mut self) -> Result<Vec<Value>, String> {
        let mark = self
            .marks
            .pop()
            .filter(|m| *m <= self.stack.len())
            .ok_or("no mark")?;
        Ok(self.stack.split_off(mark))
    }

    /// Adds to the list, set or dictionary on top of the stack.
    fn extend(&mut self, items: Vec<Value>) -> Result<(), String> {
        match self.stack.last() {
            Some(Value::List(l)) => self.nodes[*l].extend(items),
            Some(Value::Dict(d)) if items.len().is_multiple_of(2) => self.nodes[*d].extend(items),
            Some(Value::Other) => {}
            _ => return Err("no list or dictionary to add to".into()),
        }
        Ok(())
    }

    fn remember(&mut self, key: u32) -> Result<(), String> {
        let v = self.stack.last().cloned().ok_or("nothing to remember")?;
        self.memo.insert(key, v);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<(), String> {
        let v = self
            .memo
            .get(&key)
            .cloned()
            .ok_or_else(|| format!("no memo {key}"))?;
        self.stack.push(v);
        Ok(())
    }

    /// ('storage', class, key, device, elements), and in the legacy format the part that is meant (none: all of it).
    fn storage(&self, id: &Value) -> Result<Storage, String> {
        let Value::Tuple(t) = id else {
            return Err("a persistent id that is no storage".into());
        };
        match &self.nodes[*t][..] {
            [Value::Text(tag), Value::Global(class), Value::Text(key), _, Value::Int(size)]
            | [Value::Text(tag), Value::Global(class), Value::Text(key), _, Value::Int(size), Value::None]
                if &**tag == "storage" =>
            {
                Ok(Storage {
                    class: class.rsplit('.').next().unwrap_or_default().to_owned(),
                    key: key.to_string(),
                    size: *size,
                })
            }
            _ => Err("a persistent id that is no storage".into()),
        }
    }

    /// What a call of a known global gives. Nothing is called: each has its own arm.
    fn call(&mut self, callable: &Value, arguments: &Value) -> Result<Value, String> {
        let (Value::Global(name), Value::Tuple(arguments)) = (callable, arguments) else {
            return Err("a call of something that is no known global".into());
        };
        match (&**name, &self.nodes[*arguments][..]) {
            ("collections.OrderedDict", []) => {
                self.nodes.push(Vec::new());
                Ok(Value::Dict(self.nodes.len() - 1))
            }
            ("collections.Counter", [counts @ Value::Dict(_)]) => Ok(counts.clone()),
            ("torch.Size", [sizes]) => Ok(sizes.clone()),
            (
                "__builtin__.set"
                | "__builtin__.frozenset"
                | "__builtin__.list"
                | "builtins.set"
                | "builtins.frozenset"
                | "builtins.list",
                of @ ([] | [Value::List(_) | Value::Tuple(_)]),
            ) => match of {
                [Value::List(items) | Value::Tuple(items)] => Ok(Value::List(*items)),
                _ => {
                    self.nodes.push(Vec::new());
                    Ok(Value::List(self.nodes.len() - 1))
                }
            },
            ("collections.defaultdict", [Value::Global(_) | Value::None] | []) => {
                self.nodes.push(Vec::new());
                Ok(Value::Dict(self.nodes.len() - 1))
            }
            // The parts of a path.
            (
                "pathlib.PosixPath"
                | "pathlib.PurePosixPath"
                | "pathlib.WindowsPath"
                | "pathlib._local.PosixPath",
                parts,
            ) => Ok(path(parts)),
            ("torch.device", _) => Ok(Value::Other),
            // Protocol 2 has no bytes: they are text of as many characters.
            ("_codecs.encode", [Value::Text(text), ..]) => {
                let bytes: Option<Rc<[u8]>> = text.chars().map(|c| u8::try_from(c).ok()).collect();
                bytes.map(Value::Bytes).ok_or_else(|| "bytes past 255".into())
            }
            ("numpy.dtype", [Value::Text(name), ..]) => Ok(Value::Dtype(name.clone())),
            (
                "numpy.core.multiarray.scalar" | "numpy._core.multiarray.scalar",
                [Value::Dtype(dtype), Value::Bytes(bytes)],
            ) => Ok(scalar(dtype, bytes)),
            ("numpy.core.multiarray._reconstruct" | "numpy._core.multiarray._reconstruct", _) => {
                Ok(Value::Other)
            }
            (
                "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state",
                [tensor @ Value::Tensor(_), ..],
            ) => Ok(tensor.clone()),
            // (function, class, its arguments, attributes): a tensor with attributes, which are left aside.
            (
                "torch._tensor._rebuild_from_type_v2",
                [function @ Value::Global(f), _, inner @ Value::Tuple(_), _],
            ) if &**f != "torch._tensor._rebuild_from_type_v2" => {
                let (function, inner) = (function.clone(), inner.clone());
                self.call(&function, &inner)
            }
            (
                "torch._utils._rebuild_tensor_v2",
                [Value::Storage(s), Value::Int(offset), shape, strides, ..],
            ) => Ok(Value::Tensor(Rc::new(TensorView {
                storage: s.clone(),
                offset: *offset,
                shape: self.integers(shape)?,
                strides: self.integers(strides)?,
            }))),
            _ => Err(format!("a call of `{name}` with arguments that are not its own")),
        }
    }

    /// An object without its attributes, which BUILD gives it.
    fn object(&mut self, class: &Value, arguments: &Value) -> Result<Value, String> {
        match class {
            Value::Global(name) if &**name == "argparse.Namespace" => {
                self.nodes.push(Vec::new());
                Ok(Value::Namespace(self.nodes.len() - 1))
            }
            _ => self.call(class, arguments),
        }
    }

    fn integers(&self, tuple: &Value) -> Result<Vec<i64>, String> {
        let Value::Tuple(t) = tuple else {
            return Err("sizes that are no tuple".into());
        };
        let items = &self.nodes[*t];
        if items.len() > MOST_DIMENSIONS {
            return Err(format!("a tensor of {} dimensions", items.len()));
        }
        let integer = |v: &Value| {
            if let Value::Int(i) = v {
                Ok(*i)
            } else {
                Err("a size that is no integer".into())
            }
        };
        items.iter().map(integer).collect()
    }
}
