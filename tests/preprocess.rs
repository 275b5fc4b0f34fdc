//! Our preprocessing against golden pictures of the reference's: not one value may differ.

use sha2::{Digest, Sha256};
use std::path::PathBuf;
use vidette::engine::preprocess::{Prepared, mtmd_overview, prepare, resize_bicubic};

#[derive(serde::Deserialize)]
struct Manifest {
    pictures: Vec<Golden>,
}

#[derive(serde::Deserialize)]
struct Golden {
    name: String,
    #[serde(rename = "in")]
    from: (u32, u32),
    #[serde(rename = "out")]
    to: (u32, u32),
    in_rgb_sha256: String,
    out_rgb_sha256: String,
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/preprocess")
}

fn goldens() -> Vec<Golden> {
    let text = std::fs::read_to_string(folder().join("manifest.json")).unwrap();
    serde_json::from_str::<Manifest>(&text).unwrap().pictures
}

fn picture(file: &str) -> (Vec<u8>, (u32, u32)) {
    let rgb = image::open(folder().join(file)).unwrap().to_rgb8();
    let size = rgb.dimensions();
    (rgb.into_raw(), size)
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn resized_pictures_equal_the_references() {
    let mut resized_here = 0;
    for golden in goldens() {
        let (input, from) = picture(&format!("{}-in.png", golden.name));
        let (expected, to) = picture(&format!("{}-out.png", golden.name));
        assert_eq!((from, to), (golden.from, golden.to), "{}", golden.name);
        assert_eq!(sha256(&input), golden.in_rgb_sha256, "{}", golden.name);
        assert_eq!(sha256(&expected), golden.out_rgb_sha256, "{}", golden.name);

        let resized = resize_bicubic(&input, from, to);
        let worst = resized.iter().zip(&expected).map(|(a, b)| a.abs_diff(*b)).max();
        assert_eq!((resized.len(), worst), (expected.len(), Some(0)), "{}", golden.name);

        let Prepared { width, height, rgb, exact } = prepare(&input, from.0, from.1).unwrap();
        if (width, height) == to {
            assert!(*rgb == *expected, "{}", golden.name);
            resized_here += 1;
        } else {
            // Left to libmtmd, which resizes the original to the same size in the same way.
            assert_eq!((width, height, &*rgb), (from.0, from.1, &*input), "{}", golden.name);
        }
        assert!(!exact || mtmd_overview(width, height) == to, "{}", golden.name);
    }
    assert_eq!(resized_here, 7);
}
