# Random requests with many in flight, through libnbd, next to a model: what is read must be what was written, and every
# dirty map must be the granules that the model says, whatever range is asked for. Run by nbdsh; `arguments` is set before.
#   uri, seed, requests, depth; granularities: {context: bytes}
import json
import random

import nbd

random.seed(arguments["seed"])


def connect(contexts=(), structured=True):
    handle = nbd.NBD()
    handle.set_request_structured_replies(structured)
    for context in contexts:
        handle.add_meta_context(context)
    handle.connect_uri(arguments["uri"])
    return handle


class Model:
    """Bytes, which of them nobody promises any more (discarded), and which ranges were asked to change."""

    def __init__(self, size):
        self.size = size
        self.bytes = bytearray(size)
        self.unknown = bytearray(size)
        self.changed = []

    def change(self, kind, offset, length, data):
        self.changed.append((offset, length))
        if kind == "trim":
            self.unknown[offset : offset + length] = b"\1" * length
            return
        self.bytes[offset : offset + length] = data if kind == "write" else bytes(length)
        self.unknown[offset : offset + length] = bytes(length)

    def same(self, offset, seen):
        known = self.unknown[offset : offset + len(seen)]
        expected = self.bytes[offset : offset + len(seen)]
        if not any(known):
            return seen == expected
        return all(a == b for a, b, out in zip(seen, expected, known) if not out)

    def granules(self, granularity):
        touched = set()
        for offset, length in self.changed:
            touched.update(range(offset // granularity, (offset + length - 1) // granularity + 1))
        return touched


def one(size):
    length = 1 + random.randrange(random.choice([1, 700, 9000, 150000]))
    offset = size - length if random.random() < 0.1 else random.randrange(size - length + 1)
    if random.random() < 0.5 and offset > 512:
        offset -= offset % 512
    kind = random.choices(["read", "write", "zero", "trim", "flush"], [8, 8, 4, 2, 1])[0]
    return kind, offset, length, nbd.CMD_FLAG_FUA if random.random() < 0.1 else 0


def begin(handle, kind, offset, length, flags):
    """Gives the cookie and the buffer."""
    if kind == "read":
        buffer = nbd.Buffer(length)
        return handle.aio_pread(buffer, offset), buffer
    if kind == "write":
        buffer = nbd.Buffer.from_bytearray(bytearray(random.randbytes(length)))
        return handle.aio_pwrite(buffer, offset, flags=flags), buffer
    if kind == "zero":
        return handle.aio_zero(length, offset, flags=flags | random.choice([0, nbd.CMD_FLAG_NO_HOLE])), None
    if kind == "trim":
        return handle.aio_trim(length, offset, flags=flags), None
    return handle.aio_flush(), None


def traffic(handles, model):
    """Requests that touch the same bytes are never under way together, since NBD promises nothing to those."""
    flying = {}
    sent = done = late = 0
    order = 0
    while done < arguments["requests"]:
        while sent < arguments["requests"] and len(flying) < arguments["depth"]:
            kind, offset, length, flags = one(model.size)
            if kind != "flush" and any(
                a < offset + length and offset < b and not (kind == "read" and other == "read")
                for other, a, b, *_ in flying.values()
            ):
                break
            which = random.randrange(len(handles))
            cookie, buffer = begin(handles[which], kind, offset, length, flags)
            order += 1
            flying[(which, cookie)] = (kind, offset, offset + length, buffer, order)
            sent += 1
        for handle in handles:
            handle.poll(5)
        oldest = min(entry[4] for entry in flying.values()) if flying else 0
        for (which, cookie), (kind, offset, end, buffer, number) in list(flying.items()):
            if not handles[which].aio_command_completed(cookie):
                continue
            del flying[(which, cookie)]
            done += 1
            late += number != oldest
            if kind == "read":
                assert model.same(offset, buffer.to_bytearray()), ("read", offset, end)
            elif kind != "flush":
                model.change(kind, offset, end - offset, buffer.to_bytearray() if kind == "write" else None)
    return late


def status(handle, context, offset, length, flags=0):
    found = []
    handle.block_status(
        length,
        offset,
        lambda name, at, entries, error: found.extend(entries) if name == context else None,
        flags=flags,
    )
    return list(zip(found[::2], found[1::2]))


def expect_map(handle, context, granularity, model, rounds):
    """Any range, asked on until its end, is told as the model has it: no gap, no doubt about an odd first or last byte."""
    dirty = model.granules(granularity)
    for _ in range(rounds):
        offset = random.randrange(model.size)
        end = offset + 1 + random.randrange(model.size - offset)
        at = offset
        while at < end:
            for length, flags in status(handle, context, at, end - at, random.choice([0, nbd.CMD_FLAG_REQ_ONE])):
                assert length > 0
                stop = min(at + length, end)
                granules = range(at // granularity, (stop - 1) // granularity + 1)
                assert all((granule in dirty) == (flags == 1) for granule in granules), (context, at, stop, flags)
                at = stop
    return len(dirty)


handles = [connect(structured=structured) for structured in (True, True, False)]
assert [handle.get_structured_replies_negotiated() for handle in handles] == [True, True, False]
assert all(handle.can_multi_conn() for handle in handles)
model = Model(handles[0].get_size())
late = traffic(handles, model)
assert all(model.same(at, bytearray(handle.pread(min(65536, model.size - at), at)))
           for handle in handles for at in range(0, model.size, 65536))
for handle in handles:
    handle.shutdown()

contexts = arguments["granularities"]
looker = connect([*contexts, nbd.CONTEXT_BASE_ALLOCATION])
dirty = {name: expect_map(looker, name, granularity, model, arguments["ranges"]) for name, granularity in contexts.items()}
assert sum(length for length, _ in status(looker, nbd.CONTEXT_BASE_ALLOCATION, 1, model.size - 1)) == model.size - 1
looker.shutdown()
print(json.dumps({"late": late, "changes": len(model.changed), "dirty": dirty}))
