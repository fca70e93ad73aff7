//! The peers that these tests sync from answer as real ones do.

use serde_json::Value;

use crate::support::{gateway::chain, peer::Reply, serving::Serving};

#[test]
fn the_answers_are_those_that_a_real_node_gave() {
    let recorded: Vec<Value> = serde_json::from_str(include_str!("../fixtures/node-transcripts-61.json")).unwrap();
    let node = Serving::of(&chain());
    for one in recorded {
        let Reply::Json(answer) = node.answer(&one["request"]) else { panic!("no answer to {}", one["request"]) };
        assert_eq!(answer, one["response"], "{}", one["request"]);
    }
}
