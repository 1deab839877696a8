//! Envs: settings of a table that replicas follow while they run.
//!
//! The meta server refuses names it does not know and values that make no sense, when a table is made as well as when
//! an env is set. Each layer that reads envs contributes its rules; those of replication are here.

use crate::table_rules as keys;
use crate::throttle::{ReadBucket, Throttle};
use std::fmt;

/// Most envs of one table.
pub const MAX_ENVS: usize = 256;

/// Longest value of an env in bytes.
pub const MAX_VALUE_LEN: usize = 64 * 1024;

/// Checks a value; the error says what is wrong with it.
pub type CheckEnv = fn(&str) -> Result<(), String>;

/// One env that may be set.
#[derive(Clone, Copy)]
pub struct EnvRule {
    /// Its name.
    pub name: &'static str,
    /// What values it may have, in words.
    pub limit: &'static str,
    /// A value that it may have.
    pub sample: &'static str,
    /// Checks a value.
    pub check: CheckEnv,
}

impl fmt::Debug for EnvRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.limit)
    }
}

/// Every env that may be set.
#[derive(Clone, Debug, Default)]
pub struct EnvRules {
    rules: Vec<EnvRule>,
}

impl EnvRules {
    /// The envs of replication.
    #[must_use]
    pub fn new() -> Self {
        Self { rules: RULES.to_vec() }
    }

    /// Adds the envs of another layer.
    #[must_use]
    pub fn with(mut self, rules: &[EnvRule]) -> Self {
        self.rules.extend_from_slice(rules);
        self
    }

    /// Checks a name with its value.
    ///
    /// # Errors
    /// A sentence for the user: an unknown name, or a value that is not allowed.
    pub fn check(&self, name: &str, value: &str) -> Result<(), String> {
        let Some(rule) = self.rules.iter().find(|rule| rule.name == name) else {
            return Err(format!("app_env '{name}' is not supported"));
        };
        if value.len() > MAX_VALUE_LEN {
            return Err(format!("{name}: a value of {} bytes is too long", value.len()));
        }
        (rule.check)(value).map_err(|what| {
            format!("{name} = '{value}': {what}; limit: {}, sample: {}", rule.limit, rule.sample)
        })
    }

    /// All rules, for `/envs/list`.
    pub fn iter(&self) -> impl Iterator<Item = &EnvRule> {
        self.rules.iter()
    }
}

/// `true` or `false`.
///
/// # Errors
/// Anything else.
pub fn check_bool(value: &str) -> Result<(), String> {
    match value {
        "true" | "false" => Ok(()),
        _ => Err("neither true nor false".to_owned()),
    }
}

/// A whole number in a range.
///
/// # Errors
/// No number, or outside the range.
pub fn check_number(value: &str, range: std::ops::RangeInclusive<i64>) -> Result<(), String> {
    match value.parse::<i64>() {
        Ok(number) if range.contains(&number) => Ok(()),
        Ok(_) => Err(format!("not within {} to {}", range.start(), range.end())),
        Err(_) => Err("not a whole number".to_owned()),
    }
}

/// Any text.
///
/// # Errors
/// None.
pub fn check_any(_: &str) -> Result<(), String> {
    Ok(())
}

fn check_slow_query(value: &str) -> Result<(), String> {
    check_number(value, 20..=i64::MAX)
}

fn check_deny(value: &str) -> Result<(), String> {
    let manner = ["timeout*", "reconfig*"].iter().find_map(|manner| value.strip_prefix(manner));
    match manner {
        Some("all" | "read" | "write") => Ok(()),
        _ if value.is_empty() => Ok(()),
        _ => Err("not a manner, an asterisk and a kind of request".to_owned()),
    }
}

fn check_throttling(value: &str) -> Result<(), String> {
    Throttle::parse(value, 1).map(|_| ())
}

fn check_throttling_by_size(value: &str) -> Result<(), String> {
    ReadBucket::parse(value, 1).map(|_| ())
}

const THROTTLING: &str = "units[K|M]*delay|reject*milliseconds, one or both, with a comma";

/// The envs that replication reads.
pub const RULES: &[EnvRule] = &[
    EnvRule {
        name: keys::WRITE_THROTTLING,
        limit: THROTTLING,
        sample: "20000*delay*100,30000*reject*200",
        check: check_throttling,
    },
    EnvRule {
        name: keys::WRITE_THROTTLING_BY_SIZE,
        limit: THROTTLING,
        sample: "10M*delay*100",
        check: check_throttling,
    },
    EnvRule {
        name: keys::READ_THROTTLING,
        limit: THROTTLING,
        sample: "20000*reject*100",
        check: check_throttling,
    },
    EnvRule {
        name: keys::READ_THROTTLING_BY_SIZE,
        limit: "bytes[K|M], or as the others",
        sample: "100M",
        check: check_throttling_by_size,
    },
    EnvRule {
        name: keys::BACKUP_REQUEST_THROTTLING,
        limit: THROTTLING,
        sample: "1000*reject*0",
        check: check_throttling,
    },
    EnvRule {
        name: keys::DENY_CLIENT_REQUEST,
        limit: "timeout|reconfig*all|read|write, or empty",
        sample: "timeout*write",
        check: check_deny,
    },
    EnvRule {
        name: "replica.slow_query_threshold",
        limit: "milliseconds, 20 or more",
        sample: "100",
        check: check_slow_query,
    },
    EnvRule {
        name: keys::VALIDATE_PARTITION_HASH,
        limit: "true or false",
        sample: "false",
        check: check_bool,
    },
    EnvRule {
        name: "replica_access_controller.allowed_users",
        limit: "names with commas",
        sample: "a,b",
        check: check_any,
    },
    EnvRule { name: "business.info", limit: "any text", sample: "who to ask", check: check_any },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_passes_its_own_rule() {
        let rules = EnvRules::new();
        for rule in rules.iter() {
            assert_eq!(rules.check(rule.name, rule.sample), Ok(()), "{rule:?}");
        }
    }

    #[test]
    fn bad_names_and_values_are_told() {
        let rules = EnvRules::new();
        let refused = [
            ("default_ttl", "1", "not supported"),
            ("replica.slow_query_threshold", "19", "within 20"),
            ("replica.slow_query_threshold", "x", "whole number"),
            ("replica.deny_client_request", "timeout*scan", "asterisk"),
            ("replica.write_throttling", "0*delay*1", "above zero"),
            ("replica.write_throttling", "1*delay*1,2*delay*1", "twice"),
            ("replica.write_throttling", "1*delay", "units*kind"),
            ("replica.write_throttling", "1*delay*-1", "milliseconds"),
            ("replica.split.validate_partition_hash", "1", "neither"),
        ];
        for (name, value, expected) in refused {
            let hint = rules.check(name, value).unwrap_err();
            assert!(hint.contains(expected), "{name} = {value}: {hint}");
        }
        assert_eq!(rules.check("replica.read_throttling_by_size", "5K"), Ok(()));
        assert!(rules.check("business.info", &"x".repeat(MAX_VALUE_LEN + 1)).is_err());
    }
}
