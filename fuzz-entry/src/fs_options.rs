//! What an operator types: rules for attributes' names, for users and groups, and the C virtiofsd's `-o`.

use std::ffi::CString;

use clap::Parser;
use virtiofsd::options::Options;
use virtiofsd::passthrough::{IdTranslation, TranslationRule, XattrMap};

const NAMES: [&str; 7] = [
    "user.a",
    "trusted.overlay.opaque",
    "security.selinux",
    "system.posix_acl_access",
    "user.virtiofs.trusted.b",
    "x",
    "",
];

fn attributes(text: &str) {
    let Ok(map) = text.parse::<XattrMap>() else {
        return;
    };
    let typed = text
        .split_whitespace()
        .take(3)
        .filter(|word| !word.contains('\0'));
    for name in NAMES.into_iter().chain(typed) {
        let name = CString::new(name).unwrap();
        if let Ok(host) = map.to_host(&name) {
            assert!(host.to_bytes().ends_with(name.to_bytes()));
        }
        if let Some(guest) = map.to_guest(name.to_bytes()) {
            assert!(name.to_bytes().ends_with(guest));
        }
    }
}

fn users(text: &str) {
    let rules = text
        .lines()
        .filter_map(|line| line.parse::<TranslationRule>().ok());
    let rules: Vec<_> = rules.take(20).collect();
    let Ok(translation) = IdTranslation::new(&rules) else {
        return;
    };
    let both = rules
        .iter()
        .all(|rule| matches!(rule, TranslationRule::Both(_)));
    let edges = rules.iter().flat_map(|rule| match *rule {
        TranslationRule::Both(span)
        | TranslationRule::Guest(span)
        | TranslationRule::Host(span)
        | TranslationRule::SquashGuest(span)
        | TranslationRule::SquashHost(span) => [span.from, span.from + (span.count - 1), span.to],
        TranslationRule::ForbidGuest { first, count } => [first, first + (count - 1), 0],
    });
    for id in [0, 1, 1000, u32::MAX - 1, u32::MAX]
        .into_iter()
        .chain(edges)
    {
        let host = translation.to_host(id);
        let _ = translation.to_guest(id);
        // What a rule maps one to one comes back.
        if let Ok(host) = host
            && both
            && host != id
        {
            assert_eq!(translation.to_guest(host), id);
        }
    }
}

/// What one input does.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    attributes(text);
    users(text);
    let arguments = [
        "virtiofsd",
        "--socket-path",
        "/s",
        "--shared-dir",
        "/",
        "-o",
        text,
    ];
    if let Ok(options) = Options::try_parse_from(arguments) {
        let _ = options.with_compat();
    }
}
