//! Frames encoded on threads of their own, and prompts decoded as their frames come, give what they give one after the
//! other. Not here: what that gains.

use super::*;

fn numbers(encoded: &EncodedFrame) -> Vec<f32> {
    let rows = encoded.parts.iter().filter_map(|part| match part {
        Part::Image(image) => Some(image.rows.clone()),
        Part::Tokens(_) => None,
    });
    rows.flatten().collect()
}

#[test]
fn frames_encoded_beforehand_are_the_same() {
    let model = Model::load(&files().0, 0).unwrap();
    let mut plain = eye(&model);
    let (a, b): (Arc<str>, Arc<str>) = (Arc::from("a"), Arc::from("b"));
    std::thread::scope(|scope| {
        let mut eye = super::eye(&model);
        eye.work_ahead(scope).unwrap();
        for seq in 0..3 {
            assert!(eye.order(&a, &frame(seq), false) && eye.order(&a, &frame(seq), true));
            assert!(eye.order(&b, &frame(seq + 10), seq == 2));
        }
        // In another order than they were ordered in, one that was not, and one twice.
        for (stream, seq) in [(&b, 12), (&a, 0), (&a, 7), (&a, 2), (&b, 10), (&a, 1), (&b, 11), (&a, 0)] {
            let (encoded, _) = eye.look(stream, &frame(seq)).unwrap();
            assert!(!eye.awaits(stream, seq));
            let (expected, _) = plain.look(stream, &frame(seq)).unwrap();
            assert_eq!((encoded.tokens, numbers(&encoded)), (expected.tokens, numbers(&expected)), "{stream} {seq}");
        }
    });
}

#[test]
fn what_is_forgotten_makes_room_and_a_broken_frame_is_told() {
    let model = Model::load(&files().0, 0).unwrap();
    let stream: Arc<str> = Arc::from("a");
    let broken = Arc::new(Frame { rgb: vec![0u8; 30].into(), ..Frame::clone(&frame(1500)) });
    std::thread::scope(|scope| {
        let mut eye = eye(&model);
        eye.work_ahead(scope).unwrap();
        let one = frame(0);
        let ordered =
            (0..2000).take_while(|seq| eye.order(&stream, &Arc::new(Frame { seq: *seq, ..Frame::clone(&one) }), false));
        let ordered = ordered.count() as u64;
        assert!((200..1000).contains(&ordered), "{ordered}");
        assert!(!eye.order(&stream, &broken, true), "the row is full");
        (1..ordered).for_each(|seq| eye.ahead().unwrap().forget(&stream, seq));
        assert!(eye.order(&stream, &broken, true));
        assert!(eye.look(&stream, &broken).is_err());
        assert!(eye.look(&stream, &one).is_ok());
        // One that was forgotten is encoded when it is wanted all the same.
        assert!(eye.look(&stream, &frame(ordered - 1)).is_ok());
    });
}

#[test]
fn a_prompt_whose_frames_come_one_by_one_has_the_same_logits() {
    let model = Model::load(&files().0, 0).unwrap();
    let mut eye = eye(&model);
    let tokens = Layout::of(&model).tokens(&model, &prompt(), false);
    let stream: Arc<str> = Arc::from("a");
    let mut session = Session::new(&model, Context::new(&model, PARAMS).unwrap(), 2);
    let windows: [Vec<_>; 3] =
        [[0, 1, 2], [0, 1, 3], [1, 2, 3]].map(|w| w.map(|i| eye.look(&stream, &frame(i)).unwrap().0).to_vec());
    for (frames, cut) in [(0, 1), (1, 2), (2, 0), (2, 3), (0, 2)] {
        let frames = &windows[frames];
        let mut alone = Session::new(&model, Context::new(&model, PARAMS).unwrap(), 1);
        let whole = prefill(&mut alone, &mut eye, &stream, &tokens, frames);
        let mut look = session.begin(&stream, tokens.clone(), frames[..cut].to_vec()).unwrap();
        for frame in &frames[cut..] {
            while look.has_more() {
                session.step(&mut [Turn { look: &mut look, token: None }], &mut eye, false).unwrap();
                assert!(!look.has_logits() && !look.prompt_is_in());
            }
            look.add(Rc::clone(frame));
        }
        look.close();
        while !look.prompt_is_in() {
            session.step(&mut [Turn { look: &mut look, token: None }], &mut eye, false).unwrap();
        }
        assert_eq!(look.reused + look.decoded, whole.reused + whole.decoded);
        assert_same(session.logits(&look).unwrap(), alone.logits(&whole).unwrap());
        session.end(look);
        alone.end(whole);
    }
    // One that is given up half way leaves nothing that the next could take for its own.
    let mut look = session.begin(&stream, tokens.clone(), windows[0][..2].to_vec()).unwrap();
    while look.has_more() {
        session.step(&mut [Turn { look: &mut look, token: None }], &mut eye, false).unwrap();
    }
    session.end(look);
    let next = session.begin(&stream, tokens, windows[0].clone()).unwrap();
    assert_eq!(next.reused, 0);
    session.end(next);
}

#[test]
fn an_engine_that_encodes_ahead_says_the_same() {
    let [plain, ahead] = [false, true].map(|ahead| {
        LlamaEngine::spawn(EngineConfig { encode_ahead: Some(ahead), slots: 3, parallel: 3, ..config() }).unwrap()
    });
    ready(&plain);
    ready(&ahead);
    for window in [[0, 1, 2, 3], [0, 1, 2, 4], [2, 3, 4, 5], [2, 3, 4, 5], [7, 8, 9, 10]] {
        let frames: Vec<_> = window.into_iter().map(frame).collect();
        let submit = |engine: &LlamaEngine| engine.submit(job("main", frames.clone(), 24));
        let (expected, events) = drain(submit(&plain));
        let (said, same) = drain(submit(&ahead));
        assert_eq!(said, expected, "{window:?}");
        for (event, expected) in same.iter().zip(&events).take(3) {
            match (event, expected) {
                (JobEvent::Encoded { encoded: a, .. }, JobEvent::Encoded { encoded: b, .. }) => assert_eq!(a, b),
                (JobEvent::Prefilled { tokens: a, .. }, JobEvent::Prefilled { tokens: b, .. }) => assert_eq!(a, b),
                (a, b) => assert_eq!(std::mem::discriminant(a), std::mem::discriminant(b)),
            }
        }
    }
    // More frames than fit: the oldest are not even encoded.
    let many: Vec<_> = (20..40).map(frame).collect();
    let (_, events) = drain(ahead.submit(job("main", many, 24)));
    assert!(matches!(events[1], JobEvent::Encoded { encoded: 1..20, .. }), "{events:?}");
    ahead.stop();
    assert!(matches!(drain(ahead.submit(job("main", vec![frame(1)], 4))).1.last(), Some(JobEvent::Failed(_))));
}
