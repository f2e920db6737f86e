//! Values of D-Bus: their types and their form on the wire.

/// A value with its type, by the letters of the D-Bus specification ("Type System").
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// `b`
    Bool(bool),
    /// `y`
    Byte(u8),
    /// `n`
    I16(i16),
    /// `q`
    U16(u16),
    /// `i`
    I32(i32),
    /// `u`
    U32(u32),
    /// `x`
    I64(i64),
    /// `t`
    U64(u64),
    /// `d`
    Double(f64),
    /// `s`
    Str(String),
    /// `o`
    Path(String),
    /// `g`
    Signature(String),
    /// `a`, with the type of its elements
    List(String, Vec<Value>),
    /// `(…)`
    Tuple(Vec<Value>),
    /// `v`
    Variant(Box<Value>),
}

impl Value {
    /// A string.
    pub(super) fn str(text: impl Into<String>) -> Self {
        Self::Str(text.into())
    }

    /// Bytes.
    pub(super) fn bytes(bytes: Vec<u8>) -> Self {
        Self::List("y".to_owned(), bytes.into_iter().map(Self::Byte).collect())
    }

    /// Its type.
    pub(super) fn signature(&self) -> String {
        match self {
            Self::Bool(_) => "b".into(),
            Self::Byte(_) => "y".into(),
            Self::I16(_) => "n".into(),
            Self::U16(_) => "q".into(),
            Self::I32(_) => "i".into(),
            Self::U32(_) => "u".into(),
            Self::I64(_) => "x".into(),
            Self::U64(_) => "t".into(),
            Self::Double(_) => "d".into(),
            Self::Str(_) => "s".into(),
            Self::Path(_) => "o".into(),
            Self::Signature(_) => "g".into(),
            Self::List(element, _) => format!("a{element}"),
            Self::Tuple(fields) => {
                let inner: String = fields.iter().map(Self::signature).collect();
                format!("({inner})")
            }
            Self::Variant(_) => "v".into(),
        }
    }

    /// Appends it to `out`, which begins at a multiple of eight, in this machine's byte order.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        pad(out, alignment(&self.signature()));
        match self {
            Self::Bool(value) => out.extend(u32::from(*value).to_ne_bytes()),
            Self::Byte(value) => out.push(*value),
            Self::I16(value) => out.extend(value.to_ne_bytes()),
            Self::U16(value) => out.extend(value.to_ne_bytes()),
            Self::I32(value) => out.extend(value.to_ne_bytes()),
            Self::U32(value) => out.extend(value.to_ne_bytes()),
            Self::I64(value) => out.extend(value.to_ne_bytes()),
            Self::U64(value) => out.extend(value.to_ne_bytes()),
            Self::Double(value) => out.extend(value.to_ne_bytes()),
            Self::Str(text) | Self::Path(text) => {
                out.extend(length(text.len()));
                out.extend(text.as_bytes());
                out.push(0);
            }
            Self::Signature(text) => signature(text, out),
            Self::List(element, values) => list(element, values, out),
            Self::Tuple(fields) => fields.iter().for_each(|field| field.write(out)),
            Self::Variant(value) => {
                signature(&value.signature(), out);
                value.write(out);
            }
        }
    }
}

/// Zeros up to the next multiple.
pub(super) fn pad(out: &mut Vec<u8>, multiple: usize) {
    out.resize(out.len().next_multiple_of(multiple), 0);
}

/// What a value of this type begins at a multiple of.
pub(super) fn alignment(signature: &str) -> usize {
    match signature.bytes().next() {
        Some(b'y' | b'g' | b'v') | None => 1,
        Some(b'n' | b'q') => 2,
        Some(b'x' | b't' | b'd' | b'(' | b'{') => 8,
        Some(_) => 4,
    }
}

/// The largest message is far below 4 GiB, and a longer one is refused when it is sent.
fn length(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes).unwrap_or(u32::MAX).to_ne_bytes()
}

fn signature(text: &str, out: &mut Vec<u8>) {
    out.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    out.extend(text.as_bytes());
    out.push(0);
}

/// The length counts neither itself nor the padding before the first element.
fn list(element: &str, values: &[Value], out: &mut Vec<u8>) {
    let at = out.len();
    out.extend([0; 4]);
    pad(out, alignment(element));
    let begin = out.len();
    values.iter().for_each(|value| value.write(out));
    let bytes = length(out.len() - begin);
    out[at..at + 4].copy_from_slice(&bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        value.write(&mut out);
        out
    }

    #[test]
    fn the_specification_s_own_examples_of_padding() {
        let string = wire(&Value::str("foo"));
        assert_eq!(string, [&3u32.to_ne_bytes()[..], b"foo\0"].concat());
        // "an array of 64-bit integers ... 4 bytes of padding"
        let array = wire(&Value::List("x".into(), vec![Value::I64(5)]));
        let expected = [&8u32.to_ne_bytes()[..], &[0; 4], &5i64.to_ne_bytes()].concat();
        assert_eq!(array, expected);
        let empty = wire(&Value::List("t".into(), vec![]));
        assert_eq!(empty, [0; 8]);
    }

    #[test]
    fn a_property_as_systemd_reads_it() {
        let property = Value::Tuple(vec![
            Value::str("Delegate"),
            Value::Variant(Box::new(Value::Bool(true))),
        ]);
        assert_eq!(property.signature(), "(sv)");
        let expected = [
            &8u32.to_ne_bytes()[..],
            b"Delegate\0",
            b"\x01b\0",
            &1u32.to_ne_bytes(),
        ]
        .concat();
        assert_eq!(wire(&property), expected);
        assert_eq!(Value::bytes(vec![1, 2]).signature(), "ay");
    }
}
