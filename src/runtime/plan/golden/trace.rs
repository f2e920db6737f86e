//! The fields that a type reads, asked of the type itself: a deserializer that offers everything it is asked for.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{DeserializeSeed, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor};
use serde::{Deserialize, Deserializer, de, forward_to_deserialize_any};

/// The paths of all values that are no objects: `process.user.uid`, `mounts[].options[]`, `linux.sysctl.*`.
pub(super) fn fields<T: for<'de> Deserialize<'de>>() -> BTreeSet<String> {
    let found = RefCell::new(BTreeSet::new());
    let at = At {
        path: String::new(),
        found: &found,
    };
    T::deserialize(at).map(drop).unwrap();
    found.into_inner()
}

/// A place in the type.
#[derive(Clone)]
struct At<'a> {
    path: String,
    found: &'a RefCell<BTreeSet<String>>,
}

impl At<'_> {
    fn below(&self, step: &str) -> Self {
        let path = match (self.path.as_str(), step) {
            ("", step) => step.to_owned(),
            (path, "[]") => format!("{path}[]"),
            (path, step) => format!("{path}.{step}"),
        };
        Self { path, ..self.clone() }
    }

    fn leaf(&self) {
        self.found
            .borrow_mut()
            .insert(self.path.trim_end_matches("[]").to_owned());
    }
}

/// Never happens, unless a type looks at values; then it says at which.
#[derive(Debug)]
struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

impl de::Error for Refused {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

/// A text that is taken: two types of the spec look at theirs.
fn text(path: &str) -> &'static str {
    if path.contains("capabilities") {
        "CAP_KILL"
    } else {
        "0"
    }
}

macro_rules! leaves {
    ($($method:ident $visit:ident $value:expr;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
            self.leaf();
            visitor.$visit($value)
        }
    )*};
}

impl<'de> Deserializer<'de> for At<'_> {
    type Error = Refused;

    leaves! {
        deserialize_bool visit_bool true;
        deserialize_i8 visit_i8 1;
        deserialize_i16 visit_i16 1;
        deserialize_i32 visit_i32 1;
        deserialize_i64 visit_i64 1;
        deserialize_u8 visit_u8 1;
        deserialize_u16 visit_u16 1;
        deserialize_u32 visit_u32 1;
        deserialize_u64 visit_u64 1;
        deserialize_f64 visit_f64 1.0;

    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.leaf();
        visitor.visit_str(text(&self.path))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_str(visitor)
    }

    /// Free JSON: whatever is there.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.leaf();
        visitor.visit_bool(true)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let steps = vec!["[]"];
        visitor.visit_seq(Below { at: self, steps })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let steps = vec!["*"];
        visitor.visit_map(Below { at: self, steps })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        let steps = fields.iter().rev().copied().collect();
        visitor.visit_map(Below { at: self, steps })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.leaf();
        visitor.visit_enum(Variant(variants[0]))
    }

    forward_to_deserialize_any! { f32 char bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any i128 u128 }
}

/// What is offered below a place, last first.
struct Below<'a> {
    at: At<'a>,
    steps: Vec<&'static str>,
}

impl<'de> MapAccess<'de> for Below<'_> {
    type Error = Refused;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Refused> {
        let next = self
            .steps
            .last()
            .map(|step| seed.deserialize(StrDeserializer::new(step)));
        next.transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Refused> {
        let step = self.steps.pop().ok_or_else(|| Refused("no value left".into()))?;
        seed.deserialize(self.at.below(step))
    }
}

impl<'de> SeqAccess<'de> for Below<'_> {
    type Error = Refused;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Refused> {
        let next = self.steps.pop().map(|step| seed.deserialize(self.at.below(step)));
        next.transpose()
    }
}

/// A variant without content.
struct Variant(&'static str);

impl<'de> EnumAccess<'de> for Variant {
    type Error = Refused;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Refused> {
        Ok((seed.deserialize(StrDeserializer::new(self.0))?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant {
    type Error = Refused;

    fn unit_variant(self) -> Result<(), Refused> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, Refused> {
        Err(Refused(format!("the variant `{}` has content", self.0)))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Refused> {
        Err(Refused(format!("the variant `{}` has content", self.0)))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, Refused> {
        Err(Refused(format!("the variant `{}` has content", self.0)))
    }
}
