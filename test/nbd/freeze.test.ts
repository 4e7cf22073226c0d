/** Freeze and thaw around the points of a served disk: in which order, for what, and that a thaw follows whatever happens. */
import { existsSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, onTestFinished, test } from 'vitest'
import {
  CheckpointError,
  type Disk,
  type FreezePoint,
  type NbdDiskOptions,
  openMemoryStore,
  type Store,
  serveNbd,
} from '../../src/index.ts'
import { coreOf } from '../../src/store/store.ts'
import { describeWithPeers } from '../support/peers.ts'
import { announce, prng, runs, seed } from '../support/property.ts'
import { folder, held, MiB } from './support.ts'

interface Place {
  readonly store: Store
  readonly disk: Disk
  readonly at: string
  readonly socket: string
  /** What the commands noted, a line each. */
  readonly noted: () => string[]
  readonly note: (words: string) => string
  readonly told: CheckpointError[]
  readonly served: { close(): Promise<void> }
}

type Around = Pick<NbdDiskOptions, 'freeze' | 'thaw' | 'freezeTimeoutMs'>

/** `vda`, and `vdb` where a second disk is asked for, each with bitmap `b`, served while the test runs. */
async function given(
  around: (place: Omit<Place, 'store' | 'disk' | 'served'>) => Around,
  two = false,
): Promise<Place> {
  const at = folder()
  const log = join(at, 'noted')
  const told: CheckpointError[] = []
  const place = {
    at,
    socket: join(at, 'nbd.sock'),
    told,
    note: (words: string) => `echo "${words}" >> ${log}`,
    noted: () => (existsSync(log) ? readFileSync(log, 'utf8').trimEnd().split('\n') : []),
  }
  const store = await openMemoryStore()
  onTestFinished(() => store.close().catch(() => undefined))
  const disks = (two ? ['vda', 'vdb'] : ['vda']).map((disk) => {
    const file = join(at, disk)
    writeFileSync(file, '')
    truncateSync(file, MiB)
    return { disk, file, bitmap: 'b', ...around(place) }
  })
  const onError = (error: unknown) => void told.push(error as CheckpointError)
  const served = await serveNbd(store, { disks, socket: place.socket, onError })
  return { ...place, store, disk: store.disk('vda'), served }
}

/** Both only note that they ran. */
const noting = ({ note }: Pick<Place, 'note'>): Around => ({
  freeze: note('freeze $SLICELOG_DISK'),
  thaw: note('thaw $SLICELOG_DISK'),
})
const PAIR = ['freeze vda', 'thaw vda']

/** Everything that a refusal must leave as it is (R21). */
async function stateOf({ store }: Place): Promise<unknown> {
  const disks = store.disks().map(({ disk }) => disk)
  const bits = await Promise.all(disks.map((disk) => store.disk(disk).bitmap('b').bits()))
  return [store.head, bits.map(({ digest }) => digest), store.checkpoints()]
}

async function refused(place: Place, act: () => Promise<unknown>, code: string): Promise<CheckpointError> {
  const before = await stateOf(place)
  const error = await act().then(
    () => null,
    (caught: unknown) => caught,
  )
  expect(error).toBeInstanceOf(CheckpointError)
  expect((error as CheckpointError).code).toBe(code)
  expect(await stateOf(place)).toEqual(before)
  return error as CheckpointError
}

const POINTS: readonly (readonly [string, string, (place: Place) => Promise<unknown>])[] = [
  ['begin', 'begin-backup', ({ disk }) => disk.beginBackup({ bitmap: 'b', mode: 'full' })],
  ['bank', 'bank', ({ disk }) => disk.bitmap('b').bank({ forceCycle: true })],
  ['checkpoint', 'create-checkpoint', ({ store }) => store.createCheckpoint('c')],
  [
    'checkpoint that banks',
    'create-checkpoint',
    ({ store }) => store.createCheckpoint('c', { bitmaps: [{ disk: 'vda', bitmap: 'b' }] }),
  ],
  [
    'transaction',
    'transaction',
    ({ store }) =>
      store.transaction([
        { type: 'bank', disk: 'vda', bitmap: 'b' },
        { type: 'create-checkpoint', checkpoint: 'c', bitmaps: [] },
        { type: 'begin-backup', disk: 'vda', bitmap: 'b', mode: 'copy', backup: 'x' },
      ]),
  ],
]

describeWithPeers(['qemu-io'], 'shell commands around a point', () => {
  test.each(POINTS)(
    'R8, R31: %s: what the freeze makes the guest write is before the point, what comes after the thaw behind it',
    async (_, command, point) => {
      const place = await given(({ socket, note }) => {
        const write = (offset: string) =>
          `qemu-io -f raw -c 'write ${offset} 512' 'nbd+unix:///vda?socket=${socket}' >/dev/null`
        const words = '$SLICELOG_DISK $SLICELOG_COMMAND $SLICELOG_NTH'
        return {
          freeze: `${note(`freeze ${words}`)}; test -f "$SLICELOG_FILE" && ${write('64k')}`,
          thaw: `${write('128k')} && ${note(`thaw ${words}`)}`,
        }
      })
      await place.disk.bitmap('b').setRetention(2)
      await point(place)
      expect(place.noted()).toEqual([`freeze vda ${command} 1`, `thaw vda ${command} 1`])
      const happened: string[] = []
      for await (const event of place.store.log()) {
        if (event.type === 'write') happened.push(`write ${Number(event.data.offset) / 1024}k`)
        else if (['backup-begun', 'slice-frozen', 'checkpoint-created'].includes(event.type))
          happened.push('point')
      }
      expect(happened.filter((what, i) => what !== happened[i - 1])).toEqual([
        'write 64k',
        'point',
        'write 128k',
      ])
      expect(place.told).toEqual([])
    },
  )
})

test('R14: a group freezes each disk once, one after another, and thaws back; checkpoints freeze every served disk', async () => {
  const calls: string[] = []
  const how =
    (what: string) =>
    async ({ disk, nth, command }: FreezePoint) =>
      void calls.push(`${what} ${disk} ${nth} ${command}`)
  const place = await given(() => ({ freeze: how('freeze'), thaw: how('thaw') }), true)
  const both = ['vda', 'vdb'].map((disk) => ({ disk, bitmap: 'b', mode: 'full' as const }))
  await place.store.beginBackups(both, { completion: 'grouped' })
  const around = (command: string) => [
    `freeze vda 1 ${command}`,
    `freeze vdb 2 ${command}`,
    `thaw vdb 2 ${command}`,
    `thaw vda 1 ${command}`,
  ]
  expect(calls.splice(0)).toEqual(around('transaction'))
  await place.store.createCheckpoint('c')
  expect(calls.splice(0)).toEqual(around('create-checkpoint'))
})

describe('refused', () => {
  const FAILING: readonly (readonly [string, Around['freeze'] & string, Record<string, unknown>])[] = [
    ['an exit code', 'echo "no agent" >&2; exit 3', { exit: 3, stderr: 'no agent' }],
    ['a word that is no command', 'frobnicate-the-guest', { exit: 127 }],
    ['bad syntax', 'eval if', { exit: 2 }],
    ['an end by a signal', 'kill -9 $$', { exit: null, signal: 'SIGKILL' }],
    ['a timeout', 'sleep 1000', { exit: null, timeoutMs: 300 }],
    [
      'a timeout of what ignores SIGTERM',
      "trap '' TERM; echo stuck >&2; while :; do sleep 1000; done",
      { stderr: 'stuck' },
    ],
  ]

  test.each(FAILING)(
    'R21: %s of the freeze: nothing is recorded, and the thaw is run',
    async (_, words, facts) => {
      const place = await given(({ note }) => ({
        freeze: `${note('freeze vda')}; ${words}`,
        thaw: note('thaw vda'),
        freezeTimeoutMs: 300,
      }))
      const error = await refused(
        place,
        () => place.disk.beginBackup({ bitmap: 'b', mode: 'full' }),
        'FREEZE_FAILED',
      )
      expect(error.facts).toMatchObject({
        disk: 'vda',
        point: 'begin-backup',
        ...facts,
        command: expect.stringContaining(words),
      })
      expect(place.noted()).toEqual(PAIR)
    },
  )

  test('a freeze that is ended takes everything along that it started, and only the end of what it said is kept', async () => {
    const place = await given(({ at }) => ({
      freeze: `sleep 1000 & echo $! > ${at}/pid; yes gibberish | head -c 100000 >&2; echo last >&2; wait`,
      thaw: 'true',
      freezeTimeoutMs: 1000,
    }))
    const { facts } = await refused(place, () => place.store.createCheckpoint('c'), 'FREEZE_FAILED')
    expect(String(facts.stderr)).toMatch(/gibberish\nlast$/)
    expect(Buffer.byteLength(String(facts.stderr))).toBeLessThanOrEqual(2048)
    const pid = readFileSync(join(place.at, 'pid'), 'utf8').trim()
    const state = existsSync(`/proc/${pid}/stat`)
      ? readFileSync(`/proc/${pid}/stat`, 'utf8').split(' ')[2]
      : 'gone'
    expect(['gone', 'Z']).toContain(state)
  })

  test('a function that throws, and one that ends too late: then it is thawed again, and no point is taken before that', async () => {
    const calls: string[] = []
    const late = held()
    let freeze: () => unknown = () => {
      throw new Error('no guest')
    }
    const place = await given(() => ({
      freeze: () => freeze(),
      thaw: () => void calls.push('thaw'),
      freezeTimeoutMs: 100,
    }))
    const checkpoint = () => place.store.createCheckpoint('c')
    expect((await refused(place, checkpoint, 'FREEZE_FAILED')).message).toContain('no guest')
    freeze = () => late.wait
    expect((await refused(place, checkpoint, 'FREEZE_FAILED')).facts).toMatchObject({ timeoutMs: 100 })
    freeze = () => undefined
    await refused(place, checkpoint, 'FREEZE_FAILED')
    expect(calls).toEqual(['thaw', 'thaw'])
    late.release()
    while (calls.length < 3) await sleep(5)
    await sleep(5)
    await checkpoint()
    expect(calls).toHaveLength(4)
  })

  test('a second disk that does not freeze: the first is thawed', async () => {
    const place = await given(
      ({ note }) => ({
        freeze: `${note('freeze $SLICELOG_DISK')}; test $SLICELOG_DISK = vda`,
        thaw: note('thaw $SLICELOG_DISK'),
      }),
      true,
    )
    await refused(place, () => place.store.createCheckpoint('c'), 'FREEZE_FAILED')
    expect(place.noted()).toEqual(['freeze vda', 'freeze vdb', 'thaw vdb', 'thaw vda'])
  })

  test('R8: a snapshot that fails between freeze and point', async () => {
    const place = await given(noting)
    const snapshot = () => {
      expect(place.noted()).toEqual(['freeze vda'])
      throw new Error('no room')
    }
    await refused(
      place,
      () => place.disk.beginBackup({ bitmap: 'b', mode: 'full', snapshot }),
      'SNAPSHOT_FAILED',
    )
    expect(place.noted()).toEqual(PAIR)
  })

  test('what comes to be refused while the guest freezes', async () => {
    const place = await given(({ note }) => ({
      freeze: async () => await place.disk.bitmap('b').remove(),
      thaw: note('thaw vda'),
    }))
    await expect(place.disk.beginBackup({ bitmap: 'b', mode: 'full' })).rejects.toMatchObject({
      code: 'BITMAP_NOT_FOUND',
    })
    expect(place.noted()).toEqual(['thaw vda'])
  })

  const FORESEEN: readonly (readonly [string, (place: Place) => Promise<unknown>, string])[] = [
    [
      'a bitmap that is not there',
      ({ disk }) => disk.beginBackup({ bitmap: 'none', mode: 'full' }),
      'BITMAP_NOT_FOUND',
    ],
    ['no retention', ({ disk }) => disk.bitmap('b').bank(), 'RETENTION_ZERO'],
    ['a checkpoint of a name that is empty', ({ store }) => store.createCheckpoint(''), 'NAME_EMPTY'],
    [
      'a base that nobody knows',
      ({ disk }) => disk.beginBackup({ bitmap: 'b', mode: 'incremental', since: { checkpoint: 'x' } }),
      'CHECKPOINT_NOT_FOUND',
    ],
    [
      'a transaction that aborts',
      ({ store }) =>
        store.transaction([{ type: 'create-checkpoint', checkpoint: 'c', bitmaps: [] }, { type: 'abort' }]),
      'TRANSACTION_ABORTED',
    ],
  ]

  test.each(FORESEEN)('R21: %s freezes nobody', async (_, act, code) => {
    const place = await given(noting)
    await refused(place, () => act(place), code)
    expect(place.noted()).toEqual([])
  })

  test('R33: a log that fails under the point thaws; afterwards nobody is frozen any more', async () => {
    const place = await given(noting)
    await place.store.createCheckpoint('good')
    expect(place.noted()).toEqual(PAIR)
    coreOf(place.store).log.append = () => Promise.reject(new Error('no space'))
    await expect(place.store.createCheckpoint('c')).rejects.toMatchObject({ code: 'OUTCOME_UNKNOWN' })
    await expect(place.store.createCheckpoint('d')).rejects.toMatchObject({ code: 'STORE_FAILED' })
    expect(place.noted()).toEqual([...PAIR, ...PAIR])
  })

  const OPTIONS: readonly (readonly [string, object])[] = [
    ['freeze alone', { freeze: 'true' }],
    ['thaw alone', { thaw: 'true' }],
    ['an empty command', { freeze: ' ', thaw: 'true' }],
    ['no command', { freeze: 7, thaw: 'true' }],
    ['no time', { freeze: 'true', thaw: 'true', freezeTimeoutMs: 0 }],
    ['half a millisecond', { freeze: 'true', thaw: 'true', freezeTimeoutMs: 0.5 }],
    ['more time than a timer has', { freeze: 'true', thaw: 'true', freezeTimeoutMs: 2 ** 31 }],
  ]

  test.each(OPTIONS)('TypeError: %s', async (_, options) => {
    const store = await openMemoryStore()
    const disks = [{ disk: 'vda', file: '/nowhere', ...options }]
    await expect(serveNbd(store, { disks, socket: '/nowhere.sock' })).rejects.toThrow(TypeError)
    await store.close()
  })
})

test('R13, R25: an answer from the log, plans and everything that is no point freeze nobody', async () => {
  const place = await given(noting)
  const { store, disk } = place
  const begin = (mode: 'full' | 'copy') =>
    disk.beginBackup({ bitmap: 'b', mode, id: 'one' }, { commandId: 'again' })
  const first = await begin('full')
  expect(place.noted()).toEqual(PAIR)
  expect((await begin('full')).plan.digest).toBe(first.plan.digest)
  await expect(begin('copy')).rejects.toMatchObject({ code: 'COMMAND_ID_REUSED' })
  await first.succeed()
  await disk.plan({ bitmap: 'b', mode: 'full' })
  await disk.addBitmap('c')
  for (const what of ['clear', 'disable', 'enable', 'remove'] as const) await disk.bitmap('c')[what]()
  await store.deleteCheckpoint('none').catch(() => undefined)
  await store.addDisk('elsewhere', { size: MiB })
  await store.disk('elsewhere').addBitmap('b')
  await store.disk('elsewhere').beginBackup({ bitmap: 'b', mode: 'full' })
  expect(place.noted()).toEqual(PAIR)
  await place.served.close()
  await store.createCheckpoint('nobody is served any more')
  expect(place.noted()).toEqual(PAIR)
})

test('points that overlap wait for each other: no thaw ever falls between the freeze and the point of another', async () => {
  const rounds = runs(30, 1000)
  const used = seed()
  announce('overlapping points with a guest that freezes', rounds, used)
  const random = prng(used)
  let frozen = 0
  const seen = { freezes: 0, thaws: 0, points: 0 }
  const wait = () => sleep(Math.floor(random() * 4))
  const place = await given(() => ({
    freeze: async () => {
      expect(frozen++).toBe(0)
      seen.freezes++
      await wait()
      if (random() < 0.2) throw new Error('not now')
    },
    thaw: async () => {
      await wait()
      seen.thaws++
      expect(--frozen).toBe(0)
    },
  }))
  const snapshot = () => {
    expect(frozen).toBe(1)
    seen.points++
  }
  const points = Array.from({ length: rounds }, async (_, i) => {
    await wait()
    const backup = await place.disk.beginBackup({ bitmap: 'b', mode: 'copy', id: `${i}`, snapshot })
    await backup.cancel()
  })
  const ended = await Promise.allSettled(points)
  const codes = new Set(ended.map((end) => (end.status === 'rejected' ? end.reason.code : 'done')))
  for (const code of codes) expect(['done', 'FREEZE_FAILED', 'BITMAP_BUSY']).toContain(code)
  expect(seen.thaws).toBe(seen.freezes)
  expect(seen.points).toBeGreaterThan(0)
})

test('a thaw that fails is told and tried again once, and the point stands', async () => {
  const place = await given(({ at }) => ({
    freeze: `rm -f ${at}/tried`,
    thaw: `test -e ${at}/tried || { touch ${at}/tried; echo stuck >&2; exit 5; }`,
  }))
  await place.store.createCheckpoint('c')
  expect(place.told).toMatchObject([
    { code: 'THAW_FAILED', facts: { disk: 'vda', attempt: 1, exit: 5, stderr: 'stuck' } },
  ])
  expect(place.store.checkpoints()).toHaveLength(1)
  const never = await given(() => ({ freeze: 'true', thaw: () => Promise.reject(new Error('gone')) }))
  await never.store.createCheckpoint('c')
  expect(never.told.map(({ code, facts }) => [code, facts.attempt])).toEqual([
    ['THAW_FAILED', 1],
    ['THAW_FAILED', 2],
  ])
  expect(never.store.checkpoints()).toHaveLength(1)
})

test.each(['store', 'served'] as const)(
  'close of the %s while a guest is frozen: the point comes to its end, and the thaw before the close does; one that waits behind it is refused',
  async (what) => {
    const freezing = held()
    const begun = held()
    const calls: string[] = []
    const place = await given(() => ({
      freeze: async () => {
        begun.release()
        await freezing.wait
      },
      thaw: async () => {
        await sleep(20)
        calls.push('thaw')
      },
    }))
    const point = place.store.createCheckpoint('c').then(() => calls.push('point'))
    await begun.wait
    const behind = place.store.createCheckpoint('behind')
    const told = expect(behind).rejects.toMatchObject({ code: 'FREEZE_FAILED' })
    const closed = place[what].close().then(() => calls.push('closed'))
    freezing.release()
    await Promise.all([point, told, closed])
    expect(calls).toEqual(['thaw', 'point', 'closed'])
    expect(place.store.checkpoints().map(({ name }) => name)).toEqual(['c'])
  },
)
