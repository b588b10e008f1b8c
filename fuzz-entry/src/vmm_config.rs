//! The file of `ringside-vmm --config`.

use vmm::options::parse;

/// What one input does.
pub fn run(text: &[u8]) {
    if let Ok(description) = parse(text) {
        let written = serde_json::to_vec(&description).expect("a description can be written");
        assert_eq!(parse(&written).as_ref(), Ok(&description));
    }
}
