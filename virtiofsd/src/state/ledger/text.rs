//! Text of any length in units: names and handles.

use std::ffi::CStr;
use std::sync::atomic::Ordering;

use super::{LOW, Ledger, TEXT};
use crate::state::units::{Unit, WORDS};

/// Bytes of text in one unit.
const TEXT_BYTES: usize = (WORDS - 2) * 8;
/// No text is longer: a parent's number and a name.
const MAX_TEXT: usize = 8 + 256;
/// A word that names no text. Others are a unit's number and one.
pub(super) const NO_TEXT: u64 = 0;

impl Ledger {
    /// Stores bytes in as many units as that takes; the word that names the first.
    pub(super) fn add_text(&self, bytes: &[u8]) -> Option<u64> {
        let mut next = NO_TEXT;
        let starts = (0..bytes.len()).step_by(TEXT_BYTES).rev();
        for start in starts {
            let part = &bytes[start..bytes.len().min(start + TEXT_BYTES)];
            let unit = self.0.allocate()?;
            for (at, word) in part.chunks(8).enumerate() {
                let mut whole = [0; 8];
                whole[..word.len()].copy_from_slice(word);
                self.0.store(unit, 2 + at, u64::from_le_bytes(whole));
            }
            self.0.store(unit, 1, next | (part.len() as u64) << 32);
            self.0.word(unit, 0).store(TEXT, Ordering::Release);
            next = u64::from(unit) + 1;
        }
        Some(next)
    }

    /// Reads the text that a node's word names. What is no text is not named any more: it is not the
    /// node's to free.
    pub(super) fn sound_text(&self, unit: Unit, at: usize, named: &mut [bool]) -> Option<Vec<u8>> {
        let text = self.text(self.0.load(unit, at), named);
        if text.is_none() {
            self.0.store(unit, at, NO_TEXT);
        }
        text
    }

    /// Reads text; marks its units in `named`.
    fn text(&self, word: u64, named: &mut [bool]) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut next = word;
        while let Some(unit) = unit_of(next) {
            let named = named.get_mut(unit as usize)?;
            // One unit in two texts, or in one twice: not of our making.
            if self.0.load(unit, 0) != TEXT || *named || bytes.len() > MAX_TEXT {
                return None;
            }
            *named = true;
            let link = self.0.load(unit, 1);
            let len = ((link >> 32) as usize).min(TEXT_BYTES);
            let words = (0..len.div_ceil(8)).flat_map(|at| self.0.load(unit, 2 + at).to_le_bytes());
            bytes.extend(words.take(len));
            next = link & LOW;
        }
        (word != NO_TEXT).then_some(bytes)
    }

    pub(super) fn free_text(&self, word: u64) {
        let mut next = word;
        // Bounded, whatever the file says.
        for _ in 0..=MAX_TEXT / TEXT_BYTES {
            let Some(unit) = unit_of(next) else { break };
            next = self.0.load(unit, 1) & LOW;
            self.0.free(unit);
        }
    }
}

fn unit_of(word: u64) -> Option<Unit> {
    Unit::try_from(word.checked_sub(1)?).ok()
}

/// A name's: its directory's number, and it.
pub(super) fn name_text(parent: u64, name: &CStr) -> Vec<u8> {
    [&parent.to_le_bytes(), name.to_bytes()].concat()
}
