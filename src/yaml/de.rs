//! From a tree to a typed value: an error bears the path and the place of what it is about, whichever file that came from.

use super::node::{Content, Node, Step};
use super::place::Place;
use super::scalar;
use crate::error::Error;
use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_yaml::Value;

/// What did not fit, where in the value and where in the sources.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    hint: Option<String>,
    /// What the value must be, in words, where it is something else.
    wanted: Option<&'static str>,
    /// The key that is not there.
    missing: Option<&'static str>,
    /// The keys or words that would have been known.
    known: &'static [&'static str],
    /// The innermost step first, while it is on its way out.
    path: Vec<Step>,
    place: Option<Place>,
}

impl Failure {
    fn new(message: String) -> Self {
        Failure {
            message,
            hint: None,
            wanted: None,
            missing: None,
            known: &[],
            path: Vec::new(),
            place: None,
        }
    }

    fn under(mut self, step: Step, place: &Place) -> Self {
        self.path.push(step);
        self.at(place)
    }

    /// The innermost place stays.
    fn at(mut self, place: &Place) -> Self {
        self.place.get_or_insert_with(|| place.clone());
        self
    }

    /// Says what was probably meant by a scalar.
    fn spelt(mut self, text: &str, plain: bool) -> Self {
        if let Some(wanted) = self.wanted.take() {
            self.hint = scalar::meant(text, plain, wanted);
        }
        self
    }

    /// From the root to what it is about: of a missing key, to the mapping that lacks it.
    pub(crate) fn path(&self) -> Vec<Step> {
        self.path.iter().rev().cloned().collect()
    }

    /// Where it stands, where that is known.
    pub(crate) fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }

    /// Whether a list was wanted in the place of something else.
    pub(crate) fn wants_list(&self) -> bool {
        self.wanted == Some(scalar::LIST)
    }

    /// The key that is not there.
    pub(crate) fn missing(&self) -> Option<&'static str> {
        self.missing
    }

    /// The key that an unknown one was perhaps meant to be.
    pub(crate) fn nearest_key(&self) -> Option<&'static str> {
        let Some(Step::Key(key)) = self.path.first() else {
            return None;
        };
        crate::error::nearest(key, self.known.iter().copied())
    }

    /// As the error that is shown.
    pub(crate) fn into_error(self, root: &Node) -> Error {
        // Counted in the whole: where faults before it were taken out, lists have become shorter.
        let path = self.place.as_ref().and_then(|place| root.path_to(place));
        let path = path.unwrap_or_else(|| written(&self.path()));
        let message = match path.is_empty() {
            true => self.message,
            false => format!("{path}: {}", self.message),
        };
        let error = self.place.as_ref().unwrap_or(&root.place).error(message);
        match self.hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

/// `stages[0].optim`.
fn written(path: &[Step]) -> String {
    let mut out = String::new();
    for step in path {
        match step {
            Step::Key(key) if out.is_empty() => out.push_str(key),
            Step::Key(key) => out.push_str(&format!(".{key}")),
            Step::Index(i) => out.push_str(&format!("[{i}]")),
        }
    }
    out
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// Rust's names of types in words.
fn in_words(expected: &str) -> Option<&'static str> {
    Some(match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => scalar::WHOLE,
        "i8" | "i16" | "i32" | "i64" | "isize" => scalar::SIGNED,
        "f32" | "f64" => scalar::NUMBER,
        "a boolean" => scalar::FLAG,
        "a sequence" => scalar::LIST,
        "a map" => scalar::MAPPING,
        _ if expected.starts_with("struct ") => scalar::MAPPING,
        _ => return None,
    })
}

fn found(unexpected: &Unexpected) -> String {
    match unexpected {
        Unexpected::Unit | Unexpected::Option => "nothing".into(),
        Unexpected::Seq => "a list".into(),
        Unexpected::Map => "a mapping".into(),
        other => other.to_string(),
    }
}

impl de::Error for Failure {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Failure::new(message.to_string())
    }

    fn invalid_type(unexpected: Unexpected, expected: &dyn de::Expected) -> Self {
        let expected = expected.to_string();
        let wanted = in_words(&expected);
        let words = wanted.unwrap_or(&expected);
        let mut failure = Failure::new(format!("invalid type: {}, expected {words}", found(&unexpected)));
        failure.wanted = wanted;
        failure
    }

    fn invalid_value(unexpected: Unexpected, expected: &dyn de::Expected) -> Self {
        let expected = expected.to_string();
        let words = in_words(&expected).unwrap_or(&expected);
        Failure::new(format!("invalid value: {}, expected {words}", found(&unexpected)))
    }

    fn missing_field(field: &'static str) -> Self {
        let mut failure = Failure::new(format!("missing field `{field}`"));
        failure.missing = Some(field);
        failure
    }

    fn unknown_field(field: &str, known: &'static [&'static str]) -> Self {
        let message = match known.is_empty() {
            true => format!("unknown field `{field}`"),
            false => format!("unknown field `{field}`, expected one of {}", quoted(known)),
        };
        let mut failure = Failure::new(message);
        failure.known = known;
        failure
    }
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = Failure;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match &self.content {
            Content::Scalar { text, plain: false } => visitor
                .visit_borrowed_str::<Failure>(text)
                .map_err(|e| e.spelt(text, false)),
            Content::Scalar { text, .. } => match scalar::plain(text) {
                Value::Null => visitor.visit_unit(),
                Value::Bool(b) => visitor.visit_bool(b),
                Value::Number(n) => match (n.as_u64(), n.as_i64(), n.as_f64()) {
                    (Some(n), _, _) => visitor.visit_u64(n),
                    (_, Some(n), _) => visitor.visit_i64(n),
                    (_, _, n) => visitor.visit_f64(n.unwrap_or(f64::NAN)),
                },
                _ => visitor.visit_borrowed_str(text),
            }
            .map_err(|e: Failure| e.spelt(text, true)),
            Content::List(list) => visitor.visit_seq(Elements {
                rest: list.iter().enumerate(),
            }),
            Content::Map(map) => visitor.visit_map(Fields {
                rest: map.iter(),
                value: None,
            }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        if self.is_null() {
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    /// A name may look like a number.
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.text() {
            Some(text) => visitor.visit_borrowed_str(text),
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_str(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        visitor.visit_newtype_struct(self)
    }

    /// Serde's own takes a list for the fields in their order.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        if !matches!(self.content, Content::List(_)) {
            return self.deserialize_any(visitor);
        }
        let message = format!("invalid type: a list, expected {}", scalar::MAPPING);
        let mut failure = Failure::new(message);
        let first = &fields[..fields.len().min(3)];
        failure.hint = Some(format!("each value stands behind its key: {}, …", quoted(first)));
        Err(failure)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        match self.text() {
            Some(text) => visitor.visit_enum(Variant(text)),
            None => Err(de::Error::custom(format!("expected one of {}", quoted(variants)))),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct seq tuple
        tuple_struct map ignored_any
    }
}

fn quoted(names: &[&str]) -> String {
    names
        .iter()
        .map(|n| format!("`{n}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

struct Elements<'de> {
    rest: std::iter::Enumerate<std::slice::Iter<'de, Node>>,
}

impl<'de> SeqAccess<'de> for Elements<'de> {
    type Error = Failure;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Failure> {
        let Some((i, node)) = self.rest.next() else {
            return Ok(None);
        };
        let value = seed.deserialize(node);
        value.map(Some).map_err(|e| e.under(Step::Index(i), &node.place))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
}

struct Fields<'de> {
    rest: indexmap::map::Iter<'de, String, (Place, Node)>,
    value: Option<(&'de str, &'de Node)>,
}

impl<'de> MapAccess<'de> for Fields<'de> {
    type Error = Failure;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Failure> {
        let Some((key, (place, node))) = self.rest.next() else {
            return Ok(None);
        };
        self.value = Some((key, node));
        let name: StrDeserializer<Failure> = key.as_str().into_deserializer();
        seed.deserialize(name)
            .map(Some)
            .map_err(|e| e.under(Step::Key(key.clone()), place))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Failure> {
        let (key, node) = self
            .value
            .take()
            .ok_or_else(|| de::Error::custom("a value without its key"))?;
        seed.deserialize(node)
            .map_err(|e| e.under(Step::Key(key.to_owned()), &node.place))
    }
}

struct Variant<'de>(&'de str);

impl<'de> EnumAccess<'de> for Variant<'de> {
    type Error = Failure;
    type Variant = Self;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self), Failure> {
        let name: StrDeserializer<Failure> = self.0.into_deserializer();
        seed.deserialize(name).map(|v| (v, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'de> {
    type Error = Failure;

    fn unit_variant(self) -> Result<(), Failure> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, Failure> {
        Err(de::Error::custom(format!("`{}` takes no plain name", self.0)))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Failure> {
        Err(de::Error::custom(format!("`{}` takes no plain name", self.0)))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, Failure> {
        Err(de::Error::custom(format!("`{}` takes no plain name", self.0)))
    }
}
