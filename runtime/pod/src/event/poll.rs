//! The agent's events, asked for without end. The guest may be hostile, and the agent with it: an answer costs
//! the owner no more than an honest one's would, and what comes too often waits.

use std::time::Duration;

use ringside_protocol::agent::Event;
use ringside_protocol::agent::event::What;
use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, sleep_until};

use super::PodEvent;
use crate::agent::Agent;

/// Events taken from one answer, as many as an agent tells in one. What comes behind them is asked for again.
const MOST_AT_ONCE: usize = 256;

/// Answers may come this often for ever, with a credit of [`CREDIT`] for those that come together.
const BETWEEN_ANSWERS: Duration = Duration::from_millis(5);
/// So much is not waited after a quiet time.
const CREDIT: Duration = Duration::from_secs(1);

/// An answer with nothing in it costs so much: it is due only when the question's time is over, which is longer.
const EMPTY: Duration = Duration::from_secs(1);

/// Passes the agent's events on until it is lost; returns why it is.
pub(super) async fn pass_on(agent: &Agent, owner: &Sender<PodEvent>) -> String {
    let mut last = 0;
    let mut due = Instant::now();
    loop {
        sleep_until(due).await;
        let events = match agent.events(last).await {
            Ok(answer) => answer.events,
            Err(error) => return crate::chain(&error),
        };
        let cost = if events.is_empty() {
            EMPTY
        } else {
            BETWEEN_ANSWERS
        };
        due = next_due(due, Instant::now(), cost);
        for event in events.into_iter().take(MOST_AT_ONCE) {
            if event.number <= last {
                // It lives as long as its guest, and counts from 1 once.
                return format!("it told of event {} after {last}", event.number);
            }
            last = event.number;
            if let Some(told) = known(event) {
                // Nobody may want to know any more.
                let _ = owner.send(told).await;
            }
        }
    }
}

/// When the next question is due: what an answer costs behind the time of the last, or behind what is forgiven.
fn next_due(due: Instant, now: Instant, cost: Duration) -> Instant {
    now.checked_sub(CREDIT).map_or(due, |then| due.max(then)) + cost
}

/// What the owner is told. A newer agent may know more.
fn known(event: Event) -> Option<PodEvent> {
    match event.what? {
        What::Exit(exit) => Some(PodEvent::Exit {
            container: exit.container,
            exec: exit.exec,
            code: exit.code,
        }),
        What::OutOfMemory(killed) => Some(PodEvent::OutOfMemory {
            container: killed.container,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
    use std::time::Duration;

    use async_trait::async_trait;
    use ringside_protocol::agent::{EventsRequest, EventsResponse, Exit, OutOfMemory};
    use tokio::sync::mpsc::channel;
    use tokio::time::timeout;
    use ttrpc::asynchronous::TtrpcContext;

    use super::*;
    use crate::event::MOST_WAITING;
    use crate::played;

    /// Answers with `each` events at once, whose numbers go on from the question's by `step`.
    struct Guest {
        each: u64,
        step: u64,
        is_exit: bool,
        asked: AtomicUsize,
        most: AtomicU64,
    }

    impl Guest {
        fn new(each: u64, step: u64, is_exit: bool) -> Self {
            Self {
                each,
                step,
                is_exit,
                asked: AtomicUsize::new(0),
                most: AtomicU64::new(0),
            }
        }

        fn event(&self, number: u64) -> Event {
            let what = if self.is_exit {
                let mut exit = Exit::new();
                exit.code = u32::try_from(number).unwrap();
                What::Exit(exit)
            } else {
                What::OutOfMemory(OutOfMemory::new())
            };
            let mut event = Event::new();
            event.number = number;
            event.what = Some(what);
            event
        }
    }

    /// A guest that is asked by an agent's client, and what must be held meanwhile.
    async fn played(
        guest: Guest,
    ) -> (
        Arc<Guest>,
        Agent,
        (tempfile::TempDir, ttrpc::asynchronous::Server),
    ) {
        let (folder, guest) = (tempfile::tempdir().unwrap(), Arc::new(guest));
        let served = played::agent(folder.path(), guest.clone()).await;
        let (server, agent) = served.unwrap();
        (guest, agent, (folder, server))
    }

    #[async_trait]
    impl played::Service for Guest {
        async fn events(
            &self,
            _: &TtrpcContext,
            request: EventsRequest,
        ) -> ttrpc::Result<EventsResponse> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            self.most.fetch_max(request.after, Ordering::Relaxed);
            let mut answer = EventsResponse::new();
            let numbers = (1..=self.each).map(|index| request.after + index * self.step);
            answer.events = numbers.map(|number| self.event(number)).collect();
            Ok(answer)
        }
    }

    #[tokio::test]
    async fn a_flood_waits_in_the_guest() {
        let (guest, agent, _held) = played(Guest::new(1000, 1, false)).await;
        let (owner, mut told) = channel(MOST_WAITING);
        let flood = timeout(Duration::from_millis(500), pass_on(&agent, &owner));
        assert!(flood.await.is_err(), "it goes on");
        assert_eq!(told.len(), MOST_WAITING);
        let (asked, known) = (&guest.asked, &guest.most);
        assert!(asked.load(Ordering::Relaxed) <= 2);
        assert!(known.load(Ordering::Relaxed) <= 256, "more than was taken");
        drop(owner);
        while told.recv().await.is_some() {}
    }

    #[tokio::test]
    async fn every_end_arrives_in_order_however_slow_the_owner_is() {
        const ALL: u32 = 1500;
        let (_guest, agent, _held) = played(Guest::new(300, 1, true)).await;
        let (owner, mut told) = channel(2);
        let owner = tokio::spawn(async move { pass_on(&agent, &owner).await });
        for number in 1..=ALL {
            let event = told.recv().await.unwrap();
            assert!(
                matches!(event, PodEvent::Exit { code, .. } if code == number),
                "{event:?} is not the end {number}"
            );
        }
        owner.abort();
    }

    #[tokio::test]
    async fn who_does_not_count_on_is_lost() {
        let (_guest, agent, _held) = played(Guest::new(1, 0, false)).await;
        let (owner, _told) = channel(MOST_WAITING);
        let lost = timeout(Duration::from_secs(20), pass_on(&agent, &owner)).await;
        assert_eq!(lost.unwrap(), "it told of event 0 after 0");
    }

    #[tokio::test]
    async fn answers_without_events_are_asked_for_about_once_a_second() {
        let (guest, agent, _held) = played(Guest::new(0, 1, false)).await;
        let (owner, _told) = channel(MOST_WAITING);
        let spin = timeout(Duration::from_millis(1500), pass_on(&agent, &owner));
        assert!(spin.await.is_err());
        let asked = guest.asked.load(Ordering::Relaxed);
        assert!((1..=3).contains(&asked), "{asked} questions");
    }

    #[test]
    fn quick_answers_wait_and_rare_ones_do_not() {
        let start = Instant::now() + Duration::from_secs(100);
        // The first second of answers goes at once, then they keep their distance.
        let mut due = start;
        for _ in 0..1000 {
            due = next_due(due, start, BETWEEN_ANSWERS);
        }
        assert_eq!(due, start + BETWEEN_ANSWERS * 1000);
        // A question's whole time without an event costs nothing.
        let later = due + Duration::from_secs(30);
        assert!(next_due(due, later, EMPTY) <= later);
    }
}
