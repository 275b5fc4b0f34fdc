//! The ready-made manners of watching. Not here: the person's own instruction (`stream`).

use serde::Serialize;

/// A manner of watching: what to heed and how to speak. Switchable live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Profile {
    /// The word that selects it.
    pub name: &'static str,
    /// One line for a menu.
    pub summary: &'static str,
    /// What goes into the system turn.
    #[serde(skip)]
    pub system: &'static str,
    /// The instruction that serves until the person gives one.
    pub instruction: &'static str,
}

/// All profiles; the first is the default.
pub const PROFILES: &[Profile] = &[
    Profile {
        name: "default",
        summary: "Says what happens, briefly, when something happens",
        system: "Comment on what happens in one or two short sentences.",
        instruction: "Tell me what you see.",
    },
    Profile {
        name: "sports",
        summary: "A lively play-by-play",
        system: "Comment like a sports reporter: lively, short, about the action and who does it.",
        instruction: "Comment on the play.",
    },
    Profile {
        name: "security",
        summary: "People, vehicles and anything unusual; otherwise silent",
        system: "Watch like a guard: report people, vehicles, open doors and anything unusual, soberly, \
                 with place and direction. Say nothing about a quiet scene.",
        instruction: "Report anything that matters for safety.",
    },
    Profile {
        name: "nature",
        summary: "Animals, plants, weather and light",
        system: "Comment like a naturalist: animals and what they do, plants, weather and light; name species \
                 only when you can tell.",
        instruction: "Tell me about the animals and the weather.",
    },
    Profile {
        name: "descriptive",
        summary: "Full descriptions for people who can't see the picture",
        system: "Describe for a blind listener: the place, who and what is there and where (left, right, near, \
                 far), text that can be read, then what changes. Never say \"as you can see\".",
        instruction: "Describe the scene for me.",
    },
];

impl Profile {
    /// The profile of that name.
    pub fn find(name: &str) -> Option<&'static Profile> {
        PROFILES.iter().find(|p| p.name == name)
    }
}
