/**
 * Write ranges as columns of varints: what a record of thousands of writes consists of, and the hot path of the product.
 *
 *     lengths   varint(length >> shift)                 shift: the zeros that end every offset and length of the section
 *     offsets   zigzag((offset - end before) >> shift)  end before: where the previous write of the section ended
 *     ops       varint(run << 2 | op) …                 left out when every op is `write`
 *     times     varint(ms since the write before) …     left out when every write has the record's time
 *
 * Cost: sequential 4 KiB writes take 2 bytes each, random ones on 1 TiB about 6; 10 to 20 ns a write to encode or decode.
 * 32-bit integers take the fast branch; anything up to 2^53 takes `Writer`/`Reader`'s slow one. Nothing is allocated per row.
 */
import { RecordDamage } from './damage.ts'
import { type Reader, VARINT_BYTES_MAX, type Writer } from './varint.ts'

export const SHIFT_MAX = 31

/** The largest shift that loses nothing. Throws RangeError at a row that is not a range of whole bytes. */
export function alignmentOf(offsets: Float64Array, lengths: Float64Array, before = 0): number {
  const rows = offsets.length
  let bits = before
  for (let i = 0; i < rows; i++) {
    const offset = offsets[i]!
    const length = lengths[i]!
    if (!(offset >= 0 && length > 0 && offset + length <= Number.MAX_SAFE_INTEGER))
      throw badRow(i, offset, length)
    if (Math.floor(offset) !== offset || Math.floor(length) !== length) throw badRow(i, offset, length)
    bits |= offset | length
  }
  return bits
}

/** `bits`: the OR of everything that will be shifted (its low 32 bits). */
export function shiftOf(bits: number): number {
  return bits === 0 ? SHIFT_MAX : 31 - Math.clz32(bits & -bits)
}

function badRow(row: number, offset: number, length: number): RangeError {
  return new RangeError(`row ${row}: offset ${offset} length ${length} is no range of whole bytes below 2^53`)
}

export function putLengths(out: Writer, lengths: Float64Array, shift: number): void {
  const rows = lengths.length
  out.reserve(rows * VARINT_BYTES_MAX)
  const bytes = out.bytes
  const scale = 1 / 2 ** shift
  let at = out.at
  for (let i = 0; i < rows; i++) {
    const length = lengths[i]! * scale
    if (length < 0x80) bytes[at++] = length
    else if (length < 0x40000000) {
      let rest = length | 0
      while (rest > 0x7f) {
        bytes[at++] = rest | 0x80
        rest >>>= 7
      }
      bytes[at++] = rest
    } else {
      out.at = at
      out.varint(length)
      at = out.at
    }
  }
  out.at = at
}

/** `end`: where the write before ended, in units of 2^shift. Returns the new one. */
export function putOffsets(
  out: Writer,
  offsets: Float64Array,
  lengths: Float64Array,
  shift: number,
  end: number,
): number {
  const rows = offsets.length
  out.reserve(rows * (VARINT_BYTES_MAX + 1))
  const bytes = out.bytes
  const scale = 1 / 2 ** shift
  let at = out.at
  let before = end
  for (let i = 0; i < rows; i++) {
    const offset = offsets[i]! * scale
    const distance = offset - before
    const small = distance | 0
    if (small === distance) {
      // Unrolled: at random offsets this loop is half the cost of a record. A byte array keeps the low 8 bits only.
      const bits = (small << 1) ^ (small >> 31)
      if (bits >>> 7 === 0) bytes[at++] = bits
      else {
        bytes[at] = bits | 0x80
        if (bits >>> 14 === 0) {
          bytes[at + 1] = bits >>> 7
          at += 2
        } else {
          bytes[at + 1] = (bits >>> 7) | 0x80
          if (bits >>> 21 === 0) {
            bytes[at + 2] = bits >>> 14
            at += 3
          } else {
            bytes[at + 2] = (bits >>> 14) | 0x80
            if (bits >>> 28 === 0) {
              bytes[at + 3] = bits >>> 21
              at += 4
            } else {
              bytes[at + 3] = (bits >>> 21) | 0x80
              bytes[at + 4] = bits >>> 28
              at += 5
            }
          }
        }
      }
    } else {
      out.at = at
      out.zigzag(distance)
      at = out.at
    }
    before = offset + lengths[i]! * scale
  }
  out.at = at
  return before
}

export function takeLengths(from: Reader, lengths: Float64Array): void {
  const bytes = from.bytes
  const rows = lengths.length
  let at = from.at
  for (let i = 0; i < rows; i++) {
    const start = at
    // Reading past the end gives undefined, which fails each comparison and so ends in the slow branch, which checks.
    let length = bytes[at++]!
    if (!(length < 0x80)) {
      const second = bytes[at++]!
      length = (length & 0x7f) | (second << 7)
      if (!(second < 0x80)) {
        from.at = start
        length = from.varint()
        at = from.at
      }
    }
    if (length === 0) throw new RecordDamage('format', 'a write of length 0')
    lengths[i] = length
  }
  from.at = at
}

/** Fills `offsets`, and turns `lengths` (as read by takeLengths) from units of 2^shift into bytes. Returns the new end. */
export function takeOffsets(
  from: Reader,
  offsets: Float64Array,
  lengths: Float64Array,
  shift: number,
  end: number,
): number {
  const bytes = from.bytes
  const rows = offsets.length
  const unit = 2 ** shift
  const last = Number.MAX_SAFE_INTEGER / unit
  let at = from.at
  let before = end
  for (let i = 0; i < rows; i++) {
    const start = at
    let distance = 0
    let byte = bytes[at++]!
    let rest = byte & 0x7f
    if (!(byte < 0x80)) {
      byte = bytes[at++]!
      rest |= (byte & 0x7f) << 7
      if (!(byte < 0x80)) {
        byte = bytes[at++]!
        rest |= (byte & 0x7f) << 14
        if (!(byte < 0x80)) {
          byte = bytes[at++]!
          rest |= (byte & 0x7f) << 21
        }
      }
    }
    if (byte < 0x80) distance = (rest >>> 1) ^ -(rest & 1)
    else {
      from.at = start
      distance = from.zigzag()
      at = from.at
    }
    const offset = before + distance
    const length = lengths[i]!
    before = offset + length
    if (!(offset >= 0 && before <= last))
      throw new RecordDamage('format', `a write at ${offset * unit} is no place on a disk`)
    offsets[i] = offset * unit
    lengths[i] = length * unit
  }
  from.at = at
  return before
}

/** Whether the column is needed: some op is not `write`. Throws RangeError at an unknown op. */
export function hasOps(ops: Uint8Array | undefined, rows: number): ops is Uint8Array {
  if (ops === undefined) return false
  if (ops.length !== rows) throw new RangeError(`${ops.length} ops for ${rows} writes`)
  let any = 0
  for (let i = 0; i < rows; i++) {
    if (ops[i]! > 2) throw new RangeError(`row ${i}: unknown op ${ops[i]}`)
    any |= ops[i]!
  }
  return any !== 0
}

export function putOps(out: Writer, ops: Uint8Array): void {
  let i = 0
  while (i < ops.length) {
    const op = ops[i]!
    const start = i
    while (i < ops.length && ops[i] === op) i++
    out.varint((i - start) * 4 + op)
  }
}

export function takeOps(from: Reader, rows: number): Uint8Array {
  const ops = new Uint8Array(rows)
  let i = 0
  while (i < rows) {
    const entry = from.varint()
    const op = entry % 4
    const run = Math.floor(entry / 4)
    if (op > 2 || run === 0 || run > rows - i)
      throw new RecordDamage('format', `a run of ${run} ops ${op} does not fit`)
    ops.fill(op, i, i + run)
    i += run
  }
  return ops
}

/** Whether the column is needed: some time differs from the record's. */
export function hasTimes(times: Float64Array | undefined, rows: number, time: number): times is Float64Array {
  if (times === undefined) return false
  if (times.length !== rows) throw new RangeError(`${times.length} times for ${rows} writes`)
  for (let i = 0; i < rows; i++) if (times[i] !== time) return true
  return false
}

/** `before`: the time of the event before. Returns the last one. Throws RangeError when time goes back. */
export function putTimes(out: Writer, times: Float64Array, before: number): number {
  const rows = times.length
  out.reserve(rows * VARINT_BYTES_MAX)
  const bytes = out.bytes
  let at = out.at
  let last = before
  for (let i = 0; i < rows; i++) {
    const time = times[i]!
    const distance = time - last
    if (!(distance >= 0)) throw new RangeError(`row ${i}: time ${time} is before ${last}`)
    const small = distance | 0
    if (small === distance && small < 0x80) bytes[at++] = small
    else {
      out.at = at
      out.varint(distance)
      at = out.at
    }
    last = time
  }
  out.at = at
  return last
}

export function takeTimes(from: Reader, times: Float64Array, before: number): number {
  const bytes = from.bytes
  const rows = times.length
  let at = from.at
  let last = before
  for (let i = 0; i < rows; i++) {
    const byte = bytes[at]!
    if (byte < 0x80) {
      at++
      last += byte
    } else {
      from.at = at
      last += from.varint()
      at = from.at
    }
    times[i] = last
  }
  from.at = at
  if (last > Number.MAX_SAFE_INTEGER) throw new RecordDamage('format', 'a time beyond 2^53')
  return last
}
