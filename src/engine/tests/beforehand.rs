//! Frames made ready beforehand are the frames that are made ready when they are wanted. Not here: what that gains.

use super::*;
use crate::engine::ahead::Ahead;

fn numbers(encoded: &EncodedFrame) -> Vec<f32> {
    let rows = encoded.parts.iter().filter_map(|part| match part {
        Part::Image(image) => Some(image.rows.clone()),
        Part::Tokens(_) => None,
    });
    rows.flatten().collect()
}

#[test]
fn frames_made_ready_beforehand_are_the_same() {
    let model = Model::load(&files().0, 0).unwrap();
    let (mut plain, mut eye) = (eye(&model), eye(&model));
    let (a, b): (Arc<str>, Arc<str>) = (Arc::from("a"), Arc::from("b"));
    std::thread::scope(|scope| {
        let mut eye = std::mem::replace(&mut eye, super::eye(&model));
        eye.work_ahead(Ahead::start(scope, eye.splitter().unwrap()).unwrap());
        for seq in 0..3 {
            eye.order(&a, &frame(seq));
            eye.order(&a, &frame(seq));
            eye.order(&b, &frame(seq + 10));
        }
        // In another order than they were ordered in, one that was not, and one twice.
        for (stream, seq) in [(&b, 12), (&a, 0), (&a, 7), (&a, 2), (&b, 10), (&a, 1), (&b, 11), (&a, 0)] {
            let (encoded, _) = eye.look(stream, &frame(seq)).unwrap();
            assert!(!eye.awaits(stream, &frame(seq)));
            let (expected, _) = plain.look(stream, &frame(seq)).unwrap();
            assert_eq!((encoded.tokens, numbers(&encoded)), (expected.tokens, numbers(&expected)), "{stream} {seq}");
        }
        // What is in the cache is not made ready again.
        eye.order(&a, &frame(0));
        assert!(!eye.awaits(&a, &frame(0)));
    });
}

#[test]
fn more_orders_than_fit_lose_the_oldest_and_no_frame() {
    let model = Model::load(&files().0, 0).unwrap();
    let stream: Arc<str> = Arc::from("a");
    let broken = Arc::new(Frame { rgb: vec![0u8; 30].into(), ..Frame::clone(&frame(500)) });
    std::thread::scope(|scope| {
        let mut eye = eye(&model);
        eye.work_ahead(Ahead::start(scope, eye.splitter().unwrap()).unwrap());
        for seq in 0..150 {
            eye.order(&stream, &frame(seq));
        }
        for seq in [0, 149, 75, 1] {
            assert!(eye.look(&stream, &frame(seq)).is_ok(), "{seq}");
        }
        eye.order(&stream, &broken);
        assert!(eye.look(&stream, &broken).is_err());
    });
}
