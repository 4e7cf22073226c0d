import { createHash } from 'node:crypto'
import { readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { HASH_AT } from '../../events/frame.ts'
import { decodeStored, encodeEvents, encodeWrites, readHeader } from '../../events/record.ts'
import type { DomainEvent } from '../../events/types.ts'
import { verifyStore } from '../../src/audit/verify.ts'
import { run } from '../../src/cli/run.ts'
import { MiB } from '../../src/limits.ts'
import { commandKey, positionBytes } from '../../src/log/keys.ts'
import { openStore } from '../../src/store/open.ts'
import { appendTo, DISK, type Entry, entriesIn, put, resealed, soundStore, withLog } from './support.ts'

const codesOf = async (folder: string, options = {}) =>
  (await verifyStore(folder, options)).findings.map(({ code, position }) => `${code} ${position}`)

/** The n-th record of a hundred writes, and the one after it. */
function plain(entries: readonly Entry[], n = 1): { at: Entry; after: Entry } {
  const index = entries
    .map((entry, i) => (entry.plain && entries[i + 1]?.plain === true ? i : -1))
    .filter((i) => i >= 0)[n]!
  return { at: entries[index]!, after: entries[index + 1]! }
}

/** The same record with one write moved. */
function moved({ value, previous }: Entry) {
  const [record] = decodeStored(value)
  if (record?.kind !== 'writes') throw new Error('not a record of writes')
  const sections = record.sections.map(({ disk, columns }) => ({
    disk,
    columns: { ...columns, offsets: columns.offsets.with(3, 0) },
  }))
  return encodeWrites(record.first, record.time, sections, previous)
}

async function cli(...argv: string[]): Promise<{ exit: number; out: string }> {
  let out = ''
  const output = (keep: boolean) => ({
    write(text: string) {
      if (keep) out += text
      return true
    },
    once: () => undefined,
    off: () => undefined,
  })
  const exit = await run(argv, {
    stdout: output(true),
    stderr: output(false),
    env: {},
    onInterrupt: () => () => undefined,
  })
  return { exit, out }
}

test('R28: a sound store has no findings, and exit code 0', async () => {
  const folder = await soundStore()
  const report = await verifyStore(folder)
  expect(report.findings).toEqual([])
  expect(report.events).toBe(report.head.position + 1)
  expect((await cli('--store', folder, 'verify', '--json')).exit).toBe(0)
})

test('R28: verify changes nothing in the store, sound or damaged', async () => {
  const folder = await soundStore()
  const { at } = plain(await entriesIn(folder))
  const look = () => {
    const files = readdirSync(folder, { recursive: true, encoding: 'utf8' })
      .sort()
      .filter((name) => statSync(join(folder, name)).isFile())
    return files.map(
      (name) =>
        `${name} ${createHash('sha256')
          .update(readFileSync(join(folder, name)))
          .digest('hex')}`,
    )
  }
  const sound = look()
  await verifyStore(folder)
  expect(look()).toEqual(sound)
  await put(folder, { position: at.position, value: at.value.fill(7, 60, 64) })
  const damaged = look()
  expect((await verifyStore(folder)).findings).not.toEqual([])
  expect(look()).toEqual(damaged)
})

test('R28: a byte changed inside a record is found at its position, with what depends on it, and the CLI exits 12', async () => {
  const folder = await soundStore()
  const { at } = plain(await entriesIn(folder))
  const value = at.value.slice()
  value[60]! ^= 1
  await put(folder, { position: at.position, value })
  const { findings } = await verifyStore(folder)
  expect(findings.map(({ code, position }) => [code, position])).toEqual([['RECORD_DAMAGED', at.position]])
  expect(findings[0]?.doubt).toContain(`slice ${DISK} daily 0`)
  expect(findings[0]?.doubt).toContain('backup first')
  const { exit, out } = await cli('--store', folder, 'verify', '--json')
  expect(exit).toBe(12)
  expect(JSON.parse(out).findings[0].code).toBe('RECORD_DAMAGED')
})

test('R28: a record edited under a new checksum breaks the chain there', async () => {
  const folder = await soundStore()
  const { at } = plain(await entriesIn(folder))
  const value = moved(at).bytes.slice()
  value.set(readHeader(at.value).hash, HASH_AT)
  await put(folder, { position: at.position, value: resealed(value) })
  expect(await codesOf(folder)).toEqual([`CHAIN_BROKEN ${at.position}`])
})

test('R28: a record rewritten with checksum and hash of its own breaks the chain behind it, and both are named', async () => {
  const folder = await soundStore()
  const { at, after } = plain(await entriesIn(folder))
  await put(folder, { position: at.position, value: moved(at).bytes })
  const { findings } = await verifyStore(folder)
  expect(findings.map(({ code, position }) => `${code} ${position}`)).toEqual([
    `CHAIN_BROKEN ${after.position}`,
  ])
  expect(findings[0]?.todo).toContain(`position ${at.position}`)
})

test('R28: a last record rewritten with a hash of its own differs from the head file', async () => {
  const folder = await soundStore()
  const entries = await entriesIn(folder)
  const last = entries.at(-1)!
  const { first, time } = decodeStored(last.value)[0]!
  const other = encodeEvents(
    first,
    time,
    {},
    [{ type: 'disk-attached', disk: DISK, recorder: 'store' }],
    last.previous,
  )
  await put(folder, { position: last.position, value: other.bytes })
  expect((await codesOf(folder)).some((code) => /HEAD_DIFFERS|TAIL_CUT/.test(code))).toBe(true)
})

test('R28: two records swapped are found at both places', async () => {
  const folder = await soundStore()
  const { at, after } = plain(await entriesIn(folder))
  await put(
    folder,
    { position: at.position, value: after.value },
    { position: after.position, value: at.value },
  )
  expect(await codesOf(folder)).toEqual([
    `RECORD_MISPLACED ${at.position}`,
    `RECORD_MISPLACED ${after.position}`,
  ])
})

test('R28: a record taken out is a hole with a name', async () => {
  const folder = await soundStore()
  const { at } = plain(await entriesIn(folder))
  await put(folder, { position: at.position, value: null })
  expect(await codesOf(folder)).toEqual([`RECORDS_MISSING ${at.position}`])
})

test('R28: a record added between two others is found', async () => {
  const folder = await soundStore()
  const { at } = plain(await entriesIn(folder))
  const between = at.position + 50
  const time = readHeader(at.value).time
  const value = encodeEvents(
    between,
    time,
    {},
    [{ type: 'disk-detached', disk: DISK }],
    readHeader(at.value).hash,
  ).bytes
  await put(folder, { position: between, value })
  expect(await codesOf(folder)).toEqual([`RECORD_ADDED ${between}`])
})

test('R28: a record added at the end of a closed log is found, however well it is chained', async () => {
  const folder = await soundStore()
  const { head } = await verifyStore(folder)
  const value = encodeEvents(
    head.position + 1,
    head.time!,
    {},
    [{ type: 'disk-attached', disk: DISK, recorder: 'store' }],
    Buffer.from(head.hash, 'hex'),
  ).bytes
  await put(folder, { position: head.position + 1, value })
  expect(await codesOf(folder)).toEqual([`TAIL_ADDED ${head.position + 1}`])
})

test('R28: a cut tail is found against the head file, and without one against a head saved before', async () => {
  const folder = await soundStore()
  const { head } = await verifyStore(folder)
  const last = (await entriesIn(folder)).at(-1)!
  await put(folder, { position: last.position, value: null })
  const anchor = { position: head.position, hash: head.hash }
  expect(await codesOf(folder)).toContain(`TAIL_CUT ${last.position}`)
  rmSync(join(folder, 'head'))
  expect(await codesOf(folder, { against: anchor })).toEqual(
    expect.arrayContaining(['HEAD_MISSING null', `ANCHOR_CUT ${last.position}`]),
  )
  const saved = join(folder, '..', `head-${process.pid}.json`)
  writeFileSync(saved, JSON.stringify(head))
  expect((await cli('--store', folder, 'verify', '--against', saved, '--json')).exit).toBe(12)
  rmSync(saved)
})

test('R28: a log that another one took the place of is found against a head saved before', async () => {
  const folder = await soundStore()
  const { head } = await verifyStore(folder)
  expect(await codesOf(folder, { against: { position: head.position, hash: head.hash } })).toEqual([])
  const other = await soundStore()
  expect(await codesOf(other, { against: { position: head.position - 1, hash: head.hash } })).toEqual([
    `ANCHOR_DIFFERS ${head.position - 1}`,
  ])
})

const last: DomainEvent = { type: 'disk-attached', disk: DISK, recorder: 'caller' }
test.each<[string, string, DomainEvent[], RegExp]>([
  ['R6: a begin on a busy bitmap', 'EVENT_ILLEGAL', [begun('a'), begun('b')], /busy/],
  [
    'R9: an end of a backup that was never begun',
    'EVENT_ILLEGAL',
    [{ type: 'backup-cancelled', backup: 'nobody', reason: '' }],
    /never begun/,
  ],
  [
    'R18: a slice number that cannot be',
    'EVENT_ILLEGAL',
    [{ type: 'slice-frozen', disk: DISK, bitmap: 'daily', slice: 7, next: 8, cause: { kind: 'bank' } }],
    /cannot become slice 7/,
  ],
  [
    'R16: a merge into a slice that is not the next older',
    'EVENT_ILLEGAL',
    [{ type: 'slice-merged', disk: DISK, bitmap: 'daily', slice: 0, into: 1 }],
    /next older/,
  ],
  [
    'R4: a bitmap that does not exist',
    'EVENT_ILLEGAL',
    [{ type: 'bitmap-cleared', disk: DISK, bitmap: 'nowhere' }],
    /does not exist/,
  ],
  ['R26: a plan that the log does not give', 'PLAN_DIFFERS', [begun('forged')], /forged/],
  [
    'R9: a success whose bits go nowhere',
    'EVENT_ILLEGAL',
    [
      { ...begun('a'), mode: 'copy', base: { kind: 'none', position: -1, time: null } },
      { type: 'backup-succeeded', backup: 'a', bits: 'banked' },
    ],
    /cannot be banked/,
  ],
])('R28: verify names %s, though chain and checksum are right', async (_, code, events, why) => {
  const folder = await soundStore()
  const position = await appendTo(folder, ({ next, time, hash }) => [
    encodeEvents(next, time ?? 0, {}, [...events, last], hash),
  ])
  const { findings } = await verifyStore(folder)
  const found = findings.find((finding) => finding.code === code && why.test(finding.todo))
  expect(found, JSON.stringify(findings)).toBeDefined()
  expect(found!.position).toBeGreaterThanOrEqual(position)
})

function begun(backup: string): Extract<DomainEvent, { type: 'backup-begun' }> {
  const base = { kind: 'position', position: 3, time: null } as const
  return {
    type: 'backup-begun',
    backup,
    disk: DISK,
    bitmap: 'daily',
    mode: 'differential',
    base,
    forceCycle: false,
    copiedBy: 'caller',
    digest: 'f'.repeat(64),
    bytes: 1,
    complete: true,
  }
}

test('R1: verify names writes outside the disk, and to a disk that was removed', async () => {
  const folder = await soundStore()
  const store = await openStore(folder)
  await store.addDisk('gone', { size: MiB })
  const number = store.head.position
  await store.removeDisk('gone')
  await store.close()
  const at = await appendTo(folder, ({ next, time, hash }) => {
    const far = { offsets: Float64Array.of(64 * MiB), lengths: Float64Array.of(512) }
    const one = encodeWrites(next, time!, [{ disk: 0, columns: far }], hash)
    const near = { offsets: Float64Array.of(0), lengths: Float64Array.of(512) }
    return [one, encodeWrites(next + 1, time!, [{ disk: number, columns: near }], one.hash)]
  })
  expect(await codesOf(folder)).toEqual([`EVENT_ILLEGAL ${at}`, `EVENT_ILLEGAL ${at + 1}`])
})

test('R13: an index of command ids that misses one, or names one too many, is found', async () => {
  const folder = await soundStore()
  await withLog(folder, (db) => db.del(commandKey('begin-1')))
  expect((await verifyStore(folder)).findings.map(({ code }) => code)).toEqual(['COMMAND_INDEX_WRONG'])
  const other = await soundStore()
  await withLog(other, (db) => db.put(commandKey('never'), positionBytes(5)))
  expect((await verifyStore(other)).findings.map(({ code }) => code)).toEqual(['COMMAND_INDEX_WRONG'])
})

test('R28: a damaged slot of the head file is found, and a head file that is gone', async () => {
  const folder = await soundStore()
  const path = join(folder, 'head')
  const bytes = readFileSync(path)
  for (const at of [20, 532]) {
    const damaged = Buffer.from(bytes)
    damaged[at]! ^= 4
    writeFileSync(path, damaged)
    expect((await codesOf(folder)).includes('HEAD_SLOT_DAMAGED null'), `slot at ${at}`).toBe(true)
  }
  rmSync(path)
  expect(await codesOf(folder)).toEqual(['HEAD_MISSING null'])
})

test('R28: a derived value that is not what the log gives is reported, and nothing else is in doubt', async () => {
  const folder = await soundStore()
  const { ClassicLevel } = await import('classic-level')
  const db = new ClassicLevel<string, Uint8Array>(join(folder, 'derived'), { valueEncoding: 'view' })
  await db.open()
  for await (const [key, value] of db.iterator({ gte: 'b', lt: 'c', limit: 1 })) {
    value[value.length - 6]! ^= 1
    await db.put(key, value)
  }
  await db.close()
  const { findings } = await verifyStore(folder)
  expect(new Set(findings.map(({ code }) => code))).toEqual(new Set(['DERIVED_DAMAGED']))
  expect(findings.flatMap(({ doubt }) => doubt)).toEqual([])
})

test('R34: a store that is open, here or elsewhere, is not verified beside its owner; a folder without a store is refused', async () => {
  const folder = await soundStore()
  const store = await openStore(folder)
  await expect(verifyStore(folder)).rejects.toMatchObject({ code: 'STORE_IN_USE' })
  await store.close()
  expect((await verifyStore(folder)).findings).toEqual([])
  await expect(verifyStore(join(folder, 'nowhere'))).rejects.toMatchObject({ code: 'STORE_NOT_FOUND' })
  await expect(verifyStore(join(folder, 'log'))).rejects.toMatchObject({ code: 'NOT_A_STORE' })
})
