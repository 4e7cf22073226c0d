/**
 * Domain events (everything but writes) as fixed-order arrays: [code, version, ...fields]. Names of fields never reach the
 * disk, so renaming one here costs nothing, and an object's key order cannot change the bytes.
 *
 * To change an event: never reuse a code, add fields at the end, and add the step to upcast.ts, which raises its version.
 * msgpackr with `useRecords: false`: its shared record structures would make a value depend on others.
 */
import { Packr } from 'msgpackr'
import { RecordDamage, RecordTooNew } from './damage.ts'
import {
  base,
  bitmapRef,
  compactedRun,
  diskMark,
  extents,
  type Field,
  flag,
  hex32,
  list,
  optional,
  point,
  repairedGap,
  sliceCause,
  text,
  whole,
  word,
} from './fields.ts'
import type { DomainEvent, RecordMeta } from './types.ts'
import { UPCASTS, type UpcastChains, upcast } from './upcast.ts'

type EventType = DomainEvent['type']
type EventOf<T extends EventType> = Extract<DomainEvent, { readonly type: T }>
type FieldsOf<E> = { readonly [K in Exclude<keyof E, 'type'>]-?: Field<E[K]> }
type Schemas = { readonly [T in EventType]: { readonly code: number; readonly fields: FieldsOf<EventOf<T>> } }

const recorder = word('caller', 'store')
const onBitmap = { disk: text, bitmap: text }

/** The order of fields is their order in the record; codes are given once and for ever. */
const SCHEMAS: Schemas = {
  'disk-added': { code: 1, fields: { disk: text, size: whole } },
  'disk-resized': { code: 2, fields: { disk: text, size: whole } },
  'disk-removed': { code: 3, fields: { disk: text } },
  'disk-attached': { code: 4, fields: { disk: text, recorder } },
  'disk-detached': { code: 5, fields: { disk: text } },
  'stretch-lost': { code: 6, fields: { disk: text, from: point, reason: text } },
  window: { code: 7, fields: { disk: text, from: point, writes: whole, extents } },
  'bitmap-added': {
    code: 8,
    fields: { ...onBitmap, granularity: whole, recording: flag, persistent: flag, retention: whole },
  },
  'bitmap-removed': { code: 9, fields: { ...onBitmap, because: word('command', 'detach') } },
  'bitmap-cleared': { code: 10, fields: onBitmap },
  'bitmap-enabled': { code: 11, fields: onBitmap },
  'bitmap-disabled': { code: 12, fields: onBitmap },
  'bitmap-merged': { code: 13, fields: { ...onBitmap, sources: list(bitmapRef) } },
  'retention-set': { code: 14, fields: { ...onBitmap, retention: whole } },
  'bitmap-reset': { code: 15, fields: { ...onBitmap, backup: text } },
  'slice-frozen': { code: 16, fields: { ...onBitmap, slice: whole, next: whole, cause: sliceCause } },
  'slice-dropped': {
    code: 17,
    fields: { ...onBitmap, slice: whole, because: word('force-cycle', 'retention', 'deleted') },
  },
  'slice-merged': { code: 18, fields: { ...onBitmap, slice: whole, into: whole } },
  'slice-reactivated': { code: 19, fields: { ...onBitmap, slice: whole, deleted: whole } },
  'backup-begun': {
    code: 20,
    fields: {
      backup: text,
      ...onBitmap,
      mode: word('full', 'incremental', 'differential', 'copy'),
      base,
      forceCycle: flag,
      group: optional(text),
      copiedBy: recorder,
      digest: text,
      bytes: whole,
      complete: flag,
    },
  },
  'backup-pending': { code: 21, fields: { backup: text } },
  'backup-interrupted': { code: 22, fields: { backup: text } },
  'backup-resumed': { code: 23, fields: { backup: text } },
  'backup-succeeded': {
    code: 24,
    fields: { backup: text, bits: word('banked', 'forgotten', 'kept', 'reset') },
  },
  'backup-failed': { code: 25, fields: { backup: text, reason: text, uncopied: optional(extents) } },
  'backup-cancelled': { code: 26, fields: { backup: text, reason: text } },
  'checkpoint-created': { code: 27, fields: { checkpoint: text, bitmaps: list(bitmapRef) } },
  'checkpoint-deleted': { code: 28, fields: { checkpoint: text } },
  'clock-stepped': { code: 29, fields: { from: whole, to: whole } },
  'nothing-changed': { code: 30, fields: {} },
  'backup-forgotten': { code: 31, fields: { backup: text, reason: text } },
  'backups-combined': { code: 32, fields: { backup: text, of: list(text) } },
  'log-compacted': { code: 33, fields: { runs: list(compactedRun) } },
  'log-repaired': { code: 34, fields: { gaps: list(repairedGap), kept: text } },
  'disk-imported': {
    code: 35,
    fields: { disk: text, store: text, position: whole, hash: hex32, last: whole },
  },
  'maybe-written': { code: 36, fields: { disk: text, from: point, extents } },
  'disk-marked': { code: 37, fields: { disk: text, mark: diskMark } },
}

interface Schema {
  readonly type: string
  readonly code: number
  readonly fields: readonly (readonly [name: string, field: Field<unknown>])[]
}

const schemas: readonly Schema[] = Object.entries(SCHEMAS).map(([type, schema]) => ({
  type,
  code: schema.code,
  fields: Object.entries(schema.fields as Record<string, Field<unknown>>),
}))
const schemaOfType = new Map(schemas.map((schema) => [schema.type, schema]))
const schemaOfCode = new Map(schemas.map((schema) => [schema.code, schema]))

const META_FIELDS = [
  'command',
  'commandId',
  'argumentsHash',
  'correlationId',
  'causationId',
  'actor',
] as const
const maybeText = optional(text)

const packr = new Packr({ useRecords: false })

function plainEvent(event: DomainEvent): unknown[] {
  const schema = schemaOfType.get(event.type)
  if (schema === undefined) throw new RangeError(`unknown event type ${event.type}`)
  const source = event as unknown as Record<string, unknown>
  const fields = schema.fields.map(([name, field]) => field.put(source[name]))
  return [schema.code, (UPCASTS[event.type]?.length ?? 0) + 1, ...fields]
}

/** The rest of an events record's body. The result aliases msgpackr's buffer: copy it before the next call. */
export function encodeDomain(meta: RecordMeta, events: readonly DomainEvent[]): Uint8Array {
  return packr.pack([META_FIELDS.map((name) => maybeText.put(meta[name])), ...events.map(plainEvent)])
}

function eventOf(raw: unknown, chains: UpcastChains): DomainEvent {
  if (!Array.isArray(raw) || raw.length < 2) throw new RecordDamage('format', 'an event is no array')
  const [code, version, ...stored] = raw as unknown[]
  const schema = schemaOfCode.get(code as number)
  if (schema === undefined) {
    if (!Number.isSafeInteger(code)) throw new RecordDamage('format', 'an event has no type')
    throw new RecordTooNew(`event type ${String(code)}`, whole.take(version), 0)
  }
  const values = upcast(schema.type, whole.take(version), stored, chains)
  if (values.length !== schema.fields.length)
    throw new RecordDamage('format', `${schema.type} has ${values.length} fields`)
  const event: Record<string, unknown> = { type: schema.type }
  schema.fields.forEach(([name, field], i) => {
    const value = field.take(values[i])
    if (value !== undefined) event[name] = value
  })
  return event as unknown as DomainEvent
}

function metaOf(raw: unknown): RecordMeta {
  if (!Array.isArray(raw) || raw.length !== META_FIELDS.length)
    throw new RecordDamage('format', 'the cause is no tuple')
  const meta: { -readonly [K in keyof RecordMeta]: RecordMeta[K] } = {}
  META_FIELDS.forEach((name, i) => {
    const value = maybeText.take(raw[i])
    if (value !== undefined) meta[name] = value
  })
  return meta
}

/** Throws RecordDamage, or RecordTooNew at an event type or version that is not known here. */
export function decodeDomain(
  bytes: Uint8Array,
  chains: UpcastChains = UPCASTS,
): { meta: RecordMeta; events: readonly DomainEvent[] } {
  let raw: unknown
  try {
    raw = packr.unpack(bytes)
  } catch (cause) {
    throw new RecordDamage('format', `msgpack: ${cause instanceof Error ? cause.message : String(cause)}`)
  }
  if (!Array.isArray(raw) || raw.length < 2) throw new RecordDamage('format', 'no list of events')
  return { meta: metaOf(raw[0]), events: raw.slice(1).map((event) => eventOf(event, chains)) }
}
