/** R10 to R20 at the store's own door: bases and what is refused, command ids, several at once, slices, transactions. */
import { describe, expect, test } from 'vitest'
import { openMemoryStore, type PointInput, type Store } from '../../src/index.ts'
import { FaultLog } from '../../src/log/fault.ts'
import { MemoryEventLog } from '../../src/log/memory-log.ts'
import { manualClock } from '../../src/testing/clock.ts'
import { again, KiB, refused, SIZE, small, T0, wrongType } from './support.ts'

const at = (granule: number) => [{ offset: granule * 4096, length: 1 }]
const granules = (plan: { extents: readonly { offset: number; length: number }[] }) =>
  plan.extents.flatMap(({ offset, length }) =>
    Array.from({ length: length / 4096 }, (_, i) => offset / 4096 + i),
  )

describe('R10: a backup is its caller’s until the caller ends it', () => {
  test('R10: it is found running after a kill and after a close, and can be ended there', async () => {
    const { disk, log } = await small()
    await disk.recordWrites(at(1))
    const { plan } = await disk.beginBackup({ bitmap: 'daily', mode: 'incremental', id: 'b' })
    await disk.recordWrites(at(2))
    const killed = await again(log)
    expect(killed.backup('b').info.state).toBe('running')
    expect(() => killed.backup('b').plan).toThrow(expect.objectContaining({ code: 'BACKUP_STATE' }))
    expect((await killed.backup('b').loadPlan()).digest).toBe(plan.digest)
    await killed.close()
    const next = await again(log)
    expect(await next.backup('b').succeed()).toMatchObject({ state: 'succeeded', slice: 0 })
    expect((await next.bits('vda', 'daily')).extents).toEqual([[8192, 4096]])
  })

  test('R10: what a process of ours was copying is interrupted at the next open, once; resumed or failed', async () => {
    const { disk, log } = await small()
    await disk.beginBackup({ bitmap: 'daily', mode: 'incremental', id: 'ours', copiedBy: 'store' })
    await disk.addBitmap('other')
    await disk.beginBackup({ bitmap: 'other', mode: 'full', id: 'theirs' })
    const next = await again(log)
    expect(next.backups().map(({ id, state }) => [id, state])).toEqual([
      ['ours', 'interrupted'],
      ['theirs', 'running'],
    ])
    await refused(next, 'BACKUP_STATE', () => next.backup('ours').succeed())
    await refused(next, 'BACKUP_STATE', () => next.backup('theirs').resume())
    await next.backup('ours').resume()
    const head = next.head.position
    const third = await again(log)
    expect(third.head.position).toBe(head + 1)
    await third.backup('ours').fail('gone')
    const fourth = await again(log)
    expect(fourth.head.position).toBe(third.head.position)
    await refused(fourth, 'BACKUP_ENDED', () => fourth.backup('ours').resume())
    await refused(fourth, 'BACKUP_ENDED', () => fourth.backup('ours').succeed())
    await refused(fourth, 'BACKUP_NOT_FOUND', () => fourth.backup('nobody').succeed())
  })

  test.each(['full', 'incremental', 'differential', 'copy'] as const)(
    'R10: a failed or cancelled %s leaves slices, counter and names as they were',
    async (mode) => {
      const { store, disk, bitmap } = await small()
      await disk.recordWrites(at(1))
      await bitmap.bank()
      await disk.recordWrites(at(2))
      const slices = await bitmap.slices()
      for (const end of ['fail', 'cancel'] as const) {
        const since = mode === 'incremental' || mode === 'differential' ? { since: 'active' as const } : {}
        const backup = await disk.beginBackup({ bitmap: 'daily', mode, ...since })
        await refused(store, 'BITMAP_BUSY', () => bitmap.bank())
        await disk.recordWrites(at(3))
        expect(await backup[end]('so')).toMatchObject({
          state: end === 'fail' ? 'failed' : 'cancelled',
          slice: null,
          droppedSlices: [],
        })
        await refused(store, 'BACKUP_ENDED', () => backup.succeed())
        await refused(store, 'BACKUP_EXISTS', () =>
          disk.beginBackup({ bitmap: 'daily', mode, id: backup.id, ...since }),
        )
        expect(await bitmap.slices()).toEqual(slices)
      }
      expect((await bitmap.bits()).extents).toEqual([[8192, 8192]])
    },
  )
})

describe('R11: a plan since any base covers every write after it', () => {
  async function storied() {
    const made = await small()
    const { store, disk, bitmap, clock } = made
    const marks: { name: string; since: PointInput; after: number }[] = []
    const mark = (name: string, since: PointInput, after: number) => marks.push({ name, since, after })
    await disk.recordWrites(at(1))
    mark('position', { position: store.head.position }, 2)
    await disk.recordWrites(at(2))
    await bitmap.bank()
    mark('slice', { slice: 1 }, 3)
    mark('slice by generation', { slice: 1, generation: bitmap.info.generation }, 3)
    await disk.recordWrites(at(3))
    await store.createCheckpoint('c', { bitmaps: [{ disk: 'vda', bitmap: 'daily' }] })
    mark('checkpoint', { checkpoint: 'c' }, 4)
    clock.advance(1000)
    mark('time', { time: T0 + 1000 }, 4)
    mark('time as text', { time: new Date(T0 + 1000).toISOString() }, 4)
    mark('date', { time: new Date(T0 + 1) }, 4)
    await disk.recordWrites(at(4))
    const backup = await disk.beginBackup({ bitmap: 'daily', mode: 'incremental', since: 'active', id: 'b' })
    mark('backup', { backup: 'b' }, 5)
    await disk.recordWrites(at(5))
    await backup.succeed()
    mark('bare checkpoint', { checkpoint: 'bare' }, 6)
    await store.createCheckpoint('bare')
    await disk.recordWrites(at(6))
    mark('now', 'now', 7)
    return { ...made, marks }
  }

  test('R11: since every kind of base, and since any position', async () => {
    const { store, disk, marks } = await storied()
    for (const { name, since, after } of marks) {
      const plan = await disk.plan({ bitmap: 'daily', mode: 'differential', since })
      expect([name, granules(plan)]).toEqual([name, [1, 2, 3, 4, 5, 6].filter((n) => n >= after)])
      expect(plan.complete).toBe(true)
    }
    expect(store.checkpoints().map(({ name }) => name)).toEqual(['c', 'bare'])
  })

  test('R11: incremental from a base later than α’s start only since a succeeded backup', async () => {
    const { store, disk } = await storied()
    const plan = (since: PointInput | 'active') =>
      store.plan({ disk: 'vda', bitmap: 'daily', mode: 'incremental', since, forceCycle: true })
    const error = await refused(store, 'BASE_TOO_LATE', () => plan('now'))
    expect(error.facts).toMatchObject({ disk: 'vda', bitmap: 'daily' })
    await refused(store, 'BASE_TOO_LATE', () => plan({ checkpoint: 'bare' }))
    await refused(store, 'BASE_TOO_LATE', () => plan({ position: store.head.position }))
    await refused(store, 'BASE_TOO_LATE', () => plan({ time: T0 + 10_000 }))
    const differential = await disk.beginBackup({
      bitmap: 'daily',
      mode: 'differential',
      since: 'now',
      id: 'd',
    })
    await refused(store, 'BITMAP_BUSY', () =>
      disk.beginBackup({ bitmap: 'daily', mode: 'incremental', since: { backup: 'd' } }),
    )
    await refused(store, 'BASE_TOO_LATE', () => plan({ backup: 'd' })) // Not succeeded yet.
    await differential.succeed()
    expect((await plan({ backup: 'd' })).complete).toBe(true)
  })

  test.each([
    ['a slice that never was', { slice: 9 }, 'SLICE_NOT_FOUND'],
    ['α’s own number', { slice: 3 }, 'SLICE_NOT_FOUND'],
    ['a slice of a generation that never was', { slice: 1, generation: 0 }, 'SLICE_NOT_FOUND'],
    ['an unknown backup', { backup: 'nobody' }, 'BACKUP_NOT_FOUND'],
    ['an unknown checkpoint', { checkpoint: 'nobody' }, 'CHECKPOINT_NOT_FOUND'],
    ['a position of the future', { position: 10_000 }, 'POINT_NOT_FOUND'],
    ['a negative position', { position: -1 }, 'POINT_INVALID'],
    ['half a position', { position: 0.5 }, 'POINT_INVALID'],
    ['no time', { time: 'yesterday' }, 'POINT_INVALID'],
    ['not a time', { time: Number.NaN }, 'POINT_INVALID'],
  ] as const)('R11: since %s is refused', async (_, since, code) => {
    const { store, disk } = await storied()
    for (const mode of ['incremental', 'differential'] as const) {
      await refused(store, code, () => disk.plan({ bitmap: 'daily', mode, since, forceCycle: true }))
      await refused(store, code, () => disk.beginBackup({ bitmap: 'daily', mode, since, forceCycle: true }))
    }
    await refused(store, 'SINCE_NOT_ALLOWED', () =>
      disk.plan({ bitmap: 'daily', mode: 'full', since: 'start' }),
    )
    await refused(store, 'SINCE_NOT_ALLOWED', () =>
      disk.plan({ bitmap: 'daily', mode: 'copy', since: 'active' }),
    )
    await wrongType(store, () => disk.plan({ bitmap: 'daily', mode: 'weekly' as 'full' }))
    await wrongType(store, () =>
      disk.plan({ bitmap: 'daily', mode: 'differential', since: 5 as unknown as PointInput }),
    )
    await wrongType(store, () =>
      disk.plan({ bitmap: 'daily', mode: 'differential', since: {} as PointInput }),
    )
  })

  test('R11: stretches without bits come from the log and are named; `active` says that they are missing', async () => {
    const { disk, bitmap } = await small()
    await disk.recordWrites(at(1))
    await bitmap.disable()
    await disk.recordWrites(at(2))
    await bitmap.enable()
    await disk.recordWrites(at(3))
    const plan = await disk.plan({ bitmap: 'daily', mode: 'incremental' })
    expect(granules(plan)).toEqual([1, 2, 3])
    expect(plan.merges).toContainEqual(expect.objectContaining({ kind: 'log', why: 'disabled' }))
    const active = await disk.plan({ bitmap: 'daily', mode: 'incremental', since: 'active' })
    expect([granules(active), active.complete]).toEqual([[1, 3], false])
    await bitmap.clear()
    await disk.recordWrites(at(4))
    const cleared = await disk.plan({ bitmap: 'daily', mode: 'differential', since: 'start' })
    expect(cleared.extents).toEqual([{ offset: 0, length: SIZE }]) // Older than the disk (R24).
    const position = bitmap.info.generation
    const since = await disk.plan({ bitmap: 'daily', mode: 'differential', since: { position } })
    expect(granules(since)).toEqual([1, 2, 3, 4])
    expect(since.merges).toContainEqual(expect.objectContaining({ kind: 'log', why: 'cleared' }))
    await disk.addBitmap('young', { granularity: 4 * KiB })
    const absent = await disk.plan({ bitmap: 'young', mode: 'differential', since: { position } })
    expect(granules(absent)).toEqual([1, 2, 3, 4])
    expect(absent.merges).toContainEqual(expect.objectContaining({ kind: 'log', why: 'absent' }))
  })

  test('R12: leaving `since` out is refused where α alone is no increment, and the refusal says what to give', async () => {
    const { store, disk, bitmap } = await small()
    const give = async () =>
      String(
        (
          await refused(store, 'SINCE_REQUIRED', () =>
            disk.beginBackup({ bitmap: 'daily', mode: 'incremental', forceCycle: true }),
          )
        ).facts.give,
      )
    await disk.recordWrites(at(1))
    await bitmap.bank()
    expect(await give()).toBe('slice:0')
    const first = await disk.beginBackup({
      bitmap: 'daily',
      mode: 'incremental',
      since: { slice: 0 },
      id: 'first',
    })
    expect(granules(first.plan)).toEqual([1])
    await first.succeed()
    await disk.recordWrites(at(2))
    expect(granules(await disk.plan({ bitmap: 'daily', mode: 'incremental' }))).toEqual([2])
    await bitmap.clear()
    expect(await give()).toBe('backup:first')
    expect(
      granules(await disk.plan({ bitmap: 'daily', mode: 'incremental', since: { backup: 'first' } })),
    ).toEqual([2])
    await store.createCheckpoint('c', { bitmaps: [{ disk: 'vda', bitmap: 'daily' }] })
    expect(await give()).toBe('backup:first')
  })
})

describe('R13: command ids', () => {
  const commands: [string, (store: Store, id: string, other: boolean) => Promise<unknown>][] = [
    [
      'add-disk',
      (store, commandId, other) =>
        store.addDisk(other ? 'vdx' : 'vdc', { size: SIZE }, { commandId }).then(({ id }) => id),
    ],
    ['resize', (store, commandId, other) => store.disk('vdb').resize(other ? SIZE : 2 * SIZE, { commandId })],
    ['detach', (store, commandId, other) => store.disk(other ? 'vdb' : 'vda').detach({ commandId })],
    [
      'declare-lost',
      (store, commandId, other) => store.disk('vda').declareLost(other ? 'other' : 'told', {}, { commandId }),
    ],
    [
      'window',
      (store, commandId, other) =>
        store
          .disk('vda')
          .recordWindow({ from: { position: 3 }, extents: [[other ? 512 : 0, 512]] }, { commandId }),
    ],
    [
      'add-bitmap',
      (store, commandId, other) =>
        store
          .disk('vda')
          .addBitmap('new', { retention: other ? 2 : 1 }, { commandId })
          .then(({ name }) => name),
    ],
    [
      'remove-bitmap',
      (store, commandId, other) =>
        store.transaction([{ type: 'remove-bitmap', disk: 'vda', bitmap: other ? 'daily' : 'spare' }], {
          commandId,
        }),
    ],
    [
      'clear',
      (store, commandId, other) =>
        store
          .disk('vda')
          .bitmap(other ? 'spare' : 'daily')
          .clear({ commandId }),
    ],
    [
      'enable what records',
      (store, commandId, other) =>
        store
          .disk('vda')
          .bitmap(other ? 'spare' : 'daily')
          .enable({ commandId }),
    ],
    [
      'disable',
      (store, commandId, other) =>
        store
          .disk('vda')
          .bitmap(other ? 'spare' : 'daily')
          .disable({ commandId }),
    ],
    [
      'merge',
      (store, commandId, other) =>
        store
          .disk('vda')
          .bitmap('daily')
          .merge(other ? [] : [{ bitmap: 'spare' }], { commandId }),
    ],
    [
      'retention',
      (store, commandId, other) =>
        store
          .disk('vda')
          .bitmap('daily')
          .setRetention(other ? 2 : 0, { commandId, forceCycle: true }),
    ],
    [
      'bank',
      (store, commandId, other) => store.disk('vda').bitmap('daily').bank({ commandId, forceCycle: !other }),
    ],
    [
      'delete-slice',
      (store, commandId, other) =>
        store
          .disk('vda')
          .bitmap('daily')
          .deleteSlice(other ? 0 : 1, { commandId }),
    ],
    [
      'checkpoint',
      (store, commandId, other) =>
        store.createCheckpoint(
          other ? 'other' : 'new',
          { bitmaps: [{ disk: 'vda', bitmap: 'daily' }], forceCycle: true },
          { commandId },
        ),
    ],
    [
      'delete-checkpoint',
      (store, commandId, other) => store.deleteCheckpoint(other ? 'none' : 'c', { commandId }),
    ],
    [
      'begin',
      (store, commandId, other) =>
        store
          .disk('vda')
          .beginBackup(
            { bitmap: 'daily', mode: 'differential', since: other ? 'active' : { slice: 0 } },
            { commandId },
          )
          .then(({ id, plan }) => ({ id, plan })),
    ],
    [
      'begin with an id',
      (store, commandId, other) =>
        store
          .disk('vda')
          .beginBackup({ bitmap: 'daily', mode: 'full', id: other ? 'c' : 'b' }, { commandId })
          .then(({ id, plan }) => ({ id, plan })),
    ],
    [
      'a grouped begin',
      (store, commandId, other) =>
        store
          .beginBackups(
            ['daily', 'spare'].map((bitmap) => ({
              disk: 'vda',
              bitmap,
              mode: 'copy' as const,
              id: `id-${bitmap}`,
            })),
            { commandId, completion: other ? 'individual' : 'grouped' },
          )
          .then((all) => all.map(({ id, plan }) => ({ id, plan }))),
    ],
    [
      'succeed',
      async (store, commandId, other) => store.backup(other ? 'none' : 'running').succeed({ commandId }),
    ],
    [
      'fail',
      (store, commandId, other) => store.backup('running').fail(other ? 'other' : 'so', { commandId }),
    ],
    [
      'cancel',
      (store, commandId, other) => store.backup('running').cancel(other ? 'other' : 'so', { commandId }),
    ],
    [
      'a transaction',
      (store, commandId, other) =>
        store.transaction(
          [
            { type: 'bank', disk: 'vda', bitmap: 'daily', forceCycle: true },
            { type: 'clear-bitmap', disk: 'vda', bitmap: other ? 'spare' : 'daily' },
          ],
          { commandId },
        ),
    ],
    [
      'an empty transaction',
      (store, commandId, other) =>
        store.transaction(other ? [{ type: 'clear-bitmap', disk: 'vda', bitmap: 'daily' }] : [], {
          commandId,
        }),
    ],
    ['remove-disk', (store, commandId, other) => store.removeDisk(other ? 'vda' : 'vdb', { commandId })],
  ]

  async function prepared(log: MemoryEventLog): Promise<Store> {
    const { store, disk, bitmap } = await small({ log })
    await store.addDisk('vdb', { size: SIZE })
    await disk.addBitmap('spare')
    await disk.addBitmap('held', { retention: 1 })
    for (const n of [1, 2]) {
      await disk.recordWrites(at(n))
      await bitmap.bank()
    }
    await store.createCheckpoint('c', { bitmaps: [{ disk: 'vda', bitmap: 'daily' }] })
    await disk.recordWrites(at(3))
    await disk.beginBackup({ bitmap: 'held', mode: 'incremental', id: 'running' })
    return store
  }

  test.each(commands)(
    'R13: %s again under its id gives the first answer, also after more happened and across opens; other arguments are refused',
    async (_, run) => {
      const log = new MemoryEventLog()
      const store = await prepared(log)
      const answer = JSON.stringify(await run(store, 'the-id', false)) ?? 'nothing'
      const recall = async (later: Store) => {
        const { hash } = later.head
        expect(JSON.stringify(await run(later, 'the-id', false)) ?? 'nothing').toBe(answer)
        const other = await run(later, 'the-id', true).catch((error: unknown) => error)
        // A handle that does not exist is refused before the id is looked at.
        expect(['COMMAND_ID_REUSED', 'BACKUP_NOT_FOUND', 'DISK_NOT_FOUND']).toContain(
          (other as { code: string }).code,
        )
        expect(later.head.hash).toBe(hash)
      }
      await recall(store)
      await store.createCheckpoint('meanwhile')
      await recall(store)
      await recall(await again(log))
      await store.close()
    },
  )

  test('R13: a first answer stays, though what it told of is gone', async () => {
    const { store, disk, log } = await small()
    const made = await store.createCheckpoint(
      'c',
      { bitmaps: [{ disk: 'vda', bitmap: 'daily' }] },
      { commandId: 'make' },
    )
    await store.deleteCheckpoint('c')
    expect(
      await store.createCheckpoint(
        'c',
        { bitmaps: [{ disk: 'vda', bitmap: 'daily' }] },
        { commandId: 'make' },
      ),
    ).toEqual(made)
    await disk.addBitmap('x', {}, { commandId: 'x' })
    await disk.bitmap('x').remove()
    expect((await disk.addBitmap('x', {}, { commandId: 'x' })).name).toBe('x')
    await refused(store, 'BITMAP_NOT_FOUND', () => disk.bitmap('x').info)
    const next = await again(log)
    expect(
      await next.createCheckpoint(
        'c',
        { bitmaps: [{ disk: 'vda', bitmap: 'daily' }] },
        { commandId: 'make' },
      ),
    ).toEqual(made)
  })

  test('R13: ensureDisk and ensureBitmap take the same id on every start', async () => {
    const log = new MemoryEventLog()
    for (let start = 0; start < 3; start++) {
      const store = await again(log)
      const disk = await store.ensureDisk('vda', { size: SIZE }, { commandId: 'disk' })
      await disk.ensureBitmap('daily', { retention: 2 }, { commandId: 'bitmap' })
      expect(disk.info.attached).toBe(true)
      await store.close()
    }
  })

  test('R13: a refused command may use its id again', async () => {
    const { store, bitmap } = await small()
    await bitmap.setRetention(0)
    await refused(store, 'RETENTION_ZERO', () => bitmap.bank({ commandId: 'id' }))
    await bitmap.setRetention(1)
    expect(await bitmap.bank({ commandId: 'id' })).toMatchObject({ slice: 0 })
  })

  test.each([
    ['empty', '', 'NAME_EMPTY'],
    ['too long', 'x'.repeat(1024), 'NAME_TOO_LONG'],
    ['half a character', '\ud800', 'NAME_INVALID'],
  ] as const)('R13: an id that is %s is refused', async (_, commandId, code) => {
    const { store, bitmap, disk } = await small()
    await refused(store, code, () => bitmap.clear({ commandId }))
    await refused(store, code, () => bitmap.clear({ actor: commandId }))
    await refused(store, code, () => disk.beginBackup({ bitmap: 'daily', mode: 'full', id: commandId }))
    await refused(store, code, () => store.createCheckpoint(commandId))
    await refused(store, code, () => disk.addBitmap(commandId))
    await refused(store, code, () => store.addDisk(commandId, { size: 1 }))
    await wrongType(store, () => bitmap.clear({ commandId: 5 as unknown as string }))
  })

  test.each([
    ['was not written', 'fail', false],
    ['was written all the same', 'fail-after', true],
  ] as const)(
    'R13, R33: a command whose log write failed is OUTCOME_UNKNOWN, and its id tells after opening again, when it %s',
    async (_, kind, written) => {
      const inner = new MemoryEventLog()
      const store = await openMemoryStore({
        clock: manualClock(T0),
        log: new FaultLog(inner, { kind, at: 4, cause: new Error('ENOSPC') }),
      })
      const disk = await store.ensureDisk('vda', { size: SIZE })
      const bitmap = await disk.ensureBitmap('daily', { retention: 2 })
      await disk.recordWrites(at(1))
      const before = await store.bits('vda', 'daily')
      const error = await bitmap.bank({ commandId: 'bank' }).catch((caught: unknown) => caught)
      expect(error).toMatchObject({
        code: 'OUTCOME_UNKNOWN',
        cause: expect.objectContaining({ message: expect.any(String) }),
      })
      expect(await store.bits('vda', 'daily')).toEqual(before)
      for (const act of [
        () => bitmap.bank({ commandId: 'bank' }),
        () => disk.recordWrites(at(2)),
        () => bitmap.clear(),
        () => disk.recordWrites(at(1), () => undefined),
      ]) {
        expect(await act().catch((caught: unknown) => caught)).toMatchObject({ code: 'STORE_FAILED' })
      }
      await store.close()
      const next = await again(inner)
      expect((await next.slices('vda', 'daily')).slices).toHaveLength(written ? 1 : 0)
      expect(await next.disk('vda').bitmap('daily').bank({ commandId: 'bank' })).toMatchObject({ slice: 0 })
      expect((await next.slices('vda', 'daily')).slices).toHaveLength(1)
    },
  )
})

describe('R14: several at once', () => {
  test('R14: independent backups over several bitmaps of one disk', async () => {
    const { disk, bitmap } = await small()
    const weekly = await disk.addBitmap('weekly', { granularity: 4 * KiB, retention: 2 })
    await disk.recordWrites(at(1))
    const a = await disk.beginBackup({ bitmap: 'daily', mode: 'incremental' })
    await disk.recordWrites(at(2))
    const b = await disk.beginBackup({ bitmap: 'weekly', mode: 'incremental' })
    await disk.recordWrites(at(3))
    await a.succeed()
    await b.fail('so')
    expect((await bitmap.bits()).extents).toEqual([[8192, 8192]])
    expect((await weekly.bits()).extents).toEqual([[4096, 12288]])
    expect([granules(a.plan), granules(b.plan)]).toEqual([[1], [1, 2]])
  })

  test('R14: a grouped begin is one record and one point; all succeed together, or none', async () => {
    const { store, disk, bitmap } = await small()
    await disk.addBitmap('weekly', { granularity: 4 * KiB, retention: 2 })
    const begin = () =>
      store.beginBackups(
        ['daily', 'weekly'].map((name) => ({
          disk: 'vda',
          bitmap: name,
          mode: 'incremental' as const,
          since: 'active' as const,
        })),
        { completion: 'grouped' },
      )
    const [a, b] = (await begin()) as [
      Awaited<ReturnType<typeof disk.beginBackup>>,
      Awaited<ReturnType<typeof disk.beginBackup>>,
    ]
    expect(a.info.point).toEqual(b.info.point)
    expect(a.plan.point).toEqual(a.info.point)
    expect(await a.succeed()).toMatchObject({ state: 'pending', slice: null })
    await refused(store, 'BACKUP_STATE', () => a.succeed())
    await refused(store, 'BITMAP_BUSY', () => bitmap.clear())
    expect(await b.succeed()).toMatchObject({ state: 'succeeded', slice: 0 })
    expect(a.info).toMatchObject({ state: 'succeeded' })
    const [c, d] = (await begin()) as [typeof a, typeof b]
    await c.succeed()
    await d.fail('disk full')
    expect([c.info.state, d.info.state]).toEqual(['failed', 'failed'])
    expect((await bitmap.slices()).slices).toHaveLength(1)
    expect((await begin()).length).toBe(2)
  })

  test('R14, R21: one illegal member refuses all of them', async () => {
    const { store, disk } = await small()
    const good = { disk: 'vda', bitmap: 'daily', mode: 'full' as const }
    for (const completion of ['individual', 'grouped'] as const) {
      await refused(store, 'BITMAP_NOT_FOUND', () =>
        store.beginBackups([good, { ...good, bitmap: 'none' }], { completion }),
      )
      await refused(store, 'DISK_NOT_FOUND', () =>
        store.beginBackups([good, { ...good, disk: 'none' }], { completion }),
      )
      await refused(store, 'BITMAP_BUSY', () => store.beginBackups([good, good], { completion }))
    }
    expect(await store.beginBackups([])).toEqual([])
    expect(disk.bitmaps().every(({ busy }) => !busy)).toBe(true)
  })
})

describe('R15 to R19: slices and checkpoints', () => {
  test('R15, R17: room, and the lack of it', async () => {
    const { store, disk, bitmap } = await small()
    for (let i = 0; i < 3; i++) await bitmap.bank()
    const facts = { disk: 'vda', bitmap: 'daily', retention: 3, slices: [0] }
    expect((await refused(store, 'RETENTION_FULL', () => bitmap.bank())).facts).toMatchObject(facts)
    expect(
      (
        await refused(store, 'RETENTION_FULL', () =>
          disk.beginBackup({ bitmap: 'daily', mode: 'incremental', since: 'active' }),
        )
      ).facts,
    ).toMatchObject(facts)
    await refused(store, 'RETENTION_FULL', () =>
      disk.plan({ bitmap: 'daily', mode: 'incremental', since: 'active' }),
    )
    await refused(store, 'RETENTION_FULL', () =>
      store.createCheckpoint('c', { bitmaps: [{ disk: 'vda', bitmap: 'daily' }] }),
    )
    expect((await refused(store, 'RETENTION_FULL', () => bitmap.setRetention(1))).facts).toMatchObject({
      slices: [0, 1],
    })
    for (const bad of [-1, 0.5, Number.NaN, 65_536, 2 ** 53])
      await refused(store, 'RETENTION_INVALID', () => bitmap.setRetention(bad))
    await refused(store, 'RETENTION_INVALID', () => disk.addBitmap('x', { retention: -1 }))
    const backup = await disk.beginBackup({
      bitmap: 'daily',
      mode: 'incremental',
      since: 'active',
      forceCycle: true,
    })
    await backup.fail('so')
    expect((await bitmap.slices()).slices.map(({ slice }) => slice)).toEqual([0, 1, 2]) // Drops only when it succeeds.
    expect(
      (
        await (
          await disk.beginBackup({ bitmap: 'daily', mode: 'incremental', since: 'active', forceCycle: true })
        ).succeed()
      ).droppedSlices,
    ).toEqual([{ daily: 0 }])
    expect(await bitmap.setRetention(0, { forceCycle: true })).toEqual({
      droppedSlices: [{ daily: 1 }, { daily: 2 }, { daily: 3 }],
    })
    await refused(store, 'RETENTION_ZERO', () => bitmap.bank())
    await refused(store, 'RETENTION_ZERO', () => bitmap.bank({ forceCycle: true }))
    await refused(store, 'RETENTION_ZERO', () =>
      store.createCheckpoint('c', { bitmaps: [{ disk: 'vda', bitmap: 'daily' }], forceCycle: true }),
    )
  })

  test('R18: four refusals for a slice that is not there', async () => {
    const { store, disk, bitmap } = await small()
    const { generation } = bitmap.info
    await bitmap.setRetention(4)
    for (let i = 0; i < 4; i++) await bitmap.bank()
    await bitmap.deleteSlice(2)
    const merged = store.head.position
    await bitmap.deleteSlice(0)
    const dropped = store.head.position
    const asked: ((slice: number, generation?: number) => () => Promise<unknown>)[] = [
      (slice, g) => () => bitmap.bits({ slice, ...(g === undefined ? {} : { generation: g }) }),
      (slice, g) => () => bitmap.deleteSlice(slice, g === undefined ? {} : { generation: g }),
      (slice, g) => () =>
        disk.plan({
          bitmap: 'daily',
          mode: 'differential',
          since: { slice, ...(g === undefined ? {} : { generation: g }) },
        }),
    ]
    for (const ask of asked) {
      expect((await refused(store, 'SLICE_MERGED', ask(2))).facts).toMatchObject({
        into: 1,
        position: merged,
        generation,
      })
      expect((await refused(store, 'SLICE_DROPPED', ask(0, generation))).facts).toMatchObject({
        position: dropped,
      })
      await refused(store, 'SLICE_NOT_FOUND', ask(99))
      await refused(store, 'SLICE_NOT_FOUND', ask(4)) // α's own number: no slice yet.
      await refused(store, 'SLICE_NOT_FOUND', ask(-1))
      await refused(store, 'SLICE_NOT_FOUND', ask(0.5))
    }
    await (await disk.beginBackup({ bitmap: 'daily', mode: 'full' })).succeed()
    for (const ask of asked) {
      await refused(store, 'SLICE_OLD_GENERATION', ask(1, generation))
      await refused(store, 'SLICE_NOT_FOUND', ask(1))
    }
    expect(await bitmap.slices()).toEqual({ generation: store.head.position, next: 0, slices: [] })
  })

  test('R19: deleting a checkpoint lists what was merged, kept and gone', async () => {
    const { store, disk, bitmap } = await small()
    await disk.addBitmap('weekly', { granularity: 4 * KiB, retention: 2 })
    const both = [
      { disk: 'vda', bitmap: 'daily' },
      { disk: 'vda', bitmap: 'weekly' },
    ]
    await store.transaction([
      { type: 'create-checkpoint', checkpoint: 'a', bitmaps: both },
      { type: 'create-checkpoint', checkpoint: 'named too', bitmaps: [] },
    ])
    await refused(store, 'CHECKPOINT_EXISTS', () => store.createCheckpoint('a'))
    await refused(store, 'CHECKPOINT_NOT_FOUND', () => store.deleteCheckpoint('nobody'))
    await disk.bitmap('weekly').remove()
    await disk.recordWrites(at(1))
    await bitmap.bank()
    const backup = await disk.beginBackup({ bitmap: 'daily', mode: 'copy' })
    await refused(store, 'BITMAP_BUSY', () => store.deleteCheckpoint('a'))
    await backup.cancel()
    const deleted = await store.deleteCheckpoint('a')
    expect(deleted).toMatchObject({
      checkpoint: 'a',
      merged: [{ bitmap: 'daily', slice: 1, into: 0 }],
      kept: [],
      gone: [{ bitmap: 'weekly' }],
    })
    await store.createCheckpoint('z', { bitmaps: [{ disk: 'vda', bitmap: 'daily' }] })
    expect((await store.deleteCheckpoint('z')).merged).toEqual([
      expect.objectContaining({ slice: 3, into: 2 }),
    ])
    expect(bitmap.info.next).toBe(2) // The newest slice is α again, under its old number …
    await bitmap.bank()
    expect(bitmap.info.next).toBe(4) // … and the deleted number is never given again.
  })
})

describe('R20: transactions', () => {
  test('R20: a begin after a clear in the same transaction sees what the clear left', async () => {
    const { store, disk, bitmap } = await small()
    await disk.recordWrites(at(1))
    const [, begun] = await store.transaction([
      { type: 'clear-bitmap', disk: 'vda', bitmap: 'daily' },
      {
        type: 'begin-backup',
        disk: 'vda',
        bitmap: 'daily',
        mode: 'incremental',
        since: 'active',
        backup: 'b',
      },
    ])
    expect(begun).toMatchObject({ kind: 'begun', bytes: 0 })
    expect((await store.replayPlan('b')).extents).toEqual([])
    expect((await bitmap.bits()).count).toBe(0)
    await store.backup('b').cancel()
    await store.transaction([
      { type: 'add-bitmap', disk: 'vda', bitmap: 'new', granularity: 4 * KiB, retention: 1 },
      { type: 'merge-bitmaps', disk: 'vda', bitmap: 'daily', sources: [{ disk: 'vda', bitmap: 'new' }] },
      { type: 'bank', disk: 'vda', bitmap: 'new' },
      {
        type: 'begin-backup',
        disk: 'vda',
        bitmap: 'new',
        mode: 'differential',
        since: { position: bitmap.info.generation },
        backup: 'c',
      },
    ])
    expect(granules(await store.replayPlan('c'))).toEqual([1])
    expect((await store.replayPlan('c')).digest).toBe(store.backup('c').info.digest)
  })

  test('R20: a point inside a record means its end', async () => {
    const { store } = await small()
    const head = store.head.position
    await store.transaction(['a', 'b', 'c'].map((bitmap) => ({ type: 'add-bitmap', disk: 'vda', bitmap })))
    expect((await store.at({ position: head + 1 })).bitmaps('vda')).toHaveLength(4)
    expect(await store.resolvePoint({ position: head + 1 }, 'since')).toMatchObject({ position: head + 3 })
  })

  test('R20, R21: a removed bitmap is busy and its name taken until the end; one refusal undoes all', async () => {
    const { store } = await small()
    const remove = { type: 'remove-bitmap', disk: 'vda', bitmap: 'daily' } as const
    const add = { type: 'add-bitmap', disk: 'vda', bitmap: 'daily' } as const
    const index = async (
      code: Parameters<typeof refused>[1],
      commands: Parameters<Store['transaction']>[0],
    ) => (await refused(store, code, () => store.transaction(commands))).facts.index
    expect(await index('BITMAP_EXISTS', [remove, add])).toBe(1)
    expect(await index('BITMAP_BUSY', [remove, remove])).toBe(1)
    expect(await index('BITMAP_BUSY', [remove, { type: 'clear-bitmap', disk: 'vda', bitmap: 'daily' }])).toBe(
      1,
    )
    expect(await index('BITMAP_BUSY', [remove, { type: 'resize-disk', disk: 'vda', size: 512 }])).toBe(1)
    expect(await index('DISK_BUSY', [remove, { type: 'remove-disk', disk: 'vda' }])).toBe(1)
    expect(
      await index('TRANSACTION_ABORTED', [
        { type: 'clear-bitmap', disk: 'vda', bitmap: 'daily' },
        { type: 'abort' },
      ]),
    ).toBe(1)
    expect(
      await index('BITMAP_NOT_FOUND', [
        { ...add, bitmap: 'x' },
        { type: 'bank', disk: 'vda', bitmap: 'y' },
      ]),
    ).toBe(1)
    await refused(store, 'SNAPSHOT_FAILED', () =>
      store.beginBackups([
        { disk: 'vda', bitmap: 'daily', mode: 'full', snapshot: () => Promise.reject(new Error('x')) },
      ]),
    )
    await wrongType(store, () => store.transaction([{ type: 'format' } as never]))
    await wrongType(store, () => store.transaction(Array.from({ length: 10_001 }, () => remove)))
    expect(await store.transaction([])).toEqual([])
    await store.transaction([remove])
    expect(store.bitmaps('vda')).toEqual([])
  })
})
