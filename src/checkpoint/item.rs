//! What is written: tensors at hand, or tensors of another checkpoint that are read when their turn comes.

use super::archive::Archive;
use crate::error::{Error, Result};
use tch::{Device, Kind, Tensor};

/// Bytes that are copied off the device at once.
const PIECE: usize = 16 << 20;

/// One tensor to write.
pub enum Item<'a> {
    /// A tensor at hand.
    Here(Tensor),
    /// Read from the archive under this name, in the dtype that it has there.
    There(&'a Archive, String),
}

impl From<Tensor> for Item<'_> {
    fn from(tensor: Tensor) -> Self {
        Item::Here(tensor)
    }
}

impl<'a> Item<'a> {
    /// Shape and dtype; else what is there instead of a tensor.
    pub(super) fn info(&self) -> Result<(Vec<i64>, Kind), String> {
        match self {
            Item::Here(t) if t.defined() => Ok((t.size(), t.kind())),
            Item::Here(_) => Err("an undefined one".into()),
            Item::There(archive, name) => archive
                .info(name)
                .map(|i| (i.shape.clone(), i.kind))
                .ok_or_else(|| "none of this name".into()),
        }
    }

    /// Bytes of its elements.
    pub(super) fn len(&self) -> usize {
        self.info().map_or(0, |(shape, kind)| {
            shape.iter().product::<i64>() as usize * kind.elt_size_in_bytes()
        })
    }

    /// Where its elements lie: items with the same place are one tensor under several names.
    pub(super) fn place(&self) -> Option<(usize, usize, Kind)> {
        match self {
            Item::Here(t) if t.defined() && t.is_contiguous() && t.numel() > 0 => {
                Some((t.data_ptr() as usize, t.numel(), t.kind()))
            }
            Item::Here(_) => None,
            Item::There(archive, name) => archive.place(name),
        }
    }

    /// The same item once more: no data is copied.
    pub(super) fn again(&self) -> Self {
        match self {
            Item::Here(t) => Item::Here(t.shallow_clone()),
            Item::There(archive, name) => Item::There(archive, name.clone()),
        }
    }

    /// The tensor itself.
    pub fn tensor(&self) -> Result<Tensor> {
        match self {
            Item::Here(t) => Ok(t.detach()),
            Item::There(archive, name) => archive.get(name),
        }
    }

    /// Its elements in order, as bytes, in pieces.
    pub(crate) fn bytes(&self, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let flat = self.tensor()?.f_contiguous()?.f_view(-1)?;
        let width = flat.kind().elt_size_in_bytes();
        let (n, step) = (flat.numel(), PIECE / width);
        let mut buffer = Vec::new();
        for from in (0..n).step_by(step) {
            let count = step.min(n - from);
            let piece = flat
                .f_narrow(0, from as i64, count as i64)?
                .f_to_device(Device::Cpu)?;
            buffer.resize(count * width, 0);
            piece.f_copy_data_u8(&mut buffer, count)?;
            take(&buffer)?;
        }
        Ok(())
    }
}

/// Tensors at hand as what is written.
pub fn items(tensors: Vec<(String, Tensor)>) -> Vec<(String, Item<'static>)> {
    tensors.into_iter().map(|(n, t)| (n, Item::Here(t))).collect()
}

/// Everything of an archive, under new names; `None` leaves a tensor out.
pub fn items_of<'a>(
    archive: &'a Archive,
    rename: impl Fn(&str) -> Option<String>,
) -> Vec<(String, Item<'a>)> {
    archive
        .names()
        .filter_map(|n| Some((rename(n)?, Item::There(archive, n.to_owned()))))
        .collect()
}

/// Fails where two items have one name.
pub(super) fn distinct(path: &std::path::Path, tensors: &[(String, Item)]) -> Result<()> {
    let mut names = std::collections::HashSet::new();
    match tensors.iter().find(|(name, _)| !names.insert(name)) {
        Some((twice, _)) => Err(Error::checkpoint(path, twice, "each name once", "it twice")),
        None => Ok(()),
    }
}

/// Neighbours that fit into `most` bytes together; a tensor is never divided.
pub(super) fn groups<'s, 'a>(
    tensors: &'s [(String, Item<'a>)],
    most: usize,
) -> Vec<&'s [(String, Item<'a>)]> {
    let (mut groups, mut from, mut size) = (Vec::new(), 0, 0usize);
    for (i, (_, item)) in tensors.iter().enumerate() {
        let own = item.len();
        if i > from && size + own > most {
            groups.push(&tensors[from..i]);
            (from, size) = (i, 0);
        }
        size += own;
    }
    groups.push(&tensors[from..]);
    groups
}
