//! Writes the pickles that `torch.save` makes: protocol 2, which every PyTorch reads with `weights_only=True`.

use super::Plain;

/// A pickle in the making. Dictionaries are opened and closed; values go between.
pub(in crate::checkpoint) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn new() -> Self {
        // PROTO 2
        Writer(vec![0x80, 2])
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.0.push(b'.');
        self.0
    }

    /// EMPTY_DICT MARK
    pub(crate) fn open_dict(&mut self) {
        self.0.extend(b"}(");
    }

    /// SETITEMS
    pub(crate) fn close_dict(&mut self) {
        self.0.push(b'u');
    }

    /// EMPTY_LIST MARK
    pub(crate) fn open_list(&mut self) {
        self.0.extend(b"](");
    }

    /// APPENDS
    pub(crate) fn close_list(&mut self) {
        self.0.push(b'e');
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.0.push(b'X');
        self.0.extend((text.len() as u32).to_le_bytes());
        self.0.extend(text.as_bytes());
    }

    /// BININT, or LONG1 where it needs more than 32 bits.
    pub(crate) fn int(&mut self, value: i64) {
        match i32::try_from(value) {
            Ok(small) => {
                self.0.push(b'J');
                self.0.extend(small.to_le_bytes());
            }
            Err(_) => {
                self.0.extend([0x8a, 8]);
                self.0.extend(value.to_le_bytes());
            }
        }
    }

    pub(crate) fn plain(&mut self, value: &Plain) {
        match value {
            Plain::None => self.0.push(b'N'),
            Plain::Bool(b) => self.0.push(if *b { 0x88 } else { 0x89 }),
            Plain::Int(i) => self.int(*i),
            Plain::Float(x) => {
                self.0.push(b'G');
                self.0.extend(x.to_be_bytes());
            }
            Plain::Text(t) => self.text(t),
            Plain::List(items) => {
                self.open_list();
                items.iter().for_each(|i| self.plain(i));
                self.close_list();
            }
        }
    }

    /// A contiguous tensor at the start of the storage `key` of `elements` elements.
    pub(crate) fn tensor(&mut self, class: &str, key: &str, shape: &[i64], elements: i64) {
        self.global("torch._utils", "_rebuild_tensor_v2");
        self.0.extend(b"((");
        self.text("storage");
        self.global("torch", class);
        self.text(key);
        self.text("cpu");
        self.int(elements);
        // TUPLE BINPERSID
        self.0.extend(b"tQ");
        self.int(0);
        self.sizes(shape);
        let strides: Vec<i64> = (0..shape.len())
            .map(|d| shape[d + 1..].iter().map(|n| (*n).max(1)).product())
            .collect();
        self.sizes(&strides);
        // requires_grad, backward hooks: NEWFALSE, an empty OrderedDict; TUPLE REDUCE
        self.0.push(0x89);
        self.global("collections", "OrderedDict");
        self.0.extend(b")RtR");
    }

    fn sizes(&mut self, sizes: &[i64]) {
        self.0.push(b'(');
        sizes.iter().for_each(|n| self.int(*n));
        self.0.push(b't');
    }

    fn global(&mut self, module: &str, name: &str) {
        self.0.extend(format!("c{module}\n{name}\n").bytes());
    }
}
