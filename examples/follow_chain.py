#!/usr/bin/env python3
"""Follows the canonical chain of a gateway and prints each change: `+ INDEX HASH` or `- INDEX HASH`.

    python3 examples/follow_chain.py http://127.0.0.1:8080

Needs nothing but Python 3.8. It goes on after restarts of the gateway, reorganisations, and a log that is too short.
"""

import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

# An id of no store: the stream begins with a `reset`, which says where the chain is.
BEGIN = "9223372036854775807"
# The gateway sends a comment at least every 15 s: a longer silence is a dead connection.
SILENCE = 40
RETRY = 1


class OutOfStep(Exception):
    """What is known of the chain does not fit what came: begin anew."""


class Chain:
    """The hashes of the canonical chain, by index."""

    def __init__(self, base):
        self.base = base
        self.hashes = []

    def apply(self, name, event):
        """Applies an event to the chain."""
        if name == "extended":
            last = self.hashes[-1] if self.hashes else None
            if event["from"] != len(self.hashes) or (event["added"] is not None and event["previous_hash"] != last):
                raise OutOfStep
            self.replace(event["from"], event["added"], event)
        elif name == "reorganised":
            # No `extended` follows for the blocks that come with a reorganisation.
            if (event["old_tip"] or {"hash": None})["hash"] != (self.hashes[-1] if self.hashes else None):
                raise OutOfStep
            kept = event["ancestor"]["index"] + 1 if event["ancestor"] else 0
            self.replace(kept, event["added"], event)
        elif name == "reset":
            chain = self.read(0, event["tip"])
            kept = 0
            while kept < min(len(chain), len(self.hashes)) and chain[kept] == self.hashes[kept]:
                kept += 1
            self.replace(kept, chain[kept:], event)

    def replace(self, kept, added, event):
        """Replaces what follows the first `kept` blocks."""
        if added is None or event.get("truncated"):
            added = self.read(kept, event["tip"])
        while len(self.hashes) > kept:
            index = len(self.hashes) - 1
            print("-", index, self.hashes.pop(), flush=True)
        for block in added:
            print("+", len(self.hashes), block, flush=True)
            self.hashes.append(block)

    def read(self, index, tip):
        """The hashes from `index` up to `tip`, read in parts, all of the chain that has `tip`."""
        hashes = []
        while tip and index <= tip["index"]:
            query = f"from_index={index}&to_index={tip['index']}&anchor={urllib.parse.quote(tip['hash'], safe='')}"
            url = f"{self.base}/data/miner_block/range?{query}"
            try:
                with urllib.request.urlopen(url, timeout=SILENCE) as response:
                    blocks = json.load(response)["data"]["blocks"]
            except urllib.error.HTTPError as error:
                # 409: `tip` was reorganised away meanwhile.
                raise OutOfStep from error
            hashes += [block["hash"] for block in blocks]
            index += len(blocks)
            if not blocks:
                raise OutOfStep
        return hashes


def events(base, last):
    """Id, name and data of each event after the one with the id `last`, until the connection ends."""
    headers = {"accept": "text/event-stream", "last-event-id": last}
    with urllib.request.urlopen(urllib.request.Request(f"{base}/events", headers=headers), timeout=SILENCE) as stream:
        fields = {}
        for line in stream:
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name:
                fields[name] = value
            elif "data" in fields:
                yield fields["id"], fields["event"], json.loads(fields["data"])
                fields = {}


def follow(base):
    """Follows without end."""
    chain, last = Chain(base), BEGIN
    while True:
        try:
            for id, name, event in events(base, last):
                chain.apply(name, event)
                last = id
        except OutOfStep:
            last = BEGIN
        except OSError as error:
            print(f"the gateway is unreachable: {error}", file=sys.stderr)
        time.sleep(RETRY)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: follow_chain.py URL")
    try:
        follow(sys.argv[1].rstrip("/"))
    except KeyboardInterrupt:
        pass
