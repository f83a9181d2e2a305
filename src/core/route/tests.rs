//! Tests of the ladder.
