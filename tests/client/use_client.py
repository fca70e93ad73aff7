"""Asks the gateway at the address on the command line, which has the bundled chain, through the generated client."""

import sys

from modal_gateway_client import Client
from modal_gateway_client.api.gateway import get_status, list_sync_jobs
from modal_gateway_client.api.protocol import find_ancestor, get_epoch, get_epoch_by_post, get_range
from modal_gateway_client.models import (
    CheckPoint,
    Code,
    EpochQuery,
    ErrorEnvelope,
    FindAncestorQuery,
    MinerBlock,
)

client = Client(base_url=sys.argv[1])

response = get_epoch.sync_detailed(client=client, epoch=0)
assert response.status_code == 200, response
assert response.headers["x-modal-source"] == "local", response.headers
epoch = response.parsed
assert (epoch.ok, epoch.errors, epoch.data.epoch, epoch.data.count) == (True, None, 0, 41), epoch
blocks = epoch.data.blocks
assert [block.index for block in blocks] == list(range(41)), blocks
for parent, block in zip(blocks, blocks[1:]):
    assert isinstance(block, MinerBlock) and block.previous_hash == parent.hash_, block
    assert isinstance(block.nonce, str) and block.difficulty == block.target_difficulty, block
    assert block.is_canonical and not block.is_orphaned and block.orphaned_at is None, block
    assert not block.additional_properties, block

posted = get_epoch_by_post.sync(client=client, body=EpochQuery(epoch=0))
assert posted.to_dict() == epoch.to_dict()

page = get_range.sync(client=client, from_index=3, to_index=7, max_chunk_size=2).data
assert [block.index for block in page.blocks] == [3, 4] and page.has_more and page.next_from_index == 5, page

tip = get_status.sync(client=client).data.chain.tip
points = [CheckPoint(index=tip.index, hash_=tip.hash_), CheckPoint(index=1, hash_="other")]
found = find_ancestor.sync(client=client, body=FindAncestorQuery(check_points=points)).data
assert [match.matches for match in found.matches] == [True, False] and found.highest_match == tip.index, found

sync = list_sync_jobs.sync(client=client).data
assert (sync.jobs, sync.count) == ([], 0) and sync.status.state in ("synced", "syncing", "stalled", "off"), sync

refused = get_range.sync_detailed(client=client, from_index=7, to_index=3)
assert refused.status_code == 400 and isinstance(refused.parsed, ErrorEnvelope), refused
assert refused.parsed.ok is False and refused.parsed.data is None, refused
assert refused.parsed.errors.code == Code.INVALID_RANGE, refused
assert refused.parsed.errors.error == "from_index must be <= to_index", refused

# Numbers up to 2^64-1 go out and come back exact.
far = get_epoch.sync(client=client, epoch=2**64 - 1)
assert (far.data.epoch, far.data.count) == (2**64 - 1, 0), far
