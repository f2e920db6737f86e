//! Messages of D-Bus ("Message Protocol" of its specification): the calls that are sent, and what comes back.

use super::value::{Value, alignment, pad};
use crate::error::{Error, Result};

/// The byte order that messages are written in; answers come in any.
const ORDER: u8 = if cfg!(target_endian = "little") {
    b'l'
} else {
    b'B'
};

/// Version of the protocol.
const VERSION: u8 = 1;

/// Bytes before the length of the header's fields is known.
pub(super) const FIXED: usize = 16;

/// What no message that is meant for us comes near.
const LARGEST: usize = 16 << 20;

// Kinds of messages, and codes of header fields.
const CALL: u8 = 1;
const RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SENDER: u8 = 7;
const SIGNATURE: u8 = 8;

/// Where a call goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target {
    pub(super) destination: &'static str,
    pub(super) path: &'static str,
    pub(super) interface: &'static str,
}

/// The bytes of a call.
///
/// # Errors
/// [`Error::Invalid`] for arguments longer than a message can be.
pub(super) fn call(serial: u32, target: Target, member: &str, arguments: &[Value]) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    arguments.iter().for_each(|argument| argument.write(&mut body));
    let signature: String = arguments.iter().map(Value::signature).collect();
    let length = u32::try_from(body.len()).ok().filter(|_| body.len() < LARGEST);
    let length =
        length.ok_or_else(|| Error::invalid(member, body.len(), "bytes are too many for systemd"))?;
    let mut fields = vec![
        field(PATH, Value::Path(target.path.into())),
        field(INTERFACE, Value::str(target.interface)),
        field(MEMBER, Value::str(member)),
        field(DESTINATION, Value::str(target.destination)),
    ];
    if !signature.is_empty() {
        fields.push(field(SIGNATURE, Value::Signature(signature)));
    }
    let mut message = vec![ORDER, CALL, 0, VERSION];
    message.extend(length.to_ne_bytes());
    message.extend(serial.to_ne_bytes());
    Value::List("(yv)".into(), fields).write(&mut message);
    pad(&mut message, 8);
    message.extend(body);
    Ok(message)
}

fn field(code: u8, value: Value) -> Value {
    Value::Tuple(vec![Value::Byte(code), Value::Variant(Box::new(value))])
}

/// A message that came.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    kind: u8,
    /// The call it answers.
    pub(super) reply_to: u32,
    member: String,
    /// Who sent it, by the unique name that the bus gives; empty where there is no bus between.
    sender: String,
    error: String,
    signature: String,
    body: Vec<u8>,
    swapped: bool,
}

impl Message {
    /// The whole length, from the first [`FIXED`] bytes.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for what is no message.
    pub(super) fn length(fixed: &[u8]) -> Result<usize> {
        let swapped = is_swapped(fixed)?;
        let mut reader = Reader {
            bytes: fixed,
            at: 4,
            swapped,
        };
        let body = reader.u32()? as usize;
        reader.at = 12;
        let fields = reader.u32()? as usize;
        let length = FIXED
            .saturating_add(fields)
            .next_multiple_of(8)
            .saturating_add(body);
        if body > LARGEST || fields > LARGEST {
            return Err(Error::Corrupt("the bus sent a message that is too long".into()));
        }
        Ok(length)
    }

    /// Reads a message of that length.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for what is no message.
    pub(super) fn read(bytes: &[u8]) -> Result<Self> {
        let swapped = is_swapped(bytes)?;
        let mut message = Self {
            kind: *bytes.get(1).ok_or_else(short)?,
            swapped,
            ..Self::default()
        };
        let mut reader = Reader {
            bytes,
            at: 12,
            swapped,
        };
        let end = FIXED + reader.u32()? as usize;
        while reader.at < end {
            reader.align(8);
            let code = reader.byte()?;
            let signature = reader.signature()?;
            match (code, signature.as_str()) {
                (REPLY_SERIAL, "u") => message.reply_to = reader.u32()?,
                (MEMBER, "s") => message.member = reader.string()?,
                (SENDER, "s") => message.sender = reader.string()?,
                (ERROR_NAME, "s") => message.error = reader.string()?,
                (SIGNATURE, "g") => message.signature = reader.signature()?,
                (_, "s" | "o") => drop(reader.string()?),
                (_, "u") => drop(reader.u32()?),
                (_, "g") => drop(reader.signature()?),
                _ => return Err(Error::Corrupt("the bus sent an unknown header field".into())),
            }
        }
        let body = bytes.get(end.next_multiple_of(8)..).ok_or_else(short)?;
        message.body = body.to_vec();
        Ok(message)
    }

    /// Whether the same process sent both.
    pub(super) fn is_from_sender_of(&self, other: &Self) -> bool {
        self.sender == other.sender
    }

    /// Whether it answers the call with this number.
    pub(super) fn answers(&self, serial: u32) -> bool {
        matches!(self.kind, RETURN | ERROR) && self.reply_to == serial
    }

    /// The name and the text of an error.
    pub(super) fn fault(&self) -> Option<(&str, String)> {
        let text = || self.strings().ok()?.into_iter().next();
        (self.kind == ERROR).then(|| (self.error.as_str(), text().unwrap_or_default()))
    }

    /// Whether it is the signal of this name.
    pub(super) fn is_signal(&self, member: &str) -> bool {
        self.kind == SIGNAL && self.member == member
    }

    /// The strings and object paths of its body, in order; numbers between them are passed over, and a variant is what is
    /// in it.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for a body that ends early or has other types.
    pub(super) fn strings(&self) -> Result<Vec<String>> {
        let mut reader = Reader {
            bytes: &self.body,
            at: 0,
            swapped: self.swapped,
        };
        let mut found = Vec::new();
        for kind in self.signature.chars() {
            reader.strings(kind, &mut found)?;
        }
        Ok(found)
    }
}

fn is_swapped(bytes: &[u8]) -> Result<bool> {
    match bytes.first() {
        Some(b'l' | b'B') => Ok(bytes[0] != ORDER),
        _ => Err(Error::Corrupt("the bus sent what is no message".into())),
    }
}

fn short() -> Error {
    Error::Corrupt("the bus sent a message that ends early".into())
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    swapped: bool,
}

impl Reader<'_> {
    fn align(&mut self, multiple: usize) {
        self.at = self.at.next_multiple_of(multiple);
    }

    fn take(&mut self, count: usize) -> Result<&[u8]> {
        let end = self.at.checked_add(count).ok_or_else(short)?;
        let taken = self.bytes.get(self.at..end).ok_or_else(short)?;
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn u32(&mut self) -> Result<u32> {
        self.align(alignment("u"));
        let bytes = self.take(4)?.try_into().map_err(|_| short())?;
        let number = u32::from_ne_bytes(bytes);
        Ok(if self.swapped { number.swap_bytes() } else { number })
    }

    fn text(&mut self, length: usize) -> Result<String> {
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.take(1)?;
        Ok(text)
    }

    fn string(&mut self) -> Result<String> {
        let length = self.u32()? as usize;
        self.text(length)
    }

    fn signature(&mut self) -> Result<String> {
        let length = self.byte()?;
        self.text(length.into())
    }

    fn strings(&mut self, kind: char, found: &mut Vec<String>) -> Result<()> {
        match kind {
            's' | 'o' => found.push(self.string()?),
            'u' => drop(self.u32()?),
            'v' => match self.signature()?.as_str() {
                "s" | "o" => found.push(self.string()?),
                _ => return Err(Error::Corrupt("the bus sent a property of another type".into())),
            },
            _ => return Err(Error::Corrupt("the bus sent a body of another type".into())),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUS: Target = Target {
        destination: "org.freedesktop.DBus",
        path: "/org/freedesktop/DBus",
        interface: "org.freedesktop.DBus",
    };

    /// What a bus makes of these values, as the message of a kind with more header fields.
    fn message(kind: u8, fields: Vec<Value>, body: &[Value]) -> Vec<u8> {
        let mut bytes = Vec::new();
        body.iter().for_each(|value| value.write(&mut bytes));
        let mut message = vec![ORDER, kind, 0, VERSION];
        message.extend(u32::try_from(bytes.len()).unwrap().to_ne_bytes());
        message.extend(7u32.to_ne_bytes());
        let signature = body.iter().map(Value::signature).collect();
        let fields = [fields, vec![field(SIGNATURE, Value::Signature(signature))]].concat();
        Value::List("(yv)".into(), fields).write(&mut message);
        pad(&mut message, 8);
        message.extend(bytes);
        message
    }

    #[test]
    fn a_call_says_where_it_goes_and_how_long_it_is() {
        let bytes = call(3, BUS, "AddMatch", &[Value::str("type='signal'")]).unwrap();
        assert_eq!(Message::length(&bytes[..FIXED]).unwrap(), bytes.len());
        let read = Message::read(&bytes).unwrap();
        assert_eq!((read.kind, read.member.as_str()), (CALL, "AddMatch"));
        assert_eq!(read.strings().unwrap(), ["type='signal'"]);
        let hello = call(1, BUS, "Hello", &[]).unwrap();
        assert_eq!(Message::length(&hello).unwrap(), hello.len());
    }

    #[test]
    fn a_job_s_end_and_an_error_are_understood() {
        let job = [
            Value::U32(5),
            Value::Path("/job/5".into()),
            Value::str("a.scope"),
            Value::str("done"),
        ];
        let bytes = message(SIGNAL, vec![field(MEMBER, Value::str("JobRemoved"))], &job);
        let signal = Message::read(&bytes).unwrap();
        assert!(signal.is_signal("JobRemoved") && !signal.answers(7));
        assert_eq!(signal.strings().unwrap(), ["/job/5", "a.scope", "done"]);

        let fields = vec![
            field(ERROR_NAME, Value::str("a.b")),
            field(REPLY_SERIAL, Value::U32(9)),
        ];
        let error = Message::read(&message(ERROR, fields, &[Value::str("no")])).unwrap();
        assert!(error.answers(9));
        assert_eq!(error.fault(), Some(("a.b", "no".to_owned())));

        let variant = Value::Variant(Box::new(Value::str("/user.slice")));
        let reply = Message::read(&message(RETURN, vec![], &[variant])).unwrap();
        assert_eq!(reply.strings().unwrap(), ["/user.slice"]);
    }

    #[test]
    fn the_other_byte_order_is_read() {
        let mut bytes = message(RETURN, vec![], &[]);
        bytes[0] = if ORDER == b'l' { b'B' } else { b'l' };
        for at in [4, 8, 12] {
            bytes[at..at + 4].reverse();
        }
        assert_eq!(Message::length(&bytes).unwrap(), bytes.len());
        assert_eq!(Message::read(&bytes).unwrap().kind, RETURN);
    }

    #[test]
    fn nonsense_is_refused_however_it_is_cut() {
        let bytes = message(SIGNAL, vec![field(MEMBER, Value::str("X"))], &[Value::str("y")]);
        for end in 0..bytes.len() {
            let cut = Message::read(&bytes[..end]);
            assert!(cut.is_err() || cut.is_ok_and(|m| m.strings().is_err()), "{end}");
        }
        assert!(Message::length(b"GET / HTTP/1.1 xxx").is_err());
        let huge = [&[ORDER, RETURN, 0, VERSION][..], &[0xff; 12]].concat();
        assert!(Message::length(&huge).is_err());
    }
}
