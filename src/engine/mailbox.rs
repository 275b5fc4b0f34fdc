//! The row of jobs between their owners and the engine's thread, which waits for the next.
//! Not here: the order of the row (`row`), running a job (`worker`).

use super::CancelFlag;
use super::row::{Row, Ticket};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Where owners put jobs and the engine takes them.
#[derive(Default)]
pub struct Mailbox {
    state: Mutex<State>,
    bell: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Row,
    /// Of the jobs that were taken, so that closing can end them.
    running: Vec<CancelFlag>,
    closed: bool,
}

impl Mailbox {
    /// Puts a ticket into the row. Gives it back when the mailbox is closed.
    pub fn put(&self, ticket: Ticket) -> Result<(), Box<Ticket>> {
        let mut state = self.lock();
        if state.closed {
            return Err(Box::new(ticket));
        }
        state.waiting.put(ticket);
        drop(state);
        self.bell.notify_one();
        Ok(())
    }

    /// The next ticket whose owner still wants it; waits for one. `None` once closed.
    pub fn take(&self) -> Option<Ticket> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(ticket) = state.next() {
                return Some(ticket);
            }
            state = self.bell.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The next ticket whose owner still wants it, if there is one now.
    pub fn take_now(&self) -> Option<Ticket> {
        let mut state = self.lock();
        if state.closed { None } else { state.next() }
    }

    /// Refuses further tickets, forgets the waiting ones (their owners see the channel end), cancels the
    /// running ones and wakes the taker.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.waiting = Row::default();
        state.running.iter().for_each(CancelFlag::set);
        drop(state);
        self.bell.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn next(&mut self) -> Option<Ticket> {
        let ticket = self.waiting.next()?;
        // A job that has ended has its flag set: its owner dropped the handle.
        self.running.retain(|cancel| !cancel.is_set());
        self.running.push(ticket.cancel.clone());
        Some(ticket)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Job, JobEvent, JobHandle, Prompt, Sampling};
    use super::*;
    use std::sync::Arc;

    fn ticket(stream: &str, mark: u32) -> (JobHandle, Ticket) {
        let (handle, events, cancel) = JobHandle::pair();
        let job = Job {
            stream: Arc::from(stream),
            prompt: Prompt::default(),
            frames: Vec::new(),
            max_tokens: mark,
            sampling: Sampling::default(),
            for_voice: false,
            urgent: false,
            novelty: 0.0,
        };
        (handle, Ticket { job, events, cancel })
    }

    #[test]
    fn the_newest_of_a_stream_wins_and_keeps_its_turn() {
        let mailbox = Mailbox::default();
        let mut handles: Vec<_> = [("a", 1), ("b", 2), ("a", 3), ("c", 4)]
            .into_iter()
            .map(|(stream, mark)| {
                let (handle, ticket) = ticket(stream, mark);
                assert!(mailbox.put(ticket).is_ok());
                handle
            })
            .collect();
        assert!(matches!(handles[0].events.try_recv(), Ok(JobEvent::Replaced)));
        handles[1].cancel();
        let served: Vec<_> = (0..2).map(|_| mailbox.take().unwrap().job.max_tokens).collect();
        assert_eq!(served, [3, 4]);
    }

    #[test]
    fn whom_a_person_waits_for_goes_first() {
        let mailbox = Mailbox::default();
        let mut handles = Vec::new();
        for (stream, mark, urgent) in
            [("a", 1, false), ("b", 2, true), ("c", 3, false), ("d", 4, true), ("c", 5, true), ("a", 6, false)]
        {
            let (handle, mut ticket) = ticket(stream, mark);
            ticket.job.urgent = urgent;
            assert!(mailbox.put(ticket).is_ok());
            handles.push(handle);
        }
        let served: Vec<_> = (0..4).map(|_| mailbox.take().unwrap().job.max_tokens).collect();
        assert_eq!(served, [2, 4, 5, 6]);
    }

    #[test]
    fn closing_ends_the_taker_and_the_owners() {
        let mailbox = Arc::new(Mailbox::default());
        let taker = std::thread::spawn({
            let mailbox = Arc::clone(&mailbox);
            move || mailbox.take().is_none()
        });
        mailbox.close();
        assert!(taker.join().unwrap());
        let (_handle, late) = ticket("a", 1);
        assert!(mailbox.put(late).is_err());
    }
}
