//! Lists that Python has written as text: `['a', "b's"]`.

/// The texts of a list, of JSON or of Python; numbers and words such as `None` as they are written. None where it is no list.
pub(super) fn list(text: &str) -> Option<Vec<String>> {
    let text = text.trim();
    if let Some(all) = super::json::of::<Vec<String>>(text) {
        return Some(all);
    }
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    let mut all = Vec::new();
    let mut rest = inner.trim_start();
    while !rest.is_empty() {
        let (item, behind) = match rest.chars().next() {
            Some(quote @ ('\'' | '"')) => quoted(&rest[1..], quote)?,
            _ => {
                let end = rest.find(',').unwrap_or(rest.len());
                (rest[..end].trim_end().to_owned(), &rest[end..])
            }
        };
        all.push(item);
        // numpy's arrays have no commas.
        let behind = behind.trim_start();
        rest = behind.strip_prefix(',').unwrap_or(behind).trim_start();
    }
    Some(all)
}

/// A text up to its quotation mark, and what follows.
fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            c if c == quote => return Some((out, &text[at + c.len_utf8()..])),
            '\\' => match chars.next()?.1 {
                'n' => out.push('\n'),
                't' => out.push('\t'),
                'r' => out.push('\r'),
                c @ ('\\' | '\'' | '"') => out.push(c),
                'x' => out.push(hexadecimal(&mut chars, 2)?),
                'u' => out.push(hexadecimal(&mut chars, 4)?),
                other => out.extend(['\\', other]),
            },
            c => out.push(c),
        }
    }
    None
}

fn hexadecimal(chars: &mut std::str::CharIndices, digits: usize) -> Option<char> {
    let word: String = chars.take(digits).map(|(_, c)| c).collect();
    let number = u32::from_str_radix(&word, 16)
        .ok()
        .filter(|_| word.len() == digits)?;
    char::from_u32(number)
}

#[cfg(test)]
mod tests {
    use super::list;

    #[test]
    fn lists_are_read_as_python_would() {
        for (text, wanted) in [
            ("[]", &[][..]),
            (r#"["a", "b"]"#, &["a", "b"]),
            ("['a, b', \"it's\"]", &["a, b", "it's"]),
            (
                r"['it\'s', 'a\\b', 'caf\xe9', '\u00e9']",
                &["it's", "a\\b", "café", "é"],
            ),
            ("[1, None, 'x']", &["1", "None", "x"]),
            ("['a' 'b'\n 'c']", &["a", "b", "c"]),
            (" ['a'] ", &["a"]),
        ] {
            assert_eq!(list(text).unwrap(), wanted, "{text}");
        }
        for text in ["", "a", "['a", "['a]", "[\"a]", "{'a': 1}", r"['\x']"] {
            assert_eq!(list(text), None, "{text}");
        }
    }
}
