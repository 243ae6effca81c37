//! Writes what `torch.load(weights_only=True)` opens, with `mmap=True` too: the zip form, nothing compressed.

use super::archive::elements;
use super::item::Item;
use super::pickle::{Plain, Writer};
use super::torch_file::class;
use crate::error::{Error, Result};
use crate::fsutil::Out;
use indexmap::IndexMap;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use tch::Kind;
use zip::write::SimpleFileOptions;
use zip::ZipWriter;

/// Storages start at a multiple of this, as PyTorch's own.
const ALIGNMENT: u16 = 64;
/// Entries from this size on need the zip format's 64-bit fields.
const LARGE: usize = u32::MAX as usize;

/// A dictionary's key.
pub enum Key {
    /// A string, as in a state dict.
    Text(String),
    /// An integer, as the optimizer's numbers.
    Int(i64),
}

impl From<String> for Key {
    fn from(text: String) -> Self {
        Key::Text(text)
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Key::Text(text.into())
    }
}

/// What a file holds: dictionaries of tensors and plain values.
pub enum Node<'a> {
    /// A plain value.
    Plain(Plain),
    /// A tensor.
    Tensor(Item<'a>),
    /// A dictionary, in this order.
    Dict(Vec<(Key, Node<'a>)>),
    /// A list whose elements are no plain values.
    List(Vec<Node<'a>>),
}

impl<'a> Node<'a> {
    /// A dictionary with text keys.
    pub fn dict(entries: impl IntoIterator<Item = (impl Into<Key>, Node<'a>)>) -> Self {
        Node::Dict(entries.into_iter().map(|(k, v)| (k.into(), v)).collect())
    }

    /// Named tensors.
    pub fn tensors(items: Vec<(String, Item<'a>)>) -> Self {
        Node::Dict(
            items
                .into_iter()
                .map(|(n, t)| (Key::Text(n), Node::Tensor(t)))
                .collect(),
        )
    }
}

/// Writes `root` as `torch.save` would, atomically; each storage with its CRC-32.
///
/// # Errors
/// A dtype that PyTorch has no storage for, a disk that is full.
pub fn write(path: &Path, root: &Node) -> Result<()> {
    let mut pickle = Writer::new();
    let mut storages = IndexMap::new();
    put(path, "", root, &mut pickle, &mut storages)?;
    let text = pickle.finish();
    crate::fsutil::write_atomic(path, |out| {
        let io = |e: std::io::Error| Error::io(path, e);
        let broken = |e: zip::result::ZipError| Error::io(path, e.into());
        let mut zip = ZipWriter::new(UntilItFails::new(out));
        let options = SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Stored)
            .with_alignment(ALIGNMENT);
        for (name, bytes) in [("data.pkl", &text[..]), ("byteorder", b"little")] {
            zip.start_file(format!("archive/{name}"), options)
                .map_err(broken)?;
            zip.write_all(bytes).map_err(io)?;
        }
        for (key, item) in storages.values().enumerate() {
            let options = options.large_file(item.len() >= LARGE);
            zip.start_file(format!("archive/data/{key}"), options)
                .map_err(broken)?;
            item.bytes(|piece| zip.write_all(piece).map_err(io))?;
        }
        zip.start_file("archive/version", options).map_err(broken)?;
        zip.write_all(b"3\n").map_err(io)?;
        zip.finish().map_err(broken)?;
        Ok(())
    })
}

/// Once something could not be written, takes everything and keeps nothing: the zip writer ends its file when it is dropped,
/// and would print that this failed before the error itself is told.
struct UntilItFails<'o> {
    out: &'o mut dyn Out,
    failed: bool,
    /// Where the next byte goes: the zip writer counts by it.
    at: u64,
}

impl<'o> UntilItFails<'o> {
    fn new(out: &'o mut dyn Out) -> Self {
        UntilItFails {
            out,
            failed: false,
            at: 0,
        }
    }

    fn noted<T>(&mut self, result: std::io::Result<T>) -> std::io::Result<T> {
        self.failed |= result.is_err();
        result
    }
}

impl Write for UntilItFails<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = match self.failed {
            true => bytes.len(),
            false => {
                let result = self.out.write(bytes);
                self.noted(result)?
            }
        };
        self.at += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if self.failed {
            return Ok(());
        }
        let result = self.out.flush();
        self.noted(result)
    }
}

impl Seek for UntilItFails<'_> {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        self.at = match (self.failed, to) {
            (false, to) => {
                let result = self.out.seek(to);
                self.noted(result)?
            }
            (true, SeekFrom::Start(n)) => n,
            (true, SeekFrom::Current(d)) => self.at.saturating_add_signed(d),
            (true, SeekFrom::End(_)) => self.at,
        };
        Ok(self.at)
    }
}

#[derive(PartialEq, Eq, Hash)]
enum Place {
    At((usize, usize, Kind)),
    Own(usize),
}

fn put<'n>(
    path: &Path,
    name: &str,
    node: &'n Node,
    pickle: &mut Writer,
    storages: &mut IndexMap<Place, &'n Item<'n>>,
) -> Result<()> {
    match node {
        Node::Plain(value) => pickle.plain(value),
        Node::Tensor(item) => {
            let (shape, kind) = item
                .info()
                .map_err(|found| Error::checkpoint(path, name, "a tensor", found))?;
            let class = class(kind).ok_or_else(|| {
                Error::checkpoint(path, name, "a dtype with a storage", format!("{kind:?}"))
            })?;
            let n = elements(&shape).unwrap_or(0) as i64;
            // Tied weights are one storage, as torch.save writes them.
            let place = item.place().map_or(Place::Own(storages.len()), Place::At);
            let entry = storages.entry(place);
            pickle.tensor(class, &entry.index().to_string(), &shape, n);
            entry.or_insert(item);
        }
        Node::Dict(entries) => {
            pickle.open_dict();
            for (key, value) in entries {
                let below = match key {
                    Key::Text(text) => {
                        pickle.text(text);
                        text.clone()
                    }
                    Key::Int(i) => {
                        pickle.int(*i);
                        i.to_string()
                    }
                };
                put(path, &format!("{name}.{below}"), value, pickle, storages)?;
            }
            pickle.close_dict();
        }
        Node::List(items) => {
            pickle.open_list();
            for (i, value) in items.iter().enumerate() {
                put(path, &format!("{name}.{i}"), value, pickle, storages)?;
            }
            pickle.close_list();
        }
    }
    Ok(())
}
