# What a client must not ask, asked all the same with libnbd's own checks off: each is refused with the right error, and the
# connection goes on. Run by nbdsh; `arguments` is set before: writable and readonly (URIs).
import errno
import json

import nbd

MiB = 1 << 20
LARGEST = 32 * MiB


def connect(uri, contexts=(), structured=True):
    handle = nbd.NBD()
    handle.set_request_structured_replies(structured)
    for context in contexts:
        handle.add_meta_context(context)
    handle.connect_uri(uri)
    handle.set_strict_mode(0)
    return handle


refused = 0


def expect(number, what, act):
    global refused
    try:
        act()
    except nbd.Error as error:
        assert error.errnum == number, (what, error.errnum, error.string)
        refused += 1
        return
    raise AssertionError(f"{what} was let through")


def nothing(*_):
    return 0


def refuse_all(handle, size):
    """Everything that no server may do; each structured and simple."""
    ranges = [(1, size), (512, size - 511), (1, size + 1), (2, size - 1), (1, 2**62), (size + 1, 0), (1, 2**63 - 1)]
    for length, offset in ranges:
        where = f"{length} bytes at {offset}"
        expect(errno.EINVAL, f"a read of {where}", lambda: handle.pread(length, offset))
        expect(errno.EINVAL, f"a cache of {where}", lambda: handle.cache(length, offset))
        expect(errno.EINVAL, f"zeroes of {where}", lambda: handle.zero(length, offset))
        expect(errno.EINVAL, f"a trim of {where}", lambda: handle.trim(length, offset))
        if length < LARGEST:
            expect(errno.EINVAL, f"a write of {where}", lambda: handle.pwrite(bytes(length), offset))
        expect(errno.EINVAL, f"a flagged trim of {where}", lambda: handle.trim(length, offset, nbd.CMD_FLAG_FUA))
    expect(errno.EINVAL, "zeroes to beyond 4 GiB", lambda: handle.zero(2**32 - 1, 1))
    expect(errno.EINVAL, "a trim to beyond 4 GiB", lambda: handle.trim(2**32 - 1, 1))
    expect(errno.EINVAL, "a long read", lambda: handle.pread(LARGEST + 1, 0))
    for flag in (nbd.CMD_FLAG_NO_HOLE, nbd.CMD_FLAG_REQ_ONE, nbd.CMD_FLAG_FAST_ZERO, 0x20, 0x8000):
        expect(errno.EINVAL, f"a write with flag {flag}", lambda: handle.pwrite(b"x", 0, flag))
        expect(errno.EINVAL, f"a trim with flag {flag}", lambda: handle.trim(1, 0, flag))
        expect(errno.EINVAL, f"a flush with flag {flag}", lambda: handle.flush(flag))
        expect(errno.EINVAL, f"a read with flag {flag}", lambda: handle.pread(1, 0, flag))
        expect(errno.EINVAL, f"a cache with flag {flag}", lambda: handle.cache(1, 0, flag))
    for flag in (nbd.CMD_FLAG_DF, nbd.CMD_FLAG_REQ_ONE, 0x40):
        expect(errno.EINVAL, f"zeroes with flag {flag}", lambda: handle.zero(1, 0, flag))
    expect(errno.ENOTSUP, "fast zeroes", lambda: handle.zero(4096, 0, nbd.CMD_FLAG_FAST_ZERO))
    handle.pwrite(b"", 0)
    handle.zero(0, 0)
    handle.trim(0, size)
    assert handle.pread(0, size) == b""


for structured in (True, False):
    handle = connect(arguments["writable"], structured=structured)
    size = handle.get_size()
    refuse_all(handle, size)
    if not structured:
        expect(errno.EINVAL, "DF with simple replies", lambda: handle.pread(1, 0, nbd.CMD_FLAG_DF))
    assert len(handle.pread(LARGEST, 0)) == LARGEST
    handle.shutdown()

handle = connect(arguments["writable"], [nbd.CONTEXT_BASE_ALLOCATION])
for length, offset in ((0, 0), (0, size), (1, size), (size + 1, 0), (2, size - 1), (2**32 - 1, 1)):
    expect(errno.EINVAL, f"status of {length} at {offset}", lambda: handle.block_status(length, offset, nothing))
for flag in (nbd.CMD_FLAG_DF, nbd.CMD_FLAG_NO_HOLE, 0x80):
    expect(errno.EINVAL, f"status with flag {flag}", lambda: handle.block_status(1, 0, nothing, flag))
handle.shutdown()
handle = connect(arguments["writable"], ["qemu:dirty-bitmap:nope"])
assert not handle.can_meta_context("qemu:dirty-bitmap:nope")
for length in (1, 512, size):
    try:
        handle.block_status(length, 0, nothing)
    except nbd.Error:
        refused += 1
    else:
        raise AssertionError("a status of no context")
handle.shutdown()

handle = connect(arguments["readonly"])
assert handle.is_read_only() and not handle.can_trim() and not handle.can_zero()
for flags in (0, nbd.CMD_FLAG_FUA):
    for offset in (0, 1, size - 1):
        expect(errno.EPERM, "a write into what is read-only", lambda: handle.pwrite(b"x", offset, flags))
        expect(errno.EPERM, "zeroes into what is read-only", lambda: handle.zero(1, offset, flags))
        expect(errno.EPERM, "a trim of what is read-only", lambda: handle.trim(1, offset, flags))
assert len(handle.pread(4096, 1)) == 4096
handle.flush()
handle.shutdown()

# A write that is too long ends the connection, as QEMU's does: what it carries is not read to its end.
handle = connect(arguments["writable"])
try:
    handle.pwrite(bytes(LARGEST + 1), 0)
except nbd.Error:
    refused += 1
else:
    raise AssertionError("a write of more than 32 MiB")
assert not handle.aio_is_ready()
print(json.dumps({"refused": refused}))
