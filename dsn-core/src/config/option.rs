//! One definition per option.
//!
//! [`options!`](crate::options) declares a section: a typed struct with one field per key and, from the
//! same lines, the [`SectionSchema`] that finds unknown keys, checks values, writes the reference page
//! and the dump, and changes mutable options at run time. An option that is not declared cannot be read,
//! and one that is declared cannot be undocumented.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::kinds::{OptionValue, Scalar};
use super::reader::SectionReader;
use super::value::Value;

/// What is known of one option without reading any file.
#[derive(Clone, Copy)]
pub struct OptionSchema {
    /// The key within its section. `*` in a section whose keys are free.
    pub key: &'static str,
    /// What it does, in sentences.
    pub doc: &'static str,
    /// Whether `set` may change it while the server runs.
    pub mutable: bool,
    /// The type in words.
    pub kind: fn() -> String,
    /// The type in Pegasus's words, `FV_UINT32` and so on.
    pub flag_type: fn() -> &'static str,
    /// The allowed range in words, empty when any value of the type will do.
    pub range: fn() -> String,
    /// The default, as TOML.
    pub default: fn() -> String,
    /// Reads and bounds-checks a value.
    pub check: fn(&Value) -> Option<Checked>,
}

/// A value that was found to be of the right type and in range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The value as TOML.
    pub text: String,
    /// The value of a mutable option as bits; see [`Scalar`].
    pub bits: Option<u64>,
}

impl OptionSchema {
    /// What a value has to be: the type and, if there is one, the range.
    pub fn expected(&self) -> String {
        let (kind, range) = ((self.kind)(), (self.range)());
        if range.is_empty() { kind } else { format!("{kind}, {range}") }
    }
}

impl fmt::Debug for OptionSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} = {}", self.key, self.expected(), (self.default)())
    }
}

/// What is known of one section.
#[derive(Clone, Copy, Debug)]
pub struct SectionSchema {
    /// Table names with dots between them. A `*` stands for any name: `threadpool.*`.
    pub path: &'static str,
    /// What the section is for, in sentences.
    pub doc: &'static str,
    /// Its options in the order of declaration.
    pub options: &'static [OptionSchema],
}

impl SectionSchema {
    /// The option called `key`.
    pub fn option(&self, key: &str) -> Option<&OptionSchema> {
        self.options.iter().find(|option| option.key == key || option.key == "*")
    }

    /// Whether keys are chosen by whoever writes the file.
    pub fn has_free_keys(&self) -> bool {
        self.options.iter().any(|option| option.key == "*")
    }

    /// Whether the path names many sections.
    pub fn is_pattern(&self) -> bool {
        self.path.split('.').any(|name| name == "*")
    }
}

/// A section of the configuration as a typed struct. Implemented by [`options!`](crate::options).
pub trait Section: Sized {
    /// The section's description.
    fn schema() -> &'static SectionSchema;

    /// Takes each field from the configuration, or its default.
    fn read(reader: &SectionReader<'_>) -> Self;
}

/// An option that can change while the server runs. Cheap to read: one relaxed load.
///
/// All handles to one option of one node see the same value.
#[derive(Clone)]
pub struct Tunable<T> {
    cell: Arc<AtomicU64>,
    kind: PhantomData<fn() -> T>,
}

impl<T: Scalar> Tunable<T> {
    /// A handle of its own that nothing changes: for tests and defaults.
    pub fn fixed(value: T) -> Self {
        Self::on(Arc::new(AtomicU64::new(value.to_bits())))
    }

    pub(crate) fn on(cell: Arc<AtomicU64>) -> Self {
        Self { cell, kind: PhantomData }
    }

    /// The present value.
    pub fn get(&self) -> T {
        T::from_bits(self.cell.load(Ordering::Relaxed))
    }
}

impl<T: Scalar + fmt::Debug> fmt::Debug for Tunable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// Words for a range: `1..=1000` is "1 to 1000".
pub fn range_text<T: OptionValue>(range: &impl RangeBounds<T::Bound>) -> String {
    let low = match range.start_bound() {
        Bound::Included(low) => Some(T::render_bound(low)),
        Bound::Excluded(low) => Some(format!("more than {}", T::render_bound(low))),
        Bound::Unbounded => None,
    };
    let high = match range.end_bound() {
        Bound::Included(high) => Some(T::render_bound(high)),
        Bound::Excluded(high) => Some(format!("less than {}", T::render_bound(high))),
        Bound::Unbounded => None,
    };
    match (low, high) {
        (Some(low), Some(high)) => format!("{low} to {high}"),
        (Some(low), None) => format!("at least {low}"),
        (None, Some(high)) => format!("at most {high}"),
        (None, None) => String::new(),
    }
}

/// Declares a section of the configuration.
///
/// Each option is a doc comment, `key: Type = default`, optionally `, in low..=high` and optionally
/// `, [mutable]`, ended by `;`. The doc comment becomes the text of the reference page. A mutable
/// option's field is a [`Tunable`]. A section whose last path element is `*` exists once per name the
/// file uses, and inherits from the one called `default`. With `map Type` instead of a list of options,
/// the keys of the section are free.
///
/// ```
/// use dsn_core::config::{ConfigSchema, Loader};
///
/// dsn_core::options! {
///     /// How the kitchen works.
///     pub section KitchenOptions at "kitchen" {
///         /// Cooks at work at the same time.
///         cooks: u32 = 2, in 1..=10;
///         /// Whether the door is open to guests.
///         open: bool = true, [mutable];
///     }
/// }
///
/// let schema = ConfigSchema::new().section::<KitchenOptions>();
/// let config = Loader::new(schema).text("kitchen.toml", "[kitchen]\ncooks = 3").load()?;
/// let options: KitchenOptions = config.section()?;
/// assert_eq!((options.cooks, options.open.get()), (3, true));
/// config.set("kitchen.open", "false")?;
/// assert!(!options.open.get());
/// # Ok::<(), dsn_core::config::ConfigError>(())
/// ```
#[macro_export]
macro_rules! options {
    (
        $(#[doc = $section_doc:literal])+
        $vis:vis section $Name:ident at $path:literal {
            $(
                $(#[doc = $doc:literal])+
                $key:ident : $ty:ty = $default:expr
                $(, in $range:expr)?
                $(, [$flag:ident])? ;
            )*
        }
    ) => {
        $(#[doc = $section_doc])+
        #[derive(Clone, Debug)]
        $vis struct $Name {
            $( $(#[doc = $doc])+ pub $key: $crate::__option_field!($ty $(, $flag)?), )*
        }

        impl Default for $Name {
            fn default() -> Self {
                <Self as $crate::config::Section>::read(&$crate::config::SectionReader::defaults())
            }
        }

        impl $crate::config::Section for $Name {
            fn schema() -> &'static $crate::config::SectionSchema {
                static SCHEMA: $crate::config::SectionSchema = $crate::config::SectionSchema {
                    path: $path,
                    doc: concat!($($section_doc, "\n"),+),
                    options: &[$(
                        $crate::config::OptionSchema {
                            key: $crate::config::key_name(stringify!($key)),
                            doc: concat!($($doc, "\n"),+),
                            mutable: $crate::__option_mutable!($($flag)?),
                            kind: || <$ty as $crate::config::OptionValue>::describe(),
                            flag_type: || <$ty as $crate::config::OptionValue>::flag_type(),
                            range: || $crate::config::range_text::<$ty>(
                                &$crate::__option_range!($($range)?)),
                            default: || $crate::config::OptionValue::render(
                                &$crate::config::default_value::<$ty, _>($default)),
                            check: |value| {
                                let value = <$ty as $crate::config::OptionValue>::parse(value)?;
                                let range = $crate::__option_range!($($range)?);
                                if !$crate::config::OptionValue::within(&value, &range) {
                                    return None;
                                }
                                Some($crate::config::Checked {
                                    text: $crate::config::OptionValue::render(&value),
                                    bits: $crate::__option_bits!(value $(, $flag)?),
                                })
                            },
                        },
                    )*],
                };
                &SCHEMA
            }

            fn read(reader: &$crate::config::SectionReader<'_>) -> Self {
                let _ = reader; // a section may be empty
                Self {$(
                    $key: $crate::__option_read!(
                        reader, $crate::config::key_name(stringify!($key)), $ty, $default
                        $(, $flag)?
                    ),
                )*}
            }
        }
    };
    (
        $(#[doc = $section_doc:literal])+
        $vis:vis section $Name:ident at $path:literal map $ty:ty;
    ) => {
        $(#[doc = $section_doc])+
        #[derive(Clone, Debug, Default)]
        $vis struct $Name {
            /// Every key the section has, with its value.
            pub entries: ::std::collections::BTreeMap<String, $ty>,
        }

        impl $crate::config::Section for $Name {
            fn schema() -> &'static $crate::config::SectionSchema {
                static SCHEMA: $crate::config::SectionSchema = $crate::config::SectionSchema {
                    path: $path,
                    doc: concat!($($section_doc, "\n"),+),
                    options: &[$crate::config::OptionSchema {
                        key: "*",
                        doc: " Any key.\n",
                        mutable: false,
                        kind: || <$ty as $crate::config::OptionValue>::describe(),
                        flag_type: || <$ty as $crate::config::OptionValue>::flag_type(),
                        range: String::new,
                        default: || "unset".into(),
                        check: |value| Some($crate::config::Checked {
                            text: $crate::config::OptionValue::render(
                                &<$ty as $crate::config::OptionValue>::parse(value)?),
                            bits: None,
                        }),
                    }],
                };
                &SCHEMA
            }

            fn read(reader: &$crate::config::SectionReader<'_>) -> Self {
                Self { entries: reader.entries() }
            }
        }
    };
}

/// The name of a key from the token that declares it: `r#type` is `type`.
pub const fn key_name(token: &'static str) -> &'static str {
    match token.as_bytes() {
        [b'r', b'#', ..] => token.split_at(2).1,
        _ => token,
    }
}

/// The default `value` of an option of type `T`.
pub fn default_value<T, D: super::kinds::IntoDefault<T>>(value: D) -> T {
    value.into_default()
}

#[doc(hidden)]
#[macro_export]
macro_rules! __option_field {
    ($ty:ty) => { $ty };
    ($ty:ty, mutable) => { $crate::config::Tunable<$ty> };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __option_mutable {
    () => {
        false
    };
    (mutable) => {
        true
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __option_range {
    () => {
        ..
    };
    ($range:expr) => {
        $range
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __option_bits {
    ($value:ident) => {
        None
    };
    ($value:ident, mutable) => {
        Some($crate::config::Scalar::to_bits(&$value))
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __option_read {
    ($reader:ident, $key:expr, $ty:ty, $default:expr) => {
        $reader.value::<$ty>($key, || $crate::config::default_value::<$ty, _>($default))
    };
    ($reader:ident, $key:expr, $ty:ty, $default:expr, mutable) => {
        $reader.tunable::<$ty>($key, || $crate::config::default_value::<$ty, _>($default))
    };
}
