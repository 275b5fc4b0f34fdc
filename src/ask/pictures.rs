//! Picture files as frames: read and decoded once, and numbered so that the engine encodes each once.
//! Not here: the size in which the model sees them (`engine::preprocess`), embeddings (`engine`).

use crate::engine::preprocess;
use crate::error::{Error, Kind, Result};
use crate::frame::Frame;
use bytes::Bytes;
use image::{ImageError, ImageReader, Limits};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

/// Largest file that is read, bytes.
const MAX_FILE: u64 = 64 << 20;
/// Most memory for decoding one picture, bytes.
const MAX_DECODED: u64 = 256 << 20;
/// Most bytes of decoded pictures kept; the least recently used go first.
const KEPT: usize = 64 << 20;

/// What makes a file the picture that it was before: a file that is written anew is another one.
#[derive(Debug, Clone, PartialEq)]
struct Identity {
    path: PathBuf,
    inode: u64,
    length: u64,
    modified: Option<SystemTime>,
    /// The number that the caller gave it.
    seq: Option<u64>,
}

/// The pictures that were used lately.
#[derive(Debug, Default)]
pub struct Pictures {
    kept: VecDeque<(Identity, Arc<Frame>)>,
    bytes: usize,
    /// Number of the next new frame. Never reused, so no embedding is taken for another picture's.
    next: u64,
}

impl Pictures {
    /// The picture in a file. Unchanged, under the same `seq`, it is the same frame as before.
    ///
    /// # Errors
    /// When it is not there, no PNG or JPEG, too large or damaged; the message starts with the path.
    pub fn frame(&mut self, path: &Path, seq: Option<u64>) -> Result<Arc<Frame>> {
        let identity = identify(path, seq)?;
        let known = self.kept.iter().position(|(i, _)| *i == identity);
        if let Some(known) = known.and_then(|i| self.kept.remove(i)) {
            let frame = Arc::clone(&known.1);
            self.kept.push_back(known);
            return Ok(frame);
        }
        let (width, height, rgb) = decode(path)?;
        let frame = Arc::new(Frame {
            seq: self.next,
            pts: None,
            captured: Instant::now(),
            wall: identity.modified.unwrap_or_else(SystemTime::now),
            width,
            height,
            rgb,
        });
        self.next += 1;
        self.bytes += frame.bytes();
        self.kept.push_back((identity, Arc::clone(&frame)));
        while self.bytes > KEPT {
            let Some((_, oldest)) = self.kept.pop_front() else { break };
            self.bytes -= oldest.bytes();
        }
        Ok(frame)
    }
}

fn identify(path: &Path, seq: Option<u64>) -> Result<Identity> {
    // Asked before opening: opening a named pipe would wait for a writer.
    let metadata = std::fs::metadata(path).map_err(|e| unreadable(path, &e))?;
    if !metadata.is_file() {
        return Err(Error::invalid("picture_not_a_file", format!("{}: this is not a regular file", path.display()))
            .hint("name a PNG or JPEG file"));
    }
    Ok(Identity {
        path: path.to_owned(),
        inode: metadata.ino(),
        length: metadata.len(),
        modified: metadata.modified().ok(),
        seq,
    })
}

fn unreadable(path: &Path, e: &io::Error) -> Error {
    if e.kind() == io::ErrorKind::NotFound {
        return Error::not_found("picture_not_found", format!("{}: there is no such file", path.display()))
            .hint("paths in a batch file are relative to its folder");
    }
    Error::unavailable("picture_unreadable", format!("{}: {e}", path.display())).hint("check the file's permissions")
}

fn too_large(path: &Path, what: &str) -> Error {
    Error::new(Kind::TooLarge, "picture_too_large", format!("{}: {what}", path.display())).hint("make it smaller")
}

/// Width, height and packed RGB. Transparency is left out.
fn decode(path: &Path) -> Result<(u32, u32, Bytes)> {
    let mut data = Vec::new();
    let read = File::open(path).and_then(|f| f.take(MAX_FILE + 1).read_to_end(&mut data));
    read.map_err(|e| unreadable(path, &e))?;
    if data.len() as u64 > MAX_FILE {
        return Err(too_large(path, &format!("the file has more than {} MiB", MAX_FILE >> 20)));
    }
    let mut reader = ImageReader::new(Cursor::new(data)).with_guessed_format().map_err(|e| unreadable(path, &e))?;
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_DECODED);
    reader.limits(limits);
    let picture = reader.decode().map_err(|e| match e {
        ImageError::Unsupported(_) => {
            Error::invalid("picture_format", format!("{}: this is no PNG or JPEG picture", path.display()))
                .hint("convert it first")
        }
        ImageError::Limits(_) => {
            too_large(path, &format!("decoding it would take more than {} MiB", MAX_DECODED >> 20))
        }
        e => Error::invalid("picture_damaged", format!("{}: the picture is damaged: {e}", path.display()))
            .hint("fetch or make it again"),
    })?;
    let rgb = picture.into_rgb8();
    let (width, height) = rgb.dimensions();
    preprocess::check_size(width, height)
        .map_err(|e| Error { message: format!("{}: {}", path.display(), e.message), ..e })?;
    Ok((width, height, Bytes::from(rgb.into_raw())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png(path: &Path, side: u32, grey: u8) {
        image::RgbImage::from_pixel(side, side, image::Rgb([grey, 0, 255])).save(path).unwrap();
    }

    #[test]
    fn a_file_is_one_frame_until_it_is_written_anew_or_gets_another_number() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a.png"), folder.path().join("b.png"));
        png(&a, 20, 1);
        png(&b, 30, 2);
        let mut pictures = Pictures::default();
        let first = pictures.frame(&a, None).unwrap();
        assert_eq!((first.width, first.height, &first.rgb[..3]), (20, 20, &[1, 0, 255][..]));
        let other = pictures.frame(&b, None).unwrap();
        assert_eq!((first.seq, other.seq), (0, 1));
        assert!(Arc::ptr_eq(&first, &pictures.frame(&a, None).unwrap()));
        assert_eq!(pictures.frame(&a, Some(9)).unwrap().seq, 2);
        png(&a, 40, 3);
        let anew = pictures.frame(&a, None).unwrap();
        assert_eq!((anew.seq, anew.width), (3, 40));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let mut pictures = Pictures::default();
        // 12 MiB each.
        for i in 0..7u8 {
            let path = folder.path().join(format!("{i}.png"));
            png(&path, 2048, i);
            pictures.frame(&path, None).unwrap();
        }
        assert_eq!(pictures.kept.len(), 5);
        assert!(pictures.bytes <= KEPT);
        assert_eq!(pictures.frame(&folder.path().join("0.png"), None).unwrap().seq, 7, "it was forgotten");
    }

    #[test]
    fn each_fault_has_its_code_and_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        png(&folder.path().join("whole.png"), 64, 7);
        let whole = std::fs::read(folder.path().join("whole.png")).unwrap();
        let narrow = folder.path().join("narrow.png");
        image::RgbImage::new(300, 4).save(&narrow).unwrap();
        for (path, code) in [
            (folder.path().join("none.png"), "picture_not_found"),
            (folder.path().to_owned(), "picture_not_a_file"),
            (file("text.png", b"hello"), "picture_format"),
            (file("empty.png", b""), "picture_format"),
            (file("cut.png", &whole[..60]), "picture_damaged"),
            (file("bmp.png", b"BM\x1e\0\0\0\0\0\0\0\x1a\0\0\0"), "picture_format"),
            (narrow, "picture_size"),
        ] {
            let error = Pictures::default().frame(&path, None).unwrap_err();
            assert_eq!(error.code, code, "{error}");
            assert!(error.message.starts_with(path.to_str().unwrap()), "{error}");
        }
    }
}
