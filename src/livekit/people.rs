//! Who is in the room and whose camera is taken, as a value. The camera that was switched on last is taken; when it
//! goes, the one that was switched on before it is taken again.
//! Not here: what is asked of the server for it (`session`).

use livekit_protocol::participant_info::{Kind, State};
use livekit_protocol::{ParticipantInfo, TrackInfo, TrackSource, TrackType};
use std::collections::{BTreeMap, BTreeSet};

/// Most people whose cameras are looked at; further ones are counted only.
const MOST: usize = 256;

/// Somebody's camera.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CameraTrack {
    /// The server's name for the track.
    pub(super) sid: String,
    pub(super) identity: String,
    /// The server's name for this stay of its owner: a page that is loaded again is the same identity, but another stay.
    person: String,
    pub(super) muted: bool,
    /// As published, pixels; 0 when the client did not say.
    pub(super) width: u32,
    pub(super) height: u32,
    /// Rises with every camera that appears.
    order: u64,
}

/// Everybody but the program itself.
#[derive(Debug, Default)]
pub(super) struct People {
    own_identity: String,
    here: BTreeSet<String>,
    cameras: BTreeMap<String, CameraTrack>,
    next: u64,
}

impl People {
    /// Those who were there before.
    pub(super) fn new(own_identity: &str, mut others: Vec<ParticipantInfo>) -> Self {
        let mut people = Self { own_identity: own_identity.to_owned(), ..Self::default() };
        // The last one who came has most likely switched the camera on last.
        others.sort_by_key(|p| (p.joined_at_ms.max(p.joined_at.saturating_mul(1000)), p.sid.clone()));
        people.update(&others);
        people
    }

    /// Takes in what the server says of some people.
    pub(super) fn update(&mut self, changed: &[ParticipantInfo]) {
        for person in changed {
            if person.identity == self.own_identity || !is_person(person) {
                continue;
            }
            if person.state() == State::Disconnected {
                self.here.remove(&person.sid);
                self.cameras.retain(|_, camera| camera.person != person.sid);
                continue;
            }
            self.here.insert(person.sid.clone());
            let sids: Vec<&str> = person.tracks.iter().map(|t| t.sid.as_str()).collect();
            self.cameras.retain(|sid, camera| camera.person != person.sid || sids.contains(&sid.as_str()));
            for track in person.tracks.iter().filter(|t| is_camera(t)) {
                self.camera(person, track);
            }
        }
    }

    fn camera(&mut self, person: &ParticipantInfo, track: &TrackInfo) {
        let known = self.cameras.get(&track.sid).map(|c| (c.order, c.muted));
        if known.is_none() && self.cameras.len() >= MOST {
            return;
        }
        // A camera that is turned on again was switched on last.
        let order = match known {
            Some((order, muted)) if !muted || track.muted => order,
            _ => {
                self.next += 1;
                self.next
            }
        };
        let camera = CameraTrack {
            sid: track.sid.clone(),
            identity: person.identity.clone(),
            person: person.sid.clone(),
            muted: track.muted,
            width: track.width,
            height: track.height,
            order,
        };
        self.cameras.insert(track.sid.clone(), camera);
    }

    /// How many are there.
    pub(super) fn count(&self) -> usize {
        self.here.len()
    }

    /// The camera that was switched on last.
    pub(super) fn newest_camera(&self) -> Option<&CameraTrack> {
        self.cameras.values().max_by_key(|camera| camera.order)
    }
}

fn is_person(person: &ParticipantInfo) -> bool {
    matches!(person.kind(), Kind::Standard | Kind::Sip)
}

fn is_camera(track: &TrackInfo) -> bool {
    track.r#type() == TrackType::Video && track.source() != TrackSource::ScreenShare
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(identity: &str, cameras: &[(&str, bool)], gone: bool) -> ParticipantInfo {
        let track = |(sid, muted): &(&str, bool)| TrackInfo {
            sid: (*sid).to_owned(),
            r#type: TrackType::Video as i32,
            source: TrackSource::Camera as i32,
            muted: *muted,
            ..TrackInfo::default()
        };
        ParticipantInfo {
            sid: format!("PA_{identity}"),
            identity: identity.to_owned(),
            state: if gone { State::Disconnected } else { State::Active } as i32,
            tracks: cameras.iter().map(track).collect(),
            ..ParticipantInfo::default()
        }
    }

    fn newest(people: &People) -> Option<(&str, bool)> {
        people.newest_camera().map(|c| (c.sid.as_str(), c.muted))
    }

    #[test]
    fn the_camera_that_was_switched_on_last_is_taken_and_the_one_before_it_when_it_goes() {
        let mut people = People::new("me", vec![person("a", &[("TR_a", false)], false), person("me", &[], false)]);
        assert_eq!((people.count(), newest(&people)), (1, Some(("TR_a", false))));
        people.update(&[person("b", &[], false)]);
        assert_eq!((people.count(), newest(&people)), (2, Some(("TR_a", false))));
        people.update(&[person("b", &[("TR_b", false)], false)]);
        assert_eq!(newest(&people), Some(("TR_b", false)));
        people.update(&[person("b", &[("TR_b", true)], false)]);
        assert_eq!(newest(&people), Some(("TR_b", true)), "muted, but still the newest");
        people.update(&[person("a", &[("TR_a", true)], false)]);
        people.update(&[person("a", &[("TR_a", false)], false)]);
        assert_eq!(newest(&people), Some(("TR_a", false)), "turned on again");
        people.update(&[person("a", &[], true)]);
        assert_eq!((people.count(), newest(&people)), (1, Some(("TR_b", true))));
        people.update(&[person("b", &[], false)]);
        assert_eq!((people.count(), newest(&people)), (1, None));
        people.update(&[person("b", &[], true)]);
        assert_eq!(people.count(), 0);
    }

    #[test]
    fn a_reload_of_the_page_is_one_person() {
        let mut people = People::new("me", Vec::new());
        people.update(&[person("a", &[("TR_1", false)], false)]);
        let mut again = person("a", &[("TR_2", false)], false);
        again.sid = "PA_again".into();
        people.update(&[again, person("a", &[], true)]);
        assert_eq!((people.count(), newest(&people)), (1, Some(("TR_2", false))));
    }
}
