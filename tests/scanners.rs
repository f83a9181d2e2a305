//! The reply scanner against `redis-protocol`: frames that it encodes end where it says; random replies of
//! the kinds that it understands end at the same byte for both, whole, cut short, or with bytes changed.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "fuzz/checks/mod.rs"]
mod checks;

use checks::reply::{compare, scan};
use checks::rng::Rng;
use proptest::prelude::*;
use redis_protocol::resp2::types::OwnedFrame as Frame2;
use redis_protocol::resp3::types::OwnedFrame as Frame3;
use redis_protocol::{resp2, resp3};
use redweir::wire::request::RequestLimits;

fn frame2() -> impl Strategy<Value = Frame2> {
    let leaf = prop_oneof![
        "[ -~]{0,40}".prop_map(|text| Frame2::SimpleString(text.into_bytes())),
        "[ -~]{1,40}".prop_map(Frame2::Error),
        any::<i64>().prop_map(Frame2::Integer),
        prop::collection::vec(any::<u8>(), 0..200).prop_map(Frame2::BulkString),
        Just(Frame2::Null),
    ];
    leaf.prop_recursive(8, 60, 8, |inner| prop::collection::vec(inner, 0..8).prop_map(Frame2::Array))
}

fn frame3() -> impl Strategy<Value = Frame3> {
    let leaf = prop_oneof![
        "[ -~]{0,40}".prop_map(|text| Frame3::SimpleString { data: text.into_bytes(), attributes: None }),
        "[ -~]{1,40}".prop_map(|data| Frame3::SimpleError { data, attributes: None }),
        any::<i64>().prop_map(|data| Frame3::Number { data, attributes: None }),
        any::<f64>()
            .prop_filter("a number", |data| data.is_finite())
            .prop_map(|data| Frame3::Double { data, attributes: None }),
        any::<bool>().prop_map(|data| Frame3::Boolean { data, attributes: None }),
        "[0-9]{1,60}".prop_map(|digits| Frame3::BigNumber { data: digits.into_bytes(), attributes: None }),
        prop::collection::vec(any::<u8>(), 0..200)
            .prop_map(|data| Frame3::BlobString { data, attributes: None }),
        prop::collection::vec(any::<u8>(), 0..40)
            .prop_map(|data| Frame3::BlobError { data, attributes: None }),
        Just(Frame3::Null),
    ];
    leaf.prop_recursive(8, 60, 8, |inner| {
        let pair = (".{0,9}", inner.clone());
        prop_oneof![
            prop::collection::vec(inner, 0..8).prop_map(|data| Frame3::Array { data, attributes: None }),
            prop::collection::vec(pair, 0..5).prop_map(|pairs| {
                let key = |text: String| Frame3::BlobString { data: text.into_bytes(), attributes: None };
                let data = pairs.into_iter().map(|(name, value)| (key(name), value)).collect();
                Frame3::Map { data, attributes: None }
            }),
            prop::collection::hash_set(".{0,9}", 0..5).prop_map(|names| {
                let key = |text: String| Frame3::BlobString { data: text.into_bytes(), attributes: None };
                Frame3::Set { data: names.into_iter().map(key).collect(), attributes: None }
            }),
        ]
    })
}

/// The replies in `parts`, one behind the other, end where each part ends.
fn assert_ends(parts: &[Vec<u8>], step: usize) {
    let mut end = 0;
    let ends: Vec<usize> = parts
        .iter()
        .map(|part| {
            end += part.len();
            end
        })
        .collect();
    let (found, error, open) = scan(&parts.concat(), || step);
    assert_eq!(found.iter().map(|reply| reply.0).collect::<Vec<_>>(), ends);
    assert!(error.is_none() && !open);
}

proptest! {
    #[test]
    fn resp2_frames_end_where_the_encoder_ends(frames in prop::collection::vec(frame2(), 1..4), step in 1usize..200) {
        let parts: Vec<Vec<u8>> = frames.iter().map(|frame| {
            let mut out = bytes::BytesMut::new();
            resp2::encode::extend_encode(&mut out, &frame.clone().into_bytes_frame(), false).unwrap();
            out.to_vec()
        }).collect();
        assert_ends(&parts, step);
    }

    #[test]
    fn resp3_frames_end_where_the_encoder_ends(frames in prop::collection::vec(frame3(), 1..4), step in 1usize..200) {
        let parts: Vec<Vec<u8>> = frames.iter().map(|frame| {
            let mut out = bytes::BytesMut::new();
            let frame = frame.clone().into_bytes_frame();
            resp3::encode::complete::extend_encode(&mut out, &frame, false).unwrap();
            out.to_vec()
        }).collect();
        assert_ends(&parts, step);
    }

    #[test]
    fn requests_in_canonical_form_are_arrays_to_the_oracle(input in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 1..9)) {
        let frame = resp2::types::BytesFrame::Array(input.iter().map(|argument| {
            resp2::types::BytesFrame::BulkString(bytes::Bytes::copy_from_slice(argument))
        }).collect());
        let mut out = bytes::BytesMut::new();
        resp2::encode::extend_encode(&mut out, &frame, false).unwrap();
        let found = checks::request::scan(RequestLimits::DEFAULT, &out, || 7);
        prop_assert_eq!(found.commands, vec![input]);
        prop_assert_eq!(&found.forwarded, &out.to_vec());
    }
}

#[test]
fn mutated_replies_end_where_the_oracle_says() {
    let seeds = checks::seeds("reply_skip");
    let shown = (0..60_000)
        .filter(|round| {
            let input = Rng::new(1_000_000 + round).mutate(&seeds);
            compare(&input, &scan(&input, || input.len()))
        })
        .count();
    assert!(shown > 5_000, "the oracle had a say in only {shown} cases");
}
