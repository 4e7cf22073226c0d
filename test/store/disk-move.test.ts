/** `disk export` and `disk import`: one disk's history in another store, the same at every event. */
import { spawn } from 'node:child_process'
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { gunzipSync, gzipSync } from 'node:zlib'
import { describe, expect, onTestFinished, test } from 'vitest'
import { EMPTY_HASH, encodeEvents } from '../../events/record.ts'
import type { DomainEvent } from '../../events/types.ts'
import { importDisk } from '../../src/audit/disk-import.ts'
import { verifyStore } from '../../src/audit/verify.ts'
import type { CheckpointError } from '../../src/errors.ts'
import { KiB, MiB } from '../../src/limits.ts'
import { exportDisk, proveExport } from '../../src/store/disk-export.ts'
import { type DiskFrame, writeDiskFile } from '../../src/store/disk-file.ts'
import { openStore } from '../../src/store/open.ts'
import type { Store } from '../../src/store/store.ts'
import { DISKS, drive } from '../audit/drive.ts'
import { announce, prng, runs, seed } from '../support/property.ts'
import { script } from '../support/script.ts'

const CHILD = join(dirname(fileURLToPath(import.meta.url)), 'disk-move-child.ts')

async function folder(): Promise<string> {
  const made = await mkdtemp(join(tmpdir(), 'slicelog-move-'))
  onTestFinished(() => rm(made, { recursive: true, force: true }))
  return made
}

async function opened(path: string): Promise<Store> {
  const store = await openStore(path)
  onTestFinished(() => store.close())
  return store
}

/** A disk with a backup, a checkpoint and writes of another disk in between; and its export. */
async function source(root: string) {
  const store = await opened(join(root, 'source'))
  const a = await store.ensureDisk('vm/a', { size: MiB })
  const b = await store.ensureDisk('vm/b', { size: MiB })
  await a.addBitmap('daily', { granularity: 4 * KiB, retention: 3 })
  await a.recordWrites([{ offset: 0, length: 4 * KiB }])
  await b.recordWrites([{ offset: 0, length: 512 * KiB }])
  const backup = await a.beginBackup(
    { bitmap: 'daily', mode: 'full', id: 'first' },
    { commandId: 'c1', actor: 'anna' },
  )
  await b.recordWrites([{ offset: 0, length: 512 }])
  await a.recordWrites([
    { offset: 64 * KiB, length: 4 * KiB },
    { offset: 4 * KiB, length: 512, op: 'discard' },
  ])
  await backup.succeed()
  await store.createCheckpoint('before-upgrade', { bitmaps: [{ disk: 'vm/a', bitmap: 'daily' }] })
  await store.createCheckpoint('other')
  await a.recordWrites([{ offset: 128 * KiB, length: 4 * KiB }])
  const file = join(root, 'a.slicelog')
  return { store, file, exported: await exportDisk(store, 'vm/a', file) }
}

const refused = (code: string) => ({ code })

test('R22, R26: an export names its source, and an import answers as the source does', async () => {
  const root = await folder()
  const { store, file, exported } = await source(root)
  expect(exported.head).toEqual(store.head)
  const target = await opened(join(root, 'target'))
  const imported = await importDisk(target, file, { actor: 'ben' })
  expect(imported).toMatchObject({
    disk: 'vm/a',
    first: 0,
    backups: ['first'],
    checkpoints: ['before-upgrade'],
  })
  const told = []
  for await (const event of target.log({ limit: 2 })) told.push(event)
  expect(told[0]).toMatchObject({
    type: 'disk-imported',
    data: {
      store: exported.store,
      position: exported.head.position,
      hash: exported.head.hash,
      last: imported.last,
    },
    cause: { command: 'import-disk', actor: 'ben' },
  })
  expect(told[1]).toMatchObject({ type: 'disk-added', position: 1 })
  const digest = async (of: Store) => (await of.disk('vm/a').bitmap('daily').bits()).digest
  expect(await digest(target)).toBe(await digest(store))
  const slices = async (of: Store) =>
    (await of.disk('vm/a').bitmap('daily').slices()).slices.map(({ digest: bits }) => bits)
  expect(await slices(target)).toEqual(await slices(store))
  expect((await target.replayPlan('first')).digest).toBe((await store.replayPlan('first')).digest)
  const begun = []
  for await (const event of target.log({ types: ['backup-begun'] })) begun.push(event.cause)
  expect(begun).toMatchObject([{ command: 'begin-backup', actor: 'anna' }])
  expect(begun[0]).not.toHaveProperty('commandId')
  expect(target.checkpoints().map(({ name }) => name)).toEqual(['before-upgrade'])
  await target.close()
  expect((await verifyStore(join(root, 'target'))).findings).toEqual([])
})

test('R34: under another name, with a prefix for what one store can have only once, the same disk is imported twice', async () => {
  const root = await folder()
  const { file } = await source(root)
  const target = await opened(join(root, 'target'))
  await importDisk(target, file)
  const again = await importDisk(target, file, { as: 'vm/z', prefix: 'z-', collapseTimes: true })
  expect(again).toMatchObject({
    disk: 'vm/z',
    backups: ['z-first'],
    checkpoints: ['z-before-upgrade'],
    timesCollapsed: true,
  })
  expect((await target.replayPlan('z-first')).digest).toBe((await target.replayPlan('first')).digest)
  await target.close()
  expect((await verifyStore(join(root, 'target'))).findings).toEqual([])
})

test('R32, R35: what the source recorded after the export is unknown here, so attaching the disk declares it lost', async () => {
  const root = await folder()
  const { file } = await source(root)
  const target = await opened(join(root, 'target'))
  await importDisk(target, file)
  const disk = await target.ensureDisk('vm/a', { size: MiB })
  expect(disk.info.lost).toHaveLength(1)
})

describe('refusals of an import: nothing is recorded', () => {
  async function refuses(
    change: (target: Store, root: string) => Promise<unknown>,
    options: Parameters<typeof importDisk>[2],
    code: string,
  ): Promise<CheckpointError> {
    const root = await folder()
    const { file } = await source(root)
    const target = await opened(join(root, 'target'))
    await change(target, file)
    const { head } = target
    const error = await importDisk(target, file, options).then(
      () => undefined,
      (reason: unknown) => reason,
    )
    expect(error).toMatchObject(refused(code))
    expect(target.head).toEqual(head)
    await target.ensureDisk('still/works', { size: MiB })
    return error as CheckpointError
  }

  test('R4: DISK_EXISTS', () => refuses((target) => target.addDisk('vm/a', { size: MiB }), {}, 'DISK_EXISTS'))

  test('R13: BACKUP_EXISTS, also under another name for the disk', () =>
    refuses(
      async (target) => {
        const disk = await target.ensureDisk('mine', { size: MiB })
        await disk.addBitmap('daily')
        await disk.beginBackup({ bitmap: 'daily', mode: 'copy', id: 'first' })
      },
      { as: 'vm/z' },
      'BACKUP_EXISTS',
    ))

  test('R19: CHECKPOINT_EXISTS', () =>
    refuses((target) => target.createCheckpoint('before-upgrade'), {}, 'CHECKPOINT_EXISTS'))

  test('R22: TIME_INVALID when the log has later events, and it says what to do', async () => {
    const error = await refuses((target) => target.createCheckpoint('later'), {}, 'TIME_INVALID')
    expect(error.message).toMatch(/--collapse-times/)
  })

  test('R4: names that are too long or empty', async () => {
    await refuses(async () => undefined, { as: '' }, 'NAME_EMPTY')
    await refuses(async () => undefined, { prefix: 'x'.repeat(1020) }, 'NAME_TOO_LONG')
  })

  test('R21: a caller that gives up', () =>
    refuses(async () => undefined, { signal: AbortSignal.abort() }, 'ABORTED'))

  test.each([
    ['no export', async (_: Buffer) => gzipSync('something else')],
    ['no gzip', async (_: Buffer) => Buffer.from('plain')],
    ['empty', async (_: Buffer) => Buffer.alloc(0)],
    ['cut', async (bytes: Buffer) => bytes.subarray(0, bytes.length - 40)],
    ['cut between two parts', async (bytes: Buffer) => gzipSync(gunzipSync(bytes).subarray(0, -40))],
    [
      'changed in one bit',
      async (bytes: Buffer) => {
        const plain = gunzipSync(bytes)
        plain[plain.length - 200]! ^= 1
        return gzipSync(plain)
      },
    ],
    [
      'followed by more',
      async (bytes: Buffer) => gzipSync(Buffer.concat([gunzipSync(bytes), Buffer.alloc(60)])),
    ],
  ])('R28: DISK_FILE_INVALID: a file that is %s', async (_, spoil) => {
    await refuses(
      async (_target, file) => writeFile(file, await spoil(await readFile(file))),
      {},
      'DISK_FILE_INVALID',
    )
  })

  test('R28: a file that is not there', () =>
    refuses(async (_target, file) => rm(file), {}, 'DISK_FILE_INVALID'))
})

test('R28: DISK_FILE_INVALID: a file that is whole and says what no slicelog would have recorded', async () => {
  const root = await folder()
  const forged = async (name: string, ...events: readonly (readonly DomainEvent[])[]) => {
    const path = join(root, name)
    async function* frames(): AsyncGenerator<DiskFrame> {
      const head = { position: 9, time: 5, hash: '0'.repeat(64) }
      yield { kind: 'header', header: { store: 'elsewhere', disk: 'vm/a', number: 0, head } }
      let first = 0
      for (const list of events) {
        const { bytes } = encodeEvents(first, 5, {}, list, EMPTY_HASH)
        yield {
          kind: 'record',
          record: { end: first, hash: EMPTY_HASH, runs: [first, list.length], value: bytes },
        }
        first += list.length
      }
      yield { kind: 'end', end: { records: events.length, events: first } }
    }
    await writeDiskFile(path, frames())
    return path
  }
  const added: DomainEvent = { type: 'disk-added', disk: 'vm/a', size: MiB }
  const target = await opened(join(root, 'target'))
  const bad: readonly (readonly [string, readonly (readonly DomainEvent[])[]])[] = [
    ['no-start', [[{ type: 'disk-detached', disk: 'vm/a' }]]],
    ['no-bitmap', [[added], [{ type: 'bitmap-cleared', disk: 'vm/a', bitmap: 'daily' }]]],
    ['twice', [[added], [added]]],
    ['other-disk', [[added], [{ type: 'disk-added', disk: 'vm/b', size: MiB }]]],
    ['other-backup', [[added], [{ type: 'backup-succeeded', backup: 'mine', bits: 'kept' }]]],
  ]
  for (const [name, events] of bad) {
    const path = await forged(name, ...events)
    await expect(importDisk(target, path), name).rejects.toMatchObject({ code: 'DISK_FILE_INVALID' })
  }
  expect(target.head.position).toBe(-1)
  await importDisk(target, await forged('good', [added]))
  expect(target.disks()).toHaveLength(1)
})

test('R29: of a history that was compacted the bits and plans are the same, and the export is anchored', async () => {
  const root = await folder()
  const { store } = await source(root)
  const disk = store.disk('vm/a')
  for (let i = 0; i < 40; i++) await disk.recordWrites([{ offset: (i % 8) * 4 * KiB, length: 4 * KiB }])
  const whole = join(root, 'whole.slicelog')
  await exportDisk(store, 'vm/a', whole)
  await new Promise((resolve) => setTimeout(resolve, 60))
  const compacted = await store.compact({ policy: '1ms:20ms' })
  expect(compacted.runs).toBeGreaterThan(0)
  expect((await proveExport(store, whole)).kind).toBe('anchored')
  const again = join(root, 'again.slicelog')
  await exportDisk(store, 'vm/a', again)
  expect((await proveExport(store, again)).kind).toBe('proved')
  const target = await opened(join(root, 'target'))
  await importDisk(target, again)
  const digest = async (of: Store) => (await of.disk('vm/a').bitmap('daily').bits()).digest
  expect(await digest(target)).toBe(await digest(store))
  expect((await target.replayPlan('first')).digest).toBe((await store.replayPlan('first')).digest)
  await target.close()
  expect((await verifyStore(join(root, 'target'))).findings).toEqual([])
})

describe('refusals of an export: no file is left', () => {
  test('R4: DISK_NOT_FOUND, also of a disk that was removed', async () => {
    const root = await folder()
    const { store } = await source(root)
    const file = join(root, 'none')
    await expect(exportDisk(store, 'vm/nobody', file)).rejects.toMatchObject(refused('DISK_NOT_FOUND'))
    await store.removeDisk('vm/b')
    await expect(exportDisk(store, 'vm/b', file)).rejects.toMatchObject(refused('DISK_NOT_FOUND'))
    await expect(stat(file)).rejects.toMatchObject({ code: 'ENOENT' })
  })

  test('R28: TARGET_EXISTS: a file is never written over', async () => {
    const root = await folder()
    const { store, file } = await source(root)
    const before = await readFile(file)
    await expect(exportDisk(store, 'vm/a', file)).rejects.toMatchObject(refused('TARGET_EXISTS'))
    expect(await readFile(file)).toEqual(before)
  })

  test('R4: DISK_ENTANGLED when bits of another disk were merged in', async () => {
    const root = await folder()
    const { store } = await source(root)
    await store.disk('vm/b').addBitmap('daily', { granularity: 4 * KiB })
    await store
      .disk('vm/a')
      .bitmap('daily')
      .merge([{ disk: 'vm/b', bitmap: 'daily' }])
    const file = join(root, 'entangled')
    await expect(exportDisk(store, 'vm/a', file)).rejects.toMatchObject({
      code: 'DISK_ENTANGLED',
      facts: { bitmap: 'daily' },
    })
    await expect(stat(file)).rejects.toMatchObject({ code: 'ENOENT' })
  })

  test('R21: a caller that gives up', async () => {
    const root = await folder()
    const { store } = await source(root)
    const file = join(root, 'aborted')
    await expect(exportDisk(store, 'vm/a', file, { signal: AbortSignal.abort() })).rejects.toMatchObject(
      refused('ABORTED'),
    )
    await expect(stat(file)).rejects.toMatchObject({ code: 'ENOENT' })
  })
})

describe('R28: an export against its source', () => {
  test('is proved, also after the source went on', async () => {
    const root = await folder()
    const { store, file, exported } = await source(root)
    expect(await proveExport(store, file)).toEqual({ kind: 'proved', records: exported.records })
    await store.disk('vm/a').recordWrites([{ offset: 0, length: 512 }])
    await store.disk('vm/a').bitmap('daily').bank({ forceCycle: true })
    expect(await proveExport(store, file)).toMatchObject({ kind: 'proved' })
  })

  test('differs from another store, and from one that went another way', async () => {
    const root = await folder()
    const { store, file } = await source(root)
    const other = await opened(join(root, 'other'))
    expect(await proveExport(other, file)).toMatchObject({ kind: 'differs' })
    await store.copyTo(join(root, 'copy'))
    const copy = await opened(join(root, 'copy'))
    await copy.ensureDisk('vm/a', { size: MiB, quiet: true })
    const later = join(root, 'later.slicelog')
    await exportDisk(copy, 'vm/a', later)
    expect(await proveExport(copy, later)).toMatchObject({ kind: 'proved' })
    expect(await proveExport(store, later)).toMatchObject({ kind: 'differs' })
    expect(await proveExport(copy, file)).toMatchObject({ kind: 'proved' })
  })
})

/** Everything of a disk at one event that must not depend on where it stands. */
async function lookAt(store: Store, disk: string, position: number) {
  const past = await store.at({ position })
  const found = past.disks().find((one) => one.disk === disk)
  if (found === undefined) return null
  const bitmaps = []
  for (const { bitmap } of past.bitmaps(disk)) {
    const { count, digest, recording, busy } = await past.bits(disk, bitmap)
    const { slices, next } = await past.slices(disk, bitmap)
    bitmaps.push([
      bitmap,
      count,
      digest,
      recording,
      busy,
      next,
      slices.map((one) => [one.slice, one.count, one.digest]),
    ])
  }
  return { size: found.size, lost: found.lost.length, bitmaps }
}

test('R22, R26: of random histories every bitmap, slice and plan of the disk is the same at every event that is no write', {
  timeout: 3_600_000,
}, async () => {
  const rounds = runs(6, 120)
  const used = seed()
  announce('moved disks', rounds, used)
  for (let round = 0; round < rounds; round++) {
    const random = prng(used + round)
    const root = await folder()
    const store = await openStore(join(root, 'source'), { snapshotEvery: 500 })
    await drive(store, random, 60, `r${round}`)
    const target = await openStore(join(root, 'target'))
    for (const disk of DISKS) {
      const file = join(root, `${disk.replace('/', '-')}.slicelog`)
      await exportDisk(store, disk, file)
      expect(await proveExport(store, file)).toEqual({ kind: 'proved', records: expect.any(Number) })
      const imported = await importDisk(target, file, { collapseTimes: true, prefix: `${disk}-` })
      const here = new Map(
        imported.positions.flatMap(([from, count, to]) =>
          Array.from({ length: count }, (_, i) => [from + i, to + i] as const),
        ),
      )
      for await (const event of store.log({ disk })) {
        if (event.type === 'write') continue
        const there = here.get(event.position)
        expect([event.type, event.position, there === undefined]).toEqual([event.type, event.position, false])
        expect([event.type, await lookAt(target, disk, there!)]).toEqual([
          event.type,
          await lookAt(store, disk, event.position),
        ])
      }
      for (const { id, disk: of } of store.backups()) {
        if (of !== disk) continue
        const [mine, theirs] = [await store.replayPlan(id), await target.replayPlan(`${disk}-${id}`)]
        expect([id, theirs.digest, theirs.bytes, theirs.complete]).toEqual([
          id,
          mine.digest,
          mine.bytes,
          mine.complete,
        ])
      }
    }
    await store.close()
    await target.close()
    expect((await verifyStore(join(root, 'target'))).findings).toEqual([])
    await rm(root, { recursive: true, force: true })
  }
})

test('R21: an import that is killed is there whole, or not at all', async () => {
  const used = seed()
  const random = prng(used)
  const rounds = runs(4, 40)
  announce('killed imports', rounds, used)
  const root = await folder()
  const store = await openStore(join(root, 'source'))
  const disk = await store.ensureDisk('vm/a', { size: 64 * MiB })
  await disk.addBitmap('daily')
  for (let i = 0; i < 40; i++) {
    const offsets = Float64Array.from({ length: 4096 }, () => Math.floor(random() * 1000) * 512)
    await disk.recordWrites({ offsets, lengths: new Float64Array(4096).fill(512) })
  }
  const file = join(root, 'a.slicelog')
  const { events } = await exportDisk(store, 'vm/a', file)
  await store.close()
  const outcomes = { none: 0, whole: 0 }
  for (let round = 0; round < rounds; round++) {
    const target = join(root, `target-${round}`)
    await (await openStore(target)).close()
    await killedImport(target, file, round === 0 ? 0 : random() * 300)
    const after = await openStore(target, { create: false })
    const { position } = after.head
    expect([-1, events]).toContain(position)
    outcomes[position < 0 ? 'none' : 'whole']++
    if (position < 0) await importDisk(after, file)
    expect(after.disk('vm/a').bitmaps()).toHaveLength(1)
    await after.close()
    expect((await verifyStore(target)).findings).toEqual([])
    await rm(target, { recursive: true, force: true })
  }
  process.stderr.write(`proof: killed imports: ${outcomes.none} left nothing, ${outcomes.whole} left all\n`)
})

/** Kills the importing process so many ms after it began to record. */
function killedImport(target: string, file: string, after: number): Promise<void> {
  const child = spawn(process.execPath, [...script(CHILD), target, file], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  child.stdout.on('data', () => setTimeout(() => child.kill('SIGKILL'), after))
  return new Promise((resolve) => child.on('close', () => resolve()))
}
