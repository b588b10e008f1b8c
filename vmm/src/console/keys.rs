//! The way out of a terminal that passes every key to the guest: Ctrl-A x. Ctrl-A twice is a Ctrl-A.

const ESCAPE: u8 = 1;

/// Remembers an escape at the end of what was typed.
#[derive(Debug, Default)]
pub(super) struct Keys {
    escaped: bool,
}

impl Keys {
    /// What the guest gets, and whether the way out was typed.
    pub(super) fn pass(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut wants_out = false;
        let mut passed = Vec::with_capacity(typed.len());
        for &key in typed {
            match (self.escaped, key) {
                (false, ESCAPE) => self.escaped = true,
                (false, key) => passed.push(key),
                (true, key) => {
                    self.escaped = false;
                    match key {
                        b'x' | b'X' => wants_out = true,
                        ESCAPE => passed.push(ESCAPE),
                        other => passed.extend([ESCAPE, other]),
                    }
                }
            }
        }
        (passed, wants_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_way_out_is_kept_from_the_guest() {
        let mut keys = Keys::default();
        assert_eq!(keys.pass(b"ls\n"), (b"ls\n".to_vec(), false));
        assert_eq!(keys.pass(b"\x01\x01\x01b"), (b"\x01\x01b".to_vec(), false));
        assert_eq!(keys.pass(b"a\x01"), (b"a".to_vec(), false));
        assert_eq!(keys.pass(b"x"), (vec![], true));
        assert_eq!(keys.pass(b"x"), (b"x".to_vec(), false));
    }
}
