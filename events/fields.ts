/**
 * How one field of a domain event travels: put makes it plain for msgpack, take checks what comes back. Nothing read from
 * a log is believed: a field of the wrong type is a RecordDamage, even under a right checksum.
 */
import {
  alignmentOf,
  putLengths,
  putOffsets,
  SHIFT_MAX,
  shiftOf,
  takeLengths,
  takeOffsets,
} from './columns.ts'
import { RecordDamage } from './damage.ts'
import type {
  Base,
  BaseKind,
  BitmapRef,
  CompactedRun,
  DiskMark,
  Extent,
  Point,
  RepairedGap,
  SliceCause,
} from './types.ts'
import { Reader, Writer } from './varint.ts'

export interface Field<T> {
  put(value: T): unknown
  take(raw: unknown): T
}

function refuse(what: string): never {
  throw new RecordDamage('format', `a field is no ${what}`)
}

/** Any text. Lone surrogates would come back as something else, so they are refused with RangeError. */
export const text: Field<string> = {
  put(value) {
    if (typeof value !== 'string' || /\p{Surrogate}/u.test(value))
      throw new RangeError('a field is no well-formed text')
    return value
  },
  take: (raw) => (typeof raw === 'string' ? raw : refuse('text')),
}

/** A safe integer, of any sign. */
export const whole: Field<number> = {
  put(value) {
    if (!Number.isSafeInteger(value)) throw new RangeError(`a field is no whole number: ${value}`)
    return value
  },
  take: (raw) => (Number.isSafeInteger(raw) ? (raw as number) : refuse('whole number')),
}

export const flag: Field<boolean> = {
  put(value) {
    if (typeof value !== 'boolean') throw new TypeError(`a field must be true or false, not ${String(value)}`)
    return value
  },
  take: (raw) => (typeof raw === 'boolean' ? raw : refuse('flag')),
}

/** One of a closed list of words. */
export function word<const T extends string>(...words: readonly T[]): Field<T> {
  return {
    put: (value) => (words.includes(value) ? value : refuseWord(value)),
    take: (raw) => (words.includes(raw as T) ? (raw as T) : refuse(`word out of ${words.join(', ')}`)),
  }
}

function refuseWord(value: string): never {
  throw new RangeError(`unknown word ${value}`)
}

export function optional<T>(field: Field<T>): Field<T | undefined> {
  return {
    put: (value) => (value === undefined ? null : field.put(value)),
    take: (raw) => (raw === null ? undefined : field.take(raw)),
  }
}

export function list<T>(field: Field<T>): Field<readonly T[]> {
  return {
    put: (values) => values.map((value) => field.put(value)),
    take: (raw) => (Array.isArray(raw) ? raw.map((value) => field.take(value)) : refuse('list')),
  }
}

function tuple(raw: unknown, length: number): readonly unknown[] {
  return Array.isArray(raw) && raw.length === length ? raw : refuse(`tuple of ${length}`)
}

const maybeWhole = optional(whole)

export const point: Field<Point> = {
  put: (value) => [whole.put(value.position), maybeWhole.put(value.time ?? undefined)],
  take(raw) {
    const [position, time] = tuple(raw, 2)
    return { position: whole.take(position), time: maybeWhole.take(time) ?? null }
  },
}

export const bitmapRef: Field<BitmapRef> = {
  put: (value) => [text.put(value.disk), text.put(value.bitmap)],
  take(raw) {
    const [disk, bitmap] = tuple(raw, 2)
    return { disk: text.take(disk), bitmap: text.take(bitmap) }
  },
}

const causeKind = word('bank', 'checkpoint', 'backup')

export const sliceCause: Field<SliceCause> = {
  put(value) {
    if (value.kind === 'bank') return ['bank', null]
    return [value.kind, text.put(value.kind === 'checkpoint' ? value.name : value.id)]
  },
  take(raw) {
    const [kind, name] = tuple(raw, 2)
    const known = causeKind.take(kind)
    if (known === 'bank') return { kind: known }
    return known === 'checkpoint'
      ? { kind: known, name: text.take(name) }
      : { kind: known, id: text.take(name) }
  },
}

const baseKind = word<BaseKind>(
  'none',
  'point',
  'active',
  'slice',
  'checkpoint',
  'backup',
  'position',
  'time',
  'start',
)

export const base: Field<Base> = {
  put(value) {
    const name = value.name === undefined ? null : text.put(value.name)
    return [
      baseKind.put(value.kind),
      whole.put(value.position),
      maybeWhole.put(value.time ?? undefined),
      name,
    ]
  },
  take(raw) {
    const [kind, position, time, name] = tuple(raw, 4)
    const at = { position: whole.take(position), time: maybeWhole.take(time) ?? null }
    return name === null
      ? { kind: baseKind.take(kind), ...at }
      : { kind: baseKind.take(kind), ...at, name: text.take(name) }
  },
}

/** A SHA-256, in hex for readers, 32 bytes in the record. `''` stands for none. */
export const hex32: Field<string> = {
  put(value) {
    if (!/^([0-9a-f]{64})?$/.test(value)) throw new RangeError(`a field is no SHA-256 in hex: ${value}`)
    return new Uint8Array(Buffer.from(value, 'hex'))
  },
  take(raw) {
    if (!(raw instanceof Uint8Array) || (raw.length !== 32 && raw.length !== 0)) return refuse('SHA-256')
    return Buffer.from(raw).toString('hex')
  },
}

export const compactedRun: Field<CompactedRun> = {
  put: ({ first, last, before, after, own }) => [
    whole.put(first),
    whole.put(last),
    hex32.put(before),
    hex32.put(after),
    hex32.put(own),
  ],
  take(raw) {
    const [first, last, before, after, own] = tuple(raw, 5)
    return {
      first: whole.take(first),
      last: whole.take(last),
      before: hex32.take(before),
      after: hex32.take(after),
      own: hex32.take(own),
    }
  },
}

export const repairedGap: Field<RepairedGap> = {
  put: ({ first, last, before, next }) => [
    whole.put(first),
    whole.put(last),
    hex32.put(before),
    hex32.put(next),
  ],
  take(raw) {
    const [first, last, before, next] = tuple(raw, 4)
    return {
      first: whole.take(first),
      last: whole.take(last),
      before: hex32.take(before),
      next: hex32.take(next),
    }
  },
}

/** Text of a form of its own. */
function formed(what: string, form: RegExp): Field<string> {
  return {
    put(value) {
      if (!form.test(value)) throw new RangeError(`a field is no ${what}: ${value}`)
      return value
    },
    take: (raw) => (typeof raw === 'string' && form.test(raw) ? raw : refuse(what)),
  }
}

const markKind = word('file', 'block')
const device = formed('device number', /^\d+:\d+$/)
const decimal = formed('decimal number', /^-?\d{1,30}$/)
const boot = formed('boot id', /^[0-9a-f]{32}$/)

export const diskMark: Field<DiskMark> = {
  put: (mark) => [
    markKind.put(mark.kind),
    device.put(mark.device),
    decimal.put(mark.inode),
    whole.put(mark.size),
    decimal.put(mark.modified),
    decimal.put(mark.changed),
    boot.put(mark.boot),
    maybeWhole.put(mark.sectorsWritten ?? undefined),
  ],
  take(raw) {
    const [kind, on, inode, size, modified, changed, run, sectors] = tuple(raw, 8)
    return {
      kind: markKind.take(kind),
      device: device.take(on),
      inode: decimal.take(inode),
      size: whole.take(size),
      modified: decimal.take(modified),
      changed: decimal.take(changed),
      boot: boot.take(run),
      sectorsWritten: maybeWhole.take(sectors) ?? null,
    }
  },
}

const scratch = new Writer()

/** Extents as the columns of writes, in one binary: count | shift | lengths | offsets. Order and overlap are kept. */
export const extents: Field<readonly Extent[]> = {
  put(values) {
    const offsets = Float64Array.from(values, (extent) => extent[0])
    const lengths = Float64Array.from(values, (extent) => extent[1])
    const shift = shiftOf(alignmentOf(offsets, lengths))
    scratch.at = 0
    scratch.varint(values.length)
    scratch.byte(shift)
    putLengths(scratch, lengths, shift)
    putOffsets(scratch, offsets, lengths, shift, 0)
    return scratch.bytes.slice(0, scratch.at)
  },
  take(raw) {
    if (!(raw instanceof Uint8Array)) return refuse('binary')
    const from = new Reader(raw)
    const count = from.varint()
    const shift = from.byte()
    if (shift > SHIFT_MAX || count * 2 > from.left) return refuse('list of extents')
    const lengths = new Float64Array(count)
    const offsets = new Float64Array(count)
    takeLengths(from, lengths)
    takeOffsets(from, offsets, lengths, shift, 0)
    from.end()
    return Array.from(offsets, (offset, i): Extent => [offset, lengths[i]!])
  },
}
