/** What an unclean end leaves unknown is told wherever a point of the disk is taken, not at its next attach alone (R32, R35). */
import { expect, test } from 'vitest'
import { type DiskInfo, openMemoryStore, type Store, type StoreCommand } from '../../src/index.ts'
import { MemoryEventLog } from '../../src/log/memory-log.ts'
import { playIncident, recordIncident } from '../../src/testing/index.ts'

const MiB = 1024 * 1024
const SIZE = 4 * MiB
const granule = 65_536

/** A store whose process went away: one write, one succeeded backup, one more write. */
async function killed() {
  const log = new MemoryEventLog()
  const store = await openMemoryStore({ log })
  const disk = await store.ensureDisk('d', { size: SIZE, quiet: true })
  await disk.ensureBitmap('b', { retention: 4 })
  await (await disk.beginBackup({ bitmap: 'b', mode: 'incremental', id: 'first' })).succeed()
  const { first } = await disk.recordWrites([{ offset: 0, length: 512 }])
  return { log, last: first }
}

/** Where the told stretches begin, and where the last one ends: each goes on where the one before ended, or this throws. */
function unknown({ lost }: DiskInfo): number[] {
  const told = lost.filter(({ reason }) => reason.includes('unclean'))
  const ends = told.map(({ to }) => to.position)
  expect(told.slice(1).map(({ from }) => from.position)).toEqual(ends.slice(0, -1))
  return [...told.map(({ from }) => from.position), ...ends.slice(-1)]
}

const reopened = (log: MemoryEventLog) => openMemoryStore({ log: new MemoryEventLog(log.storage) })

test('R32, R35: a backup begun before the first attach after an unclean end covers the whole disk and says why', async () => {
  const { log, last } = await killed()
  const store = await reopened(log)
  const disk = store.disk('d')
  const dry = await disk.plan({ bitmap: 'b', mode: 'incremental' })
  const backup = await disk.beginBackup({ bitmap: 'b', mode: 'incremental', id: 'second' })
  expect(backup.plan.bytes).toBe(SIZE)
  expect(backup.plan.reason).toContain('unclean end')
  expect({ bytes: dry.bytes, digest: dry.digest }).toEqual({
    bytes: backup.plan.bytes,
    digest: backup.plan.digest,
  })
  expect(disk.info.lost).toEqual([
    {
      from: expect.objectContaining({ position: last }) as unknown,
      to: backup.plan.point,
      reason: expect.stringContaining('unclean') as unknown,
    },
  ])
  expect((await store.replayPlan('second')).digest).toBe(backup.plan.digest)
  await store.close()
})

test('R32: what lies between such a backup, its end and the attach is told by each, from where the one before left off', async () => {
  const { log, last } = await killed()
  const store = await reopened(log)
  const backup = await store.disk('d').beginBackup({ bitmap: 'b', mode: 'incremental', id: 'second' })
  await backup.succeed()
  const disk = await store.ensureDisk('d', { size: SIZE })
  expect(unknown(disk.info)).toEqual([
    last,
    backup.info.point.position,
    expect.any(Number),
    store.head.position,
  ])
  expect((await disk.plan({ bitmap: 'b', mode: 'incremental' })).bytes).toBe(SIZE)
  await store.close()
})

test('R35: a slice banked before the attach carries the stretch, and so does one of a checkpoint', async () => {
  for (const how of ['bank', 'checkpoint'] as const) {
    const { log } = await killed()
    const store = await reopened(log)
    const bitmap = store.disk('d').bitmap('b')
    if (how === 'bank') await bitmap.bank()
    else await store.createCheckpoint('c', { bitmaps: [{ disk: 'd', bitmap: 'b' }] })
    const { slices } = await bitmap.slices()
    expect(slices.at(-1)?.lost, how).toHaveLength(1)
    await store.close()
  }
})

test('R32: before it is told, `changed` up to now says that it is not complete; up to the end it is', async () => {
  const { log, last } = await killed()
  const store = await reopened(log)
  const before = store.head
  const open = await store.disk('d').changed({ since: { backup: 'first' } })
  expect(open).toMatchObject({ complete: false, bytes: SIZE })
  const closed = await store.disk('d').changed({ since: { backup: 'first' }, until: { position: last } })
  expect(closed).toMatchObject({ complete: true, bytes: granule })
  expect(store.head).toEqual(before)
  await store.close()
})

test('R35: nor is `changed` up to an event of after the end, whose span reaches into what nobody told yet', async () => {
  const { log, last } = await killed()
  const store = await reopened(log)
  await store.disk('d').addBitmap('c')
  const span = { since: { backup: 'first' }, until: { position: store.head.position } }
  expect(store.head.position).toBeGreaterThan(last)
  const untold = await store.disk('d').changed(span)
  expect(untold).toMatchObject({ complete: false, bytes: SIZE, lost: [{ from: { position: last } }] })
  await store.ensureDisk('d', { size: SIZE })
  const told = await store.disk('d').changed(span)
  expect({ digest: told.digest, complete: told.complete }).toEqual({ digest: untold.digest, complete: false })
  await store.close()
})

test('R13: the first answer of such a begin, bank, checkpoint and detach comes again from the log', async () => {
  const { log } = await killed()
  const store = await reopened(log)
  const disk = store.disk('d')
  const bank = await disk.bitmap('b').bank({ commandId: 'bank' })
  const begin = () =>
    disk.beginBackup(
      { bitmap: 'b', mode: 'incremental', id: 'second', since: 'active' },
      { commandId: 'begin' },
    )
  const begun = await begin()
  const first = { digest: begun.plan.digest, bytes: begun.plan.bytes }
  const again = await begin()
  expect({ digest: again.plan.digest, bytes: again.plan.bytes }).toEqual(first)
  expect(await disk.bitmap('b').bank({ commandId: 'bank' })).toEqual(bank)
  await store.close()
})

test('R20, R32: two begins and an attach in one transaction tell the stretch once', async () => {
  const { log, last } = await killed()
  const store = await reopened(log)
  await store.disk('d').addBitmap('c')
  const added = store.head.position
  await store.transaction([
    {
      type: 'begin-backup',
      backup: 'x',
      disk: 'd',
      bitmap: 'b',
      mode: 'differential',
      since: { backup: 'first' },
    },
    { type: 'begin-backup', backup: 'y', disk: 'd', bitmap: 'c', mode: 'differential' },
    { type: 'attach-disk', disk: 'd', recorder: 'caller', quiet: false },
  ])
  expect(unknown(store.disk('d').info)).toEqual([last, added, store.head.position])
  expect(store.backup('x').info.bytes).toBe(SIZE)
  await store.close()
})

test('R32: a caller that attaches first and says that it was quiet loses nothing', async () => {
  const { log } = await killed()
  const store = await reopened(log)
  const disk = await store.ensureDisk('d', { size: SIZE, quiet: true })
  const backup = await disk.beginBackup({ bitmap: 'b', mode: 'incremental' })
  expect(backup.plan.extents).toEqual([{ offset: 0, length: granule }])
  expect(disk.info.lost).toEqual([])
  await store.close()
})

interface Case {
  readonly command: StoreCommand
  /** What the process did before its end, ahead of its last write. */
  readonly before?: readonly StoreCommand[]
  /** Whether it touches the disk at all. */
  readonly touches?: false
}

const b = { disk: 'd', bitmap: 'b' } as const
const c = { disk: 'd', bitmap: 'c' } as const
const begins = (mode: 'incremental' | 'differential' | 'full', bitmap = 'b'): StoreCommand => ({
  type: 'begin-backup',
  backup: `on-${bitmap}`,
  disk: 'd',
  bitmap,
  mode,
  since: mode === 'full' ? undefined : 'active',
})
const grouped = (...bitmaps: string[]) =>
  bitmaps.map((bitmap) => ({ ...begins('differential', bitmap), group: 'g' }) as StoreCommand)
const ends = (how: 'succeed' | 'fail' | 'cancel' | 'interrupt' | 'resume', of = 'on-b') =>
  ({ type: `${how}-backup`, backup: of, reason: 'so' }) as StoreCommand

const CASES: readonly Case[] = [
  { command: { type: 'resize-disk', disk: 'd', size: SIZE + MiB } },
  { command: { type: 'declare-lost', disk: 'd', from: null, reason: 'a cable' } },
  { command: { type: 'declare-lost', disk: 'd', from: { position: 1, time: null }, reason: 'a cable' } },
  {
    command: {
      type: 'record-window',
      disk: 'd',
      from: { position: 3, time: null },
      writes: 1,
      extents: [[0, 512]],
    },
  },
  { command: { type: 'add-bitmap', disk: 'd', bitmap: 'new' } },
  { command: { type: 'remove-bitmap', ...b } },
  { command: { type: 'clear-bitmap', ...b } },
  { command: { type: 'disable-bitmap', ...b } },
  { command: { type: 'enable-bitmap', ...b }, before: [{ type: 'disable-bitmap', ...b }] },
  { command: { type: 'enable-bitmap', ...b }, touches: false },
  { command: { type: 'merge-bitmaps', ...b, sources: [c] } },
  { command: { type: 'merge-bitmaps', disk: 'e', bitmap: 'x', sources: [b] }, touches: false },
  { command: { type: 'set-retention', ...b, retention: 1, forceCycle: true } },
  { command: { type: 'set-retention', ...b, retention: 4 }, touches: false },
  { command: { type: 'bank', ...b } },
  { command: { type: 'delete-slice', ...b, slice: 1 } },
  { command: { type: 'delete-slice', ...b, slice: 0 } },
  { command: begins('incremental') },
  { command: begins('full') },
  { command: ends('succeed'), before: [begins('incremental')] },
  { command: ends('succeed'), before: [begins('differential')] },
  { command: ends('succeed'), before: [begins('full')] },
  { command: ends('succeed'), before: grouped('b', 'c') },
  { command: ends('succeed', 'on-c'), before: [...grouped('b', 'c'), ends('succeed')] },
  { command: ends('fail'), before: [begins('incremental')] },
  { command: ends('fail', 'on-c'), before: grouped('b', 'c') },
  { command: ends('cancel'), before: [begins('full')] },
  { command: ends('interrupt'), before: [begins('full')], touches: false },
  { command: ends('resume'), before: [begins('full'), ends('interrupt')] },
  { command: { type: 'create-checkpoint', checkpoint: 'now', bitmaps: [b] } },
  { command: { type: 'create-checkpoint', checkpoint: 'now', bitmaps: [] }, touches: false },
  { command: { type: 'delete-checkpoint', checkpoint: 'then' } },
  { command: { type: 'forget-backup', backup: 'first' }, touches: false },
  {
    command: { type: 'record-combined', backup: 'both', of: ['first', 'second'] },
    touches: false,
  },
  { command: { type: 'add-disk', disk: 'f', size: MiB }, touches: false },
]

/** As `killed`, with more to do something with. The last event of the disk is a write. */
async function killedWith(before: readonly StoreCommand[] = []) {
  const log = new MemoryEventLog()
  const store = await openMemoryStore({ log })
  const disk = await store.ensureDisk('d', { size: SIZE, quiet: true })
  await (await store.ensureDisk('e', { size: SIZE })).addBitmap('x')
  await disk.ensureBitmap('b', { retention: 4 })
  await disk.addBitmap('c', { retention: 1 })
  for (const id of ['first', 'second']) {
    await disk.recordWrites([{ offset: 0, length: 512 }])
    await (await disk.beginBackup({ bitmap: 'b', mode: 'incremental', id })).succeed()
  }
  await store.createCheckpoint('then', { bitmaps: [b] })
  // Members of a group begin in one record (R14).
  const group = before.filter((command) => 'group' in command)
  if (group.length > 0) await store.transaction(group)
  for (const command of before) if (!('group' in command)) await store.transaction([command])
  const { first } = await disk.recordWrites([{ offset: 0, length: 512 }])
  return { log, last: first }
}

/** The store of a process that did this, and was then killed as well. */
async function killedAgain(log: MemoryEventLog, commands: readonly StoreCommand[]) {
  const again = new MemoryEventLog(log.storage)
  const store = await openMemoryStore({ log: again })
  const answers = await store.transaction(commands, { commandId: 'once' })
  return { log: again, answers, at: store.head.position, events: await logOf(store, log.head.next) }
}

async function logOf(store: Store, position: number) {
  const events = []
  for await (const { type, disk } of store.log({ from: { position } })) events.push({ type, disk })
  return events
}

/** R26, R28: an incident of it is legal, and is what the same commands come to today; also anonymised. */
async function judge(store: Store, commands?: readonly StoreCommand[]): Promise<void> {
  for (const anonymise of [false, true]) {
    const player = await playIncident((await recordIncident(store, { anonymise })).bytes)
    expect(await player.verify()).toEqual([])
    for (const { verdict } of player.redecide()) expect(['same', 'unknown']).toContain(verdict.kind)
    const asked = [...player.commands()].find(({ meta }) => meta.commandId !== undefined)?.asked
    if (asked?.kind === 'commands' && commands !== undefined)
      expect(asked.commands.map(({ type }) => type)).toEqual(commands.map(({ type }) => type))
    await player.close()
  }
}

const titled = CASES.map((one) => {
  const about = one.before === undefined ? '' : ` behind ${one.before.map(({ type }) => type).join(', ')}`
  return [`${JSON.stringify(one.command)}${about}`, one] as const
})

test.each(titled)(
  'R32, R35: two unclean ends with one command between them leave no hole: %s',
  async (_, one) => {
    const { command, before, touches = true } = one
    const first = await killedWith(before)
    const second = await killedAgain(first.log, [command])
    expect(second.events.filter(({ type, disk }) => type === 'stretch-lost' && disk === 'd')).toHaveLength(
      Number(touches) + Number(command.type === 'declare-lost'),
    )
    if (touches) expect(second.events[0]?.type).toBe('stretch-lost')

    const store = await reopened(second.log)
    const span = { since: { position: first.last }, until: { position: second.at } }
    expect(await store.disk('d').changed(span)).toMatchObject({
      complete: false,
      bytes: store.disk('d').info.size,
    })
    expect(await store.transaction([command], { commandId: 'once' }), 'R13').toEqual(second.answers)
    const disk = await store.ensureDisk('d', { size: store.disk('d').info.size })
    const attached = store.head.position
    expect(unknown(disk.info)).toEqual(touches ? [first.last, second.at, attached] : [first.last, attached])
    expect(await disk.changed(span)).toMatchObject({ complete: false, bytes: disk.info.size })
    expect(await disk.changed({ since: { position: attached } })).toMatchObject({ complete: true, bytes: 0 })
    await judge(store, [command])
    await store.close()
  },
)

test('R32: who attaches quietly after the second end vouches for what came after it, and for nothing before', async () => {
  const first = await killedWith()
  const { log, at } = await killedAgain(first.log, [{ type: 'clear-bitmap', ...b }])
  const store = await reopened(log)
  const disk = await store.ensureDisk('d', { size: SIZE, quiet: true })
  expect(unknown(disk.info)).toEqual([first.last, at])
  expect(await disk.changed({ since: { position: first.last } })).toMatchObject({
    complete: false,
    bytes: SIZE,
  })
  expect(await disk.changed({ since: { position: at } })).toMatchObject({ complete: true, bytes: 0 })
})

test('R32: who attaches quietly before any command loses nothing, whatever follows, in a record of its own or not', async () => {
  const attach = { type: 'attach-disk', disk: 'd', recorder: 'caller', quiet: true } as const
  const commands: StoreCommand[] = [
    { type: 'clear-bitmap', ...c },
    { type: 'remove-bitmap', ...c },
    begins('incremental'),
    { type: 'resize-disk', disk: 'e', size: 2 * SIZE },
  ]
  for (const apart of [true, false]) {
    const { log } = await killedWith()
    const store = await reopened(log)
    if (apart) await store.transaction([attach])
    await store.transaction(apart ? commands : [attach, ...commands])
    expect(store.disk('d').info.lost).toEqual([])
    expect(store.backup('on-b').info.bytes).toBe(granule)
    expect(store.disk('e').info.lost).toHaveLength(1)
    await judge(store)
    await store.close()
  }
})

test('R13, R20: a transaction tells each disk once, ahead of what touches it, and its answers name the right positions', async () => {
  const first = await killedWith([begins('full', 'c')])
  const commands: StoreCommand[] = [
    { type: 'enable-bitmap', ...b },
    { type: 'add-bitmap', disk: 'd', bitmap: 'new' },
    { type: 'declare-lost', disk: 'd', from: null, reason: 'a cable' },
    { type: 'remove-bitmap', ...b },
    { type: 'add-bitmap', disk: 'e', bitmap: 'new' },
    { type: 'merge-bitmaps', disk: 'e', bitmap: 'new', sources: [] },
    { type: 'succeed-backup', backup: 'on-c' },
  ]
  const { log, answers, at, events } = await killedAgain(first.log, commands)
  expect(events.map(({ type }) => type)).toEqual([
    'stretch-lost',
    'bitmap-added',
    'stretch-lost',
    'stretch-lost',
    'bitmap-added',
    'backup-succeeded',
    'bitmap-reset',
    'bitmap-removed',
  ])
  const store = await reopened(log)
  const generations = answers.map((answer) => (answer as { generation?: number }).generation)
  expect(generations[1]).toBe(store.disk('d').bitmap('new').info.generation)
  expect(generations[4]).toBe(store.disk('e').bitmap('new').info.generation)
  expect(generations[6]).toBe(store.disk('d').bitmap('c').info.generation)
  expect(await store.transaction(commands, { commandId: 'once' })).toEqual(answers)
  expect(unknown(store.disk('d').info)).toEqual([first.last, at])
  await judge(store)
  await store.close()
})

test('R13, R20: a removal tells where it was asked for, though its own event comes last', async () => {
  const commands: StoreCommand[] = [
    { type: 'remove-bitmap', ...c },
    { type: 'add-bitmap', disk: 'e', bitmap: 'new' },
    { type: 'clear-bitmap', ...b },
  ]
  const { log, answers, events, at } = await killedAgain((await killedWith()).log, commands)
  expect(events.map(({ type, disk }) => [type, disk])).toEqual([
    ['stretch-lost', 'd'],
    ['stretch-lost', 'e'],
    ['bitmap-added', 'e'],
    ['bitmap-cleared', 'd'],
    ['bitmap-removed', 'd'],
  ])
  const store = await reopened(log)
  expect(answers[1]).toMatchObject({ generation: store.disk('e').bitmap('new').info.generation })
  expect(await store.transaction(commands, { commandId: 'once' })).toEqual(answers)
  expect(store.head.position).toBe(at)
  await judge(store, commands)
  await store.close()
})

test('R35: a slice holds the stretch exactly when its backup began after the unclean end', async () => {
  const room = { type: 'set-retention', ...b, retention: 8 } as const
  const { log, last } = await killedWith([room, begins('incremental')])
  const store = await reopened(log)
  await store.backup('on-b').succeed()
  const slices = async () =>
    (await store.disk('d').bitmap('b').slices()).slices.map(({ lost }) => lost.length)
  const before = await slices()
  expect(before.at(-1)).toBe(0)
  await store.transaction([{ ...begins('incremental'), backup: 'next' } as StoreCommand])
  await store.backup('next').succeed()
  expect(await slices()).toEqual([...before, 2])
  expect(unknown(store.disk('d').info).at(0)).toBe(last)
  await store.close()
})

test('R23, R32: of a disk that is removed the stretch is told too, so that its past stays doubtful', async () => {
  const first = await killedWith()
  const { log, at } = await killedAgain(first.log, [{ type: 'add-disk', disk: 'f', size: MiB }])
  const store = await reopened(log)
  const span = { since: { backup: 'second' }, until: { position: at } } as const
  expect(await store.disk('d').changed(span)).toMatchObject({ complete: false, bytes: SIZE })
  await store.removeDisk('d')
  expect((await logOf(store, at + 1)).map(({ type }) => type)).toEqual(['stretch-lost', 'disk-removed'])
  const again = await reopened(log)
  expect(await again.changed('d', span)).toMatchObject({ complete: false, bytes: SIZE })
  await judge(again, [{ type: 'add-disk', disk: 'f', size: MiB }])
  await store.close()
})

test('R10, R32: that a backup is found interrupted at open is no event of its disk: nothing is told, and nothing forgotten', async () => {
  for (const quiet of [true, false]) {
    const { log, last } = await killedWith([{ ...begins('incremental'), copiedBy: 'store' } as StoreCommand])
    const between = new MemoryEventLog(log.storage)
    const found = await openMemoryStore({ log: between })
    expect(found.backup('on-b').info.state).toBe('interrupted')
    const store = await reopened(between)
    const disk = await store.ensureDisk('d', { size: SIZE, quiet })
    expect(unknown(disk.info)).toEqual(quiet ? [] : [last, store.head.position])
    await store.close()
  }
})
