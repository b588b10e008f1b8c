//! Other names for extended attributes than guests use (`--xattrmap`).
//!
//! The language is that of the C and the Rust virtiofsd: rules `:type:scope:key:prepend:` with a
//! separator that each rule's first character chooses, white space between rules. The first rule
//! that matches decides. `key` is the beginning of a guest's name, `prepend` of one on the host.

use std::borrow::Cow;
use std::ffi::{CStr, CString};
use std::io;
use std::str::FromStr;

use thiserror::Error;

use super::errno;
use super::xattrs::ACLS;

/// All rules, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XattrMap(Vec<Rule>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    kind: Kind,
    /// It is about names that guests use.
    client: bool,
    /// It is about names that the host lists.
    server: bool,
    key: Vec<u8>,
    prepend: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// `prepend` goes before a guest's name, and away from the host's.
    Prefix,
    /// The name is as it is.
    Ok,
    /// `EPERM`, and hidden.
    Bad,
    /// `ENOTSUP`, and hidden.
    Unsupported,
}

/// Rules that cannot be understood.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum XattrMapError {
    /// Nothing at all.
    #[error("there is no rule; a rule is :TYPE:SCOPE:KEY:PREPEND: or :map:KEY:PREPEND:")]
    Empty,
    /// A field without its end.
    #[error("rule {rule} ends too early: a separator {separator:?} is missing")]
    Incomplete {
        /// Counted from 1.
        rule: usize,
        /// The rule's first character.
        separator: char,
    },
    /// Not a type.
    #[error("rule {rule}: {name:?} is none of prefix, ok, bad, unsupported, map")]
    Type {
        /// Counted from 1.
        rule: usize,
        /// As given.
        name: String,
    },
    /// Not a scope.
    #[error("rule {rule}: {name:?} is none of client, server, all")]
    Scope {
        /// Counted from 1.
        rule: usize,
        /// As given.
        name: String,
    },
    /// A name cannot have this.
    #[error("rule {rule} has a NUL byte in it")]
    Nul {
        /// Counted from 1.
        rule: usize,
    },
    /// What a `map` rule comes to decides about every name.
    #[error("rule {rule} follows a map rule, which must be the last")]
    AfterMap {
        /// Counted from 1.
        rule: usize,
    },
}

impl FromStr for XattrMap {
    type Err = XattrMapError;

    fn from_str(text: &str) -> Result<Self, XattrMapError> {
        let mut rules = Vec::new();
        let mut number = 0;
        let mut mapped = false;
        let mut rest = text.trim_start();
        while let Some(separator) = rest.chars().next() {
            number += 1;
            if mapped {
                return Err(XattrMapError::AfterMap { rule: number });
            }
            let mut fields = Fields {
                rest: &rest[separator.len_utf8()..],
                separator,
                rule: number,
            };
            mapped = parse_rule(&mut fields, &mut rules)?;
            rest = fields.rest.trim_start();
        }
        if rules.is_empty() {
            return Err(XattrMapError::Empty);
        }
        Ok(Self(rules))
    }
}

/// What is left of a rule.
struct Fields<'t> {
    rest: &'t str,
    separator: char,
    rule: usize,
}

impl<'t> Fields<'t> {
    fn next(&mut self) -> Result<&'t str, XattrMapError> {
        let (rule, separator) = (self.rule, self.separator);
        let (field, rest) = self
            .rest
            .split_once(separator)
            .ok_or(XattrMapError::Incomplete { rule, separator })?;
        if field.contains('\0') {
            return Err(XattrMapError::Nul { rule });
        }
        self.rest = rest;
        Ok(field)
    }
}

/// Adds the next rule; whether it was a `map` rule.
fn parse_rule(fields: &mut Fields<'_>, rules: &mut Vec<Rule>) -> Result<bool, XattrMapError> {
    let rule = fields.rule;
    let kind = match fields.next()? {
        "prefix" => Kind::Prefix,
        "ok" => Kind::Ok,
        "bad" => Kind::Bad,
        "unsupported" => Kind::Unsupported,
        "map" => {
            let (key, prepend) = (fields.next()?, fields.next()?);
            rules.extend(map_rules(key, prepend));
            return Ok(true);
        }
        name => {
            let name = name.to_owned();
            return Err(XattrMapError::Type { rule, name });
        }
    };
    let (client, server) = match fields.next()? {
        "client" => (true, false),
        "server" => (false, true),
        "all" => (true, true),
        name => {
            let name = name.to_owned();
            return Err(XattrMapError::Scope { rule, name });
        }
    };
    rules.push(Rule {
        kind,
        client,
        server,
        key: fields.next()?.into(),
        prepend: fields.next()?.into(),
    });
    Ok(false)
}

/// What a `map` rule stands for. With a key: its names get the prefix, cannot be reached without it
/// on either side, and all others are as they are. Without: every name gets the prefix.
fn map_rules(key: &str, prepend: &str) -> Vec<Rule> {
    let rule = |kind, key: &str, prepend: &str| Rule {
        kind,
        client: true,
        server: true,
        key: key.into(),
        prepend: prepend.into(),
    };
    let prefixed = rule(Kind::Prefix, key, prepend);
    if key.is_empty() {
        vec![prefixed, rule(Kind::Bad, "", "")]
    } else {
        let direct = rule(Kind::Bad, prepend, key);
        vec![prefixed, direct, rule(Kind::Ok, "", "")]
    }
}

impl XattrMap {
    /// Whether POSIX ACLs go by their own names: the host knows them by no other.
    pub(crate) fn keeps_acls(&self) -> bool {
        let kept = |name: &CStr| {
            self.to_host(name).is_ok_and(|host| *host == *name)
                && self.to_guest(name.to_bytes()) == Some(name.to_bytes())
        };
        ACLS.into_iter().all(kept)
    }

    /// The host's name for one that a guest uses.
    ///
    /// # Errors
    /// `EPERM` or `ENOTSUP`, as the rule says; `EPERM` if there is none.
    pub fn to_host<'n>(&self, name: &'n CStr) -> io::Result<Cow<'n, CStr>> {
        let bytes = name.to_bytes();
        let matching = |rule: &&Rule| rule.client && bytes.starts_with(&rule.key);
        match self.0.iter().find(matching) {
            Some(Rule {
                kind: Kind::Prefix,
                prepend,
                ..
            }) => {
                let prefixed = CString::new([prepend, bytes].concat());
                Ok(prefixed.map_err(|_| errno(libc::EINVAL))?.into())
            }
            Some(Rule { kind: Kind::Ok, .. }) => Ok(name.into()),
            Some(Rule {
                kind: Kind::Unsupported,
                ..
            }) => Err(errno(libc::ENOTSUP)),
            Some(Rule {
                kind: Kind::Bad, ..
            })
            | None => Err(errno(libc::EPERM)),
        }
    }

    /// The guest's name for one that the host lists; `None`: it is hidden.
    pub fn to_guest<'n>(&self, name: &'n [u8]) -> Option<&'n [u8]> {
        let matching = |rule: &&Rule| rule.server && name.starts_with(&rule.prepend);
        let rule = self.0.iter().find(matching)?;
        match rule.kind {
            Kind::Prefix => Some(&name[rule.prepend.len()..]).filter(|rest| !rest.is_empty()),
            Kind::Ok => Some(name),
            Kind::Bad | Kind::Unsupported => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn map(rules: &str) -> XattrMap {
        rules.parse().unwrap()
    }

    fn to_host(map: &XattrMap, name: &str) -> Result<String, i32> {
        let name = CString::new(name).unwrap();
        let mapped = map.to_host(&name);
        mapped
            .map(|name| name.to_str().unwrap().to_owned())
            .map_err(|error| error.raw_os_error().unwrap())
    }

    fn to_guest<'n>(map: &XattrMap, name: &'n str) -> Option<&'n str> {
        map.to_guest(name.as_bytes())
            .map(|name| std::str::from_utf8(name).unwrap())
    }

    #[test]
    fn everything_gets_a_prefix() {
        let long = map(":prefix:all::user.virtiofs.::bad:all:::");
        assert_eq!(long, map(":map::user.virtiofs.:"));
        let host = to_host(&long, "trusted.a").unwrap();
        assert_eq!(host, "user.virtiofs.trusted.a");
        assert_eq!(to_guest(&long, &host), Some("trusted.a"));
        assert_eq!(to_guest(&long, "user.other"), None);
        assert_eq!(to_guest(&long, "user.virtiofs."), None, "no name is left");
    }

    #[test]
    fn some_get_a_prefix_and_cannot_be_reached_otherwise() {
        let long = map(
            "/prefix/all/trusted./user.virtiofs./\n  /bad/server//trusted./\n \
                        /bad/client/user.virtiofs.//\t/ok/all///  ",
        );
        for map in [long, map("/map/trusted./user.virtiofs./")] {
            assert_eq!(
                to_host(&map, "trusted.a").as_deref(),
                Ok("user.virtiofs.trusted.a")
            );
            assert_eq!(to_host(&map, "user.virtiofs.trusted.a"), Err(libc::EPERM));
            assert_eq!(to_host(&map, "user.a").as_deref(), Ok("user.a"));
            assert_eq!(to_guest(&map, "user.virtiofs.trusted.a"), Some("trusted.a"));
            assert_eq!(to_guest(&map, "trusted.a"), None);
            assert_eq!(to_guest(&map, "user.a"), Some("user.a"));
        }
    }

    #[test]
    fn names_can_be_refused_in_two_ways() {
        let map = map(":bad:all:security.:security.::unsupported:client:system.:::ok:all:::");
        assert_eq!(to_host(&map, "security.selinux"), Err(libc::EPERM));
        assert_eq!(to_guest(&map, "security.selinux"), None);
        assert_eq!(to_host(&map, "system.x"), Err(libc::ENOTSUP));
        assert_eq!(to_guest(&map, "system.x"), Some("system.x"));
    }

    #[test]
    fn what_no_rule_is_about_is_closed() {
        let map = map(":ok:client:user.::");
        assert_eq!(to_host(&map, "user.a").as_deref(), Ok("user.a"));
        assert_eq!(to_host(&map, "trusted.a"), Err(libc::EPERM));
        assert_eq!(to_guest(&map, "user.a"), None);
    }

    #[test]
    fn wrong_rules_are_named() {
        let error = |rules: &str| rules.parse::<XattrMap>().unwrap_err();
        assert_eq!(error(" \n"), XattrMapError::Empty);
        assert!(matches!(
            error(":ok:all::::bad:all::"),
            XattrMapError::Incomplete { rule: 2, .. }
        ));
        assert!(matches!(
            error(":fine:all:::"),
            XattrMapError::Type { rule: 1, .. }
        ));
        assert!(matches!(
            error(":ok:both:::"),
            XattrMapError::Scope { rule: 1, .. }
        ));
        assert_eq!(
            error(":map:a:b::ok:all:::"),
            XattrMapError::AfterMap { rule: 2 }
        );
        assert_eq!(error(":ok:all:\0::"), XattrMapError::Nul { rule: 1 });
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_parser(text in "\\PC{0,60}|([:/](map|ok|bad|prefix|all|client|a\\.)?){0,12}") {
            let _ = text.parse::<XattrMap>();
        }

        /// A guest never sees under one name what it cannot reach by that name, and reaches what
        /// it sees.
        #[test]
        fn a_map_leads_there_and_back(key in "[a-c.]{0,3}", prepend in "[a-c.]{1,4}",
                                      name in "[a-c.]{1,8}") {
            let map = map(&format!(":map:{key}:{prepend}:"));
            if let Ok(host) = to_host(&map, &name) {
                // A name that begins with the prefix on its own is another one's on the host.
                if host != name {
                    prop_assert_eq!(to_guest(&map, &host), Some(&name[..]));
                }
            }
        }
    }
}
