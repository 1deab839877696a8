//! Values of arguments: check types, filters, envs, durations and servers.

use bytes::Bytes;
use clap::ValueEnum;
use pegasus_client::schema::rrdb::{CasCheckType, FilterType};
use std::net::{SocketAddr, ToSocketAddrs};

use crate::words::unescape;

macro_rules! check_types {
    ($($(#[$meta:meta])* $name:ident = $kind:ident,)*) => {
        /// Conditions of a conditional write.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
        #[value(rename_all = "snake_case")]
        pub enum CheckType { $($(#[$meta])* $name,)* }

        impl CheckType {
            /// As on the wire.
            pub fn kind(self) -> CasCheckType {
                match self { $(Self::$name => CasCheckType::$kind,)* }
            }
        }
    };
}

check_types! {
    /// Always.
    NoCheck = NoCheck,
    /// There is no such record.
    NotExist = ValueNotExist,
    /// There is none or its value is empty.
    NotExistOrEmpty = ValueNotExistOrEmpty,
    /// There is one.
    Exist = ValueExist,
    /// There is one and its value is not empty.
    NotEmpty = ValueNotEmpty,
    /// The operand is in the value.
    MatchAnywhere = ValueMatchAnywhere,
    /// The value begins with the operand.
    MatchPrefix = ValueMatchPrefix,
    /// The value ends with the operand.
    MatchPostfix = ValueMatchPostfix,
    /// By bytes.
    BytesLess = ValueBytesLess,
    /// By bytes.
    BytesLessOrEqual = ValueBytesLessOrEqual,
    /// By bytes.
    BytesEqual = ValueBytesEqual,
    /// By bytes.
    BytesGreaterOrEqual = ValueBytesGreaterOrEqual,
    /// By bytes.
    BytesGreater = ValueBytesGreater,
    /// As decimal numbers.
    IntLess = ValueIntLess,
    /// As decimal numbers.
    IntLessOrEqual = ValueIntLessOrEqual,
    /// As decimal numbers.
    IntEqual = ValueIntEqual,
    /// As decimal numbers.
    IntGreaterOrEqual = ValueIntGreaterOrEqual,
    /// As decimal numbers.
    IntGreater = ValueIntGreater,
}

/// What keys must match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter(pub FilterType, pub Bytes);

/// A filter that may not have been given, as scans want it.
pub fn filter_or_none(filter: Option<Filter>) -> (FilterType, Bytes) {
    filter.map_or((FilterType::NoFilter, Bytes::new()), |filter| (filter.0, filter.1))
}

/// `KIND:TEXT`.
pub fn filter(text: &str) -> Result<Filter, String> {
    let (kind, pattern) = text.split_once(':').unwrap_or((text, ""));
    let kind = match kind {
        "anywhere" => FilterType::Anywhere,
        "prefix" => FilterType::Prefix,
        "postfix" => FilterType::Postfix,
        _ => return Err("must be anywhere:TEXT, prefix:TEXT or postfix:TEXT".to_owned()),
    };
    Ok(Filter(kind, unescape(pattern).map_err(|error| error.to_string())?))
}

/// `KEY=VALUE`.
pub fn env(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("must be KEY=VALUE".to_owned()),
    }
}

/// A number of seconds, with decimals.
pub fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.001..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("must be a number from 0.001 to 86400".to_owned()),
    }
}

/// The addresses of servers that are named; IPv4, the first of each.
///
/// # Errors
/// A name that stands for no address.
#[expect(clippy::disallowed_methods, reason = "a program at its start: nothing else waits")]
pub fn resolve(names: &[String]) -> anyhow::Result<Vec<SocketAddr>> {
    let mut found = Vec::with_capacity(names.len());
    for name in names {
        let mut addresses =
            name.to_socket_addrs().map_err(|error| anyhow::anyhow!("{name}: {error}"))?;
        let address = addresses.find(SocketAddr::is_ipv4);
        found.push(address.ok_or_else(|| anyhow::anyhow!("{name} has no IPv4 address"))?);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_or_explained() {
        assert_eq!(
            filter("prefix:a\\x00:b"),
            Ok(Filter(FilterType::Prefix, Bytes::from_static(b"a\0:b")))
        );
        assert_eq!(filter("anywhere"), Ok(Filter(FilterType::Anywhere, Bytes::new())));
        assert!(filter("suffix:a").unwrap_err().contains("postfix"));
        assert_eq!(env("a.b=c=d"), Ok(("a.b".to_owned(), "c=d".to_owned())));
        assert!(env("a").is_err() && env("=a").is_err());
        assert_eq!(seconds("0.5"), Ok(0.5));
        assert!(["0", "-1", "nan", "inf", "1e9", "x"].iter().all(|text| seconds(text).is_err()));
        assert_eq!(resolve(&["127.0.0.1:1".to_owned()]).unwrap(), ["127.0.0.1:1".parse().unwrap()]);
        let error = resolve(&["127.0.0.1".to_owned()]).unwrap_err().to_string();
        assert!(error.starts_with("127.0.0.1: "), "{error}");
    }
}
