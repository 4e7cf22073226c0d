# What a client can agree on before it asks for bytes: exports, names of maps, several maps in one connection, chunks of a read.
# Run by nbdsh; `arguments` is set before: uri, size, exports, maps ({name: [[offset, length, flags], …]}).
import json

import nbd

DIRTY = "qemu:dirty-bitmap:"
maps = {DIRTY + name: [tuple(run) for run in runs] for name, runs in arguments["maps"].items()}


def pending(contexts=(), structured=True):
    handle = nbd.NBD()
    handle.set_opt_mode(True)
    handle.set_full_info(True)
    handle.set_request_structured_replies(structured)
    for context in contexts:
        handle.add_meta_context(context)
    handle.connect_uri(arguments["uri"])
    return handle


def status(handle, offset, length):
    """Every context's runs, as one answer told them."""
    answer = {}

    def take(name, at, entries, error):
        runs = answer.setdefault(name, [])
        for length, flags in zip(entries[::2], entries[1::2]):
            runs.append((at, length, flags))
            at += length

    handle.block_status(length, offset, take)
    return answer


def cut(runs, offset, end):
    parts = ((max(at, offset), min(at + length, end), flags) for at, length, flags in runs)
    return [(at, stop - at, flags) for at, stop, flags in parts if at < stop]


handle = pending()
exports = []
handle.opt_list(lambda name, description: exports.append(name))
assert exports == arguments["exports"], exports
for name in exports:
    handle.set_export_name(name)
    handle.opt_info()
    assert (handle.get_size(), handle.get_canonical_export_name()) == (arguments["size"], name)
handle.set_export_name("nope")
for ask in (handle.opt_info, handle.opt_go):
    try:
        ask()
        raise AssertionError("an export that is not there")
    except nbd.Error:
        pass
handle.set_export_name(exports[0])
listed = []
handle.opt_list_meta_context(lambda name: listed.append(name))
assert "base:allocation" in listed and all(name in listed for name in arguments["listed"]), listed
handle.opt_go()
assert handle.get_size() == arguments["size"]
handle.shutdown()

handle = pending()
handle.opt_abort()
assert handle.aio_is_closed()

# All of them at once, in one connection, and what is not there left out.
handle = pending([*maps, DIRTY + "nope", DIRTY + "a@since=77", DIRTY + "@time=yesterday", nbd.CONTEXT_BASE_ALLOCATION])
handle.opt_go()
assert [name for name in (DIRTY + "nope", DIRTY + "a@since=77", DIRTY + "@time=yesterday") if handle.can_meta_context(name)] == []
assert all(handle.can_meta_context(name) for name in maps)
size = arguments["size"]
for offset, end in ((0, size), (1, size), (0, size - 1), (size - 1, size), (65535, 65537), (4095, 1048577), (12345, 3456789)):
    answer = status(handle, offset, end - offset)
    assert set(answer) == {*maps, "base:allocation"}
    for name, runs in maps.items():
        assert cut(answer[name], offset, end) == cut(runs, offset, end), (name, offset, end, answer[name][:9])
handle.shutdown()

# A read comes in chunks that together are it; with DF in one.
handle = pending()
handle.opt_go()
for flags in (0, nbd.CMD_FLAG_DF):
    for offset, length in ((0, 1 << 20), (4095, 70001), (size - 1, 1)):
        seen = []
        bytes_ = handle.pread_structured(length, offset, lambda part, at, kind, error: seen.append((at, len(part))), flags)
        assert sum(part for _, part in seen) == length and min(at for at, _ in seen) == offset
        assert len(seen) == 1 or flags == 0
        assert bytes_ == handle.pread(length, offset)
handle.shutdown()

handle = pending(maps, structured=False)
handle.opt_go()
assert not any(handle.can_meta_context(name) for name in maps)
handle.shutdown()
print(json.dumps({"maps": len(maps), "listed": len(listed)}))
