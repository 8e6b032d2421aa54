//! Where a listener's choice leads: its members, and the ring that picks among them.

use super::Control;
use super::rings::Set;
use crate::contents::arena::Region;
use crate::contents::pack_members;
use crate::model::Placed;
use crate::plan::Edits;
use crate::ring::{Member, identity};
use nlb_common::layout::Members;
use nlb_common::ring::{MAX_TARGETS_PER_SET, size};

/// The regions that a listener's choice leads to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path {
    pub(super) members: Region,
    pub(super) ring: u32,
}

/// There is no run of free words that is long enough.
pub(super) struct NoRoom;

/// Who takes new flows, in the order of the targets, and how many more there are than a set may have.
pub(super) fn members(targets: &[Placed], slots: &[Option<u32>]) -> (Vec<(Member, u32)>, u32) {
    let takers = targets.iter().zip(slots).filter(|(placed, _)| placed.share > 0);
    let member = |placed: &Placed| Member {
        identity: identity(placed.key.ip.into(), placed.key.port),
        share: placed.share,
    };
    let mut members: Vec<_> = takers.filter_map(|(placed, slot)| Some((member(placed), (*slot)?))).collect();
    let beyond = members.len().saturating_sub(MAX_TARGETS_PER_SET as usize);
    members.truncate(MAX_TARGETS_PER_SET as usize);
    (members, beyond as u32)
}

impl Control {
    /// Where the choice of a listener with these members shall lead: to what it has, if that says the same.
    pub(super) fn path(
        &mut self,
        before: Option<Path>,
        registered: u32,
        members: &[(Member, u32)],
        edits: &mut Edits,
    ) -> Result<Option<Path>, NoRoom> {
        if members.is_empty() {
            return Ok(None);
        }
        let registered = registered.max(members.len() as u32).min(MAX_TARGETS_PER_SET);
        let size = size(registered).expect("the largest ring is large enough");
        let set = Set::new(size, members.iter().map(|(member, _)| *member).collect());
        let (ring, words) =
            self.rings.take(set, before.map(|path| path.ring), &self.now, &mut self.arena).ok_or(NoRoom)?;
        let slots: Vec<u32> = members.iter().map(|(_, slot)| *slot).collect();
        let packed = pack_members(Members { ring, size }, &slots);
        if let Some(Path { members, .. }) = before
            && self.now.rings[members.at as usize..][..members.words as usize] == packed
        {
            return Ok(Some(Path { members, ring }));
        }
        let Some(members) = self.arena.take(packed.len() as u32) else {
            self.rings.retire(ring, &mut self.arena, None);
            return Err(NoRoom);
        };
        edits.regions.extend(words.map(|words| (ring, words)));
        edits.regions.insert(members.at, packed);
        Ok(Some(Path { members, ring }))
    }

    /// Gives up what the listener had and has no more; its use of the ring is counted anew each time.
    pub(super) fn retire(&mut self, before: Option<Path>, after: Option<Path>) {
        let Some(before) = before else { return };
        self.rings.retire(before.ring, &mut self.arena, Some(self.epoch));
        if after.is_none_or(|after| after.members != before.members) {
            self.arena.retire(before.members, self.epoch);
        }
    }
}
