use super::*;

struct Deaths(File);

impl Deaths {
    fn new() -> Self {
        Self(tempfile::tempfile().unwrap())
    }

    fn next(&self) -> Journal {
        Journals::open(&self.0, 2).unwrap().queue(1)
    }
}

fn recalled(journal: &Journal, unique: u64, opcode: Opcode) -> Option<Recalled> {
    journal.enter(unique, opcode).unwrap().recalled().cloned()
}

#[test]
fn what_was_begun_or_done_is_known_to_the_next_process() {
    let deaths = Deaths::new();
    let journal = deaths.next();
    let body: Vec<u8> = (0..144).collect();
    let begun = journal.enter(7, Opcode::Unlink).unwrap();
    begun.begin(&[1, 2, 3, 4, 5, 6, 7, 8]);
    let done = journal.enter(8, Opcode::Create).unwrap();
    done.begin(&[0; 8]);
    done.done(0, &body);
    drop(done);
    let refused = journal.enter(9, Opcode::Mkdir).unwrap();
    refused.begin(&[0; 8]);
    refused.done(libc::EEXIST, &[]);
    drop(refused);
    let withdrawn = journal.enter(10, Opcode::Mkdir).unwrap();
    withdrawn.begin(&[0; 8]);
    withdrawn.withdraw();
    std::mem::forget(begun);

    let next = deaths.next();
    assert_eq!(
        recalled(&next, 7, Opcode::Unlink),
        Some(Recalled::Begun([1, 2, 3, 4, 5, 6, 7, 8]))
    );
    assert_eq!(
        recalled(&next, 8, Opcode::Create),
        Some(Recalled::Done(0, body))
    );
    assert_eq!(
        recalled(&next, 9, Opcode::Mkdir),
        Some(Recalled::Done(libc::EEXIST, Vec::new()))
    );
    assert_eq!(recalled(&next, 10, Opcode::Mkdir), None);
    assert_eq!(recalled(&next, 11, Opcode::Mkdir), None);
    let other = Journals::open(&deaths.0, 2).unwrap().queue(0);
    assert_eq!(recalled(&other, 8, Opcode::Create), None, "another queue");
}

#[test]
fn another_request_with_the_same_number_recalls_nothing() {
    let deaths = Deaths::new();
    let entry = deaths.next().enter(7, Opcode::Mkdir).unwrap();
    entry.done(0, &[1]);
    let next = deaths.next();
    assert_eq!(recalled(&next, 7, Opcode::Rmdir), None);
    let next = deaths.next();
    next.journals.clear();
    assert_eq!(recalled(&next, 7, Opcode::Mkdir), None, "cleared");
    assert_eq!(recalled(&deaths.next(), 7, Opcode::Mkdir), None, "for good");
}

/// A queue has at most half as many requests in flight as there are slots.
#[test]
fn what_was_done_last_is_kept_longest() {
    let deaths = Deaths::new();
    let journal = deaths.next();
    let slow = journal.enter(0, Opcode::Rename2).unwrap();
    slow.begin(&[9; 8]);
    for unique in 1..10_000 {
        let entry = journal.enter(unique, Opcode::Mkdir).unwrap();
        entry.begin(&[unique; 8]);
        entry.done(0, &unique.to_le_bytes());
    }
    std::mem::forget(slow);
    let half = u64::from(SLOTS) / 2;
    let next = deaths.next();
    // New requests first: none of them takes the place of one that may be asked for.
    for unique in 20_000..20_000 + half - 1 {
        let entry = next.enter(unique, Opcode::Mkdir).unwrap();
        assert_eq!(entry.recalled(), None);
        entry.done(0, &[]);
    }
    for unique in 10_000 - half..10_000 {
        assert_eq!(
            recalled(&next, unique, Opcode::Mkdir),
            Some(Recalled::Done(0, unique.to_le_bytes().to_vec()))
        );
    }
    assert_eq!(
        recalled(&next, 0, Opcode::Rename2),
        Some(Recalled::Begun([9; 8]))
    );
}

/// A request may be withdrawn by one process, and get another slot from the next.
#[test]
fn a_slot_that_was_withdrawn_says_nothing_of_the_one_that_its_request_got_later() {
    let deaths = Deaths::new();
    let withdrawn = deaths.next().enter(7, Opcode::Unlink).unwrap();
    withdrawn.begin(&[1; 8]);
    withdrawn.withdraw();
    let next = deaths.next();
    // Other requests are first, and take other slots.
    let other = next.enter(8, Opcode::Mkdir).unwrap();
    let begun = next.enter(7, Opcode::Unlink).unwrap();
    assert_ne!(begun.slot, withdrawn.slot);
    begun.begin(&[2; 8]);
    std::mem::forget((begun, other));

    let next = deaths.next();
    // As many as take every free slot.
    for unique in 100..100 + u64::from(SLOTS) - 2 {
        let entry = next.enter(unique, Opcode::Mkdir).unwrap();
        entry.begin(&[0; 8]);
        std::mem::forget(entry);
    }
    assert_eq!(
        recalled(&next, 7, Opcode::Unlink),
        Some(Recalled::Begun([2; 8]))
    );
}

#[test]
fn a_sequence_that_nobody_counted_is_as_good_as_none() {
    let deaths = Deaths::new();
    let entry = deaths.next().enter(7, Opcode::Unlink).unwrap();
    entry.begin(&[0; 8]);
    entry.word(SEQUENCE).store(u64::MAX, Ordering::Relaxed);
    let next = deaths.next();
    assert_eq!(next.journals.queues[1].sequence.load(Ordering::Relaxed), 1);
    assert_eq!(
        recalled(&next, 7, Opcode::Unlink),
        Some(Recalled::Begun([0; 8]))
    );
}
