//! What a plain scalar means, and what was probably meant by one that means something else elsewhere.

use serde_yaml::{Number, Value};

/// A plain scalar by YAML 1.2's core schema, with `0b` beside `0x` and `0o`.
pub(crate) fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => number(text).map_or_else(|| Value::String(text.into()), Value::Number),
    }
}

/// A number as it may be written plain.
pub(crate) fn number(text: &str) -> Option<Number> {
    match text {
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Some(f64::INFINITY.into()),
        "-.inf" | "-.Inf" | "-.INF" => return Some(f64::NEG_INFINITY.into()),
        ".nan" | ".NaN" | ".NAN" => return Some(f64::NAN.into()),
        _ => {}
    }
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if let Some(rest) = digits.strip_prefix(prefix) {
            // `from_str_radix` takes a sign.
            let good = rest.starts_with(|c: char| c.is_digit(radix));
            return whole(rest, radix, negative).filter(|_| good);
        }
    }
    if digits.bytes().all(|b| b.is_ascii_digit()) {
        // 010 is 8 in YAML 1.1 and 10 in 1.2.
        if digits.len() > 1 && digits.starts_with('0') {
            return None;
        }
        if let Some(n) = whole(digits, 10, negative) {
            return Some(n);
        }
    }
    if !digits.bytes().any(|b| b.is_ascii_digit()) {
        return None;
    }
    let float: f64 = text.parse().ok()?;
    float.is_finite().then(|| float.into())
}

fn whole(digits: &str, radix: u32, negative: bool) -> Option<Number> {
    match negative {
        false => u64::from_str_radix(digits, radix).ok().map(Number::from),
        true => i64::from_str_radix(&format!("-{digits}"), radix)
            .ok()
            .map(Number::from),
    }
}

/// What a value must be, in words.
pub(crate) const WHOLE: &str = "a whole number, 0 or more";
pub(crate) const SIGNED: &str = "a whole number";
pub(crate) const NUMBER: &str = "a number";
pub(crate) const FLAG: &str = "true or false";
pub(crate) const LIST: &str = "a list";
pub(crate) const MAPPING: &str = "a mapping of keys";

/// What to write in the place of a scalar that is not what it must be.
pub(crate) fn meant(text: &str, is_plain: bool, wanted: &str) -> Option<String> {
    let text = text.trim();
    match wanted {
        FLAG => flag(text, is_plain),
        WHOLE | SIGNED | NUMBER => digits(text, is_plain, wanted),
        LIST => Some(format!("a list stands in brackets: [{text}]")),
        MAPPING if text.contains(':') => Some("a blank stands behind the colon of a key".into()),
        _ => None,
    }
}

fn flag(text: &str, is_plain: bool) -> Option<String> {
    let word = match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "y" | "1" => "true",
        "false" | "no" | "off" | "n" | "0" => "false",
        _ => return None,
    };
    Some(match is_plain {
        true => format!("write {word}"),
        false => format!("write {word}, without quotation marks"),
    })
}

fn digits(text: &str, is_plain: bool, wanted: &str) -> Option<String> {
    if let Some(n) = number(text) {
        let float = n.as_f64().filter(|_| n.is_f64());
        return match (is_plain, float) {
            (false, _) => Some(format!(
                "in quotation marks it is a text: write {text} without them"
            )),
            (true, Some(f)) if wanted != NUMBER && f.fract() == 0.0 && f.abs() < 1e15 => {
                Some(format!("write {f}, without a point or an exponent"))
            }
            _ => None,
        };
    }
    let bare = text.trim_start_matches(['+', '-']);
    if bare.len() > 1 && bare.starts_with('0') && bare.bytes().all(|b| b.is_ascii_digit()) {
        let decimal = bare.trim_start_matches('0');
        let decimal = if decimal.is_empty() { "0" } else { decimal };
        let octal = u64::from_str_radix(bare, 8).map(|n| format!(", or {n} if octal was meant"));
        return Some(format!(
            "a leading zero makes it octal for some readers: write {decimal}{}",
            octal.unwrap_or_default()
        ));
    }
    let is_number = |t: &str| number(t).is_some();
    let without = |c: char| text.replace(c, "");
    if text.contains('_') && is_number(&without('_')) {
        return Some(format!("write {}: digits stand together", without('_')));
    }
    if text.contains(',') {
        let point = text.replace(',', ".");
        return match (
            is_number(&without(',')),
            text.matches(',').count() == 1 && is_number(&point),
        ) {
            (true, true) => Some(format!("write {} or {point}: a comma is neither", without(','))),
            (true, false) => Some(format!("write {}: digits stand together", without(','))),
            (false, true) => Some(format!("write {point}: the decimal point is a point")),
            (false, false) => None,
        };
    }
    let share = text.strip_suffix('%').map(str::trim_end)?;
    let share = number(share)?.as_f64()? / 100.0;
    Some(format!("write {share}: a share is a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_mean_what_the_core_schema_says() {
        for (text, value) in [
            ("12", Value::from(12)),
            ("-0x10", Value::from(-16)),
            ("0o10", Value::from(8)),
            ("18446744073709551615", Value::from(u64::MAX)),
            ("18446744073709551616", Value::from(18446744073709551616.0)),
            ("1e-4", Value::from(1e-4)),
            ("1.e-4", Value::from(1e-4)),
            ("1E-4", Value::from(1e-4)),
            (".5", Value::from(0.5)),
            ("+.5", Value::from(0.5)),
            ("-.inf", Value::from(f64::NEG_INFINITY)),
            ("TRUE", Value::from(true)),
            ("~", Value::Null),
        ] {
            assert_eq!(plain(text), value, "{text}");
        }
        // What some readers take for numbers or truth, and Rust for numbers.
        for text in [
            "010", "1_000", "yes", "0x", "0x+1", "inf", "nan", "Infinity", ".", "-", "+-1", "1e400", "1:30",
            "0o9",
        ] {
            assert_eq!(plain(text), Value::from(text), "{text}");
        }
    }

    #[test]
    fn what_was_meant_is_said() {
        for (text, is_plain, wanted, said) in [
            ("yes", true, FLAG, "write true"),
            ("Off", true, FLAG, "write false"),
            ("true", false, FLAG, "write true, without quotation marks"),
            ("1e-4", false, NUMBER, "write 1e-4 without them"),
            ("010", true, WHOLE, "write 10, or 8 if octal was meant"),
            ("09", true, WHOLE, "write 9"),
            ("1_000", true, WHOLE, "write 1000"),
            ("1,5", true, NUMBER, "write 15 or 1.5"),
            ("1,000,000", true, WHOLE, "write 1000000"),
            ("5 %", true, NUMBER, "write 0.05"),
            ("1e3", true, WHOLE, "write 1000, without"),
            ("clap", true, LIST, "[clap]"),
            ("steps:3", true, MAPPING, "a blank"),
        ] {
            let hint = meant(text, is_plain, wanted).unwrap_or_default();
            assert!(hint.contains(said), "{text}: {hint}");
        }
        for (text, wanted) in [
            ("many", WHOLE),
            ("1.5", WHOLE),
            ("maybe", FLAG),
            ("", NUMBER),
            ("x%", NUMBER),
        ] {
            assert_eq!(meant(text, true, wanted), None, "{text}");
        }
    }
}
