//! A file on its way: `NAME.part` with a note of where it comes from, so that a download goes on after
//! a cut, also in another run of the program. Not here: requests.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Kind, Result};

/// Left free on the disk beside what is downloaded.
const SPARE: u64 = 64 << 20;
const LOCK: &str = ".vidette-pull.lock";

/// Where the bytes of a part come from; it fits only the same address and version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    pub url: String,
    /// The server's tag of the version.
    pub etag: Option<String>,
    pub bytes: Option<u64>,
    pub sha256: Option<String>,
}

/// An open part.
pub struct Partial {
    target: PathBuf,
    part: PathBuf,
    note: PathBuf,
    file: File,
    hasher: Sha256,
    len: u64,
    origin: Option<Origin>,
}

impl Partial {
    /// Opens the part of `target`, or begins one. What is there is kept if it came from the same
    /// address with the same expectations.
    ///
    /// # Errors
    /// `pull_write`.
    pub fn open(target: &Path, url: &str, bytes: Option<u64>, sha256: Option<&str>) -> Result<Self> {
        let with = |suffix: &str| {
            let mut name = target.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        let (part, note) = (with(".part"), with(".part.json"));
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder).map_err(|e| write_error(folder, &e))?;
        }
        let file =
            OpenOptions::new().read(true).append(true).create(true).open(&part).map_err(|e| write_error(&part, &e))?;
        let len = file.metadata().map_err(|e| write_error(&part, &e))?.len();
        let origin: Option<Origin> = fs::read(&note).ok().and_then(|json| serde_json::from_slice(&json).ok());
        // What was not known when asking may have been learned on the way.
        let fits = |o: &Origin| {
            o.url == url
                && bytes.is_none_or(|n| o.bytes == Some(n))
                && sha256.is_none_or(|sum| o.sha256.as_deref() == Some(sum))
        };
        let origin = origin.filter(fits);
        let mut this = Self { target: target.to_owned(), part, note, file, hasher: Sha256::new(), len: 0, origin };
        // Without a tag or a checksum nobody could tell that the rest belongs to the same version.
        let can_go_on = this.origin.as_ref().is_some_and(|o| o.etag.is_some() || o.sha256.is_some());
        if can_go_on && bytes.is_none_or(|n| len <= n) {
            this.hash_existing()?;
        } else {
            this.restart()?;
        }
        Ok(this)
    }

    fn hash_existing(&mut self) -> Result<()> {
        let file = File::open(&self.part).map_err(|e| write_error(&self.part, &e))?;
        self.len = hash_into(&mut self.hasher, file).map_err(|e| write_error(&self.part, &e))?;
        Ok(())
    }

    /// Bytes that are there.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The tag of the version that the part belongs to.
    pub fn etag(&self) -> Option<&str> {
        self.origin.as_ref().and_then(|o| o.etag.as_deref())
    }

    /// Throws away what is there and begins at the first byte.
    ///
    /// # Errors
    /// `pull_write`.
    pub fn restart(&mut self) -> Result<()> {
        self.file.set_len(0).map_err(|e| write_error(&self.part, &e))?;
        self.hasher = Sha256::new();
        self.len = 0;
        self.origin = None;
        remove(&self.note)
    }

    /// Notes where the bytes that follow come from.
    ///
    /// # Errors
    /// `pull_write`.
    pub fn begin(&mut self, origin: Origin) -> Result<()> {
        let json = serde_json::to_vec(&origin).map_err(|e| write_error(&self.note, &io::Error::other(e)))?;
        fs::write(&self.note, json).map_err(|e| write_error(&self.note, &e))?;
        self.origin = Some(origin);
        Ok(())
    }

    /// Appends.
    ///
    /// # Errors
    /// `pull_write` or `pull_disk_full`.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|e| write_error(&self.part, &e))?;
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// The checksum of what is there, in lower-case hexadecimal.
    pub fn sha256(&self) -> String {
        hex(self.hasher.clone())
    }

    /// Makes the part the file, so that after a power cut either the old or the whole new one is there.
    ///
    /// # Errors
    /// `pull_write`.
    pub fn finish(self) -> Result<()> {
        self.file.sync_all().map_err(|e| write_error(&self.part, &e))?;
        fs::rename(&self.part, &self.target).map_err(|e| write_error(&self.target, &e))?;
        if let Some(folder) = self.target.parent() {
            File::open(folder).and_then(|f| f.sync_all()).map_err(|e| write_error(folder, &e))?;
        }
        remove(&self.note)
    }

    /// Removes part and note.
    ///
    /// # Errors
    /// `pull_write`.
    pub fn discard(self) -> Result<()> {
        remove(&self.part)?;
        remove(&self.note)
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(write_error(path, &e)),
        _ => Ok(()),
    }
}

fn hash_into(hasher: &mut Sha256, mut file: File) -> io::Result<u64> {
    let mut buffer = vec![0; 1 << 20];
    let mut len = 0;
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            return Ok(len);
        }
        hasher.update(&buffer[..n]);
        len += n as u64;
    }
}

fn hex(hasher: Sha256) -> String {
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The checksum of a file that is there.
///
/// # Errors
/// `pull_write` when it can't be read.
pub fn file_sha256(path: &Path) -> Result<String> {
    let mut hasher = Sha256::new();
    File::open(path).and_then(|file| hash_into(&mut hasher, file)).map_err(|e| write_error(path, &e))?;
    Ok(hex(hasher))
}

/// A failure of the disk, with the file named.
pub fn write_error(path: &Path, error: &io::Error) -> Error {
    if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        return Error::new(Kind::Unavailable, "pull_disk_full", format!("{}: the disk is full", path.display()))
            .hint("make room and run the command again; it goes on where it stopped");
    }
    Error::new(Kind::Unavailable, "pull_write", format!("{}: {error}", path.display()))
        .hint("check the folder's permissions and the disk, or choose another folder for models")
}

/// Keeps a second pull out of the same folder while it lives; a crash frees it.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code, reason = "held, not used: closing the file frees the lock")] File);

/// Takes the lock of a folder.
///
/// # Errors
/// `pull_busy` or `pull_write`.
pub fn lock(folder: &Path) -> Result<Lock> {
    let path = folder.join(LOCK);
    let file = File::create(&path).map_err(|e| write_error(&path, &e))?;
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(fs::TryLockError::WouldBlock) => Err(Error::new(
            Kind::Conflict,
            "pull_busy",
            format!("another `vidette pull` is at work in {}", folder.display()),
        )
        .hint("wait until it is done")),
        Err(fs::TryLockError::Error(e)) => Err(write_error(&path, &e)),
    }
}

/// Makes sure that `bytes` more fit on the disk of `folder`.
///
/// # Errors
/// `pull_disk_full`.
pub fn check_space(folder: &Path, bytes: u64) -> Result<()> {
    // A disk that can't be asked is found out when writing fails.
    let Ok(disk) = rustix::fs::statvfs(folder) else { return Ok(()) };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    enough(folder, bytes, free)
}

fn enough(folder: &Path, bytes: u64, free: u64) -> Result<()> {
    let need = bytes.saturating_add(SPARE);
    if bytes == 0 || need <= free {
        return Ok(());
    }
    use super::inspect::size;
    Err(Error::new(
        Kind::Unavailable,
        "pull_disk_full",
        format!("{}: {} are needed there, {} are free", folder.display(), size(need), size(free)),
    )
    .hint("make room, or choose another folder for models"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_goes_on_only_for_the_same_origin() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("sub/m.gguf");
        let origin = Origin { url: "u".into(), etag: Some("\"1\"".into()), bytes: Some(4), sha256: None };
        let mut part = Partial::open(&target, "u", Some(4), None).unwrap();
        part.begin(origin).unwrap();
        part.write(b"ab").unwrap();
        drop(part);
        let mut part = Partial::open(&target, "u", Some(4), None).unwrap();
        assert_eq!((part.len(), part.etag()), (2, Some("\"1\"")));
        part.write(b"cd").unwrap();
        let sum = part.sha256();
        part.finish().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"abcd");
        assert_eq!(file_sha256(&target).unwrap(), sum);
        assert_eq!(fs::read_dir(target.parent().unwrap()).unwrap().count(), 1);

        let mut part = Partial::open(&target, "u", Some(4), None).unwrap();
        part.begin(Origin { url: "u".into(), etag: None, bytes: Some(4), sha256: None }).unwrap();
        part.write(b"x").unwrap();
        drop(part);
        assert_eq!(Partial::open(&target, "u", Some(4), None).unwrap().len(), 0, "nothing tells the version");
    }

    #[test]
    fn space_and_lock() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(check_space(dir.path(), u64::MAX / 2).unwrap_err().code, "pull_disk_full");
        assert!(enough(dir.path(), 1, SPARE).is_err() && enough(dir.path(), 1, SPARE + 1).is_ok());
        let first = lock(dir.path()).unwrap();
        assert_eq!(lock(dir.path()).unwrap_err().code, "pull_busy");
        drop(first);
        lock(dir.path()).unwrap();
    }
}
