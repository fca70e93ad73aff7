//! Members that are computed, and deviations that are only reported.

use super::*;

#[rstest]
fn derived_members_are_computed_whatever_was_sent(#[values(Level::Linked, Level::Pow)] level: Level) {
    let verifier = POW.at(level).unwrap();
    let mut sent = fixture();
    sent[7].data_hash.clear();
    sent[8].data_hash = "x".into();
    sent[40].epoch = 1;
    sent[41].actualized_difficulty = 0;
    let broken = sent.clone();
    let differences = verifier.derive(&mut sent);
    assert_eq!(differences, Differences { data_hash: 1, epoch: 1, actualized_difficulty: 1 }, "an empty one is none");
    assert_eq!(sent, fixture());
    assert_eq!(differences.total(), 3);
    let (again, verified) = at(Level::Linked).derive_and_verify(None, broken);
    assert_eq!((again, verified.unwrap().into_blocks()), (differences, fixture()));
    // Numbered in the way of the first release.
    let plain = on(&Network { epoch_numbering: EpochNumbering::Plain, ..Network::devnet() }, Level::Linked);
    assert_eq!(plain.derive(&mut sent).epoch, 1);
    assert!(plain.verify(None, sent).is_ok());
}

#[test]
fn without_verification_only_what_is_empty_is_filled_in() {
    let mut sent = fixture();
    (sent[1].data_hash, sent[2].data_hash, sent[3].epoch) = (String::new(), "of our own".into(), 9);
    assert_eq!(at(Level::None).derive(&mut sent), Differences::default());
    assert_eq!(sent[1].data_hash, sent[1].expected_data_hash());
    assert_eq!((sent[2].data_hash.as_str(), sent[3].epoch), ("of our own", 9));
}

#[test]
fn what_a_public_network_does_not_enforce_is_reported() {
    let reporting = Network { difficulty_schedule: Enforcement::Report, public: true, ..Network::devnet() };
    let slower = Network { target_block_time: 30, ..reporting.clone() };
    let verified = on(&slower, Level::Pow).verify(None, fixture()).unwrap();
    let deviating: Vec<_> = verified.blocks().iter().filter(|block| !block.deviations.is_empty()).collect();
    // Only the first block of epoch 1 takes another difficulty than its predecessors' would give.
    assert_eq!(deviating.iter().map(|block| block.index).collect::<Vec<_>>(), [41]);
    assert_eq!(deviating[0].deviations, [Deviation::Schedule]);
    let mut early = fixture();
    early[60].timestamp = unix_now() + 7300;
    let verified = on(&reporting, Level::Linked).verify(None, early).unwrap();
    assert_eq!(verified.blocks()[60].deviations, [Deviation::Timestamp]);
    let off = Network { difficulty_schedule: Enforcement::Off, ..slower };
    assert!(
        on(&off, Level::Linked).verify(None, fixture()).unwrap().blocks().iter().all(|it| it.deviations.is_empty())
    );
}
