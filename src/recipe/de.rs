//! From a tree to a typed value: an error bears the path and the place of what it is about, whichever file that came from.

use super::node::{Content, Node};
use super::place::Place;
use crate::error::Error;
use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess,
    Visitor,
};
use serde::forward_to_deserialize_any;
use serde_yaml::Value;

/// What did not fit, where in the value and where in the sources.
#[derive(Debug)]
pub(super) struct Failure {
    message: String,
    path: String,
    place: Option<Place>,
}

impl Failure {
    fn under(mut self, part: &str, place: &Place) -> Self {
        let joint = if self.path.is_empty() || self.path.starts_with('[') {
            ""
        } else {
            "."
        };
        self.path = format!("{part}{joint}{}", self.path);
        self.at(place)
    }

    /// The innermost place stays.
    fn at(mut self, place: &Place) -> Self {
        self.place.get_or_insert_with(|| place.clone());
        self
    }

    /// Where it stands, where that is known.
    pub fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }

    /// Whether something is not there, rather than wrong.
    pub fn is_of_missing(&self) -> bool {
        self.message.starts_with("missing field")
    }

    /// Whether it is about something in what the other is about.
    pub fn is_within(&self, other: &Failure) -> bool {
        self.path.starts_with(&other.path)
    }

    /// As the error that is shown.
    pub fn into_error(self, root: &Node) -> Error {
        // Counted in the whole: where faults before it were taken out, lists have become shorter.
        let path = self.place.as_ref().and_then(|place| root.path_to(place));
        let path = path.unwrap_or(self.path);
        let message = match path.is_empty() {
            true => self.message,
            false => format!("{path}: {}", self.message),
        };
        self.place.as_ref().unwrap_or(&root.place).error(message)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl de::Error for Failure {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Failure {
            message: message.to_string(),
            path: String::new(),
            place: None,
        }
    }
}

/// What a plain scalar means: the rules of serde_yaml, so that there is one set of them.
fn resolve(text: &str) -> Value {
    match serde_yaml::from_str(text) {
        Ok(value @ (Value::Null | Value::Bool(_) | Value::Number(_))) => value,
        _ => Value::String(text.into()),
    }
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = Failure;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match &self.content {
            Content::Scalar { text, plain: false } => visitor.visit_borrowed_str(text),
            Content::Scalar { text, .. } => match resolve(text) {
                Value::Null => visitor.visit_unit(),
                Value::Bool(b) => visitor.visit_bool(b),
                Value::Number(n) => match (n.as_u64(), n.as_i64(), n.as_f64()) {
                    (Some(n), _, _) => visitor.visit_u64(n),
                    (_, Some(n), _) => visitor.visit_i64(n),
                    (_, _, n) => visitor.visit_f64(n.unwrap_or(f64::NAN)),
                },
                _ => visitor.visit_borrowed_str(text),
            },
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
        tuple_struct map struct ignored_any
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
        value
            .map(Some)
            .map_err(|e| e.under(&format!("[{i}]"), &node.place))
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
        let key: StrDeserializer<Failure> = key.as_str().into_deserializer();
        seed.deserialize(key).map(Some).map_err(|e| e.at(place))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Failure> {
        let (key, node) = self
            .value
            .take()
            .ok_or_else(|| de::Error::custom("a value without its key"))?;
        seed.deserialize(node).map_err(|e| e.under(key, &node.place))
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
