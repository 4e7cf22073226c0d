/**
 * One block of a LevelDB table: its bytes unpacked, and its entries read with the suspicion that LevelDB lacks (it asserts, and
 * an assertion ends the process). Format: leveldb's doc/table_format.md, and Snappy's format description.
 */
export interface BlockEntry {
  /** User key, then 8 bytes of LevelDB's own. */
  readonly key: Uint8Array
  readonly value: Uint8Array
}

const OWN_BYTES = 8

/** Throws RangeError at anything that LevelDB could stumble over. */
export function entriesOf(block: Uint8Array): BlockEntry[] {
  if (block.length < 4) throw new RangeError('a block without an end')
  const view = new DataView(block.buffer, block.byteOffset, block.byteLength)
  const restarts = view.getUint32(block.length - 4, true)
  const end = block.length - 4 - 4 * restarts
  if (restarts === 0 || end < 0) throw new RangeError('a block without restarts')
  const starts = new Set<number>()
  for (let i = 0; i < restarts; i++) starts.add(view.getUint32(end + 4 * i, true))
  const entries: BlockEntry[] = []
  let before: Uint8Array = new Uint8Array()
  let at = 0
  const varint = (): number => {
    const [value, next] = readVarint(block, at, end)
    at = next
    return value
  }
  while (at < end) {
    const restart = starts.delete(at)
    const shared = varint()
    const own = varint()
    const length = varint()
    if (shared > before.length || (restart && shared > 0) || at + own + length > end)
      throw new RangeError('an entry outside its block')
    const key = Buffer.concat([before.subarray(0, shared), block.subarray(at, at + own)])
    if (key.length < OWN_BYTES) throw new RangeError('a key that is too short')
    if (entries.length > 0 && !ascends(before, key)) throw new RangeError('keys out of order')
    entries.push({ key, value: block.subarray(at + own, at + own + length) })
    before = key
    at += own + length
  }
  starts.delete(0) // Of an empty block.
  if (starts.size > 0) throw new RangeError('a restart at no entry')
  return entries
}

/** By user key, then newest first. */
function ascends(a: Uint8Array, b: Uint8Array): boolean {
  const order = Buffer.compare(a.subarray(0, -OWN_BYTES), b.subarray(0, -OWN_BYTES))
  if (order !== 0) return order < 0
  for (let i = 1; i <= OWN_BYTES; i++) {
    const difference = a[a.length - i]! - b[b.length - i]!
    if (difference !== 0) return difference > 0
  }
  return false
}

export function readVarint(bytes: Uint8Array, from: number, end: number): [value: number, next: number] {
  let value = 0
  let at = from
  for (let scale = 1; at < end; scale *= 128) {
    const byte = bytes[at++]!
    value += (byte & 0x7f) * scale
    if (byte < 0x80) return [value, at]
    if (scale > 2 ** 56) break
  }
  throw new RangeError('a number without an end')
}

/** Snappy. Throws RangeError when it does not unpack to the length it announces, or announces more than `max`. */
export function unpack(packed: Uint8Array, max: number): Uint8Array {
  const [length, start] = readVarint(packed, 0, packed.length)
  if (length > max) throw new RangeError(`a block of ${length} bytes`)
  const out = new Uint8Array(length)
  let to = 0
  let at = start
  const little = (bytes: number): number => {
    let value = 0
    for (let i = 0; i < bytes; i++) value += (packed[at++] ?? Number.NaN) * 2 ** (8 * i)
    return value
  }
  while (at < packed.length) {
    const tag = packed[at++]!
    const kind = tag & 3
    if (kind === 0) {
      const size = tag >>> 2 < 60 ? (tag >>> 2) + 1 : little((tag >>> 2) - 59) + 1
      if (!(to + size <= length && at + size <= packed.length))
        throw new RangeError('a literal that is too long')
      out.set(packed.subarray(at, at + size), to)
      at += size
      to += size
      continue
    }
    const size = kind === 1 ? ((tag >>> 2) & 7) + 4 : (tag >>> 2) + 1
    const distance = kind === 1 ? (tag >>> 5) * 256 + little(1) : little(kind === 2 ? 2 : 4)
    if (!(distance > 0 && distance <= to && to + size <= length)) throw new RangeError('a copy from outside')
    for (let i = 0; i < size; i++, to++) out[to] = out[to - distance]!
  }
  if (to !== length) throw new RangeError('a block that ends early')
  return out
}
