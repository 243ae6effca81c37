//! Where a model's tensors come from and what they are called.
//!
//! A module asks its [`Scope`] for each tensor by the checkpoint's own name; the [`Store`] behind it
//! answers from a checkpoint, from a fresh initialisation, or, to count a 7B model without its
//! memory, with a view of one element ([`Origin::Shapes`]).

use super::bounds::LAYERS;
use super::parts::Precision;
use crate::error::{Error, Result};
use crate::ffi::give_back_memory;
use indexmap::IndexMap;
use std::cell::RefCell;
use tch::{no_grad, Device, Kind, Tensor};

/// Bytes of a file's tensors that were cast, after which what they took is given back.
const GIVE_BACK: usize = 256 << 20;

/// How a tensor that no checkpoint holds begins.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Init {
    /// All elements equal.
    Const(f64),
    /// Uniform in ±1/√fan_in, PyTorch's default for linear layers and convolutions.
    FanIn(i64),
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
    /// Xavier normal over (fan_in, fan_out).
    XavierNormal(i64, i64),
}

/// Answers a name with its tensor, when the file has it. Dtype and device are those that are wanted: a tensor that
/// comes with others is converted afterwards, at the cost of a second copy.
pub type Lookup<'a> = Box<dyn Fn(&str, Kind, Device) -> Result<Option<Tensor>> + 'a>;

/// Looks a tensor's shape up by its canonical name.
pub type Shapes<'a> = &'a dyn Fn(&str) -> Option<Vec<i64>>;

/// How many of name(0), name(1), … there are in a row. A stack deeper than any that can be is not counted to its end.
pub(crate) fn in_a_row(shapes: Shapes, name: impl Fn(usize) -> String) -> usize {
    (0..*LAYERS.end() as usize)
        .take_while(|i| shapes(&name(*i)).is_some())
        .count()
}

/// Where tensors come from.
pub enum Origin<'a> {
    /// Initialise everything.
    Fresh,
    /// Views of one element with the right shapes: for counting.
    Shapes,
    /// Read by name. `fresh` says which names may be missing, and are then initialised.
    File {
        /// Named in errors.
        path: std::path::PathBuf,
        /// Finds a tensor by its name.
        lookup: Lookup<'a>,
        /// Whether a name may be missing.
        fresh: Box<dyn Fn(&str) -> bool + 'a>,
    },
}

/// A tensor's part in the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Trained where the stage says so.
    Weight,
    /// State that is saved but never a parameter: statistics, index tables.
    Buffer,
}

/// One named tensor of a model.
#[derive(Debug)]
pub struct Entry {
    /// Its values.
    pub tensor: Tensor,
    /// Weight or buffer.
    pub role: Role,
}

/// All tensors of one model, in the order in which its modules asked for them.
pub struct Store<'a> {
    origin: Origin<'a>,
    device: Device,
    held_in: Precision,
    inner: RefCell<Inner>,
}

#[derive(Default)]
struct Inner {
    entries: IndexMap<String, Entry>,
    rounded: Vec<String>,
    /// Bytes that were cast since memory was given back.
    cast: usize,
    errors: Vec<Error>,
}

impl<'a> Store<'a> {
    /// An empty store, whose tensors come from `origin` and lie on `device`.
    pub fn new(origin: Origin<'a>, device: Device) -> Self {
        Store {
            origin,
            device,
            held_in: Precision::Fp32,
            inner: RefCell::default(),
        }
    }

    /// For a model that is only asked, in this precision: see [`held`]. Each tensor is cast when it is read, so that at no time more
    /// than one is there twice.
    pub fn held_in(mut self, precision: Precision) -> Self {
        self.held_in = precision;
        self
    }

    /// The scope of all names.
    pub fn root(&self) -> Scope<'_> {
        Scope {
            store: self,
            prefix: String::new(),
        }
    }

    /// The tensors, when every one that was asked for could be had; else all that is wrong with the file at once.
    pub fn finish(self) -> Result<Params> {
        let Inner {
            entries,
            rounded,
            errors,
            ..
        } = self.inner.into_inner();
        crate::error::all(errors)?;
        Ok(Params { entries, rounded })
    }

    fn take(
        &self,
        name: String,
        shape: &[i64],
        kind: Kind,
        role: Role,
        fresh: impl FnOnce() -> Tensor,
    ) -> Tensor {
        let mut inner = self.inner.borrow_mut();
        if let Some(have) = inner.entries.get(&name) {
            // Tied weights are asked for under one name only; a second request is the same tensor.
            return have.tensor.shallow_clone();
        }
        // Never a real allocation: what is wrong is reported by finish(), and no shape from outside costs memory.
        let stand_in = || Tensor::zeros([0i64; 0], (kind, Device::Cpu)).expand(shape, false);
        let tensor = match &self.origin {
            Origin::Shapes => stand_in(),
            Origin::Fresh => fresh().to_device(self.device),
            Origin::File {
                path,
                lookup,
                fresh: may_miss,
            } => match lookup(&name, kind, self.device) {
                Ok(Some(t)) if t.size() == shape => {
                    let t = t.to_device(self.device);
                    match self.held_in == Precision::AmpBf16 && kind == Kind::Float {
                        true => match held(&name, role, &t) {
                            Some(Held { tensor, rounded }) => {
                                if rounded {
                                    inner.rounded.push(name.clone());
                                }
                                inner.cast += tensor.numel() * 4;
                                tensor
                            }
                            None => t.to_kind(kind),
                        },
                        false => t.to_kind(kind),
                    }
                }
                Ok(Some(t)) => {
                    inner.errors.push(Error::checkpoint(
                        path,
                        &name,
                        format!("shape {shape:?}"),
                        format!("shape {:?}", t.size()),
                    ));
                    stand_in()
                }
                Ok(None) if may_miss(&name) => fresh().to_device(self.device),
                Ok(None) => {
                    inner.errors.push(
                        Error::checkpoint(path, &name, format!("a tensor of shape {shape:?}"), "no such tensor")
                            .hint("is this the right checkpoint for the model? --config sets sizes the file does not tell"),
                    );
                    stand_in()
                }
                Err(e) => {
                    inner.errors.push(e);
                    stand_in()
                }
            },
        };
        if inner.cast > GIVE_BACK {
            inner.cast = 0;
            give_back_memory();
        }
        let entry = Entry {
            tensor: tensor.shallow_clone(),
            role,
        };
        inner.entries.insert(name, entry);
        tensor
    }
}

/// A tensor in bf16.
pub(crate) struct Held {
    pub(crate) tensor: Tensor,
    /// Whether it held more than bf16 does.
    pub(crate) rounded: bool,
}

/// How a model that is asked under autocast to bf16 holds a tensor where not as it is: matrices that autocast would cast at every use
/// are bf16 from the beginning. Embeddings are only where they lose nothing, as a published LM's: not only products read them.
pub(crate) fn held(name: &str, role: Role, t: &Tensor) -> Option<Held> {
    let matrix = role == Role::Weight && t.dim() >= 2 && !name.ends_with("relative_position_bias_table");
    if !matrix || !matches!(t.kind(), Kind::Float | Kind::BFloat16) {
        return None;
    }
    if t.kind() == Kind::BFloat16 {
        return Some(Held {
            tensor: t.shallow_clone(),
            rounded: false,
        });
    }
    let tensor = no_grad(|| t.to_kind(Kind::BFloat16));
    let rounded = no_grad(|| !tensor.to_kind(Kind::Float).equal(t));
    (!rounded || !name.ends_with("embed_tokens.weight")).then_some(Held { tensor, rounded })
}

/// A place in the naming tree: `&scope / "attn" / "to_q"`.
#[derive(Clone)]
pub struct Scope<'s> {
    store: &'s Store<'s>,
    prefix: String,
}

impl<'s> std::ops::Div<&str> for &Scope<'s> {
    type Output = Scope<'s>;
    fn div(self, name: &str) -> Scope<'s> {
        Scope {
            store: self.store,
            prefix: self.name(name),
        }
    }
}

impl<'s> std::ops::Div<&str> for Scope<'s> {
    type Output = Scope<'s>;
    fn div(self, name: &str) -> Scope<'s> {
        &self / name
    }
}

impl<'s> std::ops::Div<usize> for &Scope<'s> {
    type Output = Scope<'s>;
    fn div(self, index: usize) -> Scope<'s> {
        self / index.to_string().as_str()
    }
}

impl<'s> std::ops::Div<usize> for Scope<'s> {
    type Output = Scope<'s>;
    fn div(self, index: usize) -> Scope<'s> {
        &self / index
    }
}

impl Scope<'_> {
    fn name(&self, leaf: &str) -> String {
        if self.prefix.is_empty() {
            leaf.to_owned()
        } else {
            format!("{}.{leaf}", self.prefix)
        }
    }

    /// Where its tensors lie.
    pub fn device(&self) -> Device {
        self.store.device
    }

    /// A float32 weight.
    pub(crate) fn weight(&self, leaf: &str, shape: &[i64], init: Init) -> Tensor {
        let make = || {
            let options = (Kind::Float, Device::Cpu);
            match init {
                Init::Const(x) => Tensor::full(shape, x, options),
                Init::FanIn(n) => {
                    let bound = 1.0 / (n.max(1) as f64).sqrt();
                    Tensor::empty(shape, options).uniform_(-bound, bound)
                }
                Init::Normal(std) => Tensor::empty(shape, options).normal_(0.0, std),
                Init::XavierNormal(i, o) => {
                    Tensor::empty(shape, options).normal_(0.0, (2.0 / (i + o).max(1) as f64).sqrt())
                }
            }
        };
        self.store
            .take(self.name(leaf), shape, Kind::Float, Role::Weight, make)
    }

    /// A float32 weight that no forward pass reads (STFT and mel matrices), computed when the file lacks it.
    /// Reference: it counts as trained where its part is, and stands in the optimizer's numbering.
    pub(crate) fn fixed_weight(&self, leaf: &str, shape: &[i64], value: impl FnOnce() -> Tensor) -> Tensor {
        self.store
            .take(self.name(leaf), shape, Kind::Float, Role::Weight, value)
    }

    /// A buffer, computed when the file lacks it.
    pub(crate) fn buffer(
        &self,
        leaf: &str,
        shape: &[i64],
        kind: Kind,
        value: impl FnOnce() -> Tensor,
    ) -> Tensor {
        self.store.take(self.name(leaf), shape, kind, Role::Buffer, value)
    }
}

/// The named tensors of a finished model.
pub struct Params {
    entries: IndexMap<String, Entry>,
    rounded: Vec<String>,
}

impl Params {
    /// Tensors that are held in less than their file does: see [`Store::held_in`].
    pub fn rounded(&self) -> &[String] {
        &self.rounded
    }

    /// Names and tensors, in the order in which the modules asked for them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(k, v)| (k.as_str(), v))
    }

    /// A tensor by its name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.entries.get(name).map(|e| &e.tensor)
    }

    /// Whether there is one of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Number of scalars in weights, buffers left out (as `sum(p.numel() for p in model.parameters())`).
    pub fn count(&self) -> i64 {
        self.count_where(|_| true)
    }

    /// [`Params::count`] of the weights whose name the filter takes.
    pub fn count_where(&self, filter: impl Fn(&str) -> bool) -> i64 {
        self.iter()
            .filter(|(name, e)| e.role != Role::Buffer && filter(name))
            .map(|(_, e)| e.tensor.size().iter().product::<i64>())
            .sum()
    }

    /// Makes exactly the weights that the filter takes require gradients.
    pub fn train_only(&self, filter: impl Fn(&str) -> bool) {
        for (name, e) in self.iter() {
            if e.role == Role::Weight {
                let _ = e.tensor.set_requires_grad(filter(name));
            }
        }
    }

    /// The weights that require gradients, in model order.
    pub fn trainable(&self) -> Vec<(String, Tensor)> {
        self.iter()
            .filter(|(_, e)| e.role == Role::Weight && e.tensor.requires_grad())
            .map(|(n, e)| (n.to_owned(), e.tensor.shallow_clone()))
            .collect()
    }

    /// Every tensor, detached, for saving.
    pub fn tensors(&self) -> Vec<(String, Tensor)> {
        self.iter()
            .map(|(n, e)| (n.to_owned(), e.tensor.detach()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_cost_no_memory_and_count_right() {
        let store = Store::new(Origin::Shapes, Device::Cpu);
        let big = (&store.root() / "a" / 0).weight("weight", &[1 << 20, 1 << 20], Init::FanIn(1));
        assert_eq!(big.stride(), [0, 0]);
        let _ = store.root().buffer("b", &[7], Kind::Int64, || {
            Tensor::zeros([7], (Kind::Int64, Device::Cpu))
        });
        let params = store.finish().unwrap();
        assert_eq!(params.count(), 1 << 40);
        assert!(params.contains("a.0.weight"));
    }

    #[test]
    fn a_file_that_lacks_and_misshapes_is_told_whole() {
        let origin = Origin::File {
            path: "x.safetensors".into(),
            lookup: Box::new(|n, _, _| {
                Ok((n == "here").then(|| Tensor::zeros([3], (Kind::Float, Device::Cpu))))
            }),
            fresh: Box::new(|n| n == "new"),
        };
        let store = Store::new(origin, Device::Cpu);
        let _ = store.root().weight("here", &[4], Init::Const(0.));
        let _ = store.root().weight("gone", &[1 << 40], Init::Const(0.));
        let _ = store.root().weight("new", &[2], Init::Const(5.));
        let e = store.finish().err().unwrap().to_string();
        assert!(e.contains("here: expected shape [4], found shape [3]"), "{e}");
        assert!(
            e.contains("gone: expected a tensor of shape [1099511627776], found no such tensor"),
            "{e}"
        );
        assert!(!e.contains("new"), "{e}");
    }
}
