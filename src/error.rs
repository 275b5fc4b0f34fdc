//! The one error type that crosses module borders: a kind, a stable code, a sentence and a remedy.
//! Not here: HTTP status numbers (`web`), exit codes (`cli`), logging (whoever handles it).

use serde::{Deserialize, Serialize};
use std::fmt;

/// What sort of failure this is. Faces map it to their own language (HTTP status, exit code).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// The caller gave something that can't be right, whatever the state of the world.
    Invalid,
    /// The named thing does not exist.
    NotFound,
    /// The caller may not do this.
    Denied,
    /// The thing exists but is in a state that forbids the request.
    Conflict,
    /// The body or file is larger than is accepted.
    TooLarge,
    /// Something needed is not there now; trying again later may work.
    Unavailable,
    /// A defect of ours or of the machine.
    Internal,
}

/// An error with a stable machine-readable code, one plain sentence, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    pub kind: Kind,
    /// Stable snake_case identifier, part of the HTTP API.
    pub code: &'static str,
    /// What went wrong and where. Never holds a secret.
    pub message: String,
    /// What the reader can do about it.
    pub hint: Option<String>,
}

/// `Result` with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A new error without a hint.
    pub fn new(kind: Kind, code: &'static str, message: impl Into<String>) -> Self {
        Self { kind, code, message: message.into(), hint: None }
    }

    /// [`Kind::Invalid`] in short.
    pub fn invalid(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, code, message)
    }

    /// [`Kind::NotFound`] in short.
    pub fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, code, message)
    }

    /// [`Kind::Unavailable`] in short.
    pub fn unavailable(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable, code, message)
    }

    /// [`Kind::Internal`] in short.
    pub fn internal(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, code, message)
    }

    /// The same error with a remedy.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, " — {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}
