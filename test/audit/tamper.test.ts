/**
 * Somebody edits what the log stores, with every means but one: they cannot also change a head kept elsewhere. Each edit is
 * found, named by where it is, and never a crash. Edits are made on stores driven at random: records, packs, several sessions.
 */
import { cpSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { BODY_AT, HASH_AT } from '../../events/frame.ts'
import {
  decodeStored,
  type EncodedRecord,
  encodeEvents,
  encodeWrites,
  readHeader,
} from '../../events/record.ts'
import type { LogRecord } from '../../events/types.ts'
import type { Anchor } from '../../src/audit/head.ts'
import { type Finding, verifyStore } from '../../src/audit/verify.ts'
import { CheckpointError } from '../../src/errors.ts'
import { isCommandKey } from '../../src/log/keys.ts'
import { openStore } from '../../src/store/open.ts'
import { announce, prng, runs, seed } from '../support/property.ts'
import { drive } from './drive.ts'
import { type Entry, entriesIn, put, resealed, withLog } from './support.ts'

const ROUNDS = runs(1000, 4000)
const used = seed()
const random = prng(used)
const below = (n: number): number => Math.floor(random() * n)

interface Base {
  readonly folder: string
  readonly entries: readonly Entry[]
  readonly head: Anchor
}

/** What an edit did: where verify has to point (a range of positions), or which codes alone can tell it. */
interface Edit {
  readonly from: number
  readonly to: number
  /** Only a head kept elsewhere can find it. */
  readonly needsAnchor?: true
}

let root = ''
const bases: Base[] = []

beforeAll(async () => {
  root = mkdtempSync(join(tmpdir(), 'slicelog-tamper-'))
  for (let i = 0; i < 4; i++) {
    const folder = join(root, `base-${i}`)
    for (let session = 0; session < 2; session++) {
      const store = await openStore(folder, { snapshotEvery: 2000 })
      await drive(store, random, 20 + 15 * i, `s${session}`)
      await store.close()
    }
    const report = await verifyStore(folder)
    expect(report.findings).toEqual([])
    bases.push({ folder, entries: await entriesIn(folder), head: report.head })
  }
})

afterAll(() => rmSync(root, { recursive: true, force: true }))

/** Last position of the value. */
function endOf({ value }: Entry): number {
  const { first, count } = readHeader(value)
  return first + count - 1
}

function at(entries: readonly Entry[], index: number): Entry {
  return entries[index]!
}

/** The edit's place with the record after it: the chain alone cannot tell which of two neighbours was edited. */
function around(entries: readonly Entry[], index: number): Edit {
  const after = entries[index + 1]
  return {
    from: at(entries, index).position,
    to: after === undefined ? endOf(at(entries, index)) : endOf(after),
  }
}

/** The same record with one thing said otherwise, chained from what was before it; undefined where there is nothing to say. */
function rewritten(record: LogRecord, previous: Uint8Array): EncodedRecord | undefined {
  if (record.kind === 'writes') {
    const sections = record.sections.map(({ disk, columns }, i) => {
      if (i > 0) return { disk, columns }
      const row = below(columns.offsets.length)
      const offsets = columns.offsets.slice()
      offsets[row] = offsets[row]! >= 512 ? offsets[row]! - 512 : offsets[row]! + 512
      return { disk, columns: { ...columns, offsets } }
    })
    return encodeWrites(record.first, record.time, sections, previous)
  }
  if (record.kind !== 'events') return undefined
  const meta = { ...record.meta, actor: `${record.meta.actor ?? ''}x` }
  return encodeEvents(record.first, record.time, meta, record.events, previous)
}

function same(record: LogRecord, previous: Uint8Array): Uint8Array {
  return record.kind === 'writes'
    ? encodeWrites(record.first, record.time, record.sections, previous).bytes
    : encodeEvents(
        record.first,
        record.time,
        record.kind === 'events' ? record.meta : {},
        record.kind === 'events' ? record.events : [],
        previous,
      ).bytes
}

/** Every kind edits a copy of the store, and says where. */
const KINDS: Readonly<Record<string, (folder: string, base: Base) => Promise<Edit | undefined>>> = {
  'a byte changed': async (folder, { entries }) => {
    const index = below(entries.length)
    const { position, value } = at(entries, index)
    const copy = Uint8Array.from(value)
    copy[below(copy.length)]! ^= 1 << below(8)
    await put(folder, { position, value: copy })
    return around(entries, index)
  },
  'a byte changed, with a checksum that fits': async (folder, { entries }) => {
    const index = below(entries.length)
    const { position, value } = at(entries, index)
    const copy = Uint8Array.from(value)
    copy[BODY_AT + below(copy.length - BODY_AT)]! ^= 1 << below(8)
    await put(folder, { position, value: resealed(copy) })
    return around(entries, index)
  },
  'a hash changed, with a checksum that fits': async (folder, { entries }) => {
    const index = below(entries.length)
    const { position, value } = at(entries, index)
    const copy = Uint8Array.from(value)
    copy[HASH_AT + below(32)]! ^= 1 << below(8)
    await put(folder, { position, value: resealed(copy) })
    return around(entries, index)
  },
  'a record rewritten, with checksum and chain of its own': async (folder, { entries }) => {
    const index = below(entries.length)
    const entry = at(entries, index)
    const records = decodeStored(entry.value)
    if (records.length !== 1) return undefined
    const other = rewritten(records[0]!, entry.previous)
    if (other === undefined) return undefined
    await put(folder, { position: entry.position, value: other.bytes })
    return around(entries, index)
  },
  'a record rewritten, and everything after it chained again': async (folder, { entries }) => {
    const index = below(entries.length)
    const entry = at(entries, index)
    const [first, ...inPack] = decodeStored(entry.value)
    const other = first === undefined ? undefined : rewritten(first, entry.previous)
    if (other === undefined) return undefined
    const puts = [{ position: entry.position, value: other.bytes }]
    let previous = other.hash
    for (const record of [
      ...inPack,
      ...entries.slice(index + 1).flatMap(({ value }) => decodeStored(value)),
    ]) {
      const value = same(record, previous)
      previous = readHeader(value).hash
      puts.push({ position: record.first, value })
    }
    await put(folder, ...puts)
    return { from: entry.position, to: endOf(entries.at(-1)!) }
  },
  'two swapped': async (folder, { entries }) => {
    const [a, b] = [below(entries.length), below(entries.length)].sort((x, y) => x - y) as [number, number]
    if (a === b) return undefined
    const [one, two] = [at(entries, a), at(entries, b)]
    await put(
      folder,
      { position: one.position, value: two.value },
      { position: two.position, value: one.value },
    )
    return { from: one.position, to: around(entries, b).to }
  },
  'one dropped': async (folder, { entries }) => {
    const index = below(entries.length)
    await put(folder, { position: at(entries, index).position, value: null })
    return around(entries, index)
  },
  'one inserted inside another': async (folder, { entries }) => {
    const index = below(entries.length)
    const entry = at(entries, index)
    const [record] = decodeStored(entry.value)
    if (endOf(entry) === entry.position || record === undefined) return undefined
    const position = entry.position + 1 + below(endOf(entry) - entry.position)
    await put(folder, { position, value: same({ ...record, first: position }, readHeader(entry.value).hash) })
    return around(entries, index)
  },
  'one repeated at another place': async (folder, { entries }) => {
    const [a, b] = [below(entries.length), below(entries.length)]
    if (a === b) return undefined
    await put(folder, { position: at(entries, b).position, value: at(entries, a).value })
    return around(entries, b)
  },
  'one added at the end': async (folder, { entries, head }) => {
    const last = entries.at(-1)!
    const records = decodeStored(last.value)
    const value = same({ ...records.at(-1)!, first: head.position + 1 }, readHeader(last.value).hash)
    await put(folder, { position: head.position + 1, value })
    return { from: head.position, to: head.position + readHeader(value).count }
  },
  'the tail cut': async (folder, { entries }) => {
    const from = entries.length - 1 - below(Math.min(6, entries.length - 1))
    await put(folder, ...entries.slice(from).map(({ position }) => ({ position, value: null })))
    return { from: at(entries, from).position, to: endOf(entries.at(-1)!) }
  },
  'the tail cut, with the head file': async (folder, { entries }) => {
    const from = entries.length - 1 - below(Math.min(6, entries.length - 1))
    await put(folder, ...entries.slice(from).map(({ position }) => ({ position, value: null })))
    rmSync(join(folder, 'head'))
    return { from: at(entries, from).position, to: endOf(entries.at(-1)!), needsAnchor: true }
  },
  'an entry of the index of commands taken out or bent': async (folder, base) =>
    await withLog(folder, async (db) => {
      const keys: Uint8Array[] = []
      for await (const key of db.keys()) if (isCommandKey(key)) keys.push(key)
      if (keys.length === 0) return undefined
      const key = keys[below(keys.length)]!
      if (random() < 0.5) await db.del(key)
      else {
        const value = Uint8Array.from((await db.get(key))!)
        value[7]! ^= 1 << below(8)
        await db.put(key, value)
      }
      return { from: 0, to: base.head.position }
    }),
}

/** A byte that says "newer version" under a right checksum is refused with its position, as anything newer is (R34). */
async function judged(
  folder: string,
  options: { readonly against?: Anchor },
): Promise<{ readonly findings: readonly Pick<Finding, 'code' | 'position'>[] }> {
  try {
    return await verifyStore(folder, options)
  } catch (error) {
    if (!(error instanceof CheckpointError) || error.code !== 'FORMAT_TOO_NEW') throw error
    return { findings: [{ code: 'RECORD_DAMAGED', position: Number(error.facts.position) }] }
  }
}

function names({ findings }: Awaited<ReturnType<typeof judged>>, { from, to }: Edit): boolean {
  return findings.some(({ position }) => position !== null && position >= from && position <= to)
}

const NOWHERE = [
  'HEAD_DIFFERS',
  'HEAD_MISSING',
  'KEY_UNKNOWN',
  'COMMAND_INDEX_WRONG',
  'TAIL_CUT',
  'ANCHOR_CUT',
]

test(`R28: of ${ROUNDS} random edits of records each one is found and named`, {
  timeout: 3_600_000,
}, async () => {
  announce('edits of records', ROUNDS, used)
  const kinds = Object.entries(KINDS)
  const counts = new Map<string, number>()
  for (let round = 0; round < ROUNDS; ) {
    const base = bases[below(bases.length)]!
    const [kind, edit] = kinds[round % kinds.length]!
    const folder = join(root, `case-${round}`)
    cpSync(base.folder, folder, { recursive: true })
    const edited = await edit(folder, base)
    if (edited !== undefined) {
      const anchored = edited.needsAnchor === true || random() < 0.2
      const told = `round ${round}, ${kind} at ${edited.from} to ${edited.to} (seed ${used})`
      const report = await judged(folder, anchored ? { against: base.head } : {})
      expect(report.findings, told).not.toEqual([])
      const named = names(report, edited) || report.findings.some(({ code }) => NOWHERE.includes(code))
      if (!named) expect.fail(`${told}: named elsewhere: ${JSON.stringify(report.findings, null, 1)}`)
      counts.set(kind, (counts.get(kind) ?? 0) + 1)
      round++
    }
    rmSync(folder, { recursive: true, force: true })
  }
  process.stderr.write(
    `edits found and named: ${[...counts].map(([kind, n]) => `${n} × ${kind}`).join('; ')}\n`,
  )
})
