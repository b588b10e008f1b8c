//! The file of `ringside-vmm --config`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmm::options::parse;

fuzz_target!(|text: &[u8]| {
    if let Ok(description) = parse(text) {
        let written = serde_json::to_vec(&description).expect("a description can be written");
        assert_eq!(parse(&written).as_ref(), Ok(&description));
    }
});
