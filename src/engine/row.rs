//! Jobs in a row: one place for each stream, newest wins, those that a person waits for before the others.
//! Synchronous. Not here: who waits for the next one (`mailbox`, `wall`), running it (`worker`).

use super::{CancelFlag, Job, JobEvent};
use std::collections::VecDeque;
use tokio::sync::mpsc;

/// A job with the way back to its owner.
pub struct Ticket {
    pub job: Job,
    pub events: mpsc::Sender<JobEvent>,
    pub cancel: CancelFlag,
}

/// What waits, next first. Its bound is the number of streams.
#[derive(Default)]
pub struct Row(VecDeque<Ticket>);

impl Row {
    /// Puts a ticket in, in place of one of the same stream that still waits: that one's owner gets
    /// [`JobEvent::Replaced`], and the new one keeps its place in the row, or goes before those that no person waits
    /// for if that one did not.
    pub fn put(&mut self, ticket: Ticket) {
        let same = self.0.iter().position(|waiting| waiting.job.stream == ticket.job.stream);
        let old = same.and_then(|i| self.0.remove(i));
        let was_urgent = old.as_ref().is_some_and(|old| old.job.urgent);
        let place = match same {
            Some(i) if was_urgent || !ticket.job.urgent => i,
            _ if ticket.job.urgent => self.0.iter().take_while(|waiting| waiting.job.urgent).count(),
            _ => self.0.len(),
        };
        self.0.insert(place, ticket);
        if let Some(old) = old {
            // The channel of a job that never ran is empty, so this can only fail when nobody listens.
            let _nobody_listens = old.events.try_send(JobEvent::Replaced);
        }
    }

    /// The next ticket whose owner still wants it; those before it are forgotten.
    pub fn next(&mut self) -> Option<Ticket> {
        std::iter::from_fn(|| self.0.pop_front()).find(|ticket| !ticket.cancel.is_set())
    }

    /// Empties the row.
    pub fn take_all(&mut self) -> impl Iterator<Item = Ticket> {
        std::mem::take(&mut self.0).into_iter()
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
}
