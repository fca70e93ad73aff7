//! What follows from a setback, and for whom.

use libp2p::PeerId;

use super::{
    run::{Record, Run},
    setback::Setback,
};
use crate::p2p::Offence;

impl Run {
    /// Draws the consequences of a setback; whether somebody is left out because of it, so that the next plan differs.
    pub(super) fn judge(&self, setback: &Setback, record: &mut Record) -> bool {
        let text = setback.to_string();
        tracing::debug!(setback = text, "a setback");
        self.tracker.update(|progress| {
            progress.retries += 1;
            progress.last_error = Some(text.clone());
        });
        record.last = Some(text);
        match setback {
            Setback::Peer(peer, fault) => {
                self.hold_against(*peer, fault.offence());
                if let Some(problem) = fault.problem() {
                    self.note_problem(*peer, problem);
                }
                match fault.offence() {
                    Some(Offence::BrokenAnswer) => record.found.wrong.insert(*peer),
                    _ => record.found.silent.insert(*peer),
                }
            }
            Setback::Invalid(peer, violation) => {
                self.hold_against(*peer, violation.rule.proves_forgery().then_some(Offence::InvalidBlock));
                record.found.wrong.insert(*peer)
            }
            Setback::OtherGenesis { peer, .. }
            | Setback::Checkpoint { peer, .. }
            | Setback::OffCheckpoint { peer, .. } => record.found.wrong.insert(*peer),
            Setback::Seam { peer, before } => {
                let helpers = [Some(*peer), *before].into_iter().flatten().filter(|peer| Some(*peer) != record.lead);
                let helpers: Vec<_> = helpers.collect();
                match helpers.is_empty() {
                    true => {
                        record.doubted.extend(record.lead.filter(|_| before.is_none()));
                        record.seam()
                    }
                    // Whoever only helps can be done without.
                    false => {
                        let before = record.found.silent.len();
                        record.found.silent.extend(helpers);
                        record.found.silent.len() > before
                    }
                }
            }
            // If nobody but the lead has a part in it, it may be its doing.
            Setback::Moved => record.seam(),
            Setback::Store(_) | Setback::Pow(_) | Setback::Stopped => false,
        }
    }

    fn hold_against(&self, peer: PeerId, offence: Option<Offence>) {
        if let Some(offence) = offence {
            self.p2p.penalise(peer, offence);
            self.tracker.penalty(peer, offence.as_str());
        }
    }
}
