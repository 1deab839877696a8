//! The two macros that declare what travels: `message!` for structures, `wire_enum!` for
//! enumerations.

/// Declares messages with their field ids.
///
/// Plain fields are always written and default when absent; `Option` fields are written when set. A
/// default other than the type's own follows an equals sign. Unknown fields are skipped.
///
/// ```
/// dsn_rpc::message! {
///     /// A counter to be moved.
///     pub struct AddRequest {
///         /// Which counter.
///         1: name: String,
///         /// By how much.
///         2: amount: i64 = 1,
///         /// Why.
///         5: reason: Option<String>,
///     }
/// }
///
/// let request = AddRequest { name: "a".into(), ..Default::default() };
/// let mut out = bytes::BytesMut::new();
/// dsn_rpc::thrift::encode_wrapped(&request, dsn_rpc::thrift::ARGUMENT_ID, &mut out);
/// let back: AddRequest = dsn_rpc::thrift::decode_wrapped(&out.freeze()).unwrap();
/// assert_eq!((back.amount, back.reason), (1, None));
/// ```
#[macro_export]
macro_rules! message {
    (@default) => { ::core::default::Default::default() };
    (@default $value:expr) => { $value };
    ($(
        $(#[$meta:meta])*
        pub struct $name:ident {
            $( $(#[$field_meta:meta])* $id:literal : $field:ident : $ty:ty $(= $default:expr)? ),*
            $(,)?
        }
    )*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $(
                $(#[$field_meta])*
                #[doc = concat!("(field ", $id, ")")]
                pub $field: $ty,
            )*
        }

        impl ::core::default::Default for $name {
            fn default() -> Self {
                Self { $( $field: $crate::message!(@default $($default)?), )* }
            }
        }

        impl $name {
            #[inline]
            fn read_one(
                &mut self,
                ttype: u8,
                id: i16,
                r: &mut $crate::thrift::Reader<'_>,
            ) -> ::core::result::Result<(), $crate::thrift::WireError> {
                match id {
                    $(
                        $id if ttype == <$ty as $crate::thrift::Field>::TTYPE => {
                            $crate::thrift::Field::read_field(&mut self.$field, r)
                        }
                    )*
                    _ => r.skip(ttype),
                }
            }
        }

        impl $crate::thrift::Encode for $name {
            const TTYPE: u8 = $crate::thrift::ttype::STRUCT;

            fn write(&self, w: &mut $crate::thrift::Writer<'_>) {
                $( $crate::thrift::Field::write_field(&self.$field, $id, w); )*
                w.stop();
            }
        }

        impl $crate::thrift::Decode for $name {
            const MIN_SIZE: usize = 1;

            #[inline]
            fn read(
                r: &mut $crate::thrift::Reader<'_>,
            ) -> ::core::result::Result<Self, $crate::thrift::WireError> {
                let mut message = Self::default();
                message.read_into(r)?;
                Ok(message)
            }

            fn read_into(
                &mut self,
                r: &mut $crate::thrift::Reader<'_>,
            ) -> ::core::result::Result<(), $crate::thrift::WireError> {
                r.enter()?;
                while let Some((ttype, id)) = r.field()? {
                    self.read_one(ttype, id, r)?;
                }
                r.leave();
                Ok(())
            }
        }
    )*};
}

/// Declares enumerations that travel as `i32`. A number without a name is kept as `Other`, never an
/// error.
///
/// ```
/// dsn_rpc::wire_enum! {
///     /// Light of a signal.
///     pub enum Light { Red = 0 => "LIGHT_RED", Green = 1 => "LIGHT_GREEN" }
/// }
///
/// assert_eq!(Light::from(1), Light::Green);
/// assert_eq!(Light::from(7), Light::Other(7));
/// assert_eq!(Light::from_name("LIGHT_RED"), Some(Light::default()));
/// ```
#[macro_export]
macro_rules! wire_enum {
    ($(
        $(#[$meta:meta])*
        pub enum $name:ident {
            $( $(#[$variant_meta:meta])* $variant:ident = $value:literal => $wire:literal ),* $(,)?
        }
    )*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $( $(#[$variant_meta])* #[doc = concat!("`", $wire, "`, ", $value)] $variant, )*
            /// A number that has no name here.
            Other(i32),
        }

        impl $name {
            /// Every named value.
            pub const ALL: &'static [Self] = &[$( Self::$variant ),*];

            /// The name that Pegasus prints, or `"unknown"`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $( Self::$variant => $wire, )*
                    Self::Other(_) => "unknown",
                }
            }

            /// The value with that name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.name() == name)
            }
        }

        impl From<i32> for $name {
            #[inline]
            fn from(value: i32) -> Self {
                match value {
                    $( $value => Self::$variant, )*
                    other => Self::Other(other),
                }
            }
        }

        impl From<$name> for i32 {
            #[inline]
            fn from(value: $name) -> Self {
                match value {
                    $( $name::$variant => $value, )*
                    $name::Other(other) => other,
                }
            }
        }

        impl ::core::default::Default for $name {
            fn default() -> Self {
                Self::from(0)
            }
        }

        impl ::core::fmt::Display for $name {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                match self {
                    Self::Other(number) => ::core::write!(f, "unknown({number})"),
                    named => f.write_str(named.name()),
                }
            }
        }

        impl $crate::thrift::Encode for $name {
            const TTYPE: u8 = $crate::thrift::ttype::I32;

            #[inline]
            fn write(&self, w: &mut $crate::thrift::Writer<'_>) {
                i32::from(*self).write(w);
            }

            #[inline]
            fn write_as_field(&self, id: i16, w: &mut $crate::thrift::Writer<'_>) {
                i32::from(*self).write_as_field(id, w);
            }
        }

        impl $crate::thrift::Decode for $name {
            const MIN_SIZE: usize = 4;

            #[inline]
            fn read(
                r: &mut $crate::thrift::Reader<'_>,
            ) -> ::core::result::Result<Self, $crate::thrift::WireError> {
                r.i32().map(Self::from)
            }
        }
    )*};
}
