/** Options of wrong types: what folds, repairs, records or serves for good must never take a guess for a consent. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import {
  blame,
  coverage,
  explainBackup,
  exportDisk,
  history,
  importDisk,
  openStore,
  proveExport,
  repairStore,
  type Store,
  serveOwner,
  takenOut,
  verifyStore,
} from '../../src/index.ts'
import { playIncident, readIncident, recordIncident, recordIncidentFile } from '../../src/testing/index.ts'

const NO_OBJECT = [null, 5, 'x', true, []] as const
const NO_FLAG = [null, 1, 'yes', {}] as const
const NO_TEXT = [null, 5, {}, []] as const
const NO_FUNCTION = [null, 1, 'x', {}] as const
const NO_SIGNAL = [null, 1, {}, () => 1] as const
const NO_COUNT = [null, 0, -1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, '5'] as const
const NO_MS = [null, -1, Number.NaN, '5', {}] as const
const NO_PATH = [undefined, null, 5, '', {}] as const

const COMMON = { signal: NO_SIGNAL, onProgress: NO_FUNCTION }

type Loose = (...given: unknown[]) => unknown

/** A name, how to call with such options, and the kinds that are refused. */
type WithOptions = readonly [
  name: string,
  call: (options: unknown) => unknown,
  refused: Readonly<Record<string, readonly unknown[]>>,
]

async function open(): Promise<{ store: Store; folder: string }> {
  const root = mkdtempSync(join(tmpdir(), 'slicelog-options-'))
  onTestFinished(() => rmSync(root, { recursive: true, force: true }))
  const folder = join(root, 'store')
  const store = await openStore(folder)
  onTestFinished(() => store.close())
  const disk = await store.ensureDisk('vda', { size: 1024 * 1024 })
  await disk.addBitmap('daily', { retention: 2 })
  await disk.recordWrites([{ offset: 0, length: 4096 }])
  await (await disk.beginBackup({ bitmap: 'daily', mode: 'full', id: 'first' })).succeed()
  return { store, folder }
}

/** In words, of a type that says so, and never what Node or the engine would have said further in. */
async function refuses(store: Store, what: string, call: () => unknown): Promise<void> {
  const head = store.head.hash
  let caught: unknown
  try {
    const given = await call()
    if (given !== null && typeof given === 'object' && Symbol.asyncIterator in given)
      await (given as AsyncIterable<unknown>)[Symbol.asyncIterator]().next()
  } catch (error) {
    caught = error
  }
  expect(caught instanceof TypeError || caught instanceof RangeError, `${what}: ${String(caught)}`).toBe(true)
  expect((caught as Error).message, what).not.toMatch(
    /Cannot |is not a function|is not iterable|argument must be of type|private member|slicelog bug|LevelDB/,
  )
  expect(store.head.hash, `R21: ${what}`).toBe(head)
}

test('R21: options of wrong types are refused in words before anything is folded, recorded or served', async () => {
  const { store, folder } = await open()
  const file = join(folder, '..', 'disk')
  await exportDisk(store, 'vda', file)
  const loose = <T>(of: T) => of as Loose
  const all: readonly WithOptions[] = [
    [
      'compact',
      (options) => loose(store.compact.bind(store))(options),
      { ...COMMON, pauseMs: NO_MS, stepBytes: NO_COUNT, dryRun: NO_FLAG, actor: NO_TEXT },
    ],
    ['copyTo', (options) => loose(store.copyTo.bind(store))(join(folder, '..', 'copy'), options), COMMON],
    [
      'follow',
      (options) => loose(store.follow.bind(store))(options),
      { signal: NO_SIGNAL, bufferRecords: NO_COUNT, bufferBytes: NO_COUNT },
    ],
    [
      'events$',
      (options) => loose(store.events$.bind(store))(options),
      { from: [null, 5, 'soon', {}, { position: -1 }, { position: 'x' }], markers: NO_FLAG },
    ],
    [
      'project',
      (options) =>
        loose(store.project.bind(store))({ name: 'p', version: 1, seed: () => 0, apply: () => 0 }, options),
      { saveEvery: NO_COUNT, saveSeconds: NO_MS, stored: NO_FLAG, onProgress: NO_FUNCTION },
    ],
    ['stats', (options) => loose(store.stats.bind(store))(options), { disk: NO_TEXT, since: NO_MS }],
    [
      'log',
      (options) => loose(store.log.bind(store))(options),
      {
        disk: NO_TEXT,
        types: [null, 5, 'write', [5]],
        actor: NO_TEXT,
        commandId: NO_TEXT,
        range: NO_OBJECT,
        reverse: NO_FLAG,
        limit: [-1, Number.NaN, 'x'],
        signal: NO_SIGNAL,
      },
    ],
    ['at', (options) => loose(store.at.bind(store))('now', options), { ...COMMON, fromLogAlone: NO_FLAG }],
    [
      'changed',
      (options) => loose(store.changed.bind(store))('vda', { since: 'start', ...(options as object) }),
      { ...COMMON, bitmap: NO_TEXT },
    ],
    [
      'explainBackup',
      (options) => loose(explainBackup)(store, 'first', options),
      { ...COMMON, top: NO_COUNT },
    ],
    [
      'blame',
      (options) => loose(blame)(store, 'vda', { offset: 0, length: 1 }, options),
      { signal: NO_SIGNAL, bitmap: NO_TEXT, limit: [0, -1, 'x', Symbol.iterator] },
    ],
    ['history', (options) => loose(history)(store, { kind: 'disk', disk: 'vda' }, options), COMMON],
    [
      'coverage',
      (options) => loose(coverage)(store, 'vda', options),
      { signal: NO_SIGNAL, bitmap: NO_TEXT, folder: NO_TEXT },
    ],
    ['exportDisk', (options) => loose(exportDisk)(store, 'vda', `${file}2`, options), COMMON],
    [
      'importDisk',
      (options) => loose(importDisk)(store, file, options),
      { ...COMMON, as: NO_TEXT, prefix: NO_TEXT, collapseTimes: NO_FLAG, actor: NO_TEXT },
    ],
    [
      'recordIncident',
      (options) => loose(recordIncident)(store, options),
      { ...COMMON, disks: [null, 5, 'vda', [5]], anonymise: NO_FLAG },
    ],
    [
      'repairStore',
      (options) => loose(repairStore)(folder, options),
      { ...COMMON, dryRun: NO_FLAG, actor: NO_TEXT },
    ],
    ['verifyStore', (options) => loose(verifyStore)(folder, options), COMMON],
  ]
  for (const [name, call, refused] of all) {
    if (name !== 'changed')
      for (const options of NO_OBJECT)
        await refuses(store, `${name}(${String(options)})`, () => call(options))
    for (const [key, values] of Object.entries(refused))
      for (const value of values)
        await refuses(store, `${name}({ ${key}: ${String(value)} })`, () => call({ [key]: value }))
  }
})

test('what is no store, no path and no subject is refused in words', async () => {
  const { store } = await open()
  const loose = <T>(of: T) => of as Loose
  for (const other of [undefined, null, 5, 'store', {}, []]) {
    const what = `of ${String(other)}`
    await refuses(store, `explain ${what}`, () => loose(explainBackup)(other, 'first'))
    await refuses(store, `blame ${what}`, () => loose(blame)(other, 'vda', { offset: 0, length: 1 }))
    await refuses(store, `history ${what}`, () => loose(history)(other, { kind: 'disk', disk: 'vda' }))
    await refuses(store, `history subject ${what}`, () => loose(history)(store, other))
    await refuses(store, `coverage ${what}`, () => loose(coverage)(other, 'vda'))
    await refuses(store, `export ${what}`, () => loose(exportDisk)(other, 'vda', 'x'))
    await refuses(store, `import ${what}`, () => loose(importDisk)(other, 'x'))
    await refuses(store, `record ${what}`, () => loose(recordIncident)(other))
    await refuses(store, `serve ${what}`, () => loose(serveOwner)(other))
    await refuses(store, `project ${what}`, () => loose(store.project.bind(store))(other))
  }
  for (const range of [undefined, ...NO_OBJECT])
    await refuses(store, `blame range ${String(range)}`, () => loose(blame)(store, 'vda', range))
  for (const path of NO_PATH) {
    const what = String(path)
    await refuses(store, `copyTo ${what}`, () => loose(store.copyTo.bind(store))(path))
    await refuses(store, `export to ${what}`, () => loose(exportDisk)(store, 'vda', path))
    await refuses(store, `import of ${what}`, () => loose(importDisk)(store, path))
    await refuses(store, `prove ${what}`, () => loose(proveExport)(store, path))
    await refuses(store, `verify ${what}`, () => loose(verifyStore)(path))
    await refuses(store, `repair ${what}`, () => loose(repairStore)(path))
    await refuses(store, `taken out of ${what}`, () => loose(takenOut)(path))
    await refuses(store, `record to ${what}`, () => loose(recordIncidentFile)(store, path))
    await refuses(store, `play ${what}`, () => loose(playIncident)(path))
    await refuses(store, `read ${what}`, () => loose(readIncident)(path))
  }
})

test('R13: an actor of a compaction that is no text is in no record', async () => {
  const { store } = await open()
  await expect((store.compact as Loose).call(store, { policy: '0s:1s', actor: 5 })).rejects.toThrow(
    'actor must be a string, not 5',
  )
  await expect((store.compact as Loose).call(store, { policy: '0s:1s', dryRun: 'yes' })).rejects.toThrow(
    'dryRun must be true or false, not string',
  )
})
