//! JSON as it lies in a text: what is not escaped there is not copied. Files of a million predictions are read through this, where
//! serde_json's own value would allocate each key and text of each record.

use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Number, Value};
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

/// Up to so many keys of an object a look at each is faster than a table.
const FEW: usize = 32;

/// A value. Two are equal as serde_json's are, but that the order of an object's keys counts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Json<'a> {
    Null,
    Bool(bool),
    Number(Number),
    Text(Text<'a>),
    List(Vec<Json<'a>>),
    /// Each key once, with its last value, where it stood first.
    Object(Vec<(Text<'a>, Json<'a>)>),
}

/// Borrowed is what stands in the text without an escape, and so needs none where it is written.
pub(crate) type Text<'a> = Cow<'a, str>;

impl<'a> Json<'a> {
    /// The value of an object's key.
    pub(crate) fn get(&self, key: &str) -> Option<&Json<'a>> {
        match self {
            Json::Object(all) => all.iter().find(|(own, _)| same(own, key)).map(|(_, v)| v),
            _ => None,
        }
    }

    /// The same, `Null` where there is none.
    pub(crate) fn at(&self, key: &str) -> &Json<'a> {
        self.get(key).unwrap_or(&Json::Null)
    }

    /// Sets an object's key.
    pub(crate) fn set(&mut self, key: &str, value: Json<'a>) {
        if let Json::Object(all) = self {
            match all.iter_mut().find(|(own, _)| own == key) {
                Some((_, old)) => *old = value,
                None => all.push((Cow::Owned(key.to_owned()), value)),
            }
        }
    }

    pub(crate) fn as_str(&self) -> Option<&str> {
        match self {
            Json::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn as_list(&self) -> Option<&[Json<'a>]> {
        match self {
            Json::List(all) => Some(all),
            _ => None,
        }
    }

    pub(crate) fn as_f64(&self) -> Option<f64> {
        match self {
            Json::Number(n) => n.as_f64(),
            _ => None,
        }
    }

    pub(crate) fn is_object(&self) -> bool {
        matches!(self, Json::Object(_))
    }

    /// A text, or a number as one.
    pub(crate) fn text(&self) -> Option<Text<'a>> {
        match self {
            Json::Text(text) => Some(text.clone()),
            Json::Number(n) => Some(Cow::Owned(n.to_string())),
            _ => None,
        }
    }

    /// With copies of all that is borrowed.
    pub(crate) fn into_owned(self) -> Json<'static> {
        let text = |text: Text| Cow::Owned(text.into_owned());
        match self {
            Json::Null => Json::Null,
            Json::Bool(b) => Json::Bool(b),
            Json::Number(n) => Json::Number(n),
            Json::Text(own) => Json::Text(text(own)),
            Json::List(all) => Json::List(all.into_iter().map(Json::into_owned).collect()),
            Json::Object(all) => {
                let all = all.into_iter().map(|(key, v)| (text(key), v.into_owned()));
                Json::Object(all.collect())
            }
        }
    }

    /// As serde_json has it.
    pub(crate) fn to_value(&self) -> Value {
        match self {
            Json::Null => Value::Null,
            Json::Bool(b) => Value::Bool(*b),
            Json::Number(n) => Value::Number(n.clone()),
            Json::Text(text) => Value::String(text.clone().into_owned()),
            Json::List(all) => Value::Array(all.iter().map(Json::to_value).collect()),
            Json::Object(all) => {
                let all = all.iter().map(|(k, v)| (k.clone().into_owned(), v.to_value()));
                Value::Object(all.collect())
            }
        }
    }

    /// Appends it as compact JSON, byte for byte what serde_json writes of its own value.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Json::Null => out.extend(b"null"),
            Json::Bool(true) => out.extend(b"true"),
            Json::Bool(false) => out.extend(b"false"),
            Json::Number(n) => out.extend(n.to_string().bytes()),
            Json::Text(text) => write_text(text, out),
            Json::List(all) => {
                out.push(b'[');
                for (i, value) in all.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    value.write(out);
                }
                out.push(b']');
            }
            Json::Object(all) => write_object(all, |_| true, out),
        }
    }

    /// The same of an object, without the keys that are not wanted.
    pub(crate) fn write_of(&self, wanted: impl Fn(&str) -> bool, out: &mut Vec<u8>) {
        match self {
            Json::Object(all) => write_object(all, wanted, out),
            other => other.write(out),
        }
    }
}

fn write_object(all: &[(Text, Json)], wanted: impl Fn(&str) -> bool, out: &mut Vec<u8>) {
    out.push(b'{');
    let mut first = true;
    for (key, value) in all.iter().filter(|(key, _)| wanted(key)) {
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        write_text(key, out);
        out.push(b':');
        value.write(out);
    }
    out.push(b'}');
}

fn write_text(text: &Text, out: &mut Vec<u8>) {
    match text {
        Cow::Borrowed(text) => {
            out.push(b'"');
            out.extend(text.as_bytes());
            out.push(b'"');
        }
        Cow::Owned(text) => out.extend(Value::String(text.clone()).to_string().bytes()),
    }
}

/// Copies: nothing says that its texts need no escape.
impl From<&Value> for Json<'static> {
    fn from(value: &Value) -> Self {
        match value {
            Value::Null => Json::Null,
            Value::Bool(b) => Json::Bool(*b),
            Value::Number(n) => Json::Number(n.clone()),
            Value::String(text) => Json::Text(Cow::Owned(text.clone())),
            Value::Array(all) => Json::List(all.iter().map(Json::from).collect()),
            Value::Object(all) => {
                let all = all.iter().map(|(k, v)| (Cow::Owned(k.clone()), Json::from(v)));
                Json::Object(all.collect())
            }
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Json<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Any)
    }
}

/// Whether two short texts are one; most are not, by their length or last byte.
pub(crate) fn same(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    one.len() == other.len() && one.last() == other.last() && one == other
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("any valid JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json<'de>, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, b: bool) -> Result<Json<'de>, E> {
        Ok(Json::Bool(b))
    }

    fn visit_i64<E>(self, n: i64) -> Result<Json<'de>, E> {
        Ok(Json::Number(n.into()))
    }

    fn visit_u64<E>(self, n: u64) -> Result<Json<'de>, E> {
        Ok(Json::Number(n.into()))
    }

    fn visit_f64<E>(self, n: f64) -> Result<Json<'de>, E> {
        Ok(Number::from_f64(n).map_or(Json::Null, Json::Number))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_string<E>(self, text: String) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Owned(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json<'de>, A::Error> {
        let mut all = Vec::new();
        while let Some(value) = seq.next_element()? {
            all.push(value);
        }
        Ok(Json::List(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json<'de>, A::Error> {
        // A record has about so many.
        let mut all: Vec<(Text, Json)> = Vec::with_capacity(16);
        let mut places: HashMap<Text, usize> = HashMap::new();
        while let Some(key) = map.next_key_seed(Key)? {
            let value = map.next_value()?;
            let before = match all.len() {
                0..FEW => all.iter().position(|(own, _)| same(own, &key)),
                FEW => {
                    places = all
                        .iter()
                        .enumerate()
                        .map(|(i, (own, _))| (own.clone(), i))
                        .collect();
                    places.get(&key).copied()
                }
                _ => places.get(&key).copied(),
            };
            match before {
                Some(at) => all[at].1 = value,
                None => {
                    if !places.is_empty() {
                        places.insert(key.clone(), all.len());
                    }
                    all.push((key, value));
                }
            }
        }
        Ok(Json::Object(all))
    }
}

struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Text<'de>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Text<'de>, D::Error> {
        from.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Text<'de>, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Text<'de>, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

/// The object at the beginning of a text, and where it ends: of texts, lists of texts and single values, as records are, which is read
/// with one look at each byte. None of any other, be it right or wrong: serde_json says then what it is.
pub(crate) fn record(text: &str) -> Option<(Json<'_>, usize)> {
    let mut at = At { text, place: 0 };
    at.sign(b'{')?;
    let mut all: Vec<(Text, Json)> = Vec::with_capacity(16);
    loop {
        let key = at.text()?;
        if all.len() >= FEW || all.iter().any(|(own, _)| same(own, &key)) {
            return None;
        }
        at.sign(b':')?;
        all.push((key, at.value()?));
        match at.next()? {
            b',' => {}
            b'}' => return Some((Json::Object(all), at.place)),
            _ => return None,
        }
    }
}

/// A place in a text.
struct At<'a> {
    text: &'a str,
    place: usize,
}

impl<'a> At<'a> {
    /// Of the next byte that is no white space.
    fn peek(&mut self) -> Option<u8> {
        let rest = self.text.as_bytes().get(self.place..)?;
        let space = rest
            .iter()
            .take_while(|b| matches!(b, b' ' | b'\n' | b'\r' | b'\t'));
        self.place += space.count();
        self.text.as_bytes().get(self.place).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let sign = self.peek()?;
        self.place += 1;
        Some(sign)
    }

    fn sign(&mut self, wanted: u8) -> Option<()> {
        (self.next()? == wanted).then_some(())
    }

    fn value(&mut self) -> Option<Json<'a>> {
        match self.peek()? {
            b'"' => self.text().map(Json::Text),
            b'[' => self.list(),
            b'{' => None,
            _ => {
                let rest = self.text.as_bytes().get(self.place..)?;
                let end = rest
                    .iter()
                    .position(|b| matches!(b, b',' | b'}' | b' ' | b'\n' | b'\r' | b'\t'));
                let own = self.text.get(self.place..self.place + end?)?;
                self.place += own.len();
                serde_json::from_str(own).ok()
            }
        }
    }

    /// Of texts.
    fn list(&mut self) -> Option<Json<'a>> {
        self.sign(b'[')?;
        let mut all = Vec::with_capacity(4);
        loop {
            all.push(Json::Text(self.text()?));
            match self.next()? {
                b',' => {}
                b']' => return Some(Json::List(all)),
                _ => return None,
            }
        }
    }

    fn text(&mut self) -> Option<Text<'a>> {
        self.sign(b'"')?;
        let (start, mut escaped) = (self.place, false);
        loop {
            self.place += until_special(self.text.as_bytes().get(self.place..)?);
            match self.text.as_bytes().get(self.place)? {
                b'"' => break,
                b'\\' => {
                    escaped = true;
                    self.place += 2;
                }
                _ => return None,
            }
        }
        self.place += 1;
        match escaped {
            false => self.text.get(start..self.place - 1).map(Cow::Borrowed),
            true => serde_json::from_str(self.text.get(start - 1..self.place)?)
                .ok()
                .map(Cow::Owned),
        }
    }
}

/// How many bytes stand before the first that is a quotation mark, a backslash or a control character, eight at a time.
fn until_special(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    let special = |b: &u8| matches!(b, b'"' | b'\\' | ..b' ');
    let (words, _) = bytes.as_chunks::<8>();
    for (i, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        // The lowest bit that this sets is that of the first zero.
        let zero = |word: u64| word.wrapping_sub(ONES) & !word;
        let found = zero(word ^ (ONES * 0x22))
            | zero(word ^ (ONES * 0x5c))
            | (word.wrapping_sub(ONES * 0x20) & !word);
        let found = found & HIGH;
        if found != 0 {
            return 8 * i + found.trailing_zeros() as usize / 8;
        }
    }
    let from = 8 * words.len();
    let rest = bytes[from..].iter().position(special);
    rest.map_or(bytes.len(), |at| from + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXTS: [&str; 9] = [
        r#"{"a": 1, "b": [1.0, -2, 1e5, 3.25e-7, 18446744073709551615], "c": {"d": null, "e": [true, false]}}"#,
        r#"{"a": 1, "b": 2, "a": {"twice": 1}}"#,
        r#"{"escaped \"key\"": "line\nline \u00e9 \ud83d\ude00 \/ \u001f\\", "plain": "é 狗"}"#,
        "[]",
        "{}",
        "\"\"",
        " [ {} , [ ] , \"x\" ] ",
        r#"{"n": 1e400}"#,
        "1e-400",
    ];

    #[test]
    fn it_reads_and_writes_as_serde_json_does() {
        let many = (0..100)
            .map(|i| format!("\"k{}\": {i}", i % 60))
            .collect::<Vec<_>>();
        let many = format!("{{{}}}", many.join(","));
        for text in TEXTS.iter().copied().chain([many.as_str()]) {
            let theirs: Result<Value, _> = serde_json::from_str(text);
            let ours: Result<Json, _> = serde_json::from_str(text);
            let (Ok(theirs), Ok(ours)) = (&theirs, &ours) else {
                assert!(theirs.is_err() && ours.is_err(), "{text}");
                continue;
            };
            assert_eq!(ours.to_value(), *theirs);
            assert_eq!(Json::from(theirs), *ours);
            for json in [ours.clone(), ours.clone().into_owned()] {
                let mut out = Vec::new();
                json.write(&mut out);
                assert_eq!(String::from_utf8(out).unwrap(), theirs.to_string());
            }
        }
    }

    /// Each text cut off and changed at each of its bytes: what is read is what serde_json reads.
    #[test]
    fn records_are_read_as_serde_json_reads_them() {
        let texts = [
            r#"{"id": "a b", "choices": ["x", "a longer text é"], "n": -1.5e3, "b": true, "z":null}"#,
            r#"{"a":"\u00e9\n\"","b":["\\"],"c":"x" , "d": 7}, {"#,
            r#"{"a": "1", "a": "2"}"#,
            r#"{"a": [1], "b": []}"#,
            r#"{"a": {"b": "c"}}"#,
            "{}",
        ];
        let mut found = 0;
        let mut look = |text: &str| {
            let Some((own, end)) = record(text) else {
                return;
            };
            let mut stream = serde_json::Deserializer::from_str(text).into_iter::<Json>();
            let theirs = stream.next().and_then(Result::ok);
            assert_eq!(
                (Some(&own), end),
                (theirs.as_ref(), stream.byte_offset()),
                "{text:?}"
            );
            for value in [&own, &theirs.unwrap()] {
                let mut out = Vec::new();
                value.write(&mut out);
                assert_eq!(String::from_utf8(out).unwrap(), own.to_value().to_string());
            }
            found += 1;
        };
        for text in texts {
            look(text);
            for at in (0..text.len()).filter(|at| text.is_char_boundary(*at)) {
                look(&text[..at]);
                for other in [
                    "\"", "\\", "\u{1}", "\n", "{", "}", "[", "]", ",", ":", "0", "é", " ", "-", "\u{7f}",
                    "\u{80}",
                ] {
                    look(&format!("{}{other}{}", &text[..at], &text[at..]));
                    let behind = text[at..].chars().next().map_or(0, char::len_utf8);
                    look(&format!("{}{other}{}", &text[..at], &text[at + behind..]));
                }
            }
        }
        assert!(found > 1_000, "{found}");
    }

    #[test]
    fn what_is_not_escaped_is_borrowed() {
        let json: Json = serde_json::from_str(r#"{"a": "plain", "b": "a\tb"}"#).unwrap();
        let borrowed = |key| matches!(json.get(key), Some(Json::Text(Cow::Borrowed(_))));
        assert!(borrowed("a") && !borrowed("b"));
        assert_eq!(json.at("b").as_str(), Some("a\tb"));
        assert_eq!(json.at("c"), &Json::Null);
        let mut out = Vec::new();
        json.write_of(|key| key != "a", &mut out);
        assert_eq!(out, br#"{"b":"a\tb"}"#);
    }
}
