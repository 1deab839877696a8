//! The types an option can have: how each is read, described, bounded and written.

use std::ops::RangeBounds;
use std::time::Duration;

use super::units::{Size, duration_text, parse_duration};
use super::value::{Value, quote};

/// A type an option can have.
pub trait OptionValue: Sized + Clone {
    /// What a range bounds: the value itself, or each element of a list.
    type Bound;

    /// The name of the type in error messages and in the reference: "an integer", "a duration".
    fn describe() -> String;

    /// The typed value, or `None` when `value` is of another type or does not fit.
    fn parse(value: &Value) -> Option<Self>;

    /// The value as TOML.
    fn render(&self) -> String;

    /// Whether the value lies within `range`.
    fn within(&self, range: &impl RangeBounds<Self::Bound>) -> bool;

    /// A bound of a range as TOML.
    fn render_bound(bound: &Self::Bound) -> String;

    /// The type's name in the answers of `/config`, where Pegasus's tools expect these words.
    fn flag_type() -> &'static str {
        "FV_STRING"
    }
}

/// A type that fits in 64 bits, so that an option of it can change while others read it.
pub trait Scalar: OptionValue {
    /// The value as bits; the inverse of [`Scalar::from_bits`].
    fn to_bits(&self) -> u64;

    /// The value of bits that [`Scalar::to_bits`] made.
    fn from_bits(bits: u64) -> Self;
}

macro_rules! integers {
    ($($ty:ty: $flag_type:literal)*) => {$(
        impl OptionValue for $ty {
            type Bound = Self;

            fn describe() -> String {
                if Self::MIN == 0 { "a whole number".into() } else { "an integer".into() }
            }

            fn parse(value: &Value) -> Option<Self> {
                match *value.tightened() {
                    Value::Int(n) => Self::try_from(n).ok(),
                    _ => None,
                }
            }

            fn render(&self) -> String {
                self.to_string()
            }

            fn within(&self, range: &impl RangeBounds<Self>) -> bool {
                range.contains(self)
            }

            fn render_bound(bound: &Self) -> String {
                bound.to_string()
            }

            fn flag_type() -> &'static str {
                $flag_type
            }
        }

        impl Scalar for $ty {
            fn to_bits(&self) -> u64 {
                *self as u64
            }

            fn from_bits(bits: u64) -> Self {
                bits as Self
            }
        }
    )*};
}

integers! {
    u8: "FV_UINT32" u16: "FV_UINT32" u32: "FV_UINT32" u64: "FV_UINT64" usize: "FV_UINT64"
    i32: "FV_INT32" i64: "FV_INT64"
}

impl OptionValue for bool {
    type Bound = ();

    fn describe() -> String {
        "true or false".into()
    }

    fn parse(value: &Value) -> Option<Self> {
        match *value.tightened() {
            Value::Bool(b) => Some(b),
            _ => None,
        }
    }

    fn render(&self) -> String {
        self.to_string()
    }

    fn within(&self, _: &impl RangeBounds<()>) -> bool {
        true
    }

    fn render_bound((): &()) -> String {
        String::new()
    }

    fn flag_type() -> &'static str {
        "FV_BOOL"
    }
}

impl Scalar for bool {
    fn to_bits(&self) -> u64 {
        Self::into(*self)
    }

    fn from_bits(bits: u64) -> Self {
        bits != 0
    }
}

impl OptionValue for f64 {
    type Bound = Self;

    fn describe() -> String {
        "a number".into()
    }

    fn parse(value: &Value) -> Option<Self> {
        match *value.tightened() {
            Value::Float(x) if x.is_finite() => Some(x),
            Value::Int(n) => Some(n as Self),
            _ => None,
        }
    }

    fn render(&self) -> String {
        format!("{self:?}")
    }

    fn within(&self, range: &impl RangeBounds<Self>) -> bool {
        range.contains(self)
    }

    fn render_bound(bound: &Self) -> String {
        bound.render()
    }

    fn flag_type() -> &'static str {
        "FV_DOUBLE"
    }
}

impl Scalar for f64 {
    fn to_bits(&self) -> u64 {
        Self::to_bits(*self)
    }

    fn from_bits(bits: u64) -> Self {
        Self::from_bits(bits)
    }
}

impl OptionValue for String {
    type Bound = ();

    fn describe() -> String {
        "a string".into()
    }

    fn parse(value: &Value) -> Option<Self> {
        match value {
            Value::Text(text) => Some(text.clone()),
            // `--set a.b="c"`, its quotes kept by the shell, means `c`.
            Value::Loose(text) if text.starts_with(['"', '\'']) => match &*value.tightened() {
                Value::Text(inner) => Some(inner.clone()),
                _ => Some(text.clone()),
            },
            Value::Loose(text) => Some(text.clone()),
            _ => None,
        }
    }

    fn render(&self) -> String {
        quote(self)
    }

    fn within(&self, _: &impl RangeBounds<()>) -> bool {
        true
    }

    fn render_bound((): &()) -> String {
        Self::new()
    }
}

impl OptionValue for Duration {
    type Bound = Self;

    fn describe() -> String {
        "a duration such as \"5s\" or \"100ms\"".into()
    }

    fn parse(value: &Value) -> Option<Self> {
        match &*value.tightened() {
            Value::Text(text) => parse_duration(text),
            Value::Int(0) => Some(Self::ZERO),
            _ => None,
        }
    }

    fn render(&self) -> String {
        quote(&duration_text(*self))
    }

    fn within(&self, range: &impl RangeBounds<Self>) -> bool {
        range.contains(self)
    }

    fn render_bound(bound: &Self) -> String {
        duration_text(*bound)
    }
}

impl Scalar for Duration {
    fn to_bits(&self) -> u64 {
        crate::time::nanos_of(*self)
    }

    fn from_bits(bits: u64) -> Self {
        Self::from_nanos(bits)
    }
}

impl OptionValue for Size {
    type Bound = Self;

    fn describe() -> String {
        "a size such as \"64MiB\", or a number of bytes".into()
    }

    fn parse(value: &Value) -> Option<Self> {
        match &*value.tightened() {
            Value::Text(text) => Self::parse(text),
            Value::Int(n) => u64::try_from(*n).ok().map(Self::bytes),
            _ => None,
        }
    }

    fn render(&self) -> String {
        quote(&self.to_string())
    }

    fn within(&self, range: &impl RangeBounds<Self>) -> bool {
        range.contains(self)
    }

    fn render_bound(bound: &Self) -> String {
        bound.to_string()
    }
}

impl Scalar for Size {
    fn to_bits(&self) -> u64 {
        self.get()
    }

    fn from_bits(bits: u64) -> Self {
        Self::bytes(bits)
    }
}

/// An option that may be left out; `None` is written by not writing the key.
impl<T: OptionValue> OptionValue for Option<T> {
    type Bound = T::Bound;

    fn describe() -> String {
        T::describe()
    }

    fn parse(value: &Value) -> Option<Self> {
        T::parse(value).map(Some)
    }

    fn render(&self) -> String {
        self.as_ref().map_or_else(|| "unset".into(), T::render)
    }

    fn within(&self, range: &impl RangeBounds<Self::Bound>) -> bool {
        self.as_ref().is_none_or(|value| value.within(range))
    }

    fn render_bound(bound: &Self::Bound) -> String {
        T::render_bound(bound)
    }

    fn flag_type() -> &'static str {
        T::flag_type()
    }
}

/// A list; also a single string with commas between the elements, as Pegasus's own files have it.
impl<T: OptionValue> OptionValue for Vec<T> {
    type Bound = T::Bound;

    fn describe() -> String {
        format!("a list, each element {}", T::describe())
    }

    fn parse(value: &Value) -> Option<Self> {
        match &*value.tightened() {
            Value::List(items) => items.iter().map(T::parse).collect(),
            Value::Text(text) => text
                .split(',')
                .map(str::trim)
                .filter(|part| !part.is_empty())
                .map(|part| T::parse(&Value::Loose(part.to_owned())))
                .collect(),
            // `--set apps.meta.ports=34601`
            Value::Int(n) => Some(vec![T::parse(&Value::Int(*n))?]),
            _ => None,
        }
    }

    fn render(&self) -> String {
        let items: Vec<String> = self.iter().map(T::render).collect();
        format!("[{}]", items.join(", "))
    }

    fn within(&self, range: &impl RangeBounds<Self::Bound>) -> bool {
        self.iter().all(|item| item.within(range))
    }

    fn render_bound(bound: &Self::Bound) -> String {
        T::render_bound(bound)
    }
}

/// A list of a fixed length.
impl<T: OptionValue, const N: usize> OptionValue for [T; N] {
    type Bound = T::Bound;

    fn describe() -> String {
        format!("a list of {N}, each element {}", T::describe())
    }

    fn parse(value: &Value) -> Option<Self> {
        Vec::<T>::parse(value)?.try_into().ok()
    }

    fn render(&self) -> String {
        self.to_vec().render()
    }

    fn within(&self, range: &impl RangeBounds<Self::Bound>) -> bool {
        self.iter().all(|item| item.within(range))
    }

    fn render_bound(bound: &Self::Bound) -> String {
        T::render_bound(bound)
    }
}

/// Lets a default be written as a literal: `String = "text"`, `Vec<u32> = [1, 2]`.
pub trait IntoDefault<T> {
    /// The default as a value of the option's type.
    fn into_default(self) -> T;
}

impl<T> IntoDefault<T> for T {
    fn into_default(self) -> T {
        self
    }
}

impl IntoDefault<String> for &'static str {
    fn into_default(self) -> String {
        self.to_owned()
    }
}

impl<T, U: IntoDefault<T>, const N: usize> IntoDefault<Vec<T>> for [U; N] {
    fn into_default(self) -> Vec<T> {
        self.into_iter().map(U::into_default).collect()
    }
}

/// Declares an enum whose variants are the allowed values of an option, each with its spelling in the
/// file and, after `|`, further spellings that are accepted.
///
/// ```
/// dsn_core::choice! {
///     /// How fast.
///     pub enum Pace {
///         /// Not fast.
///         Slow = "slow",
///         /// Fast.
///         Fast = "fast" | "quick",
///     }
/// }
/// use dsn_core::config::{OptionValue, Value};
/// assert_eq!(Pace::parse(&Value::Text("quick".into())), Some(Pace::Fast));
/// assert_eq!(Pace::Fast.name(), "fast");
/// ```
#[macro_export]
macro_rules! choice {
    (
        $(#[$meta:meta])*
        $vis:vis enum $Name:ident {
            $( $(#[$variant_meta:meta])* $Variant:ident = $text:literal $(| $alias:literal)* ),+ $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        $vis enum $Name { $( $(#[$variant_meta])* $Variant ),+ }

        $crate::choice! { impl for $Name { $( $Variant = $text $(| $alias)* ),+ } }
    };
    // For an enum of this crate that exists already.
    (
        impl for $Name:ident { $( $Variant:ident = $text:literal $(| $alias:literal)* ),+ $(,)? }
    ) => {
        impl $Name {
            /// Every value, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$Variant),+];

            /// The value's spelling in a configuration file.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$Variant => $text),+ }
            }

            /// The value of one of its spellings.
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($text $(| $alias)* => Some(Self::$Variant),)+
                    _ => None,
                }
            }
        }

        impl $crate::config::OptionValue for $Name {
            type Bound = ();

            fn describe() -> String {
                let names: Vec<String> =
                    Self::ALL.iter().map(|value| format!("{:?}", value.name())).collect();
                names.join(" or ")
            }

            fn parse(value: &$crate::config::Value) -> Option<Self> {
                Self::from_name(&<String as $crate::config::OptionValue>::parse(value)?)
            }

            fn render(&self) -> String {
                format!("{:?}", self.name())
            }

            fn within(&self, _: &impl ::core::ops::RangeBounds<()>) -> bool {
                true
            }

            fn render_bound(_: &()) -> String {
                String::new()
            }
        }

        impl $crate::config::Scalar for $Name {
            fn to_bits(&self) -> u64 {
                *self as u64
            }

            fn from_bits(bits: u64) -> Self {
                Self::ALL.get(bits as usize).copied().unwrap_or(Self::ALL[0])
            }
        }

        impl ::core::fmt::Display for $Name {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loose(text: &str) -> Value {
        Value::Loose(text.into())
    }

    fn text(text: &str) -> Value {
        Value::Text(text.into())
    }

    #[test]
    fn integers_must_fit() {
        assert_eq!(u16::parse(&Value::Int(65_535)), Some(65_535));
        assert_eq!(u16::parse(&Value::Int(65_536)), None);
        assert_eq!(u32::parse(&Value::Int(-1)), None);
        assert_eq!(u64::parse(&Value::Int(i128::from(u64::MAX))), Some(u64::MAX));
        assert_eq!(u32::parse(&text("5")), None, "a quoted number is a string");
        assert_eq!(u32::parse(&loose("5")), Some(5));
        assert_eq!(i64::from_bits((-3i64).to_bits()), -3);
        assert_eq!(i32::from_bits((-3i32).to_bits()), -3);
    }

    #[test]
    fn strings_take_loose_text_as_it_stands() {
        assert_eq!(String::parse(&loose("123")), Some("123".into()));
        assert_eq!(String::parse(&loose("\"a b\"")), Some("a b".into()));
        assert_eq!(String::parse(&loose("\"open")), Some("\"open".into()));
        assert_eq!(String::parse(&Value::Int(1)), None);
    }

    #[test]
    fn lists_accept_commas() {
        let names = Vec::<String>::parse(&text("a:1, b:2,")).expect("list");
        assert_eq!(names, ["a:1", "b:2"]);
        assert_eq!(Vec::<u16>::parse(&loose("[1,2]")), Some(vec![1, 2]));
        assert_eq!(Vec::<u16>::parse(&loose("1,2")), Some(vec![1, 2]));
        assert_eq!(Vec::<u16>::parse(&loose("7")), Some(vec![7]));
        assert_eq!(Vec::<u16>::parse(&Value::List(vec![text("x")])), None);
        assert_eq!(Vec::<String>::parse(&text("")), Some(vec![]));
        assert_eq!(<[u16; 2]>::parse(&loose("1,2")), Some([1, 2]));
        assert_eq!(<[u16; 3]>::parse(&loose("1,2")), None);
        assert!(vec![1u16, 5].within(&(1..=5)) && !vec![1u16, 6].within(&(1..=5)));
    }

    #[test]
    fn durations_sizes_and_numbers() {
        assert_eq!(Duration::parse(&text("2s")), Some(Duration::from_secs(2)));
        assert_eq!(Duration::parse(&loose("2s")), Some(Duration::from_secs(2)));
        assert_eq!(Duration::parse(&Value::Int(5)), None, "a unit is required");
        assert_eq!(<Size as OptionValue>::parse(&Value::Int(4096)), Some(Size::kib(4)));
        assert_eq!(f64::parse(&Value::Int(1)), Some(1.0));
        assert_eq!(f64::parse(&loose("nan")), None);
        assert_eq!(Option::<u32>::parse(&loose("3")), Some(Some(3)));
        assert_eq!(Option::<u32>::None.render(), "unset");
    }
}
