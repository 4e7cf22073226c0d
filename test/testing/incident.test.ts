/** Incidents: what was recorded from a store is played back the same, however it was cut, thinned or renamed (issue part 9). */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import fc from 'fast-check'
import { afterEach, describe, expect, test } from 'vitest'
import { CheckpointError, type ErrorCode, openMemoryStore, openStore, type Store } from '../../src/index.ts'
import { MemoryEventLog } from '../../src/log/memory-log.ts'
import { coreOf } from '../../src/store/store.ts'
import { manualClock } from '../../src/testing/clock.ts'
import { decodeIncident, encodeIncident } from '../../src/testing/incident-file.ts'
import { type IncidentPlayer, playIncident } from '../../src/testing/player.ts'
import { recordIncident, recordIncidentFile } from '../../src/testing/recorder.ts'
import { command, DISKS, drive, prepare, write } from '../audit/drive.ts'
import { viewOf } from '../store/world.ts'
import { prng, proof } from '../support/property.ts'

const T0 = Date.UTC(2026, 2, 1, 9)

/** A random history: a few hundred events on three disks, with a clock that moves. */
async function history(seed: number, steps: number): Promise<Store> {
  const random = prng(seed)
  const clock = manualClock(T0)
  const store = await openMemoryStore({ clock, log: new MemoryEventLog(), actor: 'agent' })
  await prepare(store)
  for (let i = 0; i < steps; i++) {
    clock.advance(Math.floor(random() * 90_000))
    if (random() < 0.6) await write(store, random)
    else await command(store, random, `${seed}-${i}`)
  }
  return store
}

/** Ends of records of events, from a position on. */
async function ends(store: Store, from: number): Promise<number[]> {
  const found: number[] = []
  for await (const followed of store.follow({ from: 'start' })) {
    if (followed.kind !== 'records') break
    for (const record of followed.records) {
      const end = record.first + record.count - 1
      if (record.kind === 'events' && end >= from) found.push(end)
    }
  }
  return found
}

/** Every digest, slice and count, at every event that is no write. */
async function viewsAt(store: Store, positions: readonly number[]): Promise<string[]> {
  const views: string[] = []
  for (const position of positions) views.push(await viewOf(await store.at({ position })))
  return views
}

async function plansOf(store: Store): Promise<unknown[]> {
  return await Promise.all(
    store.backups().map(async ({ id, digest }) => {
      const plan = await store.replayPlan(id)
      return [plan.point, plan.base.position, plan.digest, plan.bytes, plan.extents, plan.digest === digest]
    }),
  )
}

const everything = (player: IncidentPlayer) => player.store.log()

async function eventsOf(store: Store) {
  const events = []
  for await (const event of store.log()) events.push(event)
  return events
}

describe('played back', () => {
  test('R22, R26: any random history is the same store again: events, times, digests, plans; also cut, folded and thinned', async () => {
    await fc.assert(
      fc.asyncProperty(fc.nat(), fc.double({ min: 0, max: 1, noNaN: true }), async (seed, cut) => {
        const store = await history(seed, 40)
        const head = store.head.position
        const from = Math.floor(head * cut)
        const positions = await ends(store, 0)
        const views = await viewsAt(store, positions)
        const plans = await plansOf(store)

        const { bytes } = await recordIncident(store)
        const whole = await playIncident(bytes)
        expect(await eventsOf(whole.store)).toEqual(await eventsOf(store))
        expect(whole.store.head, 'nothing was lost: the chain ends in the same hash').toEqual(store.head)
        expect(await viewsAt(whole.store, positions)).toEqual(views)
        expect(await plansOf(whole.store)).toEqual(plans)
        expect(await whole.verify()).toEqual([])

        // R29: before `from` there are windows, and every event that is no write sees the same bits all the same.
        const later = await playIncident((await recordIncident(store, { from: { position: from } })).bytes)
        const { position } = later.info.from
        expect(await viewsAt(later.store, positions)).toEqual(views)
        expect(await plansOf(later.store)).toEqual(plans)
        // Nothing, where the cut lies in the last record.
        const behind = async (of: Store) => (await eventsOf(of)).filter((event) => event.position > position)
        expect(await behind(later.store)).toEqual(await behind(store))
        expect(await later.verify()).toEqual([])

        const earlier = await playIncident((await recordIncident(store, { to: { position: from } })).bytes)
        const end = earlier.info.to.position
        expect(await viewOf(earlier.store)).toBe(await viewOf(await store.at({ position: end })))
        expect(earlier.store.head.time).toBe(earlier.info.to.time)

        const disk = DISKS[seed % DISKS.length]!
        const one = await playIncident((await recordIncident(store, { disks: [disk] })).bytes)
        const linesOf = (text: string) =>
          text.split(/\n(?=disk|backup|checkpoint)/).filter((part) => part.startsWith(`disk ${disk} `))
        expect((await viewsAt(one.store, positions)).map(linesOf)).toEqual(views.map(linesOf))
        expect(one.info.disks).toEqual([disk])
        expect(await one.verify()).toEqual([])
        for (const player of [whole, later, earlier, one]) await player.close()
        await store.close()
      }),
      proof('incidents recorded and played', 12, 400),
    )
  })

  test('R26: anonymised and moved in time, every digest and plan stays, and distances of time too', async () => {
    await fc.assert(
      fc.asyncProperty(fc.nat(), fc.boolean(), async (seed, cut) => {
        const store = await history(seed, 40)
        const positions = await ends(store, 0)
        const epoch = Date.UTC(2000, 0, 1)
        const from = cut ? { from: { position: Math.floor(store.head.position / 2) } } : {}
        const recorded = await recordIncident(store, { anonymise: true, epoch, ...from })
        const player = await playIncident(recorded.bytes)
        const bare = (view: string) =>
          view
            .split('\n')
            .map((line) => line.replace(/^(disk|backup|checkpoint| {2}) ?\S+/, '$1'))
            // What a combined copy was made of: how many, since their names are others.
            .map((line) =>
              line.replace(/(?<=^backup .* )backup-\S+$/, (ids) => `${ids.split(',').length} copies`),
            )
            .join('\n')
        expect((await viewsAt(player.store, positions)).map(bare)).toEqual(
          (await viewsAt(store, positions)).map(bare),
        )
        const moved = epoch - T0
        const timeOf = async (of: Store) =>
          (await Promise.all(positions.map((position) => of.at({ position })))).map(
            ({ point }) => point.time!,
          )
        expect(await timeOf(player.store)).toEqual((await timeOf(store)).map((time) => time + moved))
        const digests = (of: Store) => of.backups().map(({ digest, bytes, state }) => [digest, bytes, state])
        expect(digests(player.store)).toEqual(digests(store))
        for (const { id, digest } of player.store.backups())
          expect((await player.store.replayPlan(id)).digest).toBe(digest)
        expect(await player.verify()).toEqual([])
        expect(player.info).toMatchObject({ anonymised: true, shifted: true })
        await player.close()
        await store.close()
      }),
      proof('incidents anonymised and played', 12, 400),
    )
  })

  test('no name, id, actor or reason of the store is anywhere in an anonymised file, packed or unpacked', async () => {
    const name = fc.stringMatching(/^[a-z]{14,20}$/)
    await fc.assert(
      fc.asyncProperty(fc.uniqueArray(name, { minLength: 14, maxLength: 14 }), async (names) => {
        const store = await namedStore(names)
        const { bytes } = await recordIncident(store, { anonymise: true })
        const { info, entries } = decodeIncident(bytes)
        const searched = [
          Buffer.from(bytes),
          Buffer.from(gunzipSync(bytes.subarray(bytes.indexOf(10) + 33))),
          Buffer.from(JSON.stringify(info)),
          ...entries.map(({ value }) => Buffer.from(value)),
        ]
        for (const secret of names)
          for (const part of searched) expect(part.includes(secret), secret).toBe(false)
        const player = await playIncident(bytes)
        const [first] = player.store.disks()
        expect(first?.disk).toBe('disk-1')
        expect(player.store.backups().map(({ id, base }) => [id, base.name])).toEqual([
          ['backup-1', undefined],
          ['backup-2', 'checkpoint-1'],
          ['backup-3', 'backup-2'],
        ])
        await player.close()
        // The control: kept names are there, so looking for them can find them.
        const kept = decodeIncident((await recordIncident(store)).bytes)
        const text = Buffer.concat(kept.entries.map(({ value }) => Buffer.from(value)))
        for (const secret of names) expect(text.includes(secret), secret).toBe(true)
        await store.close()
      }),
      proof('names in anonymised incidents', 15, 500),
    )
  })

  test('two anonymised recordings of the same store differ only in hashes that no key is kept for', async () => {
    const store = await namedStore(Array.from({ length: 14 }, (_, i) => `secret-number-${i}`))
    const hashes = async () => {
      const player = await playIncident((await recordIncident(store, { anonymise: true })).bytes)
      const events = []
      for await (const { cause, ...event } of everything(player))
        events.push([event, cause.commandId, cause.argumentsHash])
      await player.close()
      return events
    }
    const [a, b] = [await hashes(), await hashes()]
    expect(a.map(([event, id]) => [event, id])).toEqual(b.map(([event, id]) => [event, id]))
    const last = a.findLastIndex(([, id]) => id !== undefined)
    expect(a[last]![2]).toMatch(/^[0-9a-f]{64}$/)
    expect(a[last]![2]).not.toBe(b[last]![2])
    await store.close()
  })
})

/** A store in which every kind of text that a caller gives occurs; all of them are in `names`. */
async function namedStore(names: readonly string[]): Promise<Store> {
  const [
    disk,
    bitmap,
    full,
    checkpoint,
    since,
    chained,
    actor,
    command,
    correlation,
    causation,
    lost,
    failed,
    cancelled,
    other,
  ] = names as string[] & { length: 14 }
  const store = await openMemoryStore({ clock: manualClock(T0), actor: actor! })
  const vda = await store.ensureDisk(disk!, { size: 1 << 20 })
  const held = await vda.addBitmap(bitmap!, { granularity: 4096, retention: 9 }, { commandId: command! })
  await vda.recordWrites([{ offset: 0, length: 5000 }])
  const options = { correlationId: correlation!, causationId: causation! }
  await (await vda.beginBackup({ bitmap: bitmap!, mode: 'full', id: full! }, options)).fail(failed!)
  await store.createCheckpoint(checkpoint!, { bitmaps: [{ disk: disk!, bitmap: bitmap! }] })
  const backup = {
    bitmap: bitmap!,
    mode: 'differential',
    id: since!,
    since: { checkpoint: checkpoint! },
  } as const
  await (await vda.beginBackup(backup)).succeed()
  await held.bank()
  const next = { bitmap: bitmap!, mode: 'differential', id: chained!, since: { backup: since! } } as const
  await (await vda.beginBackup(next)).cancel(cancelled!)
  await vda.declareLost(lost!)
  await vda.addBitmap(other!)
  return store
}

test('R4: an incident of one disk brings along the disks that its bitmaps were merged from, and no other', async () => {
  const store = await openMemoryStore({ clock: manualClock(T0) })
  for (const id of ['a', 'b', 'c', 'd']) {
    const disk = await store.ensureDisk(id, { size: 1 << 20 })
    await disk.addBitmap('bits', { granularity: 4096 })
    await disk.recordWrites([{ offset: id.charCodeAt(0) * 4096, length: 1 }])
  }
  await store
    .disk('b')
    .bitmap('bits')
    .merge([{ disk: 'c', bitmap: 'bits' }])
  await store
    .disk('a')
    .bitmap('bits')
    .merge([{ disk: 'b', bitmap: 'bits' }])
  const player = await playIncident((await recordIncident(store, { disks: ['a'] })).bytes)
  expect(player.info.disks).toEqual(['a', 'b', 'c'])
  expect((await player.store.bits('a', 'bits')).digest).toBe((await store.bits('a', 'bits')).digest)
  expect(
    player.redecide().filter(({ verdict }) => verdict.kind === 'different' || verdict.kind === 'refused'),
  ).toEqual([])
  await player.close()
  await store.close()
})

describe('step by step', () => {
  test('R22: a player stands at any point as if nothing had happened after it, and goes on from there', async () => {
    const store = await history(7, 60)
    const player = await playIncident((await recordIncident(store)).bytes)
    for (const position of [0, 5, Math.floor(store.head.position / 2), store.head.position]) {
      const then = await player.to({ position })
      const { point } = await store.at({ position })
      expect(then.head.position).toBe(point.position)
      expect(await viewOf(then)).toBe(await viewOf(await store.at({ position })))
    }
    const then = await player.to({ position: 12 })
    await then.createCheckpoint('tried-in-a-test')
    expect(then.checkpoints().map(({ name }) => name)).toContain('tried-in-a-test')
    expect(player.store.checkpoints().map(({ name }) => name)).not.toContain('tried-in-a-test')
    await player.close()
    await store.close()
  })

  test('R13: a command id of the incident is answered as it was then', async () => {
    const store = await openMemoryStore({ clock: manualClock(T0) })
    const disk = await store.ensureDisk('vda', { size: 1 << 20 })
    const bitmap = await disk.addBitmap('daily', { granularity: 4096, retention: 2 })
    const first = await bitmap.bank({ commandId: 'bank-once' })
    await disk.recordWrites([{ offset: 0, length: 1 }])
    const player = await playIncident((await recordIncident(store)).bytes)
    const { position } = player.store.head
    expect(await player.store.disk('vda').bitmap('daily').bank({ commandId: 'bank-once' })).toEqual(first)
    expect(player.store.head.position, 'nothing was recorded again').toBe(position)
    await player.close()
    await store.close()
  })
})

describe('decided again', () => {
  test('every command of a random history whose question can be read off its events gives the same events today', async () => {
    const counts = { same: 0, unknown: 0 }
    await fc.assert(
      fc.asyncProperty(fc.nat(), fc.boolean(), async (seed, anonymise) => {
        const store = await history(seed, 60)
        const player = await playIncident((await recordIncident(store, { anonymise })).bytes)
        const decided = player.redecide()
        expect(decided.length).toBe([...player.commands()].length)
        for (const { verdict, name, events } of decided) {
          if (verdict.kind === 'unknown') {
            counts.unknown++
            expect(verdict.why).toMatch(/nothing|not recorded|by itself|do not say/)
            continue
          }
          expect([name, events, verdict.kind === 'refused' ? verdict.error : verdict]).toEqual([
            name,
            events,
            { kind: 'same' },
          ])
          counts.same++
        }
        await player.close()
        await store.close()
      }),
      proof('commands decided again', 12, 400),
    )
    expect(counts.same).toBeGreaterThan(20 * Math.max(1, counts.unknown / 4))
  })

  test('R15: a rule that says otherwise today shows at its position: here a retention that was never there', async () => {
    const store = await openMemoryStore({ clock: manualClock(T0) })
    const disk = await store.ensureDisk('vda', { size: 1 << 20 })
    const bitmap = await disk.addBitmap('daily', { granularity: 4096, retention: 1 })
    await bitmap.bank()
    const content = decodeIncident((await recordIncident(store)).bytes)
    const player = await playIncident(encodeIncident(content))
    expect(player.redecide().map(({ name, verdict }) => [name, verdict.kind])).toEqual([
      ['ensure-disk', 'same'],
      ['add-bitmap', 'same'],
      ['bank', 'same'],
    ])
    await player.close()
    const tampered = await playIncident(encodeIncident(await withRetention(store, 0)))
    const verdicts = tampered.redecide().map(({ name, verdict }) => [name, verdict.kind])
    expect(verdicts.at(-1)).toEqual(['bank', 'refused'])
    expect((await tampered.verify()).map(({ code }) => code)).toContain('EVENT_ILLEGAL')
    await tampered.close()
    await store.close()
  })
})

/** The same incident, with a bitmap that was added with another retention. */
async function withRetention(store: Store, retention: number) {
  const { encodeEvents, EMPTY_HASH } = await import('../../events/record.ts')
  const entries = []
  let hash = EMPTY_HASH
  let events = 0
  for await (const followed of store.follow({ from: 'start' })) {
    if (followed.kind !== 'records') break
    for (const record of followed.records) {
      if (record.kind !== 'events') throw new Error('only events here')
      const changed = record.events.map((event) =>
        event.type === 'bitmap-added' ? { ...event, retention } : event,
      )
      const encoded = encodeEvents(record.first, record.time, record.meta, changed, hash)
      hash = encoded.hash
      events = record.first + record.count
      entries.push({ position: record.first, value: encoded.bytes })
    }
  }
  const { info } = decodeIncident((await recordIncident(store)).bytes)
  return { info: { ...info, events }, entries }
}

describe('files that are none', () => {
  async function refusedWith(code: ErrorCode, bytes: Uint8Array): Promise<void> {
    const error = await playIncident(bytes).then(
      () => undefined,
      (reason: unknown) => reason,
    )
    expect(error).toBeInstanceOf(CheckpointError)
    expect((error as CheckpointError).code, (error as CheckpointError).message).toBe(code)
  }

  test('every cut and every flipped bit is refused with INCIDENT_INVALID, never played', async () => {
    const store = await history(3, 20)
    const { bytes } = await recordIncident(store)
    for (let end = 0; end < bytes.length; end += end < 64 ? 1 : 37)
      await refusedWith('INCIDENT_INVALID', bytes.subarray(0, end))
    const random = prng(11)
    for (let i = 0; i < 400; i++) {
      const flipped = bytes.slice()
      const at = i < bytes.indexOf(10) + 40 ? i : Math.floor(random() * bytes.length)
      flipped[at] = flipped[at]! ^ (1 << Math.floor(random() * 8))
      const error = await playIncident(flipped).catch((reason: unknown) => reason)
      expect(error).toBeInstanceOf(CheckpointError)
      // A flip in the version itself names a version that nobody knows.
      expect(['INCIDENT_INVALID', 'FORMAT_TOO_NEW']).toContain((error as CheckpointError).code)
    }
    await store.close()
  })

  test('a later version is named as one, other files are not taken for one', async () => {
    const store = await history(4, 5)
    const { bytes } = await recordIncident(store)
    const newer = Buffer.concat([Buffer.from('slicelog-incident 2\n'), bytes.subarray(bytes.indexOf(10) + 1)])
    await refusedWith('FORMAT_TOO_NEW', newer)
    await refusedWith('INCIDENT_INVALID', Buffer.from('slicelog-incident 0\n'))
    await refusedWith('INCIDENT_INVALID', Buffer.from('{"some":"json"}\n'))
    await refusedWith('INCIDENT_INVALID', new Uint8Array(0))
    const { info, entries } = decodeIncident(bytes)
    await refusedWith(
      'INCIDENT_INVALID',
      encodeIncident({ info: { ...info, events: info.events + 1 }, entries }),
    )
    await refusedWith('INCIDENT_INVALID', encodeIncident({ info, entries: entries.slice(1) }))
    await store.close()
  })

  test('a span that is none, and a disk that never was, are refused before anything is written', async () => {
    const store = await history(5, 5)
    const refusal = async (options: Parameters<typeof recordIncident>[1]) =>
      ((await recordIncident(store, options).catch((error: unknown) => error)) as CheckpointError).code
    expect(await refusal({ from: 'now', to: 'start' })).toBe('POINT_ORDER')
    expect(await refusal({ disks: ['vm/none'] })).toBe('DISK_NOT_FOUND')
    expect(await refusal({ to: { position: 1_000_000 } })).toBe('POINT_NOT_FOUND')
    expect(await refusal({ signal: AbortSignal.abort() })).toBe('ABORTED')
    await store.close()
  })
})

test('an empty store is an incident of nothing', async () => {
  const store = await openMemoryStore()
  const player = await playIncident((await recordIncident(store)).bytes)
  expect(player.info).toMatchObject({ events: 0, records: 0, disks: [] })
  expect(player.store.head.position).toBe(-1)
  await player.close()
  await store.close()
})

test('a history of a real length is small: bytes an event', async () => {
  const store = await openMemoryStore({ clock: manualClock(T0) })
  await drive(store, prng(9), 300, 'long')
  const { bytes, info } = await recordIncident(store)
  const folded = await recordIncident(store, { from: 'now' })
  expect(bytes.length).toBeLessThan(6 * info.events)
  expect(folded.bytes.length).toBeLessThan(bytes.length)
  await store.close()
})

describe('an incident that cannot be recorded to its end', () => {
  const folders = new Set<string>()
  afterEach(async () => {
    for (const folder of folders) await rm(folder, { recursive: true, force: true })
    folders.clear()
  })

  /** More stored values than are read at once: each is too large to be joined with others. */
  async function long(): Promise<Store> {
    const folder = await mkdtemp(join(tmpdir(), 'slicelog-incident-'))
    folders.add(folder)
    const store = await openStore(folder, { clock: manualClock(T0) })
    const disk = await store.ensureDisk('vda', { size: 2 ** 30 })
    for (let i = 0; i < 60; i++)
      await disk.recordWrites(
        Array.from({ length: 4096 }, (_, row) => ({
          offset: ((row * 7919 + i * 104729) % 2 ** 20) * 1024,
          length: 512 + i,
        })),
      )
    return store
  }

  test('R34: a store that is closed midway ends the recording with STORE_CLOSED, never with a shorter file', async () => {
    const store = await long()
    const { log } = coreOf(store)
    const read = log.read.bind(log)
    let batches = 0
    log.read = async function* (options) {
      log.read = read
      for await (const records of read(options)) {
        batches++
        yield records
        await store.close()
      }
    }
    await expect(recordIncident(store)).rejects.toMatchObject({ code: 'STORE_CLOSED' })
    expect(batches).toBeGreaterThan(0)
    await expect(recordIncident(store)).rejects.toMatchObject({ code: 'STORE_CLOSED' })
    await store.close()
  })

  test('a caller who gives up gets ABORTED, whenever that is', async () => {
    const store = await long()
    await expect(recordIncident(store, { signal: AbortSignal.abort() })).rejects.toMatchObject({
      code: 'ABORTED',
    })
    const { position: last } = store.head
    for (const when of ['first', 'last'] as const) {
      const giving = new AbortController()
      const recording = recordIncident(store, {
        signal: giving.signal,
        onProgress: (position) => {
          if (when === 'first' || position === last) giving.abort('enough')
        },
      })
      await expect(recording).rejects.toMatchObject({ code: 'ABORTED', cause: 'enough' })
    }
    await store.close()
  })

  test('TARGET_EXISTS: a file that is there is not written over', async () => {
    const store = await history(1, 10)
    const folder = await mkdtemp(join(tmpdir(), 'slicelog-incident-'))
    folders.add(folder)
    const file = join(folder, 'there')
    await writeFile(file, 'something else')
    await expect(recordIncidentFile(store, file)).rejects.toMatchObject({
      code: 'TARGET_EXISTS',
      facts: { target: file },
    })
    expect(await readFile(file, 'utf8')).toBe('something else')
    await expect(recordIncidentFile(store, join(folder, 'no', 'folder'))).rejects.toMatchObject({
      code: 'IO_FAILED',
    })
    await store.close()
  })
})
