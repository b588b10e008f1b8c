//! When the other side wants to hear of an index. Also part of `models/`, which shows that with it no wake-up is lost.

/// Whether an index that went from `before` to `now` has passed `event`: the other side wants to hear of the entry
/// with that number (virtio 1.2, 2.7.7.2 and 2.7.10.1). All three run over.
pub(crate) fn event_passed(event: u16, before: u16, now: u16) -> bool {
    now.wrapping_sub(event).wrapping_sub(1) < now.wrapping_sub(before)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::event_passed;

    proptest! {
        #[test]
        fn an_event_is_passed_if_its_entry_is_among_the_new_ones(
            event: u16,
            before: u16,
            new in 0_u16..=32768,
        ) {
            let entries: Vec<u16> = (0..new).map(|it| before.wrapping_add(it)).collect();
            let now = before.wrapping_add(new);
            prop_assert_eq!(event_passed(event, before, now), entries.contains(&event));
        }
    }
}
