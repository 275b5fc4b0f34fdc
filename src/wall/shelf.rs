//! Which frames the child has the pixels of: those of the last look of each stream. Both sides keep the same shelf by
//! the same rule, so that a frame crosses the wall once. Not here: embeddings of frames (the engine's own cache).

use std::collections::VecDeque;
use std::sync::Arc;

/// Streams whose last look is kept; that of the stream which was silent longest goes.
const STREAMS: usize = 16;

/// What is kept of one look's frames, by their numbers.
type Frames<T> = Vec<(u64, T)>;

/// Frames by stream and number, with what is kept of each.
#[derive(Debug)]
pub(super) struct Shelf<T> {
    streams: VecDeque<(Arc<str>, Frames<T>)>,
}

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self { streams: VecDeque::new() }
    }
}

impl<T> Shelf<T> {
    /// What is kept of a frame.
    pub(super) fn get(&self, stream: &str, seq: u64) -> Option<&T> {
        let (_, frames) = self.streams.iter().find(|(name, _)| name.as_ref() == stream)?;
        frames.iter().find(|(number, _)| *number == seq).map(|(_, kept)| kept)
    }

    /// These are the frames of the stream's last look; its former ones go.
    pub(super) fn keep(&mut self, stream: Arc<str>, frames: Frames<T>) {
        self.streams.retain(|(name, _)| *name != stream);
        self.streams.push_back((stream, frames));
        if self.streams.len() > STREAMS {
            self.streams.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_look_of_the_latest_streams_is_kept() {
        let mut shelf = Shelf::default();
        shelf.keep("door".into(), vec![(1, 'a'), (2, 'b')]);
        shelf.keep("yard".into(), vec![(1, 'c')]);
        assert_eq!((shelf.get("door", 2), shelf.get("yard", 1), shelf.get("yard", 2)), (Some(&'b'), Some(&'c'), None));
        shelf.keep("door".into(), vec![(2, 'b'), (3, 'd')]);
        assert_eq!((shelf.get("door", 1), shelf.get("door", 3)), (None, Some(&'d')));
        for i in 0..STREAMS - 1 {
            shelf.keep(format!("s{i}").into(), vec![(1, 'x')]);
        }
        assert_eq!((shelf.get("yard", 1), shelf.get("door", 3)), (None, Some(&'d')));
        assert_eq!(shelf.streams.len(), STREAMS);
    }
}
