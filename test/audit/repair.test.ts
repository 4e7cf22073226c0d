/** `repair`: each kind of damage, what it costs, what is kept, and that nothing is made up. */
import { spawnSync } from 'node:child_process'
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, onTestFinished, test } from 'vitest'
import { encodeEvents, readHeader } from '../../events/record.ts'
import { repairStore } from '../../src/audit/repair.ts'
import { takenOut } from '../../src/audit/repair-kept.ts'
import { verifyStore } from '../../src/audit/verify.ts'
import { MiB } from '../../src/limits.ts'
import { COMMAND_KEYS } from '../../src/log/keys.ts'
import { openStore } from '../../src/store/open.ts'
import { announce, full } from '../support/property.ts'
import { script } from '../support/script.ts'
import { compacted, recordsOf, repaired, spoil, treeOf } from './repair-support.ts'
import { DISK, type Entry, entriesIn, put, resealed, soundStore, withLog } from './support.ts'

async function plain(folder: string): Promise<Entry[]> {
  return (await entriesIn(folder)).filter((entry) => entry.plain)
}

function flipped(value: Uint8Array, at: number): Uint8Array {
  const copy = value.slice()
  copy[at] = copy[at]! ^ 4
  return copy
}

async function outOf(kept: string | null) {
  const out = []
  for await (const one of takenOut(kept!)) out.push(one)
  return out
}

async function eventsOf(folder: string, type: string) {
  const store = await openStore(folder, { create: false })
  const found = []
  for await (const event of store.log({ types: [type] })) found.push(event)
  await store.close()
  return found
}

test('R28: a sound store: repair says that there is nothing to do, and changes nothing', async () => {
  const folder = await soundStore()
  const contents = () =>
    treeOf(folder)
      .filter((name) => /head|json|\.ldb$|MANIFEST/.test(name))
      .map((name) => [name, readFileSync(join(folder, name), 'hex')])
  const before = contents()
  expect(await repairStore(folder)).toMatchObject({
    state: 'sound',
    findings: [],
    lost: [],
    also: [],
    kept: null,
  })
  expect(contents()).toEqual(before)
})

describe('what is not repaired', () => {
  test('R34: a store that is open: STORE_IN_USE, and it goes on', async () => {
    const folder = await soundStore()
    const store = await openStore(folder)
    await expect(repairStore(folder)).rejects.toMatchObject({ code: 'STORE_IN_USE' })
    await store.disk(DISK).recordWrites([{ offset: 0, length: 512 }])
    await store.close()
  })

  test('R34: no store, something else, a newer format', async () => {
    const folder = await soundStore()
    await expect(repairStore(join(folder, 'nothing'))).rejects.toMatchObject({ code: 'STORE_NOT_FOUND' })
    mkdirSync(join(folder, 'other'))
    writeFileSync(join(folder, 'other', 'notes'), 'x')
    await expect(repairStore(join(folder, 'other'))).rejects.toMatchObject({ code: 'NOT_A_STORE' })
    const file = join(folder, 'store.json')
    writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(file, 'utf8')), format: 99 }))
    await expect(repairStore(folder)).rejects.toMatchObject({ code: 'FORMAT_TOO_NEW' })
  })

  test('R28: a log of which nothing can be read: REPAIR_IMPOSSIBLE, and everything stays as it was', async () => {
    const folder = await soundStore()
    for (const name of readdirSync(join(folder, 'log'))) rmSync(join(folder, 'log', name))
    const without = () => treeOf(folder).filter((name) => !name.endsWith('LOCK'))
    const before = without()
    await expect(repairStore(folder)).rejects.toMatchObject({ code: 'REPAIR_IMPOSSIBLE' })
    await expect(repairStore(folder, { dryRun: true })).rejects.toMatchObject({ code: 'REPAIR_IMPOSSIBLE' })
    expect(without()).toEqual(before)
  })

  test('R28: a repair that is given up leaves the damaged store as it was', async () => {
    const folder = await soundStore()
    const { position, value } = (await plain(folder))[3]!
    await spoil(folder, { position, value: flipped(value, 60) })
    const before = treeOf(folder)
    const stop = new AbortController()
    const onProgress = (phase: string) => phase === 'write' && stop.abort()
    await expect(repairStore(folder, { signal: stop.signal, onProgress })).rejects.toMatchObject({
      code: 'ABORTED',
    })
    expect(treeOf(folder)).toEqual(before)
    await repaired(folder)
  })
})

describe('a damaged record in the middle', () => {
  test('R28, R35: becomes a gap; the records behind it stay, and answers since before it cover the whole disk', async () => {
    const folder = await soundStore()
    const originals = await recordsOf(folder)
    const { position, value } = (await plain(folder))[5]!
    const bad = flipped(value, 60)
    await spoil(folder, { position, value: bad })
    const report = await repaired(folder)
    expect(report.lost).toMatchObject([
      { first: position, last: position + 99, from: { position: position - 1 } },
    ])
    expect(report.disks).toEqual([DISK])
    const kept = await recordsOf(folder)
    for (const [at, text] of kept) if (originals.has(at)) expect(text).toBe(originals.get(at))
    expect([...originals.keys()].filter((at) => !kept.has(at))).toEqual([position])
    const out = await outOf(report.kept)
    expect(out).toMatchObject([{ position }])
    expect(Buffer.from(out[0]!.value).equals(bad)).toBe(true)

    const store = await openStore(folder)
    const whole = await store.changed(DISK, { since: { position: position - 1 } })
    expect(whole).toMatchObject({ complete: false, bytes: 64 * MiB })
    expect(whole.lost[0]!.reason).toMatch(/damaged/)
    const plan = await store.plan({
      disk: DISK,
      bitmap: 'daily',
      mode: 'differential',
      since: { position: position - 1 },
    })
    expect(plan).toMatchObject({ bytes: 64 * MiB })
    expect(plan.reason).toMatch(/damaged/)
    const since = { position: store.disks()[0]!.added.position }
    const early = await store.changed(DISK, { since, until: { position: position - 1 } })
    expect(early.complete).toBe(true)
    expect(early.bytes).toBeLessThan(64 * MiB)
    const { position: now } = store.head
    await store.disk(DISK).recordWrites([{ offset: 0, length: 512 }])
    expect(await store.changed(DISK, { since: { position: now } })).toMatchObject({
      complete: true,
      bytes: 65536,
    })
    await store.close()
  })

  test('R28: whose hash survived is vouched for by the chain; one without is by the event alone', async () => {
    for (const at of [60, 10]) {
      const folder = await soundStore()
      const { position, value } = (await plain(folder))[5]!
      await spoil(folder, { position, value: flipped(value, at) })
      await repaired(folder)
      expect(await eventsOf(folder, 'log-repaired')).toMatchObject([
        { data: { gaps: [{ first: position, last: position + 99 }] }, cause: { command: 'repair' } },
      ])
    }
  })

  test('R28: is found again where LevelDB still has an older version of it', async () => {
    const folder = await soundStore()
    const originals = await recordsOf(folder)
    const { position, value } = (await plain(folder))[5]!
    await put(folder, { position, value: flipped(value, 60) })
    const report = await repaired(folder)
    expect(report).toMatchObject({ lost: [], disks: [], restored: 1, removed: { values: 1 } })
    const kept = await recordsOf(folder)
    for (const [at, text] of originals) expect(kept.get(at)).toBe(text)
  })

  test('R28: with an event that later ones stand on: the log ends before the first that cannot follow, the rest is aside', async () => {
    const folder = await soundStore()
    const begin = (await entriesIn(folder)).find(({ position }) => position > 402 && position < 420)!
    const [first] = await entriesIn(folder)
    expect(begin.position).toBeGreaterThan(first!.position)
    // The record that added the bitmap: everything about backups stands on it.
    await spoil(folder, { position: first!.position, value: flipped(first!.value, 60) })
    await expect(repairStore(folder)).rejects.toMatchObject({ code: 'REPAIR_IMPOSSIBLE' })
  })
})

test('R28: a store that was repaired can be damaged and repaired again, also where the first repair is told', async () => {
  const folder = await soundStore()
  const values = await plain(folder)
  await spoil(folder, { position: values[3]!.position, value: flipped(values[3]!.value, 10) })
  const first = await repaired(folder)
  await spoil(folder, { position: values[6]!.position, value: flipped(values[6]!.value, 60) })
  expect((await repaired(folder)).lost).toMatchObject([{ first: values[6]!.position }])
  // What tells of the first repair, by itself or in a pack.
  const told = (await entriesIn(folder)).findLast(({ position }) => position < first.head.position)!
  await spoil(folder, { position: told.position, value: flipped(told.value, 60) })
  const third = await repaired(folder)
  expect(third.lost).toMatchObject([{ first: told.position }])
  const events = await eventsOf(folder, 'log-repaired')
  expect((events.at(-1)!.data as { gaps: { first: number }[] }).gaps.map((gap) => gap.first)).toEqual([
    values[3]!.position,
    values[6]!.position,
    told.position,
  ])
})

describe('records that are not where they should be', () => {
  test('R28: missing ones become a gap', async () => {
    const folder = await soundStore()
    const [, , two, three] = await plain(folder)
    await spoil(folder, { position: two!.position, value: null }, { position: three!.position, value: null })
    const report = await repaired(folder)
    expect(report.lost).toMatchObject([{ first: two!.position, last: three!.position + 99 }])
    expect(report.removed.values).toBe(0)
  })

  test('R28: swapped ones are put back', async () => {
    const folder = await soundStore()
    const originals = await recordsOf(folder)
    const [, , two, three] = await plain(folder)
    await spoil(
      folder,
      { position: two!.position, value: three!.value },
      { position: three!.position, value: two!.value },
    )
    const report = await repaired(folder)
    expect(report).toMatchObject({ lost: [], disks: [], restored: 2 })
    const kept = await recordsOf(folder)
    for (const [at, text] of originals) expect(kept.get(at)).toBe(text)
  })

  test('R28: one that was added inside another is taken out and costs nothing', async () => {
    const folder = await soundStore()
    const [, , two] = await plain(folder)
    await spoil(folder, { position: two!.position + 7, value: two!.value })
    expect(await repaired(folder)).toMatchObject({ lost: [], disks: [], removed: { values: 1 } })
  })

  test('R28: one rewritten under a right checksum takes its neighbour along, since nothing tells which of the two it was', async () => {
    const folder = await soundStore()
    const [, , two, three] = await plain(folder)
    const forged = resealed(flipped(three!.value, 70))
    await spoil(folder, { position: three!.position, value: forged })
    const report = await repaired(folder)
    expect(report.lost).toMatchObject([{ first: two!.position, last: three!.position + 99 }])
    expect(report.removed.values).toBe(2)
  })
})

describe('the end of the log', () => {
  test('R28: a tail that is cut becomes a gap up to the head, whose hash still stands', async () => {
    const folder = await soundStore()
    const before = await verifyStore(folder)
    const last = (await entriesIn(folder)).slice(-2)
    await spoil(folder, ...last.map(({ position }) => ({ position, value: null })))
    const report = await repaired(folder)
    expect(report.lost).toMatchObject([{ first: last[0]!.position, last: before.head.position }])
    const { findings } = await verifyStore(folder, { against: before.head })
    expect(findings).toEqual([])
  })

  test.each(['missing', 'damaged'])(
    'R28, R35: with a head file that is %s nothing tells what is missing, so a stretch is lost',
    async (kind) => {
      const folder = await soundStore()
      const { head } = await verifyStore(folder)
      if (kind === 'missing') rmSync(join(folder, 'head'))
      else writeFileSync(join(folder, 'head'), Buffer.alloc(1024, 7))
      const report = await repaired(folder)
      expect(report).toMatchObject({ lost: [], disks: [DISK] })
      expect(report.also.join()).toMatch(/nothing tells/)
      const store = await openStore(folder)
      expect(await store.changed(DISK, { since: { position: head.position - 1 } })).toMatchObject({
        complete: false,
      })
      await store.close()
    },
  )

  test('R28: one damaged slot beside a good one is written again, and nothing else is touched', async () => {
    const folder = await soundStore()
    const bytes = readFileSync(join(folder, 'head'))
    const { head } = await verifyStore(folder)
    // Whichever slot is older: damage one, look whether the other still leads to the same head.
    for (const at of [20, 532]) {
      const copy = Buffer.from(bytes)
      copy[at] = copy[at]! ^ 1
      writeFileSync(join(folder, 'head'), copy)
      const { findings } = await verifyStore(folder)
      if (findings.length === 1) break
    }
    expect(await repaired(folder)).toMatchObject({ lost: [], disks: [], kept: null, head })
  })

  test('R28: what was added behind a closed log is taken out, and the disk counts as unwatched', async () => {
    const folder = await soundStore()
    const { head } = await verifyStore(folder)
    const first = head.position + 1
    const time = head.time! + 1
    const added = encodeEvents(
      first,
      time,
      {},
      [{ type: 'disk-removed', disk: DISK }],
      Buffer.from(head.hash, 'hex'),
    )
    await put(folder, { position: first, value: added.bytes })
    const report = await repaired(folder)
    expect(report).toMatchObject({ lost: [], disks: [DISK], removed: { values: 1 } })
  })

  test('R28: an event that no slicelog records is taken out though its chain is right', async () => {
    const folder = await soundStore()
    const last = (await entriesIn(folder)).at(-1)!
    const { first, time } = readHeader(last.value)
    const forged = encodeEvents(first, time, {}, [{ type: 'disk-removed', disk: 'nobody' }], last.previous)
    await spoil(folder, { position: first, value: forged.bytes })
    rmSync(join(folder, 'head'))
    const report = await repaired(folder)
    expect(report.lost).toMatchObject([{ first, last: first }])
    expect(report.lost[0]!.why.join()).toMatch(/does not exist/)
  })
})

describe('beside the records', () => {
  test('R28: a key that no slicelog writes is kept aside', async () => {
    const folder = await soundStore()
    await withLog(folder, (db) => db.put(Uint8Array.of(0x7a, 1), Uint8Array.of(5)))
    const report = await repaired(folder)
    expect(report).toMatchObject({ lost: [], disks: [], removed: { values: 1, first: [{ position: null }] } })
    expect((await outOf(report.kept))[0]!.value).toEqual(Uint8Array.of(5))
  })

  test('R13, R28: the index of command ids is made anew, so that a command sent again is recognized', async () => {
    const folder = await soundStore()
    await withLog(folder, (db) => db.clear(COMMAND_KEYS))
    expect(await repaired(folder)).toMatchObject({ lost: [], disks: [] })
    const store = await openStore(folder)
    const before = store.head.position
    await store.backup('first').succeed({ commandId: 'succeed-1' })
    expect(store.head.position).toBe(before)
    await store.close()
  })

  test('R28: what is derived is made anew', async () => {
    const folder = await soundStore()
    for (const name of readdirSync(join(folder, 'derived')).filter((file) => file.endsWith('.ldb')))
      truncateSync(join(folder, 'derived', name), 10)
    const { findings } = await verifyStore(folder)
    if (findings.length > 0) expect(await repaired(folder)).toMatchObject({ lost: [], disks: [] })
  })

  test('R28: a store.json that says nothing any more is made again, with its id if that is left', async () => {
    const folder = await soundStore()
    const file = join(folder, 'store.json')
    const text = readFileSync(file, 'utf8')
    const { id } = JSON.parse(text)
    writeFileSync(file, text.replace('{', '['))
    await expect(openStore(folder)).rejects.toMatchObject({ code: 'NOT_A_STORE' })
    expect(await repairStore(folder)).toMatchObject({ state: 'repaired', lost: [], remaining: [] })
    expect(JSON.parse(readFileSync(file, 'utf8')).id).toBe(id)
  })
})

describe("LevelDB's own files", () => {
  const inLog = (folder: string, pattern: RegExp) =>
    readdirSync(join(folder, 'log'))
      .filter((name) => pattern.test(name))
      .map((name) => join(folder, 'log', name))

  test.each([
    ['CURRENT is gone', (folder: string) => rmSync(join(folder, 'log', 'CURRENT'))],
    [
      'CURRENT names nothing',
      (folder: string) => writeFileSync(join(folder, 'log', 'CURRENT'), 'MANIFEST-999999\n'),
    ],
    ['the manifest is gone', (folder: string) => inLog(folder, /^MANIFEST/).map((path) => rmSync(path))],
    [
      'the manifest is cut',
      (folder: string) => inLog(folder, /^MANIFEST/).map((path) => truncateSync(path, 20)),
    ],
    [
      "a table's footer is damaged",
      (folder: string) =>
        inLog(folder, /\.ldb$/).forEach((path) => {
          const bytes = readFileSync(path)
          bytes[bytes.length - 3] = bytes[bytes.length - 3]! ^ 1
          writeFileSync(path, bytes)
        }),
    ],
  ])('R28: %s: every record is read from the tables', async (_, damage) => {
    const folder = await soundStore()
    await compacted(folder)
    const originals = await recordsOf(folder)
    damage(folder)
    expect((await verifyStore(folder)).findings.length).toBeGreaterThan(0)
    const report = await repaired(folder)
    expect(report.lost).toEqual([])
    const kept = await recordsOf(folder)
    for (const [at, text] of originals) expect(kept.get(at)).toBe(text)
    expect(readdirSync(report.kept!)).toEqual(expect.arrayContaining(['log', 'report.json']))
  })

  test('R28: after an open that was refused, what LevelDB replayed and deleted is read from where it was put aside', async () => {
    const folder = await soundStore()
    const store = await openStore(folder)
    await store.disk(DISK).recordWrites([{ offset: 0, length: 512 }])
    await store.disk(DISK).recordWrites([{ offset: 512, length: 512 }])
    const killed = `${folder}-killed`
    cpSync(folder, killed, { recursive: true })
    await store.close()
    try {
      const [wal] = inLog(killed, /\.log$/).filter((path) => readFileSync(path).length > 0)
      const bytes = readFileSync(wal!)
      bytes[20] = bytes[20]! ^ 1
      writeFileSync(wal!, bytes)
      await expect(openStore(killed)).rejects.toMatchObject({ code: 'LOG_DAMAGED' })
      await expect(openStore(killed)).rejects.toMatchObject({ code: 'LOG_DAMAGED' })
      expect((await verifyStore(killed)).findings.map(({ code }) => code)).toContain('ASIDE_KEPT')
      const report = await repaired(killed)
      expect(report.lost.length).toBe(1)
      expect(report.disks).toEqual([DISK])
    } finally {
      rmSync(killed, { recursive: true, force: true })
    }
  })
})

const STEPS = [
  'write',
  'tell',
  'keep',
  'mark',
  'keep log',
  'place log',
  'keep head',
  'place head',
  'derived',
  'unmark',
]

test('R28: a repair that is killed at any step is finished, or begun again, by the next one', {
  timeout: 300_000,
}, async () => {
  const base = await soundStore()
  const { position, value } = (await plain(base))[5]!
  await spoil(base, { position, value: flipped(value, 60) })
  const child = join(dirname(fileURLToPath(import.meta.url)), 'repair-child.ts')
  const folder = `${base}-kill`
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  const fresh = () => {
    rmSync(folder, { recursive: true, force: true })
    cpSync(base, folder, { recursive: true })
  }
  fresh()
  const seen: string[] = []
  await repairStore(folder, { onStep: (name) => seen.push(name) })
  expect(seen).toEqual(STEPS)
  const chosen = full ? STEPS : ['write', 'mark', 'place log', 'keep head', 'unmark']
  announce('killed repairs', chosen.length, 0)
  for (const name of chosen) {
    fresh()
    const at = String(STEPS.indexOf(name))
    const { stdout, signal } = spawnSync(process.execPath, [...script(child), folder, at])
    expect([String(stdout), signal]).toEqual([name, 'SIGKILL'])
    // Damage in the middle is not seen by an open; what is half exchanged must be.
    if (treeOf(folder).includes('repairing.json')) {
      await expect(openStore(folder, { create: false })).rejects.toMatchObject({ code: 'LOG_DAMAGED' })
      await expect(repairStore(folder, { dryRun: true })).rejects.toMatchObject({ code: 'LOG_DAMAGED' })
      expect((await verifyStore(folder)).findings.map(({ code }) => code)).toEqual(['LOG_UNREADABLE'])
    }
    expect(await repairStore(folder)).toMatchObject({ state: 'repaired', remaining: [] })
    expect((await verifyStore(folder)).findings).toEqual([])
    expect(await eventsOf(folder, 'log-repaired')).toMatchObject([
      { data: { gaps: [{ first: position, last: position + 99 }] } },
    ])
    expect(treeOf(folder).filter((path) => /repairing|^\.repair/.test(path))).toEqual([])
  }
})
