//! Jobs in a row: one place for each stream, newest wins, those that a person waits for before the others, and of the others
//! who has waited longest or shows the most change.
//! Synchronous. Not here: who waits for the next one (`mailbox`, `wall`), running it (`worker`).

use super::{CancelFlag, Job, JobEvent};
use std::collections::VecDeque;
use std::time::Instant;
use tokio::sync::mpsc;

/// A job with the way back to its owner.
pub struct Ticket {
    pub job: Job,
    pub events: mpsc::Sender<JobEvent>,
    pub cancel: CancelFlag,
}

/// How much faster a wholly new scene's waiting counts than an unchanged one's, less one.
const NOVELTY: f64 = 2.0;

/// What waits. Its bound is the number of streams.
#[derive(Default)]
pub struct Row(VecDeque<Waiting>);

struct Waiting {
    ticket: Ticket,
    since: Instant,
    /// A person waits for it, or for one that it came in place of.
    urgent: bool,
}

impl Waiting {
    /// Seconds of waiting, weighed: nobody starves, because everybody's grow.
    fn weight(&self, now: Instant) -> f64 {
        let novelty = f64::from(self.ticket.job.novelty.clamp(0.0, 1.0));
        now.saturating_duration_since(self.since).as_secs_f64() * (1.0 + NOVELTY * novelty)
    }
}

impl Row {
    /// Puts a ticket in, in place of one of the same stream that still waits: that one's owner gets
    /// [`JobEvent::Replaced`], and the new one has waited as long, or goes before those that no person waits
    /// for if that one did not.
    pub fn put(&mut self, ticket: Ticket) {
        self.put_at(ticket, Instant::now());
    }

    fn put_at(&mut self, ticket: Ticket, now: Instant) {
        let same = self.0.iter().position(|waiting| waiting.ticket.job.stream == ticket.job.stream);
        let old = same.and_then(|i| self.0.remove(i));
        let was_urgent = old.as_ref().is_some_and(|old| old.urgent);
        let urgent = ticket.job.urgent;
        let place = match same {
            Some(i) if was_urgent || !urgent => i,
            _ if urgent => self.0.iter().take_while(|waiting| waiting.urgent).count(),
            _ => self.0.len(),
        };
        let since = old.as_ref().map_or(now, |old| old.since);
        self.0.insert(place, Waiting { ticket, since, urgent: urgent || was_urgent });
        if let Some(old) = old {
            // The channel of a job that never ran is empty, so this can only fail when nobody listens.
            let _nobody_listens = old.ticket.events.try_send(JobEvent::Replaced);
        }
    }

    /// The next ticket whose owner still wants it: those that a person waits for in their order, then whoever has waited
    /// longest, the changes of scenes weighed in.
    pub fn next(&mut self) -> Option<Ticket> {
        self.next_at(Instant::now())
    }

    fn next_at(&mut self, now: Instant) -> Option<Ticket> {
        self.0.retain(|waiting| !waiting.ticket.cancel.is_set());
        let longest = || {
            let weights = self.0.iter().map(|waiting| waiting.weight(now)).enumerate();
            // The first of equals.
            weights.rev().max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(i, _)| i)
        };
        let at = self.0.iter().position(|waiting| waiting.urgent).or_else(longest)?;
        self.0.remove(at).map(|waiting| waiting.ticket)
    }

    /// Empties the row.
    pub fn take_all(&mut self) -> impl Iterator<Item = Ticket> {
        std::mem::take(&mut self.0).into_iter().map(|waiting| waiting.ticket)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{JobHandle, Prompt, Sampling};
    use super::*;

    fn ticket(stream: &str, mark: u32, urgent: bool) -> (JobHandle, Ticket) {
        let (handle, events, cancel) = JobHandle::pair();
        let job = Job {
            stream: stream.into(),
            prompt: Prompt::default(),
            frames: Vec::new(),
            max_tokens: mark,
            sampling: Sampling::default(),
            for_voice: false,
            urgent,
            novelty: 0.0,
        };
        (handle, Ticket { job, events, cancel })
    }

    /// The marks of what waits after these were put in.
    fn order(jobs: &[(&str, u32, bool)]) -> Vec<u32> {
        let mut row = Row::default();
        let _owners: Vec<_> = jobs
            .iter()
            .map(|(stream, mark, urgent)| {
                let (owner, ticket) = ticket(stream, *mark, *urgent);
                row.put(ticket);
                owner
            })
            .collect();
        std::iter::from_fn(|| row.next().map(|ticket| ticket.job.max_tokens)).collect()
    }

    #[test]
    fn newer_frames_keep_the_place_of_the_older_ones() {
        assert_eq!(order(&[("a", 1, false), ("b", 2, false), ("a", 3, false)]), [3, 2]);
        assert_eq!(order(&[("a", 1, true), ("b", 2, true), ("c", 3, false), ("a", 4, true)]), [4, 2, 3]);
        // What a person waited for stays where it is; what one waits for from now on goes forward, behind the others.
        assert_eq!(order(&[("a", 1, true), ("b", 2, true), ("a", 3, false)]), [3, 2]);
        assert_eq!(order(&[("a", 1, false), ("b", 2, true), ("c", 3, false), ("c", 4, true)]), [2, 4, 1]);
    }

    #[test]
    fn change_counts_and_nobody_starves() {
        use std::time::Duration;
        let now = Instant::now();
        let mut row = Row::default();
        let mut owners = Vec::new();
        let mut put = |row: &mut Row, stream: &str, mark: u32, novelty: f32, at: f64| {
            let (owner, mut ticket) = ticket(stream, mark, false);
            ticket.job.novelty = novelty;
            owners.push(owner);
            row.put_at(ticket, now + Duration::from_secs_f64(at));
        };
        // The same moment: the most changed first. A longer wait: three times as long beats everything new.
        put(&mut row, "still", 1, 0.1, 0.0);
        put(&mut row, "lively", 2, 0.9, 0.0);
        put(&mut row, "half", 3, 0.5, 0.0);
        put(&mut row, "late", 4, 1.0, 1.0);
        let next = |row: &mut Row, at: f64| row.next_at(now + Duration::from_secs_f64(at)).map(|t| t.job.max_tokens);
        assert_eq!(next(&mut row, 1.2), Some(2));
        assert_eq!(next(&mut row, 1.2), Some(3));
        assert_eq!(next(&mut row, 1.3), Some(1), "it has waited four times as long");
        // One that never changes among ones that always do, which come again at once.
        put(&mut row, "still", 9, 0.0, 2.0);
        let served: Vec<_> = (0..8)
            .map(|i| {
                let at = 2.1 + 0.1 * f64::from(i);
                put(&mut row, "lively", 2, 1.0, at - 0.1);
                put(&mut row, "half", 3, 1.0, at - 0.1);
                next(&mut row, at)
            })
            .collect();
        assert!(served.contains(&Some(9)), "{served:?}");
    }
}
