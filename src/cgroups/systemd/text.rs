//! Values as people write them: the text format of GVariant, as far as properties of units need it.

use super::value::Value;

/// How deep lists, tuples and variants may be in one another: the D-Bus specification's own bound.
const DEPTH: u32 = 32;

/// Reads one value: `true`, `5` (a 32-bit number), `uint64 5`, `1.5`, `'text'`, `['a', 'b']`, `('a', 5)`, `<5>`, `@as []`.
///
/// # Errors
/// What is wrong, to be read after the text.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    let mut reader = Reader { rest: text };
    let value = reader.value(None, 0)?;
    reader.skip_space();
    match reader.rest {
        "" => Ok(value),
        rest => Err(format!("has `{rest}` behind the value")),
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, sign: char) -> bool {
        self.skip_space();
        let found = self.rest.strip_prefix(sign);
        self.rest = found.unwrap_or(self.rest);
        found.is_some()
    }

    fn expect(&mut self, sign: char) -> Result<(), String> {
        if self.take(sign) {
            return Ok(());
        }
        Err(format!("lacks a `{sign}` before `{}`", self.rest))
    }

    fn word(&mut self) -> &'a str {
        self.skip_space();
        let in_word = |c: char| c.is_ascii_alphanumeric() || "+-._".contains(c);
        let end = self.rest.find(|c| !in_word(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    /// A value of the type `wanted`, or of whatever type it is.
    fn value(&mut self, wanted: Option<&str>, depth: u32) -> Result<Value, String> {
        if depth > DEPTH {
            return Err("is nested too deeply".into());
        }
        self.skip_space();
        let value = match self.rest.chars().next() {
            Some('@') => return self.annotated(wanted, depth),
            Some('[') => self.list(wanted, depth)?,
            Some('(') => self.tuple(wanted, depth)?,
            Some('<') => {
                self.expect('<')?;
                let inner = self.value(None, depth + 1)?;
                self.expect('>')?;
                Value::Variant(Box::new(inner))
            }
            Some(quote @ ('\'' | '"')) => text_as(self.quoted(quote)?, wanted),
            _ => return self.plain(wanted, depth),
        };
        check(value, wanted)
    }

    /// `@as ['a']`
    fn annotated(&mut self, wanted: Option<&str>, depth: u32) -> Result<Value, String> {
        self.expect('@')?;
        let end = self.rest.find(char::is_whitespace).unwrap_or(self.rest.len());
        let (signature, rest) = self.rest.split_at(end);
        self.rest = rest;
        if !is_type(signature) {
            return Err(format!("has `@{signature}`, which is no type of a property"));
        }
        let value = self.value(Some(signature), depth + 1)?;
        check(value, wanted)
    }

    /// Its elements have the type that is wanted, or that of the first.
    fn list(&mut self, wanted: Option<&str>, depth: u32) -> Result<Value, String> {
        self.expect('[')?;
        let mut element = wanted.and_then(|w| w.strip_prefix('a')).map(str::to_owned);
        let mut values = Vec::new();
        while !self.take(']') {
            if !values.is_empty() {
                self.expect(',')?;
            }
            let value = self.value(element.as_deref(), depth + 1)?;
            element.get_or_insert_with(|| value.signature());
            values.push(value);
        }
        let unknown = || "is an empty list; say of what, as in `@as []`".to_owned();
        Ok(Value::List(element.ok_or_else(unknown)?, values))
    }

    fn tuple(&mut self, wanted: Option<&str>, depth: u32) -> Result<Value, String> {
        self.expect('(')?;
        let inner = wanted.and_then(|w| w.strip_prefix('(')?.strip_suffix(')'));
        let mut types = inner.map(split);
        let mut fields = Vec::new();
        while !self.take(')') {
            if !fields.is_empty() {
                self.expect(',')?;
                // `(1,)` is a tuple of one.
                if self.take(')') {
                    break;
                }
            }
            let wanted = types.as_mut().and_then(Iterator::next);
            fields.push(self.value(wanted, depth + 1)?);
        }
        if fields.is_empty() {
            return Err("has an empty tuple, which D-Bus does not know".into());
        }
        Ok(Value::Tuple(fields))
    }

    fn quoted(&mut self, quote: char) -> Result<String, String> {
        let mut text = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                c if c == quote => {
                    self.rest = &self.rest[at + 1..];
                    return Ok(text);
                }
                '\\' => match chars.next() {
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, 't')) => text.push('\t'),
                    Some((_, c @ ('\\' | '\'' | '"'))) => text.push(c),
                    _ => return Err("has an escape other than `\\n`, `\\t`, `\\\\`, `\\'` and `\\\"`".into()),
                },
                '\0' => return Err("has a NUL in a string".into()),
                c => text.push(c),
            }
        }
        Err(format!("lacks a closing {quote}"))
    }

    /// A number, a truth value, or the name of a type and a value of it.
    fn plain(&mut self, wanted: Option<&str>, depth: u32) -> Result<Value, String> {
        let word = self.word();
        let named = match word {
            "boolean" => "b",
            "byte" => "y",
            "int16" => "n",
            "uint16" => "q",
            "int32" => "i",
            "uint32" => "u",
            "int64" => "x",
            "uint64" => "t",
            "double" => "d",
            "string" => "s",
            "objectpath" => "o",
            "signature" => "g",
            "true" => return check(Value::Bool(true), wanted),
            "false" => return check(Value::Bool(false), wanted),
            number => return number_as(number, wanted),
        };
        let value = self.value(Some(named), depth + 1)?;
        check(value, wanted)
    }
}

fn check(value: Value, wanted: Option<&str>) -> Result<Value, String> {
    match wanted {
        Some(wanted) if wanted != value.signature() => {
            let found = value.signature();
            Err(format!(
                "has a value of type `{found}` where one of type `{wanted}` belongs"
            ))
        }
        _ => Ok(value),
    }
}

fn text_as(text: String, wanted: Option<&str>) -> Value {
    match wanted {
        Some("o") => Value::Path(text),
        Some("g") => Value::Signature(text),
        _ => Value::Str(text),
    }
}

fn number_as(text: &str, wanted: Option<&str>) -> Result<Value, String> {
    let whole = || integer(text);
    let is_whole = whole().is_some();
    let wanted = wanted.unwrap_or(if is_whole { "i" } else { "d" });
    let value = match wanted {
        "y" => whole().and_then(|n| n.try_into().ok()).map(Value::Byte),
        "n" => whole().and_then(|n| n.try_into().ok()).map(Value::I16),
        "q" => whole().and_then(|n| n.try_into().ok()).map(Value::U16),
        "i" => whole().and_then(|n| n.try_into().ok()).map(Value::I32),
        "u" => whole().and_then(|n| n.try_into().ok()).map(Value::U32),
        "x" => whole().and_then(|n| n.try_into().ok()).map(Value::I64),
        "t" => whole().and_then(|n| n.try_into().ok()).map(Value::U64),
        "d" => text
            .parse()
            .ok()
            .filter(|n: &f64| n.is_finite())
            .map(Value::Double),
        _ => None,
    };
    value.ok_or_else(|| match (text, is_whole) {
        ("", _) => "lacks a value".to_owned(),
        (_, true) => format!("has the number `{text}`, which type `{wanted}` does not have"),
        (_, false) => format!("has `{text}`, which is no value: strings are in quotes"),
    })
}

/// Decimal, or hexadecimal after `0x`. Wide enough for every type.
fn integer(text: &str) -> Option<i128> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let (digits, base) = digits.strip_prefix("0x").map_or((digits, 10), |hex| (hex, 16));
    let unsigned = digits.chars().all(|c| c.is_digit(base)) && !digits.is_empty();
    i128::from_str_radix(digits, base)
        .ok()
        .filter(|_| unsigned)
        .map(|n| sign * n)
}

/// The types one after another: `st` is `s` and `t`.
fn split(signature: &str) -> impl Iterator<Item = &str> {
    let mut rest = signature;
    std::iter::from_fn(move || {
        let (first, after) = rest.split_at(single(rest)?);
        rest = after;
        Some(first)
    })
}

/// How long the first complete type is.
fn single(signature: &str) -> Option<usize> {
    let mut open = 0_usize;
    for (at, c) in signature.char_indices() {
        match c {
            'a' => continue,
            '(' => open += 1,
            ')' => open = open.checked_sub(1)?,
            'b' | 'y' | 'n' | 'q' | 'i' | 'u' | 'x' | 't' | 'd' | 's' | 'o' | 'g' | 'v' => {}
            _ => return None,
        }
        if open == 0 {
            return Some(at + 1);
        }
    }
    None
}

/// Whether it is one complete type. Dictionaries, which no property of a unit is, are left out.
fn is_type(signature: &str) -> bool {
    signature.len() < 256 && single(signature) == Some(signature.len()) && !signature.contains("()")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(element: &str, values: &[Value]) -> Value {
        Value::List(element.into(), values.to_vec())
    }

    #[test]
    fn values_by_their_text() {
        let pair = Value::Tuple(vec![Value::str("/dev/sda"), Value::U64(9)]);
        for (text, value) in [
            ("true", Value::Bool(true)),
            (" 5 ", Value::I32(5)),
            ("-1", Value::I32(-1)),
            ("0x10", Value::I32(16)),
            ("1.5", Value::Double(1.5)),
            ("uint64 18446744073709551615", Value::U64(u64::MAX)),
            ("byte 0xff", Value::Byte(255)),
            ("@t 7", Value::U64(7)),
            ("double 3", Value::Double(3.0)),
            (r"'it\'s'", Value::str("it's")),
            (r#""a b""#, Value::str("a b")),
            ("objectpath '/a'", Value::Path("/a".into())),
            ("['a', \"b\"]", list("s", &[Value::str("a"), Value::str("b")])),
            ("@as []", list("s", &[])),
            ("[uint32 1, 2]", list("u", &[Value::U32(1), Value::U32(2)])),
            (
                "@a(st) [('/dev/sda', 9)]",
                list("(st)", std::slice::from_ref(&pair)),
            ),
            ("('/dev/sda', uint64 9)", pair),
            ("<true>", Value::Variant(Box::new(Value::Bool(true)))),
        ] {
            assert_eq!(parse(text).as_ref(), Ok(&value), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_a_reason() {
        for (text, word) in [
            ("", "lacks a value"),
            ("abc", "in quotes"),
            ("'abc", "closing"),
            ("5 5", "behind"),
            ("[]", "@as []"),
            ("['a', 5]", "type `s`"),
            ("['a' 'b']", "`,`"),
            ("4294967296", "type `i`"),
            ("byte 256", "type `y`"),
            ("uint32 -1", "type `u`"),
            ("uint32 'a'", "type `u`"),
            ("@a{sv} {}", "no type"),
            ("@ 5", "no type"),
            ("()", "empty tuple"),
            ("nan", "no value"),
            ("- 5", "no value"),
        ] {
            let problem = parse(text).unwrap_err();
            assert!(problem.contains(word), "{text}: {problem}");
        }
        assert!(parse(&"[".repeat(100_000)).unwrap_err().contains("deep"));
    }
}
